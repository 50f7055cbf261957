//! Replication over a line with a round trip and a rate: what travels is compressed and fills it, and a cut costs a window.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use farshore_tests::{
    Lab, eventually,
    lab::{LabOptions, SYNC},
    replica::export,
    wan::{WanOptions, Way},
};

const MIB: u64 = 1024 * 1024;
const ROUND_TRIP: Duration = Duration::from_millis(40);
/// 200 Mbit a second.
const BYTES_PER_SECOND: u64 = 25_000_000;
const TEXT_BYTES: u64 = 192 * MIB;
/// What a source may have under way, as its target says.
const WINDOW_BYTES: u64 = 32 * MIB;

fn document(root: &Path, data: &Path) -> String {
    format!(
        "apiVersion: farshore/v1\nkind: ProtectedVm\nmetadata: {{name: db}}\nspec:\n  policy: gold\n  \
         source:\n    site: east\n    disks: {{root: {}, data: {}}}\n  target: {{site: west}}\n  machine:\n    \
         processors: 1\n    memory: 32MiB\n    firmware: bios\n    machineType: pc\n    disks:\n    \
         - {{name: root, device: vdroot}}\n    - {{name: data, device: vddata}}\n",
        root.display(),
        data.display(),
    )
}

/// A disk that is full of this machine's programs and libraries.
fn program_text(path: &Path) {
    let mut programs: Vec<PathBuf> = ["/usr/bin", "/usr/lib/x86_64-linux-gnu"]
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !path.is_symlink())
        .collect();
    programs.sort();
    let mut disk = fs::File::create_new(path).unwrap();
    let mut left = TEXT_BYTES;
    for program in programs.iter().cycle() {
        let mut part = fs::File::open(program).unwrap().take(left);
        left -= std::io::copy(&mut part, &mut disk).unwrap();
        if left == 0 {
            break;
        }
    }
    disk.flush().unwrap();
    disk.sync_all().unwrap();
}

/// Bytes that cannot be compressed.
fn noise(bytes: u64) -> Vec<u8> {
    let words = (0..bytes / 8).map(|word| {
        let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    });
    words.flat_map(u64::to_le_bytes).collect()
}

fn east(connections: u32) -> String {
    format!(
        "apiVersion: farshore/v1\nkind: Site\nmetadata: {{name: east}}\nspec:\n  provider: qemu\n  links:\n  \
         - {{to: west, connections: {connections}}}\n"
    )
}

fn lab_with_text() -> (Lab, PathBuf) {
    let mut lab = Lab::start(LabOptions {
        wan: Some(WanOptions::even(ROUND_TRIP, BYTES_PER_SECOND)),
        ..LabOptions::default()
    });
    let root = lab.vms().join("root.raw");
    program_text(&root);
    let data = lab.vms().join("data.raw");
    fs::write(&data, [1; 65536]).unwrap();
    let _ = lab.protect_at_rest("db", &document(&root, &data)).done();
    (lab, root)
}

fn assert_the_newest_point_is(lab: &Lab, root: &Path) {
    let exported = lab.path("exported");
    fs::create_dir_all(&exported).unwrap();
    let (copy, _) = export(&lab.vault(), "db", "latest", &exported);
    assert!(fs::read(copy).unwrap() == fs::read(root).unwrap());
}

/// Waits until this much has passed from source to target since `before`; gives when.
fn passed(lab: &Lab, before: u64, bytes: u64) -> Instant {
    eventually(SYNC, "the sync is under way", || {
        (lab.wan().counts(Way::There).bytes >= before + bytes).then(Instant::now)
    })
}

