//! A node of a run: 8192 bytes, little-endian.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `FRNN` |
//! | 4 | 1 | level: 0 is a leaf |
//! | 5 | 1 | reserved, 0 |
//! | 6 | 2 | count of entries or children |
//! | 8 | 8 | run number |
//! | 16 | 8 | own position in the file |
//! | 24 | 4 | reserved, 0 |
//! | 28 | 4 | crc32 over the node, this field taken as 0, then incarnation and chain |
//! | 32 | 8160 | up to 170 entries of 48 bytes, or up to 291 children of 28 bytes; the rest is 0 |
//!
//! A child: its first entry's volume (2), chunk (6) and sequence (8), its position (8), its crc32 (4).

use farshore_blocks::{Sequence, VolumeIndex};

use crate::{
    entry::{ENTRY_BYTES, Entry, Order, VersionKey},
    format::{FormatError, Identity},
};

pub(super) const NODE_BYTES: usize = 8192;
/// The same, as a distance in a file.
pub(super) const NODE_LENGTH: u64 = 8192;
const NODE_HEADER_BYTES: usize = 32;
const COVERED_HEADER_BYTES: usize = 28;
const CONTENT_BYTES: usize = NODE_BYTES - NODE_HEADER_BYTES;
pub(super) const ENTRIES_PER_LEAF: usize = CONTENT_BYTES / ENTRY_BYTES;
const CHILD_BYTES: usize = 28;
pub(super) const CHILDREN_PER_NODE: usize = CONTENT_BYTES / CHILD_BYTES;
const MAGIC: [u8; 4] = *b"FRNN";

/// A decoded node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) crc32: u32,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Leaf(Vec<Entry>),
    Inner(Vec<Child>),
}

/// What a parent says of its child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Child {
    /// Of its first entry.
    pub(super) first: VersionKey,
    pub(super) position: u64,
    pub(super) crc32: u32,
}

/// Where a node is, or is to be; it is valid nowhere else.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodePlace {
    pub(super) identity: Identity,
    pub(super) number: u64,
    pub(super) position: u64,
    pub(super) level: u8,
}

impl Node {
    /// Reads the node at `place`, which must have this checksum.
    pub(super) fn decode(
        bytes: &[u8; NODE_BYTES],
        place: &NodePlace,
        expected: u32,
    ) -> Result<Self, FormatError> {
        let mut rest = bytes.as_slice();
        if take::<4>(&mut rest)? != MAGIC {
            return Err(FormatError::Magic {
                expected: "a node of an index run",
            });
        }
        let [level, reserved] = take(&mut rest)?;
        let count = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let number = u64::from_le_bytes(take(&mut rest)?);
        let position = u64::from_le_bytes(take(&mut rest)?);
        let more_reserved: [u8; 4] = take(&mut rest)?;
        let stored = u32::from_le_bytes(take(&mut rest)?);
        let header = bytes.get(..COVERED_HEADER_BYTES).unwrap_or_default();
        let actual = node_crc32(header, rest, &[], place.identity);
        if actual != stored {
            return Err(FormatError::Checksum {
                expected: stored,
                actual,
            });
        }
        let differing = [
            (actual != expected, "checksum named by its parent"),
            (number != place.number, "run number"),
            (position != place.position, "position"),
            (level != place.level, "level"),
        ];
        if let Some((_, field)) = differing.into_iter().find(|(differs, _)| *differs) {
            return Err(FormatError::Identity { field });
        }
        if reserved != 0 || more_reserved != [0; 4] {
            return Err(bounds("reserved bytes"));
        }
        let content = match level {
            0 => Content::Leaf(decode_entries(rest, count)?),
            1.. => Content::Inner(decode_children(rest, count)?),
        };
        Ok(Self {
            crc32: stored,
            content,
        })
    }

    /// The version of its first entry.
    pub(super) fn first(&self) -> Option<VersionKey> {
        match &self.content {
            Content::Leaf(entries) => entries.first().map(Entry::version),
            Content::Inner(children) => children.first().map(|child| child.first),
        }
    }

    /// What it takes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        let content = match &self.content {
            Content::Leaf(entries) => entries.capacity().saturating_mul(size_of::<Entry>()),
            Content::Inner(children) => children.capacity().saturating_mul(size_of::<Child>()),
        };
        content.saturating_add(size_of::<Self>())
    }
}

