//! The shape of the workspace: which crate may use which, and how files look.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what fails here fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The longest production file.
const LINES_MAXIMUM: usize = 500;

/// What a crate may use of ours.
struct Row {
    name: &'static str,
    /// In what is built.
    uses: &'static [&'static str],
    /// In its tests, besides.
    tests_use: &'static [&'static str],
}

/// The arrows. A crate that has no row fails the test.
const ARROWS: &[Row] = &[
    row("blocks", &[], &[]),
    row("domain", &["blocks"], &[]),
    row("transfer", &["blocks"], &[]),
    row("vault", &["blocks"], &[]),
    row("nbd", &[], &[]),
    row("qmp", &[], &[]),
    row("guest", &["blocks"], &[]),
    row("provider", &["blocks"], &[]),
    row("provider-qemu", &["blocks", "provider", "nbd", "qmp"], &["guest"]),
    row("provider-raw", &["blocks", "provider"], &[]),
    row("proto", &[], &[]),
    row("orchestrator", &["blocks", "domain", "proto"], &[]),
    row("replicator", DATA_PLANE, &[]),
    row("cli", EVERYTHING_ELSE, &[]),
    row("tests", EVERYTHING_ELSE, &[]),
];

const DATA_PLANE: &[&str] = &[
    "blocks",
    "transfer",
    "vault",
    "nbd",
    "qmp",
    "provider",
    "provider-qemu",
    "provider-raw",
    "proto",
];

/// The binary and the scenarios join all parts; nothing uses these two.
const EVERYTHING_ELSE: &[&str] = &[
    "blocks",
    "domain",
    "transfer",
    "vault",
    "nbd",
    "qmp",
    "guest",
    "provider",
    "provider-qemu",
    "provider-raw",
    "proto",
    "orchestrator",
    "replicator",
];

/// Crates that decide or store, and see no runtime and no wire.
const PURE: &[&str] = &["blocks", "domain", "transfer", "vault"];

/// What they must not see, not even through others.
const RUNTIME_AND_WIRE: &[&str] = &["tokio", "tonic", "prost"];

/// A crate of the workspace, as cargo describes it.
struct Member {
    name: String,
    directory: PathBuf,
    /// Names as in the registry; ours without their prefix.
    uses: BTreeSet<String>,
    tests_use: BTreeSet<String>,
}