#[test]
fn program_text_fills_a_long_line_and_travels_compressed() {
    let (lab, root) = lab_with_text();
    let before = lab.wan().counts(Way::There).bytes;
    let first = passed(&lab, before, 10 * MIB);
    let last = passed(&lab, before, 60 * MIB);
    let carried = 50 * MIB * 1_000_000 / u64::try_from((last - first).as_micros()).unwrap();
    lab.cli.vm_in("db", "Protected", SYNC);
    let took = first.elapsed();
    let sent = lab.wan().counts(Way::There).bytes - before;
    println!(
        "{} % of the line used; {sent} bytes sent of {TEXT_BYTES}, in {took:?}",
        carried * 100 / BYTES_PER_SECOND
    );
    // A busy machine, without optimisation, must not fail this.
    assert!(carried * 10 >= BYTES_PER_SECOND * 6, "{carried} bytes a second");
    assert!(sent * 10 <= TEXT_BYTES * 7, "{sent} bytes of {TEXT_BYTES}");
    assert_the_newest_point_is(&lab, &root);
}

#[test]
fn a_cut_line_is_noticed_and_costs_no_more_than_a_window() {
    let (lab, root) = lab_with_text();
    let before = lab.wan().counts(Way::There).bytes;
    passed(&lab, before, 30 * MIB);
    lab.wan().cut();
    // Nobody answers: both sides' keepalive tells them so.
    eventually(SYNC, "the source notices", || {
        lab.east.log().contains("stream cut").then_some(())
    });
    let at_the_cut = lab.wan().counts(Way::There).bytes;
    lab.wan().heal();
    let healed = Instant::now();
    let resumed = passed(&lab, at_the_cut, MIB);
    println!("data flows {:?} after the line was healed", resumed - healed);
    assert!(
        resumed - healed < Duration::from_secs(10),
        "{:?}",
        resumed - healed
    );
    lab.cli.vm_in("db", "Protected", SYNC);
    let sent = lab.wan().counts(Way::There).bytes - before;
    println!("{sent} bytes sent of {TEXT_BYTES}");
    assert!(sent <= TEXT_BYTES * 7 / 10 + WINDOW_BYTES, "{sent}");
    assert_the_newest_point_is(&lab, &root);
}

/// Bytes a second that pass while this many do.
fn rate_of_the_next(lab: &Lab, bytes: u64) -> u64 {
    let began = Instant::now();
    let before = lab.wan().counts(Way::There).bytes;
    let ended = passed(lab, before, bytes);
    bytes * 1_000_000 / u64::try_from((ended - began).as_micros()).unwrap()
}

#[test]
fn where_a_connections_window_does_not_fill_the_line_several_connections_do() {
    // A connection has 4 MiB at most to be sent again, of which half are on their way.
    let mut lab = Lab::start(LabOptions {
        wan: Some(WanOptions::even(Duration::from_millis(200), 40_000_000)),
        ..LabOptions::default()
    });
    let _ = lab.apply(&east(1)).done();
    let root = lab.vms().join("root.raw");
    fs::write(&root, noise(288 * MIB)).unwrap();
    let data = lab.vms().join("data.raw");
    fs::write(&data, [1; 65536]).unwrap();
    let before = lab.wan().counts(Way::There).bytes;
    let _ = lab.protect_at_rest("db", &document(&root, &data)).done();
    passed(&lab, before, 20 * MIB);
    let one = rate_of_the_next(&lab, 40 * MIB);
    let _ = lab.apply(&east(4)).done();
    eventually(SYNC, "another connection carries", || {
        lab.east.log().contains("on more connections").then_some(())
    });
    passed(&lab, lab.wan().counts(Way::There).bytes, 40 * MIB);
    let several = rate_of_the_next(&lab, 50 * MIB);
    lab.cli.vm_in("db", "Protected", SYNC);
    println!("{one} bytes a second by one connection, {several} by several");
    assert!(!lab.east.log().contains("stream cut"), "{}", lab.east.log());
    assert_the_newest_point_is(&lab, &root);
    // A busy machine, without optimisation, must not fail this.
    assert!(several * 10 > one * 13, "{one} {several}");
}
