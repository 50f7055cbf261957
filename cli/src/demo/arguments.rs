//! What can be ordered of the demo.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use farshore_guest::accelerator::Accelerator;

/// How the demo is told.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Where it may put its directory (default: /var/tmp)
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Leave everything running at the end, and say what to try next
    #[arg(long)]
    pub(super) keep: bool,
    /// Print the result as one JSON object; the story goes to stderr
    #[arg(long)]
    pub(super) json: bool,
    /// How the virtual machines' processors run
    #[arg(long, value_enum, default_value_t)]
    pub(super) accelerator: AcceleratorChoice,
    /// Remove everything of a demo that was kept, or killed
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dir", "keep", "json"])]
    pub(super) stop: Option<PathBuf>,
}

/// How processors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum AcceleratorChoice {
    /// KVM where a short trial shows that it works, else TCG
    #[default]
    Auto,
    /// By the host's kernel
    Kvm,
    /// By translation; works everywhere, slowly
    Tcg,
}

impl AcceleratorChoice {
    /// Decides, trying where that is ordered.
    pub(super) fn choose(self) -> Accelerator {
        match self {
            Self::Auto => Accelerator::probe(),
            Self::Kvm => Accelerator::Kvm,
            Self::Tcg => Accelerator::Tcg,
        }
    }
}
