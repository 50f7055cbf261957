//! What came of the story: verdicts, figures, the table and the JSON object that say them.
//!
//! The keys of the JSON object are stable.

use std::path::PathBuf;

use serde::Serialize;

use super::layout::{Layout, Site};
use crate::{
    exit::CliError,
    output::{
        format::{optional_seconds, seconds},
        table::{sheet, table},
    },
};

/// Something that had to be true, and whether it was.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict {
    /// What had to be true.
    pub(super) name: String,
    /// Whether it was.
    pub(super) held: bool,
    /// What was found.
    pub(super) found: String,
}

/// The rehearsal.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RehearsalReport {
    pub(super) vm: String,
    pub(super) point: u64,
    /// From the order until the VM's processors ran.
    pub(super) order_to_start_seconds: Option<f64>,
    /// From the order until its service answered.
    pub(super) order_to_service_seconds: f64,
    pub(super) isolation_proven: bool,
    /// What its cleanup left behind.
    pub(super) leaks: Vec<String>,
}

/// One recovered VM.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecoveryReport {
    pub(super) vm: String,
    pub(super) points_kept: u64,
    pub(super) recovered_point: u64,
    pub(super) acknowledged_records: u64,
    pub(super) lost_records: u64,
    /// From the recovered point's instant until the disaster.
    pub(super) lost_seconds: f64,
    /// From the order until the VM ran.
    pub(super) rto_seconds: f64,
    /// From the order until its service answered.
    pub(super) order_to_service_seconds: f64,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(super) accelerator: String,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) test_failover: RehearsalReport,
    pub(super) unplanned_failover: Vec<RecoveryReport>,
    pub(super) duration_seconds: f64,
    /// What the demo itself left behind; `null` if it was told to keep everything.
    pub(super) left_behind: Option<Vec<String>>,
    /// Where everything was kept; `null` if nothing was.
    pub(super) kept: Option<PathBuf>,
}

/// Verdicts, as they come.
#[derive(Debug, Default)]
pub(super) struct Verdicts(pub(super) Vec<Verdict>);

impl Verdicts {
    /// One more; gives the line that tells it.
    pub(super) fn add(&mut self, name: impl Into<String>, held: bool, found: impl Into<String>) -> String {
        let verdict = Verdict {
            name: name.into(),
            held,
            found: found.into(),
        };
        let line = format!("{} {}: {}", mark(held), verdict.name, verdict.found);
        self.0.push(verdict);
        line
    }
}

fn mark(held: bool) -> &'static str {
    if held { "[ok]" } else { "[BROKEN]" }
}

impl Report {
    /// Whether every verdict held and nothing is left behind.
    fn all_held(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.held)
            && self.left_behind.as_ref().is_none_or(Vec::is_empty)
    }

    /// What the exit status shall say.
    pub(super) fn outcome(&self) -> Result<(), CliError> {
        if self.all_held() {
            return Ok(());
        }
        let broken = self
            .verdicts
            .iter()
            .filter(|verdict| !verdict.held)
            .map(|verdict| verdict.name.clone());
        let left = self
            .left_behind
            .iter()
            .flatten()
            .map(|what| format!("left behind: {what}"));
        let reasons: Vec<String> = broken.chain(left).collect();
        Err(CliError::Failed {
            message: format!("the demo's verdicts did not all hold: {}", reasons.join("; ")),
            reason: String::new(),
        })
    }

    /// The table at the end.
    pub(super) fn table(&self) -> String {
        let test = &self.test_failover;
        let isolation = if test.isolation_proven {
            "proven"
        } else {
            "NOT PROVEN"
        };
        let kept = || "everything, as ordered".to_owned();
        let facts = sheet(vec![
            (
                "Test: order to start",
                optional_seconds(test.order_to_start_seconds),
            ),
            ("Test: isolation", isolation.to_owned()),
            ("Test: left behind", listed(&test.leaks)),
            (
                "Demo: left behind",
                self.left_behind.as_ref().map_or_else(kept, |left| listed(left)),
            ),
            ("Verdicts", self.told_verdicts()),
            ("Told in", seconds(self.duration_seconds)),
        ]);
        let rows = self.unplanned_failover.iter().map(|vm| {
            vec![
                vm.vm.clone(),
                vm.points_kept.to_string(),
                format!(
                    "{} of {} records, {}",
                    vm.lost_records,
                    vm.acknowledged_records,
                    seconds(vm.lost_seconds)
                ),
                seconds(vm.rto_seconds),
                seconds(vm.order_to_service_seconds),
            ]
        });
        let vms = table(
            &[
                "vm",
                "points kept",
                "rpo: lost",
                "rto: until it ran",
                "until it served",
            ],
            rows.collect(),
        );
        format!("\n{vms}\n\n{facts}\n")
    }

    fn told_verdicts(&self) -> String {
        let held = self.verdicts.iter().filter(|verdict| verdict.held).count();
        let all = self.verdicts.len();
        if held == all {
            format!("all {all} held")
        } else {
            format!("{} of {all} BROKEN", all - held)
        }
    }
}

