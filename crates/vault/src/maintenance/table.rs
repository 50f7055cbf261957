//! The table that a settled run carries as its attachment: what of each segment is needed, and the proofs of the
//! points that were retained. Little-endian; its checksum is in the run's summary.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `FARSHSE2` |
//! | 4 | format version |
//! | 4, 4 | segment and offset behind which the groups of unsettled points begin |
//! | 4 | number of segments, then for each: |
//! | 4, 8, 8, 8 | segment; frames and stored bytes that are needed; frames of zeroes that are |
//! | 4 | number of proofs, then for each, oldest first: |
//! | 8, 8 | sequence; stored bytes of its frames |
//! | 8, 8, 32 | entries, bytes that show, digest |
//!
//! Earlier builds wrote `FARSHSET`, and did not count the frames of zeroes.

use std::collections::BTreeMap;

use farshore_blocks::{ByteCount, ChangeDigest, Digest, Sequence};

use super::{proofs::Proof, usage::Usage};
use crate::{
    damage::FileError,
    format::{
        FORMAT_VERSION, FormatError, Position,
        fields::{Fields, header},
    },
    layout::ChainLayout,
    tree::Run,
};

const MAGIC: [u8; 8] = *b"FARSHSE2";
/// As it was before frames of zeroes were counted.
const MAGIC_WITHOUT_ZEROES: [u8; 8] = *b"FARSHSET";

/// What a settled run says of the chain's files and points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SettledTable {
    /// All groups before it are of settled points.
    pub(crate) through: Position,
    /// By the segment in which the frames were ingested.
    pub(crate) usage: BTreeMap<u32, Usage>,
    /// Oldest first.
    pub(crate) proofs: Vec<Proof>,
}

impl Default for SettledTable {
    fn default() -> Self {
        Self {
            through: Position::START,
            usage: BTreeMap::new(),
            proofs: Vec::new(),
        }
    }
}

impl SettledTable {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = header(MAGIC);
        bytes.u32(self.through.segment).u32(self.through.offset);
        bytes.list(self.usage.iter(), |bytes, (segment, usage)| {
            bytes.u32(*segment).u64(usage.frames).u64(usage.stored_bytes);
            bytes.u64(usage.zero_frames);
        });
        bytes.list(self.proofs.iter(), |bytes, proof| {
            bytes.u64(proof.sequence.0).u64(proof.stored_bytes.0);
            bytes
                .u64(proof.shown.frames)
                .u64(proof.shown.bytes.0)
                .array(proof.shown.digest.as_bytes());
        });
        bytes.done()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        let counts_zeroes = match fields.array::<8>()? {
            MAGIC => true,
            MAGIC_WITHOUT_ZEROES => false,
            _ => {
                let expected = "the table of a settled run";
                return Err(FormatError::Magic { expected });
            }
        };
        let version = fields.u32()?;
        if version != FORMAT_VERSION {
            return Err(FormatError::Version { actual: version });
        }
        let through = Position {
            segment: fields.u32()?,
            offset: fields.u32()?,
        };
        let usage = fields.list(20, |fields| {
            let segment = fields.u32()?;
            let frames = fields.u64()?;
            let stored_bytes = fields.u64()?;
            let zero_frames = if counts_zeroes { fields.u64()? } else { 0 };
            let usage = Usage {
                frames,
                stored_bytes,
                zero_frames,
            };
            Ok((segment, usage))
        })?;
        let proofs = fields.list(64, proof)?;
        fields.end()?;
        if !proofs.is_sorted_by(|earlier, later| earlier.sequence < later.sequence) {
            return Err(FormatError::Bounds {
                field: "order of points",
            });
        }
        Ok(Self {
            through,
            usage: usage.into_iter().collect(),
            proofs,
        })
    }

    /// The table of a settled run.
    pub(crate) fn of(run: &Run, layout: &ChainLayout) -> Result<Self, FileError> {
        let summary = run.summary();
        let damaged =
            |error| FileError::damaged(&layout.run(summary.number), summary.attachment.position, error);
        Self::decode(&run.attachment()?).map_err(damaged)
    }
}

fn proof(fields: &mut Fields<'_>) -> Result<Proof, FormatError> {
    Ok(Proof {
        sequence: Sequence(fields.u64()?),
        stored_bytes: ByteCount(fields.u64()?),
        shown: ChangeDigest {
            frames: fields.u64()?,
            bytes: ByteCount(fields.u64()?),
            digest: Digest::from_bytes(fields.array()?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> SettledTable {
        let proof = |sequence| Proof {
            sequence: Sequence(sequence),
            shown: ChangeDigest {
                frames: 3,
                bytes: ByteCount(4),
                digest: Digest::of(b"entries"),
            },
            stored_bytes: ByteCount(9),
        };
        let usage = Usage {
            frames: 1,
            stored_bytes: 2,
            zero_frames: 5,
        };
        SettledTable {
            through: Position {
                segment: 4,
                offset: 8192,
            },
            usage: BTreeMap::from([(1, usage), (3, usage)]),
            proofs: vec![proof(2), proof(7)],
        }
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        assert_eq!(SettledTable::decode(&table().encode()).unwrap(), table());
    }

    #[test]
    fn a_table_that_is_cut_or_grew_or_is_out_of_order_is_refused() {
        let whole = table().encode();
        for length in 0..whole.len() {
            assert!(SettledTable::decode(&whole[..length]).is_err());
        }
        assert!(SettledTable::decode(&[whole.as_slice(), &[0]].concat()).is_err());
        let mut other = table();
        other.proofs.reverse();
        assert!(SettledTable::decode(&other.encode()).is_err());
    }
}
