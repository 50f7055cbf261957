//! Laying out and starting a recovered VM: first run, repetition and adoption are one path.
//!
//! QEMU is launched with its processors held, what it opened is compared with what was asked for, and then the
//! processors run. Whoever comes after a crash finds the process in one of these states and goes on from there.

use std::{io, path::Path, time::Duration};

use farshore_provider::{ComputeError, RecoveredVm, RecoveryId, RecoveryRequest};
use tokio::time::{Instant, sleep};

use super::{
    Site, accelerator,
    command_line::{self, Backing, Surroundings},
    control::{Control, ControlError, RunState},
    directory::{LaunchRecord, RecoveryDirectory},
    network::{Place, Wanted, namespace_path},
    overlay,
    process::{self, Hypervisor},
    request, stop,
    tool::{self, ToolError},
};

/// A launch takes a few hundred milliseconds and waits some seconds for a point's server.
const LAUNCH_LIMIT: Duration = Duration::from_secs(30);

/// For going on after a failing disk: QEMU looks for a server that went away at least every 16 s.
const RESUME_LIMIT: Duration = Duration::from_secs(30);

/// A VM that still runs after this has its disks back.
const RESUME_TRIAL: Duration = Duration::from_millis(250);

/// Lays out what the VM needs.
pub(crate) async fn prepare(site: &Site, wanted: &RecoveryRequest) -> Result<(), ComputeError> {
    let files = site.files(&wanted.id);
    request::judge(wanted, &files)?;
    let failed = |action: &str| io_failed(&wanted.id, action);
    match files.request().map_err(failed("reading the request"))? {
        Some(known) if known != *wanted => {
            return Err(ComputeError::Unfit {
                id: wanted.id.clone(),
                why: "it was prepared already, from another request; discard it first".to_owned(),
            });
        }
        Some(_) => {}
        None => {
            let place = Place::of(&wanted.network);
            let known = site
                .taps_in(&place)
                .map_err(failed("reading the requests of other VMs"))?;
            site.network(&wanted.id).verify(&place, &known).await?;
            files
                .save_request(wanted)
                .await
                .map_err(failed("writing the request"))?;
        }
    }
    lay_out(site, wanted, &files).await
}

/// Starts the VM, or adopts it if it runs; done when its processors run.
pub(crate) async fn start(site: &Site, id: &RecoveryId) -> Result<RecoveredVm, ComputeError> {
    let files = site.files(id);
    let failed = |action: &str| io_failed(id, action);
    let request = files.request().map_err(failed("reading the request"))?;
    let request = request.ok_or_else(|| ComputeError::Unknown(id.clone()))?;
    let hypervisor = match process::find(&files).map_err(failed("looking for its process"))? {
        Some(hypervisor) => hypervisor,
        None => {
            lay_out(site, &request, &files).await?;
            launch(site, &request, &files).await?
        }
    };
    run(&request, &files, &hypervisor).await?;
    tracing::info!(vm = %id, pid = hypervisor.pid(), "a recovered VM runs");
    Ok(RecoveredVm {
        id: id.clone(),
        pid: hypervisor.pid(),
        monitor: files.monitor().into(),
        namespace: Place::of(&request.network).namespace().map(str::to_owned),
    })
}

async fn lay_out(
    site: &Site,
    request: &RecoveryRequest,
    files: &RecoveryDirectory,
) -> Result<(), ComputeError> {
    let launched = files
        .launch()
        .map_err(io_failed(&request.id, "reading the last launch"))?;
    if launched.is_none() {
        for disk in &request.disks {
            overlay::create(&site.tools.qemu_img, files, &request.id, disk).await?;
        }
    }
    let _turn = site.network_turn.lock().await;
    let wanted = Wanted::by(request, &site.root);
    let known = site
        .taps_in(&wanted.place)
        .map_err(io_failed(&request.id, "reading the requests of other VMs"))?;
    site.network(&request.id).lay_out(&wanted, &known).await
}

async fn launch(
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

/// Brings a QEMU that is there to running. An operator's pause is left alone.
async fn run(
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

pub(crate) fn io_failed(id: &RecoveryId, action: &str) -> impl FnOnce(io::Error) -> ComputeError + use<> {
    let (id, action) = (id.clone(), action.to_owned());
    move |source| ComputeError::Io { id, action, source }
}
