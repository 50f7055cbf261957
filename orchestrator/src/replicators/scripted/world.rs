//! The state that all scripted replicators share, and what commands make of it.

use std::collections::{BTreeMap, BTreeSet};

use farshore_blocks::clock::WallTime;
use farshore_proto::v1::{self, command::Body, command_result::Outcome, start_recovery::Network};

use super::{Fault, SOURCE, VAULT};

#[derive(Clone, Default)]
pub(crate) struct World {
    /// By chain: the epoch's number and holder.
    pub(crate) epochs: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    /// By chain: the VM and its phase.
    pub(crate) sources: BTreeMap<Vec<u8>, (String, v1::SourcePhase)>,
    /// By chain: by what its source replicates.
    pub(crate) replication: BTreeMap<Vec<u8>, v1::Replicate>,
    pub(crate) disks: BTreeMap<Vec<u8>, Vec<v1::Disk>>,
    pub(crate) memberships: BTreeMap<Vec<u8>, v1::Membership>,
    /// By chain: what its target was told to keep.
    pub(crate) retention: BTreeMap<Vec<u8>, v1::Retention>,
    /// By chain: the older copies of volumes that its target was told of.
    pub(crate) seeds: BTreeMap<Vec<u8>, Vec<v1::SeedPath>>,
    /// Which sources the target dials, and where.
    pub(crate) dialled: BTreeMap<Vec<u8>, String>,
    /// By chain: the newest sequence.
    pub(crate) points: BTreeMap<Vec<u8>, u64>,
    /// By sequence: the pins of points, of whichever chain.
    pub(crate) pins: BTreeMap<u64, Option<v1::PointPin>>,
    /// What the scrub of the vault found, of every chain.
    pub(crate) damage: Vec<v1::VaultDamage>,
    /// Recovered VMs, by name, with their network.
    pub(crate) recovered: BTreeMap<String, Option<Network>>,
    /// Every command, in order: identifier and part.
    pub(crate) asked: Vec<(String, &'static str)>,
    /// By part: what happens to the next commands.
    pub(crate) faults: BTreeMap<&'static str, Vec<Fault>>,
    /// Parts whose commands never end.
    pub(crate) stuck: BTreeSet<&'static str>,
    /// Sites without a replicator.
    pub(crate) away: BTreeSet<&'static str>,
    /// Codes of the source's checks that fail.
    pub(crate) failed_checks: Vec<&'static str>,
    pub(crate) ways_out: Vec<String>,
    pub(crate) leaks: Vec<v1::Leak>,
    /// What every source says that it waits for.
    pub(crate) detail: String,
    /// The phase that a source takes when it is enabled.
    pub(crate) enabled_phase: Option<v1::SourcePhase>,
}

impl World {
    pub(super) fn carry_out(&mut self, body: &Body) -> Outcome {
        match body {
            Body::CheckSource(check) => Outcome::SourceChecked(self.check_source(check)),
            Body::CheckTarget(_) => Outcome::TargetChecked(v1::TargetChecked {
                checks: vec![check("vault-room", v1::CheckOutcome::Passed)],
            }),
            Body::PrepareTarget(prepare) => {
                self.seeds.insert(prepare.chain.to_vec(), prepare.seeds.clone());
                if !prepare.source_endpoint.is_empty() {
                    assert_eq!(prepare.source_endpoint, SOURCE);
                    self.dialled
                        .insert(prepare.chain.to_vec(), prepare.source_endpoint.clone());
                }
                Outcome::TargetPrepared(v1::TargetPrepared {
                    vault_incarnation: vec![9; 16].into(),
                    epoch: Some(self.grant(&prepare.chain, &prepare.holder)),
                })
            }
            Body::InstallSource(install) => Outcome::SourceInstalled(self.install_source(install)),
            Body::EnableSource(enable) => Outcome::SourceEnabled(self.enable_source(enable)),
            Body::RemoveSource(remove) => {
                self.sources.remove(remove.chain.as_ref());
                Outcome::SourceRemoved(v1::SourceRemoved {})
            }
            Body::SetReplication(set) => {
                self.replication
                    .insert(set.chain.to_vec(), set.policy.clone().unwrap());
                self.join(&set.chain, set.membership.clone());
                Outcome::ReplicationSet(v1::ReplicationSet {})
            }
            Body::SetDisks(set) => {
                let machine = set.machine.as_ref().unwrap();
                self.disks.insert(set.chain.to_vec(), machine.disks.clone());
                Outcome::DisksSet(v1::DisksSet {})
            }
            Body::SetRetention(set) => {
                self.retention.insert(set.chain.to_vec(), set.retention.unwrap());
                Outcome::RetentionSet(v1::RetentionSet {})
            }
            Body::SetPin(set) => {
                assert!(set.sequence > 0);
                self.pins.insert(set.sequence, set.pin);
                Outcome::PinSet(v1::PinSet {})
            }
            Body::ForgetSeeds(forget) => {
                self.seeds.remove(forget.chain.as_ref());
                self.dialled.remove(forget.chain.as_ref());
                Outcome::SeedsForgotten(v1::SeedsForgotten {})
            }
            Body::Fence(fence) => Outcome::FenceRaised(v1::FenceRaised {
                epoch: Some(self.grant(&fence.chain, &fence.holder)),
            }),
            Body::ListPoints(list) => Outcome::PointsListed(v1::PointsListed {
                points: self.points_of(&list.chain),
            }),
            Body::StartRecovery(start) => Outcome::RecoveryStarted(self.start_recovery(start)),
            Body::DiscardRecovery(discard) => {
                self.recovered.remove(&discard.recovery_id);
                Outcome::RecoveryDiscarded(v1::RecoveryDiscarded {
                    leaks: self.leaks.clone(),
                })
            }
        }
    }

