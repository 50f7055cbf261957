//! `vault failover DIR VM`: the fence, then the VM, from the vault alone.
//!
//! It is one path, however often it is run: what has been done is written down, and a repetition goes on from there.
//! The source is refused from the fence on; before it, everything is checked that can keep the VM from running. An
//! epoch that somebody else was granted meanwhile ends it: then that holder has the chain.

mod attempt;
mod ending;
pub(super) mod fence;
mod lock_holder;
pub(super) mod record;
mod view;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use farshore_provider_qemu::AcceleratorChoice;
use tokio::runtime::Runtime;

use super::selection::{ChainSelection, PointChoice};
use crate::{
    exit::CliError,
    output::{Form, answer, json, talk, yaml},
};
use attempt::Attempt;

/// Which VM, from where, and where it runs.
#[derive(Debug, Args)]
pub(crate) struct FailoverArguments {
    #[command(flatten)]
    of: ChainSelection,
    /// `latest`, `latest-app-consistent`, a point's sequence, or a time: the newest captured not after it
    /// [default: latest, or the point that it was started from]
    #[arg(long)]
    point: Option<PointChoice>,
    #[command(flatten)]
    network: NetworkArguments,
    /// Keep the VM's overlays, sockets and console here: what it writes needs room
    #[arg(long, value_name = "DIR", default_value = "/var/lib/farshore/vault-failover")]
    into: PathBuf,
    /// What executes the VM
    #[arg(long, value_enum, default_value_t)]
    accelerator: Accelerator,
    #[command(flatten)]
    ending: EndingArguments,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Where the VM's network cards are plugged in.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct NetworkArguments {
    /// Plug the VM's network cards into this bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
    /// Give the VM a network of its own without a way out
    #[arg(long)]
    isolated: bool,
}

/// What to do with a VM that was started before.
#[derive(Debug, Args)]
#[group(multiple = false, conflicts_with_all = ["point", "bridge", "isolated"])]
struct EndingArguments {
    /// Switch the VM off at once; what it wrote stays, and another failover goes on from there
    #[arg(long)]
    stop: bool,
    /// Switch the VM off and remove everything that was made for it, also what it wrote; the source stays fenced
    #[arg(long)]
    discard: bool,
}

/// What executes the VM.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Accelerator {
    /// KVM if this host can, emulation otherwise.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

impl From<Accelerator> for AcceleratorChoice {
    fn from(accelerator: Accelerator) -> Self {
        match accelerator {
            Accelerator::Auto => Self::Auto,
            Accelerator::Kvm => Self::Kvm,
            Accelerator::Tcg => Self::Tcg,
        }
    }
}

pub(super) fn run(arguments: &FailoverArguments) -> Result<(), CliError> {
    let runtime = Runtime::new().context("cannot start the async runtime")?;
    if arguments.ending.stop || arguments.ending.discard {
        return runtime.block_on(ending::end(arguments));
    }
    let view = runtime.block_on(async { Attempt::begin(arguments)?.run().await })?;
    answer(&match arguments.output {
        Form::Table | Form::Wide => view.as_text(),
        Form::Json => json(&view)?,
        Form::Yaml => yaml(&view)?,
    })?;
    let again = arguments.spelled();
    talk(&format!("to switch it off:              {again} --stop"));
    talk(&format!("to remove it with its writes:  {again} --discard"));
    Ok(())
}

impl FailoverArguments {
    /// The command again, without what is said once.
    fn spelled(&self) -> String {
        format!(
            "farshore vault failover {} {} --into {}",
            self.of.directory.display(),
            self.of.subject,
            self.into.display()
        )
    }
}