impl Child {
    /// Appends its bytes. Its first entry was encoded before, so that volume and chunk fit.
    pub(super) fn encode_into(&self, bytes: &mut Vec<u8>) {
        let volume = u16::try_from(self.first.volume.0).unwrap_or(u16::MAX);
        let place = (self.first.chunk << 16) | u64::from(volume);
        bytes.extend_from_slice(&place.to_le_bytes());
        bytes.extend_from_slice(&self.first.sequence.0.0.to_le_bytes());
        bytes.extend_from_slice(&self.position.to_le_bytes());
        bytes.extend_from_slice(&self.crc32.to_le_bytes());
    }

    fn decode(bytes: &[u8; CHILD_BYTES]) -> Result<Self, FormatError> {
        let mut rest = bytes.as_slice();
        let volume = u16::from_le_bytes(take(&mut rest)?);
        let [a, b, c, d, e, f] = take(&mut rest)?;
        let chunk = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let sequence = Sequence(u64::from_le_bytes(take(&mut rest)?));
        Ok(Self {
            first: VersionKey::new(VolumeIndex(u32::from(volume)), chunk, sequence),
            position: u64::from_le_bytes(take(&mut rest)?),
            crc32: u32::from_le_bytes(take(&mut rest)?),
        })
    }
}

/// Appends the node with this content (at most [`CONTENT_BYTES`]) to `bytes` and gives its checksum.
pub(super) fn encode_node(place: &NodePlace, count: usize, content: &[u8], bytes: &mut Vec<u8>) -> u32 {
    let mut header = Vec::with_capacity(NODE_HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&[place.level, 0]);
    header.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    header.extend_from_slice(&place.number.to_le_bytes());
    header.extend_from_slice(&place.position.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    let padding = vec![0; CONTENT_BYTES.saturating_sub(content.len())];
    let crc32 = node_crc32(&header, content, &padding, place.identity);
    header.extend_from_slice(&crc32.to_le_bytes());
    for part in [header.as_slice(), content, padding.as_slice()] {
        bytes.extend_from_slice(part);
    }
    crc32
}

fn node_crc32(header: &[u8], content: &[u8], padding: &[u8], identity: Identity) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(&[0; 4]);
    hasher.update(content);
    hasher.update(padding);
    hasher.update(identity.vault.as_bytes());
    hasher.update(identity.chain.as_bytes());
    hasher.finalize()
}

fn decode_entries(content: &[u8], count: usize) -> Result<Vec<Entry>, FormatError> {
    let (items, _) = filled(content, count, ENTRY_BYTES)?.as_chunks();
    // Collecting results would guess the length and grow past it; what is cached should be no larger than it has to.
    let mut entries = Vec::with_capacity(items.len());
    let mut order = Order::default();
    for item in items {
        let entry = Entry::decode(item)?;
        if !order.follows(&entry) {
            return Err(bounds("order"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_children(content: &[u8], count: usize) -> Result<Vec<Child>, FormatError> {
    let (items, _) = filled(content, count, CHILD_BYTES)?.as_chunks();
    let mut children = Vec::with_capacity(items.len());
    for item in items {
        children.push(Child::decode(item)?);
    }
    if children.is_empty() {
        Err(bounds("count"))
    } else if children.is_sorted_by_key(|child: &Child| child.first) {
        Ok(children)
    } else {
        Err(bounds("order"))
    }
}

/// The part of a node's content that `count` items take; what is behind it must be zero.
fn filled(content: &[u8], count: usize, item_bytes: usize) -> Result<&[u8], FormatError> {
    let (items, padding) = content
        .split_at_checked(count.saturating_mul(item_bytes))
        .ok_or_else(|| bounds("count"))?;
    if padding.iter().all(|byte| *byte == 0) {
        Ok(items)
    } else {
        Err(bounds("padding"))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FormatError> {
    let (taken, behind) = rest.split_first_chunk::<N>().ok_or_else(|| bounds("length"))?;
    *rest = behind;
    Ok(*taken)
}

fn bounds(field: &'static str) -> FormatError {
    FormatError::Bounds { field }
}