const fn row(name: &'static str, uses: &'static [&'static str], tests_use: &'static [&'static str]) -> Row {
    Row {
        name,
        uses,
        tests_use,
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn short(name: &str) -> String {
    name.strip_prefix("farshore-").unwrap_or(name).to_owned()
}

fn members() -> Vec<Member> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let described: Value = serde_json::from_slice(&output.stdout).unwrap();
    let members: Vec<Member> = described["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(member)
        .collect();
    assert!(members.len() >= 2, "cargo describes the whole workspace");
    members
}

fn member(package: &Value) -> Member {
    let dependencies = package["dependencies"].as_array().unwrap();
    let of_kind = |for_tests: bool| {
        dependencies
            .iter()
            .filter(|dependency| (dependency["kind"] == "dev") == for_tests)
            .map(|dependency| short(dependency["name"].as_str().unwrap()))
            .collect()
    };
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    Member {
        name: short(package["name"].as_str().unwrap()),
        directory: manifest.parent().unwrap().to_owned(),
        uses: of_kind(false),
        tests_use: of_kind(true),
    }
}

/// Every arrow that the table does not allow.
fn forbidden_arrows(members: &[Member], table: &[Row]) -> Vec<String> {
    let ours: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut forbidden = Vec::new();
    for member in members {
        let Some(row) = table.iter().find(|row| row.name == member.name) else {
            forbidden.push(format!("{} has no row in the table", member.name));
            continue;
        };
        for used in member.uses.iter().filter(|used| ours.contains(used.as_str())) {
            if !row.uses.contains(&used.as_str()) {
                forbidden.push(format!("{} -> {used}", member.name));
            }
        }
        for used in member
            .tests_use
            .iter()
            // A crate's tests may use it with a feature that is otherwise off.
            .filter(|used| **used != member.name && ours.contains(used.as_str()))
        {
            if !row.uses.contains(&used.as_str()) && !row.tests_use.contains(&used.as_str()) {
                forbidden.push(format!("{} -> {used} in tests", member.name));
            }
        }
    }
    forbidden
}

/// What each locked package uses when built, and in ours also when tested. A name that is locked in several versions
/// stands for all of them.
fn locked() -> BTreeMap<String, BTreeSet<String>> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let quoted = |line: &str| line.split('"').nth(1).unwrap().to_owned();
        let name = package
            .lines()
            .find(|line| line.starts_with("name = "))
            .map(quoted)
            .unwrap();
        let used = graph.entry(short(&name)).or_default();
        for line in package.lines().filter(|line| line.starts_with(" \"")) {
            used.insert(short(quoted(line).split(' ').next().unwrap()));
        }
    }
    graph
}

/// Everything that is reached from `starts`, with the way to it.
fn reached(
    graph: &BTreeMap<String, BTreeSet<String>>,
    starts: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let mut ways: BTreeMap<String, String> = BTreeMap::new();
    let mut open: Vec<(String, String)> = starts
        .iter()
        .map(|start| (start.clone(), start.clone()))
        .collect();
    while let Some((name, way)) = open.pop() {
        if ways.contains_key(&name) {
            continue;
        }
        for used in graph.get(&name).into_iter().flatten() {
            open.push((used.clone(), format!("{way} -> {used}")));
        }
        ways.insert(name, way);
    }
    ways
}

/// All Rust files of the crate.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().unwrap() != "target" {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn all_rust_files() -> Vec<PathBuf> {
    let files: Vec<PathBuf> = members()
        .iter()
        .flat_map(|member| rust_files(&member.directory))
        .collect();
    assert!(
        files
            .iter()
            .any(|file| file.ends_with("tests/tests/structure.rs")),
        "this very file is found"
    );
    files
}

/// The modules that are declared for tests only, as paths without extension.
fn test_modules(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut modules = Vec::new();
    for file in files {
        let content = fs::read_to_string(file).unwrap();
        let opens_directory = file.ends_with("lib.rs") || file.ends_with("main.rs");
        let inside = if opens_directory {
            file.parent().unwrap().to_owned()
        } else {
            file.with_extension("")
        };
        let declared = content.split("#[cfg(test)]").skip(1).filter_map(|rest| {
            let declaration = rest.trim_start().lines().next()?;
            declaration
                .strip_suffix(';')?
                .split_once("mod ")
                .map(|(_, name)| inside.join(name))
        });
        modules.extend(declared);
    }
    modules
}

/// Lines of production code: none in test files, and in others what stands before the first inner test module.
fn production_lines(file: &Path, test_modules: &[PathBuf]) -> usize {
    let inside = file.strip_prefix(root()).unwrap();
    let tests = |part: &OsStr| part == "tests" || part == "benches";
    if inside.iter().any(tests)
        || test_modules
            .iter()
            .any(|module| file.with_extension("").starts_with(module))
    {
        return 0;
    }
    let content = fs::read_to_string(file).unwrap();
    content
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap()
        .lines()
        .count()
}

#[test]
fn arrows_between_crates_point_one_way() {
    assert_eq!(forbidden_arrows(&members(), ARROWS), [""; 0]);
}

#[test]
fn a_new_arrow_or_crate_is_noticed() {
    let uses = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let member = |name: &str, used: BTreeSet<String>, tests_use: BTreeSet<String>| Member {
        name: name.to_owned(),
        directory: PathBuf::new(),
        uses: used,
        tests_use,
    };
    let drawn = [
        member("blocks", uses(&["bytes"]), uses(&["cli"])),
        member("domain", uses(&["blocks", "cli"]), uses(&["tempfile"])),
        member("cli", uses(&["blocks", "domain"]), uses(&[])),
        member("drawer", uses(&[]), uses(&[])),
    ];
    let found = forbidden_arrows(&drawn, ARROWS);
    assert_eq!(
        found,
        [
            "blocks -> cli in tests",
            "domain -> cli",
            "drawer has no row in the table"
        ]
    );
}

#[test]
fn what_decides_or_stores_sees_no_runtime_and_no_wire() {
    let graph = locked();
    let members = members();
    for pure in PURE {
        let member = members.iter().find(|member| member.name == *pure).unwrap();
        // Ours carry their tests' dependencies in the lock file: what is built of them is known more exactly.
        let mut exact = graph.clone();
        for other in &members {
            exact.insert(other.name.clone(), other.uses.clone());
        }
        let ways = reached(&exact, &member.uses);
        for unwanted in RUNTIME_AND_WIRE {
            assert!(!ways.contains_key(*unwanted), "{pure} -> {}", ways[*unwanted]);
        }
    }
}

#[test]
fn the_lock_file_shows_who_does_see_them() {
    let members = members();
    let orchestrator = members
        .iter()
        .find(|member| member.name == "orchestrator")
        .unwrap();
    let ways = reached(&locked(), &orchestrator.uses);
    for known in RUNTIME_AND_WIRE {
        assert!(ways.contains_key(*known), "{known} must be found where it is");
    }
}

#[test]
fn no_production_file_holds_the_whole_product() {
    let files = all_rust_files();
    let test_modules = test_modules(&files);
    let mut longest = 0;
    for file in &files {
        let lines = production_lines(file, &test_modules);
        assert!(
            lines <= LINES_MAXIMUM,
            "{} has {lines} lines: find the second noun",
            file.display()
        );
        longest = longest.max(lines);
    }
    assert!(longest > 100, "production files are counted");
}

#[test]
fn every_file_opens_by_saying_what_it_owns() {
    for file in all_rust_files() {
        let content = fs::read_to_string(&file).unwrap();
        assert!(
            content.starts_with("//! "),
            "{} does not open with a sentence after //!",
            file.display()
        );
    }
}

#[test]
fn no_module_hides_behind_the_name_mod() {
    for file in all_rust_files() {
        assert!(
            file.file_name().unwrap() != "mod.rs",
            "{}: name the file after its module",
            file.display()
        );
    }
}
