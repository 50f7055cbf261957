//! Proving every chain from disk alone: each point is built again from its segments and compared with what its
//! run and its record say.

mod report;

use std::path::Path;

use farshore_blocks::{ByteCount, ChangeHasher, Sequence, VolumeIndex, point_digest};

pub use report::{ChainReport, Problem, ProblemKind, Report, VerifyProgress};

use crate::{
    damage::FileError,
    format::{FrameHeader, Identity, RunEntry},
    index::{ExtentMap, FramePlace},
    layout::{ChainLayout, VaultLayout},
    log::PointsLog,
    reader::VaultReader,
    records::{ChainDescription, PointRecord, SegmentRange},
    run::{all_entries, read_run},
    segment::SegmentFile,
    vault::VaultError,
};

/// Proves every chain of the vault in `path`, telling `on_progress` of each point before it is proven.
///
/// # Errors
/// When the vault itself cannot be read; what is wrong in a chain is in its report.
pub fn verify(path: &Path, mut on_progress: impl FnMut(VerifyProgress)) -> Result<Report, VaultError> {
    let reader = VaultReader::open(path)?;
    let layout = VaultLayout::new(path);
    let mut chains = Vec::new();
    for (chain, description) in reader.chains()? {
        let proof = ChainProof {
            layout: layout.chain(chain),
            identity: Identity {
                incarnation: reader.incarnation(),
                chain,
            },
            description,
        };
        let points = reader.current_epoch(chain).and_then(|_| reader.points(chain));
        chains.push(proof.prove(points, &mut on_progress));
    }
    Ok(Report { chains })
}

/// What is needed to prove one chain.
struct ChainProof {
    layout: ChainLayout,
    identity: Identity,
    description: ChainDescription,
}

/// A point, as its segments give it.
struct Rebuilt {
    changes: Vec<ChangeHasher>,
    index: Vec<ExtentMap>,
    frames: u64,
    bytes: u64,
}

impl ChainProof {
    fn prove(
        &self,
        points: Result<Vec<PointRecord>, VaultError>,
        on_progress: &mut impl FnMut(VerifyProgress),
    ) -> ChainReport {
        let mut report = ChainReport {
            chain: self.identity.chain,
            vm: self.description.vm.clone(),
            points: 0,
            frames: 0,
            bytes: ByteCount(0),
            problem: None,
        };
        let points = match points {
            Ok(points) => points,
            Err(error) => {
                let point = self.first_unreadable(&error);
                let problem = Problem::somewhere(ProblemKind::Log(Box::new(error)));
                report.problem = Some(Problem { point, ..problem });
                return report;
            }
        };
        let newest = points.last().map_or(Sequence(0), |point| point.sequence);
        for point in &points {
            on_progress(VerifyProgress {
                chain: self.identity.chain,
                point: point.sequence,
                newest,
            });
            match self.prove_point(point) {
                Ok(rebuilt) => {
                    report.points = report.points.saturating_add(1);
                    report.frames = report.frames.saturating_add(rebuilt.frames);
                    report.bytes = ByteCount(report.bytes.0.saturating_add(rebuilt.bytes));
                }
                Err(problem) => {
                    let point = point.sequence;
                    report.problem = Some(Problem { point, ..problem });
                    return report;
                }
            }
        }
        report
    }

    /// The point behind those that can be read of a damaged log.
    fn first_unreadable(&self, error: &VaultError) -> Sequence {
        let path = self.layout.points();
        let VaultError::File(FileError::Damaged(damaged)) = error else {
            return Sequence(0);
        };
        let bytes = std::fs::read(&path).unwrap_or_default();
        let whole = usize::try_from(damaged.position)
            .ok()
            .and_then(|end| bytes.get(..end));
        let Some(whole) = whole.filter(|_| damaged.path == path) else {
            return Sequence(0);
        };
        PointsLog::decode(whole, &path, self.identity).map_or(Sequence(0), |log| {
            log.newest().map_or(Sequence(0), |newest| newest.sequence).next()
        })
    }

