//! Following work to its outcome: the steps of a job, and a VM on its way to protection.
//!
//! A connection that is lost on the way (the orchestrator restarts) is made again: the work goes on meanwhile, and
//! every stream begins with the present state.

use std::{future::Future, time::Duration};

use farshore_proto::v1::{GetJobRequest, GetVmRequest, Job, JobState, ProtectionState, Vm};
use tokio::time::{sleep, timeout};
use tonic::{Response, Status, Streaming};

use crate::{
    client::Client,
    exit::CliError,
    output::progress::{Progress, StepLines, SyncProgress},
    view::{JobView, VmView},
};

/// How long to wait before a lost connection is made again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// How many times in a row that is tried: about half a minute.
const RECONNECT_ATTEMPTS: u32 = 60;

/// Awaits `work` for as long as outcomes are waited for.
pub(crate) async fn within<T>(
    client: &Client,
    what: &str,
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    let limit = client.outcome_limit();
    let ended = timeout(limit, work).await;
    ended.map_err(|_| CliError::TimedOut {
        what: what.to_owned(),
        limit,
    })?
}

/// What the end of a job means for whoever waited for it.
pub(crate) fn outcome_of(job: &Job) -> Result<(), CliError> {
    let ended = match job.state() {
        JobState::Succeeded => return Ok(()),
        JobState::Cancelled => "was cancelled",
        JobState::Failed | JobState::Queued | JobState::Running | JobState::Unspecified => "failed",
    };
    let why = if job.error.is_empty() {
        String::new()
    } else {
        format!(": {}", job.error)
    };
    let retry = format!("`farshore job retry {}` tries it again", job.id);
    Err(CliError::Failed {
        message: format!(
            "job {} ({} of {}) {ended}{why}; {retry}",
            job.id, job.kind, job.subject
        ),
        reason: String::new(),
    })
}

/// Follows and tells.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    client: Client,
    progress: Progress,
}

/// Whether a stream has told all that was waited for.
enum Told<T> {
    Everything(T),
    NotYet,
}

impl Follower {
    /// One that tells `progress`.
    pub(crate) fn new(client: Client, progress: Progress) -> Self {
        Self { client, progress }
    }

    /// Until the job has ended, well or not.
    pub(crate) async fn until_ended(&self, id: &str) -> Result<Job, CliError> {
        let mut lines = StepLines::new(self.progress.clone());
        self.watch(
            "the job",
            || {
                let (mut jobs, request) = (self.client.jobs(), GetJobRequest { id: id.to_owned() });
                async move { jobs.watch_job(request).await.map(Response::into_inner) }
            },
            |job: Job| {
                lines.show(&JobView::from(job.clone()));
                Ok(if has_ended(&job) {
                    Told::Everything(job)
                } else {
                    Told::NotYet
                })
            },
        )
        .await
    }

    /// Until the job has succeeded.
    pub(crate) async fn until_done(&self, id: &str) -> Result<(), CliError> {
        outcome_of(&self.until_ended(id).await?)
    }

    /// Until the VM is protected, first following the job that makes it so.
    pub(crate) async fn until_protected(&self, name: &str, job: Option<&str>) -> Result<Vm, CliError> {
        if let Some(job) = job {
            self.until_done(job).await?;
        }
        let mut sync = SyncProgress::new(self.progress.clone(), name);
        self.watch(
            "protection",
            || {
                let (mut protection, request) = (
                    self.client.protection(),
                    GetVmRequest {
                        name: name.to_owned(),
                    },
                );
                async move { protection.watch_vm(request).await.map(Response::into_inner) }
            },
            |vm: Vm| {
                sync.show(&VmView::from(vm.clone()));
                protected(vm)
            },
        )
        .await
    }

    async fn watch<M, T, F>(
        &self,
        what: &str,
        open: impl Fn() -> F,
        mut tell: impl FnMut(M) -> Result<Told<T>, CliError>,
    ) -> Result<T, CliError>
    where
        F: Future<Output = Result<Streaming<M>, Status>>,
    {
        let mut attempts = 0;
        loop {
            let lost = match open().await {
                Ok(mut stream) => loop {
                    match stream.message().await {
                        Ok(Some(message)) => {
                            attempts = 0;
                            if let Told::Everything(outcome) = tell(message)? {
                                return Ok(outcome);
                            }
                        }
                        Ok(None) => break Status::unavailable("the stream ended before the work did"),
                        Err(status) => break status,
                    }
                },
                Err(status) => status,
            };
            let error = self.client.error(what, &lost);
            if !matches!(error, CliError::Unreachable { .. }) {
                return Err(error);
            }
            if attempts == 0 {
                self.progress
                    .line("the connection to the orchestrator was lost; trying again");
            }
            attempts += 1;
            if attempts > RECONNECT_ATTEMPTS {
                return Err(error);
            }
            sleep(RECONNECT_PAUSE).await;
        }
    }
}

fn has_ended(job: &Job) -> bool {
    match job.state() {
        JobState::Succeeded | JobState::Failed | JobState::Cancelled => true,
        JobState::Queued | JobState::Running | JobState::Unspecified => false,
    }
}

fn protected(vm: Vm) -> Result<Told<Vm>, CliError> {
    match vm.state() {
        ProtectionState::Protected => Ok(Told::Everything(vm)),
        ProtectionState::Failed | ProtectionState::Paused | ProtectionState::Disabling => {
            let view = VmView::from(vm);
            Err(CliError::Failed {
                message: format!(
                    "vm {} is {} and will not become protected by itself: {}",
                    view.name, view.state, view.state_detail
                ),
                reason: String::new(),
            })
        }
        ProtectionState::Unspecified
        | ProtectionState::Pending
        | ProtectionState::CheckingPrerequisites
        | ProtectionState::InstallingMobility
        | ProtectionState::PreparingTarget
        | ProtectionState::EnablingReplication
        | ProtectionState::InitialSync
        | ProtectionState::AwaitingRecoveryPoint
        | ProtectionState::Resynchronizing => Ok(Told::NotYet),
    }
}
