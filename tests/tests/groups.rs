//! Consistency groups: two VMs that write in turn never show the second ahead of the first, whatever happens to the replicator.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use farshore_blocks::{ByteOffset, Sequence, VolumeIndex};
use farshore_tests::{
    Lab,
    bare_vm::{BareVm, with_disks},
    daemon::Daemon,
    eventually,
    lab::LabOptions,
    relay::{self, NUMBER_AT, Pauses, Relay},
    replica::vault,
};
use farshore_vault::VaultReader;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(180);
/// The group's hold limit.
const LIMIT: Duration = Duration::from_secs(2);
/// Who is silent for so long is dead to the watchdog, but for what it was told just before.
const SILENCE: Duration = Duration::from_millis(220);
/// Under emulation on a busy machine everything may take a while.
const SILENCE_AND_SLACK: Duration = Duration::from_millis(1000);
const NAMES: [&str; 2] = ["first", "second"];

/// A lab with the two VMs, protected.
struct Scene {
    /// Where the second VM has a replicator of its own.
    other_east: Option<Daemon>,
    lab: Lab,
    directory: PathBuf,
    disks: [PathBuf; 2],
    pauses: [Pauses; 2],
}

impl Scene {
    fn start() -> Self {
        let (lab, [first, second]) = lab_and_relay();
        let documents = [&first, &second].map(|vm| relay::document(&lab.vms(), vm));
        Self::protect(lab, [first, second], (documents, None))
    }

    /// Each of the two VMs has a replicator of its own, and that of the first leads.
    fn start_apart() -> Self {
        let (mut lab, [first, second]) = lab_and_relay();
        let configuration = fs::read_to_string(lab.path("e.yaml")).unwrap();
        let (path, other_path) = (lab.path("e.yaml"), lab.path("e2.yaml"));
        let other = configuration
            .replace("east-1", "east-2")
            .replace("/east/", "/east2/")
            .replace(":7281", ":7282");
        fs::create_dir_all(lab.path("east2")).unwrap();
        fs::write(path, configuration + "siteListen: 10.91.0.1:7301\n").unwrap();
        fs::write(&other_path, other + "siteListen: 10.91.0.1:7302\n").unwrap();
        lab.east.terminate();
        lab.east.restart();
        let other = Daemon::start("replicator", &other_path, lab.east_network());
        let documents = [(&first, "east-1"), (&second, "east-2")].map(|(vm, replicator)| {
            let place = format!("site: east, replicator: {replicator}");
            relay::document(&lab.vms(), vm).replace("site: east", &place)
        });
        Self::protect(lab, [first, second], (documents, Some(other)))
    }

    fn protect(
        mut lab: Lab,
        vms: [BareVm; 2],
        (documents, other_east): ([String; 2], Option<Daemon>),
    ) -> Self {
        let directory = lab.vms();
        let pauses = vms.each_ref().map(|vm| Pauses::of(&directory, vm));
        let disks = vms.each_ref().map(|vm| vm.root());
        for vm in vms {
            let _ = lab.adopt_bare(vm);
        }
        let _ = lab.apply(&documents.join("---\n")).done();
        for name in NAMES {
            lab.control().protected(name, SOON);
        }
        Self {
            other_east,
            lab,
            directory,
            disks,
            pauses,
        }
    }

    fn group(&self, members: &str) {
        let seconds = LIMIT.as_secs();
        let document = format!(
            "apiVersion: farshore/v1\nkind: ConsistencyGroup\nmetadata: {{name: pair}}\n\
             spec: {{members: [{members}], holdLimit: {seconds}s}}\n"
        );
        let _ = self.lab.apply(&document).done();
    }

    /// The instants that points of both are of, with their numbers.
    fn instants(&self) -> BTreeMap<String, [u64; 2]> {
        let [first, second] = NAMES.map(|name| self.points(name));
        let both = first.iter().filter_map(|(instant, one)| {
            let other = second.get(instant)?;
            Some((instant.clone(), [*one, *other]))
        });
        both.collect()
    }

    fn points(&self, name: &str) -> BTreeMap<String, u64> {
        let listed = self
            .lab
            .cli
            .run(&["get", "points", name, "-o", "json"])
            .done()
            .json();
        let points = listed["items"].as_array().unwrap().iter();
        points
            .map(|point| {
                let instant = point["instant"].as_str().unwrap().to_owned();
                (instant, point["sequence"].as_u64().unwrap())
            })
            .collect()
    }

    fn instants_at_least(&self, count: usize) -> BTreeMap<String, [u64; 2]> {
        eventually(LONG, "common instants", || {
            let instants = self.instants();
            (instants.len() >= count).then_some(instants)
        })
    }

    fn described(&self) -> Value {
        let page = self.lab.cli.run(&["describe", "group", "pair", "-o", "json"]);
        page.done().json()
    }

