//! What proves points whose frames are no longer all there.
//!
//! Of a settled index, each entry belongs to the first retained point that is not before it. The entries of one point
//! give one digest: a chain of BLAKE3 over volume, start and length, and over sequence, frame start, raw length, crc32
//! and fingerprint. So the index cannot lose, gain or change an entry unnoticed, and each entry proves its bytes.

use farshore_blocks::{ByteCount, ByteOffset, ChangeDigest, ChangeHasher, Digest, Sequence};

use crate::entry::Entry;

/// The proof of what a point shows that the retained point before it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) sequence: Sequence,
    /// Over its entries: how many they are, and how many bytes show.
    pub(crate) shown: ChangeDigest,
    /// What its frames take, all those of which at least a byte shows.
    pub(crate) stored_bytes: ByteCount,
}

/// Takes in the entries of a settled index, in key order.
#[derive(Debug)]
pub(crate) struct Prover {
    points: Vec<(Sequence, ChangeHasher, ByteCount)>,
}

impl Prover {
    /// The sequences are those that were retained, oldest first.
    pub(crate) fn new(retained: impl IntoIterator<Item = Sequence>) -> Self {
        let blank = |sequence| (sequence, ChangeHasher::default(), ByteCount(0));
        Self {
            points: retained.into_iter().map(blank).collect(),
        }
    }

    /// Takes in an entry; one behind all points is none of theirs.
    pub(crate) fn see(&mut self, entry: &Entry) {
        if let Some((_, hasher, _)) = self.point_of(entry) {
            let start = ByteOffset(entry.start);
            let length = ByteCount(u64::from(entry.length));
            hasher.update(entry.volume, start, length, &words_of(entry));
        }
    }

    /// Takes in a frame that no entry before had.
    pub(super) fn see_frame(&mut self, entry: &Entry) {
        if let Some((_, _, stored)) = self.point_of(entry) {
            stored.0 = stored.0.saturating_add(u64::from(entry.place.stored_bytes));
        }
    }

    pub(crate) fn proofs(&self) -> Vec<Proof> {
        let proof = |(sequence, hasher, stored): &(Sequence, ChangeHasher, ByteCount)| Proof {
            sequence: *sequence,
            shown: hasher.digest(),
            stored_bytes: *stored,
        };
        self.points.iter().map(proof).collect()
    }

    fn point_of(&mut self, entry: &Entry) -> Option<&mut (Sequence, ChangeHasher, ByteCount)> {
        let index = self
            .points
            .partition_point(|(point, _, _)| *point < entry.sequence);
        self.points.get_mut(index)
    }
}

/// What else an entry says, in as many bytes as a digest has.
fn words_of(entry: &Entry) -> Digest {
    let place = &entry.place;
    let mut words = [0; 32];
    let fields = [
        entry.sequence.0.to_le_bytes().as_slice(),
        place.frame_start.to_le_bytes().as_slice(),
        place.raw_bytes.to_le_bytes().as_slice(),
        place.crc32.to_le_bytes().as_slice(),
        place.fingerprint.to_le_bytes().as_slice(),
    ]
    .concat();
    words
        .iter_mut()
        .zip(fields)
        .for_each(|(word, field)| *word = field);
    Digest::from_bytes(words)
}
