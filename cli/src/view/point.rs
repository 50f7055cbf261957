//! A recovery point, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::{Listed, group::instant, hexadecimal, state, time};
use crate::output::format;

/// All volumes of a VM at one instant, in a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PointView {
    pub(crate) sequence: u64,
    pub(crate) digest: String,
    /// By the source's clock.
    pub(crate) captured_at: Option<String>,
    /// By the target's clock.
    pub(crate) sealed_at: Option<String>,
    pub(crate) kind: String,
    /// Points of several VMs that share it are of one instant. `null`: not told.
    pub(crate) instant: Option<String>,
    pub(crate) changed_bytes: u64,
    /// `pinned`, `locked`, or nothing: then it goes when retention says so.
    pub(crate) hold: Option<&'static str>,
    /// Before this time nobody can release it.
    pub(crate) locked_until: Option<String>,
}

impl From<v1::RecoveryPoint> for PointView {
    fn from(point: v1::RecoveryPoint) -> Self {
        let hold = point.pin.map(|pin| match pin.locked_until {
            Some(_) => "locked",
            None => "pinned",
        });
        Self {
            hold,
            instant: instant(point.instant),
            locked_until: point.pin.and_then(|pin| time(pin.locked_until)),
            kind: state("POINT_KIND_", point.kind().as_str_name()),
            sequence: point.sequence,
            digest: hexadecimal(&point.digest),
            captured_at: time(point.captured_at),
            sealed_at: time(point.sealed_at),
            changed_bytes: point.changed_bytes,
        }
    }
}

impl Listed for PointView {
    const HEADINGS: &'static [&'static str] = &["point", "captured at", "age", "kind", "changed", "hold"];
    const WIDE_HEADINGS: &'static [&'static str] = &["sealed at", "instant", "digest"];

    fn key(&self) -> String {
        self.sequence.to_string()
    }

    fn cells(&self, now: WallTime) -> Vec<String> {
        vec![
            self.sequence.to_string(),
            format::or_nothing(self.captured_at.as_deref().unwrap_or_default()),
            format::age(self.captured_at.as_deref(), now),
            self.kind.clone(),
            format::size(self.changed_bytes),
            self.hold_cell(),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        vec![
            format::or_nothing(self.sealed_at.as_deref().unwrap_or_default()),
            format::or_nothing(self.instant.as_deref().unwrap_or_default()),
            self.digest.clone(),
        ]
    }
}

impl PointView {
    fn hold_cell(&self) -> String {
        match (self.hold, &self.locked_until) {
            (Some(hold), Some(until)) => format!("{hold} until {until}"),
            (Some(hold), None) => hold.to_owned(),
            (None, _) => format::or_nothing(""),
        }
    }
}
