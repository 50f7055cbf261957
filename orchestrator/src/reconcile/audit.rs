//! Decides when a difference that a source's audit found is news: not once for each block of a disk that somebody overwrote.

use std::time::Duration;

use farshore_blocks::clock::WallTime;
use farshore_domain::declaration::ProtectedVm;
use farshore_proto::v1;

use crate::{
    fleet::{self, FleetView},
    records::{EventRecord, Severity, VmRecord},
    replicators::source_status,
};

/// How long after one such event the next may come.
const QUIET: Duration = Duration::from_secs(600);

/// What is to be told.
pub(super) struct News<'view> {
    /// When it was found, by the source's clock.
    pub(super) found_at: WallTime,
    audit: &'view v1::AuditStatus,
    mismatch: &'view v1::AuditMismatch,
}

/// What the source reports, if it was not told yet.
pub(super) fn news<'view>(
    view: &'view FleetView,
    declared: &ProtectedVm,
    vm: &VmRecord,
) -> Option<News<'view>> {
    let (_, status) = source_status(view, declared.source().site.as_str(), vm.chain)?;
    let audit = status.audit.as_ref()?;
    let mismatch = audit.last_mismatch.as_ref()?;
    let found_at = fleet::wall_time(mismatch.at.as_ref()?)?;
    let due = vm
        .audit_told
        .is_none_or(|told| found_at > told && found_at.since(told) >= QUIET);
    due.then_some(News {
        found_at,
        audit,
        mismatch,
    })
}

impl News<'_> {
    /// As the log has it.
    pub(super) fn event(&self, subject: &str, now: WallTime) -> EventRecord {
        let mismatch = self.mismatch;
        let message = format!(
            "volume `{}` at {} was not what point {} says; {} blocks were found to differ so far, and are sent again with \
             the next cycle",
            mismatch.volume, mismatch.offset_bytes, mismatch.point, self.audit.mismatches
        );
        EventRecord::new(Severity::Critical, "audit-mismatch", message, subject, now)
    }
}
