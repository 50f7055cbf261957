//! Devices that lie behind a wrapper of ours and are not declared: a disk was taken out of protection, and runs on.

use farshore_provider::MachineSpecification;

use super::{
    answers::Answers,
    listing::{Wrapping, data_node, device_path, is_device_of, wrapping},
    naming::NodeRole,
};

/// What every device's path begins with.
const PERIPHERAL: &str = "/machine/peripheral/";

/// A device that must be given its own data again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AbandonedDevice {
    /// Its path.
    pub(crate) device: String,
    /// The wrapper that it is on.
    pub(crate) wrapper: String,
    /// What is below all that is ours.
    pub(crate) data: String,
    pub(crate) wrapping: Wrapping,
}

/// All of them.
pub(super) fn read(answers: &Answers, machine: &MachineSpecification) -> Vec<AbandonedDevice> {
    let found = answers.devices.iter().filter_map(|device| {
        let at = device.qdev.as_deref()?;
        let wrapper = &device.inserted.as_ref()?.node_name;
        let declared = machine.disks.iter().any(|disk| is_device_of(disk, at));
        if declared || NodeRole::of(wrapper) != Some(NodeRole::Wrapper) {
            return None;
        }
        let data = data_node(answers, wrapper)?;
        Some(AbandonedDevice {
            device: path_of(at),
            wrapper: wrapper.clone(),
            data: data.to_owned(),
            wrapping: wrapping(answers, wrapper, wrapper, data),
        })
    });
    found.collect()
}

/// The device itself, of whatever part of it QEMU names.
fn path_of(at: &str) -> String {
    let within = at.strip_prefix(PERIPHERAL).unwrap_or(at);
    let device = within.split('/').next().unwrap_or(within);
    device_path(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_whatever_part_of_it_is_named() {
        for at in [
            "vd0",
            "/machine/peripheral/vd0",
            "/machine/peripheral/vd0/virtio-backend",
        ] {
            assert_eq!(path_of(at), "/machine/peripheral/vd0");
        }
    }
}
