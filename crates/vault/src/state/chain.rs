//! The state of one chain.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use farshore_blocks::{Digest, Epoch, Sequence, clock::WallTime};

use super::{Contradiction, Descriptions};
use crate::{
    edit::{ChainEdit, ChainLayoutWords, IndexChange, PackChange, SealedPoint},
    format::{Position, SegmentName},
    records::{BasePoint, ChainDescription, Gap, OpenCycle, Pin, PointRecord},
    retention::RetentionPolicy,
    tree::RunSummary,
};

/// More segments than one cycle ever fills: 256 TiB.
const MOST_SEGMENTS_OF_A_CYCLE: u32 = 1 << 20;

/// One chain, as the journal tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChainState {
    pub(crate) descriptions: Descriptions,
    pub(crate) epoch: Option<Epoch>,
    points: BTreeMap<Sequence, Arc<PointRecord>>,
    /// Dropped points, by the first of each gap; gaps never touch one another.
    gaps: BTreeMap<Sequence, Gap>,
    pub(crate) pins: BTreeMap<Sequence, Pin>,
    pub(crate) retention: Option<RetentionPolicy>,
    pub(crate) still_valid: Option<WallTime>,
    /// All frames of sealed points lie before it.
    pub(crate) tail: Position,
    /// All groups before it are in the runs.
    pub(crate) indexed_through: Position,
    /// The cycle that was open at `indexed_through`.
    pub(crate) open: Option<OpenCycle>,
    /// Oldest first.
    pub(crate) runs: Vec<RunSummary>,
    /// The points up to it were thinned: of those before it, only what retained points show is still there.
    pub(crate) settled_through: Sequence,
    /// Those that hold frames of sealed points and were not packed.
    pub(crate) segments: BTreeSet<u32>,
    /// Each pack with the segments that it holds frames of.
    pub(crate) packs: BTreeMap<u32, Vec<u32>>,
    pub(crate) next_run: u64,
    pub(crate) next_pack: u32,
    /// Where the groups of points end in each segment before the tail's. None of chains that an earlier build created: it
    /// kept nowhere else what their index says.
    pub(crate) ends: Option<BTreeMap<u32, u32>>,
}

impl ChainState {
    pub(crate) fn new(description: ChainDescription) -> Self {
        Self {
            descriptions: Descriptions::new(description),
            epoch: None,
            points: BTreeMap::new(),
            gaps: BTreeMap::new(),
            pins: BTreeMap::new(),
            retention: None,
            still_valid: None,
            tail: Position::START,
            indexed_through: Position::START,
            open: None,
            runs: Vec::new(),
            settled_through: Sequence(0),
            segments: BTreeSet::new(),
            packs: BTreeMap::new(),
            next_run: 1,
            next_pack: 1,
            ends: None,
        }
    }

    /// The retained points, oldest first.
    pub(crate) fn points(&self) -> impl DoubleEndedIterator<Item = &Arc<PointRecord>> {
        self.points.values()
    }

    pub(crate) fn point(&self, sequence: Sequence) -> Option<&Arc<PointRecord>> {
        self.points.get(&sequence)
    }

    pub(crate) fn newest(&self) -> Option<&Arc<PointRecord>> {
        self.points.values().next_back()
    }

