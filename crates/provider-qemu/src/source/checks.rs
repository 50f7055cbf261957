//! Every prerequisite at the source, looked at: none of these changes anything at the VM.

use std::{os::unix::fs::MetadataExt, path::Path};

use farshore_blocks::ByteCount;
use farshore_provider::{Check, Firmware, MachineSpecification, SourceError};
use farshore_qmp::Version;

use super::{
    attached::Site,
    capabilities,
    export::{self, NbdServer},
    form::CaptureForm,
    hypervisor::Hypervisor,
    listing::Listing,
    machine::{self, ObservedMachine, Running},
    misfit::Misfit,
    scratch::ScratchDirectory,
    survey::{Depth, survey},
};

/// The least share of the disks that scratch space must have free: what a busy guest overwrites during one capture.
const SCRATCH_SHARE_OF_DATA: u64 = 20;

/// Whether the machine's firmware can be rebuilt at the target.
pub(super) fn firmware(machine: &MachineSpecification) -> Check {
    match machine.firmware {
        Firmware::Bios => Check::passed("firmware-supported", "the machine starts by a PC BIOS"),
        Firmware::Uefi => Check::failed(
            "firmware-supported",
            "the machine starts by UEFI, whose variables are not captured yet",
            "a machine with `firmware: bios`",
        ),
    }
}

/// Whether the scratch directory can be made and written.
pub(super) async fn scratch_directory(scratch: &ScratchDirectory) -> Check {
    match scratch.prove_writable().await {
        Ok(()) => Check::passed(
            "scratch-writable",
            format!("{} can be written", scratch.path().display()),
        ),
        Err(error) => Check::failed(
            "scratch-writable",
            with_cause(&error),
            "a directory that Farshore can create files in",
        ),
    }
}

/// The monitor that could not be reached.
pub(super) fn unreachable(monitor: &Path, error: &SourceError) -> Check {
    Check::failed(
        "monitor-reachable",
        with_cause(error),
        format!(
            "a QMP monitor for Farshore alone: -qmp unix:{},server=on,wait=off",
            monitor.display()
        ),
    )
}

/// Whether the second monitor is this VM's; nothing where none is declared.
pub(super) async fn second_monitor(site: &Site) -> Option<Check> {
    const CODE: &str = "second-monitor";
    let monitor = &site.watchdog.as_ref()?.monitor;
    let remedy = || {
        format!(
            "a second QMP monitor of the same VM, for Farshore alone: -qmp unix:{},server=on,wait=off",
            monitor.display()
        )
    };
    let observed = async {
        let hypervisor = Hypervisor::at(monitor, site.machine.vm.clone()).await?;
        machine::observe(&hypervisor).await
    };
    Some(match observed.await {
        Ok(observed) => {
            let wrong = observed.mismatches(&site.machine);
            if wrong.is_empty() {
                Check::passed(
                    CODE,
                    "the watchdog's monitor answers, and is of a machine as declared",
                )
            } else {
                Check::failed(CODE, wrong.join("; "), remedy())
            }
        }
        Err(error) => Check::failed(CODE, with_cause(&error), remedy()),
    })
}

/// What is seen through the monitor.
pub(super) async fn at_vm(hypervisor: &Hypervisor, site: &Site) -> Vec<Check> {
    let mut checks = vec![Check::passed(
        "monitor-reachable",
        format!("QEMU {} answers", hypervisor.version()),
    )];
    let looked = async {
        let observed = machine::observe(hypervisor).await?;
        let (listing, misfits) = survey(hypervisor, &site.machine, Depth::Full).await?;
        let server = export::probe_server(hypervisor, &site.scratch).await?;
        let lacking = capabilities::missing(hypervisor).await?;
        Ok::<_, SourceError>((observed, listing, misfits, server, lacking))
    };
    match looked.await {
        Ok((observed, listing, misfits, server, lacking)) => {
            checks.push(machine_matches(&observed, &site.machine, &misfits));
            checks.push(nics_match(&observed, &site.machine));
            checks.push(vm_running(&observed));
            checks.push(disks_trackable(&listing, &misfits));
            checks.push(capture_form(hypervisor.version(), listing.form, &lacking));
            checks.extend(images_readable(&listing));
            checks.push(nbd_server_free(server));
            checks.push(scratch_room(&listing, &site.scratch));
            checks.extend(scratch_apart(&listing, &site.scratch));
        }
        Err(error) => checks.push(Check::failed(
            "monitor-usable",
            with_cause(&error),
            "a QEMU of version 7.2 or later that is not busy with something else",
        )),
    }
    checks
}

fn machine_matches(observed: &ObservedMachine, machine: &MachineSpecification, misfits: &[Misfit]) -> Check {
    let mut wrong = observed.mismatches(machine);
    let absent = misfits.iter().filter(|misfit| misfit.is_absence());
    wrong.extend(absent.map(ToString::to_string));
    if wrong.is_empty() {
        return Check::passed(
            "machine-matches",
            "processors, memory, UUID and disks are as declared",
        );
    }
    Check::failed(
        "machine-matches",
        wrong.join("; "),
        "correct the declaration, or name the monitor of the right VM",
    )
}

