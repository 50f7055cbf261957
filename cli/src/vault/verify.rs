//! `vault verify DIR`: proves every recovery point from the files alone, and says where the first damage is.

use std::path::PathBuf;

use clap::Args;
use farshore_vault::{ChainReport, Problem};
use serde::Serialize;

use super::failed;
use crate::{
    exit::CliError,
    output::{Form, answer, format, json, progress::Progress, table::table, yaml},
};

/// Lines of progress come at most this often, in points.
const TELLING_POINTS: u64 = 100;

/// Which vault.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The vault's directory
    pub(crate) directory: PathBuf,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Form,
}

/// What was proven of a vault, as shown.
#[derive(Debug, Serialize)]
struct ReportView {
    chains: Vec<ChainReportView>,
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
    problem: Option<ProblemView>,
}

/// The first thing that is wrong in a chain, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProblemView {
    point: u64,
    volume: Option<u32>,
    offset: Option<u64>,
    what: String,
}

pub(super) fn run(arguments: &VerifyArguments) -> Result<(), CliError> {
    let progress = Progress::for_people();
    let report = farshore_vault::verify(&arguments.directory, |at| {
        if at.point.0.is_multiple_of(TELLING_POINTS) {
            progress.line(&format!(
                "chain {}: point {} of {}",
                at.chain, at.point, at.newest
            ));
        }
    });
    let report = report.map_err(failed)?;
    let view = ReportView {
        chains: report.chains.iter().map(ChainReportView::of).collect(),
    };
    let text = match arguments.output {
        Form::Table | Form::Wide => rows(&view),
        Form::Json => json(&view)?,
        Form::Yaml => yaml(&view)?,
    };
    answer(&text)?;
    let mut damaged = report
        .chains
        .iter()
        .filter_map(|chain| Some((chain, chain.problem.as_ref()?)));
    match damaged.next() {
        None => Ok(()),
        Some((chain, problem)) => Err(CliError::Failed {
            message: format!("VM `{}`, {}", chain.vm, describe(problem)),
            reason: "damaged".to_owned(),
        }),
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
            problem: report.problem.as_ref().map(|problem| ProblemView {
                point: problem.point.0,
                volume: problem.volume.map(|volume| volume.0),
                offset: problem.offset.map(|offset| offset.0),
                what: describe(problem),
            }),
        }
    }
}

/// The problem and its causes in one line.
fn describe(problem: &Problem) -> String {
    let mut text = problem.to_string();
    let mut cause = std::error::Error::source(problem);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn rows(view: &ReportView) -> String {
    let rows = view.chains.iter().map(|chain| {
        let result = match &chain.problem {
            None => "proven".to_owned(),
            Some(problem) => format!("damaged from point {} on", problem.point),
        };
        vec![
            chain.vm.clone(),
            chain.chain.clone(),
            chain.proven_points.to_string(),
            format::size(chain.bytes),
            result,
        ]
    });
    table(
        &["vm", "chain", "proven points", "read", "result"],
        rows.collect(),
    )
}
