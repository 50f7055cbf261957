//! Recovered VMs: a point exported by a process of its own, a VM on overlays over it.
//!
//! Crash story: everything is started so that it outlives this process. A replicator finds recovered VMs through
//! [`Compute::list`], when it starts and every few seconds, and sees to it that each has its export; QEMU connects to it by itself.

mod exports;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use farshore_blocks::{ChainId, Sequence, clock::WallTime};
use farshore_provider::{
    Check, Compute, ComputeError, IsolationProof, Leak, MachineSpecification, NetworkAttachment, RecoveredVm,
    RecoveryDisk, RecoveryId, RecoveryRequest, VmCondition,
};
use farshore_provider_qemu::{AcceleratorChoice, OpenComputeError, QemuCompute, QemuComputeConfig};
use farshore_vault::{PointRecord, VaultError, VaultReader, VolumeDescription};

use tokio_util::sync::CancellationToken;

pub use exports::ExportError;
use exports::{Exports, Kept};

/// How often it is looked whether recovered VMs have their exports. They wait a minute for one.
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);

/// Runs and removes recovered VMs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Recovery {
    compute: Arc<QemuCompute>,
    exports: Exports,
}

/// What was ordered.
#[derive(Debug, Clone)]
pub struct RecoveryOrder {
    /// The recovered VM's name.
    pub id: RecoveryId,
    /// The chain that has the point.
    pub chain: ChainId,
    /// The point.
    pub sequence: Sequence,
    /// Where its network cards are plugged in.
    pub network: NetworkAttachment,
}

/// What a point needs to become a VM, as far as the vault tells.
#[derive(Debug, Clone)]
pub struct RecoveryPlan {
    /// The point.
    pub point: PointRecord,
    /// The machine to rebuild.
    pub machine: MachineSpecification,
    volumes: Vec<VolumeDescription>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The VM, which runs.
    pub vm: RecoveredVm,
    /// What leads out of its bubble, if it is in one.
    pub isolation: Option<IsolationProof>,
    /// How long it took.
    pub order_to_running: Duration,
}

