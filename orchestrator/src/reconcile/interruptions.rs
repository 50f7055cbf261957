//! Decides when it is news that a source cannot replicate for now, and when that it goes on: a link that comes and goes fills no log.
//!
//! It tells what others do with a VM, too: another tool's job, a migration, a node that is not ours. The source says so and waits.

use std::time::Duration;

use farshore_blocks::clock::WallTime;
use farshore_domain::declaration::ProtectedVm;
use farshore_proto::v1::SourcePhase;

use crate::{
    fleet::FleetView,
    records::{EventRecord, InterruptionTold, Severity, VmRecord},
    replicators::source_status,
};

/// How long after one such event the next may come.
const QUIET: Duration = Duration::from_secs(600);

/// What is to be told.
pub(super) struct News<'view> {
    pub(super) told: InterruptionTold,
    detail: &'view str,
}

/// What the source reports, if that was not told yet. A replicator that is away tells nothing.
pub(super) fn news<'view>(
    view: &'view FleetView,
    (declared, vm): (&ProtectedVm, &VmRecord),
    now: WallTime,
) -> Option<News<'view>> {
    let (replicator, status) = source_status(view, declared.source().site.as_str(), vm.chain)?;
    if !replicator.up || !vm.protection.follows_reports() {
        return None;
    }
    let detail = status.detail.as_str();
    let interrupted = status.phase() == SourcePhase::Connecting && !detail.is_empty();
    let told = match vm.interruption {
        InterruptionTold::Nothing if interrupted => InterruptionTold::Interrupted(now),
        InterruptionTold::GoesOn(before) if interrupted && now.since(before) >= QUIET => {
            InterruptionTold::Interrupted(now)
        }
        InterruptionTold::Interrupted(before) if status.phase() == SourcePhase::Replicating => {
            InterruptionTold::GoesOn(before)
        }
        InterruptionTold::Nothing | InterruptionTold::Interrupted(_) | InterruptionTold::GoesOn(_) => {
            return None;
        }
    };
    Some(News { told, detail })
}

impl News<'_> {
    /// As the log has it.
    pub(super) fn event(&self, subject: &str, now: WallTime) -> EventRecord {
        match self.told {
            InterruptionTold::Interrupted(_) => EventRecord::new(
                Severity::Warning,
                "source-interrupted",
                format!(
                    "replication is interrupted: {}; it goes on by itself once that is over",
                    self.detail
                ),
                subject,
                now,
            ),
            InterruptionTold::Nothing | InterruptionTold::GoesOn(_) => EventRecord::new(
                Severity::Information,
                "source-goes-on",
                "replication goes on".to_owned(),
                subject,
                now,
            ),
        }
    }
}
