//! Opening a chain for writing: puts in order what a crash left, and picks up the cycle that was being built.
//!
//! What a crash can leave is the table in [`crate::log`]. Segments that neither a point nor the open cycle names,
//! and runs of points that do not exist, are swept.

use std::{fs, path::Path, sync::Arc};

use farshore_blocks::{ByteCount, Sequence};

use crate::{
    damage::{FileError, read_exactly, read_record},
    format::{FormatError, RecordKind},
    index::{ExtentMap, FramePlace},
    layout::{run_sequence, segment_number},
    log::{PointsLog, Standing},
    records::{OpenCycle, PointRecord, SegmentRange},
    segment::SegmentFile,
    storage::{Content, StorageError},
    vault::{ChainState, WriterTenure},
    writer::{ChainWriter, Soundness, building::Building, segments::SegmentWriter},
};

pub(super) fn open(tenure: WriterTenure) -> Result<ChainWriter, FileError> {
    let state = Arc::clone(&tenure.state);
    // Names that an earlier writer left visible but, for a sync that failed, not durable.
    state.disk.sync_directory(state.layout.root())?;
    let path = state.layout.points();
    let log = PointsLog::read(&path, state.identity)?;
    let open: Option<OpenCycle> = read_record(&state.layout.open(), RecordKind::Open, state.identity)?;
    let Some(standing) = log.standing(open.as_ref().map(|open| open.sequence)) else {
        return Err(log.contradiction(&path));
    };
    let open = match standing {
        Standing::Idle => None,
        Standing::Building => open,
        Standing::SealTorn => {
            cut_torn_record(&state, log.whole_bytes)?;
            open
        }
        Standing::SealUnconfirmed => {
            confirm_seal(&state, &log)?;
            None
        }
    };
    let ranges: Vec<SegmentRange> = log
        .points
        .iter()
        .filter_map(|point| point.segments)
        .chain(open.as_ref().and_then(|open| open.segments))
        .collect();
    sweep_segments(&state, |segment| {
        ranges.iter().any(|range| range.contains(segment))
    })?;
    let newest = log.newest().cloned();
    sweep_runs(
        &state,
        newest.as_ref().map_or(Sequence(0), |point| point.sequence),
    )?;
    let next_segment = ranges
        .iter()
        .map(|range| range.last.saturating_add(1))
        .max()
        .unwrap_or(1);
    let cycle = open
        .map(|open| resume_cycle(&state, open, newest.as_ref(), next_segment))
        .transpose()?;
    let next_segment = cycle
        .as_ref()
        .and_then(|cycle| cycle.durable.segments)
        .map_or(next_segment, |range| range.first);
    Ok(ChainWriter {
        tenure,
        newest,
        log_end: log.whole_bytes,
        next_segment,
        cycle,
        soundness: Soundness::Sound,
    })
}

/// Takes back a record that was being written.
fn cut_torn_record(state: &ChainState, whole_bytes: u64) -> Result<(), StorageError> {
    let mut file = state.disk.open_file(&state.layout.points(), Content::Kept)?;
    file.set_length(whole_bytes)?;
    file.sync()
}

/// Makes sure of a record that is there but was never confirmed. It is written again, because a sync that failed
/// may have left it readable but not durable, and another sync alone would not tell.
fn confirm_seal(state: &ChainState, log: &PointsLog) -> Result<(), FileError> {
    let path = state.layout.points();
    let length = log.whole_bytes.saturating_sub(log.last_start);
    let mut record = vec![0; usize::try_from(length).unwrap_or(0)];
    let readable = fs::File::open(&path).map_err(|error| StorageError::new("open", &path, error))?;
    read_exactly(&readable, &path, &mut record, log.last_start)?;
    let mut file = state.disk.open_file(&path, Content::Kept)?;
    file.write_at(&record, log.last_start)?;
    file.sync()?;
    state.disk.remove_file(&state.layout.open())?;
    state.disk.sync_directory(state.layout.root())?;
    Ok(())
}

fn resume_cycle(
    state: &Arc<ChainState>,
    open: OpenCycle,
    newest: Option<&PointRecord>,
    next_segment: u64,
) -> Result<Building, FileError> {
    let path = state.layout.open();
    let damaged = |error| FileError::damaged(&path, 0, error);
    let volumes = state.description.volumes.len();
    if open.base != newest.map(PointRecord::as_base) {
        return Err(damaged(FormatError::Identity { field: "base" }));
    }
    if open.changes.len() != volumes || open.watermarks.len() != volumes {
        return Err(damaged(FormatError::Bounds {
            field: "number of volumes",
        }));
    }
    let Some(range) = open.segments else {
        return Ok(Building::fresh(Arc::clone(state), open, next_segment));
    };
    let mut index = vec![ExtentMap::default(); volumes];
    let mut stored_bytes: u64 = 0;
    for number in range.first..=range.last {
        let segment = SegmentFile::open(&state.layout, state.identity, number, open.sequence)?;
        segment.scan::<FileError>(&range, |header| {
            let outside = || {
                let position = u64::from(header.position);
                FileError::damaged(segment.path(), position, FormatError::Bounds { field: "volume" })
            };
            let map = index.get_mut(header.volume.as_usize()).ok_or_else(outside)?;
            map.insert(header.extent, FramePlace::of(header));
            Ok(())
        })?;
        stored_bytes = stored_bytes.saturating_add(segment.end_in(&range)?);
    }
    let segments = SegmentWriter::fresh(Arc::clone(state), open.sequence, open.cycle, range.first)
        .resumed(&range, ByteCount(stored_bytes))?;
    Ok(Building::resumed(Arc::clone(state), open, segments, index))
}

/// Removes the segments that are not to be kept.
pub(super) fn sweep_segments(state: &ChainState, keep: impl Fn(u64) -> bool) -> Result<(), StorageError> {
    sweep(state, &state.layout.segments(), |path| {
        segment_number(path).is_none_or(&keep)
    })
}

fn sweep_runs(state: &ChainState, newest: Sequence) -> Result<(), StorageError> {
    sweep(state, &state.layout.runs(), |path| {
        run_sequence(path).is_none_or(|sequence| sequence <= newest)
    })
}

fn sweep(state: &ChainState, directory: &Path, keep: impl Fn(&Path) -> bool) -> Result<(), StorageError> {
    let failed = |error| StorageError::new("list", directory, error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !keep(&path) {
            state.disk.remove_file(&path)?;
        }
    }
    Ok(())
}