    fn install_source(&mut self, install: &v1::InstallSource) -> v1::SourceInstalled {
        let is_dialled = self.dialled.contains_key(install.chain.as_ref());
        assert_eq!(install.target_endpoint, if is_dialled { "" } else { VAULT });
        let vm = install.machine.as_ref().unwrap().vm.clone();
        let installed = (vm, v1::SourcePhase::Installed);
        let disks = install.machine.as_ref().unwrap().disks.clone();
        self.disks.insert(install.chain.to_vec(), disks);
        self.replication
            .insert(install.chain.to_vec(), install.policy.clone().unwrap());
        self.sources.entry(install.chain.to_vec()).or_insert(installed);
        v1::SourceInstalled {}
    }

    fn enable_source(&mut self, enable: &v1::EnableSource) -> v1::SourceEnabled {
        let phase = self.enabled_phase.unwrap_or(v1::SourcePhase::Replicating);
        let source = self
            .sources
            .get_mut(enable.chain.as_ref())
            .expect("an installed source");
        source.1 = phase;
        if phase == v1::SourcePhase::Replicating {
            self.points.entry(enable.chain.to_vec()).or_insert(1);
        }
        v1::SourceEnabled {}
    }

    fn start_recovery(&mut self, start: &v1::StartRecovery) -> v1::RecoveryStarted {
        let newest = self.points.get(start.chain.as_ref());
        assert!(newest.is_some_and(|newest| start.sequence <= *newest));
        self.recovered
            .insert(start.recovery_id.clone(), start.network.clone());
        v1::RecoveryStarted {
            pid: 77,
            monitor: "/run/r.qmp".to_owned(),
            namespace: "bubble".to_owned(),
            ways_out: self.ways_out.clone(),
            order_to_running: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        }
    }

    fn check_source(&self, asked: &v1::CheckSource) -> v1::SourceChecked {
        let disks = &asked.machine.as_ref().unwrap().disks;
        let failed = self
            .failed_checks
            .iter()
            .map(|code| check(code, v1::CheckOutcome::Failed));
        v1::SourceChecked {
            checks: failed
                .chain([check("monitor-reachable", v1::CheckOutcome::Passed)])
                .collect(),
            volumes: disks
                .iter()
                .map(|disk| v1::Volume {
                    name: disk.name.clone(),
                    size_bytes: 1 << 30,
                })
                .collect(),
        }
    }

