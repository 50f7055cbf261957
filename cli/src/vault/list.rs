//! `vault list DIR`: the protected VMs of a vault and their recovery points.

use std::path::PathBuf;

use clap::Args;
use farshore_blocks::ChainId;
use farshore_vault::{ChainDescription, PointRecord, VaultError, VaultReader};
use serde::Serialize;

use super::failed;
use crate::{
    exit::CliError,
    output::{Form, answer, format, json, table::table, talk, yaml},
};

const HEADINGS: [&str; 6] = ["vm", "point", "captured at", "kind", "changed", "stored"];
const WIDE_HEADINGS: [&str; 3] = ["sealed at", "chain", "digest"];

/// Which vault.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// The vault's directory
    pub(crate) directory: PathBuf,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Form,
}

/// A vault, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VaultView {
    pub(super) incarnation: String,
    pub(super) chains: Vec<ChainView>,
}

/// A chain, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChainView {
    pub(super) chain: String,
    pub(super) vm: String,
    /// The epoch under which the chain may be written, if one was granted.
    pub(super) epoch: Option<u64>,
    pub(super) volumes: Vec<VolumeView>,
    pub(super) points: Vec<PointView>,
}

/// A volume, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VolumeView {
    pub(super) name: String,
    pub(super) size_bytes: u64,
}

/// A recovery point in a vault, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PointView {
    pub(super) sequence: u64,
    pub(super) digest: String,
    /// By the source's clock.
    pub(super) captured_at: String,
    /// By the vault's clock.
    pub(super) sealed_at: String,
    pub(super) kind: String,
    pub(super) changed_bytes: u64,
    pub(super) stored_bytes: u64,
}

pub(super) fn run(arguments: &ListArguments) -> Result<(), CliError> {
    let reader = VaultReader::open(&arguments.directory).map_err(failed)?;
    let (view, damaged) = view(&reader).map_err(failed)?;
    let text = match arguments.output {
        Form::Table => rows(&view, false),
        Form::Wide => rows(&view, true),
        Form::Json => json(&view)?,
        Form::Yaml => yaml(&view)?,
    };
    answer(&text)?;
    damaged.map_or(Ok(()), |error| Err(failed(error)))
}

/// All that can be listed, and the first thing that cannot.
pub(super) fn view(reader: &VaultReader) -> Result<(VaultView, Option<VaultError>), VaultError> {
    let mut chains = Vec::new();
    let mut damaged = None;
    for (chain, description) in reader.chains()? {
        match chain_view(reader, chain, description) {
            Ok(view) => chains.push(view),
            Err(error) => {
                if damaged.is_some() {
                    talk(&format!("chain {chain} cannot be listed either: {error}"));
                }
                damaged = damaged.or(Some(error));
            }
        }
    }
    let incarnation = reader.incarnation().to_string();
    Ok((VaultView { incarnation, chains }, damaged))
}

fn chain_view(
    reader: &VaultReader,
    chain: ChainId,
    description: ChainDescription,
) -> Result<ChainView, VaultError> {
    let volumes = description.volumes.into_iter().map(|volume| VolumeView {
        name: volume.name,
        size_bytes: volume.size.0,
    });
    Ok(ChainView {
        chain: chain.to_string(),
        vm: description.vm,
        epoch: reader.current_epoch(chain)?.map(|epoch| epoch.number),
        volumes: volumes.collect(),
        points: reader.points(chain)?.iter().map(PointView::of).collect(),
    })
}

impl PointView {
    fn of(point: &PointRecord) -> Self {
        Self {
            sequence: point.sequence.0,
            digest: point.digest.to_string(),
            captured_at: point.captured_at.to_rfc3339(),
            sealed_at: point.sealed_at.to_rfc3339(),
            kind: format!("{:?}", point.kind),
            changed_bytes: point.changes.iter().map(|change| change.bytes.0).sum(),
            stored_bytes: point.stored_bytes.0,
        }
    }
}

fn rows(view: &VaultView, wide: bool) -> String {
    let mut rows = Vec::new();
    for chain in &view.chains {
        for point in &chain.points {
            let mut row = vec![
                chain.vm.clone(),
                point.sequence.to_string(),
                point.captured_at.clone(),
                point.kind.clone(),
                format::size(point.changed_bytes),
                format::size(point.stored_bytes),
            ];
            if wide {
                row.extend([point.sealed_at.clone(), chain.chain.clone(), point.digest.clone()]);
            }
            rows.push(row);
        }
        if chain.points.is_empty() {
            let mut row = vec![format::NOTHING.to_owned(); HEADINGS.len()];
            row.splice(..1, [chain.vm.clone()]);
            if wide {
                row.extend([
                    format::NOTHING.to_owned(),
                    chain.chain.clone(),
                    format::NOTHING.to_owned(),
                ]);
            }
            rows.push(row);
        }
    }
    let mut headings = HEADINGS.to_vec();
    if wide {
        headings.extend(WIDE_HEADINGS);
    }
    table(&headings, rows)
}
