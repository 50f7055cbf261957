//! Every prerequisite of running a machine here, each with its result.

mod host;

use std::{fs, path::Path};

use farshore_provider::{Check, MachineSpecification, NetworkAttachment, RecoveryId};

use self::host::Rights;
use super::{
    Site,
    accelerator::{self, Accelerator, AcceleratorChoice},
    network::{Namespace, Network, Place, claim, links::Link, look_at, missing},
    request::{Misfit, misfits_of_machine, misfits_of_network},
    tool::{self, TOOL_LIMIT},
};

/// `open-timeout` of NBD nodes came with it, and `-device` in JSON before it.
const OLDEST_QEMU: (u32, u32) = (7, 0);

/// Overlays begin with 200 KiB each; with less than this the VM is suspended soon after it has booted.
const ROOM_NEEDED_BYTES: u64 = 256 << 20;

/// With less than this a rehearsal of an hour may fill the disk.
const ROOM_WANTED_BYTES: u64 = 4 << 30;

const TUN_DEVICE: &str = "/dev/net/tun";

/// All checks, in the order in which a person would go through them.
pub(crate) async fn all(
    site: &Site,
    machine: &MachineSpecification,
    attachment: &NetworkAttachment,
) -> Vec<Check> {
    let mut checks = vec![
        hypervisor(site).await,
        tool_answers(
            "image-tool-present",
            &site.tools.qemu_img,
            "--version",
            "qemu-utils",
        )
        .await,
        tool_answers("network-tool-present", &site.tools.ip, "-V", "iproute2").await,
        tool_answers(
            "namespace-tool-present",
            &site.tools.nsenter,
            "--version",
            "util-linux",
        )
        .await,
        rights(),
        tun_device(),
        fits("machine-supported", "the machine", &misfits_of_machine(machine)),
        machine_type(site, &machine.machine_type).await,
        accelerator_check(site.accelerator).await,
        memory(machine),
        processors(machine),
        room(site),
    ];
    let misfits = misfits_of_network(attachment);
    if misfits.is_empty() {
        checks.push(network(site, &Place::of(attachment)).await);
    } else {
        checks.push(fits("network-usable", "the network", &misfits));
    }
    checks
}

async fn hypervisor(site: &Site) -> Check {
    const CODE: &str = "hypervisor-present";
    let program = &site.tools.qemu;
    let remedy = format!(
        "install QEMU {}.{} or newer (package qemu-system-x86), or configure where it is",
        OLDEST_QEMU.0, OLDEST_QEMU.1
    );
    match tool::run(program, &["--version"], TOOL_LIMIT).await {
        Err(error) => Check::failed(CODE, error.to_string(), remedy),
        Ok(printed) => {
            let printed = String::from_utf8_lossy(&printed);
            let line = printed.lines().next().unwrap_or_default().to_owned();
            match host::version_in(&line) {
                Some(version) if version >= OLDEST_QEMU => Check::passed(CODE, line),
                Some(_) => Check::failed(CODE, format!("{line} is too old"), remedy),
                None => Check::failed(CODE, format!("`{}` says `{line}`", program.display()), remedy),
            }
        }
    }
}

async fn tool_answers(code: &str, program: &Path, question: &str, package: &str) -> Check {
    match tool::run(program, &[question], TOOL_LIMIT).await {
        Ok(_) => Check::passed(code, format!("`{}` answers", program.display())),
        Err(error) => Check::failed(
            code,
            error.to_string(),
            format!("install it (package {package}), or configure where it is"),
        ),
    }
}

fn rights() -> Check {
    const CODE: &str = "rights";
    const REMEDY: &str = "run as root, or with the capabilities NET_ADMIN and SYS_ADMIN";
    match fs::read_to_string("/proc/self/status").map(|status| host::rights_in(&status)) {
        Ok(Some(Rights::Enough)) => Check::passed(CODE, "namespaces and interfaces may be made"),
        Ok(Some(Rights::Lacking(names))) => {
            Check::failed(CODE, format!("lacking: {}", names.join(", ")), REMEDY)
        }
        Ok(None) => Check::failed(CODE, "the kernel does not say which rights there are", REMEDY),
        Err(error) => Check::failed(CODE, format!("/proc/self/status cannot be read: {error}"), REMEDY),
    }
}

fn tun_device() -> Check {
    const CODE: &str = "tun-device";
    match fs::OpenOptions::new().read(true).write(true).open(TUN_DEVICE) {
        Ok(_) => Check::passed(CODE, format!("{TUN_DEVICE} can be opened")),
        Err(error) => Check::failed(
            CODE,
            format!("{TUN_DEVICE} cannot be opened: {error}"),
            "load the module tun, and give the container or service the device",
        ),
    }
}

fn fits(code: &str, what: &str, misfits: &[Misfit]) -> Check {
    if misfits.is_empty() {
        return Check::passed(code, format!("{what} can be rebuilt here"));
    }
    let why: Vec<_> = misfits.iter().map(Misfit::to_string).collect();
    Check::failed(code, why.join("; "), "change the specification accordingly")
}

async fn machine_type(site: &Site, wanted: &str) -> Check {
    const CODE: &str = "machine-type-known";
    match tool::run(&site.tools.qemu, &["-machine", "help"], TOOL_LIMIT).await {
        Err(error) => Check::failed(CODE, error.to_string(), "install QEMU"),
        Ok(printed) => {
            let known = host::machine_types_in(&String::from_utf8_lossy(&printed));
            if known.iter().any(|name| name == wanted) {
                return Check::passed(CODE, format!("this QEMU knows `{wanted}`"));
            }
            let (pc, unversioned) = ("pc-", ["pc", "q35"]);
            let usable: Vec<_> = known
                .into_iter()
                .filter(|name| name.starts_with(pc) || unversioned.contains(&name.as_str()))
                .collect();
            Check::failed(
                CODE,
                format!("this QEMU does not know machine type `{wanted}`"),
                format!("use one of: {}", usable.join(", ")),
            )
        }
    }
}

