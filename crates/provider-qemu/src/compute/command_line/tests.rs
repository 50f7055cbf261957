//! What a command line must and must not hold.

use std::path::PathBuf;

use farshore_blocks::ByteCount;
use farshore_provider::{
    DiskSpecification, Firmware, MachineSpecification, NetworkAttachment, NicSpecification, RecoveryId,
};

use super::*;

fn request(buses: &[DiskBus]) -> RecoveryRequest {
    let names: Vec<_> = (0..buses.len()).map(|index| format!("disk{index}")).collect();
    RecoveryRequest {
        id: RecoveryId::new("vm-1").unwrap(),
        machine: MachineSpecification {
            vm: "shop".to_owned(),
            uuid: Some("8c9ff3ca-6f15-4d0e-9d16-d4c2a7a1b0de".to_owned()),
            processors: 2,
            memory: ByteCount(256 << 20),
            firmware: Firmware::Bios,
            machine_type: "q35".to_owned(),
            disks: names
                .iter()
                .zip(buses)
                .map(|(name, bus)| DiskSpecification {
                    name: name.clone(),
                    device: format!("vd{name}"),
                    bus: *bus,
                })
                .collect(),
            nics: vec![NicSpecification {
                mac: "52:54:00:00:00:01".to_owned(),
            }],
        },
        disks: names
            .iter()
            .map(|name| RecoveryDisk {
                name: name.clone(),
                size: ByteCount(1 << 20),
                export_socket: PathBuf::from("/run/point.sock"),
            })
            .collect(),
        network: NetworkAttachment::Bridge {
            bridge: "br0".to_owned(),
        },
    }
}

fn line(request: &RecoveryRequest, root: &str, backings: Vec<Backing>) -> Vec<String> {
    let files = RecoveryDirectory::new(root, &request.id);
    let around = Surroundings {
        files: &files,
        accelerator: Accelerator::Tcg,
        cache: OverlayCache::Direct,
        backings,
        taps: vec!["fs012345678n0".to_owned()],
    };
    arguments(request, &around)
}

fn values_of<'a>(line: &'a [String], name: &str) -> Vec<&'a str> {
    line.windows(2)
        .filter(|pair| pair[0] == name)
        .map(|pair| pair[1].as_str())
        .collect()
}

fn parsed(texts: &[&str]) -> Vec<Value> {
    texts
        .iter()
        .filter_map(|text| serde_json::from_str(text).ok())
        .collect()
}

#[test]
fn disks_keep_their_devices_and_order_and_only_the_first_boots() {
    let request = request(&[DiskBus::VirtioBlk, DiskBus::VirtioBlk]);
    let line = line(&request, "/r", vec![Backing::Point; 2]);
    let devices = parsed(&values_of(&line, "-device"));
    let seen: Vec<_> = devices
        .iter()
        .filter(|device| device["driver"] == "virtio-blk-pci")
        .map(|device| {
            (
                device["id"].as_str().unwrap(),
                device["drive"].as_str().unwrap(),
                &device["bootindex"],
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("vddisk0", "overlay-0", &json!(1)),
            ("vddisk1", "overlay-1", &Value::Null)
        ]
    );
}

#[test]
fn an_overlay_writes_to_its_local_file_and_reads_the_point_that_may_not_be_written() {
    let line = line(&request(&[DiskBus::VirtioBlk]), "/r", vec![Backing::Point]);
    let nodes = parsed(&values_of(&line, "-blockdev"));
    let named = |name: &str| nodes.iter().find(|node| node["node-name"] == name).unwrap();
    assert_eq!(named("point-0")["read-only"], true);
    assert_eq!(named("point-0")["server"]["path"], "/run/point.sock");
    assert_eq!(named("point-0")["reconnect-delay"], 60);
    assert_eq!(named("file-0")["filename"], "/r/vm-1/disk0.qcow2");
    assert_eq!(named("overlay-0")["backing"], "point-0");
    assert_eq!(named("overlay-0")["file"], "file-0");
}

#[test]
fn an_overlay_that_holds_everything_needs_no_point() {
    let line = line(&request(&[DiskBus::VirtioBlk]), "/r", vec![Backing::Nothing]);
    let nodes = parsed(&values_of(&line, "-blockdev"));
    assert!(nodes.iter().all(|node| node["driver"] != "nbd"));
    assert!(
        nodes
            .iter()
            .any(|node| node["driver"] == "qcow2" && node.get("backing") == Some(&Value::Null))
    );
}

#[test]
fn disks_on_virtio_scsi_share_one_controller_that_comes_before_them() {
    let request = request(&[DiskBus::VirtioScsi, DiskBus::VirtioScsi]);
    let line = line(&request, "/r", vec![Backing::Point; 2]);
    let devices = parsed(&values_of(&line, "-device"));
    let drivers: Vec<_> = devices
        .iter()
        .map(|device| device["driver"].as_str().unwrap())
        .collect();
    assert_eq!(drivers[..3], ["virtio-scsi-pci", "scsi-hd", "scsi-hd"]);
    assert_eq!(devices[1]["bus"], "farshore-scsi.0");
}

#[test]
fn a_card_keeps_its_address_and_sits_on_its_tap() {
    let line = line(&request(&[DiskBus::VirtioBlk]), "/r", vec![Backing::Point]);
    assert_eq!(
        values_of(&line, "-netdev"),
        ["tap,id=card-0,ifname=fs012345678n0,script=no,downscript=no"]
    );
    let devices = parsed(&values_of(&line, "-device"));
    let card = devices
        .iter()
        .find(|device| device["driver"] == "virtio-net-pci")
        .unwrap();
    assert_eq!(card["mac"], "52:54:00:00:00:01");
}

#[test]
fn the_machine_is_the_specified_one() {
    let line = line(&request(&[DiskBus::VirtioBlk]), "/r", vec![Backing::Point]);
    for (name, value) in [
        ("-machine", "q35"),
        ("-smp", "2"),
        ("-m", "262144k"),
        ("-uuid", "8c9ff3ca-6f15-4d0e-9d16-d4c2a7a1b0de"),
        ("-accel", "tcg,thread=multi"),
        ("-pidfile", "/r/vm-1/vm.pid"),
    ] {
        assert_eq!(values_of(&line, name), [value], "{name}");
    }
    assert!(line.iter().any(|argument| argument == "-nodefaults"));
}

#[test]
fn a_comma_in_the_directory_ends_no_option() {
    let line = line(&request(&[DiskBus::VirtioBlk]), "/a,b", vec![Backing::Point]);
    let chardevs = values_of(&line, "-chardev");
    assert!(chardevs.contains(&"socket,id=control,path=/a,,b/vm-1/control.sock,server=on,wait=off"));
    assert_eq!(values_of(&line, "-pidfile"), ["/a,b/vm-1/vm.pid"]);
}
