//! What is exposed against docs/metrics.md and promtool.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use farshore_blocks::{ByteCount, clock::WallTime};
use farshore_proto::v1;

use super::*;
use crate::fleet::{FleetView, ReplicatorView};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// A VM of which everything is known.
fn vm(name: &str) -> VmSnapshot {
    VmSnapshot {
        name: name.to_owned(),
        state: v1::ProtectionState::Protected,
        health: v1::ReplicationHealth::Warning,
        rpo: Some(Duration::from_millis(2_500)),
        rpo_target: Duration::from_secs(15),
        newest_points: vec![
            (
                v1::PointKind::CrashConsistent,
                WallTime(1_700_000_000_500_000_000),
            ),
            (v1::PointKind::AppConsistent, WallTime(1_700_000_000_000_000_000)),
        ],
        recovery_points: Some(12),
        initial_sync: Some(SyncProgress {
            done: ByteCount(5),
            total: ByteCount(10),
        }),
        last_cycle: Some(Duration::from_millis(130)),
        backlog: Some(ByteCount(4096)),
        last_successful_test: Some(WallTime(1_600_000_000_000_000_000)),
    }
}

fn view() -> FleetView {
    let replicator = |site: &str, up| ReplicatorView {
        register: v1::Register {
            site: site.to_owned(),
            ..v1::Register::default()
        },
        up,
        last_seen: WallTime(1),
        report: Some(v1::Report {
            vault: Some(v1::VaultStatus {
                used_bytes: 7,
                free_bytes: 8,
            }),
            ..v1::Report::default()
        }),
        reported_at: Some(WallTime(1)),
    };
    let east = ("east-1".to_owned(), replicator("east", false));
    let west = ("west-1".to_owned(), replicator("west", true));
    FleetView {
        replicators: BTreeMap::from([east, west]),
    }
}

fn full() -> ControlSnapshot {
    let mut snapshot = ControlSnapshot {
        vms: vec![vm("shop-db"), vm("shop-web")],
        ..ControlSnapshot::of_fleet(&view())
    };
    snapshot.count_job(v1::JobState::Running);
    snapshot
}

fn rendered(snapshot: &ControlSnapshot) -> String {
    let metrics = Metrics::new().unwrap();
    metrics.update(snapshot).unwrap();
    metrics.render().unwrap()
}

/// Name, type, labels and meaning of each of our metrics, as a row of the document.
fn rows_of(text: &str) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    let mut helps = BTreeMap::new();
    let mut types = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("farshore_")) {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            helps.insert(name, help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' '))
        {
            types.insert(name, kind);
        } else {
            let series = line.split([' ', '{']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| {
                    series
                        .strip_suffix(end)
                        .filter(|base| types.get(base) == Some(&"histogram"))
                })
                .unwrap_or(series);
            let inside = line
                .split_once('{')
                .map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let names = inside
                .split(',')
                .filter_map(|label| label.split_once('='))
                .map(|(name, _)| name);
            let labels: BTreeSet<_> = names.filter(|name| *name != "le").collect();
            let labels: Vec<_> = labels.into_iter().collect();
            rows.insert(format!(
                "{base}|{}|{}|{}",
                types[base],
                labels.join(","),
                helps[base]
            ));
        }
    }
    rows
}

fn documented(process: &str) -> BTreeSet<String> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `farshore_"));
    let cells = rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect::<Vec<_>>()
    });
    cells
        .filter(|cells| cells[3] == process)
        .map(|cells| {
            let labels: BTreeSet<_> = cells[2]
                .split(", ")
                .map(|label| label.trim_matches('`'))
                .filter(|label| !label.is_empty())
                .collect();
            let labels: Vec<_> = labels.into_iter().collect();
            format!(
                "{}|{}|{}|{}",
                cells[0].trim_matches('`'),
                cells[1],
                labels.join(","),
                cells[4]
            )
        })
        .collect()
}

#[test]
fn the_document_lists_exactly_what_is_exposed() {
    let documented = documented("orchestrator");
    assert_eq!(documented.len(), 15);
    assert_eq!(rows_of(&rendered(&full())), documented);
}

#[test]
fn the_document_lists_the_values_of_labels() {
    let states: Vec<_> = labels::protection_states()
        .map(|(_, label)| format!("`{label}`"))
        .collect();
    assert!(DOCUMENT.contains(&states.join(", ")));
    let states: Vec<_> = labels::job_states()
        .map(|(_, label)| format!("`{label}`"))
        .collect();
    assert!(DOCUMENT.contains(&states.join(", ")));
    let healths: Vec<_> = labels::healths().map(|(_, label)| format!("`{label}`")).collect();
    assert!(DOCUMENT.contains(&healths.join(", ")));
}

