//! Bringing a QEMU that is there to running.

use std::time::Duration;

use farshore_provider::{ComputeError, RecoveryId, RecoveryRequest};
use tokio::time::{Instant, sleep};

use super::{
    command_line,
    control::{Control, ControlError, RunState},
    directory::RecoveryDirectory,
    process::Hypervisor,
    stop,
};

/// For going on after a failing disk: QEMU looks for a server that went away at least every 16 s.
const RESUME_LIMIT: Duration = Duration::from_secs(30);

/// A VM that still runs after this has its disks back.
const RESUME_TRIAL: Duration = Duration::from_millis(250);

/// From wherever it is to running. An operator's pause is left alone.
pub(crate) async fn bring_to_running(
    request: &RecoveryRequest,
    files: &RecoveryDirectory,
    hypervisor: &Hypervisor,
) -> Result<(), ComputeError> {
    let id = &request.id;
    let in_control = |error: ControlError| error.of(id);
    let control = Control::connect(files, hypervisor).await.map_err(in_control)?;
    match control.run_state().await.map_err(in_control)? {
        RunState::Running => return Ok(()),
        RunState::Waiting => {
            if let Err(unfit) = compare_sizes(&control, request).await {
                // No guest ever ran on what was opened.
                stop::end(files, id).await?;
                return Err(unfit);
            }
            control.run().await.map_err(in_control)?;
        }
        RunState::DiskError => return resume(&control, id).await,
        state @ (RunState::Off | RunState::Halted(_)) => return Err(not_running(id, &state)),
    }
    match control.run_state().await.map_err(in_control)? {
        RunState::Running => Ok(()),
        state @ (RunState::DiskError | RunState::Waiting | RunState::Off | RunState::Halted(_)) => {
            Err(not_running(id, &state))
        }
    }
}

/// Lets a VM go on that a failing disk suspended. The point's server is back sooner than QEMU notices: until then each
/// attempt ends in the same suspension, a moment after it began.
async fn resume(control: &Control, id: &RecoveryId) -> Result<(), ComputeError> {
    let in_control = |error: ControlError| error.of(id);
    let deadline = Instant::now() + RESUME_LIMIT;
    loop {
        control.run().await.map_err(in_control)?;
        sleep(RESUME_TRIAL).await;
        match control.run_state().await.map_err(in_control)? {
            RunState::Running => return Ok(()),
            RunState::DiskError if Instant::now() < deadline => {}
            state @ (RunState::DiskError | RunState::Waiting | RunState::Off | RunState::Halted(_)) => {
                return Err(not_running(id, &state));
            }
        }
    }
}

fn not_running(id: &RecoveryId, state: &RunState) -> ComputeError {
    let why = match state {
        RunState::Running => "it runs".to_owned(),
        RunState::Waiting => "it was told to, and does not".to_owned(),
        RunState::DiskError => {
            "one of its disks fails: see to the point's server and to the room for overlays".to_owned()
        }
        RunState::Off => "its guest has switched itself off".to_owned(),
        RunState::Halted(status) => format!("its status is `{status}`: resume or discard it"),
    };
    ComputeError::Tool {
        id: id.clone(),
        action: "letting its processors run".to_owned(),
        output: why,
    }
}

/// An export of another size than the volume's is another volume.
async fn compare_sizes(control: &Control, request: &RecoveryRequest) -> Result<(), ComputeError> {
    let sizes = control
        .node_sizes()
        .await
        .map_err(|error| error.of(&request.id))?;
    for (index, disk) in request.disks.iter().enumerate() {
        let node = command_line::point_node(index);
        let exported = sizes.iter().find(|(name, _)| *name == node);
        if let Some((_, size)) = exported.filter(|(_, size)| *size != disk.size.0) {
            return Err(ComputeError::Unfit {
                id: request.id.clone(),
                why: format!(
                    "the export of disk `{}` has {size} bytes and the volume {}",
                    disk.name, disk.size.0
                ),
            });
        }
    }
    Ok(())
}
