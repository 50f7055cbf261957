//! The service of jobs.

use farshore_domain::job::{Job, JobId};
use farshore_proto::v1::{self, jobs_server::Jobs};
use tonic::{Request, Response, Status};

use super::{
    messages,
    pages::{PageRequest, Sorting, page},
    watching::{Seen, Watching, watch},
};
use crate::{
    control::Control,
    orders::{self, Idempotency, Refusal, once},
    records::{self, Answer},
};

/// Serves [`v1::jobs_server::Jobs`].
pub struct JobsService {
    control: Control,
}

impl JobsService {
    /// Over these parts.
    #[must_use]
    pub fn new(control: Control) -> Self {
        Self { control }
    }
}

fn job(control: &Control, id: &str) -> Result<Job, Status> {
    let found = records::read::<Job>(&*control.store, id)?;
    Ok(found.ok_or_else(|| Refusal::NotFound {
        what: "job",
        name: id.to_owned(),
    })?)
}

#[tonic::async_trait]
impl Jobs for JobsService {
    type WatchJobStream = Watching<v1::Job>;

    async fn list_jobs(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let jobs = records::list::<Job>(&*self.control.store)?
            .iter()
            .map(|job| (job.id.0.clone(), messages::job(job)))
            .collect();
        let wanted = PageRequest {
            size: request.get_ref().page_size,
            token: &request.get_ref().page_token,
        };
        let (jobs, next_page_token) = page(jobs, Sorting::Descending, wanted)?;
        Ok(Response::new(v1::ListJobsResponse {
            jobs,
            next_page_token,
        }))
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let job = job(&self.control, &request.get_ref().id)?;
        Ok(Response::new(messages::job(&job)))
    }

    async fn watch_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let id = request.into_inner().id;
        job(&self.control, &id)?;
        let watching = watch(&self.control, move |control| {
            let job = job(control, &id)?;
            let message = messages::job(&job);
            Ok(match job.state.has_ended() {
                true => Seen::Final(message),
                false => Seen::Changing(message),
            })
        });
        Ok(Response::new(watching))
    }

    async fn retry_job(&self, request: Request<v1::ChangeJobRequest>) -> Result<Response<v1::Job>, Status> {
        let request = request.into_inner();
        let idempotency = Idempotency::of("retry-job", &request.idempotency_key, request.id.as_bytes())?;
        let now = self.control.clock.now();
        once(&*self.control.store, &idempotency, now, |work| {
            orders::retry(work, &request.id, now).map(|()| Answer::Job(JobId(request.id.clone())))
        })
        .await?;
        Ok(Response::new(messages::job(&job(&self.control, &request.id)?)))
    }

    async fn cancel_job(&self, request: Request<v1::ChangeJobRequest>) -> Result<Response<v1::Job>, Status> {
        let request = request.into_inner();
        let idempotency = Idempotency::of("cancel-job", &request.idempotency_key, request.id.as_bytes())?;
        let now = self.control.clock.now();
        once(&*self.control.store, &idempotency, now, |work| {
            orders::cancel(work, &request.id).map(|()| Answer::Job(JobId(request.id.clone())))
        })
        .await?;
        Ok(Response::new(messages::job(&job(&self.control, &request.id)?)))
    }
}
