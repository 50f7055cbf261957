//! Where frames are now: the index names the segment that a frame was ingested in, and compaction may have carried
//! the frame over into a pack since.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use farshore_blocks::Frame;

use super::VaultReader;
use crate::{
    damage::FileError,
    entry::FramePlace,
    format::{FormatError, Identity, Position, SegmentKind, SegmentName, StoredFrame},
    layout::ChainLayout,
    segment::SegmentFile,
    state::ChainState,
};

/// How many files are kept open.
const MOST_OPEN: usize = 128;

/// The files of one chain's frames.
#[derive(Debug)]
pub(crate) struct Homes {
    journal: Journal,
    identity: Identity,
    layout: ChainLayout,
    open: RwLock<BTreeMap<u32, Arc<Home>>>,
}

/// Which journal says where frames are.
#[derive(Debug)]
enum Journal {
    /// As it is when it is asked.
    Now(VaultReader),
    /// As it once was: none of the files of then is removed.
    Then(Box<ChainState>),
}

/// The file in which what was ingested in one segment lies now.
#[derive(Debug)]
pub(crate) struct Home {
    file: SegmentFile,
    /// In a pack, where each frame lies; a segment's frames lie where they always did.
    moved: Option<BTreeMap<Position, u32>>,
    /// Where the groups begin, as far as that was needed, and where the next one does.
    groups: Mutex<Vec<u32>>,
}

impl Homes {
    pub(crate) fn new(reader: VaultReader, identity: Identity) -> Self {
        let layout = reader.layout().chain(identity.chain);
        Self {
            journal: Journal::Now(reader),
            identity,
            layout,
            open: RwLock::default(),
        }
    }

    /// The files of a chain as it once was, for whoever holds a lease on everything since. An index of then may show
    /// what was dropped since and was left behind when frames moved on.
    pub(crate) fn of_then(layout: &ChainLayout, identity: Identity, state: &ChainState) -> Self {
        Self {
            journal: Journal::Then(Box::new(state.clone())),
            identity,
            layout: layout.clone(),
            open: RwLock::default(),
        }
    }

    /// The file in which what was ingested in `segment` lies now.
    pub(crate) fn of(&self, segment: u32) -> Result<Arc<Home>, FileError> {
        let held = self
            .open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&segment)
            .cloned();
        if let Some(home) = held {
            return Ok(home);
        }
        let home = Arc::new(self.find(segment)?);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST_OPEN {
            open.clear();
        }
        open.insert(segment, Arc::clone(&home));
        Ok(home)
    }

    /// Looks the file up in the journal. One that went away in between has moved on: it is looked up again.
    fn find(&self, segment: u32) -> Result<Home, FileError> {
        let mut last = None;
        loop {
            let found = match &self.journal {
                Journal::Now(reader) => {
                    let found = reader.with_chain(self.identity.chain, |state| state.home_of(segment));
                    found.ok().flatten()
                }
                Journal::Then(state) => state.home_of(segment),
            };
            let name = found.unwrap_or(SegmentName::ingested(segment));
            match Home::open(&self.layout, self.identity, name) {
                Err(FileError::Storage(error))
                    if error.source.kind() == io::ErrorKind::NotFound && last != Some(name) =>
                {
                    last = Some(name);
                }
                other => return other,
            }
        }
    }
}

impl Home {
    pub(crate) fn open(
        layout: &ChainLayout,
        identity: Identity,
        name: SegmentName,
    ) -> Result<Self, FileError> {
        let file = SegmentFile::open(layout, identity, name)?;
        let moved = match name.kind {
            SegmentKind::Ingested => None,
            SegmentKind::Packed => Some(file.origins()?),
        };
        let groups = Mutex::new(vec![Position::beginning_of(0).offset]);
        Ok(Self { file, moved, groups })
    }

    /// Where in the file the payload of the frame lies that was ingested at `place`.
    pub(crate) fn offset_of(&self, place: &FramePlace) -> Result<u32, FileError> {
        let origin = Position {
            segment: place.segment,
            offset: place.position,
        };
        self.offset_of_origin(origin).ok_or_else(|| {
            let error = FormatError::Identity { field: "frames" };
            FileError::damaged(self.file.path(), 0, error)
        })
    }

    /// The same by the place where it was ingested; none if the file does not hold it.
    pub(crate) fn offset_of_origin(&self, origin: Position) -> Option<u32> {
        match &self.moved {
            Some(moved) => moved.get(&origin).copied(),
            None => Some(origin.offset),
        }
    }

    /// Where the group begins that has the payload at `offset`.
    pub(crate) fn group_of(&self, offset: u32) -> Result<u32, FileError> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(last) = groups.last().copied().filter(|last| *last <= offset) {
            groups.push(self.file.group_behind(last)?);
        }
        let behind = groups.partition_point(|start| *start <= offset);
        Ok(behind
            .checked_sub(1)
            .and_then(|at| groups.get(at).copied())
            .unwrap_or(0))
    }

    /// The whole frame at `offset`, checked.
    pub(crate) fn frame(&self, offset: u32, frame: &StoredFrame) -> Result<Frame, FileError> {
        self.file.frame_at(offset, frame)
    }

    /// Whether it is the segment itself, so that neighbours are still neighbours.
    pub(crate) fn is_segment(&self) -> bool {
        self.moved.is_none()
    }

    pub(crate) fn file(&self) -> &SegmentFile {
        &self.file
    }
}
