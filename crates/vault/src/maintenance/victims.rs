//! Which files are compacted. Pure.
//!
//! What is dead in a file is what a pack of its live frames would not take. While more than 15 % of the chain's bytes
//! are dead, files are taken by their dead share, the largest first and none below 10 %, until their live frames
//! fill one pack. So the files of a pack are at least as dead, taken together, as all that could have been taken.
//!
//! Packs that are not half full come along where there is room, but never more of them than of the others: what is
//! in a small pack is written again only when the pack at least doubles, and small packs do not pile up.

use super::usage::Usage;
use crate::format::SegmentName;

/// Of the chain's bytes, how much may be dead.
pub(super) const DEAD_PERCENT: u64 = 15;
/// Of its bytes, how much of a file has to be dead at least.
pub(super) const LEAST_DEAD_PERCENT: u64 = 10;
/// How many frames are collected by one scan of the index, at most, unless one pack has more: about 100 MiB.
const MOST_FRAMES: u64 = 1 << 20;

/// A file that could be compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: SegmentName,
    pub(super) bytes: u64,
    pub(super) live: Usage,
}

/// Files whose live frames go to one pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) victims: Vec<Candidate>,
    pub(super) live: Usage,
}

impl Candidate {
    fn dead_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.live.packed_bytes())
    }

    fn is_dead_enough(&self) -> bool {
        self.dead_bytes().saturating_mul(100) >= self.bytes.saturating_mul(LEAST_DEAD_PERCENT)
    }

    /// Per 2^32 of its bytes.
    fn dead_share(&self) -> u128 {
        (u128::from(self.dead_bytes()) << 32) / u128::from(self.bytes.max(1))
    }
}

impl Batch {
    fn take(&mut self, victim: Candidate) {
        self.live = self.live.plus(victim.live);
        self.victims.push(victim);
    }

    /// How many bytes the victims have.
    pub(super) fn bytes(&self) -> u64 {
        self.victims
            .iter()
            .fold(0, |sum, victim| sum.saturating_add(victim.bytes))
    }
}

/// Chooses what is to be compacted, in the order in which it should be. The candidates have live frames; the
/// chain's bytes are those of all its files.
pub(super) fn choose(chain_bytes: u64, candidates: &[Candidate], pack_bytes: u64) -> Vec<Batch> {
    let mut left = candidates.to_vec();
    left.sort_by_key(|candidate| (std::cmp::Reverse(candidate.dead_share()), candidate.name));
    let mut total = chain_bytes;
    let mut dead = left
        .iter()
        .fold(0u64, |sum, candidate| sum.saturating_add(candidate.dead_bytes()));
    let mut frames: u64 = 0;
    let mut batches = Vec::new();
    while dead.saturating_mul(100) > total.saturating_mul(DEAD_PERCENT) {
        let batch = next_batch(&mut left, pack_bytes);
        let gain = batch.bytes().saturating_sub(batch.live.packed_bytes());
        frames = frames.saturating_add(batch.live.all_frames());
        if gain == 0 || (frames > MOST_FRAMES && !batches.is_empty()) {
            break;
        }
        total = total.saturating_sub(gain);
        dead = dead.saturating_sub(
            batch
                .victims
                .iter()
                .fold(0, |sum, victim| sum.saturating_add(victim.dead_bytes())),
        );
        batches.push(batch);
    }
    batches
}

fn next_batch(left: &mut Vec<Candidate>, pack_bytes: u64) -> Batch {
    let mut batch = Batch::default();
    while let Some(candidate) = left.first().copied().filter(Candidate::is_dead_enough) {
        let together = batch.live.plus(candidate.live).packed_bytes();
        if !batch.victims.is_empty() && together > pack_bytes {
            return batch;
        }
        batch.take(candidate);
        left.remove(0);
    }
    if !batch.victims.is_empty() {
        add_small_packs(&mut batch, left, pack_bytes);
    }
    batch
}

fn add_small_packs(batch: &mut Batch, left: &mut Vec<Candidate>, pack_bytes: u64) {
    let most = batch.live.packed_bytes();
    let mut added = Usage::default();
    let mut small: Vec<_> = left
        .iter()
        .filter(|candidate| is_small_pack(candidate, pack_bytes))
        .copied()
        .collect();
    small.sort_by_key(|candidate| (candidate.live.stored_bytes, candidate.name));
    for candidate in small {
        added = added.plus(candidate.live);
        if added.packed_bytes() > most || batch.live.plus(candidate.live).packed_bytes() > pack_bytes {
            return;
        }
        left.retain(|other| other.name != candidate.name);
        batch.take(candidate);
    }
}

fn is_small_pack(candidate: &Candidate, pack_bytes: u64) -> bool {
    match candidate.name.kind {
        crate::format::SegmentKind::Packed => candidate.bytes <= pack_bytes / 2,
        crate::format::SegmentKind::Ingested => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A file of 100 MiB of which so many are live, in frames of 64 KiB.
    fn segment(number: u32, live_mib: u64) -> Candidate {
        file(SegmentName::ingested(number), 100, live_mib)
    }

    fn file(name: SegmentName, mib: u64, live_mib: u64) -> Candidate {
        Candidate {
            name,
            bytes: mib * MIB,
            live: Usage {
                frames: live_mib * 16,
                stored_bytes: live_mib * MIB,
                zero_frames: 0,
            },
        }
    }

    fn names(batch: &Batch) -> Vec<SegmentName> {
        batch.victims.iter().map(|victim| victim.name).collect()
    }

    #[test]
    fn a_chain_that_is_mostly_alive_is_left_alone() {
        let candidates = [segment(1, 86), segment(2, 86)];
        assert_eq!(choose(200 * MIB, &candidates, 256 * MIB), []);
        // Only one of ten files is dead, and it is not much of the chain.
        assert_eq!(choose(1000 * MIB, &[segment(1, 10)], 256 * MIB), []);
    }

    #[test]
    fn the_deadest_files_come_first_until_a_pack_is_full() {
        let candidates = [segment(1, 80), segment(2, 20), segment(3, 60), segment(4, 95)];
        let batches = choose(400 * MIB, &candidates, 90 * MIB);
        assert_eq!(names(&batches[0]), [2, 3].map(SegmentName::ingested));
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].live.stored_bytes, 80 * MIB);
    }

    #[test]
    fn small_packs_come_along_but_not_more_of_them_than_of_the_others() {
        let pack = |number, mib| file(SegmentName::packed(number), mib, mib - 1);
        let candidates = [segment(1, 30), pack(1, 25), pack(2, 26), pack(3, 120)];
        let batches = choose(271 * MIB, &candidates, 200 * MIB);
        let chosen = [SegmentName::ingested(1), SegmentName::packed(1)];
        assert_eq!(names(&batches[0]), chosen);
    }

    #[test]
    fn what_was_packed_is_not_packed_again() {
        let live = Usage {
            frames: 3,
            stored_bytes: 9_000,
            zero_frames: 2,
        };
        let name = SegmentName::packed(1);
        let packed = Candidate {
            name,
            bytes: live.packed_bytes(),
            live,
        };
        assert_eq!(choose(packed.bytes, &[packed], 20_000), []);
    }
}
