//! The orchestrator's API, called from inside a namespace without the command line in between: typed, and fast enough
//! to see a job's steps as they are begun.

use std::time::{Duration, Instant};

use farshore_proto::v1::{
    self, declarations_client::DeclarationsClient, failovers_client::FailoversClient,
    jobs_client::JobsClient, protection_client::ProtectionClient,
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{eventually, namespace};

const CALL: Duration = Duration::from_secs(20);

/// A client of one orchestrator.
#[derive(Debug, Clone)]
pub struct Control {
    namespace: String,
    server: String,
}

impl Control {
    /// Talks to `server` from inside `namespace`.
    #[must_use]
    pub fn new(namespace: &str, server: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            server: server.to_owned(),
        }
    }

    /// Does something with a connection, or gives the reason why there is none.
    ///
    /// # Errors
    /// When nobody answers, or what is done fails.
    pub fn talk<T: Send>(
        &self,
        work: impl AsyncFnOnce(Channel) -> Result<T, Status> + Send,
    ) -> Result<T, Status> {
        namespace::inside(&self.namespace, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let endpoint = Endpoint::from_shared(self.server.clone()).unwrap();
                let endpoint = endpoint.connect_timeout(CALL).timeout(CALL);
                let connected = endpoint.connect().await;
                let channel = connected.map_err(|error| Status::unavailable(error.to_string()))?;
                work(channel).await
            })
        })
    }

    /// The VM; `None` while the orchestrator does not answer or does not know it.
    #[must_use]
    pub fn vm(&self, name: &str) -> Option<v1::Vm> {
        let request = v1::GetVmRequest {
            name: name.to_owned(),
        };
        self.talk(async |channel| ProtectionClient::new(channel).get_vm(request).await)
            .ok()
            .map(tonic::Response::into_inner)
    }

    /// Waits until `reached` is true of the VM.
    ///
    /// # Panics
    /// When it is not within `patience`, with what the VM is.
    pub fn vm_when(
        &self,
        name: &str,
        what: &str,
        patience: Duration,
        reached: impl Fn(&v1::Vm) -> bool,
    ) -> v1::Vm {
        let deadline = Instant::now() + patience;
        let mut last = None;
        loop {
            last = self.vm(name).or(last);
            match &last {
                Some(vm) if reached(vm) => return vm.clone(),
                _ => assert!(
                    Instant::now() < deadline,
                    "{name}: not within {patience:?}: {what}: {last:#?}"
                ),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the VM is protected.
    pub fn protected(&self, name: &str, patience: Duration) -> v1::Vm {
        self.vm_when(name, "protected", patience, |vm| {
            vm.state() == v1::ProtectionState::Protected && vm.points > 0
        })
    }

    /// The job; `None` while the orchestrator does not answer.
    #[must_use]
    pub fn job(&self, id: &str) -> Option<v1::Job> {
        let request = v1::GetJobRequest { id: id.to_owned() };
        self.talk(async |channel| JobsClient::new(channel).get_job(request).await)
            .ok()
            .map(tonic::Response::into_inner)
    }

    /// Waits until the job has ended, well or not.
    ///
    /// # Panics
    /// When it has not within `patience`.
    pub fn ended(&self, id: &str, patience: Duration) -> v1::Job {
        eventually(patience, &format!("the job {id} ends"), || {
            self.job(id).filter(|job| {
                matches!(
                    job.state(),
                    v1::JobState::Succeeded | v1::JobState::Failed | v1::JobState::Cancelled
                )
            })
        })
    }

    /// Every job of a subject, like `vm/db`, newest first.
    #[must_use]
    pub fn jobs_of(&self, subject: &str) -> Vec<v1::Job> {
        let request = v1::ListRequest {
            page_size: 1000,
            page_token: String::new(),
        };
        let listed = self.talk(async |channel| JobsClient::new(channel).list_jobs(request).await);
        let jobs = listed.unwrap().into_inner().jobs;
        jobs.into_iter().filter(|job| job.subject == subject).collect()
    }

    /// Every test failover.
    #[must_use]
    pub fn tests(&self) -> Vec<v1::TestFailover> {
        let request = v1::ListRequest {
            page_size: 1000,
            page_token: String::new(),
        };
        let listed = self.talk(async |channel| FailoversClient::new(channel).list_tests(request).await);
        listed.unwrap().into_inner().tests
    }

    /// Applies a manifest under an idempotency key.
    ///
    /// # Errors
    /// When it is refused.
    pub fn apply(&self, key: &str, manifest: &str) -> Result<Vec<v1::Applied>, Status> {
        let request = v1::ApplyRequest {
            idempotency_key: key.to_owned(),
            manifest: manifest.to_owned(),
            dry_run: false,
        };
        self.talk(async |channel| DeclarationsClient::new(channel).apply(request).await)
            .map(|answer| answer.into_inner().applied)
    }
}
