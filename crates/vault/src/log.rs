//! The log of points, and the rule that says what it and the `open` record mean together.
//!
//! A seal appends the point's record, syncs the log, and then removes `open`. So a crash can leave:
//!
//! | end of the log | `open` names | means |
//! |---|---|---|
//! | whole | nothing | idle |
//! | whole | the sequence after the newest point's | a cycle is being built |
//! | whole | the newest point's sequence | the seal was cut before it was confirmed: the record may not be durable |
//! | torn | the sequence after the newest point's | the seal was cut while its record was written |
//! | anything else | | damage |
//!
//! Without `open`, a last record that cannot be read is damage of an acknowledged point, never a torn write.

use std::{fs, path::Path};

use farshore_blocks::{Digest, Sequence};

use crate::{
    damage::FileError,
    format::{FormatError, Identity, RECORD_MAGIC, RecordKind, decode_record},
    records::PointRecord,
    storage::StorageError,
};

/// What a log holds.
#[derive(Debug)]
pub(crate) struct PointsLog {
    pub(crate) points: Vec<PointRecord>,
    /// Where the last whole record begins; 0 if there is none.
    pub(crate) last_start: u64,
    /// Where the last whole record ends.
    pub(crate) whole_bytes: u64,
    pub(crate) tail: Tail,
}

/// How a log ends.
#[derive(Debug)]
pub(crate) enum Tail {
    Whole,
    Torn(FormatError),
}

/// What a log and an `open` record mean together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Idle,
    Building,
    SealUnconfirmed,
    SealTorn,
}

impl PointsLog {
    /// Reads the log; a log that is not there is empty.
    pub(crate) fn read(path: &Path, identity: Identity) -> Result<Self, FileError> {
        let bytes = fs::read(path).map_err(|error| StorageError::new("read", path, error))?;
        Self::decode(&bytes, path, identity)
    }

    pub(crate) fn decode(bytes: &[u8], path: &Path, identity: Identity) -> Result<Self, FileError> {
        let mut log = Self {
            points: Vec::new(),
            last_start: 0,
            whole_bytes: 0,
            tail: Tail::Whole,
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let position = log.whole_bytes;
            let damaged = |source| FileError::damaged(path, position, source);
            match decode_record::<PointRecord>(rest, RecordKind::Point, identity) {
                Ok(record) => {
                    log.check_follows(&record.body, record.ordinal).map_err(damaged)?;
                    log.points.push(record.body);
                    log.last_start = position;
                    log.whole_bytes =
                        position.saturating_add(u64::try_from(record.length).unwrap_or(u64::MAX));
                    rest = rest.get(record.length..).unwrap_or_default();
                }
                Err(error) if holds_a_record(rest, identity) => return Err(damaged(error)),
                Err(error) => {
                    log.tail = Tail::Torn(error);
                    return Ok(log);
                }
            }
        }
        Ok(log)
    }

    pub(crate) fn newest(&self) -> Option<&PointRecord> {
        self.points.last()
    }

    fn newest_sequence(&self) -> Sequence {
        self.newest().map_or(Sequence::default(), |point| point.sequence)
    }

    /// What the log means beside an `open` record for the sequence `open`; `None` is a contradiction.
    pub(crate) fn standing(&self, open: Option<Sequence>) -> Option<Standing> {
        let newest = self.newest_sequence();
        match (&self.tail, open) {
            (Tail::Whole, None) => Some(Standing::Idle),
            (Tail::Whole, Some(open)) if open == newest.next() => Some(Standing::Building),
            (Tail::Whole, Some(open)) if open == newest && open != Sequence(0) => {
                Some(Standing::SealUnconfirmed)
            }
            (Tail::Torn(_), Some(open)) if open == newest.next() => Some(Standing::SealTorn),
            (Tail::Whole | Tail::Torn(_), _) => None,
        }
    }

    /// The damage that a contradiction stands for.
    pub(crate) fn contradiction(self, path: &Path) -> FileError {
        let source = match self.tail {
            Tail::Torn(error) => error,
            Tail::Whole => FormatError::Bounds {
                field: "newest sequence beside that of the open cycle",
            },
        };
        FileError::damaged(path, self.whole_bytes, source)
    }

    fn check_follows(&self, point: &PointRecord, ordinal: u64) -> Result<(), FormatError> {
        let parent = self.newest().map_or(Digest::default(), |newest| newest.digest);
        if ordinal != point.sequence.0 || point.sequence != self.newest_sequence().next() {
            return Err(FormatError::Identity { field: "sequence" });
        }
        if point.parent != parent {
            return Err(FormatError::Identity { field: "parent" });
        }
        Ok(())
    }
}

/// Whether a whole record lies anywhere behind the first byte. Only one record at a time is ever written without
/// being durable, so a bad record before a good one is damage and not a torn write.
fn holds_a_record(bytes: &[u8], identity: Identity) -> bool {
    let mut rest = bytes.get(1..).unwrap_or_default();
    while let Some(at) = rest
        .windows(RECORD_MAGIC.len())
        .position(|window| window == RECORD_MAGIC)
    {
        rest = rest.get(at..).unwrap_or_default();
        if decode_record::<PointRecord>(rest, RecordKind::Point, identity).is_ok() {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}
