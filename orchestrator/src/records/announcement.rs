//! Decides what the log says about the effects of the state machines.

use farshore_blocks::clock::WallTime;
use farshore_domain::{failover, protection, test_failover};

use super::{EventRecord, Severity};

impl EventRecord {
    /// What a change of a VM's protection is told as.
    #[must_use]
    pub fn of_protection(effect: &protection::Effect, subject: &str, now: WallTime) -> Self {
        let (severity, code, message) = match effect {
            protection::Effect::AnnounceProtected => (
                Severity::Information,
                "protected",
                "the VM is protected".to_owned(),
            ),
            protection::Effect::AnnounceInitialSync => (
                Severity::Information,
                "initial-sync-started",
                "the initial synchronization runs".to_owned(),
            ),
            protection::Effect::AnnounceResynchronizing { why } => (
                Severity::Warning,
                "resynchronizing",
                format!("source and replica are compared: {why}"),
            ),
            protection::Effect::AnnounceFailed { at, reason } => (
                Severity::Critical,
                "protection-failed",
                format!("protection failed at {at:?}: {reason}"),
            ),
        };
        Self::new(severity, code, message, subject, now)
    }

    /// What a change of a VM's failover is told as.
    #[must_use]
    pub fn of_failover(effect: &failover::Effect, subject: &str, now: WallTime) -> Self {
        let (severity, code, message) = match effect {
            failover::Effect::AnnounceFailingOver => (
                Severity::Warning,
                "failing-over",
                "an unplanned failover was ordered".to_owned(),
            ),
            failover::Effect::AnnounceFailedOver => (
                Severity::Warning,
                "failed-over",
                "the VM runs at the target site; the commit is pending".to_owned(),
            ),
            failover::Effect::AnnounceFailed { reason } => (
                Severity::Critical,
                "failover-failed",
                format!("the failover failed: {reason}"),
            ),
        };
        Self::new(severity, code, message, subject, now)
    }

    /// What a change of a test failover is told as.
    #[must_use]
    pub fn of_test(effect: &test_failover::Effect, subject: &str, now: WallTime) -> Self {
        let (severity, code, message) = match effect {
            test_failover::Effect::AnnounceRunning => (
                Severity::Information,
                "test-running",
                "the test VM runs in its bubble".to_owned(),
            ),
            test_failover::Effect::AnnounceCleaned => (
                Severity::Information,
                "test-cleaned",
                "the test failover was cleaned up".to_owned(),
            ),
            test_failover::Effect::AnnounceFailed { reason } => (
                Severity::Warning,
                "test-failed",
                format!("the test failover failed: {reason}"),
            ),
        };
        Self::new(severity, code, message, subject, now)
    }

    /// An event.
    #[must_use]
    pub fn new(severity: Severity, code: &str, message: String, subject: &str, now: WallTime) -> Self {
        Self {
            at: now,
            severity,
            subject: subject.to_owned(),
            code: code.to_owned(),
            message,
        }
    }
}
