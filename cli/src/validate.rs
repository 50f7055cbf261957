//! `validate`: checks declarations offline, by the same rules as the orchestrator's.

use std::path::PathBuf;

use clap::Args;
use farshore_domain::declaration::parse_manifest;

use crate::{
    exit::CliError,
    manifest::{self, ManifestFile},
    output,
};

/// What is to be checked.
#[derive(Debug, Args)]
pub(crate) struct ValidateArguments {
    /// A YAML file, a directory of them, or - for standard input
    #[arg(short, long, value_name = "FILE|DIR")]
    file: PathBuf,
}

/// Checks every file and says what it declares.
pub(crate) fn run(arguments: &ValidateArguments) -> Result<(), CliError> {
    for file in manifest::read(&arguments.file)? {
        let documents = check(&file)?;
        let noun = if documents == 1 { "document" } else { "documents" };
        output::answer(&format!("{}: valid, {documents} {noun}", file.path.display()))?;
    }
    Ok(())
}

/// How many documents the file declares, or what is wrong with it.
pub(crate) fn check(file: &ManifestFile) -> Result<usize, CliError> {
    let name = file.path.display().to_string();
    let declarations = parse_manifest(&name, &file.text);
    declarations
        .map(|declarations| declarations.len())
        .map_err(|errors| CliError::InvalidManifest(errors.to_string()))
}
