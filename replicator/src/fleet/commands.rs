//! The orchestrator's commands, each checked and carried out. Commands come at least once: every one of them may be
//! repeated, and a repetition that comes while the first is under way waits for the same work.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use farshore_blocks::{ByteCount, ChainId, Sequence};
use farshore_proto::v1::{self, command::Body, command_result::Outcome};
use farshore_provider::{Check, MachineSpecification, NetworkAttachment, RecoveryId};
use farshore_vault::{ChainDescription, PinRefused, VaultError, VolumeDescription};

use super::{Member, report::point_out};
use crate::{
    assignment::{AssignedVolume, Assignment, Dialler, SourcePlace, Standing},
    convert::{self, Malformed},
    recovery::{Recovery, RecoveryError, RecoveryOrder},
    source::chain as with_causes,
    sources::{Sources, SourcesError},
    target::{ChainSeeds, DialledSource, Dialling, DiallingError, Targets, TargetsError, check_seed},
};

/// How many points one answer lists at most: a page, not a history.
const MOST_POINTS: usize = 10_000;
/// How much of the volumes' size the vault should have free before a first sync is begun.
const ROOM_SHARE: u64 = 20;

/// Commands that are being carried out; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay {
    turns: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// Why a command failed, before it is told.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("the command cannot be understood")]
    Malformed(#[from] Malformed),
    #[error("replicator `{name}` is no {role}: its configuration has no {missing}")]
    WrongRole {
        name: String,
        role: &'static str,
        missing: &'static str,
    },
    #[error(transparent)]
    Sources(#[from] SourcesError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Targets(#[from] TargetsError),
    #[error(transparent)]
    Dialling(#[from] DiallingError),
    #[error(transparent)]
    Pin(#[from] PinRefused),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
}

impl UnderWay {
    /// Carries `command` out; two commands of one identifier take turns.
    pub(super) async fn carry_out(&self, member: &Member, command: v1::Command) -> v1::CommandResult {
        let id = command.id;
        let turn = self.turn(&id);
        let held = turn.lock().await;
        let outcome = match command.body {
            Some(body) => perform(member, body).await,
            None => Err(Malformed::Missing("body").into()),
        };
        drop(held);
        self.leave(&id, turn);
        let outcome = outcome.unwrap_or_else(|error| {
            tracing::warn!(command = id, error = with_causes(&error), "a command failed");
            Outcome::Failure(failure(&error))
        });
        v1::CommandResult {
            id,
            outcome: Some(outcome),
        }
    }

    fn turn(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(id.to_owned()).or_default())
    }

    fn leave(&self, id: &str, turn: Arc<tokio::sync::Mutex<()>>) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        if turns.get(id).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(id);
        }
    }
}

fn failure(error: &CommandError) -> v1::Failure {
    let (reason, retryable) = match error {
        CommandError::Malformed(_) => ("malformed-command", false),
        CommandError::WrongRole { .. } => ("wrong-role", false),
        CommandError::Sources(SourcesError::Fenced(_)) => ("fenced", false),
        CommandError::Sources(SourcesError::NotAssigned(_)) => ("not-assigned", false),
        CommandError::Sources(SourcesError::Prerequisites { .. }) => ("prerequisites-failed", false),
        CommandError::Sources(SourcesError::OtherMachine { .. }) => ("other-machine", false),
        CommandError::Sources(SourcesError::PlaintextBeyondLoopback(_)) => ("insecure-not-allowed", false),
        CommandError::Sources(_) => ("source-failed", true),
        CommandError::Vault(VaultError::UnknownChain(_))
        | CommandError::Pin(PinRefused::Vault(VaultError::UnknownChain(_)))
        | CommandError::Targets(TargetsError::Vault(VaultError::UnknownChain(_))) => ("unknown-chain", false),
        CommandError::Vault(VaultError::ChainDiffers { .. }) => ("chain-differs", false),
        CommandError::Vault(_) | CommandError::Targets(TargetsError::Vault(_)) => ("vault-failed", true),
        CommandError::Dialling(DiallingError::PlaintextBeyondLoopback(_)) => ("insecure-not-allowed", false),
        CommandError::Dialling(DiallingError::Address(_)) => ("malformed-command", false),
        CommandError::Targets(TargetsError::State(_)) | CommandError::Dialling(DiallingError::State(_)) => {
            ("state-files-failed", true)
        }
        CommandError::Pin(PinRefused::Locked { .. }) => ("point-locked", false),
        CommandError::Pin(PinRefused::Vault(_)) => ("vault-failed", true),
        CommandError::Pin(PinRefused::UnknownPoint { .. })
        | CommandError::Recovery(RecoveryError::NoSuchPoint { .. }) => ("no-such-point", false),
        CommandError::Recovery(_) => ("recovery-failed", true),
    };
    v1::Failure {
        reason: reason.to_owned(),
        message: with_causes(error),
        retryable,
    }
}

