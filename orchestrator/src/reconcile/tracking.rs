//! Decides when it is news that a source lost track of changes: always, however soon source and replica are alike again.

use std::time::Duration;

use farshore_blocks::clock::WallTime;
use farshore_domain::declaration::ProtectedVm;

use crate::{
    fleet::{self, FleetView},
    records::{EventRecord, Severity, VmRecord},
    replicators::source_status,
};

/// How long after one such event the next may come: a source that tries again and again has lost it once.
const QUIET: Duration = Duration::from_secs(60);

/// What is to be told.
pub(super) struct News<'view> {
    /// When it was noticed, by the source's clock.
    pub(super) at: WallTime,
    why: &'view str,
}

/// What the source reports, if it was not told yet.
pub(super) fn news<'view>(
    view: &'view FleetView,
    declared: &ProtectedVm,
    vm: &VmRecord,
) -> Option<News<'view>> {
    let (_, status) = source_status(view, declared.source().site.as_str(), vm.chain)?;
    let lost = status.tracking_lost.as_ref()?;
    let at = fleet::wall_time(lost.at.as_ref()?)?;
    let due = vm
        .tracking_lost_told
        .is_none_or(|told| at > told && at.since(told) >= QUIET);
    due.then_some(News { at, why: &lost.why })
}

impl News<'_> {
    /// As the log has it.
    pub(super) fn event(&self, subject: &str, now: WallTime) -> EventRecord {
        let message = format!(
            "tracking of changes was lost: {}; source and replica are compared, and what differs is sent with the next point",
            self.why
        );
        EventRecord::new(Severity::Warning, "tracking-lost", message, subject, now)
    }
}