    fn prove_point(&self, point: &PointRecord) -> Result<Rebuilt, Problem> {
        let volumes = self.description.volumes.len();
        let mut rebuilt = Rebuilt {
            changes: vec![ChangeHasher::default(); volumes],
            index: vec![ExtentMap::default(); volumes],
            frames: 0,
            bytes: 0,
        };
        if let Some(range) = point.segments {
            for number in range.first..=range.last {
                self.add_segment(point, &range, number, &mut rebuilt)?;
            }
        }
        for ((volume, hasher), sealed) in (0..).zip(&rebuilt.changes).zip(&point.changes) {
            let (actual, sealed) = (hasher.digest(), *sealed);
            if actual != sealed {
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
        self.compare_run(point, &rebuilt.index)?;
        Ok(rebuilt)
    }

    fn add_segment(
        &self,
        point: &PointRecord,
        range: &SegmentRange,
        number: u64,
        rebuilt: &mut Rebuilt,
    ) -> Result<(), Problem> {
        let segment = SegmentFile::open(&self.layout, self.identity, number, point.sequence)?;
        // Where the scan stands, so that a damaged header can be named by what the index says lies there.
        let mut behind = None;
        let scanned = segment.scan(range, |header| {
            behind = Some(u64::from(header.position).saturating_add(header.stored_bytes()));
            self.add_frame(&segment, header, rebuilt)
        });
        scanned.map_err(|problem: Problem| match problem.volume {
            Some(_) => problem,
            None => self.name_place(point, number, behind, problem),
        })
    }

    fn add_frame(
        &self,
        segment: &SegmentFile,
        header: &FrameHeader,
        rebuilt: &mut Rebuilt,
    ) -> Result<(), Problem> {
        let (volume, start) = (header.volume, header.extent.start());
        let described = self.description.volumes.get(volume.as_usize());
        let size = described.map_or(0, |described| described.size.0);
        let maps = (
            rebuilt.changes.get_mut(volume.as_usize()),
            rebuilt.index.get_mut(volume.as_usize()),
        );
        let (Some(hasher), Some(map)) = maps else {
            return Err(Problem::at(volume, start, ProblemKind::OutOfBounds));
        };
        if header.extent.end().0 > size {
            return Err(Problem::at(volume, start, ProblemKind::OutOfBounds));
        }
        let frame = segment
            .frame_of(header)
            .map_err(|error| Problem::at(volume, start, ProblemKind::File(error)))?;
        hasher.update(volume, start, frame.raw_length(), &frame.raw_digest());
        map.insert(header.extent, FramePlace::of(header));
        rebuilt.frames = rebuilt.frames.saturating_add(1);
        rebuilt.bytes = rebuilt.bytes.saturating_add(frame.raw_length().0);
        Ok(())
    }

    /// Adds to a problem at `position` of a segment which extent the index says lies there.
    fn name_place(
        &self,
        point: &PointRecord,
        segment: u64,
        position: Option<u64>,
        problem: Problem,
    ) -> Problem {
        let first = u64::try_from(crate::format::SEGMENT_HEADER_BYTES).unwrap_or(0);
        let position = position.unwrap_or(first);
        let mut named: Option<RunEntry> = None;
        let path = self.layout.run(point.sequence);
        let whole = read_run(&path, self.identity, point.sequence, &point.run, |entry| {
            let there = entry.segment == segment && u64::from(entry.position) == position;
            if there && named.is_none() {
                named = Some(entry);
            }
        });
        match (whole, named) {
            (Ok(()), Some(entry)) => Problem::at(entry.volume, entry.extent.start(), problem.kind),
            (Ok(()) | Err(_), _) => problem,
        }
    }

    fn compare_run(&self, point: &PointRecord, rebuilt: &[ExtentMap]) -> Result<(), Problem> {
        let path = self.layout.run(point.sequence);
        let mut expected = all_entries(rebuilt);
        let mut differing: Option<RunEntry> = None;
        read_run(&path, self.identity, point.sequence, &point.run, |entry| {
            if expected.next() != Some(entry) && differing.is_none() {
                differing = Some(entry);
            }
        })?;
        match (differing, expected.next()) {
            (None, None) => Ok(()),
            (Some(entry), _) | (None, Some(entry)) => Err(Problem::at(
                entry.volume,
                entry.extent.start(),
                ProblemKind::IndexDiffers,
            )),
        }
    }
}