async fn perform(member: &Member, body: Body) -> Result<Outcome, CommandError> {
    match body {
        Body::CheckSource(check) => check_source(sources(member)?, check).await,
        Body::CheckTarget(check) => check_target(member, check).await,
        Body::PrepareTarget(prepare) => prepare_target(member, prepare),
        Body::InstallSource(install) => {
            install_source(member, install).await?;
            Ok(Outcome::SourceInstalled(v1::SourceInstalled {}))
        }
        Body::EnableSource(enable) => {
            sources(member)?.enable(convert::chain_in(&enable.chain)?).await?;
            Ok(Outcome::SourceEnabled(v1::SourceEnabled {}))
        }
        Body::RemoveSource(remove) => {
            sources(member)?.remove(convert::chain_in(&remove.chain)?).await?;
            Ok(Outcome::SourceRemoved(v1::SourceRemoved {}))
        }
        Body::Fence(fence) => {
            let holder = convert::holder_in(&fence.holder)?;
            let epoch = targets(member)?.fence(convert::chain_in(&fence.chain)?, holder)?;
            Ok(Outcome::FenceRaised(v1::FenceRaised {
                epoch: Some(convert::epoch_out(epoch)),
            }))
        }
        Body::SetReplication(set) => {
            let policy = convert::source_policy_in(set.policy)?;
            let membership = set.membership.map(convert::membership_in).transpose()?;
            sources(member)?
                .set_policy(convert::chain_in(&set.chain)?, policy, membership)
                .await?;
            Ok(Outcome::ReplicationSet(v1::ReplicationSet {}))
        }
        Body::SetDisks(set) => {
            let chain = convert::chain_in(&set.chain)?;
            let machine = convert::machine_in(set.machine)?;
            let disks = set.disk_paths.iter().map(PathBuf::from).collect();
            sources(member)?.set_disks(chain, machine, disks).await?;
            Ok(Outcome::DisksSet(v1::DisksSet {}))
        }
        Body::SetRetention(set) => {
            let retention = convert::retention_in(set.retention)?;
            targets(member)?.set_retention(convert::chain_in(&set.chain)?, retention)?;
            Ok(Outcome::RetentionSet(v1::RetentionSet {}))
        }
        Body::ForgetSeeds(forget) => {
            forget_source(member, convert::chain_in(&forget.chain)?)?;
            Ok(Outcome::SeedsForgotten(v1::SeedsForgotten {}))
        }
        Body::SetPin(set) => {
            let pin = set.pin.map(convert::pin_in).transpose()?;
            targets(member)?.set_pin(convert::chain_in(&set.chain)?, Sequence(set.sequence), pin)?;
            Ok(Outcome::PinSet(v1::PinSet {}))
        }
        Body::ListPoints(list) => list_points(targets(member)?, &list),
        Body::StartRecovery(start) => start_recovery(member, start).await,
        Body::DiscardRecovery(discard) => {
            let leaks = recovery(member)?
                .discard(&recovery_id(&discard.recovery_id)?)
                .await?;
            let leaks = leaks.into_iter().map(|leak| v1::Leak {
                kind: leak.kind,
                name: leak.name,
            });
            Ok(Outcome::RecoveryDiscarded(v1::RecoveryDiscarded {
                leaks: leaks.collect(),
            }))
        }
    }
}

fn sources(member: &Member) -> Result<&Sources, CommandError> {
    member
        .sources
        .as_ref()
        .ok_or_else(|| wrong_role(member, "source", "scratchDirectory"))
}

fn targets(member: &Member) -> Result<&Targets, CommandError> {
    member
        .targets
        .as_ref()
        .ok_or_else(|| wrong_role(member, "target", "vaultDirectory"))
}

fn dialling(member: &Member) -> Result<&Dialling, CommandError> {
    member
        .dialling
        .as_ref()
        .ok_or_else(|| wrong_role(member, "target", "vaultDirectory"))
}

fn recovery(member: &Member) -> Result<&Recovery, CommandError> {
    member
        .recovery
        .as_ref()
        .ok_or_else(|| wrong_role(member, "place of recovery", "recoveryDirectory"))
}

fn wrong_role(member: &Member, role: &'static str, missing: &'static str) -> CommandError {
    CommandError::WrongRole {
        name: member.name.clone(),
        role,
        missing,
    }
}

