//! The service of test failovers and failovers.

use std::time::Duration;

use farshore_blocks::{Sequence, clock::WallTime};
use farshore_domain::{job::Job, point_choice::PointChoice};
use farshore_proto::v1::{self, command, command_result::Outcome, failovers_server::Failovers};
use jiff::Timestamp;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    messages,
    pages::{PageRequest, Sorting, page},
};
use crate::{
    control::Control,
    jobs::{choose, list_points},
    orders::{self, Fresh, Idempotency, Refusal, answered, once},
    records::{self, Answer, Leftovers, TestRecord, VmRecord},
    replicators::{Duty, Order},
};

/// How long a user waits for a vault's list of points.
const POINTS_WITHIN: Duration = Duration::from_secs(10);

/// Serves [`v1::failovers_server::Failovers`].
pub struct FailoversService {
    control: Control,
}

impl FailoversService {
    /// Over these parts.
    #[must_use]
    pub fn new(control: Control) -> Self {
        Self { control }
    }

    fn test(&self, name: &str) -> Result<v1::TestFailover, Refusal> {
        let test = records::read::<TestRecord>(&*self.control.store, name)?;
        let test = test.ok_or_else(|| Refusal::NotFound {
            what: "test failover",
            name: name.to_owned(),
        })?;
        Ok(messages::test(&test, &self.control.view()))
    }

    /// What a user means, if the vault has it. `latest` is not looked up: the job does that. Nor is a request that
    /// was answered already: its answer stays what it was, whatever the vault has now.
    async fn choice(&self, vm: &str, point: &str, idempotency: &Idempotency) -> Result<PointChoice, Refusal> {
        let choice = parse_choice(point)?;
        let is_new = answered(&*self.control.store, idempotency)?.is_none();
        if is_new && choice != PointChoice::Latest {
            let points = points_of(&self.control, vm).await?;
            choose(choice, &points).map_err(|message| Refusal::NoSuchPoint {
                vm: vm.to_owned(),
                message,
            })?;
        }
        Ok(choice)
    }
}

/// The points of a VM that its vault has, as its replicator lists them now.
pub(super) async fn points_of(control: &Control, vm: &str) -> Result<Vec<v1::RecoveryPoint>, Refusal> {
    let not_found = || Refusal::NotFound {
        what: "protected VM",
        name: vm.to_owned(),
    };
    let record = records::read::<VmRecord>(&*control.store, vm)?.ok_or_else(not_found)?;
    let declared = records::declared_vm(&*control.store, vm)?.ok_or_else(not_found)?;
    if record.tenure.is_none() {
        // No vault was ever prepared for it.
        return Ok(Vec::new());
    }
    let order = Order {
        site: declared.target().site.to_string(),
        duty: Duty::Vault,
        id: format!("points/{}", Uuid::now_v7()),
        body: command::Body::ListPoints(list_points(record.chain)),
        deadline: POINTS_WITHIN,
    };
    let site = order.site.clone();
    let outcome = control.replicators.command(order).await?;
    if let Outcome::PointsListed(listed) = outcome {
        return Ok(listed.points);
    }
    if let Outcome::Failure(failure) = outcome {
        return Err(Refusal::Replicator {
            reason: failure.reason,
            message: failure.message,
        });
    }
    Err(Refusal::Replicator {
        reason: "replicator-malformed".to_owned(),
        message: format!("the replicator of {site} answered something else: {outcome:?}"),
    })
}

pub(super) fn parse_choice(point: &str) -> Result<PointChoice, Refusal> {
    if point.is_empty() || point == "latest" {
        return Ok(PointChoice::Latest);
    }
    if point == "latest-app-consistent" {
        return Ok(PointChoice::LatestAppConsistent);
    }
    if let Ok(sequence) = point.parse() {
        return Ok(PointChoice::Sequence(Sequence(sequence)));
    }
    let time = point.parse::<Timestamp>().ok();
    let nanoseconds = time.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    nanoseconds
        .map(|nanoseconds| PointChoice::NotAfter(WallTime(nanoseconds)))
        .ok_or_else(|| Refusal::InvalidField {
            field: "point",
            message: format!(
                "`{point}` is no point: `latest`, `latest-app-consistent`, a sequence like 42, or a time like \
                 2026-11-23T22:00:00Z is accepted"
            ),
        })
}

