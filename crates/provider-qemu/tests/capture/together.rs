//! Instants that several VMs take together, and the watchdog that lets their guests go on whatever becomes of us.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use farshore_provider::{
    Accord, Capture, CaptureKind, InstantId, Outcome, Source, Word, convene, participate,
};
use farshore_provider_qemu::{QemuCapture, QemuSource, WatchdogConfig};
use farshore_qmp::Event;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::broadcast;

use crate::{
    iothreads::THREADED_PAIR,
    replica::{IDENTITY, PAIR, Target, assert_equal, protected},
    vm::Vm,
};

const LIMIT: Duration = Duration::from_secs(5);
/// How long the watchdog waits for a word.
const SILENCE: Duration = Duration::from_millis(300);
/// And how long it goes on looking for a `stop` that comes late.
const LATE: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(20);

/// The example of this package, which cargo builds beside the tests.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let build = test.parent().and_then(Path::parent).unwrap();
    build.join("examples/stop_watchdog")
}

/// A protected VM that can be a member of a group.
struct Member {
    vm: Vm,
    source: QemuSource,
    target: Target,
}

impl Member {
    async fn start() -> Self {
        let (vm, _, target) = protected(PAIR).await;
        let watched_by = vm.second_monitor();
        Self::watched_by(vm, target, Some(watched_by)).await
    }

    async fn watched_by(vm: Vm, target: Target, monitor: Option<PathBuf>) -> Self {
        let mut config = vm.config(vm.machine(), &vm.monitor());
        config.watchdog = monitor.map(|monitor| WatchdogConfig {
            monitor,
            program: program(),
            leading_arguments: Vec::new(),
        });
        let mut source = QemuSource::new(config);
        source.attach(IDENTITY, target.state()).await.unwrap();
        Self { vm, source, target }
    }

    async fn seal(&mut self, capture: QemuCapture) {
        let disks = self.target.with(&capture).await.unwrap();
        self.target.seal(disks);
        self.source.finish(capture, Outcome::Done).await.unwrap();
    }
}

/// One round of two.
async fn round(first: &mut Member, second: &mut Member, limit: Duration) -> [QemuCapture; 2] {
    let mut participants = convene(InstantId(1), &["first", "second"], limit).into_iter();
    let (one, two) = (participants.next().unwrap(), participants.next().unwrap());
    let kind = CaptureKind::Instant;
    let next = (first.target.newest.next(), second.target.newest.next());
    let (one, two) = tokio::join!(
        first.source.begin_together(kind, next.0, one),
        second.source.begin_together(kind, next.1, two)
    );
    [one.unwrap(), two.unwrap()]
}

pub(crate) async fn status(vm: &Vm) -> String {
    let status = vm.command("query-status", Value::Null).await.unwrap();
    status["status"].as_str().unwrap().to_owned()
}

async fn until_running(vm: &Vm, within: Duration) -> Duration {
    let began = Instant::now();
    while status(vm).await != "running" {
        assert!(began.elapsed() < within, "it stands still");
    }
    began.elapsed()
}

