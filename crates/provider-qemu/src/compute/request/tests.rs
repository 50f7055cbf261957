//! Every rule of a request, broken one at a time.

use std::path::PathBuf;

use farshore_blocks::ByteCount;
use farshore_provider::{DiskBus, NicSpecification, RecoveryDisk, RecoveryId};

use super::*;

fn fitting() -> RecoveryRequest {
    RecoveryRequest {
        id: RecoveryId::new("vm-1").unwrap(),
        machine: MachineSpecification {
            vm: "vm".to_owned(),
            uuid: Some("8c9ff3ca-6f15-4d0e-9d16-d4c2a7a1b0de".to_owned()),
            processors: 1,
            memory: ByteCount(128 << 20),
            firmware: Firmware::Bios,
            machine_type: "pc".to_owned(),
            disks: vec![DiskSpecification {
                name: "root".to_owned(),
                device: "vdroot".to_owned(),
                bus: DiskBus::VirtioBlk,
            }],
            nics: vec![NicSpecification {
                mac: "52:54:00:00:00:01".to_owned(),
            }],
        },
        disks: vec![RecoveryDisk {
            name: "root".to_owned(),
            size: ByteCount(1 << 20),
            export_socket: PathBuf::from("/run/export.sock"),
        }],
        network: NetworkAttachment::Bubble {
            name: RecoveryId::new("bubble").unwrap(),
        },
    }
}

fn judged(request: &RecoveryRequest) -> Result<(), String> {
    let files = RecoveryDirectory::new("/var/lib/farshore/recovered", &request.id);
    judge(request, &files).map_err(|error| error.to_string())
}

#[test]
fn a_fitting_request_is_taken() {
    assert_eq!(judged(&fitting()), Ok(()));
}

#[test]
fn each_broken_rule_is_named() {
    type Break = fn(&mut RecoveryRequest);
    let broken: [(&str, Break); 15] = [
        ("firmware uefi", |it| it.machine.firmware = Firmware::Uefi),
        ("machine type `virt`", |it| {
            it.machine.machine_type = "virt".to_owned()
        }),
        ("machine type `pc-q35-", |it| {
            it.machine.machine_type = "pc-q35-1,accel=kvm".to_owned();
        }),
        ("processor", |it| it.machine.processors = 0),
        ("whole number of MiB", |it| it.machine.memory = ByteCount(1000)),
        ("no UUID", |it| it.machine.uuid = Some("x".to_owned())),
        ("at least one disk", |it| it.machine.disks.clear()),
        ("disk name `../x`", |it| {
            it.machine.disks[0].name = "../x".to_owned()
        }),
        ("device `1x`", |it| it.machine.disks[0].device = "1x".to_owned()),
        ("MAC address", |it| {
            it.machine.nics[0].mac = "52:54:00:00:00:0G".to_owned()
        }),
        ("MAC address", |it| {
            it.machine.nics[0].mac = "01:54:00:00:00:01".to_owned()
        }),
        ("MAC address", |it| {
            it.machine.nics.push(it.machine.nics[0].clone())
        }),
        ("in the same order", |it| it.disks[0].name = "other".to_owned()),
        ("positive number of sectors", |it| {
            it.disks[0].size = ByteCount(513)
        }),
        ("no name of a bridge", |it| {
            it.network = NetworkAttachment::Bridge {
                bridge: "br0 type dummy".to_owned(),
            };
        }),
    ];
    for (words, break_it) in broken {
        let mut request = fitting();
        break_it(&mut request);
        let refused = judged(&request).unwrap_err();
        assert!(refused.contains(words), "{words}: {refused}");
    }
}

#[test]
fn all_reasons_are_given_at_once() {
    let mut request = fitting();
    request.machine.firmware = Firmware::Uefi;
    request.machine.processors = 0;
    let refused = judged(&request).unwrap_err();
    assert!(
        refused.contains("uefi") && refused.contains("processor"),
        "{refused}"
    );
}

#[test]
fn a_socket_path_that_the_system_would_cut_is_refused() {
    let request = fitting();
    let files = RecoveryDirectory::new(&format!("/{}", "x".repeat(90)), &request.id);
    assert!(judge(&request, &files).unwrap_err().to_string().contains("107"));
}