    /// The same holder gets the same epoch again.
    fn grant(&mut self, chain: &[u8], holder: &[u8]) -> v1::Epoch {
        let granted = self.epochs.entry(chain.to_vec()).or_insert((0, Vec::new()));
        if granted.1 != holder {
            *granted = (granted.0 + 1, holder.to_vec());
        }
        v1::Epoch {
            number: granted.0,
            holder: granted.1.clone().into(),
        }
    }

    fn points_of(&self, chain: &[u8]) -> Vec<v1::RecoveryPoint> {
        let newest = self.points.get(chain).copied().unwrap_or(0);
        let pin = |sequence: &u64| self.pins.get(sequence).copied().flatten();
        (1..=newest)
            .rev()
            .map(|sequence| v1::RecoveryPoint {
                pin: pin(&sequence),
                ..point(sequence)
            })
            .collect()
    }

    fn join(&mut self, chain: &[u8], membership: Option<v1::Membership>) {
        match membership {
            Some(membership) => self.memberships.insert(chain.to_vec(), membership),
            None => self.memberships.remove(chain),
        };
    }

    pub(super) fn report(&self, site: &str) -> v1::Report {
        let sources = self.sources.iter().map(|(chain, (vm, phase))| v1::SourceStatus {
            vm: vm.clone(),
            chain: chain.clone().into(),
            phase: (*phase).into(),
            detail: self.detail.clone(),
            newest: self.points.get(chain).map(|newest| v1::PointHead {
                sequence: *newest,
                digest: vec![1; 32].into(),
            }),
            sync_done_bytes: 5,
            sync_total_bytes: 10,
            policy: self.replication.get(chain).cloned(),
            disks: self.disks.get(chain).cloned().unwrap_or_default(),
            membership: self.memberships.get(chain).cloned(),
            ..v1::SourceStatus::default()
        });
        let targets = self
            .epochs
            .iter()
            .map(|(chain, (number, holder))| v1::TargetStatus {
                vm: self
                    .sources
                    .get(chain)
                    .map_or("gone".to_owned(), |(vm, _)| vm.clone()),
                chain: chain.clone().into(),
                epoch: Some(v1::Epoch {
                    number: *number,
                    holder: holder.clone().into(),
                }),
                points: self.points.get(chain).copied().unwrap_or(0),
                newest: self.points.get(chain).map(|newest| point(*newest)),
                valid_through: Some(now()),
                retention: self.retention.get(chain).copied(),
                damage: self.damage.clone(),
                damaged_places: u64::try_from(self.damage.len()).unwrap(),
                ..v1::TargetStatus::default()
            });
        let recovered = self.recovered.keys().map(|id| v1::RecoveredVmStatus {
            recovery_id: id.clone(),
            condition: v1::RecoveredVmCondition::Running.into(),
        });
        let is_target = site == "west";
        v1::Report {
            at: Some(now()),
            asked_at: Some(now()),
            sources: if is_target { Vec::new() } else { sources.collect() },
            targets: if is_target { targets.collect() } else { Vec::new() },
            recovered: if is_target {
                recovered.collect()
            } else {
                Vec::new()
            },
            vault: is_target.then_some(v1::VaultStatus {
                used_bytes: 10,
                free_bytes: 90,
            }),
        }
    }
}

fn point(sequence: u64) -> v1::RecoveryPoint {
    v1::RecoveryPoint {
        sequence,
        digest: vec![1; 32].into(),
        captured_at: Some(now()),
        sealed_at: Some(now()),
        kind: v1::PointKind::CrashConsistent.into(),
        changed_bytes: 1,
        instant: sequence,
        pin: None,
    }
}

fn check(code: &str, outcome: v1::CheckOutcome) -> v1::Check {
    v1::Check {
        code: code.to_owned(),
        outcome: outcome.into(),
        found: format!("found {code}"),
        remedy: "do something".to_owned(),
    }
}

pub(crate) fn now() -> prost_types::Timestamp {
    let now = WallTime::now().0;
    prost_types::Timestamp {
        seconds: i64::try_from(now / 1_000_000_000).unwrap(),
        nanos: i32::try_from(now % 1_000_000_000).unwrap(),
    }
}
