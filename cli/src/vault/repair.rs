//! `vault repair DIR`: makes again what is lost or damaged of the index, from the segments and packs.
//!
//! It writes, and so opens the vault as its one writer: where a replicator has it open, that one does the same by itself
//! when its scrub finds the damage. What is damaged of the recovery points themselves nobody can make again.

use std::{error::Error, path::PathBuf};

use clap::Args;
use farshore_blocks::ChainId;
use farshore_vault::{ChainDescription, MaintenanceError, Mended, Unlimited, Vault, VaultError};
use serde::Serialize;

use super::failed;
use crate::{
    exit::CliError,
    output::{Form, answer, json, table::table, yaml},
};

const HEADINGS: [&str; 4] = ["vm", "chain", "damaged runs", "result"];

/// Which vault.
#[derive(Debug, Args)]
pub(crate) struct RepairArguments {
    /// The vault's directory
    pub(crate) directory: PathBuf,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Form,
}

/// What was done, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RepairView {
    chains: Vec<ChainView>,
}

/// What was done for a chain, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ChainView {
    chain: String,
    vm: String,
    /// What was wrong.
    faults: Vec<String>,
    runs_made: usize,
    /// Why it could not be made again, if it could not.
    failure: Option<String>,
}

pub(super) fn run(arguments: &RepairArguments) -> Result<(), CliError> {
    let vault = Vault::open(&arguments.directory).map_err(|error| {
        if !matches!(error, VaultError::Locked { .. }) {
            return failed(error);
        }
        CliError::Refused {
            message: format!(
                "{error}; a replicator that has the vault open makes its index again by itself once the scrub finds the damage"
            ),
            reason: "vault-open".to_owned(),
        }
    })?;
    let chains = vault.chains().into_iter();
    let chains = chains.map(|(chain, description)| {
        let went = vault.mend_index(chain, &mut Unlimited);
        ChainView::of(chain, &description, went)
    });
    let view = RepairView {
        chains: chains.collect(),
    };
    let text = match arguments.output {
        Form::Table | Form::Wide => view.as_text(),
        Form::Json => json(&view)?,
        Form::Yaml => yaml(&view)?,
    };
    answer(&text)?;
    let failures = view.chains.iter().filter_map(|chain| chain.failure.as_ref());
    match failures.clone().next() {
        None => Ok(()),
        Some(first) => Err(CliError::Failed {
            message: format!("{first}; {} chains in all are not repaired", failures.count()),
            reason: "not-repaired".to_owned(),
        }),
    }
}

impl RepairView {
    fn as_text(&self) -> String {
        let rows = self.chains.iter().map(ChainView::row).collect();
        let mut lines = vec![table(&HEADINGS, rows).trim_end().to_owned()];
        for chain in &self.chains {
            let faults = chain.faults.iter();
            lines.extend(faults.map(|fault| format!("VM `{}`: made again: {fault}", chain.vm)));
        }
        lines.join("\n")
    }
}

impl ChainView {
    fn of(chain: ChainId, description: &ChainDescription, went: Result<Mended, MaintenanceError>) -> Self {
        let (faults, runs_made, failure) = match went {
            Ok(mended) => {
                let faults = mended.faults.iter().map(|fault| with_causes(fault)).collect();
                (faults, mended.runs_made, None)
            }
            Err(error) => (Vec::new(), 0, Some(with_causes(&error))),
        };
        Self {
            chain: chain.to_string(),
            vm: description.vm.clone(),
            faults,
            runs_made,
            failure,
        }
    }

    fn row(&self) -> Vec<String> {
        let result = match (&self.failure, self.runs_made) {
            (Some(_), _) => "not repaired".to_owned(),
            (None, 0) => "sound".to_owned(),
            (None, runs) => format!("{runs} made again"),
        };
        vec![
            self.vm.clone(),
            self.chain.clone(),
            self.faults.len().to_string(),
            result,
        ]
    }
}

/// An error and its causes in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