    fn both_run(&self) {
        for name in NAMES {
            eventually(SOON, "it runs", || {
                let status = self.lab.bare(name).ask("query-status", Value::Null);
                (status["status"] == "running").then_some(())
            });
        }
        let _ = relay::goes_on(&self.disks[0], &self.disks[1]);
    }

    /// That they have instants together shows where nobody can be asked: for nothing else are they stopped.
    fn are_stopped_together(&self) {
        let before = self.pauses.each_ref().map(|pauses| pauses.all().len());
        eventually(LONG, "rounds go on", || {
            let now = self.pauses.each_ref().map(|pauses| pauses.all().len());
            (now[0] > before[0] + 10 && now[1] > before[1] + 10).then_some(())
        });
    }

    fn other_east(&mut self) -> &mut Daemon {
        self.other_east.as_mut().unwrap()
    }

    fn pauses(&self) -> Vec<Duration> {
        self.pauses.iter().flat_map(Pauses::all).collect()
    }
}

fn lab_and_relay() -> (Lab, [BareVm; 2]) {
    let lab = Lab::start(LabOptions {
        interval: "200ms".to_owned(),
        policy: Some("fastMode: {guestCostLimit: 50%}".to_owned()),
        ..LabOptions::default()
    });
    let relay = Relay::start(&lab.vms(), NAMES);
    (lab, [relay.first, relay.second])
}

/// The number that each point of these instants holds.
fn numbers(vault: &Path, instants: &BTreeMap<String, [u64; 2]>) -> Vec<[u32; 2]> {
    let reader = VaultReader::open(vault).unwrap();
    let chains = reader.chains().unwrap();
    let chain = |name: &str| {
        chains
            .iter()
            .find(|(_, described)| described.vm == name)
            .unwrap()
            .0
    };
    let chains = NAMES.map(chain);
    let number = |place: usize, sequence: u64| {
        let point = reader.open_point(chains[place], Sequence(sequence)).unwrap();
        let mut bytes = [0; 4];
        point
            .read_at(VolumeIndex(0), ByteOffset(NUMBER_AT), &mut bytes)
            .unwrap();
        u32::from_le_bytes(bytes)
    };
    instants
        .values()
        .map(|[first, second]| [number(0, *first), number(1, *second)])
        .collect()
}

/// What the first had written before the second did is there, and what the second had not seen yet is not.
fn judge(numbers: &[[u32; 2]]) {
    for [first, second] in numbers {
        assert!(
            (1..=2).contains(&first.saturating_sub(*second)),
            "{first} and {second} are of no one instant, among {numbers:?}"
        );
    }
}

#[test]
fn two_vms_of_a_group_are_at_one_instant_in_over_a_hundred_points_and_members_come_and_go() {
    let scene = Scene::start();
    // By themselves they have no instant in common, and are not stopped for any.
    assert_eq!(scene.instants(), BTreeMap::new());
    assert_eq!(scene.pauses(), [Duration::ZERO; 0]);
    scene.group("first, second");
    let instants = scene.instants_at_least(110);
    let found = numbers(&scene.lab.vault(), &instants);
    judge(&found);
    let mut different = found.clone();
    different.dedup();
    println!("{} instants, {} different pairs", found.len(), different.len());
    assert!(different.len() > 20, "they wrote too little: {found:?}");
    let described = scene.described();
    assert!(described["instant"].is_string(), "{described:#}");
    let longest = described["longestHoldSeconds"].as_f64().unwrap();
    let mut pauses = scene.pauses();
    pauses.sort();
    println!(
        "hold told {longest} s; seen by QEMU: median {:?}, longest {:?}",
        pauses[pauses.len() / 2],
        pauses.last()
    );
    assert!(longest > 0.0 && longest <= LIMIT.as_secs_f64(), "{longest}");
    assert!(pauses.iter().all(|pause| *pause <= LIMIT), "{pauses:?}");
    scene.both_run();

    // One leaves, and the other is not stopped any more.
    scene.group("first");
    scene.lab.cli.vm_when("first", "no other member", SOON, |_| {
        let described = scene.described();
        described["members"].as_array().unwrap().len() == 1
    });
    sleep(Duration::from_secs(2));
    let before = (scene.pauses().len(), scene.instants().len());
    for name in NAMES {
        let _ = scene.lab.cli.point_after_now(name, SOON);
    }
    assert_eq!((scene.pauses().len(), scene.instants().len()), before);
    // It comes back, protected all the while.
    scene.group("first, second");
    let instants = scene.instants_at_least(before.1 + 5);
    judge(&numbers(&scene.lab.vault(), &instants));
    let used = scene.lab.cli.run(&["delete", "vm", "first"]);
    assert_eq!(
        (used.status, used.stderr.contains("in-use")),
        (3, true),
        "{}",
        used.stderr
    );
    let _ = scene.lab.cli.run(&["delete", "group", "pair"]).done();
    for name in NAMES {
        scene.lab.delete_vm(name);
        assert_eq!(scene.lab.bare(name).traces(), [""; 0]);
    }
    assert!(scene.directory.exists());
}

