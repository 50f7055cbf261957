//! A walk over the entries of a run.

use std::sync::Arc;

use super::{
    Run,
    node::{Child, Content, Node},
};
use crate::{
    damage::FileError,
    entry::{Entry, VersionKey},
};

/// The entries of a run from one key on, in key order, over the borders of chunks and volumes.
///
/// After an error there is nothing more.
#[derive(Debug)]
pub(crate) struct Cursor<'run> {
    run: &'run Run,
    caching: Caching,
    /// From the root down: an inner node, and which of its children comes next.
    path: Vec<(Arc<Node>, usize)>,
    leaf: Option<(Arc<Node>, usize)>,
    /// The node to go down into next.
    ahead: Option<Named>,
    nodes_read: u64,
}

/// A node as its parent (or the summary) names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) level: u8,
    pub(super) position: u64,
    pub(super) crc32: u32,
    /// `None` for the root.
    pub(super) first: Option<VersionKey>,
}

/// What reading a node has to do with the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caching {
    /// It is taken from there, and put there.
    Kept,
    /// It is taken from there, but a walk over everything does not drive out what look-ups need.
    Taken,
    /// Only what the file holds counts.
    Bypassed,
}

impl<'run> Cursor<'run> {
    /// From the first entry on, until it is told to [`Cursor::descend`] elsewhere.
    pub(super) fn new(run: &'run Run, caching: Caching) -> Self {
        let summary = run.summary();
        Self {
            run,
            caching,
            path: Vec::with_capacity(usize::from(summary.levels)),
            leaf: None,
            ahead: Some(Named {
                level: summary.levels.saturating_sub(1),
                position: summary.root.position,
                crc32: summary.root.crc32,
                first: None,
            }),
            nodes_read: 0,
        }
    }

    /// How many nodes it came through.
    pub(super) fn nodes_read(&self) -> u64 {
        self.nodes_read
    }

    /// Goes down from the node ahead to a leaf; `choose` says where in each node.
    pub(super) fn descend(&mut self, choose: impl Fn(&Node) -> usize) -> Result<(), FileError> {
        while let Some(named) = self.ahead.take() {
            let node = self.run.node(&named, self.caching)?;
            self.nodes_read = self.nodes_read.saturating_add(1);
            let index = choose(&node);
            match &node.content {
                Content::Leaf(_) => self.leaf = Some((node, index)),
                Content::Inner(children) => {
                    let child = children.get(index).copied();
                    self.ahead = child.map(|child| named.child(&child));
                    self.path.push((node, index.saturating_add(1)));
                }
            }
        }
        Ok(())
    }

    /// The next entry of the leaf that was reached.
    fn next_in_leaf(&mut self) -> Option<Entry> {
        let (node, index) = self.leaf.as_mut()?;
        let entry = match &node.content {
            Content::Leaf(entries) => entries.get(*index).copied(),
            Content::Inner(_) => None,
        };
        *index = index.saturating_add(1);
        entry
    }

    /// Puts the next child of the lowest node that has one more ahead.
    fn climb(&mut self) {
        self.leaf = None;
        while let Some((node, index)) = self.path.last_mut() {
            let child = match &node.content {
                Content::Inner(children) => children.get(*index).copied(),
                Content::Leaf(_) => None,
            };
            if let Some(child) = child {
                *index = index.saturating_add(1);
                let above = u8::try_from(self.path.len()).unwrap_or(u8::MAX);
                let root = self.run.summary().levels.saturating_sub(1);
                self.ahead = Some(Named::of(&child, root.saturating_sub(above)));
                return;
            }
            self.path.pop();
        }
    }
}

impl Iterator for Cursor<'_> {
    type Item = Result<Entry, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.next_in_leaf() {
                return Some(Ok(entry));
            }
            if self.ahead.is_none() {
                self.climb();
            }
            self.ahead?;
            if let Err(error) = self.descend(|_| 0) {
                self.path.clear();
                return Some(Err(error));
            }
        }
    }
}

impl Named {
    fn of(child: &Child, level: u8) -> Self {
        Self {
            level,
            position: child.position,
            crc32: child.crc32,
            first: Some(child.first),
        }
    }

    /// A child of this node.
    fn child(&self, child: &Child) -> Self {
        Self::of(child, self.level.saturating_sub(1))
    }
}
