//! A VM becomes protected while it runs: five steps, a live sync, points that are instants of its disks, and standard
//! clients that find the services.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use farshore_tests::{
    Lab, eventually,
    guests::GuestOrder,
    lab::{LabOptions, SYNC},
    replica::{export, judge_point, vault},
};

const STEPS: [&str; 5] = [
    "Prerequisites check",
    "Installing Mobility Service and preparing target",
    "Enable replication",
    "Starting initial replication",
    "Updating provider states",
];

#[test]
fn a_running_vm_becomes_protected_and_every_point_is_an_instant_of_its_disks() {
    let mut lab = Lab::start(LabOptions::default());
    lab.start_guest(GuestOrder::small("db", 11));
    let applied = lab.protect(&["db"]).done().json();
    let job = applied["items"][0]["job"].as_str().unwrap().to_owned();
    lab.cli.vm_in("db", "Protected", SYNC);
    let job = lab.cli.run(&["get", "jobs", &job, "-o", "json"]).done().json();
    let steps: Vec<_> = job["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| &step["name"])
        .collect();
    assert_eq!(steps, STEPS);
    assert_eq!(job["state"], "Succeeded");

    lab.cli.points_at_least("db", 4, Duration::from_secs(60));
    let guest = &lab.guest("db").1;
    let before = guest.testimony().unwrap().acknowledged;
    // Points that were sealed before the witness was asked hold at least what an earlier testimony says of them.
    let newest = lab.cli.newest("db");
    for point in ["1", "2", "4", &newest] {
        let judgement = judge_point(&lab.vault(), "db", point, &lab.path(""), before);
        assert!(
            judgement.is_exact_instant(),
            "point {point}: {}",
            judgement.describe()
        );
    }
    let acknowledged = guest.testimony().unwrap().acknowledged;
    let point = lab.cli.point_after_now("db", Duration::from_secs(60));
    let judgement = judge_point(&lab.vault(), "db", &point, &lab.path(""), acknowledged);
    assert!(
        judgement.is_exact_instant() && judgement.lost_nothing(),
        "{}",
        judgement.describe()
    );
    assert!(guest.testimony().unwrap().errors.is_empty());

    let verified = vault(&["verify", lab.vault().to_str().unwrap()]).done();
    assert!(!verified.stdout.is_empty());
    several_points_are_served_at_once(&lab);
    standard_clients_find_their_way(&lab);
    the_mobility_service_leaves_without_a_trace(&lab);
}

fn several_points_are_served_at_once(lab: &Lab) {
    let serve = |point: &str| {
        let socket = lab.path(&format!("{point}.sock"));
        let child = Command::new(farshore_tests::daemon::binary())
            .args([
                "vault",
                "serve",
                lab.vault().to_str().unwrap(),
                "db",
                "--point",
                point,
            ])
            .args(["--socket", socket.to_str().unwrap()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually(Duration::from_secs(10), "the export", || {
            socket.exists().then_some(())
        });
        (child, socket)
    };
    let mut served = [serve("1"), serve("3")];
    for ((_, socket), point) in served.iter().zip(["1", "3"]) {
        let uri = format!("nbd+unix:///data?socket={}", socket.display());
        let copy = lab.path("copy.raw");
        let copied = Command::new("nbdcopy")
            .args([&uri, copy.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(
            copied.status.success(),
            "{}",
            String::from_utf8_lossy(&copied.stderr)
        );
        assert_eq!(std::fs::metadata(&copy).unwrap().len() % 4096, 0);
        same_as_an_export(lab, point, &uri, &copy);
        map_covers(&uri, std::fs::metadata(&copy).unwrap().len());
        std::fs::remove_file(copy).unwrap();
    }
    for (child, _) in &mut served {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// What is served, what was copied and what is exported to a file are the same disk.
fn same_as_an_export(lab: &Lab, point: &str, uri: &str, copy: &Path) {
    let directory = lab.path(&format!("export-{point}"));
    std::fs::create_dir(&directory).unwrap();
    let (_, data) = export(&lab.vault(), "db", point, &directory);
    for file in [copy, &data] {
        let compared = Command::new("qemu-img")
            .args(["compare", "-f", "raw", "-F", "raw", uri, file.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(
            compared.status.success(),
            "{}{}",
            String::from_utf8_lossy(&compared.stdout),
            String::from_utf8_lossy(&compared.stderr)
        );
    }
    std::fs::remove_dir_all(directory).unwrap();
}

/// The map of allocations covers the disk without gaps, and knows holes.
fn map_covers(uri: &str, size: u64) {
    let mapped = Command::new("nbdinfo")
        .args(["--map", "--json", uri])
        .output()
        .unwrap();
    assert!(
        mapped.status.success(),
        "{}",
        String::from_utf8_lossy(&mapped.stderr)
    );
    let map: serde_json::Value = serde_json::from_slice(&mapped.stdout).unwrap();
    let mut end = 0;
    let mut kinds = std::collections::BTreeSet::new();
    for extent in map.as_array().unwrap() {
        assert_eq!(extent["offset"].as_u64().unwrap(), end);
        end += extent["length"].as_u64().unwrap();
        kinds.insert(extent["type"].as_u64().unwrap());
    }
    assert_eq!(end, size);
    assert!(kinds.contains(&0) && kinds.len() > 1, "data and holes: {kinds:?}");
}

fn standard_clients_find_their_way(lab: &Lab) {
    let metrics = |address: &str| {
        let address = address.parse().unwrap();
        farshore_tests::guests::exchange_from(lab.west_network(), address, "/metrics").text
    };
    for address in ["10.91.0.2:7180", "10.91.0.2:7281", "10.91.0.1:7281"] {
        let text = metrics(address);
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(promtool.stdin.as_mut().unwrap(), text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{address}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = metrics("10.91.0.2:7180");
    assert!(text.contains("farshore_rpo_seconds{vm=\"db\"}"), "{text}");
    assert!(
        text.contains("farshore_protection_state{state=\"protected\",vm=\"db\"} 1"),
        "{text}"
    );
}

fn the_mobility_service_leaves_without_a_trace(lab: &Lab) {
    let _ = lab.cli.run(&["delete", "vm", "db"]).done();
    eventually(Duration::from_secs(30), "the VM is no longer declared", || {
        let answer = lab.cli.run(&["get", "vms", "-o", "json"]).done().json();
        answer["items"]
            .as_array()
            .is_some_and(Vec::is_empty)
            .then_some(())
    });
    let guest = &lab.guest("db").1;
    let spare = &guest.request().monitors[1];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let nodes = runtime.block_on(async {
        let monitor = farshore_qmp::Monitor::connect(spare, farshore_qmp::ConnectOptions::default())
            .await
            .unwrap();
        let query = serde_json::json!({"flat": true});
        monitor
            .execute("query-named-block-nodes", query)
            .await
            .unwrap()
            .to_string()
    });
    assert!(!nodes.contains("fs-"), "{nodes}");
    assert!(!nodes.contains("farshore."), "{nodes}");
    let vms = lab.cli.run(&["get", "vms", "db"]);
    assert_ne!(vms.status, 0, "{}", vms.stdout);
}
