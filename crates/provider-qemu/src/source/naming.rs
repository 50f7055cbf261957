//! The names of what Farshore puts beside a VM. They say whose a thing is, so that the next process can judge what
//! a dead one left behind.

use std::fmt;

use farshore_blocks::{Digest, Sequence, VolumeIndex};
use farshore_provider::TrackingIdentity;

/// Bitmaps' names begin so. They are short, because a monitor takes each byte of a command by itself.
const BITMAP_PREFIX: &str = "fs.";

/// How names began that spelled the whole identity; such bitmaps may still lie in images.
const LONG_BITMAP_PREFIX: &str = "farshore.";

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
        Self::ALL.into_iter().find(|role| {
            let rest = node.strip_prefix(role.prefix());
            rest.is_some_and(|rest| is_number(rest) || (*role == Self::Wrapper && is_later_wrapper(rest)))
        })
    }
}

/// The names that the wrapper of this volume may have, the first first. Others are for when an overlay that somebody put
/// above a wrapper holds its name for good.
pub(crate) fn wrapper_names(index: VolumeIndex) -> impl Iterator<Item = String> {
    let first = NodeRole::Wrapper.node(index);
    std::iter::once(first.clone()).chain((1_u32..).map(move |turn| format!("{first}-{turn}")))
}

fn is_later_wrapper(rest: &str) -> bool {
    rest.split_once('-')
        .is_some_and(|(index, turn)| is_number(index) && is_number(turn))
}

/// The identifier of a volume's export.
pub(crate) fn export_id(index: VolumeIndex) -> String {
    format!("fs-x-{index}")
}

/// The identifier of the job that copies a volume.
pub(crate) fn job_id(index: VolumeIndex) -> String {
    format!("fs-j-{index}")
}

/// Records on a scratch node what a job copied to it; it comes and goes with the node.
pub(crate) const COPIED_BITMAP: &str = "fs-copied";

/// Whether an export or a job is ours.
pub(crate) fn is_our_identifier(id: &str) -> bool {
    ["fs-x-", "fs-j-"]
        .iter()
        .any(|prefix| id.strip_prefix(prefix).is_some_and(is_number))
}

/// Whether a bitmap is ours, of whatever vault or chain.
pub(crate) fn is_our_bitmap(name: &str) -> bool {
    name.starts_with(LONG_BITMAP_PREFIX) || BitmapName::parse(name).is_some()
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

/// Stands for a vault and a chain in a bitmap's name: the beginning of their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdentityTag(u64);

impl IdentityTag {
    const DIGITS: usize = 16;

    pub(crate) fn of(identity: TrackingIdentity) -> Self {
        let whole = [*identity.vault.as_bytes(), *identity.chain.as_bytes()].concat();
        let first = Digest::of(&whole).as_bytes().first_chunk().copied();
        Self(u64::from_be_bytes(first.unwrap_or_default()))
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let tag = (digits && text.len() == Self::DIGITS).then(|| u64::from_str_radix(text, 16).ok());
        tag.flatten().map(Self)
    }
}

/// A bitmap's name: what it is relative to. It is worth something only under exactly that identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BitmapName {
    pub(crate) identity: IdentityTag,
    pub(crate) base: BitmapBase,
}

impl BitmapName {
    /// Reads a name, short or long; `None` for what is not exactly one of ours.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        name.strip_prefix(BITMAP_PREFIX)
            .map_or_else(|| Self::parse_long(name), Self::parse_short)
    }

    fn parse_short(rest: &str) -> Option<Self> {
        let mut parts = rest.split('.');
        let identity = IdentityTag::parse(parts.next()?)?;
        let base = match (parts.next()?, parts.next(), parts.next()) {
            (point, None, None) => BitmapBase::Since(sequence(point)?),
            (next, Some(round), None) => BitmapBase::Scan {
                next: sequence(next)?,
                round: number(round.strip_prefix('s')?)?,
            },
            _ => return None,
        };
        Some(Self { identity, base })
    }

    fn parse_long(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(LONG_BITMAP_PREFIX)?.split('.');
        let identity = IdentityTag::of(TrackingIdentity {
            vault: parts.next()?.parse().ok()?,
            chain: parts.next()?.parse().ok()?,
        });
        let base = match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
            ("since", point, None, None) => BitmapBase::Since(sequence(point)?),
            ("scan", next, Some(round), None) => BitmapBase::Scan {
                next: sequence(next)?,
                round: number(round)?,
            },
            _ => return None,
        };
        Some(Self { identity, base })
    }
}

