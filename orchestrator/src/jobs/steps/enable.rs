//! The steps that put a VM under protection.

use std::time::Duration;

use farshore_blocks::Incarnation;
use farshore_domain::{
    declaration::{Dialler, Name, ProtectedVm},
    protection::Sight,
};
use farshore_proto::v1::{self, SourcePhase, command, command_result::Outcome};

use super::{Achieved, Place, SHORT, Trouble, epoch_from_wire, epoch_to_wire, unexpected};
use crate::{
    groups,
    jobs::{
        Engine,
        bookkeeping::{self, Facts, Unfit},
    },
    machine,
    records::{self, CheckOutcome, CheckRecord, PointsSeen, Tenure, VmRecord, VolumeRecord, transact},
    replicators,
};

/// How long the source may take from being told until it is seen to synchronize, per attempt.
const UNTIL_SYNC: Duration = Duration::from_secs(60);

impl Engine {
    pub(super) async fn check_prerequisites(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let declared = self.declared(place.job)?;
        let source = self.check_source(place, &declared).await?;
        let target = self.check_target(place, &declared, &source.volumes).await?;
        let checks: Vec<CheckRecord> = source.checks.iter().chain(&target.checks).map(check_of).collect();
        let failed: Vec<String> = checks
            .iter()
            .filter(|check| check.outcome == CheckOutcome::Failed)
            .map(|check| format!("{}: {} ({})", check.code, check.found, check.remedy))
            .collect();
        let volumes: Vec<VolumeRecord> = source.volumes.iter().map(volume_of).collect();
        let count = checks.len();
        let without_volumes = volumes.is_empty();
        let facts = Facts::Checked { checks, volumes };
        if !failed.is_empty() {
            let reason = format!("{} of {count} checks failed: {}", failed.len(), failed.join("; "));
            return Err(Trouble::GiveUp {
                reason,
                facts: Some(facts),
            });
        }
        if without_volumes {
            return Err(Trouble::GiveUp {
                reason: "the source found no volumes".to_owned(),
                facts: Some(facts),
            });
        }
        Ok(Achieved::found(facts, format!("{count} checks, none failed")))
    }

    async fn check_source(
        &self,
        place: Place<'_>,
        declared: &ProtectedVm,
    ) -> Result<v1::SourceChecked, Trouble> {
        let body = command::Body::CheckSource(v1::CheckSource {
            machine: Some(machine::to_wire(declared)),
            monitor: machine::monitor(declared),
            disk_paths: machine::disk_paths(declared),
            watchdog_monitor: groups::watchdog_monitor(declared),
        });
        let outcome = self.command_source(place, "check-source", declared, body).await?;
        let Outcome::SourceChecked(checked) = outcome else {
            return Err(unexpected(&outcome));
        };
        Ok(checked)
    }

    async fn check_target(
        &self,
        place: Place<'_>,
        declared: &ProtectedVm,
        volumes: &[v1::Volume],
    ) -> Result<v1::TargetChecked, Trouble> {
        let body = command::Body::CheckTarget(v1::CheckTarget {
            machine: Some(machine::to_wire(declared)),
            volumes: volumes.to_vec(),
            bridge: self.bridge(declared)?.unwrap_or_default(),
            seeds: machine::seeds(declared),
        });
        let site = declared.target().site.as_str();
        let outcome = self
            .command_vault(place, "check-target", (site, body), SHORT)
            .await?;
        let Outcome::TargetChecked(checked) = outcome else {
            return Err(unexpected(&outcome));
        };
        Ok(checked)
    }

    /// The bridge that the VM is plugged into after a failover, if a network is declared.
    pub(super) fn bridge(&self, declared: &ProtectedVm) -> Result<Option<String>, Trouble> {
        let Some(network) = &declared.target().network else {
            return Ok(None);
        };
        let site = records::declared_site(&*self.store, &declared.target().site)?;
        let found = site.as_ref().and_then(|site| site.network(network));
        match found {
            Some(network) => Ok(Some(network.bridge.to_string())),
            None => Err(Trouble::give_up(format!(
                "the site {} has no network {network}",
                declared.target().site
            ))),
        }
    }

    /// Who opens the connections between the VM's sites.
    fn dialler(&self, declared: &ProtectedVm) -> Result<Dialler, Trouble> {
        let site = |name: &Name| records::declared_site(&*self.store, name);
        let source = site(&declared.source().site)?;
        let target = site(&declared.target().site)?;
        // Neither can be missing while the VM is declared.
        let (Some(source), Some(target)) = (source, target) else {
            return Ok(Dialler::Source);
        };
        source
            .dialler(&target)
            .ok_or_else(|| Trouble::give_up("both sites have `inbound: closed`: neither can dial the other"))
    }

