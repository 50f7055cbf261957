//! The demo interrupted in the middle: real namespaces, real virtual machines, and nothing left of them. It needs root.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that meets what it does not expect shall stop there"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Only one demo is told on a machine at a time; another test may be telling one.
const TURN_LIMIT: Duration = Duration::from_secs(1800);
const END_LIMIT: Duration = Duration::from_secs(60);

/// A demo that is being told.
struct Telling {
    child: Child,
    story: BufReader<ChildStdout>,
    directory: PathBuf,
}

impl Telling {
    fn begin() -> Self {
        let deadline = Instant::now() + TURN_LIMIT;
        loop {
            match Self::try_begin() {
                Ok(telling) => return telling,
                Err(why) => assert!(why.contains("another demo") && Instant::now() < deadline, "{why}"),
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    fn try_begin() -> Result<Self, String> {
        let mut child = demo().spawn().unwrap();
        let mut story = BufReader::new(child.stdout.take().unwrap());
        let mut told = String::new();
        while story.read_line(&mut told).unwrap() > 0 {
            let rest = told
                .split_once("Its files are in ")
                .and_then(|(_, rest)| rest.split_once(". Ctrl-C"));
            if let Some((directory, _)) = rest {
                let directory = PathBuf::from(directory);
                return Ok(Self {
                    child,
                    story,
                    directory,
                });
            }
        }
        let mut why = String::new();
        child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
        child.wait().unwrap();
        Err(why)
    }

    fn until(&mut self, told: &str) {
        let mut line = String::new();
        while !line.contains(told) {
            line.clear();
            assert!(
                self.story.read_line(&mut line).unwrap() > 0,
                "the story ended before `{told}`"
            );
        }
    }

    fn interrupt(mut self) -> (i32, String) {
        let sent = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let deadline = Instant::now() + END_LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the demo did not end");
            thread::sleep(Duration::from_millis(50));
        };
        let mut said = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        (status.code().expect("it exits by itself"), said)
    }
}

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farshore"));
    command.args(["demo", "--accelerator", "tcg"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What is left of a demo: its directory, its namespaces and interface, and processes that name its directory.
fn remains(directory: &Path) -> Vec<String> {
    let name = directory.file_name().unwrap().to_str().unwrap();
    let id = name.strip_prefix("farshore-demo-").unwrap();
    let listed = |path: &str| {
        let entries = fs::read_dir(path).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>()
    };
    let mut left: Vec<String> = [listed("/run/netns"), listed("/sys/class/net")].concat();
    left.retain(|name| name.contains(&format!("fsd-{id}")));
    for pid in listed("/proc") {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(name) {
            left.push(format!("process {pid}"));
        }
    }
    if directory.exists() {
        left.push(directory.display().to_string());
    }
    left
}

fn interrupt_at(moment: &str) {
    let mut telling = Telling::begin();
    telling.until(moment);
    let directory = telling.directory.clone();
    assert!(directory.is_dir());
    let (status, said) = telling.interrupt();
    assert_eq!(status, 1, "at `{moment}`: {said}");
    assert!(said.contains("nothing is left behind"), "at `{moment}`: {said}");
    assert_eq!(remains(&directory), Vec::<String>::new(), "at `{moment}`");
}

#[test]
fn a_demo_that_is_interrupted_while_it_opens_leaves_nothing_behind() {
    for moment in [
        "1. Two sites",
        "2. Two virtual machines",
        "their disks are built",
        "is up at",
    ] {
        interrupt_at(moment);
    }
}

#[test]
fn a_demo_that_is_interrupted_in_its_middle_leaves_nothing_behind() {
    for moment in ["synchronized", "a clone of", "Fencing the source"] {
        interrupt_at(moment);
    }
}

#[test]
fn a_demo_ends_well_and_its_answer_is_one_json_object() {
    let deadline = Instant::now() + TURN_LIMIT;
    let told = loop {
        let told = demo().arg("--json").output().unwrap();
        let refused = String::from_utf8_lossy(&told.stderr).contains("another demo is being told");
        if !refused || Instant::now() >= deadline {
            break told;
        }
        thread::sleep(Duration::from_secs(1));
    };
    let story = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{story}");
    let answer: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(answer["testFailover"]["isolationProven"], true, "{answer}");
    assert_eq!(answer["leftBehind"], json!([]), "{answer}");
    assert_eq!(
        answer["unplannedFailover"].as_array().map(Vec::len),
        Some(2),
        "{answer}"
    );
    let (_, rest) = story.split_once("Its files are in ").unwrap();
    let (directory, _) = rest.split_once(". Ctrl-C").unwrap();
    assert_eq!(remains(Path::new(directory)), Vec::<String>::new());
}

#[test]
fn what_a_killed_demo_left_is_removed_and_only_one_is_told_at_a_time() {
    let mut telling = Telling::begin();
    telling.until("their disks are built");
    let why = Telling::try_begin().err().expect("the second is refused");
    assert!(why.contains("another demo is being told"), "{why}");

    let directory = telling.directory.clone();
    telling.child.kill().unwrap();
    telling.child.wait().unwrap();
    assert!(!remains(&directory).is_empty(), "there is nothing to remove");
    let stopped = Command::new(env!("CARGO_BIN_EXE_farshore"))
        .args(["demo", "--stop"])
        .arg(&directory)
        .output()
        .unwrap();
    assert!(
        stopped.status.success(),
        "{}",
        String::from_utf8_lossy(&stopped.stderr)
    );
    assert_eq!(remains(&directory), Vec::<String>::new());
}

#[test]
fn a_directory_that_is_no_demos_is_never_removed() {
    let precious = tempfile::tempdir().unwrap();
    let stopped = demo().arg("--stop").arg(precious.path()).output().unwrap();
    assert_eq!(stopped.status.code(), Some(2));
    assert!(precious.path().is_dir());
}