#[test]
fn promtool_finds_nothing_to_object_to() {
    let metrics = Metrics::new().unwrap();
    metrics.update(&full()).unwrap();
    metrics.failover_ended(
        FailoverKind::Test,
        FailoverResult::Succeeded,
        Duration::from_secs(3),
    );
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed; scripts/install-prerequisites.sh installs it");
    let text = metrics.render().unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn values_are_what_the_snapshot_says() {
    let text = rendered(&full());
    for line in [
        r#"farshore_recovery_point_timestamp_seconds{kind="crash_consistent",vm="shop-db"} 1700000000.5"#,
        r#"farshore_rpo_seconds{vm="shop-db"} 2.5"#,
        r#"farshore_rpo_target_seconds{vm="shop-web"} 15"#,
        r#"farshore_protection_state{state="protected",vm="shop-db"} 1"#,
        r#"farshore_protection_state{state="failed",vm="shop-db"} 0"#,
        r#"farshore_replication_health{health="warning",vm="shop-db"} 1"#,
        r#"farshore_initial_sync_bytes{vm="shop-db",what="done"} 5"#,
        r#"farshore_last_cycle_duration_seconds{vm="shop-db"} 0.13"#,
        r#"farshore_backlog_bytes{vm="shop-db"} 4096"#,
        r#"farshore_vault_bytes{vault="west-1",what="free"} 8"#,
        r#"farshore_jobs{state="running"} 1"#,
        r#"farshore_jobs{state="failed"} 0"#,
        r#"farshore_replicator_up{replicator="east-1",site="east"} 0"#,
        r#"farshore_replicator_up{replicator="west-1",site="west"} 1"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    // A vault of which nothing is heard has no size that anybody knows.
    assert!(!text.contains(r#"vault="east-1""#));
}

#[test]
fn series_of_what_no_longer_exists_go_away() {
    let metrics = Metrics::new().unwrap();
    metrics.update(&full()).unwrap();
    assert!(metrics.render().unwrap().contains("shop-web"));
    let mut smaller = full();
    smaller.vms.truncate(1);
    smaller.replicators.clear();
    metrics.update(&smaller).unwrap();
    let text = metrics.render().unwrap();
    assert!(text.contains("shop-db") && !text.contains("shop-web") && !text.contains("east-1"));
}

#[test]
fn what_is_not_known_has_no_series() {
    let unknown = VmSnapshot {
        rpo: None,
        newest_points: Vec::new(),
        recovery_points: None,
        initial_sync: None,
        last_cycle: None,
        backlog: None,
        last_successful_test: None,
        ..vm("shop-db")
    };
    let text = rendered(&ControlSnapshot {
        vms: vec![unknown],
        ..ControlSnapshot::default()
    });
    let names: BTreeSet<_> = text
        .lines()
        .filter(|line| line.contains(r#"vm="shop-db""#))
        .map(|line| line.split('{').next().unwrap())
        .collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        [
            "farshore_protection_state",
            "farshore_replication_health",
            "farshore_rpo_target_seconds"
        ]
    );
}

#[test]
fn failovers_are_counted_and_only_successful_ones_measured() {
    let metrics = Metrics::new().unwrap();
    let took = Duration::from_secs(4);
    metrics.failover_ended(FailoverKind::Unplanned, FailoverResult::Succeeded, took);
    metrics.failover_ended(FailoverKind::Unplanned, FailoverResult::Failed, took);
    // Snapshots do not touch what was counted.
    metrics.update(&full()).unwrap();
    let text = metrics.render().unwrap();
    for line in [
        r#"farshore_failovers_total{kind="unplanned",result="succeeded"} 1"#,
        r#"farshore_failovers_total{kind="unplanned",result="failed"} 1"#,
        r#"farshore_failovers_total{kind="test",result="succeeded"} 0"#,
        r#"farshore_failover_duration_seconds_count{kind="unplanned"} 1"#,
        r#"farshore_failover_duration_seconds_sum{kind="unplanned"} 4"#,
        r#"farshore_failover_duration_seconds_bucket{kind="unplanned",le="2"} 0"#,
        r#"farshore_failover_duration_seconds_bucket{kind="unplanned",le="5"} 1"#,
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(text.contains("\nprocess_resident_memory_bytes "));
}