    pub(super) async fn install_and_prepare(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let declared = self.declared(place.job)?;
        let vm = self.vm(place.job)?;
        let chosen = self.choose_source_replicator(place, &declared)?;
        let tenure = self
            .prepare_target(place, (&declared, &vm), chosen.as_deref())
            .await?;
        self.grant(place, (tenure, chosen)).await?;
        self.install_source(place, &declared, &vm, tenure).await?;
        Ok(Achieved::nothing_to_keep(format!(
            "epoch {}",
            tenure.epoch.number
        )))
    }

    async fn prepare_target(
        &self,
        place: Place<'_>,
        (declared, vm): (&ProtectedVm, &VmRecord),
        source_replicator: Option<&str>,
    ) -> Result<Tenure, Trouble> {
        let source_endpoint = match self.dialler(declared)? {
            Dialler::Source => String::new(),
            Dialler::Target => {
                let view = self.replicators.reports().borrow().clone();
                let endpoint = source_replicator.and_then(|name| replicators::endpoint_of(&view, name));
                endpoint.ok_or_else(|| Trouble::TryAgain {
                    reason: format!(
                        "the replicator of the site {} that is to replicate it does not listen for its target",
                        declared.source().site
                    ),
                    answered: false,
                })?
            }
        };
        let body = command::Body::PrepareTarget(v1::PrepareTarget {
            chain: vm.chain.as_bytes().to_vec().into(),
            vm: vm.name.clone(),
            volumes: machine::volumes_to_wire(&vm.volumes),
            holder: vm.holder.as_bytes().to_vec().into(),
            seeds: machine::seeds(declared),
            source_endpoint,
        });
        let site = declared.target().site.as_str();
        let outcome = self
            .command_vault(place, "prepare-target", (site, body), SHORT)
            .await?;
        let Outcome::TargetPrepared(prepared) = outcome else {
            return Err(unexpected(&outcome));
        };
        let incarnation = Incarnation::try_from(prepared.vault_incarnation.as_ref())
            .map_err(|error| Trouble::give_up(format!("the vault's incarnation: {error}")))?;
        let epoch = epoch_from_wire(prepared.epoch.as_ref())?;
        Ok(Tenure { incarnation, epoch })
    }

    /// From now on it stays the one, whoever else attaches at the site.
    fn choose_source_replicator(
        &self,
        place: Place<'_>,
        declared: &ProtectedVm,
    ) -> Result<Option<String>, Trouble> {
        let meant = self.source_replicator(place, declared)?;
        let view = self.replicators.reports().borrow().clone();
        Ok(meant.or_else(|| replicators::only_capturing(&view, declared.source().site.as_str())))
    }

    /// The grant is written down before the source learns of it.
    async fn grant(&self, place: Place<'_>, granted: (Tenure, Option<String>)) -> Result<(), Trouble> {
        let now = self.clock.now();
        let (tenure, source_replicator) = granted;
        let facts = Facts::Granted {
            tenure,
            source_replicator,
        };
        let granted = transact(&*self.store, |work| {
            bookkeeping::take_in(work, place.job, &facts, now)
        })
        .await;
        match granted {
            Ok(()) => Ok(()),
            Err(Unfit::Store(error)) => Err(Trouble::Store(error)),
            Err(Unfit::State(reason)) => Err(Trouble::give_up(reason)),
        }
    }

    async fn install_source(
        &self,
        place: Place<'_>,
        declared: &ProtectedVm,
        vm: &VmRecord,
        tenure: Tenure,
    ) -> Result<(), Trouble> {
        let view = self.replicators.reports().borrow().clone();
        let target_endpoint = match self.dialler(declared)? {
            Dialler::Source => {
                let target = declared.target().site.as_str();
                replicators::vault_endpoint(&view, target).ok_or_else(|| Trouble::TryAgain {
                    reason: format!("no replicator of the site {target} offers a vault that can be dialled"),
                    answered: false,
                })?
            }
            Dialler::Target => String::new(),
        };
        let policy = records::declared_policy(&*self.store, declared.policy())?.ok_or_else(|| {
            Trouble::give_up(format!(
                "the policy {} is not declared any more",
                declared.policy()
            ))
        })?;
        let source_site = records::declared_site(&*self.store, &declared.source().site)?;
        let link = source_site
            .as_ref()
            .and_then(|site| site.link(&declared.target().site));
        let body = command::Body::InstallSource(v1::InstallSource {
            machine: Some(machine::to_wire(declared)),
            monitor: machine::monitor(declared),
            disk_paths: machine::disk_paths(declared),
            chain: vm.chain.as_bytes().to_vec().into(),
            epoch: Some(epoch_to_wire(tenure.epoch)),
            target_endpoint,
            policy: Some(machine::policy_to_wire(&policy, link)),
            volumes: machine::volumes_to_wire(&vm.volumes),
            guest_agent: machine::guest_agent(declared),
            membership: groups::memberships(&*self.store, &view)?.remove(declared.name()),
        });
        let outcome = self
            .command_source(place, "install-source", declared, body)
            .await?;
        let Outcome::SourceInstalled(_) = outcome else {
            return Err(unexpected(&outcome));
        };
        Ok(())
    }