    pub(crate) fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.values()
    }

    /// The sequence of the newest point; 0 if there is none.
    pub(crate) fn newest_sequence(&self) -> Sequence {
        self.newest().map_or(Sequence(0), |newest| newest.sequence)
    }

    /// The volumes as the newest point has them; while there is none, as the first one will.
    pub(crate) fn description(&self) -> Arc<ChainDescription> {
        let described = match self.newest() {
            Some(newest) => self.descriptions.at(newest.sequence),
            None => self.descriptions.latest(),
        };
        Arc::clone(described)
    }

    /// The newest point, as the base of the next cycle.
    pub(crate) fn base(&self) -> Option<BasePoint> {
        self.newest().map(|newest| newest.as_base())
    }

    /// The file that holds what was ingested in `segment`; none if all of it was dead.
    pub(crate) fn home_of(&self, segment: u32) -> Option<SegmentName> {
        if self.segments.contains(&segment) {
            return Some(SegmentName::ingested(segment));
        }
        let pack = self.packs.iter().find(|(_, holds)| holds.contains(&segment));
        pack.map(|(pack, _)| SegmentName::packed(*pack))
    }

    pub(super) fn apply(
        &mut self,
        edit: ChainEdit,
        machines: &BTreeMap<Digest, Bytes>,
    ) -> Result<(), Contradiction> {
        match edit {
            ChainEdit::Created(_) | ChainEdit::Removed => return Err(Contradiction("kind")),
            ChainEdit::EpochGranted(epoch) => {
                if self.epoch.is_some_and(|held| held.number >= epoch.number) {
                    return Err(Contradiction("epoch"));
                }
                self.epoch = Some(epoch);
            }
            ChainEdit::Sealed { point, tail } => self.seal(*point, tail, machines)?,
            ChainEdit::Abandoned { tail } => {
                if tail < self.tail {
                    return Err(Contradiction("tail"));
                }
                self.open = None;
                self.end_segment(tail);
                self.tail = tail;
            }
            ChainEdit::Indexed(change) => self.index(change)?,
            ChainEdit::Packed(change) => self.pack(change)?,
            ChainEdit::Dropped { first, last } => self.drop_points(first, last)?,
            ChainEdit::Gap(gap) => {
                self.gaps.insert(gap.first, gap);
            }
            ChainEdit::PinChanged { sequence, pin } => match pin {
                Some(_) if !self.points.contains_key(&sequence) => return Err(Contradiction("point")),
                Some(pin) => drop(self.pins.insert(sequence, pin)),
                None => drop(self.pins.remove(&sequence)),
            },
            ChainEdit::RetentionSet(policy) => self.retention = Some(policy),
            ChainEdit::StillValid { sequence, at } => {
                if sequence == self.newest_sequence() {
                    self.still_valid = self.still_valid.max(Some(at));
                }
            }
            ChainEdit::Layout(words) => self.lay_out(words),
            ChainEdit::VolumesSet { from, volumes } => {
                self.descriptions.set(from, self.newest_sequence(), volumes)?;
            }
            ChainEdit::Ended(ends) => {
                let known = self.ends.get_or_insert_default();
                known.extend(ends.iter().map(|end| (end.segment, end.offset)));
            }
        }
        Ok(())
    }

    fn seal(
        &mut self,
        point: SealedPoint,
        tail: Position,
        machines: &BTreeMap<Digest, Bytes>,
    ) -> Result<(), Contradiction> {
        let SealedPoint { mut record, machine } = point;
        record.machine = machines.get(&machine).cloned().ok_or(Contradiction("machine"))?;
        // Where a journal begins, points come before the gaps between them; `check` looks at the whole.
        if self
            .newest()
            .is_some_and(|newest| newest.sequence >= record.sequence)
        {
            return Err(Contradiction("sequence"));
        }
        if record.changes.len() != self.descriptions.at(record.sequence).volumes.len() {
            return Err(Contradiction("number of volumes"));
        }
        // Each segment is kept by its number: a place that no cycle can reach must not make memory of itself.
        let segments = tail.segment.checked_sub(self.tail.segment);
        if tail < self.tail || segments.is_none_or(|segments| segments > MOST_SEGMENTS_OF_A_CYCLE) {
            return Err(Contradiction("tail"));
        }
        if tail > self.tail {
            self.segments.extend(self.tail.segment..=tail.segment);
        }
        self.tail = tail;
        self.open = None;
        self.still_valid = None;
        self.points.insert(record.sequence, Arc::new(record));
        Ok(())
    }

    fn index(&mut self, change: IndexChange) -> Result<(), Contradiction> {
        let at = match change.removed.first() {
            None => self.runs.len(),
            Some(first) => {
                let at = self.runs.iter().position(|run| run.number == *first);
                at.ok_or(Contradiction("runs removed"))?
            }
        };
        let end = at.saturating_add(change.removed.len());
        let replaced = self.runs.get(at..end).ok_or(Contradiction("runs removed"))?;
        if !replaced
            .iter()
            .map(|run| run.number)
            .eq(change.removed.iter().copied())
        {
            return Err(Contradiction("runs removed"));
        }
        for run in &change.added {
            self.next_run = self.next_run.max(run.number.saturating_add(1));
        }
        self.runs.splice(at..end, change.added);
        if let Some(through) = change.indexed_through {
            self.indexed_through = through;
            self.open = change.open;
        }
        self.settled_through = self
            .settled_through
            .max(change.settled_through.unwrap_or_default());
        Ok(())
    }

    fn pack(&mut self, change: PackChange) -> Result<(), Contradiction> {
        let known = change
            .segments
            .iter()
            .all(|segment| self.segments.contains(segment))
            && change.packs.iter().all(|pack| self.packs.contains_key(pack))
            && change.into.is_none_or(|pack| !self.packs.contains_key(&pack));
        if !known {
            return Err(Contradiction("segments packed"));
        }
        self.segments.retain(|segment| !change.segments.contains(segment));
        if let Some(ends) = &mut self.ends {
            ends.retain(|segment, _| !change.segments.contains(segment));
        }
        self.packs.retain(|pack, _| !change.packs.contains(pack));
        if let Some(pack) = change.into {
            self.next_pack = self.next_pack.max(pack.saturating_add(1));
            self.packs.insert(pack, change.holds);
        }
        Ok(())
    }

    /// What lies from the tail on in its segment belongs to no point; the next cycle begins in a new segment.
    fn end_segment(&mut self, next: Position) {
        let end = self.tail;
        let shared = end < next && self.segments.contains(&end.segment);
        if let Some(ends) = self.ends.as_mut().filter(|_| shared) {
            ends.insert(end.segment, end.offset);
        }
    }

    /// Drops the points from `first` to `last`, and joins the gap with those beside it.
    fn drop_points(&mut self, first: Sequence, last: Sequence) -> Result<(), Contradiction> {
        let (Some(oldest), Some(youngest)) = (self.points.get(&first), self.points.get(&last)) else {
            return Err(Contradiction("points dropped"));
        };
        if first > last || last >= self.newest_sequence() {
            return Err(Contradiction("points dropped"));
        }
        let mut gap = Gap {
            first,
            last,
            parent: oldest.parent,
            digest: youngest.digest,
        };
        self.points
            .retain(|sequence, _| *sequence < first || *sequence > last);
        self.pins
            .retain(|sequence, _| *sequence < first || *sequence > last);
        self.gaps
            .retain(|_, inside| inside.first < first || inside.last > last);
        if let Some(before) = self
            .gaps
            .values()
            .find(|before| before.last.next() == gap.first)
            .copied()
        {
            gap.first = before.first;
            gap.parent = before.parent;
            self.gaps.remove(&before.first);
        }
        if let Some(behind) = self.gaps.remove(&gap.last.next()) {
            gap.last = behind.last;
            gap.digest = behind.digest;
        }
        self.gaps.insert(gap.first, gap);
        Ok(())
    }

    fn lay_out(&mut self, words: ChainLayoutWords) {
        self.tail = words.tail;
        self.indexed_through = words.indexed_through;
        self.open = words.open;
        self.settled_through = words.settled_through;
        self.segments = words.segments.into_iter().collect();
        self.packs = words.packs.into_iter().collect();
        self.next_run = words.next_run;
        self.next_pack = words.next_pack;
    }

    /// Whether every point is built on the one before it, or on the gap before it.
    pub(crate) fn check(&self) -> Result<(), Contradiction> {
        let mut digest = Digest::default();
        let mut at = Sequence(1);
        let mut points = self.points.values().peekable();
        let mut gaps = self.gaps.values().peekable();
        loop {
            if let Some(gap) = gaps.next_if(|gap| gap.first == at) {
                if gap.parent != digest || gap.last < gap.first {
                    return Err(Contradiction("gap"));
                }
                digest = gap.digest;
                at = gap.last.next();
            } else if let Some(point) = points.next() {
                if point.sequence != at || point.parent != digest {
                    return Err(Contradiction("parent"));
                }
                digest = point.digest;
                at = at.next();
            } else if gaps.peek().is_some() {
                return Err(Contradiction("gap"));
            } else {
                return Ok(());
            }
        }
    }

    /// Edits that add up to this state.
    pub(super) fn as_edits(&self) -> Vec<ChainEdit> {
        let mut edits = vec![ChainEdit::Created(self.descriptions.first().clone())];
        edits.extend(self.epoch.map(ChainEdit::EpochGranted));
        let mut changes = self.descriptions.changes().peekable();
        let volumes_set = |(from, description): (Sequence, &Arc<ChainDescription>)| ChainEdit::VolumesSet {
            from,
            volumes: description.volumes.clone(),
        };
        for point in self.points.values() {
            while let Some(change) = changes.next_if(|(from, _)| *from <= point.sequence) {
                edits.push(volumes_set(change));
            }
            let record = PointRecord {
                machine: Bytes::new(),
                ..(**point).clone()
            };
            let machine = Digest::of(&point.machine);
            edits.push(ChainEdit::Sealed {
                point: Box::new(SealedPoint { record, machine }),
                tail: Position::START,
            });
        }
        edits.extend(changes.map(volumes_set));
        edits.extend(self.gaps.values().copied().map(ChainEdit::Gap));
        edits.extend(self.pins.iter().map(|(sequence, pin)| ChainEdit::PinChanged {
            sequence: *sequence,
            pin: Some(*pin),
        }));
        edits.extend(self.retention.clone().map(ChainEdit::RetentionSet));
        let sequence = self.newest_sequence();
        edits.extend(self.still_valid.map(|at| ChainEdit::StillValid { sequence, at }));
        if !self.runs.is_empty() {
            edits.push(ChainEdit::Indexed(IndexChange {
                added: self.runs.clone(),
                ..IndexChange::default()
            }));
        }
        edits.push(ChainEdit::Layout(ChainLayoutWords {
            tail: self.tail,
            indexed_through: self.indexed_through,
            open: self.open.clone(),
            settled_through: self.settled_through,
            segments: self.segments.iter().copied().collect(),
            packs: self
                .packs
                .iter()
                .map(|(pack, holds)| (*pack, holds.clone()))
                .collect(),
            next_run: self.next_run,
            next_pack: self.next_pack,
        }));
        edits.extend(self.ends.as_ref().map(|ends| {
            let end = |(segment, offset): (&u32, &u32)| Position {
                segment: *segment,
                offset: *offset,
            };
            ChainEdit::Ended(ends.iter().map(end).collect())
        }));
        edits
    }
}
