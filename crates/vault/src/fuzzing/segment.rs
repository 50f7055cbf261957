//! Files of frames, and groups by themselves.

use farshore_blocks::{ChainId, Incarnation};

use super::{field, scratch::Scratch};
use crate::{
    format::{GroupHeader, Identity, Position, SegmentName},
    layout::VaultLayout,
    segment::SegmentFile,
};

/// A segment or a pack, as its header says: the groups are walked through, and every payload is read.
pub fn segment(bytes: &[u8]) {
    let number = u32::from_le_bytes(field(bytes, 48));
    let name = match &field::<8>(bytes, 0) {
        b"FARSHPAK" => SegmentName::packed(number),
        _ => SegmentName::ingested(number),
    };
    let identity = identity_in(bytes);
    let scratch = Scratch::new();
    let layout = VaultLayout::new(scratch.path()).chain(identity.chain);
    scratch.put(&layout.segment(name), bytes);
    let Ok(file) = SegmentFile::open(&layout, identity, name) else {
        return;
    };
    let mut at = Position::beginning_of(number);
    while let Ok(Some(found)) = file.group_at(at.offset) {
        assert!(found.end.offset > at.offset, "a walk through the groups goes on");
        let end = u64::from(found.end.offset);
        assert!(
            end <= file.length().expect("it is there"),
            "a group lies in its file"
        );
        let written = found.group.encode(identity, at);
        let start = usize::try_from(at.offset).unwrap_or(usize::MAX);
        let stands = bytes.get(start..start.saturating_add(written.len()));
        assert!(
            stands == Some(written.as_slice()),
            "more than one form of a group is accepted"
        );
        let _ = file.check_payloads(&found);
        for (offset, frame) in found.frames() {
            if let Ok(read) = file.frame_at(offset, frame) {
                assert!(crc32fast::hash(read.raw()) == frame.crc32, "a frame is checked");
            }
        }
        for entry in found.entries(found.group.words.sequence) {
            let encoded = entry.encode_into(&mut Vec::new());
            assert!(encoded.is_ok(), "what a group says can be indexed: {encoded:?}");
        }
        at = found.end;
    }
    let _ = file.origins();
}

/// A group's header and tables.
pub fn group(bytes: &[u8]) {
    let at = Position {
        segment: u32::from_le_bytes(field(bytes, 48)),
        offset: u32::from_le_bytes(field(bytes, 52)),
    };
    let identity = identity_in(bytes);
    let Ok(header) = GroupHeader::decode(bytes, identity, at) else {
        return;
    };
    if let Ok(group) = header.group(bytes) {
        let written = group.encode(identity, at);
        assert!(
            bytes.get(..written.len()) == Some(written.as_slice()),
            "more than one form of a group is accepted"
        );
    }
}

/// Segments, runs and groups have their identity in the same place.
pub(super) fn identity_in(bytes: &[u8]) -> Identity {
    Identity {
        vault: Incarnation::from_bytes(field(bytes, 16)),
        chain: ChainId::from_bytes(field(bytes, 32)),
    }
}
