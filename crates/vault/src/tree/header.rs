//! The 4096 bytes at the front of a run's file, little-endian.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `FARSHRUN` |
//! | 8 | 4 | format version |
//! | 12 | 4 | reserved, 0 |
//! | 16 | 16 | incarnation |
//! | 32 | 16 | chain |
//! | 48 | 8 | run number |
//! | 56 | 4 | crc32 over all before it |
//! | 60 | 4036 | reserved, 0 |

use crate::format::{FORMAT_VERSION, FormatError, Identity};

pub(super) const HEADER_BYTES: usize = 4096;
/// The position of the first node.
pub(super) const FIRST_NODE: u64 = 4096;
const MAGIC: [u8; 8] = *b"FARSHRUN";

pub(super) fn encode_header(identity: Identity, number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(identity.vault.as_bytes());
    bytes.extend_from_slice(identity.chain.as_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    let crc32 = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc32.to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes
}

/// Whether these bytes are the header of just this run: all of them are known beforehand, so all are compared.
pub(super) fn check_header(
    bytes: &[u8; HEADER_BYTES],
    identity: Identity,
    number: u64,
) -> Result<(), FormatError> {
    let field = |at: usize, length: usize| bytes.get(at..at.saturating_add(length)).unwrap_or_default();
    if field(0, 8) != MAGIC.as_slice() {
        return Err(FormatError::Magic {
            expected: "an index run",
        });
    }
    let version = u32_of(field(8, 4));
    if version != FORMAT_VERSION {
        return Err(FormatError::Version { actual: version });
    }
    let (expected, actual) = (u32_of(field(56, 4)), crc32fast::hash(field(0, 56)));
    if actual != expected {
        return Err(FormatError::Checksum { expected, actual });
    }
    let differing = [
        (field(16, 16) != identity.vault.as_bytes(), "vault incarnation"),
        (field(32, 16) != identity.chain.as_bytes(), "chain"),
        (field(48, 8) != number.to_le_bytes(), "run number"),
    ];
    if let Some((_, field)) = differing.into_iter().find(|(differs, _)| *differs) {
        return Err(FormatError::Identity { field });
    }
    if bytes.as_slice() != encode_header(identity, number) {
        return Err(FormatError::Bounds {
            field: "reserved bytes",
        });
    }
    Ok(())
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |field: &[u8; 4]| u32::from_le_bytes(*field))
}
