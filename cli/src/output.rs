//! What goes out: the answer to stdout, the talk to stderr.

pub(crate) mod bytes_progress;
pub(crate) mod format;
pub(crate) mod progress;
pub(crate) mod table;

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::CliError;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Form {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// JSON, whose keys are stable.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Writes lines of the answer to stdout.
pub(crate) fn answer(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush());
    written.map_err(CliError::Output)
}

/// Writes a line of talk to stderr. If nobody listens, nothing is lost.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The answer as JSON for people who read it: indented.
pub(crate) fn json(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map_err(|error| CliError::Output(error.into()))
}

/// The answer as one line of JSON, for streams of answers.
pub(crate) fn json_line(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string(value).map_err(|error| CliError::Output(error.into()))
}

/// The answer as YAML.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String, CliError> {
    serde_yaml::to_string(value).map_err(|error| CliError::Output(io::Error::other(error)))
}
