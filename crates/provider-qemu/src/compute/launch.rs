//! Launching QEMU for a recovered VM, with its processors held.

use std::{io, path::Path, time::Duration};

use farshore_provider::{ComputeError, RecoveryRequest};

use super::{
    Site, accelerator,
    command_line::{self, Backing, Surroundings},
    directory::{LaunchRecord, RecoveryDirectory},
    network::{Wanted, namespace_path},
    overlay,
    process::{self, Hypervisor},
    start::io_failed,
    stop,
    tool::{self, ToolError},
};

/// A launch takes a few hundred milliseconds and waits some seconds for a point's server.
const LAUNCH_LIMIT: Duration = Duration::from_secs(30);

/// Launches it. That it was launched is durable before it is: from then on its overlays are never made again, unless
/// QEMU itself says that nothing ran.
pub(crate) async fn launch(
    site: &Site,
    request: &RecoveryRequest,
    files: &RecoveryDirectory,
) -> Result<Hypervisor, ComputeError> {
    let id = &request.id;
    let failed = |action: &str| io_failed(id, action);
    let command = command(site, request, files).await?;
    let first = files
        .launch()
        .map_err(failed("reading the last launch"))?
        .is_none();
    let record = LaunchRecord { command };
    files
        .save_launch(&record)
        .await
        .map_err(failed("writing the launch"))?;
    if let Err(error) = run_command(&record.command).await {
        if matches!(error, ToolError::TooSlow { .. }) {
            stop::end(files, id).await?;
        }
        if first {
            files
                .forget_launch()
                .await
                .map_err(failed("forgetting the launch"))?;
        }
        return Err(error.during(id, "starting QEMU"));
    }
    let found = process::find(files).map_err(failed("looking for its process"))?;
    found.ok_or_else(|| ComputeError::Tool {
        id: id.clone(),
        action: "starting QEMU".to_owned(),
        output: "it started, and ended at once".to_owned(),
    })
}

async fn run_command(command: &[String]) -> Result<Vec<u8>, ToolError> {
    let (program, arguments) = command.split_first().ok_or_else(|| ToolError::NotRun {
        program: String::new(),
        source: io::ErrorKind::InvalidInput.into(),
    })?;
    tool::run(Path::new(program), arguments, LAUNCH_LIMIT).await
}

/// The program and its arguments. A bubble is entered by `nsenter`, which becomes QEMU: `ip netns exec` would give it a
/// mount namespace of its own as well.
async fn command(
    site: &Site,
    request: &RecoveryRequest,
    files: &RecoveryDirectory,
) -> Result<Vec<String>, ComputeError> {
    let wanted = Wanted::by(request, &site.root);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut command = Vec::new();
    if let Some(namespace) = wanted.place.namespace() {
        let net = format!("--net={}", text(&namespace_path(namespace)));
        command.extend([text(&site.tools.nsenter), net]);
    }
    command.push(text(&site.tools.qemu));
    let around = Surroundings {
        files,
        accelerator: accelerator::choose(site.accelerator).await,
        cache: cache(request, files),
        backings: backings(request, files)?,
        taps: wanted.taps,
    };
    command.extend(command_line::arguments(request, &around));
    Ok(command)
}

fn cache(request: &RecoveryRequest, files: &RecoveryDirectory) -> overlay::OverlayCache {
    match request.disks.first() {
        Some(disk) => overlay::cache_possible(Path::new(&files.overlay(&disk.name))),
        None => overlay::OverlayCache::Writeback,
    }
}

/// What each overlay lies on now. An overlay that a guest wrote to is never replaced: one that is lost is an error.
fn backings(request: &RecoveryRequest, files: &RecoveryDirectory) -> Result<Vec<Backing>, ComputeError> {
    let unfit = |why: String| ComputeError::Unfit {
        id: request.id.clone(),
        why,
    };
    let mut backings = Vec::new();
    for disk in &request.disks {
        let path = files.overlay(&disk.name);
        let header = overlay::header_of(&path, &request.id)?.ok_or_else(|| {
            unfit(format!(
                "its overlay {path} is lost or damaged; discard it and prepare it again"
            ))
        })?;
        if header.size != disk.size {
            return Err(unfit(format!(
                "its overlay {path} has {} bytes and the volume {}",
                header.size.0, disk.size.0
            )));
        }
        backings.push(match header.backing {
            Some(_) => Backing::Point,
            None => Backing::Nothing,
        });
    }
    Ok(backings)
}
