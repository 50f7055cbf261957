//! Overlays: the guest's writes stay in them, the point is never written, sizes are the volumes'.

use std::{fs, io::Write};

use farshore_blocks::ByteCount;
use farshore_provider::{Compute, ComputeError, DiskBus, VmCondition};

use crate::site::{DISK_BYTES, Site, assert_reads, export_of_running, machine, output, write_as_guest};

#[tokio::test]
async fn writes_stay_in_the_overlay_over_a_restart_and_the_point_is_unchanged() {
    let mut site = Site::new();
    let request = site.request("vm");
    let mut image = fs::OpenOptions::new()
        .write(true)
        .open(&site.exports[0].image)
        .unwrap();
    image.write_all(&[0x77; 4096]).unwrap();
    drop(image);
    let before = fs::read(&site.exports[0].image).unwrap();
    site.compute.prepare(&request).await.unwrap();
    site.compute.start(&request.id).await.unwrap();

    write_as_guest(&site, &request.id, "write -P 0x42 64k 64k").await;
    let view = export_of_running(&site, &request.id).await;
    assert_reads(&view, "raw", "read -P 0x77 0 4k").await;
    assert_reads(&view, "raw", "read -P 0x42 64k 64k").await;
    site.compute.stop(&request.id).await.unwrap();
    site.compute.prepare(&request).await.unwrap();
    site.compute.start(&request.id).await.unwrap();
    let view = export_of_running(&site, &request.id).await;
    assert_reads(&view, "raw", "read -P 0x42 64k 64k").await;
    site.compute.stop(&request.id).await.unwrap();
    // The overlay also names the point in its own header, for tools that know nothing of us.
    let overlay = site.file(&request.id, "vm-root.qcow2");
    assert_reads(overlay.to_str().unwrap(), "qcow2", "read -P 0x77 0 4k").await;
    assert_eq!(fs::read(&site.exports[0].image).unwrap(), before);
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    assert_eq!(fs::read(&site.exports[0].image).unwrap(), before);
}

#[tokio::test]
async fn a_server_that_comes_back_is_picked_up() {
    let mut site = Site::new();
    let request = site.running("vm").await;
    site.exports[0].fall_silent();
    site.exports[0].serve();
    let view = export_of_running(&site, &request.id).await;
    assert_reads(&view, "raw", "read -P 0 1M 64k").await;
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Running
    );
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
}

#[tokio::test]
async fn disks_have_the_volumes_sizes() {
    let mut site = Site::new();
    let request = site.request("vm");
    site.compute.prepare(&request).await.unwrap();
    let overlay = site.file(&request.id, "vm-root.qcow2");
    let described = output(
        "qemu-img",
        &["info", "--output=json", "-U", overlay.to_str().unwrap()],
    );
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["virtual-size"], DISK_BYTES);
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
}

#[tokio::test]
async fn an_export_of_another_size_is_refused_and_no_guest_runs_on_it() {
    let mut site = Site::new();
    let mut request = site.request("vm");
    request.disks[0].size = ByteCount(DISK_BYTES / 2);
    site.compute.prepare(&request).await.unwrap();
    let refused = site.compute.start(&request.id).await.unwrap_err();
    assert!(matches!(refused, ComputeError::Unfit { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .contains("8388608 bytes and the volume 4194304"),
        "{refused}"
    );
    assert_eq!(crate::site::processes_naming(&site.recovered()), [0_u32; 0]);
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn an_overlay_that_a_guest_wrote_to_and_that_is_lost_is_never_replaced() {
    let mut site = Site::new();
    let request = site.running("vm").await;
    site.compute.stop(&request.id).await.unwrap();
    fs::remove_file(site.file(&request.id, "vm-root.qcow2")).unwrap();
    site.compute.prepare(&request).await.unwrap();
    let refused = site.compute.start(&request.id).await.unwrap_err();
    assert!(refused.to_string().contains("lost or damaged"), "{refused}");
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
}

#[tokio::test]
async fn an_overlay_whose_creation_was_cut_short_is_made_again() {
    let mut site = Site::new();
    let request = site.request("vm");
    site.compute.prepare(&request).await.unwrap();
    fs::write(site.file(&request.id, "vm-root.qcow2"), b"QFI\xfb\0\0\0\x03").unwrap();
    site.compute.start(&request.id).await.unwrap();
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
}

#[tokio::test]
async fn a_q35_with_disks_on_both_buses_runs() {
    let mut site = Site::new();
    let mut request = site.request("vm");
    let (scsi, more) = (site.export("scsi"), site.export("more"));
    let first = request.disks[0].name.clone();
    request.machine = machine(&[
        (&first, DiskBus::VirtioScsi),
        ("scsi", DiskBus::VirtioScsi),
        ("more", DiskBus::VirtioBlk),
    ]);
    request.machine.machine_type = "q35".to_owned();
    request.disks.extend([scsi, more]);
    site.compute.prepare(&request).await.unwrap();
    site.compute.start(&request.id).await.unwrap();
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Running
    );
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}
