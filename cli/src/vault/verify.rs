//! `vault verify DIR`: proves every recovery point from the files alone, and says everything that is wrong.

mod view;

use std::path::PathBuf;

use clap::Args;
use farshore_vault::Report;

use super::failed;
use crate::{
    exit::CliError,
    output::{Form, answer, bytes_progress::BytesProgress, json, progress::Progress, yaml},
};
use view::ReportView;

/// Which vault.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The vault's directory
    pub(crate) directory: PathBuf,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Form,
}

pub(super) fn run(arguments: &VerifyArguments) -> Result<(), CliError> {
    let mut progress = BytesProgress::new(&Progress::for_people(), "verified", None);
    let mut chains = Tally::default();
    let report = farshore_vault::verify(&arguments.directory, |at| {
        let read = chains.read(at.chain, at.bytes.0);
        progress.show(
            read,
            &format!("chain {}: point {} of {}", at.chain, at.point, at.newest),
        );
    });
    drop(progress);
    let report = report.map_err(failed)?;
    let view = ReportView::of(&report);
    let text = match arguments.output {
        Form::Table | Form::Wide => view.as_text(),
        Form::Json => json(&view)?,
        Form::Yaml => yaml(&view)?,
    };
    answer(&text)?;
    if report.is_clean() {
        return Ok(());
    }
    Err(CliError::Failed {
        message: summary(&report),
        reason: "damaged".to_owned(),
    })
}

/// What was read of the chains before the one that is being proven, and of that one.
#[derive(Debug, Default)]
struct Tally {
    chain: Option<farshore_blocks::ChainId>,
    before: u64,
    of_it: u64,
}

impl Tally {
    fn read(&mut self, chain: farshore_blocks::ChainId, bytes: u64) -> u64 {
        if self.chain != Some(chain) {
            self.chain = Some(chain);
            self.before = self.before.saturating_add(self.of_it);
        }
        self.of_it = bytes;
        self.before.saturating_add(bytes)
    }
}

/// The first thing that is wrong, and how much else. A damaged frame also makes its point's digest wrong, and says
/// more.
fn summary(report: &Report) -> String {
    let chains = report.chains.iter();
    let problems: Vec<_> = chains
        .flat_map(|chain| chain.problems.iter().map(move |problem| (&chain.vm, problem)))
        .collect();
    let records = report.damaged_records.len();
    let placed = problems.iter().find(|(_, problem)| problem.offset.is_some());
    match placed.or(problems.first()) {
        None => format!(
            "{records} damaged journal records; their second copies are whole, and the vault's next writer mends them"
        ),
        Some((vm, first)) => format!(
            "VM `{vm}`, {}; {} problems in all, {records} damaged journal records",
            view::describe(first),
            problems.len()
        ),
    }
}
