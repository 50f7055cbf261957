//! Messages that came before their turn, because they travel on several connections: kept until those before them have come.
//!
//! A source has no more unacknowledged than the window that it was told, and so no more can be early.

use std::collections::BTreeMap;

use farshore_blocks::ByteCount;

/// Early messages of one cycle, as whatever the target keeps of them.
#[derive(Debug)]
pub struct Early<Kept> {
    most: ByteCount,
    /// The next message's number.
    next: u64,
    kept: BTreeMap<u64, (ByteCount, Kept)>,
    bytes: ByteCount,
}

/// More came early than a window holds: the source does not keep to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message {number} came while {next} was due, and {kept} that came early are kept already")]
pub struct TooEarly {
    /// The message's number.
    pub number: u64,
    /// The number of the next one.
    pub next: u64,
    /// What is kept.
    pub kept: ByteCount,
}

impl<Kept> Early<Kept> {
    /// Keeps at most so much.
    #[must_use]
    pub fn new(most: ByteCount) -> Self {
        Self {
            most,
            next: 1,
            kept: BTreeMap::new(),
            bytes: ByteCount(0),
        }
    }

    /// A cycle begins, or goes on, behind this message; nothing that came before is of any use.
    pub fn begin_behind(&mut self, message: u64) {
        *self = Self {
            next: message.saturating_add(1),
            ..Self::new(self.most)
        };
    }

    /// Whether it is this message's turn, or was before.
    #[must_use]
    pub fn is_due(&self, number: u64) -> bool {
        number <= self.next
    }

    /// A message that was due was taken in.
    pub fn took(&mut self, number: u64) {
        if number == self.next {
            self.next = self.next.saturating_add(1);
        }
    }

    /// The next message, if it came early.
    pub fn pop_due(&mut self) -> Option<(u64, Kept)> {
        let (bytes, kept) = self.kept.remove(&self.next)?;
        self.bytes = ByteCount(self.bytes.0.saturating_sub(bytes.0));
        Some((self.next, kept))
    }

    /// Keeps a message that is not due; one that is kept already changes nothing.
    ///
    /// # Errors
    /// When more is kept than may be.
    pub fn keep(&mut self, number: u64, (bytes, kept): (ByteCount, Kept)) -> Result<(), TooEarly> {
        if self.kept.contains_key(&number) {
            return Ok(());
        }
        if self.bytes >= self.most {
            return Err(TooEarly {
                number,
                next: self.next,
                kept: self.bytes,
            });
        }
        self.bytes = ByteCount(self.bytes.0.saturating_add(bytes.0));
        self.kept.insert(number, (bytes, kept));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All of it in the order in which it is taken in.
    fn arrive(early: &mut Early<u64>, number: u64) -> Vec<u64> {
        let mut taken = Vec::new();
        if !early.is_due(number) {
            early.keep(number, (ByteCount(1), number)).unwrap();
            return taken;
        }
        taken.push(number);
        early.took(number);
        while let Some((next, kept)) = early.pop_due() {
            assert_eq!(next, kept);
            taken.push(next);
            early.took(next);
        }
        taken
    }

    proptest! {
        #[test]
        fn whatever_the_order_of_arrival_all_is_taken_in_by_number(
            order in Just((1..=24_u64).collect::<Vec<_>>()).prop_shuffle(),
            again in prop::collection::vec(1..=24_u64, 0..8),
        ) {
            let mut early = Early::new(ByteCount(24));
            let mut taken = Vec::new();
            for number in order.into_iter().chain(again) {
                taken.extend(arrive(&mut early, number));
            }
            let first: Vec<u64> = taken.iter().copied().take(24).collect();
            prop_assert_eq!(first, (1..=24).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_more_is_kept_than_a_window() {
        let mut early = Early::new(ByteCount(10));
        early.begin_behind(4);
        assert!(early.is_due(5) && early.is_due(2) && !early.is_due(6));
        early.keep(6, (ByteCount(7), ())).unwrap();
        early.keep(6, (ByteCount(7), ())).unwrap();
        early.keep(8, (ByteCount(7), ())).unwrap();
        let refused = early.keep(9, (ByteCount(7), ())).unwrap_err();
        assert_eq!(
            (refused.number, refused.next, refused.kept),
            (9, 5, ByteCount(14))
        );
        early.begin_behind(5);
        assert!(early.pop_due().is_none());
        early.keep(9, (ByteCount(7), ())).unwrap();
    }
}
