//! `vault list DIR`: the protected VMs of a vault and their recovery points.

mod text;
mod view;

use std::path::PathBuf;

use clap::Args;
use farshore_vault::VaultReader;

use super::failed;
use crate::{
    exit::CliError,
    output::{Form, answer, json, yaml},
};
pub(super) use view::view;

/// Which vault.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// The vault's directory
    pub(crate) directory: PathBuf,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Form,
}

pub(super) fn run(arguments: &ListArguments) -> Result<(), CliError> {
    let reader = VaultReader::open(&arguments.directory).map_err(failed)?;
    let (view, damaged) = view(&reader).map_err(failed)?;
    let text = match arguments.output {
        Form::Table => text::of(&view, false),
        Form::Wide => text::of(&view, true),
        Form::Json => json(&view)?,
        Form::Yaml => yaml(&view)?,
    };
    answer(&text)?;
    damaged.map_or(Ok(()), |error| Err(failed(error)))
}
