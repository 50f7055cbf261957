//! The names of what Farshore puts beside a VM. They say whose a thing is, so that the next process can judge what
//! a dead one left behind.

use std::fmt;

use farshore_blocks::{Sequence, VolumeIndex};
use farshore_provider::TrackingIdentity;

/// Every bitmap whose name begins so is ours.
const BITMAP_PREFIX: &str = "farshore.";

/// What a block node of ours is for. Its name fits QEMU's 31 characters for any index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NodeRole {
    /// The pass-through node between the device and its data: what is switched at the instant.
    Wrapper,
    /// The copy-before-write filter.
    Filter,
    /// Where the filter keeps what was overwritten.
    Scratch,
    /// The view of the disk as it was at the instant.
    Snapshot,
}

impl NodeRole {
    const ALL: [Self; 4] = [Self::Wrapper, Self::Filter, Self::Scratch, Self::Snapshot];

    fn prefix(self) -> &'static str {
        match self {
            Self::Wrapper => "fs-w-",
            Self::Filter => "fs-c-",
            Self::Scratch => "fs-s-",
            Self::Snapshot => "fs-a-",
        }
    }

    /// The name of the node with this role for this volume.
    pub(crate) fn node(self, index: VolumeIndex) -> String {
        format!("{}{index}", self.prefix())
    }

    /// The role of a node of ours; `None` for anyone else's.
    pub(crate) fn of(node: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|role| node.strip_prefix(role.prefix()).is_some_and(is_number))
    }
}

/// The identifier of a volume's export.
pub(crate) fn export_id(index: VolumeIndex) -> String {
    format!("fs-x-{index}")
}

/// Whether an export or a job is ours.
pub(crate) fn is_our_identifier(id: &str) -> bool {
    ["fs-x-", "fs-j-"]
        .iter()
        .any(|prefix| id.strip_prefix(prefix).is_some_and(is_number))
}

/// Whether a bitmap is ours, of whatever vault or chain.
pub(crate) fn is_our_bitmap(name: &str) -> bool {
    name.starts_with(BITMAP_PREFIX)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// From when on a bitmap knows the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BitmapBase {
    /// Since just before the instant of a point.
    Since(Sequence),
    /// Since a round of the scan towards a point began; round 0 is the scan itself.
    Scan {
        /// The point that the scan leads to.
        next: Sequence,
        /// Which round.
        round: u64,
    },
}

/// A bitmap's name: what it is relative to. It is worth something only under exactly that identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BitmapName {
    pub(crate) identity: TrackingIdentity,
    pub(crate) base: BitmapBase,
}

impl BitmapName {
    /// Reads a name; `None` for what is not exactly one of ours.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(BITMAP_PREFIX)?.split('.');
        let identity = TrackingIdentity {
            vault: parts.next()?.parse().ok()?,
            chain: parts.next()?.parse().ok()?,
        };
        let base = match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
            ("since", point, None, None) => BitmapBase::Since(Sequence(point.parse().ok()?)),
            ("scan", next, Some(round), None) => BitmapBase::Scan {
                next: Sequence(next.parse().ok()?),
                round: round.parse().ok()?,
            },
            _ => return None,
        };
        Some(Self { identity, base })
    }
}

impl fmt::Display for BitmapName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TrackingIdentity { vault, chain } = self.identity;
        write!(out, "{BITMAP_PREFIX}{vault}.{chain}.")?;
        match self.base {
            BitmapBase::Since(point) => write!(out, "since.{point}"),
            BitmapBase::Scan { next, round } => write!(out, "scan.{next}.{round}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use farshore_blocks::{ChainId, Incarnation};

    use super::*;

    const IDENTITY: TrackingIdentity = TrackingIdentity {
        vault: Incarnation::from_bytes([0xab; 16]),
        chain: ChainId::from_bytes([3; 16]),
    };

    #[test]
    fn a_bitmap_name_reads_back() {
        for base in [
            BitmapBase::Since(Sequence(0)),
            BitmapBase::Since(Sequence(u64::MAX)),
            BitmapBase::Scan {
                next: Sequence(1),
                round: 12,
            },
        ] {
            let name = BitmapName {
                identity: IDENTITY,
                base,
            };
            assert_eq!(BitmapName::parse(&name.to_string()), Some(name));
            assert!(is_our_bitmap(&name.to_string()));
        }
    }

    #[test]
    fn what_is_no_name_of_ours_is_not_taken_for_one() {
        let good = BitmapName {
            identity: IDENTITY,
            base: BitmapBase::Since(Sequence(4)),
        }
        .to_string();
        for name in [
            "",
            "farshore.",
            "backup",
            &format!("{good}.5"),
            &format!("x{good}"),
            &good.replace("since", "scan"),
        ] {
            assert_eq!(BitmapName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn nodes_of_others_are_not_taken_for_ours() {
        let longest = NodeRole::Snapshot.node(VolumeIndex(u32::MAX));
        assert!(longest.len() <= 31);
        assert_eq!(NodeRole::of(&longest), Some(NodeRole::Snapshot));
        for name in ["fs-w-", "fs-w-x", "fs-root", "data", "xfs-w-1", "fs-b-1"] {
            assert_eq!(NodeRole::of(name), None, "{name}");
        }
        assert!(is_our_identifier(&export_id(VolumeIndex(3))));
        assert!(!is_our_identifier("fs-x-mine"));
    }
}
