//! The index as the segments and packs alone give it: what a lost run is made again from, and what the index is compared
//! with.
//!
//! Of what is not settled, every frame is there, so that the stream is the index, entry by entry. Of what is settled,
//! all frames are there that show at a retained point, of data and of zeroes, and some that show nowhere any more. That
//! is enough: what shows at a byte at a retained point is the newest frame there, which nothing that is gone
//! or left over can change. So thinning the stream gives an index by which every retained point reads as it always did.
//!
//! Memory is bounded: the stream is made window by window, and the directories are read once for each. What
//! is lost is seldom found, and a window holds half a million entries.

mod frames;
mod window;

use farshore_blocks::VolumeIndex;

use crate::{
    damage::FileError,
    entry::Entry,
    format::{Identity, Position},
    layout::ChainLayout,
    state::ChainState,
};
use window::Window;

/// How many entries are put in order at once: about 100 MiB of them.
pub(crate) const WINDOW_ENTRIES: usize = 1 << 19;

/// Which part of a chain's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Of the points that were thinned, in whichever files their frames are.
    Settled,
    /// Of later sealed points, by the groups before this position.
    Young { before: Position },
    /// Of the cycle that was open where the index ends.
    Open,
}

/// A chain's files, and what the journal says of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'vault> {
    pub(crate) layout: &'vault ChainLayout,
    pub(crate) identity: Identity,
    pub(crate) state: &'vault ChainState,
}

/// That the files do not tell all that the index said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an earlier build created this chain, and kept nowhere but in the index of which points packed frames are, and where zeroes hide older bytes"
)]
pub struct Untold;

/// Whether the files tell a chain's index.
pub(crate) fn is_told(state: &ChainState) -> Result<(), Untold> {
    state.ends.as_ref().map(|_| ()).ok_or(Untold)
}

/// The entries of a part, all those of one chunk after the other, in key order; nothing is thinned. After an error
/// there is nothing more.
#[derive(Debug)]
pub(crate) struct Derived<'vault> {
    files: Files<'vault>,
    part: Part,
    window_entries: usize,
    /// Where the next window begins; none if there is no more.
    ahead: Option<(VolumeIndex, u64)>,
    ready: std::vec::IntoIter<Vec<Entry>>,
}

impl<'vault> Derived<'vault> {
    pub(crate) fn new(files: Files<'vault>, part: Part, window_entries: usize) -> Self {
        Self {
            files,
            part,
            window_entries,
            ahead: Some((VolumeIndex(0), 0)),
            ready: Vec::new().into_iter(),
        }
    }

    fn fill(&mut self, from: (VolumeIndex, u64)) -> Result<(), FileError> {
        let mut window = Window::new(from, self.window_entries);
        frames::visit(self.files, self.part, |entry| window.take(entry))?;
        self.ahead = window.behind();
        self.ready = window.chunks().into_iter();
        Ok(())
    }
}

impl Iterator for Derived<'_> {
    type Item = Result<Vec<Entry>, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(chunk) = self.ready.next() {
                return Some(Ok(chunk));
            }
            let from = self.ahead.take()?;
            if let Err(error) = self.fill(from) {
                return Some(Err(error));
            }
        }
    }
}
