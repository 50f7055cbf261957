//! Which chain and which recovery point of it a command means.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use farshore_blocks::{ChainId, Sequence, VolumeIndex};
use farshore_vault::{PointKind, PointReader, PointRecord, VaultReader};

use super::{failed, unreadable};
use crate::exit::CliError;

const NOT_FOUND: &str = "not-found";

/// Names one recovery point.
#[derive(Debug, Clone, Args)]
pub(crate) struct PointSelection {
    /// The vault's directory
    pub(crate) directory: PathBuf,
    /// The protected VM
    #[arg(long, required_unless_present = "chain")]
    pub(crate) vm: Option<String>,
    /// The chain, where the vault has several of one VM
    #[arg(long, conflicts_with = "vm")]
    pub(crate) chain: Option<ChainId>,
    /// `latest`, `latest-app-consistent`, or a point's sequence
    #[arg(long, default_value = "latest")]
    pub(crate) point: PointChoice,
}

/// Which of a chain's points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PointChoice {
    /// The newest.
    Latest,
    /// The newest of which the guest knew.
    LatestAppConsistent,
    /// This one.
    Sequence(Sequence),
}

impl FromStr for PointChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("latest", _) => Ok(Self::Latest),
            ("latest-app-consistent", _) => Ok(Self::LatestAppConsistent),
            (_, Ok(sequence)) => Ok(Self::Sequence(Sequence(sequence))),
            (_, Err(_)) => {
                Err("`latest`, `latest-app-consistent` or a point's sequence is accepted".to_owned())
            }
        }
    }
}

impl PointSelection {
    /// Opens the point that is meant.
    pub(crate) fn open(&self) -> Result<PointReader, CliError> {
        let reader = VaultReader::open(&self.directory).map_err(failed)?;
        let chain = self.find_chain(&reader)?;
        let points = reader.points(chain).map_err(failed)?;
        let point = choose(&points, self.point).ok_or_else(|| no_such_point(&points, self.point))?;
        reader.open_point(chain, point).map_err(unreadable)
    }

    fn find_chain(&self, reader: &VaultReader) -> Result<ChainId, CliError> {
        if let Some(chain) = self.chain {
            return Ok(chain);
        }
        let vm = self.vm.as_deref().unwrap_or_default();
        let chains = reader.chains().map_err(failed)?;
        let matching: Vec<ChainId> = chains
            .iter()
            .filter(|(_, description)| description.vm == vm)
            .map(|(chain, _)| *chain)
            .collect();
        match matching.as_slice() {
            [chain] => Ok(*chain),
            [] => {
                let known = chains.iter().map(|(_, description)| description.vm.as_str());
                Err(CliError::NotFound {
                    message: format!("the vault has no VM `{vm}`; it has {}", listed(known)),
                    reason: NOT_FOUND.to_owned(),
                })
            }
            several => {
                let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
                let ids = listed(ids.iter().map(String::as_str));
                Err(CliError::Usage(format!(
                    "the vault has several chains of VM `{vm}`: choose one with --chain, of {ids}"
                )))
            }
        }
    }
}

/// The volume of this name.
pub(crate) fn find_volume(point: &PointReader, name: &str) -> Result<VolumeIndex, CliError> {
    let volumes = point.volumes();
    let found = (0..).zip(volumes).find(|(_, volume)| volume.name == name);
    found.map(|(index, _)| VolumeIndex(index)).ok_or_else(|| {
        let known = volumes.iter().map(|volume| volume.name.as_str());
        CliError::NotFound {
            message: format!(
                "VM `{}` has no volume `{name}`; it has {}",
                point.vm(),
                listed(known)
            ),
            reason: NOT_FOUND.to_owned(),
        }
    })
}

fn choose(points: &[PointRecord], choice: PointChoice) -> Option<Sequence> {
    let mut newest_first = points.iter().rev();
    let point = match choice {
        PointChoice::Latest => newest_first.next(),
        PointChoice::LatestAppConsistent => newest_first.find(|point| point.kind == PointKind::AppConsistent),
        PointChoice::Sequence(sequence) => newest_first.find(|point| point.sequence == sequence),
    };
    point.map(|point| point.sequence)
}

fn no_such_point(points: &[PointRecord], choice: PointChoice) -> CliError {
    let there = match (points.first(), points.last()) {
        (Some(first), Some(last)) => format!("it has points {} to {}", first.sequence, last.sequence),
        (_, _) => "it has no recovery point yet".to_owned(),
    };
    let message = match choice {
        PointChoice::Latest => there,
        PointChoice::LatestAppConsistent => format!("the chain has no app-consistent point; {there}"),
        PointChoice::Sequence(sequence) => format!("the chain has no point {sequence}; {there}"),
    };
    CliError::NotFound {
        message,
        reason: NOT_FOUND.to_owned(),
    }
}

fn listed<'name>(names: impl Iterator<Item = &'name str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