fn number(text: &str) -> Option<u64> {
    is_number(text).then(|| text.parse().ok()).flatten()
}

fn sequence(text: &str) -> Option<Sequence> {
    number(text).map(Sequence)
}

impl fmt::Display for BitmapName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{BITMAP_PREFIX}{:016x}.", self.identity.0)?;
        match self.base {
            BitmapBase::Since(point) => write!(out, "{}", point.0),
            BitmapBase::Scan { next, round } => write!(out, "{}.s{round}", next.0),
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
                identity: IdentityTag::of(IDENTITY),
                base,
            };
            assert_eq!(BitmapName::parse(&name.to_string()), Some(name));
            assert!(is_our_bitmap(&name.to_string()));
        }
    }

    #[test]
    fn long_names_of_earlier_versions_mean_the_same() {
        let TrackingIdentity { vault, chain } = IDENTITY;
        for (rest, base) in [
            ("since.5", BitmapBase::Since(Sequence(5))),
            (
                "scan.6.2",
                BitmapBase::Scan {
                    next: Sequence(6),
                    round: 2,
                },
            ),
        ] {
            let long = format!("farshore.{vault}.{chain}.{rest}");
            let identity = IdentityTag::of(IDENTITY);
            assert_eq!(BitmapName::parse(&long), Some(BitmapName { identity, base }));
            assert!(is_our_bitmap(&long));
        }
    }

    #[test]
    fn every_vault_and_chain_has_a_tag_of_its_own() {
        let others = [
            TrackingIdentity {
                vault: Incarnation::from_bytes([0xac; 16]),
                ..IDENTITY
            },
            TrackingIdentity {
                chain: ChainId::from_bytes([4; 16]),
                ..IDENTITY
            },
        ];
        for other in others {
            assert_ne!(IdentityTag::of(other), IdentityTag::of(IDENTITY));
        }
    }

    #[test]
    fn what_is_no_name_of_ours_is_not_taken_for_one() {
        let good = BitmapName {
            identity: IdentityTag::of(IDENTITY),
            base: BitmapBase::Since(Sequence(4)),
        }
        .to_string();
        for name in [
            "",
            "farshore.",
            "backup",
            &format!("{good}.5"),
            &format!("x{good}"),
            &good.replace("fs.", "fs.0"),
            &good.to_uppercase(),
            "fs.backup",
            "fs.0123456789abcdef.",
            "fs.0123456789abcdef.+4",
        ] {
            assert_eq!(BitmapName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn nodes_of_others_are_not_taken_for_ours() {
        let longest = NodeRole::Snapshot.node(VolumeIndex(u32::MAX));
        assert!(longest.len() <= 31);
        assert_eq!(NodeRole::of(&longest), Some(NodeRole::Snapshot));
        let third = wrapper_names(VolumeIndex(7)).nth(2).unwrap();
        assert_eq!(
            (third.as_str(), NodeRole::of(&third)),
            ("fs-w-7-2", Some(NodeRole::Wrapper))
        );
        for name in [
            "fs-c-7-2",
            "fs-w-7-2-1",
            "fs-w-7-",
            "fs-w-",
            "fs-w-x",
            "fs-root",
            "data",
            "xfs-w-1",
            "fs-b-1",
        ] {
            assert_eq!(NodeRole::of(name), None, "{name}");
        }
        assert!(is_our_identifier(&export_id(VolumeIndex(3))));
        assert!(!is_our_identifier("fs-x-mine"));
    }
}
