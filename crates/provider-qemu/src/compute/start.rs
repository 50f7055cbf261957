//! Laying out and starting a recovered VM: first run, repetition and adoption are one path.
//!
//! QEMU is launched with its processors held, what it opened is compared with what was asked for, and then the
//! processors run. Whoever comes after a crash finds the process in one of these states and goes on from there.

use std::io;

use farshore_provider::{ComputeError, RecoveredVm, RecoveryId, RecoveryRequest};

use super::{
    Site,
    directory::RecoveryDirectory,
    launch,
    network::{Place, Wanted},
    overlay, process, request, running,
};

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
            launch::launch(site, &request, &files).await?
        }
    };
    running::bring_to_running(&request, &files, &hypervisor).await?;
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

/// The error of a file or process that could not be used while `action` was done.
pub(crate) fn io_failed(id: &RecoveryId, action: &str) -> impl FnOnce(io::Error) -> ComputeError + use<> {
    let (id, action) = (id.clone(), action.to_owned());
    move |source| ComputeError::Io { id, action, source }
}
