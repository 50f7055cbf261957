//! One budget of unacknowledged bytes for all sessions of a replicator: who has a cycle under way gets an equal share, so that
//! memory is bounded however many VMs there are.
//!
//! A share shrinks when others come and grows when they go; who has more under way than its share sends nothing until less is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use farshore_blocks::ByteCount;

/// The budget; clones share it.
#[derive(Debug, Clone)]
pub struct Shares {
    bounds: Bounds,
    users: Arc<AtomicU64>,
}

/// How much all have together, and each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// All together, as long as each has the least.
    pub total: ByteCount,
    /// Each, however many there are.
    pub least: ByteCount,
    /// Each, however few there are.
    pub most: ByteCount,
}

/// The part of one cycle; it goes back with the value.
#[derive(Debug)]
pub struct Share {
    of: Shares,
}

impl Shares {
    /// Nobody has any of it yet.
    #[must_use]
    pub fn within(bounds: Bounds) -> Self {
        Self {
            bounds,
            users: Arc::new(AtomicU64::new(0)),
        }
    }

    /// One more takes part.
    #[must_use]
    pub fn join(&self) -> Share {
        self.users.fetch_add(1, Ordering::Relaxed);
        Share { of: self.clone() }
    }

    /// What one more would have.
    #[must_use]
    pub fn next(&self) -> ByteCount {
        self.among(self.users.load(Ordering::Relaxed).saturating_add(1))
    }

    fn among(&self, users: u64) -> ByteCount {
        let Bounds { total, least, most } = self.bounds;
        ByteCount(total.0 / users.max(1)).min(most).max(least)
    }
}

impl Share {
    /// How much it is now.
    #[must_use]
    pub fn bytes(&self) -> ByteCount {
        self.of.among(self.of.users.load(Ordering::Relaxed))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.users.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        total: ByteCount(256),
        least: ByteCount(2),
        most: ByteCount(32),
    };

    #[test]
    fn few_have_the_most_many_an_equal_part_and_all_the_least() {
        let shares = Shares::within(BOUNDS);
        let mut held = Vec::new();
        for users in 1..=300_u64 {
            assert_eq!(shares.next(), ByteCount((256 / users).clamp(2, 32)));
            held.push(shares.join());
            let expected = ByteCount((256 / users).clamp(2, 32));
            assert!(held.iter().all(|share| share.bytes() == expected), "{users}");
        }
        held.truncate(8);
        assert_eq!(held[0].bytes(), ByteCount(32));
        drop(held);
        assert_eq!(shares.next(), ByteCount(32));
    }
}
