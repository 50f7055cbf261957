//! Instants for which the guest's file systems are frozen, with an agent of our own that can be as bad as a guest's.

use std::{
    io::{BufRead, BufReader as LineReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use farshore_blocks::Sequence;
use farshore_provider::{Capture, Consistency, Outcome, Source, Tracking};
use farshore_provider_qemu::{GuestAgentConfig, QemuSource};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use crate::{
    replica::{IDENTITY, PAIR, protected},
    vm::Vm,
};

const LONG: Duration = Duration::from_secs(20);
/// How much longer than the limit it may take until a guest is thawed: a process that hangs is given a second, and the machine is busy.
const BEYOND: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Good,
    /// It freezes and does not say so.
    SilentFreeze,
    Refusing,
    /// It is good, but when it is first told this, something befalls whoever does.
    Striking(Signal, &'static str),
}

/// Strikes a client that is another process than this one, once.
fn strike(stream: &UnixStream, signal: Signal) -> bool {
    let client = stream.peer_cred().unwrap().pid().unwrap();
    let other = client.unsigned_abs() != std::process::id();
    if other {
        kill_process(Pid::from_raw(client).unwrap(), signal).unwrap();
    }
    other
}

struct Agent {
    path: PathBuf,
    frozen: Arc<AtomicBool>,
    freezes: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    fn start(path: PathBuf, manner: Manner) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let (frozen, freezes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let state = (Arc::clone(&frozen), Arc::clone(&freezes));
        let task = tokio::spawn(async move {
            let mut manner = manner;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that left is no reason to stop.
                drop(serve(stream, &mut manner, &state.0, &state.1).await);
            }
        });
        Self {
            path,
            frozen,
            freezes,
            task,
        }
    }

    fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    async fn thawed(&self) {
        let deadline = tokio::time::Instant::now() + LONG;
        while self.is_frozen() {
            assert!(tokio::time::Instant::now() < deadline, "it stays frozen");
            tokio::task::yield_now().await;
        }
    }

    fn source(&self, vm: &Vm, limit: Duration) -> QemuSource {
        let mut config = vm.config(vm.machine(), &vm.monitor());
        config.guest_agent = Some(GuestAgentConfig {
            channel: self.path.clone(),
            freezer: freezer(),
            leading_arguments: Vec::new(),
            limit,
        });
        QemuSource::new(config)
    }
}

/// One client, one command after another.
async fn serve(
    stream: UnixStream,
    manner: &mut Manner,
    frozen: &AtomicBool,
    freezes: &AtomicUsize,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let text = line.strip_prefix(&[0xff]).unwrap_or(&line);
        let command: Value = serde_json::from_slice(text).unwrap();
        let name = command["execute"].as_str().unwrap();
        if let Manner::Striking(signal, at) = *manner
            && name == at
            && strike(stream.get_ref(), signal)
        {
            *manner = Manner::Good;
            if name == "guest-fsfreeze-thaw" {
                continue;
            }
        }
        let (answer, start) = match name {
            "guest-sync-delimited" => (json!({"return": command["arguments"]["id"]}), &[0xff_u8][..]),
            "guest-fsfreeze-freeze" if *manner == Manner::Refusing => (
                json!({"error": {"class": "GenericError", "desc": "not allowed here"}}),
                &[][..],
            ),
            "guest-fsfreeze-freeze" => {
                frozen.store(true, Ordering::SeqCst);
                freezes.fetch_add(1, Ordering::SeqCst);
                if *manner == Manner::SilentFreeze {
                    continue;
                }
                (json!({"return": 1}), &[][..])
            }
            "guest-fsfreeze-thaw" => {
                let was = frozen.swap(false, Ordering::SeqCst);
                (json!({"return": u32::from(was)}), &[][..])
            }
            _ if frozen.load(Ordering::SeqCst) => (json!({"return": "frozen"}), &[][..]),
            _ => (json!({"return": "thawed"}), &[][..]),
        };
        let answer = format!("{answer}\n");
        stream.write_all(&[start, answer.as_bytes()].concat()).await?;
    }
}

/// The example of this package, which cargo builds beside the tests.
pub(crate) fn freezer() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let build = test.parent().and_then(Path::parent).unwrap();
    build.join("examples/guest_freezer")
}

