//! Decides when damage of a VM's recovery points is news: once when it appears, and once when it is gone.

use farshore_blocks::clock::WallTime;
use farshore_domain::declaration::ProtectedVm;
use farshore_proto::v1;

use crate::{
    fleet::FleetView,
    records::{EventRecord, Severity, VaultTold, VmRecord},
    replicators::target_status,
};

/// What is to be told.
pub(super) struct News<'view> {
    pub(super) told: VaultTold,
    status: &'view v1::TargetStatus,
}

/// What the target reports of its vault, if that was not told yet. A replicator that is away tells nothing.
pub(super) fn news<'view>(
    view: &'view FleetView,
    declared: &ProtectedVm,
    vm: &VmRecord,
) -> Option<News<'view>> {
    let (replicator, status) = target_status(view, declared.target().site.as_str(), vm.chain)?;
    let told = match status.damaged_places {
        0 => VaultTold::Sound,
        _ => VaultTold::Damaged,
    };
    (replicator.up && told != vm.vault).then_some(News { told, status })
}

impl News<'_> {
    /// As the log has it.
    pub(super) fn event(&self, subject: &str, now: WallTime) -> EventRecord {
        match (self.told, self.status.damage.first()) {
            (VaultTold::Damaged, Some(first)) => {
                let severity = Severity::Critical;
                EventRecord::new(severity, "vault-damaged", self.found(first), subject, now)
            }
            (VaultTold::Damaged | VaultTold::Sound, _) => EventRecord::new(
                Severity::Information,
                "vault-sound-again",
                "all recovery points that the vault keeps were read and are whole".to_owned(),
                subject,
                now,
            ),
        }
    }

    fn found(&self, first: &v1::VaultDamage) -> String {
        let place = match first.volume.as_str() {
            "" => String::new(),
            volume => format!(", volume `{volume}` at {}", first.offset_bytes),
        };
        format!(
            "{} damaged places found in the vault; the first, hit are points {} to {}{place}: {}",
            self.status.damaged_places, first.first_point, first.last_point, first.what
        )
    }
}