#[tonic::async_trait]
impl Failovers for FailoversService {
    async fn start_test(
        &self,
        request: Request<v1::StartTestRequest>,
    ) -> Result<Response<v1::TestFailover>, Status> {
        let request = request.into_inner();
        let asked = format!("{}\0{}", request.vm, request.point);
        let idempotency = Idempotency::of("start-test", &request.idempotency_key, asked.as_bytes())?;
        let choice = self.choice(&request.vm, &request.point, &idempotency).await?;
        let (fresh, now) = (Fresh::make()?, self.control.clock.now());
        let answer = once(&*self.control.store, &idempotency, now, |work| {
            orders::start_test(work, &request.vm, choice, &fresh, now).map(Answer::Test)
        })
        .await?;
        Ok(Response::new(self.test(&test_name(&answer))?))
    }

    async fn cleanup_test(
        &self,
        request: Request<v1::CleanupTestRequest>,
    ) -> Result<Response<v1::TestFailover>, Status> {
        let request = request.into_inner();
        let asked = format!("{}\0{}\0{}", request.name, request.force, request.notes);
        let idempotency = Idempotency::of("cleanup-test", &request.idempotency_key, asked.as_bytes())?;
        let leftovers = match request.force {
            true => Leftovers::Record,
            false => Leftovers::Refuse,
        };
        let (fresh, now) = (Fresh::make()?, self.control.clock.now());
        once(&*self.control.store, &idempotency, now, |work| {
            orders::clean_up(work, &request.name, &request.notes, leftovers, &fresh, now)
                .map(|()| Answer::Test(request.name.clone()))
        })
        .await?;
        Ok(Response::new(self.test(&request.name)?))
    }

    async fn list_tests(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListTestsResponse>, Status> {
        let view = self.control.view();
        let tests = records::list::<TestRecord>(&*self.control.store)?
            .iter()
            .map(|test| (test.name.clone(), messages::test(test, &view)))
            .collect();
        let wanted = PageRequest {
            size: request.get_ref().page_size,
            token: &request.get_ref().page_token,
        };
        let (tests, next_page_token) = page(tests, Sorting::Ascending, wanted)?;
        Ok(Response::new(v1::ListTestsResponse {
            tests,
            next_page_token,
        }))
    }

    async fn get_test(
        &self,
        request: Request<v1::GetTestRequest>,
    ) -> Result<Response<v1::TestFailover>, Status> {
        Ok(Response::new(self.test(&request.get_ref().name)?))
    }

    async fn start_unplanned(
        &self,
        request: Request<v1::StartUnplannedRequest>,
    ) -> Result<Response<v1::Job>, Status> {
        let request = request.into_inner();
        let asked = format!("{}\0{}", request.vm, request.point);
        let idempotency = Idempotency::of("start-unplanned", &request.idempotency_key, asked.as_bytes())?;
        let choice = self.choice(&request.vm, &request.point, &idempotency).await?;
        let (fresh, now) = (Fresh::make()?, self.control.clock.now());
        let answer = once(&*self.control.store, &idempotency, now, |work| {
            orders::start_unplanned(work, &request.vm, choice, &fresh, now).map(Answer::Job)
        })
        .await?;
        let id = match answer {
            Answer::Job(id) => id.0,
            Answer::Applied(_) | Answer::Deleted(_) | Answer::Test(_) | Answer::Point(_) => String::new(),
        };
        let job = records::read::<Job>(&*self.control.store, &id)?;
        let job = job.ok_or(Refusal::NotFound {
            what: "job",
            name: id,
        })?;
        Ok(Response::new(messages::job(&job)))
    }
}

fn test_name(answer: &Answer) -> String {
    match answer {
        Answer::Test(name) => name.clone(),
        Answer::Applied(_) | Answer::Deleted(_) | Answer::Job(_) | Answer::Point(_) => String::new(),
    }
}
