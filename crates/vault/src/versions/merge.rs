//! All entries of several layers as one sorted stream.

use std::{collections::VecDeque, iter::Peekable};

use super::{
    coverage::Coverage,
    layer::{Entries, Layer},
};
use crate::{
    damage::FileError,
    entry::{Entry, VersionKey},
};

/// The entries of all layers in key order. Where two layers have bytes of the same sequence, the newer one's win.
///
/// It holds one version of one chunk at a time. After an error there is nothing more.
pub(crate) struct Merge<'index> {
    /// The newest layer first.
    layers: Vec<Peekable<Entries<'index>>>,
    ready: VecDeque<Entry>,
    coverage: Coverage,
}

impl<'index> Merge<'index> {
    /// Layers come newest first.
    pub(crate) fn new(layers: &[Layer<'index>]) -> Self {
        Self {
            layers: layers.iter().map(|layer| layer.entries().peekable()).collect(),
            ready: VecDeque::new(),
            coverage: Coverage::default(),
        }
    }

    /// The first version that any layer has yet.
    fn next_version(&mut self) -> Result<Option<VersionKey>, FileError> {
        let mut first: Option<VersionKey> = None;
        for layer in &mut self.layers {
            if let Some(Err(error)) = layer.next_if(Result::is_err) {
                return Err(error);
            }
            if let Some(Ok(entry)) = layer.peek() {
                let version = entry.version();
                first = Some(first.map_or(version, |first| first.min(version)));
            }
        }
        Ok(first)
    }

    /// Makes all entries of the next version ready.
    fn gather(&mut self) -> Result<(), FileError> {
        let Some(version) = self.next_version()? else {
            return Ok(());
        };
        self.coverage.clear();
        for layer in &mut self.layers {
            // An error is taken as well: half a version is not a version.
            while let Some(next) =
                layer.next_if(|next| !matches!(next, Ok(entry) if entry.version() != version))
            {
                let entry = next?;
                self.coverage
                    .add(entry.start_in_chunk()..entry.end_in_chunk(), |part| {
                        self.ready.extend(entry.part(part.start, part.end));
                    });
            }
        }
        self.ready
            .make_contiguous()
            .sort_unstable_by_key(|entry| entry.start);
        Ok(())
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<Entry, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty()
            && let Err(error) = self.gather()
        {
            self.layers.clear();
            self.ready.clear();
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}
