//! `version`: which Farshore this is.

use crate::{exit::CliError, output};

/// Prints the version.
pub(crate) fn run() -> Result<(), CliError> {
    output::answer(concat!("farshore ", env!("CARGO_PKG_VERSION")))
}
