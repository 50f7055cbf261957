//! What the replicator sees now, as the orchestrator is told it.

use farshore_blocks::{ByteCount, ChainId, clock::WallTime};
use farshore_proto::v1;
use farshore_provider::VmCondition;
use farshore_vault::{PointKind, PointRecord};

use super::Member;
use crate::{
    assignment::{Assignment, SourcePlace},
    convert,
    source::{AuditMismatch, CycleTimes, GroupState, SourcePhase, SourceState},
    target::{ChainDamage, ChainStanding, DamagedPlace, NewestNeeds, Targets},
};

/// Everything, as of now; whose question it answers is for the stream to say.
pub(super) async fn report(member: &Member) -> v1::Report {
    let sources = match &member.sources {
        Some(sources) => sources.states().await,
        None => Vec::new(),
    };
    let recovered = match &member.recovery {
        Some(recovery) => recovery.conditions().await.unwrap_or_else(|error| {
            tracing::warn!(
                error = crate::source::chain(&error),
                "recovered VMs cannot be listed"
            );
            Vec::new()
        }),
        None => Vec::new(),
    };
    v1::Report {
        at: Some(convert::time_out(WallTime::now())),
        sources: sources
            .into_iter()
            .map(|(assignment, state)| source_out(&assignment, state))
            .collect(),
        targets: member.targets.as_ref().map(targets_out).unwrap_or_default(),
        recovered: recovered
            .into_iter()
            .map(|(id, condition)| v1::RecoveredVmStatus {
                recovery_id: id.into(),
                condition: condition_out(condition).into(),
            })
            .collect(),
        vault: member.targets.as_ref().map(vault_out),
        asked_at: None,
    }
}

fn source_out(assignment: &Assignment, state: SourceState) -> v1::SourceStatus {
    let phase = match state.phase {
        SourcePhase::Installed => v1::SourcePhase::Installed,
        SourcePhase::Connecting => v1::SourcePhase::Connecting,
        SourcePhase::InitialSync => v1::SourcePhase::InitialSync,
        SourcePhase::AwaitingPoint => v1::SourcePhase::AwaitingPoint,
        SourcePhase::Replicating => v1::SourcePhase::Replicating,
        SourcePhase::Resynchronizing => v1::SourcePhase::Resynchronizing,
        SourcePhase::Fenced => v1::SourcePhase::Fenced,
    };
    let audit = Some(audit_out(&state));
    v1::SourceStatus {
        vm: assignment.machine.vm.clone(),
        chain: assignment.chain.as_bytes().to_vec().into(),
        phase: phase.into(),
        detail: state.detail,
        sync_done_bytes: state.sync_done.0,
        sync_total_bytes: state.sync_total.0,
        sync_bytes_per_second: state.sync_bytes_per_second,
        backlog_bytes: state.backlog.0,
        last_cycle: state.last_cycle.map(|times| convert::duration_out(times.took)),
        last_hold: state.last_cycle.map(|times| convert::duration_out(times.hold)),
        last_cycle_times: state.last_cycle.map(times_out),
        audit,
        app_consistency_missed: state.app_consistency_missed,
        membership: assignment.membership.as_ref().map(convert::membership_out),
        group: assignment.membership.as_ref().map(|_| group_out(state.group)),
        newest: state.newest.map(convert::point_head_out),
        policy: Some(convert::source_policy_out(assignment.policy())),
        disks: assignment.machine.disks.iter().map(convert::disk_out).collect(),
        disk_paths: match &assignment.place {
            SourcePlace::Monitor(_) => Vec::new(),
            SourcePlace::Disks(disks) => disks.iter().map(|disk| disk.display().to_string()).collect(),
        },
        tracking_lost: state.tracking_lost.map(|lost| v1::TrackingLost {
            at: Some(convert::time_out(lost.at)),
            why: lost.why,
        }),
        volumes: state
            .volumes
            .into_iter()
            .map(|volume| v1::Volume {
                name: volume.name,
                size_bytes: volume.size.0,
            })
            .collect(),
    }
}

fn group_out(group: GroupState) -> v1::GroupStatus {
    v1::GroupStatus {
        instant: group.newest.map_or(0, |newest| newest.id.0),
        instant_at: group.newest.map(|newest| convert::time_out(newest.at)),
        missed: group.missed,
        longest_hold: Some(convert::duration_out(group.longest_hold)),
        instants: group.instants,
    }
}