fn nics_match(observed: &ObservedMachine, machine: &MachineSpecification) -> Check {
    let unseen = observed.unseen_macs(machine);
    if unseen.is_empty() {
        return Check::passed("nics-match", "every declared network card is there");
    }
    Check::warning(
        "nics-match",
        format!("no network card with MAC {} could be seen", unseen.join(", ")),
        "correct the declaration, unless the card is one that QEMU does not show (-nic, -net)",
    )
}

fn vm_running(observed: &ObservedMachine) -> Check {
    match &observed.running {
        Running::Yes => Check::passed("vm-running", "its processors run"),
        Running::No(status) => Check::warning(
            "vm-running",
            format!("its processors do not run: {status}"),
            "nothing changes until it is resumed, which is left to whoever paused it",
        ),
    }
}

fn disks_trackable(listing: &Listing, misfits: &[Misfit]) -> Check {
    let wrong: Vec<_> = misfits.iter().map(ToString::to_string).collect();
    if wrong.is_empty() {
        let names: Vec<_> = listing.disks.iter().map(|disk| disk.name.as_str()).collect();
        return Check::passed(
            "disks-trackable",
            format!("changes of {} can be tracked", names.join(", ")),
        );
    }
    Check::failed(
        "disks-trackable",
        wrong.join("; "),
        "writable qcow2 or raw disks on a file or host device, attached with `-device …,id=`",
    )
}

fn capture_form(version: Version, form: CaptureForm, lacking: &[&str]) -> Check {
    if !lacking.is_empty() {
        let lacking = lacking.join(", ");
        return Check::failed(
            "capture-form",
            format!("QEMU {version} does not know {lacking}"),
            "QEMU 7.2 or later",
        );
    }
    let found = match form {
        CaptureForm::Filter => format!("QEMU {version} bears the capture filter on every disk"),
        CaptureForm::Copy => format!(
            "an I/O thread serves a disk, and QEMU {version} bears no capture filter there: what changed is copied to \
             scratch space at each instant"
        ),
    };
    Check::passed("capture-form", found)
}

/// In the form that reads live disks from their images.
fn images_readable(listing: &Listing) -> Option<Check> {
    if listing.form == CaptureForm::Filter {
        return None;
    }
    let mut unreadable = Vec::new();
    for disk in &listing.disks {
        let is_path = !disk.filename.starts_with("json:");
        if is_path && let Err(error) = std::fs::File::open(&disk.filename) {
            unreadable.push(format!("{}: {error}", disk.filename));
        }
    }
    if unreadable.is_empty() {
        return Some(Check::passed("images-readable", "the disks' images can be read"));
    }
    Some(Check::failed(
        "images-readable",
        unreadable.join("; "),
        "images by absolute paths that are the same for Farshore as for QEMU, which Farshore may read",
    ))
}

fn nbd_server_free(server: NbdServer) -> Check {
    match server {
        NbdServer::Ours => Check::passed("nbd-server-free", "QEMU's NBD server is free for captures"),
        NbdServer::Foreign => Check::failed(
            "nbd-server-free",
            "an NBD server that Farshore did not start runs in this QEMU, which can run only one",
            "stop it (nbd-server-stop)",
        ),
    }
}

fn scratch_room(listing: &Listing, scratch: &ScratchDirectory) -> Check {
    let data = listing
        .disks
        .iter()
        .fold(0_u64, |sum, disk| sum.saturating_add(disk.size.0));
    let wanted = ByteCount(data / SCRATCH_SHARE_OF_DATA);
    match scratch.room() {
        Ok(room) if room >= wanted => Check::passed("scratch-room", format!("{room} are free for scratch")),
        Ok(room) => Check::failed(
            "scratch-room",
            format!("{room} are free for scratch"),
            format!("at least {wanted}, which is 5 % of the disks"),
        ),
        Err(error) => Check::failed(
            "scratch-room",
            with_cause(&error),
            "a scratch directory that exists",
        ),
    }
}

/// A scratch file that fills the images' file system would stop the guest; images that are not files are apart.
fn scratch_apart(listing: &Listing, scratch: &ScratchDirectory) -> Option<Check> {
    let device = std::fs::metadata(scratch.path()).ok()?.dev();
    let shared = listing.disks.iter().find(|disk| {
        std::fs::metadata(&disk.filename).is_ok_and(|image| image.is_file() && image.dev() == device)
    });
    Some(match shared {
        None => Check::passed("scratch-apart", "scratch space is apart from the images"),
        Some(disk) => Check::warning(
            "scratch-apart",
            format!(
                "scratch space shares a file system with the image of disk `{}`",
                disk.name
            ),
            "a scratch directory on a file system of its own, so that it cannot take the images' room",
        ),
    })
}

/// An error with what lies behind it: a check is shown alone.
fn with_cause(error: &SourceError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
