//! Which chain, and which recovery point of it, a command means.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::Args;
use farshore_blocks::{ChainId, Sequence, clock::WallTime};
use farshore_vault::{ChainDescription, PointKind, PointReader, PointRecord, VaultReader};
use jiff::Timestamp;

use super::{failed, unreadable};
use crate::exit::CliError;

const NOT_FOUND: &str = "not-found";

/// Names one chain of a vault.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChainSelection {
    /// The vault's directory
    pub(crate) directory: PathBuf,
    /// The protected VM, or the chain where the vault has several of one VM
    #[arg(value_name = "VM|CHAIN")]
    pub(crate) subject: String,
}

/// Names one recovery point.
#[derive(Debug, Clone, Args)]
pub(crate) struct PointSelection {
    #[command(flatten)]
    pub(crate) of: ChainSelection,
    /// `latest`, `latest-app-consistent`, a point's sequence, or a time: the newest captured not after it
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
    /// The newest that was captured not after this time.
    NotAfter(WallTime),
}

impl FromStr for PointChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "latest" => return Ok(Self::Latest),
            "latest-app-consistent" => return Ok(Self::LatestAppConsistent),
            _ => {}
        }
        if let Ok(sequence) = text.parse() {
            return Ok(Self::Sequence(Sequence(sequence)));
        }
        let time = text.parse::<Timestamp>().ok();
        let time = time.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
        time.map(|time| Self::NotAfter(WallTime(time))).ok_or_else(|| {
            "`latest`, `latest-app-consistent`, a point's sequence or a time like 2026-01-31T03:00:00Z is accepted"
                .to_owned()
        })
    }
}

impl fmt::Display for PointChoice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => write!(out, "point"),
            Self::LatestAppConsistent => write!(out, "app-consistent point"),
            Self::Sequence(sequence) => write!(out, "point {sequence}"),
            Self::NotAfter(time) => write!(out, "point as old as {}", time.to_rfc3339()),
        }
    }
}

impl PointSelection {
    /// Opens the point that is meant.
    pub(crate) fn open(&self) -> Result<PointReader, CliError> {
        let reader = self.of.open()?;
        let chain = self.of.find(&reader)?;
        let point = self.point.choose(&reader, chain)?;
        reader.open_point(chain, point).map_err(unreadable)
    }
}

impl ChainSelection {
    pub(crate) fn open(&self) -> Result<VaultReader, CliError> {
        VaultReader::open(&self.directory).map_err(failed)
    }

    /// The chain that is meant.
    pub(crate) fn find(&self, reader: &VaultReader) -> Result<ChainId, CliError> {
        let subject = &self.subject;
        let chains = reader.chains().map_err(failed)?;
        // No VM's name is as long as a chain's identity.
        let wanted = subject.parse().ok();
        let meant = |(chain, description): &&(ChainId, ChainDescription)| {
            description.vm == *subject || wanted == Some(*chain)
        };
        let matching: Vec<ChainId> = chains.iter().filter(meant).map(|(chain, _)| *chain).collect();
        match matching.as_slice() {
            [chain] => Ok(*chain),
            [] => {
                let known = chains.iter().map(|(_, description)| description.vm.as_str());
                Err(CliError::NotFound {
                    message: format!(
                        "the vault has no VM or chain `{subject}`; it has {}",
                        listed(known)
                    ),
                    reason: NOT_FOUND.to_owned(),
                })
            }
            several => {
                let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
                let ids = listed(ids.iter().map(String::as_str));
                Err(CliError::Usage(format!(
                    "the vault has several chains of VM `{subject}`: name one of {ids} instead"
                )))
            }
        }
    }
}

impl PointChoice {
    /// The chain's point that is meant.
    pub(crate) fn choose(self, reader: &VaultReader, chain: ChainId) -> Result<Sequence, CliError> {
        let points = reader.points(chain).map_err(failed)?;
        self.among(&points).ok_or_else(|| self.not_found(&points))
    }

    fn among(self, points: &[PointRecord]) -> Option<Sequence> {
        let mut newest_first = points.iter().rev();
        let point = match self {
            Self::Latest => newest_first.next(),
            Self::LatestAppConsistent => newest_first.find(|point| point.kind == PointKind::AppConsistent),
            Self::Sequence(sequence) => newest_first.find(|point| point.sequence == sequence),
            Self::NotAfter(time) => newest_first.find(|point| point.captured_at <= time),
        };
        point.map(|point| point.sequence)
    }

    fn not_found(self, points: &[PointRecord]) -> CliError {
        let there = match (points.first(), points.last()) {
            (Some(first), Some(last)) => format!(
                "it has points {} (captured {}) to {} (captured {})",
                first.sequence,
                first.captured_at.to_rfc3339(),
                last.sequence,
                last.captured_at.to_rfc3339()
            ),
            (_, _) => "it has no recovery point yet".to_owned(),
        };
        CliError::NotFound {
            message: format!("the chain has no {self}; {there}"),
            reason: NOT_FOUND.to_owned(),
        }
    }
}

/// That the point has no volume of this name, and which it has.
pub(crate) fn no_such_volume(point: &PointReader, name: &str) -> CliError {
    let known = point.volumes_there().map(|(_, volume)| volume.name.as_str());
    CliError::NotFound {
        message: format!(
            "VM `{}` has no volume `{name}`; it has {}",
            point.vm(),
            listed(known)
        ),
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