fn times_out(times: CycleTimes) -> v1::CycleTimes {
    v1::CycleTimes {
        begin: Some(convert::duration_out(times.begin)),
        read: Some(convert::duration_out(times.read)),
        send: Some(convert::duration_out(times.send)),
        seal: Some(convert::duration_out(times.seal)),
        changed_bytes: times.changed.0,
    }
}

fn audit_out(state: &SourceState) -> v1::AuditStatus {
    let audit = &state.audit;
    let mismatch = |mismatch: AuditMismatch| {
        let mut volumes = state.volumes.iter();
        let volume = volumes.find(|volume| volume.index == mismatch.volume);
        v1::AuditMismatch {
            volume: volume.map(|volume| volume.name.clone()).unwrap_or_default(),
            offset_bytes: mismatch.block.start().0,
            length_bytes: mismatch.block.length().0,
            point: mismatch.point.0,
            at: Some(convert::time_out(mismatch.at)),
        }
    };
    v1::AuditStatus {
        compared_bytes: audit.compared.0,
        total_bytes: audit.total.0,
        passes: audit.passes,
        last_pass_at: audit.last_pass_at.map(convert::time_out),
        mismatches: audit.mismatches,
        last_mismatch: audit.last_mismatch.map(mismatch),
        suspect: audit.suspect,
    }
}

fn targets_out(targets: &Targets) -> Vec<v1::TargetStatus> {
    targets
        .standings()
        .into_iter()
        .map(|(chain, standing)| v1::TargetStatus {
            retention: targets.retention(chain).as_ref().map(convert::retention_out),
            ..target_out(chain, standing, &targets.damage(chain))
        })
        .collect()
}

fn target_out(chain: ChainId, standing: ChainStanding, damage: &ChainDamage) -> v1::TargetStatus {
    let uncertainty = standing.newest.as_ref().map(|point| point.clock_uncertainty);
    v1::TargetStatus {
        vm: standing.vm,
        chain: chain.as_bytes().to_vec().into(),
        epoch: standing.epoch.map(convert::epoch_out),
        points: standing.points,
        newest: standing.newest.as_ref().map(point_out),
        valid_through: standing.valid_through.map(convert::time_out),
        clock_uncertainty: uncertainty.map(convert::duration_out),
        source_connected: standing.source_connected,
        refused_fenced: standing.refused_fenced,
        retention: None,
        damage: damage.places().map(damage_out).collect(),
        damaged_places: damage.total(),
    }
}

fn damage_out(place: &DamagedPlace) -> v1::VaultDamage {
    let (volume, offset_bytes) = place.whereabouts.volume.clone().unwrap_or_default();
    v1::VaultDamage {
        volume,
        offset_bytes,
        file: place.whereabouts.file.clone(),
        what: place.what.clone(),
        first_point: place.first.0,
        last_point: place.last.0,
        points: place.points,
        newest: place.newest == NewestNeeds::Yes,
    }
}

fn vault_out(targets: &Targets) -> v1::VaultStatus {
    let shown = |result: Result<ByteCount, _>| result.map_or(0, |bytes| bytes.0);
    let vault = targets.vault();
    v1::VaultStatus {
        used_bytes: shown(vault.used_bytes()),
        free_bytes: shown(vault.free_bytes()),
    }
}

fn condition_out(condition: VmCondition) -> v1::RecoveredVmCondition {
    match condition {
        VmCondition::Absent => v1::RecoveredVmCondition::Unspecified,
        VmCondition::Prepared => v1::RecoveredVmCondition::Prepared,
        VmCondition::Running => v1::RecoveredVmCondition::Running,
        VmCondition::Suspended => v1::RecoveredVmCondition::Suspended,
        VmCondition::Ended => v1::RecoveredVmCondition::Ended,
    }
}

/// A point, as lists show it.
pub(super) fn point_out(point: &PointRecord) -> v1::RecoveryPoint {
    let kind = match point.kind {
        PointKind::CrashConsistent => v1::PointKind::CrashConsistent,
        PointKind::AppConsistent => v1::PointKind::AppConsistent,
    };
    v1::RecoveryPoint {
        sequence: point.sequence.0,
        digest: point.digest.as_bytes().to_vec().into(),
        captured_at: Some(convert::time_out(point.captured_at)),
        sealed_at: Some(convert::time_out(point.sealed_at)),
        kind: kind.into(),
        changed_bytes: point
            .changes
            .iter()
            .map(|change| change.bytes.0)
            .fold(0, u64::saturating_add),
        pin: None,
        instant: point.cycle,
    }
}