/// A monitor, or as many disks as the machine has.
fn place(
    monitor: String,
    disks: &[String],
    machine: &MachineSpecification,
) -> Result<SourcePlace, Malformed> {
    if disks.is_empty() && !monitor.is_empty() {
        return Ok(SourcePlace::Monitor(PathBuf::from(monitor)));
    }
    if monitor.is_empty() && disks.len() == machine.disks.len() {
        return Ok(SourcePlace::Disks(disks.iter().map(PathBuf::from).collect()));
    }
    Err(Malformed::Refused {
        field: "disk_paths",
        why: format!(
            "{} of them beside the monitor `{monitor}`: a monitor, or a path for each of {} disks, is accepted",
            disks.len(),
            machine.disks.len()
        ),
    })
}

async fn check_source(sources: &Sources, check: v1::CheckSource) -> Result<Outcome, CommandError> {
    let machine = convert::machine_in(check.machine)?;
    let place = place(check.monitor, &check.disk_paths, &machine)?;
    let watchdog = convert::path_in(check.watchdog_monitor);
    let examined = sources.examine(&machine, &place, watchdog).await;
    let sizes = examined.sizes.unwrap_or_default();
    let volumes = machine.disks.iter().zip(sizes);
    Ok(Outcome::SourceChecked(v1::SourceChecked {
        checks: examined.checks.into_iter().map(convert::check_out).collect(),
        volumes: volumes
            .map(|(disk, size)| v1::Volume {
                name: disk.name.clone(),
                size_bytes: size.0,
            })
            .collect(),
    }))
}

async fn check_target(member: &Member, check: v1::CheckTarget) -> Result<Outcome, CommandError> {
    let machine = convert::machine_in(check.machine)?;
    let network = if check.bridge.is_empty() {
        NetworkAttachment::Bubble {
            name: recovery_id("check")?,
        }
    } else {
        NetworkAttachment::Bridge { bridge: check.bridge }
    };
    let mut checks = recovery(member)?.checks(&machine, &network).await;
    let needed = check
        .volumes
        .iter()
        .map(|volume| volume.size_bytes)
        .fold(0, u64::saturating_add);
    checks.push(vault_room(targets(member)?, ByteCount(needed))?);
    checks.extend(check_seeds(member, &check.volumes, &check.seeds));
    Ok(Outcome::TargetChecked(v1::TargetChecked {
        checks: checks.into_iter().map(convert::check_out).collect(),
    }))
}

fn check_seeds(member: &Member, volumes: &[v1::Volume], seeds: &[v1::SeedPath]) -> Vec<Check> {
    let checks = seeds.iter().map(|seed| {
        let volume = volumes.iter().find(|volume| volume.name == seed.volume);
        let size = ByteCount(volume.map_or(0, |volume| volume.size_bytes));
        check_seed(
            (&seed.volume, size),
            Path::new(&seed.path),
            &member.own_directories,
        )
    });
    checks.collect()
}

fn vault_room(targets: &Targets, volumes: ByteCount) -> Result<Check, CommandError> {
    const CODE: &str = "vault-room";
    let free = targets.vault().free_bytes()?;
    let found = format!("the vault has {free} free for volumes of {volumes}");
    Ok(if free.0 < volumes.0 / ROOM_SHARE {
        Check::failed(CODE, found, "make room for at least 5 % of the volumes' size")
    } else if free < volumes {
        Check::warning(
            CODE,
            found,
            "a full sync fits only while most of the volumes is empty",
        )
    } else {
        Check::passed(CODE, found)
    })
}

fn prepare_target(member: &Member, prepare: v1::PrepareTarget) -> Result<Outcome, CommandError> {
    let targets = targets(member)?;
    let chain = convert::chain_in(&prepare.chain)?;
    let volumes = prepare.volumes.into_iter();
    let description = ChainDescription {
        vm: prepare.vm,
        volumes: volumes
            .map(|volume| VolumeDescription {
                name: volume.name,
                size: ByteCount(volume.size_bytes),
            })
            .collect(),
    };
    let epoch = targets.prepare(chain, &description, convert::holder_in(&prepare.holder)?)?;
    let seeds = prepare.seeds.into_iter();
    let seeds = ChainSeeds {
        volumes: seeds.map(|seed| (seed.volume, seed.path.into())).collect(),
    };
    targets.keep_seeds(chain, &seeds)?;
    let endpoint = prepare.source_endpoint;
    if endpoint.is_empty() {
        dialling(member)?.forget(chain)?;
    } else {
        dialling(member)?.dial(chain, DialledSource { endpoint, epoch })?;
    }
    Ok(Outcome::TargetPrepared(v1::TargetPrepared {
        vault_incarnation: targets.incarnation().as_bytes().to_vec().into(),
        epoch: Some(convert::epoch_out(epoch)),
    }))
}

