//! Backup jobs of ours: how they are awaited, and how they are taken away when they are of no more use.
//!
//! A job goes from QEMU's list by itself when it has ended. Its filter lies above the disk as long as it runs and hides
//! whose the disk is, so that leftover jobs are ended before anything else is looked at.

use farshore_provider::SourceError;
use farshore_qmp::{Command, Event};
use serde_json::{Value, json};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    acting::await_gone, answers::Identified, hypervisor::Hypervisor, machine::Status,
    naming::is_our_identifier,
};

/// Ends every job of ours, and says whether there was one.
pub(crate) async fn end_left_over(hypervisor: &Hypervisor) -> Result<bool, SourceError> {
    let jobs: Vec<Identified> = hypervisor.query("query-jobs", Value::Null).await?;
    let ours: Vec<_> = jobs
        .into_iter()
        .filter(|job| is_our_identifier(&job.id))
        .collect();
    for job in &ours {
        cancel(hypervisor, &job.id).await?;
    }
    Ok(!ours.is_empty())
}

/// A job that has just ended by itself is not there any more, or cannot be cancelled any more.
async fn cancel(hypervisor: &Hypervisor, id: &str) -> Result<(), SourceError> {
    let events = hypervisor.events();
    let order = json!({"device": id, "force": true});
    match hypervisor.run("block-job-cancel", order).await {
        Ok(()) | Err(SourceError::Refused { .. }) => await_gone(hypervisor, events, "query-jobs", id).await,
        Err(other) => Err(other),
    }
}

/// What was learned of a set of jobs by their events.
#[derive(Debug, Default)]
struct Progress {
    /// Why one of them did not end well.
    failure: Option<String>,
    /// The VM stopped meanwhile.
    stopped: bool,
}

impl Progress {
    fn fail(&mut self, why: impl Into<String>) {
        self.failure.get_or_insert(why.into());
    }

    /// Takes an event in; a job that has gone goes from `there`.
    fn learn(&mut self, event: &Event, there: &mut Vec<String>) {
        let text = |field: &str| event.data.get(field).and_then(Value::as_str);
        let is_ours = |field: &str| text(field).is_some_and(|id| there.iter().any(|job| job == id));
        match event.name.as_str() {
            "STOP" => self.stopped = true,
            "BLOCK_JOB_COMPLETED" if is_ours("device") => {
                if let Some(error) = text("error") {
                    self.fail(error);
                }
            }
            "BLOCK_JOB_CANCELLED" if is_ours("device") => self.fail("it was cancelled"),
            "JOB_STATUS_CHANGE" if text("status") == Some("null") => {
                there.retain(|job| Some(job.as_str()) != text("id"));
            }
            _ => {}
        }
    }
}

/// Waits until all these jobs have ended well. `events` are those from before they began.
///
/// Where scratch space is used up nonetheless, QEMU pauses the VM: then the jobs are ended, and the VM goes on. A pause of
/// anyone else's is none of ours and stays.
pub(crate) async fn await_ends(
    hypervisor: &Hypervisor,
    mut events: Receiver<Event>,
    jobs: &[String],
) -> Result<(), SourceError> {
    let mut progress = Progress::default();
    let mut there = jobs.to_vec();
    while !there.is_empty() {
        match events.recv().await {
            Ok(event) => progress.learn(&event, &mut there),
            Err(RecvError::Lagged(_)) => {
                progress.fail("its end was not seen");
                let listed: Vec<Identified> = hypervisor.query("query-jobs", Value::Null).await?;
                there.retain(|job| listed.iter().any(|listed| listed.id == *job));
            }
            Err(RecvError::Closed) => {
                // The reason is the one of whatever is asked next.
                let _: Vec<Identified> = hypervisor.query("query-jobs", Value::Null).await?;
                return Err(hypervisor.tracking_lost("the monitor ended in the middle of a copy"));
            }
        }
        if progress.stopped && is_out_of_space(hypervisor).await? {
            end_left_over(hypervisor).await?;
            resume(hypervisor).await?;
            return Err(hypervisor.unfit("scratch space was used up, so that the copy was given up"));
        }
        progress.stopped = false;
    }
    match progress.failure {
        None => Ok(()),
        Some(why) => Err(hypervisor.unfit(format!(
            "what changed could not be copied to scratch space: {why}"
        ))),
    }
}

/// Whether QEMU paused the VM because a write of its failed.
async fn is_out_of_space(hypervisor: &Hypervisor) -> Result<bool, SourceError> {
    let status: Status = hypervisor.query("query-status", Value::Null).await?;
    Ok(status.is_io_error())
}

async fn resume(hypervisor: &Hypervisor) -> Result<(), SourceError> {
    tracing::warn!(
        vm = hypervisor.vm(),
        "the VM was paused because scratch space was used up, and goes on"
    );
    hypervisor.run_all(&[Command::new("cont", Value::Null)]).await
}

/// Lets a VM go on that a copy of a dead process's paused; only that status is touched, whoever may have paused it
/// otherwise.
pub(crate) async fn resume_left_over(hypervisor: &Hypervisor) -> Result<(), SourceError> {
    if is_out_of_space(hypervisor).await? {
        resume(hypervisor).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: Value) -> Event {
        Event {
            name: name.to_owned(),
            data,
        }
    }

    fn learned(events: &[Event]) -> (Progress, Vec<String>) {
        let mut progress = Progress::default();
        let mut there = vec!["fs-j-0".to_owned(), "fs-j-1".to_owned()];
        for event in events {
            progress.learn(event, &mut there);
        }
        (progress, there)
    }

    #[test]
    fn jobs_have_ended_well_when_all_are_gone_and_none_told_an_error() {
        let gone = |id| event("JOB_STATUS_CHANGE", json!({"id": id, "status": "null"}));
        let done = |id| event("BLOCK_JOB_COMPLETED", json!({"device": id}));
        let (progress, there) = learned(&[
            event("JOB_STATUS_CHANGE", json!({"id": "fs-j-0", "status": "running"})),
            done("fs-j-0"),
            gone("fs-j-0"),
        ]);
        assert_eq!((progress.failure, there), (None, vec!["fs-j-1".to_owned()]));
        let (progress, there) = learned(&[done("fs-j-1"), gone("fs-j-1"), gone("fs-j-0"), gone("theirs")]);
        assert_eq!((progress.failure, there.len()), (None, 0));
    }

    #[test]
    fn one_that_failed_fails_all() {
        let failed = json!({"device": "fs-j-1", "error": "No space left on device"});
        let (progress, _) = learned(&[
            event("BLOCK_JOB_COMPLETED", failed),
            event("BLOCK_JOB_CANCELLED", json!({"device": "fs-j-0"})),
        ]);
        assert_eq!(progress.failure.as_deref(), Some("No space left on device"));
        let theirs = json!({"device": "theirs", "error": "other"});
        assert_eq!(learned(&[event("BLOCK_JOB_COMPLETED", theirs)]).0.failure, None);
    }

    #[test]
    fn a_vm_that_stopped_is_looked_at() {
        assert!(learned(&[event("STOP", json!({}))]).0.stopped);
        assert!(!learned(&[event("RESUME", json!({}))]).0.stopped);
    }
}
