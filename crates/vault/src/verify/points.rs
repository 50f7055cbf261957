//! The walk through the segments: what was sealed is what is there.

use std::{collections::BTreeMap, sync::Arc};

use farshore_blocks::{ByteCount, ByteOffset, ChangeHasher, Sequence, VolumeIndex, point_digest};

use super::{ChainProof, Problem, ProblemKind};
use crate::{
    damage::FileError,
    format::{Position, SegmentKind, SegmentName},
    records::PointRecord,
    segment::{FoundGroup, SegmentFile},
};

/// The proofs of points whose frames are being walked through.
type Hashers = BTreeMap<Sequence, Vec<ChangeHasher>>;

impl ChainProof<'_> {
    /// Proves every point that was not settled by its frames; the others are proven by the index.
    pub(super) fn prove_points(&mut self) {
        let mut hashers = Hashers::new();
        let segments = self
            .state
            .segments
            .iter()
            .map(|number| SegmentName::ingested(*number));
        let packs = self.state.packs.keys().map(|number| SegmentName::packed(*number));
        let files: Vec<_> = segments.chain(packs).collect();
        for name in files {
            self.walk(name, &mut hashers);
        }
        let settled = self.state.settled_through;
        let points: Vec<_> = self.state.points().cloned().collect();
        for point in points {
            let blank = vec![ChangeHasher::default(); self.volumes_of(point.sequence)];
            let proven = hashers.remove(&point.sequence).unwrap_or(blank);
            match self.prove_point(&point, (point.sequence > settled).then_some(&proven)) {
                Ok(()) => self.report.points = self.report.points.saturating_add(1),
                Err(problem) => self.found(problem.of(point.sequence)),
            }
        }
    }

    fn walk(&mut self, name: SegmentName, hashers: &mut Hashers) {
        let opened = SegmentFile::open(&self.layout, self.identity, name);
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                return self.found_at(
                    Position {
                        segment: name.number,
                        offset: 0,
                    },
                    name,
                    error,
                );
            }
        };
        let mut at = Position::beginning_of(name.number);
        let limit = self.state.tail;
        while name.kind == SegmentKind::Packed || at < limit {
            match file.group_at(at.offset) {
                Ok(Some(found)) => {
                    at = found.end;
                    self.prove_group(&file, &found, hashers);
                }
                Ok(None) => break,
                // Where the next group begins is not known.
                Err(error) => return self.found_at(at, name, error),
            }
        }
        // A segment that ends too early: where the frames of points end the journal knows.
        if let Some(end) = self.known_end(name).filter(|end| at.offset < *end) {
            let (expected, actual) = (u64::from(end), u64::from(at.offset));
            let error = crate::format::FormatError::TooShort { expected, actual };
            self.found_at(at, name, FileError::damaged(file.path(), actual, error));
        }
    }

    /// Where the frames of points end in a file.
    fn known_end(&self, name: SegmentName) -> Option<u32> {
        let (tail, ends) = (self.state.tail, self.state.ends.as_ref());
        match name.kind {
            SegmentKind::Ingested if name.number == tail.segment => Some(tail.offset),
            SegmentKind::Ingested => ends.and_then(|ends| ends.get(&name.number)).copied(),
            SegmentKind::Packed => None,
        }
    }

    /// Proves the payloads of a group of a point that was not settled. To those of settled ones the index leads, where a
    /// point needs them: that the others are damaged is told last.
    fn prove_group(&mut self, file: &SegmentFile, found: &FoundGroup, hashers: &mut Hashers) {
        let sequence = found.group.words.sequence;
        let sealed = self.state.point(sequence).cloned();
        let given_up = sealed
            .as_ref()
            .is_some_and(|point| point.cycle != found.group.words.cycle);
        if sequence <= self.state.settled_through || given_up || !found.group.origins.is_empty() {
            self.unneeded.extend(file.check_payloads(found).err());
            return;
        }
        self.tell(sequence);
        let description = Arc::clone(self.state.descriptions.at(sequence));
        let volumes = description.volumes.len();
        let hashers = hashers
            .entry(sequence)
            .or_insert_with(|| vec![ChangeHasher::default(); volumes]);
        let mut end = found.at.offset;
        for (offset, stored) in found.frames() {
            end = offset.saturating_add(stored.stored_bytes);
            let (volume, start) = (stored.volume, stored.extent.start());
            let size = description
                .volumes
                .get(volume.as_usize())
                .map_or(0, |volume| volume.size.0);
            let proven = match hashers.get_mut(volume.as_usize()) {
                Some(hasher) if stored.extent.end().0 <= size => file.frame_at(offset, stored).map(|frame| {
                    hasher.update(volume, start, frame.raw_length(), &frame.raw_digest());
                    frame.raw_length()
                }),
                Some(_) | None => {
                    let problem = Problem::at(volume, start, ProblemKind::OutOfBounds);
                    self.found(problem.of(self.first_shown(sequence)));
                    continue;
                }
            };
            match proven {
                Ok(length) => self.count(length),
                Err(error) => {
                    let problem = Problem::at(volume, start, ProblemKind::File(error));
                    self.found(problem.of(self.first_shown(sequence)));
                }
            }
        }
        if end > found.at.offset
            && let Err(error) = file.check_padding(end, found.end.offset)
        {
            self.found(Problem::from(error).of(self.first_shown(sequence)));
        }
    }

    fn volumes_of(&self, point: Sequence) -> usize {
        self.state.descriptions.at(point).volumes.len()
    }

    /// Tells of what is damaged and was not come upon by what points show: bytes that none needs any more.
    pub(super) fn tell_unneeded(&mut self) {
        for error in std::mem::take(&mut self.unneeded) {
            let is_same = |problem: &Problem| match (&problem.kind, &error) {
                (ProblemKind::File(FileError::Damaged(known)), FileError::Damaged(found)) => {
                    (&known.path, known.position) == (&found.path, found.position)
                }
                (_, FileError::Damaged(_)) => false,
                // What cannot be read now was perhaps read by the other walk.
                (_, FileError::Storage(_)) => true,
            };
            if !self.report.problems.iter().any(is_same) {
                self.found(Problem::from(error));
            }
        }
    }

    fn count(&mut self, length: ByteCount) {
        self.report.frames = self.report.frames.saturating_add(1);
        self.report.bytes = ByteCount(self.report.bytes.0.saturating_add(length.0));
    }

    fn prove_point(&self, point: &PointRecord, proven: Option<&Vec<ChangeHasher>>) -> Result<(), Problem> {
        let volumes = self.volumes_of(point.sequence);
        for ((volume, hasher), sealed) in (0..).zip(proven.into_iter().flatten()).zip(&point.changes) {
            let (actual, sealed) = (hasher.digest(), *sealed);
            // Where a frame is known to be damaged, that its volume's digest differs says nothing more.
            let known = self.report.problems.iter().any(|problem| {
                problem.point == point.sequence && problem.volume == Some(VolumeIndex(volume))
            });
            if actual != sealed && !known {
                let (actual, sealed) = (Box::new(actual), Box::new(sealed));
                let kind = ProblemKind::ChangeDigest { actual, sealed };
                let volume = Some(VolumeIndex(volume));
                return Err(Problem {
                    volume,
                    ..Problem::somewhere(kind)
                });
            }
        }
        let actual = point_digest(&point.parent, &point.machine, &point.changes);
        if actual != point.digest || point.changes.len() != volumes {
            let sealed = point.digest;
            return Err(Problem::somewhere(ProblemKind::PointDigest { actual, sealed }));
        }
        Ok(())
    }

    /// Tells of damage behind `at`, by what the index says lies there.
    fn found_at(&mut self, at: Position, name: SegmentName, error: FileError) {
        let behind = |segment, position| match name.kind {
            SegmentKind::Ingested => segment == name.number && position >= at.offset,
            SegmentKind::Packed => self
                .state
                .packs
                .get(&name.number)
                .is_some_and(|holds| holds.contains(&segment)),
        };
        let hit = self.first_entry_where(|place| behind(place.segment, place.position));
        let kind = ProblemKind::File(error);
        let problem = match hit {
            Some(entry) => {
                Problem::at(entry.volume, ByteOffset(entry.start), kind).of(self.first_shown(entry.sequence))
            }
            None => Problem::somewhere(kind).of(self.state.newest_sequence()),
        };
        self.found(problem);
    }
}