async fn accelerator_check(choice: AcceleratorChoice) -> Check {
    const CODE: &str = "accelerator";
    match accelerator::choose(choice).await {
        Accelerator::KvmOrTcg => Check::passed(CODE, "guests run on KVM"),
        Accelerator::Kvm => Check::passed(CODE, "guests run on KVM, as configured"),
        Accelerator::Tcg => Check::warning(
            CODE,
            "guests are emulated, which is many times slower than KVM",
            "let this host use hardware virtualisation (/dev/kvm)",
        ),
    }
}

fn memory(machine: &MachineSpecification) -> Check {
    const CODE: &str = "memory-available";
    let wanted = machine.memory.0;
    let listing = match fs::read_to_string("/proc/meminfo") {
        Ok(listing) => listing,
        Err(error) => return Check::warning(CODE, format!("unknown: {error}"), "look at the host's memory"),
    };
    let (total, available) = (
        host::meminfo_bytes(&listing, "MemTotal"),
        host::meminfo_bytes(&listing, "MemAvailable"),
    );
    let mib = |bytes: u64| bytes >> 20;
    match (total, available) {
        (Some(total), _) if wanted > total => Check::failed(
            CODE,
            format!(
                "the machine wants {} MiB and this host has {} MiB",
                mib(wanted),
                mib(total)
            ),
            "use a larger host, or give the machine less memory",
        ),
        (_, Some(available)) if wanted > available => Check::warning(
            CODE,
            format!(
                "the machine wants {} MiB and {} MiB are available now",
                mib(wanted),
                mib(available)
            ),
            "free memory on this host before a failover",
        ),
        (Some(_), Some(available)) => Check::passed(CODE, format!("{} MiB are available", mib(available))),
        (None, _) | (_, None) => Check::warning(
            CODE,
            "the kernel does not say how much there is",
            "look at the host's memory",
        ),
    }
}

fn processors(machine: &MachineSpecification) -> Check {
    const CODE: &str = "processors-available";
    let wanted = machine.processors;
    match std::thread::available_parallelism().map(|count| u32::try_from(count.get())) {
        Ok(Ok(here)) if wanted > here => Check::warning(
            CODE,
            format!("the machine wants {wanted} processors and this host has {here}: it will be slower"),
            "use a larger host",
        ),
        Ok(_) => Check::passed(CODE, format!("{wanted} of this host's processors are used")),
        Err(error) => Check::warning(CODE, format!("unknown: {error}"), "look at the host's processors"),
    }
}

fn room(site: &Site) -> Check {
    const CODE: &str = "overlay-room";
    let place = &site.root;
    match rustix::fs::statvfs(site.directory()) {
        Err(error) => Check::failed(
            CODE,
            format!("{place} cannot be used: {error}"),
            "make the directory usable",
        ),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let remedy = "free space there, or put recovered VMs elsewhere";
            let said = format!("{} MiB are free in {place} for what guests write", free >> 20);
            match free {
                0..ROOM_NEEDED_BYTES => Check::failed(CODE, said, remedy),
                ROOM_NEEDED_BYTES..ROOM_WANTED_BYTES => Check::warning(CODE, said, remedy),
                ROOM_WANTED_BYTES.. => Check::passed(CODE, said),
            }
        }
    }
}

async fn network(site: &Site, place: &Place) -> Check {
    match place {
        Place::Bridge { bridge } => {
            const CODE: &str = "bridge-exists";
            match links(site, None).await {
                Err(error) => Check::failed(CODE, error, "let `ip` list this host's interfaces"),
                Ok(links) => match missing::bridge_among(&links, bridge) {
                    Ok(_) => Check::passed(CODE, format!("bridge `{bridge}` is there")),
                    Err(why) => Check::failed(CODE, why.to_string(), "make the bridge, or name another one"),
                },
            }
        }
        Place::Bubble { namespace } => bubble(site, namespace).await,
    }
}

/// A bubble that is there already may hold only what is ours.
async fn bubble(site: &Site, namespace: &str) -> Check {
    const CODE: &str = "bubble-usable";
    match look_at(namespace) {
        Namespace::Absent => return Check::passed(CODE, format!("namespace {namespace} is free")),
        Namespace::Broken => {
            return Check::passed(
                CODE,
                format!("namespace {namespace} is a leftover and will be replaced"),
            );
        }
        Namespace::Present => {}
    }
    let remedy = "choose another name, or remove what is in it";
    let place = Place::Bubble {
        namespace: namespace.to_owned(),
    };
    let (links, taps) = match (links(site, Some(namespace)).await, site.taps_in(&place)) {
        (Ok(links), Ok(taps)) => (links, taps),
        (Err(error), _) => return Check::failed(CODE, error, remedy),
        (_, Err(error)) => return Check::failed(CODE, error.to_string(), remedy),
    };
    match claim::hindrance(&links, &site.root, &taps) {
        None => Check::passed(
            CODE,
            format!("namespace {namespace} is there, ours, and isolated"),
        ),
        Some(why) => Check::failed(CODE, format!("namespace {namespace} is in use: {why}"), remedy),
    }
}

async fn links(site: &Site, namespace: Option<&str>) -> Result<Vec<Link>, String> {
    // No VM is concerned yet; the name only appears in the error.
    let id = RecoveryId::new("check").ok_or_else(|| "`check` is no identifier".to_owned())?;
    let network = Network {
        ip: &site.tools.ip,
        root: &site.root,
        id: &id,
    };
    network.links(namespace).await.map_err(|error| error.to_string())
}