fn why(capture: &QemuCapture) -> String {
    match capture.accord() {
        Some(Accord::Alone { why }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_vms_take_one_instant_again_and_again_and_their_guests_go_on() {
    let (mut first, mut second) = (Member::start().await, Member::start().await);
    for _ in 0..3 {
        let [one, two] = round(&mut first, &mut second, LIMIT).await;
        assert_eq!(one.accord(), Some(Accord::Together(InstantId(1))));
        assert_eq!(two.accord(), Some(Accord::Together(InstantId(1))));
        assert_eq!(one.captured_at(), two.captured_at());
        for capture in [&one, &two] {
            assert!(
                capture.held() > Duration::ZERO && capture.held() < LIMIT,
                "{:?}",
                capture.held()
            );
        }
        for member in [&first, &second] {
            assert_eq!(status(&member.vm).await, "running");
        }
        first.seal(one).await;
        second.seal(two).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_pause_is_taken_along_and_stays() {
    let (mut first, mut second) = (Member::start().await, Member::start().await);
    second.vm.command("stop", Value::Null).await.unwrap();
    let [one, two] = round(&mut first, &mut second, LIMIT).await;
    assert_eq!(one.accord(), Some(Accord::Together(InstantId(1))));
    assert_eq!(two.accord(), Some(Accord::Together(InstantId(1))));
    assert_eq!(two.held(), Duration::ZERO);
    assert_eq!(status(&first.vm).await, "running");
    assert_eq!(status(&second.vm).await, "paused");
    first.seal(one).await;
    second.seal(two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_watchdog_no_guest_is_stopped_and_the_instants_are_told_apart() {
    let mut first = Member::start().await;
    let (vm, _, target) = protected(PAIR).await;
    let mut second = Member::watched_by(vm, target, None).await;
    let [one, two] = round(&mut first, &mut second, LIMIT).await;
    assert!(
        why(&one).contains("second: it has no second monitor"),
        "{}",
        why(&one)
    );
    assert!(why(&two).contains("no second monitor"), "{}", why(&two));
    first.seal(one).await;
    second.seal(two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_monitor_of_another_vm_is_refused() {
    let mut first = Member::start().await;
    let (vm, _, target) = protected(PAIR).await;
    let (stranger, _) = (Vm::start(PAIR).await, ());
    let mut second = Member::watched_by(vm, target, Some(stranger.second_monitor())).await;
    let [one, two] = round(&mut first, &mut second, LIMIT).await;
    assert!(why(&two).contains("another VM's"), "{}", why(&two));
    first.seal(one).await;
    second.seal(two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_too_short_costs_the_round_and_nothing_else() {
    let (mut first, mut second) = (Member::start().await, Member::start().await);
    let [one, two] = round(&mut first, &mut second, Duration::ZERO).await;
    assert_eq!(why(&one), why(&two));
    for member in [&first, &second] {
        assert_eq!(status(&member.vm).await, "running");
    }
    first.seal(one).await;
    second.seal(two).await;
    let [one, two] = round(&mut first, &mut second, LIMIT).await;
    assert_eq!(one.accord(), Some(Accord::Together(InstantId(1))));
    first.seal(one).await;
    second.seal(two).await;
}

/// The processes whose command line has this path.
fn processes_naming(path: &Path) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let named = |process: &std::fs::DirEntry| {
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        let mut arguments = line.split(|byte| *byte == 0);
        arguments.find(|argument| *argument == path.as_os_str().as_encoded_bytes())?;
        Pid::from_raw(process.file_name().to_str()?.parse().ok()?)
    };
    processes.filter_map(|process| named(&process)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_that_is_killed_or_hangs_costs_one_round_and_no_guest_stands_still() {
    let (mut first, mut second) = (Member::start().await, Member::start().await);
    for signal in [Signal::STOP, Signal::KILL] {
        let [one, two] = round(&mut first, &mut second, LIMIT).await;
        assert_eq!(one.accord(), Some(Accord::Together(InstantId(1))));
        first.seal(one).await;
        second.seal(two).await;
        let found = processes_naming(&first.vm.second_monitor());
        let [watchdog] = found.as_slice() else {
            panic!("{found:?}");
        };
        kill_process(*watchdog, signal).unwrap();
        let [one, two] = round(&mut first, &mut second, LIMIT).await;
        assert!(why(&one).contains("watchdog"), "{}", why(&one));
        assert!(why(&two).contains("watchdog"), "{}", why(&two));
        assert!(two.held() < LIMIT, "{:?}", two.held());
        for member in [&first, &second] {
            assert_eq!(status(&member.vm).await, "running");
            assert!(!member.vm.scratch().join("stopping").exists());
        }
        first.seal(one).await;
        second.seal(two).await;
    }
    // The one that hung does not keep the monitor from its successor.
    let [one, two] = round(&mut first, &mut second, LIMIT).await;
    assert_eq!(one.accord(), Some(Accord::Together(InstantId(1))));
    first.seal(one).await;
    second.seal(two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_that_hangs_while_its_guest_stands_still_does_not_keep_it_standing() {
    let (mut first, mut second) = (Member::start().await, Member::start().await);
    let script = first.vm.path("hangs");
    // It takes the arguments along, so that it can be found.
    let text = "#!/bin/sh\necho ready; read arm; echo armed; while read word; do :; done; sleep 1000\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut config = first.vm.config(first.vm.machine(), &first.vm.monitor());
    config.watchdog = Some(WatchdogConfig {
        monitor: first.vm.second_monitor(),
        program: script,
        leading_arguments: Vec::new(),
    });
    drop(first.source);
    first.source = QemuSource::new(config);
    first.source.attach(IDENTITY, first.target.state()).await.unwrap();
    let [one, two] = round(&mut first, &mut second, LIMIT).await;
    assert!(why(&one).contains("watchdog says nothing"), "{}", why(&one));
    for (member, capture) in [(&first, &one), (&second, &two)] {
        assert_eq!(status(&member.vm).await, "running");
        assert!(capture.held() < LIMIT, "{:?}", capture.held());
    }
    let began = Instant::now();
    while !processes_naming(&first.vm.second_monitor()).is_empty() {
        assert!(began.elapsed() < LONG, "it is still there");
        tokio::task::yield_now().await;
    }
    first.seal(one).await;
    second.seal(two).await;
}

/// Whether its guest was stopped.
async fn was_stopped(vm: &Vm, events: &mut broadcast::Receiver<Event>) -> bool {
    // A monitor answers behind all events of what went before.
    assert_eq!(status(vm).await, "running");
    std::iter::from_fn(|| events.try_recv().ok()).any(|event| event.name == "STOP")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_copies_gives_its_round_up_and_everyone_has_an_exact_instant_of_its_own() {
    let mut first = Member::start().await;
    let (vm, mut model, target) = protected(THREADED_PAIR).await;
    let watched_by = vm.second_monitor();
    let mut second = Member::watched_by(vm, target, Some(watched_by)).await;
    for _ in 0..3 {
        model.scribble(&second.vm).await;
        let mut events = (first.vm.events(), second.vm.events());
        let [one, two] = round(&mut first, &mut second, LIMIT).await;
        if bears_filters_above_io_threads(&second.vm).await {
            assert_eq!(one.accord(), Some(Accord::Together(InstantId(1))));
        } else {
            assert!(
                why(&two).contains("an I/O thread serves a disk of it"),
                "{}",
                why(&two)
            );
            assert_eq!(why(&one), format!("second: {}", why(&two)));
            // That is known before anybody is stopped.
            for (member, events) in [(&first, &mut events.0), (&second, &mut events.1)] {
                assert!(!was_stopped(&member.vm, events).await);
            }
        }
        assert_equal(&second.target.with(&two).await.unwrap(), &model.disks);
        first.seal(one).await;
        second.seal(two).await;
    }
    for member in [&mut first, &mut second] {
        member.source.detach().await.unwrap();
        assert_eq!(member.vm.leftovers().await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_copies_is_not_waited_for_by_those_who_have_prepared() {
    let mut first = Member::start().await;
    let (vm, _, target) = protected(THREADED_PAIR).await;
    let watched_by = vm.second_monitor();
    let mut second = Member::watched_by(vm, target, Some(watched_by)).await;
    if bears_filters_above_io_threads(&second.vm).await {
        return;
    }
    let mut events = first.vm.events();
    let (one, mut said) = participate(InstantId(7), "first", LIMIT);
    let (other, mut said_of_other) = participate(InstantId(7), "second", LIMIT);
    let next = (first.target.newest.next(), second.target.newest.next());
    // The round is held elsewhere, where the second's giving up breaks it for the first, which has prepared by then.
    let held = async {
        let Some(Word::Prepared { settled }) = said.recv().await else {
            panic!("the first says something else");
        };
        let Some(Word::GivesUp { why }) = said_of_other.recv().await else {
            panic!("the second says something else");
        };
        settled.send(Err(format!("second: {why}"))).unwrap();
    };
    let (one, other, ()) = tokio::join!(
        first.source.begin_together(CaptureKind::Instant, next.0, one),
        second.source.begin_together(CaptureKind::Instant, next.1, other),
        held
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(why(&one), format!("second: {}", why(&other)));
    assert!(!was_stopped(&first.vm, &mut events).await);
    first.seal(one).await;
    second.seal(other).await;
}

async fn bears_filters_above_io_threads(vm: &Vm) -> bool {
    let version = vm.command("query-version", Value::Null).await.unwrap();
    version["qemu"]["major"].as_u64().unwrap() >= 10
}

/// A watchdog by itself, told what to do by a test.
struct Watching {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Watching {
    async fn of(vm: &Vm) -> Self {
        let bitmap = bitmap_of(vm).await;
        let mut process = Command::new(program())
            .arg(vm.second_monitor())
            .arg(bitmap)
            .arg(vm.scratch().join("stopping"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut watching = Self {
            input: process.stdin.take(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
        };
        assert_eq!(watching.heard(), "ready");
        watching
    }

    fn heard(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.input.as_mut().unwrap(), "{word}").unwrap();
    }

    fn arm(&mut self, limit: Duration) {
        self.tell(&format!("arm {}", limit.as_millis()));
        assert_eq!(self.heard(), "armed");
    }

    /// As when whoever told it what to do is killed.
    fn lose(&mut self) {
        self.input = None;
    }
}

async fn bitmap_of(vm: &Vm) -> String {
    let nodes = vm
        .command("query-named-block-nodes", serde_json::json!({"flat": true}))
        .await
        .unwrap();
    let nodes = nodes.as_array().unwrap();
    let mut bitmaps = nodes
        .iter()
        .filter_map(|node| node["dirty-bitmaps"].as_array())
        .flatten();
    bitmaps.next().unwrap()["name"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_stopper_died_or_hangs_or_overruns_goes_on() {
    let (vm, _, _) = protected(PAIR).await;
    // It died.
    let mut watching = Watching::of(&vm).await;
    watching.arm(LONG);
    vm.command("stop", Value::Null).await.unwrap();
    watching.lose();
    assert!(until_running(&vm, LONG).await < SILENCE);
    watching.process.wait().unwrap();
    // It hangs.
    let mut watching = Watching::of(&vm).await;
    watching.arm(LONG);
    vm.command("stop", Value::Null).await.unwrap();
    let stood = until_running(&vm, LONG).await;
    assert!(stood < SILENCE * 2, "{stood:?}");
    watching.tell("disarm");
    assert_eq!(watching.heard(), "disturbed");
    // It says that it lives, but takes too long.
    watching.arm(SILENCE * 2);
    vm.command("stop", Value::Null).await.unwrap();
    let began = Instant::now();
    while status(&vm).await != "running" {
        watching.tell("alive");
        assert!(began.elapsed() < LONG, "it stands still");
    }
    assert!(
        (SILENCE..SILENCE * 4).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    watching.tell("disarm");
    assert_eq!(watching.heard(), "disturbed");
    // It is all right.
    watching.arm(LONG);
    vm.command("stop", Value::Null).await.unwrap();
    vm.command("cont", Value::Null).await.unwrap();
    watching.tell("disarm");
    assert_eq!(watching.heard(), "undisturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_comes_after_its_stopper_died_is_undone_too() {
    let (vm, _, _) = protected(PAIR).await;
    let mut watching = Watching::of(&vm).await;
    watching.arm(LONG);
    watching.lose();
    tokio::time::sleep(SILENCE).await;
    vm.command("stop", Value::Null).await.unwrap();
    until_running(&vm, LATE).await;
    watching.process.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_armed_leaves_an_operators_pause_alone() {
    let (vm, _, _) = protected(PAIR).await;
    let mut watching = Watching::of(&vm).await;
    watching.arm(LONG);
    vm.command("stop", Value::Null).await.unwrap();
    vm.command("cont", Value::Null).await.unwrap();
    watching.tell("disarm");
    assert_eq!(watching.heard(), "undisturbed");
    vm.command("stop", Value::Null).await.unwrap();
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(status(&vm).await, "paused");
    watching.lose();
    watching.process.wait().unwrap();
    assert_eq!(status(&vm).await, "paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_someone_else_let_go_is_noticed() {
    let (vm, _, _) = protected(PAIR).await;
    let mut watching = Watching::of(&vm).await;
    watching.arm(LONG);
    for command in ["stop", "cont", "stop", "cont"] {
        vm.command(command, Value::Null).await.unwrap();
    }
    watching.tell("disarm");
    assert_eq!(watching.heard(), "disturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_stopper_and_watchdog_were_both_killed_goes_on_with_the_next_attachment() {
    let (vm, _, target) = protected(PAIR).await;
    let mark = vm.scratch().join("stopping");
    let mut watching = Watching::of(&vm).await;
    watching.arm(LONG);
    std::fs::write(&mark, "").unwrap();
    vm.command("stop", Value::Null).await.unwrap();
    watching.process.kill().unwrap();
    watching.process.wait().unwrap();
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    assert_eq!((status(&vm).await.as_str(), mark.exists()), ("running", false));
    // Without the mark it is an operator's.
    vm.command("stop", Value::Null).await.unwrap();
    source.attach(IDENTITY, target.state()).await.unwrap();
    assert_eq!(status(&vm).await, "paused");
    vm.command("cont", Value::Null).await.unwrap();
    // Where only the stopper is killed, the watchdog takes the mark away.
    let mut watching = Watching::of(&vm).await;
    watching.arm(LONG);
    std::fs::write(&mark, "").unwrap();
    vm.command("stop", Value::Null).await.unwrap();
    watching.lose();
    watching.process.wait().unwrap();
    assert_eq!((status(&vm).await.as_str(), mark.exists()), ("running", false));
}
