//! The watchdog by itself, told by a test what a replicator would tell it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    together::{program, status},
    vm::{Kind, Vm},
};

/// Longer than it waits for a word, and then for a `stop` that was sent before.
const HELD_UP: Duration = Duration::from_millis(2600);
const SOON: Duration = Duration::from_secs(20);

struct Watchdog {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Watchdog {
    async fn armed(vm: &Vm) -> Self {
        let bitmap = json!({"node": "node0", "name": "mine"});
        let _ = vm.command("block-dirty-bitmap-add", bitmap).await;
        let mut process = Command::new(program())
            .arg(vm.second_monitor())
            .arg("mine")
            .arg(vm.path("mark"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut watchdog = Self {
            input: process.stdin.take(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
        };
        assert_eq!(watchdog.answer(), "ready");
        watchdog.tell("arm 20000");
        assert_eq!(watchdog.answer(), "armed");
        watchdog
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.input.as_mut().unwrap(), "{word}").unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        let _ = self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

async fn stop(vm: &Vm) {
    vm.command("stop", Value::Null).await.unwrap();
    assert_eq!(status(vm).await, "paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_was_held_up_for_long_is_left_to_who_sent_it() {
    let vm = Vm::start(&[Kind::Raw]).await;
    let mut watchdog = Watchdog::armed(&vm).await;
    tokio::time::sleep(HELD_UP).await;
    stop(&vm).await;
    watchdog.tell("disarm");
    // Nobody but who disarms it will let the guest go.
    assert_eq!(watchdog.answer(), "undisturbed");
    assert_eq!(status(&vm).await, "paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_was_held_up_for_long_is_undone_when_who_sent_it_dies() {
    let vm = Vm::start(&[Kind::Raw]).await;
    let mut watchdog = Watchdog::armed(&vm).await;
    tokio::time::sleep(HELD_UP).await;
    stop(&vm).await;
    drop(watchdog.input.take());
    let began = Instant::now();
    while status(&vm).await != "running" {
        assert!(began.elapsed() < SOON, "it stands still");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_it_let_go_is_not_theirs_any_more() {
    let vm = Vm::start(&[Kind::Raw]).await;
    let mut watchdog = Watchdog::armed(&vm).await;
    stop(&vm).await;
    let began = Instant::now();
    while status(&vm).await != "running" {
        assert!(began.elapsed() < SOON, "it stands still");
    }
    watchdog.tell("disarm");
    assert_eq!(watchdog.answer(), "disturbed");
}
