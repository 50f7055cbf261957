//! Ending a recovered VM at once: it is asked, and then killed.

use std::time::Duration;

use farshore_provider::{ComputeError, RecoveryId};
use tokio::time::timeout;

use super::{
    control::Control,
    directory::RecoveryDirectory,
    process::{self, Hypervisor, Wait},
    start::io_failed,
};

/// For asking: a QEMU that does not answer at once is not worth waiting for, its guest is being ended anyway.
const QUIT_LIMIT: Duration = Duration::from_secs(2);

/// For dying once asked: QEMU flushes the overlays.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// For dying once killed: the kernel finishes what disk requests are under way.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Ends every process of the VM and removes what they leave; nothing if there are none.
pub(crate) async fn end(files: &RecoveryDirectory, id: &RecoveryId) -> Result<(), ComputeError> {
    let watching = |action: &str| io_failed(id, action);
    for hypervisor in process::find_all(files).map_err(watching("looking for its process"))? {
        end_process(files, &hypervisor)
            .await
            .map_err(watching("ending its process"))?;
        let wait = hypervisor.ended_within(KILL_LIMIT).await;
        if wait.map_err(watching("waiting for its process"))? == Wait::StillThere {
            return Err(ComputeError::Tool {
                id: id.clone(),
                action: format!("killing process {}", hypervisor.pid()),
                output: format!("it still exists {} s later", KILL_LIMIT.as_secs()),
            });
        }
    }
    files
        .remove_process_files()
        .map_err(watching("removing its sockets"))
}

async fn end_process(files: &RecoveryDirectory, hypervisor: &Hypervisor) -> std::io::Result<()> {
    let asked = async {
        if let Ok(control) = Control::connect(files, hypervisor).await {
            control.quit(QUIT_LIMIT).await;
        }
    };
    let answered = timeout(QUIT_LIMIT, asked).await.is_ok();
    if answered && hypervisor.ended_within(FLUSH_LIMIT).await? == Wait::Ended {
        return Ok(());
    }
    hypervisor.kill()
}
