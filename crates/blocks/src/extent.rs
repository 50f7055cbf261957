//! Byte positions, byte counts and extents whose arithmetic cannot overflow unnoticed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A position in a volume, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ByteOffset(pub u64);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ByteCount(pub u64);

impl ByteOffset {
    /// The position `count` bytes further, or `None` past 2^64.
    #[must_use]
    pub fn checked_add(self, count: ByteCount) -> Option<Self> {
        self.0.checked_add(count.0).map(Self)
    }
}

impl fmt::Display for ByteOffset {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#x}", self.0)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} B", self.0)
    }
}

/// A run of bytes of a volume: never empty, and its end never passes 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    start: ByteOffset,
    length: ByteCount,
}

impl Extent {
    /// The extent of `length` bytes from `start`; `None` if it is empty or its end passes 2^64.
    #[must_use]
    pub fn new(start: ByteOffset, length: ByteCount) -> Option<Self> {
        if length.0 == 0 {
            return None;
        }
        start.checked_add(length)?;
        Some(Self { start, length })
    }

    /// Where it begins.
    #[must_use]
    pub fn start(self) -> ByteOffset {
        self.start
    }

    /// How long it is.
    #[must_use]
    pub fn length(self) -> ByteCount {
        self.length
    }

    /// The first position behind it.
    #[must_use]
    pub fn end(self) -> ByteOffset {
        ByteOffset(self.start.0.saturating_add(self.length.0))
    }

    /// The part of it that lies in both extents.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        Self::new(start, ByteCount(end.0.checked_sub(start.0)?))
    }

    /// It, cut into pieces of at most `piece` bytes, in order.
    pub fn pieces(self, piece: ByteCount) -> impl Iterator<Item = Self> {
        let step = piece.0.max(1);
        let mut at = self.start.0;
        let end = self.end().0;
        std::iter::from_fn(move || {
            let length = end.checked_sub(at)?.min(step);
            let next = Self::new(ByteOffset(at), ByteCount(length))?;
            at = at.saturating_add(length);
            Some(next)
        })
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}+{}", self.start, self.length.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_overflowing_extent_does_not_exist() {
        assert!(Extent::new(ByteOffset(5), ByteCount(0)).is_none());
        assert!(Extent::new(ByteOffset(u64::MAX), ByteCount(1)).is_none());
        assert!(Extent::new(ByteOffset(u64::MAX - 1), ByteCount(1)).is_some());
    }

    #[test]
    fn pieces_cover_the_extent_exactly_once() {
        let extent = Extent::new(ByteOffset(100), ByteCount(250)).unwrap();
        let pieces: Vec<_> = extent
            .pieces(ByteCount(100))
            .map(|piece| (piece.start().0, piece.length().0))
            .collect();
        assert_eq!(pieces, [(100, 100), (200, 100), (300, 50)]);
    }

    #[test]
    fn extents_that_only_touch_do_not_intersect() {
        let left = Extent::new(ByteOffset(0), ByteCount(10)).unwrap();
        let right = Extent::new(ByteOffset(10), ByteCount(10)).unwrap();
        assert_eq!(left.intersection(right), None);
        assert_eq!(left.intersection(left), Some(left));
    }
}
