//! The report of a verification as it is shown: a row per chain, then a line per problem.

use std::{error::Error, path::Path};

use farshore_vault::{ChainReport, DamagedRecord, FileError, Problem, ProblemKind, Report};
use serde::Serialize;

use crate::output::{format, table::table};

const HEADINGS: [&str; 5] = ["vm", "chain", "proven points", "read", "result"];

/// What was proven of a vault, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportView {
    clean: bool,
    /// Records that one of the journal's two copies has wrong.
    damaged_records: Vec<DamagedRecordView>,
    chains: Vec<ChainReportView>,
}

/// A damaged record of the journal, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DamagedRecordView {
    file: String,
    position: u64,
}

/// What was proven of a chain, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChainReportView {
    chain: String,
    vm: String,
    proven_points: u64,
    frames: u64,
    bytes: u64,
    /// In the order of points, volumes and offsets.
    problems: Vec<ProblemView>,
}

/// Something that is wrong in a chain, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProblemView {
    /// The first point that it hits; 0 where it hits none, or that cannot be told.
    point: u64,
    volume: Option<u32>,
    offset: Option<u64>,
    file: Option<String>,
    /// Where in the file.
    position: Option<u64>,
    what: String,
}

impl ReportView {
    pub(super) fn of(report: &Report) -> Self {
        Self {
            clean: report.is_clean(),
            damaged_records: report.damaged_records.iter().map(DamagedRecordView::of).collect(),
            chains: report.chains.iter().map(ChainReportView::of).collect(),
        }
    }

    pub(super) fn as_text(&self) -> String {
        let rows = self.chains.iter().map(ChainReportView::row).collect();
        let mut lines = vec![table(&HEADINGS, rows).trim_end().to_owned()];
        for chain in &self.chains {
            let named = chain.problems.iter();
            lines.extend(named.map(|problem| format!("VM `{}`, {}", chain.vm, problem.what)));
        }
        lines.extend(self.damaged_records.iter().map(|record| {
            let DamagedRecordView { file, position } = record;
            format!("the journal's record at byte {position} of `{file}` is damaged; its other copy is whole")
        }));
        lines.join("\n")
    }
}

impl DamagedRecordView {
    fn of(record: &DamagedRecord) -> Self {
        Self {
            file: shown(&record.path),
            position: record.position,
        }
    }
}

impl ChainReportView {
    fn of(report: &ChainReport) -> Self {
        Self {
            chain: report.chain.to_string(),
            vm: report.vm.clone(),
            proven_points: report.points,
            frames: report.frames,
            bytes: report.bytes.0,
            problems: report.problems.iter().map(ProblemView::of).collect(),
        }
    }

    fn row(&self) -> Vec<String> {
        let result = match self.problems.first() {
            None => "proven".to_owned(),
            Some(problem) if problem.point == 0 => "damaged where no point needs it".to_owned(),
            Some(problem) => format!("damaged from point {} on", problem.point),
        };
        vec![
            self.vm.clone(),
            self.chain.clone(),
            self.proven_points.to_string(),
            format::size(self.bytes),
            result,
        ]
    }
}

impl ProblemView {
    fn of(problem: &Problem) -> Self {
        let place = place(&problem.kind);
        Self {
            point: problem.point.0,
            volume: problem.volume.map(|volume| volume.0),
            offset: problem.offset.map(|offset| offset.0),
            file: place.map(|(path, _)| shown(path)),
            position: place.and_then(|(_, position)| position),
            what: describe(problem),
        }
    }
}

/// The file that is to blame, and where in it.
fn place(kind: &ProblemKind) -> Option<(&Path, Option<u64>)> {
    match kind {
        ProblemKind::File(FileError::Damaged(damaged)) => Some((&damaged.path, Some(damaged.position))),
        ProblemKind::File(FileError::Storage(storage)) => Some((&storage.path, None)),
        ProblemKind::Chain(_)
        | ProblemKind::OutOfBounds
        | ProblemKind::Fingerprint
        | ProblemKind::ChangeDigest { .. }
        | ProblemKind::PointDigest { .. }
        | ProblemKind::Index
        | ProblemKind::Settled { .. } => None,
    }
}

/// The problem and its causes in one line.
pub(super) fn describe(problem: &Problem) -> String {
    let mut text = problem.to_string();
    let mut cause = problem.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