/// Nothing will be written to the chain any more.
fn forget_source(member: &Member, chain: ChainId) -> Result<(), CommandError> {
    dialling(member)?.forget(chain)?;
    targets(member)?.forget_seeds(chain)?;
    Ok(())
}

async fn install_source(member: &Member, install: v1::InstallSource) -> Result<(), CommandError> {
    let assignment = assignment(install)?;
    if assignment.dialler() == Dialler::Target && member.replication_endpoint.is_empty() {
        return Err(wrong_role(
            member,
            "source that a target can dial",
            "replicationListen",
        ));
    }
    sources(member)?.install(assignment).await?;
    Ok(())
}

fn assignment(install: v1::InstallSource) -> Result<Assignment, Malformed> {
    let policy = convert::source_policy_in(install.policy)?;
    let machine = convert::machine_in(install.machine)?;
    if machine.disks.len() != install.volumes.len() {
        let why = format!(
            "{} volumes for {} disks",
            install.volumes.len(),
            machine.disks.len()
        );
        return Err(Malformed::Refused {
            field: "volumes",
            why,
        });
    }
    let volumes = install.volumes.into_iter();
    Ok(Assignment {
        chain: convert::chain_in(&install.chain)?,
        epoch: convert::epoch_in(install.epoch.as_ref())?,
        standing: Standing::Installed,
        place: place(install.monitor, &install.disk_paths, &machine)?,
        machine,
        target_endpoint: install.target_endpoint,
        interval: policy.interval,
        bandwidth: policy.bandwidth,
        link: policy.link,
        audit_rate: policy.audit_rate,
        guest_cost_limit_percent: policy.guest_cost_limit_percent,
        app_consistency: policy.app_consistency,
        guest_agent: convert::path_in(install.guest_agent),
        membership: install.membership.map(convert::membership_in).transpose()?,
        volumes: volumes
            .map(|volume| AssignedVolume {
                name: volume.name,
                size: ByteCount(volume.size_bytes),
            })
            .collect(),
    })
}

fn list_points(targets: &Targets, list: &v1::ListPoints) -> Result<Outcome, CommandError> {
    let chain: ChainId = convert::chain_in(&list.chain)?;
    let limit = usize::try_from(list.limit).unwrap_or(usize::MAX);
    let limit = if limit == 0 {
        MOST_POINTS
    } else {
        limit.min(MOST_POINTS)
    };
    let points = targets.reader().points(chain)?;
    let pins: BTreeMap<_, _> = targets.reader().pins(chain)?.into_iter().collect();
    let newest_first = points.iter().rev().take(limit).map(|point| v1::RecoveryPoint {
        pin: pins.get(&point.sequence).copied().map(convert::pin_out),
        ..point_out(point)
    });
    Ok(Outcome::PointsListed(v1::PointsListed {
        points: newest_first.collect(),
    }))
}

async fn start_recovery(member: &Member, start: v1::StartRecovery) -> Result<Outcome, CommandError> {
    let network = match start.network.ok_or(Malformed::Missing("network"))? {
        v1::start_recovery::Network::Bubble(name) => NetworkAttachment::Bubble {
            name: recovery_id(&name)?,
        },
        v1::start_recovery::Network::Bridge(bridge) => NetworkAttachment::Bridge { bridge },
    };
    let order = RecoveryOrder {
        id: recovery_id(&start.recovery_id)?,
        chain: convert::chain_in(&start.chain)?,
        sequence: Sequence(start.sequence),
        network,
    };
    let targets = targets(member)?;
    let vault = (targets.reader(), targets.vault().path());
    let recovered = recovery(member)?.start(vault, order).await?;
    Ok(Outcome::RecoveryStarted(v1::RecoveryStarted {
        pid: recovered.vm.pid,
        monitor: recovered.vm.monitor.display().to_string(),
        namespace: recovered.vm.namespace.unwrap_or_default(),
        ways_out: recovered
            .isolation
            .map(|proof| proof.ways_out)
            .unwrap_or_default(),
        order_to_running: Some(convert::duration_out(recovered.order_to_running)),
    }))
}

fn recovery_id(text: &str) -> Result<RecoveryId, Malformed> {
    RecoveryId::new(text).ok_or_else(|| Malformed::Refused {
        field: "recovery_id",
        why: format!(
            "`{text}`: 1 to {} of a-z, 0-9 and - are accepted",
            RecoveryId::LONGEST
        ),
    })
}
