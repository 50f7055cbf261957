//! Runs the targets on the kept corpus and on damage done to it, each in a process of its own: whatever kills that
//! process (a panic, too much memory, a loop without end) is told with the seed that brought it about.
//!
//! | variable | meaning |
//! |---|---|
//! | `FARSHORE_FUZZ_ROUNDS` | so many times the usual number of rounds |
//! | `FARSHORE_FUZZ_SEED` | the first round's seed; each next one is one more |
//! | `FARSHORE_FUZZ_ONLY` | with it, only the round of that seed |
//! | `FARSHORE_FUZZ_KEEP` | the file to which the inputs go before they are tried |
//!
//! This is an executable apart from the crate's other tests: a process that is being started holds for an instant what
//! its parent has locked, and would make their vaults look as if they were being written.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what fails here fails the test"
)]

use std::{
    env, fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Resource, Rlimit, setrlimit};

use farshore_vault::fuzzing::{TARGETS, damaged, repair};

/// What a target may hold in memory, beside what the test executable has anyway. No input has 1 MiB.
const MEMORY_BYTES: u64 = 96 * 1024 * 1024;
/// How long the usual number of rounds may compute.
const COMPUTING_SECONDS: u64 = 120;
const TARGET: &str = "FARSHORE_FUZZ_TARGET";
const STATUS: &str = "FARSHORE_FUZZ_STATUS";

/// How many times each target is run on damage done to its corpus.
const ROUNDS: [(&str, u64); 9] = [
    ("head", 20_000),
    ("segment", 1500),
    ("group", 10_000),
    ("journal_record", 20_000),
    ("edit", 20_000),
    ("journal_pair", 1000),
    ("run", 1200),
    ("entry", 20_000),
    ("whole_vault", 300),
];

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Runs the target in a process of its own; what went wrong, if anything did.
fn run_apart(target: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let status = directory.path().join("status");
    fs::write(&status, [0; 8]).unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "in_a_process_of_its_own", "--ignored", "--nocapture"])
        .env(TARGET, target)
        .env(STATUS, &status)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    let seed = u64::from_le_bytes(fs::read(&status).unwrap().try_into().unwrap());
    let place = match seed {
        0 => "the kept corpus".to_owned(),
        seed => format!("FARSHORE_FUZZ_ONLY=1 FARSHORE_FUZZ_SEED={seed}"),
    };
    let told = [output.stdout, output.stderr].concat();
    Err(format!(
        "{target} failed on {place}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&told)
    ))
}

fn run(target: &str) {
    if let Err(told) = run_apart(target) {
        panic!("{told}");
    }
}

/// The kept inputs of a target, in order.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{target} has a corpus");
    let inputs = paths.into_iter().map(|path| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    });
    inputs.collect()
}

/// SplitMix64: any seed is as good as any other.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn script(&mut self) -> Vec<u8> {
        let operations = 1 + self.below(5);
        (0..operations).flat_map(|_| self.next().to_le_bytes()).collect()
    }
}

/// The input of the round with this seed.
fn input(target: &str, corpus: &[(PathBuf, Vec<u8>)], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    if target == "whole_vault" {
        let [which, how, ..] = random.next().to_le_bytes();
        return [vec![which, how], random.script()].concat();
    }
    let (_, good) = &corpus[random.below(corpus.len())];
    let (_, donor) = &corpus[random.below(corpus.len())];
    let mut bytes = damaged(good, donor, &random.script());
    if random.below(4) > 0 {
        repair(&mut bytes);
    }
    bytes
}

#[test]
#[ignore = "the other tests here run it, with a limit on its memory and time"]
fn in_a_process_of_its_own() {
    let Ok(name) = env::var(TARGET) else { return };
    let times = number("FARSHORE_FUZZ_ROUNDS").unwrap_or(1);
    let limit = |resource, most| {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).unwrap();
    };
    limit(Resource::Data, MEMORY_BYTES);
    limit(Resource::Cpu, COMPUTING_SECONDS.saturating_mul(times));
    limit(Resource::Core, 0);
    if name == "greedy" {
        return drop(std::hint::black_box(vec![1u8; 1 << 30]));
    }
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let (_, rounds) = ROUNDS.iter().find(|(known, _)| *known == name).unwrap();
    let corpus = corpus(&name);
    let status = fs::File::options()
        .write(true)
        .open(env::var(STATUS).unwrap())
        .unwrap();
    let first = number("FARSHORE_FUZZ_SEED").unwrap_or(1).max(1);
    let only = env::var("FARSHORE_FUZZ_ONLY").is_ok();
    if !only {
        for (path, bytes) in &corpus {
            println!("{}", path.display());
            (target.take)(bytes);
        }
    }
    let rounds = if only { 1 } else { rounds.saturating_mul(times) };
    for seed in first..first.saturating_add(rounds) {
        status.write_all_at(&seed.to_le_bytes(), 0).unwrap();
        let bytes = input(&name, &corpus, seed);
        if let Ok(path) = env::var("FARSHORE_FUZZ_KEEP") {
            fs::write(path, &bytes).unwrap();
        }
        (target.take)(&bytes);
    }
}

#[test]
fn a_target_that_takes_too_much_memory_is_caught() {
    let told = run_apart("greedy").unwrap_err();
    assert!(
        told.contains("memory allocation of 1073741824 bytes failed"),
        "{told}"
    );
}

#[test]
fn every_target_is_run() {
    let targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    let rounds: Vec<_> = ROUNDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(targets, rounds);
}

#[test]
fn any_bytes_as_a_head() {
    run("head");
}

#[test]
fn any_bytes_as_a_segment() {
    run("segment");
}

#[test]
fn any_bytes_as_a_group() {
    run("group");
}

#[test]
fn any_bytes_as_a_record() {
    run("journal_record");
}

#[test]
fn any_bytes_as_a_records_body() {
    run("edit");
}

#[test]
fn any_bytes_as_a_journal_and_its_mirror() {
    run("journal_pair");
}

#[test]
fn any_bytes_as_a_run() {
    run("run");
}

#[test]
fn any_bytes_as_an_entry() {
    run("entry");
}

#[test]
fn any_damage_to_a_file_of_a_vault() {
    run("whole_vault");
}