/// Takes one application-consistent point of a fresh VM and says what it was consistent with.
async fn wished(manner: Manner, limit: Duration) -> (Consistency, usize) {
    let (vm, _, mut target) = protected(PAIR).await;
    let agent = Agent::start(vm.path("agent"), manner);
    let mut source = agent.source(&vm, limit);
    source.attach(IDENTITY, target.state()).await.unwrap();
    let began = Instant::now();
    let capture = source
        .begin_application_consistent(target.newest.next())
        .await
        .unwrap();
    agent.thawed().await;
    assert!(began.elapsed() < limit + BEYOND, "{:?}", began.elapsed());
    let consistency = capture.consistency();
    let disks = target.with(&capture).await.unwrap();
    target.seal(disks);
    source.finish(capture, Outcome::Done).await.unwrap();
    (consistency, agent.freezes.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_is_taken_of_a_frozen_guest_that_is_thawed_right_after_it() {
    assert_eq!(wished(Manner::Good, LONG).await, (Consistency::Application, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_freeze_gets_a_crash_consistent_point_and_the_reason() {
    for (manner, limit, words) in [
        (Manner::Refusing, LONG, "not allowed here"),
        (
            Manner::SilentFreeze,
            Duration::from_millis(300),
            "no guest agent answered",
        ),
    ] {
        let (consistency, _) = wished(manner, limit).await;
        assert!(
            matches!(&consistency, Consistency::Crash { why: Some(why) } if why.contains(words)),
            "{consistency:?}"
        );
    }
}

/// The channel serves one client, so that a process that hangs with it in its hands keeps everybody else from thawing.
#[tokio::test(flavor = "multi_thread")]
async fn a_freezer_that_is_killed_or_hangs_does_not_leave_its_guest_frozen() {
    let limit = Duration::from_millis(500);
    for signal in [Signal::STOP, Signal::KILL] {
        for at in ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"] {
            let began = Instant::now();
            let (consistency, freezes) = wished(Manner::Striking(signal, at), limit).await;
            assert!(
                matches!(&consistency, Consistency::Crash { why: Some(why) } if why.contains("freezer")),
                "{signal:?} at {at}: {consistency:?}"
            );
            assert_eq!(freezes, 1);
            println!("{signal:?} at {at}: all of it took {:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn without_an_agent_a_wish_is_answered_with_the_reason() {
    let (vm, _, target) = protected(PAIR).await;
    let mut source = vm.source();
    source.attach(IDENTITY, target.state()).await.unwrap();
    let capture = source.begin_application_consistent(Sequence(2)).await.unwrap();
    let consistency = capture.consistency();
    assert!(
        matches!(&consistency, Consistency::Crash { why: Some(why) } if why.contains("no guest agent")),
        "{consistency:?}"
    );
    source.finish(capture, Outcome::Failed).await.unwrap();
}

fn hold(agent: &Agent, limit: Duration) -> (Child, LineReader<std::process::ChildStdout>) {
    let mut process = Command::new(freezer())
        .arg(&agent.path)
        .arg(limit.as_millis().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = LineReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "frozen\n");
    assert!(agent.is_frozen());
    (process, output)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_or_hangs_the_guest_is_thawed() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(directory.path().join("agent"), Manner::Good);
    // Whoever asked for it died: its end of the pipe is closed.
    let (mut process, mut output) = hold(&agent, LONG);
    drop(process.stdin.take());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    process.wait().unwrap();
    assert_eq!((rest.as_str(), agent.is_frozen()), ("thawed\n", false));
    // It hangs: its end stays open.
    let (mut process, mut output) = hold(&agent, Duration::from_millis(500));
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    process.wait().unwrap();
    assert_eq!((rest.as_str(), agent.is_frozen()), ("overrun\n", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_was_left_frozen_is_thawed_by_the_next_one_and_an_operators_freeze_is_not() {
    let (vm, _, target) = protected(PAIR).await;
    let agent = Agent::start(vm.path("agent"), Manner::Good);
    let (mut process, output) = hold(&agent, LONG);
    process.kill().unwrap();
    process.wait().unwrap();
    drop(output);
    assert!(agent.is_frozen());
    let mut source = agent.source(&vm, LONG);
    let tracking = source.attach(IDENTITY, target.state()).await.unwrap();
    assert_eq!((tracking, agent.is_frozen()), (Tracking::SincePoint, true));
    std::fs::write(vm.scratch().join("freezing"), "").unwrap();
    source.attach(IDENTITY, target.state()).await.unwrap();
    assert!(!agent.is_frozen());
    assert!(!vm.scratch().join("freezing").exists());
}
