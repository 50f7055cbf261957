//! The decoded nodes that were used lately, shared by all runs of a process, bounded in bytes.
//!
//! The cache is cut into shards, each under a mutex that is held for a look-up and never for I/O. A full shard
//! evicts by CLOCK: a hand goes round, spares a node that was used since it last came by, and takes the next. That
//! costs one flag on a hit, where a true LRU list would have to be relinked.
//!
//! A hit must also have the checksum that the parent names. So a run number that is used again after a crash
//! cannot bring back a node of the file that had it before.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use farshore_blocks::ChainId;

use super::node::{NODE_LENGTH, Node};

const MOST_SHARDS: usize = 16;
/// A shard is at least this large, so that a small cache is not cut into shards that hold next to nothing.
const SMALLEST_SHARD_BYTES: usize = 1 << 20;

/// Which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NodeKey {
    pub(super) chain: ChainId,
    pub(super) number: u64,
    pub(super) position: u64,
}

/// Decoded nodes of runs. Share one among all chains of a process.
#[derive(Debug)]
pub(crate) struct NodeCache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes: usize,
}

#[derive(Debug, Default)]
struct Shard {
    indices: HashMap<NodeKey, usize>,
    slots: Vec<Slot>,
    hand: usize,
    held_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    key: NodeKey,
    node: Arc<Node>,
    use_since_hand: Use,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Used,
    Unused,
}

impl NodeCache {
    /// A cache of at most so many bytes. A decoded node takes about 11 KiB.
    pub(crate) fn new(bytes: usize) -> Self {
        let shards = (bytes / SMALLEST_SHARD_BYTES).clamp(1, MOST_SHARDS);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_bytes: bytes / shards,
        }
    }

    /// What all its nodes take now.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).held_bytes)
            .sum()
    }

    pub(super) fn get(&self, key: &NodeKey, crc32: u32) -> Option<Arc<Node>> {
        let mut shard = self.shard(key)?.lock().unwrap_or_else(PoisonError::into_inner);
        shard.get(key).filter(|node| node.crc32 == crc32)
    }

    pub(super) fn insert(&self, key: NodeKey, node: Arc<Node>) {
        if let Some(shard) = self.shard(&key) {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.insert(key, node, self.shard_bytes);
        }
    }

    /// Neighbours in a file go to different shards; the same places of different runs do as well.
    fn shard(&self, key: &NodeKey) -> Option<&Mutex<Shard>> {
        let spread = (key.position / NODE_LENGTH).wrapping_add(key.number.wrapping_mul(7));
        let shards = u64::try_from(self.shards.len()).ok()?;
        let index = spread.checked_rem(shards)?;
        self.shards.get(usize::try_from(index).ok()?)
    }
}

impl Shard {
    fn get(&mut self, key: &NodeKey) -> Option<Arc<Node>> {
        let slot = self.slots.get_mut(*self.indices.get(key)?)?;
        slot.use_since_hand = Use::Used;
        Some(Arc::clone(&slot.node))
    }

    fn insert(&mut self, key: NodeKey, node: Arc<Node>, limit_bytes: usize) {
        if let Some(index) = self.indices.get(&key) {
            self.remove(*index);
        }
        let slot = Slot {
            key,
            node,
            use_since_hand: Use::Unused,
        };
        let bytes = slot.bytes();
        if bytes > limit_bytes {
            return;
        }
        while self.held_bytes.saturating_add(bytes) > limit_bytes && !self.slots.is_empty() {
            self.turn_hand();
        }
        self.held_bytes = self.held_bytes.saturating_add(bytes);
        self.indices.insert(key, self.slots.len());
        self.slots.push(slot);
    }

    /// Spares or removes the node under the hand.
    fn turn_hand(&mut self) {
        match self.slots.get_mut(self.hand) {
            None => self.hand = 0,
            Some(slot) if slot.use_since_hand == Use::Used => {
                slot.use_since_hand = Use::Unused;
                self.hand = self.hand.saturating_add(1);
            }
            Some(_) => self.remove(self.hand),
        }
    }

    fn remove(&mut self, index: usize) {
        if index >= self.slots.len() {
            return;
        }
        let removed = self.slots.swap_remove(index);
        self.indices.remove(&removed.key);
        self.held_bytes = self.held_bytes.saturating_sub(removed.bytes());
        if let Some(moved) = self.slots.get(index) {
            self.indices.insert(moved.key, index);
        }
    }
}

impl Slot {
    /// What the node costs, with its places in the two tables.
    fn bytes(&self) -> usize {
        let tables = size_of::<Self>().saturating_add(size_of::<(NodeKey, usize)>());
        self.node.memory_bytes().saturating_add(tables)
    }
}
