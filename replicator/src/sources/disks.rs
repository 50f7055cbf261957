//! Another list of disks for a VM that is protected: what is new joins, what is missing leaves, the others go on.
//!
//! The engine is ended, because a monitor serves one client at a time, and begins anew: what is at the VM is settled as by
//! any restart. Where the disks cannot be had it goes on with those that it had.

use std::path::PathBuf;

use farshore_blocks::{ByteCount, ChainId};
use farshore_provider::{CheckOutcome, MachineSpecification};

use super::{Sources, SourcesError};
use crate::assignment::{AssignedVolume, Assignment, SourcePlace, Standing};

impl Sources {
    /// Lets a source go on with the disks of this machine, and these paths where no hypervisor runs it.
    pub(crate) async fn set_disks(
        &self,
        chain: ChainId,
        machine: MachineSpecification,
        paths: Vec<PathBuf>,
    ) -> Result<(), SourcesError> {
        let mut seats = self.seats.lock().await;
        let seat = seats.get_mut(&chain).ok_or(SourcesError::NotAssigned(chain))?;
        let place = match &seat.assignment.place {
            SourcePlace::Monitor(monitor) => SourcePlace::Monitor(monitor.clone()),
            SourcePlace::Disks(_) => SourcePlace::Disks(paths),
        };
        refuse_other_machine(&seat.assignment, &machine, &place)?;
        if seat.assignment.machine == machine && seat.assignment.place == place {
            return Ok(());
        }
        if seat.assignment.standing == Standing::Fenced {
            return Err(SourcesError::Fenced(chain));
        }
        let ran = seat.running.is_some();
        if let Err(error) = self.end(seat).await {
            tracing::warn!(%error, "an engine did not end cleanly and begins anew");
        }
        let membership = seat.assignment.membership.as_ref();
        let watchdog_monitor = membership.and_then(|membership| membership.watchdog_monitor.clone());
        let sized = self.sizes_of(&machine, &place, watchdog_monitor).await;
        let kept = sized.and_then(|sizes| {
            let changed = with_disks(seat.assignment.clone(), machine, (place, sizes));
            self.store.keep(chain, &changed)?;
            seat.assignment = changed;
            Ok(())
        });
        if ran {
            self.begin_anew(seat)?;
        }
        kept
    }

    async fn sizes_of(
        &self,
        machine: &MachineSpecification,
        place: &SourcePlace,
        watchdog_monitor: Option<PathBuf>,
    ) -> Result<Vec<ByteCount>, SourcesError> {
        let examined = self.examine(machine, place, watchdog_monitor).await;
        let failed = examined
            .checks
            .iter()
            .filter(|check| check.outcome == CheckOutcome::Failed);
        let failed: Vec<_> = failed.map(|check| check.found.as_str()).collect();
        match examined.sizes {
            Some(sizes) if failed.is_empty() => Ok(sizes),
            Some(_) | None => Err(SourcesError::Prerequisites {
                vm: machine.vm.clone(),
                failed: failed.join("; "),
            }),
        }
    }
}

/// What was prepared at the target is for this machine, at this place.
fn refuse_other_machine(
    assignment: &Assignment,
    machine: &MachineSpecification,
    place: &SourcePlace,
) -> Result<(), SourcesError> {
    let same_but_disks = MachineSpecification {
        disks: assignment.machine.disks.clone(),
        ..machine.clone()
    };
    let fits = match place {
        SourcePlace::Monitor(_) => true,
        SourcePlace::Disks(disks) => disks.len() == machine.disks.len(),
    };
    if same_but_disks == assignment.machine && fits {
        return Ok(());
    }
    Err(SourcesError::OtherMachine {
        vm: machine.vm.clone(),
    })
}

fn with_disks(
    assignment: Assignment,
    machine: MachineSpecification,
    (place, sizes): (SourcePlace, Vec<ByteCount>),
) -> Assignment {
    let volumes = machine
        .disks
        .iter()
        .zip(sizes)
        .map(|(disk, size)| AssignedVolume {
            name: disk.name.clone(),
            size,
        });
    Assignment {
        volumes: volumes.collect(),
        machine,
        place,
        ..assignment
    }
}
