//! The one binary of Farshore: the verbs that people and scripts use, and the server parts that they start.

mod apply;
mod client;
mod delete;
mod demo;
mod describe;
mod exit;
mod failover;
mod follow;
mod get;
mod job;
mod manifest;
mod output;
mod point;
mod serve;
mod validate;
mod vault;
mod version;
mod view;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::{client::ServerOptions, exit::CliError};

/// Keeps your virtual machines' disks alive on a far shore.
#[derive(Debug, Parser)]
#[command(
    name = "farshore",
    disable_version_flag = true,
    arg_required_else_help = true,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage or invalid YAML, 3 refused in this state, 4 unreachable, 5 timed out."
)]
struct CommandLine {
    #[command(flatten)]
    server: ServerOptions,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Declare sites, policies and protected VMs
    Apply(apply::ApplyArguments),
    /// Take back what was declared; a VM's protection is disabled
    Delete(delete::DeleteArguments),
    /// List what there is
    Get(get::GetArguments),
    /// Show everything about one thing
    Describe(describe::DescribeArguments),
    /// Rehearse a failover, or fail over
    Failover {
        #[command(subcommand)]
        verb: failover::FailoverVerb,
    },
    /// Follow, cancel or retry a job
    Job {
        #[command(subcommand)]
        verb: job::JobVerb,
    },
    /// Keep a recovery point, or let it go
    Point {
        #[command(subcommand)]
        verb: point::PointVerb,
    },
    /// Run the orchestrator
    Orchestrator(serve::ServeArguments),
    /// Run a replicator of a site
    Replicator(serve::ServeArguments),
    /// The whole story on this machine: real VMs, two sites, disaster, recovery
    Demo(demo::DemoArguments),
    /// What can be done with a vault when nothing else is left; no orchestrator is needed
    Vault {
        #[command(subcommand)]
        command: vault::VaultCommand,
    },
    /// Check declarations without an orchestrator
    Validate(validate::ValidateArguments),
    /// Say which version this is
    Version,
    /// What runs inside the demo's guests
    #[command(hide = true)]
    GuestWorkload {
        /// For the workload
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// What keeps a guest frozen for an instant
    #[command(hide = true)]
    HoldFreeze {
        /// The guest agent's channel, and the limit in milliseconds
        arguments: Vec<OsString>,
    },
    /// What lets a stopped guest go on, whatever becomes of who stopped it
    #[command(hide = true)]
    WatchStop {
        /// The second monitor, a bitmap that the VM must have, and the mark of a guest that stands still
        arguments: Vec<OsString>,
    },
    /// One HTTP exchange of the demo, from inside a network namespace
    #[command(hide = true)]
    DemoExchange(demo::ExchangeArguments),
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    match run(command_line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.reader_left() {
                output::talk(&format!("error: {}", error.describe()));
            }
            error.exit_code()
        }
    }
}

fn run(command_line: CommandLine) -> Result<(), CliError> {
    let CommandLine { server, verb } = command_line;
    match verb {
        Verb::Apply(arguments) => runtime()?.block_on(apply::run(&server, arguments)),
        Verb::Delete(arguments) => runtime()?.block_on(delete::run(&server, arguments)),
        Verb::Get(arguments) => runtime()?.block_on(get::run(&server, arguments)),
        Verb::Describe(arguments) => runtime()?.block_on(describe::run(&server, arguments)),
        Verb::Failover { verb } => runtime()?.block_on(failover::run(&server, verb)),
        Verb::Job { verb } => runtime()?.block_on(job::run(&server, verb)),
        Verb::Point { verb } => runtime()?.block_on(point::run(&server, verb)),
        Verb::Orchestrator(arguments) => runtime()?.block_on(serve::orchestrator(arguments)),
        Verb::Replicator(arguments) => runtime()?.block_on(serve::replicator(arguments)),
        Verb::Demo(arguments) => runtime()?.block_on(demo::run(arguments)),
        Verb::Validate(arguments) => validate::run(&arguments),
        Verb::Vault { command } => vault::run(command),
        Verb::Version => version::run(),
        Verb::GuestWorkload { arguments } => {
            // It ends only if it cannot run, and has said why.
            let _ = farshore_guest::workload::main(arguments);
            Err(CliError::Part(anyhow::anyhow!("the guest's workload cannot run")))
        }
        Verb::DemoExchange(arguments) => demo::exchange(&arguments),
        Verb::WatchStop { arguments } => {
            // As below.
            let _ = farshore_provider_qemu::watchdog_main(arguments);
            Ok(())
        }
        Verb::HoldFreeze { arguments } => {
            // What came of it is what it has said, and whoever started it reads that.
            let _ = farshore_provider_qemu::freezer_main(arguments);
            Ok(())
        }
    }
}

fn runtime() -> Result<Runtime, CliError> {
    Runtime::new()
        .map_err(|error| CliError::Part(anyhow::Error::new(error).context("cannot start the async runtime")))
}