/// Why a VM was not recovered or removed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The vault cannot be read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The chain has no such point.
    #[error("there is no point {sequence} in chain {chain}")]
    NoSuchPoint {
        /// Which chain.
        chain: ChainId,
        /// Which point.
        sequence: Sequence,
    },
    /// What the point says of its machine is not understood.
    #[error("the machine specification of point {0} cannot be understood")]
    Machine(Sequence, #[source] serde_json::Error),
    /// The machine has a disk that the point does not have.
    #[error("point {sequence} has no volume for the machine's disk `{disk}`")]
    NoSuchVolume {
        /// Which point.
        sequence: Sequence,
        /// The machine's disk.
        disk: String,
    },
    /// The point cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The VM cannot be run.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// Recovered VMs cannot be kept where they should.
    #[error(transparent)]
    Open(#[from] OpenComputeError),
}

impl RecoveryPlan {
    /// What the point of `chain` with this sequence needs.
    ///
    /// # Errors
    /// When there is no such point, or its machine is not understood or has other disks.
    pub fn new(reader: &VaultReader, chain: ChainId, sequence: Sequence) -> Result<Self, RecoveryError> {
        let point = reader
            .points(chain)?
            .into_iter()
            .find(|point| point.sequence == sequence)
            .ok_or(RecoveryError::NoSuchPoint { chain, sequence })?;
        let machine: MachineSpecification = serde_json::from_slice(&point.machine)
            .map_err(|source| RecoveryError::Machine(point.sequence, source))?;
        let volumes = reader.description_at(chain, sequence)?.volumes;
        let plan = Self {
            point,
            machine,
            volumes,
        };
        plan.disks(Path::new("")).map(|_disks| plan)
    }

    /// The machine's disks, as volumes that are exported at `socket`.
    fn disks(&self, socket: &Path) -> Result<Vec<RecoveryDisk>, RecoveryError> {
        let mut disks = Vec::new();
        for disk in &self.machine.disks {
            let mut there = self.volumes.iter().filter(|volume| volume.is_there());
            match there.find(|volume| volume.name == disk.name) {
                Some(volume) => disks.push(RecoveryDisk {
                    name: volume.name.clone(),
                    size: volume.size,
                    export_socket: PathBuf::from(socket),
                }),
                None => {
                    return Err(RecoveryError::NoSuchVolume {
                        sequence: self.point.sequence,
                        disk: disk.name.clone(),
                    });
                }
            }
        }
        Ok(disks)
    }
}

impl Recovery {
    /// Keeps recovered VMs below `directory`; those that a predecessor left there are known from then on.
    /// `executable` is the `farshore` binary, which is started again for exports.
    ///
    /// # Errors
    /// When the directory cannot be made or used.
    pub fn open(
        directory: &Path,
        executable: PathBuf,
        accelerator: AcceleratorChoice,
    ) -> Result<Self, RecoveryError> {
        let exports = Exports::open(executable, directory.join("exports"))?;
        let compute = QemuComputeConfig {
            accelerator,
            ..QemuComputeConfig::new(directory.join("vms"))
        };
        Ok(Self {
            compute: Arc::new(QemuCompute::open(compute)?),
            exports,
        })
    }

    /// Gives every recovered VM its export again, if it has lost it: a predecessor's, and one whose export died or hangs.
    pub(crate) async fn keep_exports(&self) -> Result<(), RecoveryError> {
        for id in self.compute.list().await? {
            match self.exports.keep(&id).await {
                Ok(Kept::AsItWas) => {}
                Ok(Kept::StartedAgain) => {
                    tracing::warn!(recovery = %id, "its export was gone, and is there again")
                }
                Err(error) => {
                    tracing::error!(recovery = %id, error = crate::source::chain(&error), "it has no export");
                }
            }
        }
        Ok(())
    }

    /// Keeps exports until it is stopped.
    pub(crate) async fn go_on_keeping_exports(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(BETWEEN_LOOKS) => {}
            }
            if let Err(error) = self.keep_exports().await {
                tracing::warn!(
                    error = crate::source::chain(&error),
                    "exports of recovered VMs are not looked after"
                );
            }
        }
    }

    /// What stands in the way of running `machine` here.
    pub async fn checks(&self, machine: &MachineSpecification, network: &NetworkAttachment) -> Vec<Check> {
        self.compute.checks(machine, network).await
    }

    /// Starts a VM from a point of the vault in `vault`; what runs already under the name is given back as it is.
    ///
    /// # Errors
    /// When there is no such point, or it cannot be exported, or the VM not be run.
    pub async fn start(
        &self,
        (reader, vault): (&VaultReader, &Path),
        order: RecoveryOrder,
    ) -> Result<Recovered, RecoveryError> {
        let ordered_at = WallTime::now();
        let plan = RecoveryPlan::new(reader, order.chain, order.sequence)?;
        let socket = self
            .exports
            .start(&order.id, vault, order.chain, order.sequence)
            .await?;
        let request = RecoveryRequest {
            id: order.id.clone(),
            disks: plan.disks(&socket)?,
            machine: plan.machine,
            network: order.network.clone(),
        };
        self.compute.prepare(&request).await?;
        let vm = self.compute.start(&order.id).await?;
        let isolation = match &order.network {
            NetworkAttachment::Bubble { .. } => Some(self.compute.prove_isolation(&order.id).await?),
            NetworkAttachment::Bridge { .. } => None,
        };
        Ok(Recovered {
            vm,
            isolation,
            order_to_running: WallTime::now().since(ordered_at),
        })
    }

    /// Ends the VM and its export at once; what its guest wrote stays, and [`Self::start`] goes on from there.
    ///
    /// # Errors
    /// When nothing of that name is known here, or a process cannot be ended.
    pub async fn stop(&self, id: &RecoveryId) -> Result<Vec<Leak>, RecoveryError> {
        self.compute.stop(id).await?;
        Ok(self.exports.stop(id).await?)
    }

    /// Ends the VM and removes everything that was made for it; says what is still there.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub async fn discard(&self, id: &RecoveryId) -> Result<Vec<Leak>, RecoveryError> {
        let mut leaks = self.compute.discard(id).await?;
        leaks.extend(self.exports.stop(id).await?);
        Ok(leaks)
    }

    /// Where what the VM's first serial port said is kept.
    #[must_use]
    pub fn console(&self, id: &RecoveryId) -> PathBuf {
        self.compute.console(id)
    }

    /// Every recovered VM and what it does now. One whose monitor does not answer counts as suspended.
    pub(crate) async fn conditions(&self) -> Result<Vec<(RecoveryId, VmCondition)>, RecoveryError> {
        let mut conditions = Vec::new();
        for id in self.compute.list().await? {
            let condition = self.compute.probe(&id).await.unwrap_or(VmCondition::Suspended);
            conditions.push((id, condition));
        }
        Ok(conditions)
    }
}
