//! Recovered VMs of this replicator: a point exported by a process of its own, a VM on overlays over it.
//!
//! Crash story: everything is started so that it outlives this process. A restarted replicator finds recovered VMs
//! through [`Compute::list`] and sees to it that each has its export again; QEMU connects to it by itself.

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
use farshore_provider_qemu::QemuCompute;
use farshore_vault::{PointRecord, Vault, VaultError, VaultReader};

pub(crate) use exports::{ExportError, Exports};

/// Runs and removes recovered VMs; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recovery {
    compute: Arc<QemuCompute>,
    exports: Exports,
}

/// What was ordered.
#[derive(Debug, Clone)]
pub(crate) struct RecoveryOrder {
    pub(crate) id: RecoveryId,
    pub(crate) chain: ChainId,
    pub(crate) sequence: Sequence,
    pub(crate) network: NetworkAttachment,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Recovered {
    pub(crate) vm: RecoveredVm,
    pub(crate) isolation: Option<IsolationProof>,
    pub(crate) order_to_running: Duration,
}

/// Why a VM was not recovered or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("there is no point {sequence} in chain {chain}")]
    NoSuchPoint { chain: ChainId, sequence: Sequence },
    #[error("the machine specification of point {0} cannot be understood")]
    Machine(Sequence, #[source] serde_json::Error),
    #[error("point {sequence} has volume `{volume}` where the machine's disk is `{disk}`")]
    DisksDiffer {
        sequence: Sequence,
        volume: String,
        disk: String,
    },
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Compute(#[from] ComputeError),
}

impl Recovery {
    pub(crate) fn new(compute: QemuCompute, exports: Exports) -> Self {
        Self {
            compute: Arc::new(compute),
            exports,
        }
    }

    /// Gives every recovered VM of a predecessor its export again.
    pub(crate) async fn adopt(&self) -> Result<(), RecoveryError> {
        for id in self.compute.list().await? {
            match self.exports.revive(&id).await {
                Ok(()) => tracing::info!(recovery = %id, "adopted"),
                Err(error) => {
                    tracing::error!(recovery = %id, error = crate::source::chain(&error), "not adopted");
                }
            }
        }
        Ok(())
    }

    /// What stands in the way of running `machine` here.
    pub(crate) async fn checks(
        &self,
        machine: &MachineSpecification,
        network: &NetworkAttachment,
    ) -> Vec<Check> {
        self.compute.checks(machine, network).await
    }

    /// Starts a VM from a point; what runs already under the name is given back as it is.
    pub(crate) async fn start(
        &self,
        vault: &Vault,
        order: RecoveryOrder,
    ) -> Result<Recovered, RecoveryError> {
        let ordered_at = WallTime::now();
        let (point, volumes) = find(&vault.reader(), order.chain, order.sequence)?;
        let machine: MachineSpecification = serde_json::from_slice(&point.machine)
            .map_err(|source| RecoveryError::Machine(point.sequence, source))?;
        let socket = self
            .exports
            .start(&order.id, vault.path(), order.chain, order.sequence)
            .await?;
        let request = RecoveryRequest {
            id: order.id.clone(),
            disks: disks(&machine, &volumes, &socket, point.sequence)?,
            machine,
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

    /// Ends the VM and removes everything that was made for it.
    pub(crate) async fn discard(&self, id: &RecoveryId) -> Result<Vec<Leak>, RecoveryError> {
        let mut leaks = self.compute.discard(id).await?;
        leaks.extend(self.exports.stop(id).await?);
        Ok(leaks)
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

type NamedSize = (String, farshore_blocks::ByteCount);

fn find(
    reader: &VaultReader,
    chain: ChainId,
    sequence: Sequence,
) -> Result<(PointRecord, Vec<NamedSize>), RecoveryError> {
    let point = reader
        .points(chain)?
        .into_iter()
        .find(|point| point.sequence == sequence)
        .ok_or(RecoveryError::NoSuchPoint { chain, sequence })?;
    let description = reader
        .chains()?
        .into_iter()
        .find(|(known, _)| *known == chain)
        .map(|(_, description)| description)
        .ok_or(VaultError::UnknownChain(chain))?;
    let volumes = description
        .volumes
        .into_iter()
        .map(|volume| (volume.name, volume.size))
        .collect();
    Ok((point, volumes))
}

fn disks(
    machine: &MachineSpecification,
    volumes: &[NamedSize],
    socket: &Path,
    sequence: Sequence,
) -> Result<Vec<RecoveryDisk>, RecoveryError> {
    let mut disks = Vec::new();
    for (index, disk) in machine.disks.iter().enumerate() {
        let (volume, size) = volumes.get(index).cloned().unwrap_or_default();
        if volume != disk.name {
            return Err(RecoveryError::DisksDiffer {
                sequence,
                volume,
                disk: disk.name.clone(),
            });
        }
        disks.push(RecoveryDisk {
            name: volume,
            size,
            export_socket: PathBuf::from(socket),
        });
    }
    Ok(disks)
}
