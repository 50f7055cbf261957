//! Whichever process of ours hangs or dies, and whichever disk of ours is full, the guest writes on without an error and without a long
//! wait, and the next points are right.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{fs, thread, time::Duration};

use farshore_tests::{
    Daemon, Lab,
    cli::Answer,
    eventually,
    guests::GuestOrder,
    lab::{LabOptions, SYNC, StateOf},
    replica::judge_point,
    silence::SilenceMeter,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(90);
/// Longer than a few cycles: whatever the process did when it was stopped, somebody waits for it.
const FROZEN: Duration = Duration::from_millis(2500);
/// A guest's write is held for the instant of a capture alone. The rest is for a machine that has other work, under emulation; what it is
/// far below of is the time that processes hang and that `cbw-timeout` allows.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);
/// How it is told, by whichever side meets it.
const NO_ROOM: [&str; 2] = ["NO_SPACE", "No space left"];
const MIB: u64 = 1024 * 1024;
/// As good as nothing; a `tmpfs` of nothing is one without a limit.
const PAGE: u64 = 4096;
/// A sync takes longer than all that befalls it.
const BANDWIDTH: &str = "3MiB";

/// One of ours.
type Process = fn(&mut Lab) -> &mut Daemon;

fn lab(options: LabOptions) -> Lab {
    let mut lab = Lab::start(options);
    lab.start_guest(GuestOrder::small("db", 11));
    let _ = lab.protect(&["db"]).done();
    lab
}

/// Does something while the guest writes; gives the longest time in which none of its writes was acknowledged.
fn silence_while(lab: &Lab, work: impl FnOnce(&Lab)) -> Duration {
    let meter = SilenceMeter::start(&lab.guest("db").1.request().witness);
    work(lab);
    meter.longest()
}

fn next_point_is_right(lab: &Lab, after: &str) {
    let guest = &lab.guest("db").1;
    let acknowledged = guest.testimony().unwrap().acknowledged;
    let point = lab.cli.point_after_now("db", SOON);
    let judgement = judge_point(&lab.vault(), "db", &point, &lab.path(""), acknowledged);
    assert!(
        judgement.is_exact_instant() && judgement.lost_nothing(),
        "{after}: {}",
        judgement.describe()
    );
    let errors = guest.testimony().unwrap().errors;
    assert!(errors.is_empty(), "{after}: {errors:?}");
}

/// What befalls a process: it comes back.
type Blow = fn(&mut Daemon);

fn hangs(daemon: &mut Daemon) {
    daemon.freeze();
    thread::sleep(FROZEN);
    daemon.thaw();
}

fn dies(daemon: &mut Daemon) {
    daemon.kill9();
    daemon.restart();
}

#[test]
fn whoever_hangs_or_dies_in_a_sync_or_in_cycles_the_guest_writes_on() {
    let mut lab = lab(LabOptions {
        interval: "1s".to_owned(),
        bandwidth: Some(BANDWIDTH.to_owned()),
        ..LabOptions::default()
    });
    let processes: [(&str, Process); 3] = [
        ("the orchestrator", |lab| &mut lab.orchestrator),
        ("the target", |lab| &mut lab.west),
        ("the source", |lab| &mut lab.east),
    ];
    let blows: [(&str, Blow); 2] = [("hangs", hangs), ("dies", dies)];
    let strike = |lab: &mut Lab, process: Process, blow: Blow, what: &str| {
        let meter = SilenceMeter::start(&lab.guest("db").1.request().witness);
        blow(process(lab));
        let silence = meter.longest();
        assert!(
            silence < LONGEST_SILENCE,
            "{what}: the guest waited for {silence:?}"
        );
    };
    lab.cli
        .vm_when("db", "a sync", SYNC, |vm| vm["state"] == "InitialSync");
    for (name, process) in processes {
        for (does, blow) in blows {
            strike(&mut lab, process, blow, &format!("{name} {does} in the sync"));
        }
    }
    assert_eq!(
        lab.cli.points("db"),
        0,
        "the sync was over before they were through"
    );
    lab.cli.vm_in("db", "Protected", SYNC);
    next_point_is_right(&lab, "after a sync with hangs and deaths");
    for (does, blow) in blows {
        for (name, process) in processes {
            let what = format!("{name} {does}");
            strike(&mut lab, process, blow, &what);
            next_point_is_right(&lab, &what);
        }
    }
}

#[test]
fn whichever_disk_of_ours_is_full_the_guest_writes_on() {
    let mut lab = lab(LabOptions {
        vault_room: Some("600m".to_owned()),
        scratch_room: Some("600m".to_owned()),
        state_room: Some("600m".to_owned()),
        ..LabOptions::default()
    });
    lab.cli.vm_in("db", "Protected", SYNC);
    let silence = silence_while(&lab, |lab| {
        lab.leave_vault_room(PAGE);
        lab.cli.vm_when("db", "a full vault is told", SOON, |vm| {
            vm["sourceDetail"]
                .as_str()
                .is_some_and(|detail| NO_ROOM.iter().any(|words| detail.contains(words)))
        });
        lab.leave_vault_room(256 * MIB);
    });
    assert!(silence < LONGEST_SILENCE, "the vault was full: {silence:?}");
    next_point_is_right(&lab, "after a full vault");

    let silence = silence_while(&lab, |lab| {
        lab.leave_scratch_room(PAGE);
        // Captures fail, or find room in what is there already; either way the guest writes on.
        let before = lab.guest("db").1.testimony().unwrap().acknowledged;
        eventually(SOON, "the guest writes on", || {
            let now = lab.guest("db").1.testimony().unwrap().acknowledged;
            (now.region_a > before.region_a + 1000).then_some(())
        });
        lab.leave_scratch_room(256 * MIB);
    });
    assert!(
        silence < LONGEST_SILENCE,
        "the scratch space was full: {silence:?}"
    );
    next_point_is_right(&lab, "after full scratch space");
    full_state_directories_of_replicators(&mut lab);
    a_full_state_directory_of_the_orchestrator(&lab);
}

/// What is declared, with another interval.
fn declare_interval(lab: &Lab, interval: &str) -> Answer {
    lab.apply(&format!(
        "apiVersion: farshore/v1\nkind: ReplicationPolicy\nmetadata: {{name: gold}}\n\
         spec: {{interval: {interval}, rpoTarget: 15s}}\n"
    ))
}

/// The intervals that the source's replicator has written down.
fn written_interval(lab: &Lab) -> Value {
    let mut files = fs::read_dir(lab.path("east/state/assignments"))
        .unwrap()
        .flatten();
    let file = files.find(|file| file.path().extension().is_some_and(|end| end == "json"));
    let assignment: Value = serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap();
    assignment.pointer("/interval/secs").unwrap().clone()
}

/// What cannot be written down is refused and tried again; what is known already goes on, even through a death.
fn full_state_directories_of_replicators(lab: &mut Lab) {
    let silence = {
        let meter = SilenceMeter::start(&lab.guest("db").1.request().witness);
        for of in [StateOf::East, StateOf::West] {
            lab.leave_state_room(of, 0);
        }
        let _ = declare_interval(lab, "2s").done();
        eventually(SOON, "the refusal is told", || {
            NO_ROOM
                .iter()
                .any(|words| lab.orchestrator.log().contains(words))
                .then_some(())
        });
        next_point_is_right(lab, "with full state directories");
        for daemon in [&mut lab.east, &mut lab.west] {
            daemon.kill9();
            daemon.restart();
        }
        next_point_is_right(lab, "after deaths with full state directories");
        meter.longest()
    };
    assert!(
        silence < LONGEST_SILENCE,
        "state directories were full: {silence:?}"
    );
    assert_eq!(written_interval(lab), 1);
    for of in [StateOf::East, StateOf::West] {
        lab.leave_state_room(of, 256 * MIB);
    }
    eventually(SOON, "what is declared is written down", || {
        (written_interval(lab) == 2).then_some(())
    });
    next_point_is_right(lab, "after full state directories");
}

/// It refuses what it could not write down, and that changes nothing; when there is room it goes on by itself.
fn a_full_state_directory_of_the_orchestrator(lab: &Lab) {
    let meter = SilenceMeter::start(&lab.guest("db").1.request().witness);
    lab.leave_state_room(StateOf::Orchestrator, 0);
    let refused = declare_interval(lab, "1s");
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.stderr.contains("no-room"), "{}", refused.stderr);
    next_point_is_right(lab, "with a full state directory of the orchestrator");
    lab.leave_state_room(StateOf::Orchestrator, 256 * MIB);
    let silence = meter.longest();
    assert!(
        silence < LONGEST_SILENCE,
        "a state directory was full: {silence:?}"
    );
    assert_eq!(written_interval(lab), 2);
    let _ = declare_interval(lab, "1s").done();
    eventually(SOON, "what is declared is followed", || {
        (written_interval(lab) == 1).then_some(())
    });
    next_point_is_right(lab, "after a full state directory of the orchestrator");
}