fn listed(left: &[String]) -> String {
    if left.is_empty() {
        "nothing".to_owned()
    } else {
        left.join(", ")
    }
}

/// What a person may do with a demo that was kept.
pub(super) fn what_to_try(layout: &Layout) -> String {
    let executable =
        std::env::current_exe().map_or_else(|_| "farshore".to_owned(), |path| path.display().to_string());
    let (server, west) = (layout.orchestrator(), layout.namespace(Site::West));
    let mut lines = vec![
        "Everything was left running. Try:".to_owned(),
        format!("  export FARSHORE_SERVER=http://{server}"),
    ];
    for verb in [
        "get vms -o wide",
        "describe vm shop-db",
        "get points shop-db",
        "get jobs",
        "get events",
        "get test-failovers",
    ] {
        lines.push(format!("  {executable} {verb}"));
    }
    lines.extend([
        format!("  curl http://{}/metrics", layout.orchestrator_http()),
        format!("  curl http://{}/metrics", layout.replicator_http(Site::West)),
        format!("  ip netns exec {west} curl http://192.168.77.11/status    # the recovered shop-db itself"),
        format!("  tail {}", layout.log("*").display()),
        "And to end it:".to_owned(),
        format!("  {executable} demo --stop {}", layout.directory().display()),
    ]);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(held: bool, left: &[&str]) -> Report {
        let mut verdicts = Verdicts::default();
        verdicts.add("shop-db: nothing torn", held, "records to 7");
        Report {
            accelerator: "tcg".to_owned(),
            verdicts: verdicts.0,
            test_failover: RehearsalReport {
                vm: "shop-web".to_owned(),
                point: 4,
                order_to_start_seconds: Some(0.9),
                order_to_service_seconds: 12.0,
                isolation_proven: true,
                leaks: Vec::new(),
            },
            unplanned_failover: vec![RecoveryReport {
                vm: "shop-db".to_owned(),
                points_kept: 9,
                recovered_point: 9,
                acknowledged_records: 1000,
                lost_records: 120,
                lost_seconds: 1.5,
                rto_seconds: 1.25,
                order_to_service_seconds: 14.0,
            }],
            duration_seconds: 100.0,
            left_behind: Some(left.iter().map(|&what| what.to_owned()).collect()),
            kept: None,
        }
    }

    #[test]
    fn the_outcome_is_good_only_if_all_held_and_nothing_is_left() {
        assert!(report(true, &[]).outcome().is_ok());
        assert_eq!(report(false, &[]).outcome().unwrap_err().exit_status(), 1);
        assert_eq!(
            report(true, &["process 7"]).outcome().unwrap_err().exit_status(),
            1
        );
    }

    #[test]
    fn the_keys_of_the_json_object_are_stable() {
        let value = serde_json::to_value(report(true, &[])).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            keys(&value),
            [
                "accelerator",
                "durationSeconds",
                "kept",
                "leftBehind",
                "testFailover",
                "unplannedFailover",
                "verdicts"
            ]
        );
        assert_eq!(
            keys(&value["testFailover"]),
            [
                "isolationProven",
                "leaks",
                "orderToServiceSeconds",
                "orderToStartSeconds",
                "point",
                "vm"
            ]
        );
        assert_eq!(
            keys(&value["unplannedFailover"][0]),
            [
                "acknowledgedRecords",
                "lostRecords",
                "lostSeconds",
                "orderToServiceSeconds",
                "pointsKept",
                "recoveredPoint",
                "rtoSeconds",
                "vm"
            ]
        );
        assert_eq!(keys(&value["verdicts"][0]), ["found", "held", "name"]);
    }

    #[test]
    fn the_table_tells_what_was_lost_and_how_long_it_took() {
        let told = report(true, &[]).table();
        for part in ["120 of 1000 records, 1.5 s", "all 1 held", "proven", "nothing"] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }
}