#[test]
fn a_replicator_that_is_killed_or_hangs_in_the_middle_leaves_no_vm_standing_and_the_next_points_are_right() {
    let mut scene = Scene::start();
    scene.group("first, second");
    let mut known = scene.instants_at_least(5).len();
    for round in 0..16_u32 {
        // QEMU flushes what it stops, which gives us time to hit it while it stands still.
        for name in NAMES {
            let pattern = u8::try_from(round + 1).unwrap();
            scene.lab.bare(name).write("vddata", pattern, 0, 8 << 20);
        }
        scene.pauses[usize::from(round % 4 > 1)].await_stop();
        if round % 2 == 0 {
            scene.lab.east.kill9();
            scene.both_run();
            scene.lab.east.restart();
        } else {
            scene.lab.east.freeze();
            scene.both_run();
            scene.lab.east.thaw();
            scene.both_run();
        }
        let instants = scene.instants_at_least(known + 3);
        known = instants.len();
        judge(&numbers(&scene.lab.vault(), &instants));
    }
    let mut pauses = scene.pauses();
    pauses.sort();
    let longest = &pauses[pauses.len().saturating_sub(12)..];
    println!(
        "{} pauses, median {:?}, longest {longest:?}",
        pauses.len(),
        pauses[pauses.len() / 2]
    );
    assert!(
        longest.iter().all(|pause| *pause < SILENCE_AND_SLACK),
        "{longest:?}"
    );
    assert!(
        longest.iter().any(|pause| *pause >= SILENCE),
        "none was hit while it stood still: {longest:?}"
    );
}

#[test]
fn an_operators_pause_is_not_undone_and_the_others_go_on_having_instants_with_it() {
    let scene = Scene::start();
    scene.group("first, second");
    let known = scene.instants_at_least(3).len();
    let status = || scene.lab.bare("second").ask("query-status", Value::Null);
    // A pause that meets one of ours ends with it.
    eventually(LONG, "it stays paused", || {
        let _ = scene.lab.bare("second").ask("stop", Value::Null);
        std::thread::sleep(SILENCE_AND_SLACK);
        (status()["status"] == "paused").then_some(())
    });
    let known = scene.instants().len().max(known);
    // The first waits for the second, and writes nothing any more; its disk is written as if it did.
    for pattern in 1..4 {
        scene.lab.bare("first").write("vddata", pattern, 0, 65536);
        let wanted = known + usize::from(pattern);
        let _ = scene.instants_at_least(wanted);
    }
    assert_eq!(status()["status"], "paused");
    let _ = scene.lab.bare("second").ask("cont", Value::Null);
    scene.both_run();
    judge(&numbers(&scene.lab.vault(), &scene.instants_at_least(known + 5)));
}

/// The names and sizes in MiB of a member's volumes, as its newest point has them.
fn volumes(scene: &Scene, name: &str) -> Vec<(String, u64)> {
    let vm = scene.lab.cli.vm(name).unwrap();
    let volumes = vm["volumes"].as_array().unwrap().iter();
    let described = volumes.map(|volume| {
        let name = volume["name"].as_str().unwrap().to_owned();
        (name, volume["sizeBytes"].as_u64().unwrap() >> 20)
    });
    described.collect()
}

/// Instants of a member that has these volumes by now.
fn instants_with(scene: &Scene, expected: &[(&str, u64)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, mib)| ((*name).to_owned(), *mib))
        .collect();
    eventually(LONG, &format!("{expected:?}"), || {
        (volumes(scene, "first") == expected).then_some(())
    });
    let known = scene.instants().len();
    judge(&numbers(&scene.lab.vault(), &scene.instants_at_least(known + 3)));
}

