//! What a vault holds, as scripts read it: the keys are stable.

use std::collections::BTreeMap;

use farshore_blocks::{ChainId, Sequence};
use farshore_vault::{ChainDescription, Gap, Pin, PointRecord, VaultError, VaultReader, VolumeDescription};
use serde::Serialize;

use crate::output::talk;

/// A vault, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::vault) struct VaultView {
    pub(in crate::vault) incarnation: String,
    /// Whether its files were copied or restored, and no replicator has opened it since: no source takes it for the
    /// vault that it knew.
    pub(in crate::vault) is_a_copy: bool,
    pub(in crate::vault) chains: Vec<ChainView>,
}

/// A chain, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::vault) struct ChainView {
    pub(in crate::vault) chain: String,
    pub(in crate::vault) vm: String,
    /// The epoch under which the chain may be written, if one was granted.
    pub(in crate::vault) epoch: Option<u64>,
    /// When its newest point was last known to be what the source held, by the vault's clock.
    pub(in crate::vault) valid_through: Option<String>,
    pub(in crate::vault) volumes: Vec<VolumeView>,
    /// What the points that are kept brought with them.
    pub(in crate::vault) stored_bytes: u64,
    pub(in crate::vault) points: Vec<PointView>,
    /// Points that were dropped, as runs between those that are kept.
    pub(in crate::vault) gaps: Vec<GapView>,
}

/// A volume, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::vault) struct VolumeView {
    pub(in crate::vault) name: String,
    pub(in crate::vault) size_bytes: u64,
}

/// A recovery point in a vault, as shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::vault) struct PointView {
    pub(in crate::vault) sequence: u64,
    pub(in crate::vault) digest: String,
    /// By the source's clock.
    pub(in crate::vault) captured_at: String,
    /// By the vault's clock.
    pub(in crate::vault) sealed_at: String,
    pub(in crate::vault) kind: String,
    pub(in crate::vault) changed_bytes: u64,
    pub(in crate::vault) stored_bytes: u64,
    /// Whether a user has pinned it.
    pub(in crate::vault) pinned: bool,
    /// Until when nobody can drop it.
    pub(in crate::vault) locked_until: Option<String>,
}

/// Points that were dropped, one after the other.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::vault) struct GapView {
    pub(in crate::vault) first: u64,
    pub(in crate::vault) last: u64,
}

/// All that can be listed, and the first thing that cannot.
pub(in crate::vault) fn view(reader: &VaultReader) -> Result<(VaultView, Option<VaultError>), VaultError> {
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
    let view = VaultView {
        incarnation: reader.incarnation().to_string(),
        is_a_copy: reader.is_a_copy()?,
        chains,
    };
    Ok((view, damaged))
}

fn chain_view(
    reader: &VaultReader,
    chain: ChainId,
    description: ChainDescription,
) -> Result<ChainView, VaultError> {
    let there = description
        .volumes
        .into_iter()
        .filter(VolumeDescription::is_there);
    let volumes = there.map(|volume| VolumeView {
        name: volume.name,
        size_bytes: volume.size.0,
    });
    let pins: BTreeMap<Sequence, Pin> = reader.pins(chain)?.into_iter().collect();
    let points = reader.points(chain)?;
    Ok(ChainView {
        chain: chain.to_string(),
        vm: description.vm,
        epoch: reader.current_epoch(chain)?.map(|epoch| epoch.number),
        valid_through: reader.still_valid(chain)?.map(|time| time.to_rfc3339()),
        volumes: volumes.collect(),
        stored_bytes: points.iter().map(|point| point.stored_bytes.0).sum(),
        points: points
            .iter()
            .map(|point| PointView::of(point, pins.get(&point.sequence)))
            .collect(),
        gaps: reader.gaps(chain)?.iter().map(GapView::of).collect(),
    })
}

impl PointView {
    fn of(point: &PointRecord, pin: Option<&Pin>) -> Self {
        let (pinned, locked_until) = match pin {
            None => (false, None),
            Some(Pin::Pinned) => (true, None),
            Some(Pin::LockedUntil(time)) => (false, Some(time.to_rfc3339())),
        };
        Self {
            sequence: point.sequence.0,
            digest: point.digest.to_string(),
            captured_at: point.captured_at.to_rfc3339(),
            sealed_at: point.sealed_at.to_rfc3339(),
            kind: format!("{:?}", point.kind),
            changed_bytes: point.changes.iter().map(|change| change.bytes.0).sum(),
            stored_bytes: point.stored_bytes.0,
            pinned,
            locked_until,
        }
    }
}

impl GapView {
    fn of(gap: &Gap) -> Self {
        Self {
            first: gap.first.0,
            last: gap.last.0,
        }
    }

    /// How many points were dropped.
    pub(super) fn points(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}
