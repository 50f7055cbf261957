//! `vault list|verify|repair|export|serve|failover DIR`: what can be done with a vault when nothing else is left.
//!
//! These verbs need no orchestrator and no replicator. All but `failover` and `repair` only read the directory, take no
//! lock of the writer's and change nothing in it, so that they may run beside the replicator that writes it; `failover`
//! asks that replicator to fence, and opens the vault itself only where nobody has it open; `repair` is refused beside it.

mod export;
mod failover;
mod list;
mod repair;
mod selection;
mod serve;
#[cfg(test)]
mod tests;
mod verify;
mod volume;

use clap::Subcommand;
use farshore_vault::{ReadError, VaultError};

use crate::{exit::CliError, serve::log_to_stderr};

/// What can be done with a vault's directory.
#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// List the protected VMs and their recovery points
    List(list::ListArguments),
    /// Prove every recovery point from the files alone
    Verify(verify::VerifyArguments),
    /// Make the index again, where it is lost or damaged, from the frames
    Repair(repair::RepairArguments),
    /// Write the volumes of a recovery point to image files
    Export(export::ExportArguments),
    /// Serve the volumes of a recovery point as read-only NBD exports until SIGTERM
    Serve(serve::ServeArguments),
    /// Fence the source and start the VM here, from a recovery point; run again, it goes on where it was
    Failover(failover::FailoverArguments),
}

/// Does it; `serve` returns when it is told to end.
pub(crate) fn run(command: VaultCommand) -> Result<(), CliError> {
    // What an export cannot read, its clients are told as "I/O error" and no more.
    log_to_stderr("warn");
    match command {
        VaultCommand::List(arguments) => list::run(&arguments),
        VaultCommand::Verify(arguments) => verify::run(&arguments),
        VaultCommand::Repair(arguments) => repair::run(&arguments),
        VaultCommand::Export(arguments) => export::run(&arguments),
        VaultCommand::Serve(arguments) => serve::run(&arguments),
        VaultCommand::Failover(arguments) => failover::run(&arguments),
    }
}

/// What the vault's errors mean for the person at the terminal.
fn failed(error: VaultError) -> CliError {
    CliError::Part(anyhow::Error::new(error))
}

fn unreadable(error: ReadError) -> CliError {
    CliError::Part(anyhow::Error::new(error))
}
