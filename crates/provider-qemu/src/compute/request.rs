//! Whether this provider can run what is asked for, as far as the words of the request tell: pure.

use std::{collections::BTreeSet, fmt};

use farshore_provider::{
    ComputeError, DiskSpecification, Firmware, MachineSpecification, NetworkAttachment, RecoveryRequest,
};

use super::{directory::RecoveryDirectory, network};

/// A unix socket's path ends with a zero byte in 108 bytes (unix(7)).
const SOCKET_PATH_LIMIT: usize = 107;

/// qcow2 and virtio count in sectors.
const SECTOR_BYTES: u64 = 512;

/// What does not fit, and what would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit(String);

impl fmt::Display for Misfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Refuses a request that does not fit, with all reasons at once.
pub(crate) fn judge(request: &RecoveryRequest, files: &RecoveryDirectory) -> Result<(), ComputeError> {
    let mut misfits = misfits_of_machine(&request.machine);
    misfits.extend(misfits_of_disks(request));
    misfits.extend(misfits_of_network(&request.network));
    misfits.extend(long_socket(&files.monitor()));
    if misfits.is_empty() {
        return Ok(());
    }
    let why: Vec<_> = misfits.iter().map(Misfit::to_string).collect();
    Err(ComputeError::Unfit {
        id: request.id.clone(),
        why: why.join("; "),
    })
}

/// What of the machine cannot be rebuilt here.
pub(crate) fn misfits_of_machine(machine: &MachineSpecification) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let mut refuse = |why: String| misfits.push(Misfit(why));
    if machine.firmware == Firmware::Uefi {
        refuse("firmware uefi is not supported by this provider yet; bios is".to_owned());
    }
    if !is_pc(&machine.machine_type) {
        refuse(format!(
            "machine type `{}` is not supported; pc, q35 and their versions (pc-i440fx-*, pc-q35-*) are",
            machine.machine_type
        ));
    }
    if machine.processors == 0 {
        refuse("a machine needs at least one processor".to_owned());
    }
    if machine.memory.0 == 0 || !machine.memory.0.is_multiple_of(1 << 20) {
        refuse(format!(
            "memory of {} bytes is not a whole number of MiB",
            machine.memory.0
        ));
    }
    if let Some(uuid) = machine
        .uuid
        .as_ref()
        .filter(|uuid| uuid::Uuid::parse_str(uuid).is_err())
    {
        refuse(format!("`{uuid}` is no UUID"));
    }
    misfits.extend(misfits_of_devices(machine));
    misfits
}

/// What of the network's words cannot be used.
pub(crate) fn misfits_of_network(attachment: &NetworkAttachment) -> Vec<Misfit> {
    match attachment {
        NetworkAttachment::Bubble { .. } => Vec::new(),
        NetworkAttachment::Bridge { bridge } if network::is_interface_name(bridge) => Vec::new(),
        NetworkAttachment::Bridge { bridge } => vec![Misfit(format!(
            "`{bridge}` is no name of a bridge: 1 to 15 of letters, digits, `.`, `_` and `-`"
        ))],
    }
}

fn misfits_of_devices(machine: &MachineSpecification) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let mut refuse = |why: String| misfits.push(Misfit(why));
    if machine.disks.is_empty() {
        refuse("a machine needs at least one disk".to_owned());
    }
    let (mut names, mut devices, mut macs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for DiskSpecification { name, device, .. } in &machine.disks {
        if !is_file_name(name) || !names.insert(name) {
            refuse(format!(
                "disk name `{name}` is not unique, or not 1 to 64 of letters, digits, `.`, `_` and `-`"
            ));
        }
        if !is_device_name(device) || !devices.insert(device) {
            refuse(format!(
                "device `{device}` is not unique, or not a letter followed by letters, digits, `.`, `_` and `-`"
            ));
        }
    }
    for nic in &machine.nics {
        if !is_mac(&nic.mac) || !macs.insert(&nic.mac) {
            refuse(format!(
                "MAC address `{}` is not unique, or not six pairs of lower-case hexadecimal digits of one card",
                nic.mac
            ));
        }
    }
    if machine.nics.len() > network::NIC_LIMIT {
        refuse(format!(
            "{} network cards are more than {}",
            machine.nics.len(),
            network::NIC_LIMIT
        ));
    }
    misfits
}

fn misfits_of_disks(request: &RecoveryRequest) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let given: Vec<_> = request.disks.iter().map(|disk| &disk.name).collect();
    let wanted: Vec<_> = request.machine.disks.iter().map(|disk| &disk.name).collect();
    if given != wanted {
        misfits.push(Misfit(format!(
            "exports {given:?} were given for the machine's disks {wanted:?}: they must be the same, in the same order"
        )));
    }
    for disk in &request.disks {
        if disk.size.0 == 0 || !disk.size.0.is_multiple_of(SECTOR_BYTES) {
            misfits.push(Misfit(format!(
                "disk `{}` has {} bytes, which is not a positive number of sectors of {SECTOR_BYTES} bytes",
                disk.name, disk.size.0
            )));
        }
        match disk.export_socket.to_str() {
            Some(path) if path.starts_with('/') => misfits.extend(long_socket(path)),
            _ => misfits.push(Misfit(format!(
                "the export's socket {} is not an absolute path in UTF-8",
                disk.export_socket.display()
            ))),
        }
    }
    misfits
}

fn long_socket(path: &str) -> Option<Misfit> {
    (path.len() > SOCKET_PATH_LIMIT).then(|| {
        Misfit(format!(
            "the socket's path {path} has {} bytes and the system takes {SOCKET_PATH_LIMIT}: choose a shorter directory",
            path.len()
        ))
    })
}

fn is_pc(machine_type: &str) -> bool {
    let version = machine_type
        .strip_prefix("pc-i440fx-")
        .or_else(|| machine_type.strip_prefix("pc-q35-"));
    match version {
        Some(version) => is_file_name(version),
        None => machine_type == "pc" || machine_type == "q35",
    }
}

fn is_word(text: &str, limit: usize) -> bool {
    (1..=limit).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_file_name(text: &str) -> bool {
    is_word(text, 64) && !text.starts_with('.')
}

fn is_device_name(text: &str) -> bool {
    is_word(text, 64) && text.starts_with(|first: char| first.is_ascii_alphabetic())
}

fn is_mac(text: &str) -> bool {
    let pairs: Vec<_> = text.split(':').collect();
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    // The lowest bit of the first byte marks an address of many, which no card has.
    let of_one_card = pairs
        .first()
        .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        .is_some_and(|first| first & 1 == 0);
    pairs.len() == 6
        && pairs
            .iter()
            .all(|pair| pair.len() == 2 && pair.bytes().all(hexadecimal))
        && of_one_card
}

#[cfg(test)]
mod tests;