    pub(super) async fn enable_replication(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let declared = self.declared(place.job)?;
        let vm = self.vm(place.job)?;
        let body = command::Body::EnableSource(v1::EnableSource {
            chain: vm.chain.as_bytes().to_vec().into(),
        });
        let outcome = self
            .command_source(place, "enable-source", &declared, body)
            .await?;
        let Outcome::SourceEnabled(_) = outcome else {
            return Err(unexpected(&outcome));
        };
        Ok(Achieved::nothing_to_keep(""))
    }

    pub(super) async fn await_initial_replication(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let declared = self.declared(place.job)?;
        let vm = self.vm(place.job)?;
        let site = declared.source().site.as_str();
        let mut views = self.replicators.reports();
        let waited = tokio::time::timeout(UNTIL_SYNC, async {
            loop {
                let view = views.borrow_and_update().clone();
                let seen =
                    replicators::source_status(&view, site, vm.chain).map(|(_, status)| status.phase());
                match seen {
                    Some(SourcePhase::Fenced) => {
                        return Err(Trouble::give_up("the target refuses this source: it is fenced"));
                    }
                    Some(
                        phase @ (SourcePhase::InitialSync
                        | SourcePhase::AwaitingPoint
                        | SourcePhase::Replicating
                        | SourcePhase::Resynchronizing
                        | SourcePhase::Paused),
                    ) => return Ok(phase),
                    Some(SourcePhase::Unspecified | SourcePhase::Installed | SourcePhase::Connecting)
                    | None => {}
                }
                if views.changed().await.is_err() {
                    return Err(Trouble::TryAgain {
                        reason: "the fleet has closed".to_owned(),
                        answered: false,
                    });
                }
            }
        })
        .await;
        match waited {
            Ok(seen) => seen.map(|phase| {
                Achieved::nothing_to_keep(
                    phase
                        .as_str_name()
                        .trim_start_matches("SOURCE_PHASE_")
                        .to_lowercase(),
                )
            }),
            Err(_) => Err(Trouble::TryAgain {
                reason: self.why_it_waits(site, &vm),
                answered: false,
            }),
        }
    }

    fn why_it_waits(&self, site: &str, vm: &VmRecord) -> String {
        let view = self.replicators.reports().borrow().clone();
        match replicators::source_status(&view, site, vm.chain) {
            Some((_, status)) if !status.detail.is_empty() => {
                format!("the source does not synchronize yet: {}", status.detail)
            }
            Some((_, status)) => format!(
                "the source does not synchronize yet, it says {}",
                status.phase().as_str_name()
            ),
            None => format!("the replicator of the site {site} does not report this VM"),
        }
    }

    pub(super) fn see_source(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let declared = self.declared(place.job)?;
        let vm = self.vm(place.job)?;
        let view = self.replicators.reports().borrow().clone();
        let sight = sight(&view, &declared, &vm).unwrap_or(Sight::Nothing);
        Ok(Achieved::found(Facts::Seen(sight), ""))
    }
}

/// What the replicators report of a VM, as far as it moves its protection; absent if the source says nothing.
pub(crate) fn sight(view: &crate::fleet::FleetView, declared: &ProtectedVm, vm: &VmRecord) -> Option<Sight> {
    let (_, status) = replicators::source_status(view, declared.source().site.as_str(), vm.chain)?;
    let target = replicators::target_status(view, declared.target().site.as_str(), vm.chain);
    let has_point = status.newest.is_some()
        || vm.points == PointsSeen::Some
        || target.is_some_and(|(_, target)| target.points > 0);
    Some(match status.phase() {
        SourcePhase::Unspecified | SourcePhase::Installed | SourcePhase::Connecting | SourcePhase::Fenced => {
            Sight::Nothing
        }
        SourcePhase::InitialSync => Sight::InitialSync,
        SourcePhase::AwaitingPoint => Sight::NoPointYet,
        SourcePhase::Replicating if has_point => Sight::Replicating,
        SourcePhase::Replicating => Sight::NoPointYet,
        SourcePhase::Resynchronizing => Sight::Resynchronizing {
            why: status.detail.clone(),
        },
        SourcePhase::Paused => Sight::Paused,
    })
}

fn check_of(check: &v1::Check) -> CheckRecord {
    CheckRecord {
        code: check.code.clone(),
        outcome: match check.outcome() {
            v1::CheckOutcome::Passed => CheckOutcome::Passed,
            v1::CheckOutcome::Warning => CheckOutcome::Warning,
            // A check that does not say how it ended has not passed.
            v1::CheckOutcome::Failed | v1::CheckOutcome::Unspecified => CheckOutcome::Failed,
        },
        found: check.found.clone(),
        remedy: check.remedy.clone(),
    }
}

fn volume_of(volume: &v1::Volume) -> VolumeRecord {
    VolumeRecord {
        name: volume.name.clone(),
        size_bytes: volume.size_bytes,
    }
}
