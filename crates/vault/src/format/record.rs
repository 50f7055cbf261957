//! A record: a JSON body in an envelope that says its kind and whose it is, and proves both.
//!
//! `description`, `epoch` and `open` are one record each; the log of points is records one after the other.

use farshore_blocks::{ChainId, Incarnation};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    FORMAT_VERSION, FormatError, Identity,
    fields::{check_crc32, checked_header, length_of, push_crc32},
};

pub(crate) const RECORD_MAGIC: [u8; 8] = *b"FARSHREC";
pub(super) const RECORD_HEADER_BYTES: usize = 68;

/// What a record's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Description,
    Epoch,
    Open,
    Point,
}

/// A record that was read.
#[derive(Debug)]
pub(crate) struct Decoded<Body> {
    pub(crate) body: Body,
    /// The point's sequence; 0 in records of other kinds.
    pub(crate) ordinal: u64,
    /// How many bytes header and body take.
    pub(crate) length: usize,
}

impl RecordKind {
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Description => 1,
            Self::Epoch => 2,
            Self::Open => 3,
            Self::Point => 4,
        }
    }
}

pub(crate) fn encode_record<Body: Serialize>(
    kind: RecordKind,
    identity: Identity,
    ordinal: u64,
    body: &Body,
) -> Result<Vec<u8>, FormatError> {
    let body = serde_json::to_vec(body).map_err(FormatError::Body)?;
    let length = u32::try_from(body.len()).map_err(|_| FormatError::Bounds { field: "body length" })?;
    let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES.saturating_add(body.len()));
    bytes.extend_from_slice(&RECORD_MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&kind.code().to_le_bytes());
    bytes.extend_from_slice(identity.incarnation.as_bytes());
    bytes.extend_from_slice(identity.chain.as_bytes());
    bytes.extend_from_slice(&ordinal.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    push_crc32(&mut bytes);
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Reads the record at the front of `bytes`; what follows it is left alone.
pub(crate) fn decode_record<Body: DeserializeOwned>(
    bytes: &[u8],
    kind: RecordKind,
    identity: Identity,
) -> Result<Decoded<Body>, FormatError> {
    let mut fields = checked_header(bytes, RECORD_HEADER_BYTES, RECORD_MAGIC, "a record")?;
    let found_kind = fields.u32()?;
    let incarnation = Incarnation::from_bytes(fields.array()?);
    let chain = ChainId::from_bytes(fields.array()?);
    let ordinal = fields.u64()?;
    let body_length = fields.u32()?;
    let body_crc32 = fields.u32()?;
    let length = RECORD_HEADER_BYTES.saturating_add(usize::try_from(body_length).unwrap_or(usize::MAX));
    let body = bytes
        .get(RECORD_HEADER_BYTES..length)
        .ok_or(FormatError::TooShort {
            expected: length_of(length),
            actual: length_of(bytes.len()),
        })?;
    check_crc32(body, body_crc32)?;
    let differing = [
        (found_kind != kind.code(), "kind"),
        (incarnation != identity.incarnation, "vault incarnation"),
        (chain != identity.chain, "chain"),
    ];
    if let Some((_, field)) = differing.into_iter().find(|(differs, _)| *differs) {
        return Err(FormatError::Identity { field });
    }
    Ok(Decoded {
        body: serde_json::from_slice(body).map_err(FormatError::Body)?,
        ordinal,
        length,
    })
}