#[test]
fn disks_of_a_member_grow_join_and_leave_while_the_group_goes_on_having_instants() {
    let scene = Scene::start();
    scene.group("first, second");
    let _ = scene.instants_at_least(3);
    let vm = scene.lab.bare("first");
    // Refused while a capture is open, which is most of the time here.
    let grown = json!({"node-name": "fs-w-1", "size": 12 << 20});
    eventually(LONG, "it grows", || {
        vm.try_ask("block_resize", grown.clone()).ok()
    });
    instants_with(&scene, &[("root", 1), ("data", 12)]);

    vm.plug_extra_disk();
    vm.write("vdextra", 5, 1 << 20, 1 << 20);
    let declared = relay::document(&scene.directory, vm);
    let declare = |disks: &[&str]| scene.lab.apply(&with_disks(&declared, disks)).done();
    let _ = declare(&["root", "data", "extra"]);
    instants_with(&scene, &[("root", 1), ("data", 12), ("extra", 16)]);

    let _ = declare(&["root", "extra"]);
    instants_with(&scene, &[("root", 1), ("extra", 16)]);
    scene.both_run();
    let limit = SILENCE_AND_SLACK.max(LIMIT);
    assert!(
        scene.pauses().iter().all(|pause| *pause <= limit),
        "{:?}",
        scene.pauses()
    );
    let exported = scene.lab.path("extra.raw");
    let (at, to) = (scene.lab.vault(), exported.to_str().unwrap());
    let _ = vault(&["export", at.to_str().unwrap(), "first", to, "--volume", "extra"]).done();
    let extra = std::fs::read(exported).unwrap();
    assert!(extra[1 << 20..2 << 20].iter().all(|byte| *byte == 5));
}

#[test]
fn two_vms_of_two_replicators_are_at_one_instant_also_while_the_orchestrator_is_away() {
    let mut scene = Scene::start_apart();
    scene.group("first, second");
    let instants = scene.instants_at_least(40);
    let found = numbers(&scene.lab.vault(), &instants);
    judge(&found);
    let described = scene.described();
    assert!(described["instant"].is_string(), "{described:#}");
    assert_eq!(described["leader"], "east-1", "{described:#}");
    let places = described["members"].as_array().unwrap().iter();
    let places: Vec<_> = places
        .map(|member| member["replicator"].as_str().unwrap())
        .collect();
    assert_eq!(places, ["east-1", "east-2"]);
    scene.lab.orchestrator.kill9();
    scene.are_stopped_together();
    // What each is to do, and where they meet, is on their disks.
    scene.lab.east.kill9();
    scene.other_east().kill9();
    scene.lab.east.restart();
    scene.other_east().restart();
    scene.are_stopped_together();
    scene.lab.orchestrator.restart();
    let instants = scene.instants_at_least(instants.len() + 10);
    judge(&numbers(&scene.lab.vault(), &instants));
    let mut pauses = scene.pauses();
    pauses.sort();
    println!(
        "{} instants; {} pauses, median {:?}, longest {:?}",
        instants.len(),
        pauses.len(),
        pauses[pauses.len() / 2],
        pauses.last()
    );
    assert!(pauses.iter().all(|pause| *pause <= LIMIT), "{pauses:?}");
    scene.both_run();
    let _ = scene.lab.cli.run(&["delete", "group", "pair"]).done();
    for name in NAMES {
        scene.lab.delete_vm(name);
        assert_eq!(scene.lab.bare(name).traces(), [""; 0]);
    }
}

#[test]
fn a_replicator_of_two_that_is_killed_or_hangs_in_the_middle_leaves_no_vm_standing_and_common_instants_come_again()
 {
    let mut scene = Scene::start_apart();
    scene.group("first, second");
    let mut known = scene.instants_at_least(5).len();
    for round in 0..8_u32 {
        // QEMU flushes what it stops, which gives us time to hit it while it stands still.
        for name in NAMES {
            let pattern = u8::try_from(round + 1).unwrap();
            scene.lab.bare(name).write("vddata", pattern, 0, 8 << 20);
        }
        scene.pauses[usize::from(round % 4 > 1)].await_stop();
        let leads = round % 2 == 0;
        let hit = if leads {
            &mut scene.lab.east
        } else {
            scene.other_east.as_mut().unwrap()
        };
        if round % 4 > 1 {
            hit.freeze();
        } else {
            hit.kill9();
        }
        scene.both_run();
        // Whoever is left goes on by itself.
        let left = NAMES[usize::from(leads)];
        let _ = scene.lab.cli.point_after_now(left, SOON);
        let hit = if leads {
            &mut scene.lab.east
        } else {
            scene.other_east.as_mut().unwrap()
        };
        if round % 4 > 1 {
            hit.thaw();
        } else {
            hit.restart();
        }
        scene.both_run();
        let instants = scene.instants_at_least(known + 3);
        known = instants.len();
        judge(&numbers(&scene.lab.vault(), &instants));
    }
    let mut pauses = scene.pauses();
    pauses.sort();
    let longest = &pauses[pauses.len().saturating_sub(12)..];
    println!(
        "{} pauses, median {:?}, longest {longest:?}",
        pauses.len(),
        pauses[pauses.len() / 2]
    );
    // Whose own replicator is hit is let go at once; who waits for another's, when the limit is over.
    assert!(
        longest.iter().all(|pause| *pause < LIMIT + SILENCE_AND_SLACK),
        "{longest:?}"
    );
}
