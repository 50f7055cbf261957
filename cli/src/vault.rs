//! `vault list|verify|export|serve DIR`: what can be done with a vault when nothing else is left.
//!
//! These verbs need no orchestrator and no replicator: they read the directory, take no lock, and change nothing
//! in it, so that they may run beside the replicator that writes it.

mod export;
mod list;
mod selection;
mod serve;
#[cfg(test)]
mod tests;
mod verify;
mod volume;

use clap::Subcommand;
use farshore_vault::{ReadError, VaultError};

use crate::exit::CliError;

/// What can be done with a vault's directory.
#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// List the protected VMs and their recovery points
    List(list::ListArguments),
    /// Prove every recovery point from the files alone
    Verify(verify::VerifyArguments),
    /// Write a volume of a recovery point to an image file
    Export(export::ExportArguments),
    /// Serve the volumes of a recovery point as read-only NBD exports until SIGTERM
    Serve(serve::ServeArguments),
}

/// Does it; `serve` returns when it is told to end.
pub(crate) fn run(command: VaultCommand) -> Result<(), CliError> {
    match command {
        VaultCommand::List(arguments) => list::run(&arguments),
        VaultCommand::Verify(arguments) => verify::run(&arguments),
        VaultCommand::Export(arguments) => export::run(&arguments),
        VaultCommand::Serve(arguments) => serve::run(&arguments),
    }
}

/// What the vault's errors mean for the person at the terminal.
fn failed(error: VaultError) -> CliError {
    CliError::Part(anyhow::Error::new(error))
}

fn unreadable(error: ReadError) -> CliError {
    CliError::Part(anyhow::Error::new(error))
}
