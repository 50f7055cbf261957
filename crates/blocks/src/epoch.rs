//! The epoch: the tenure of one writer of a chain, and the rule by which a write is fenced.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::identity::HolderNonce;

/// A number and the nonce of who holds it. A write is accepted only under exactly the chain's current epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Grows with every grant; never reused in a chain.
    pub number: u64,
    /// Tells two holders apart that claim the same number.
    pub holder: HolderNonce,
}

impl Epoch {
    /// Whether a write under this epoch may land where `current` is granted.
    #[must_use]
    pub fn may_write(&self, current: &Self) -> bool {
        self == current
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.number, self.holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_holder_of_the_current_epoch_may_write() {
        let current = Epoch {
            number: 3,
            holder: HolderNonce::from_bytes([1; 16]),
        };
        assert!(current.may_write(&current));
        for (number, holder) in [(2, 1), (4, 1), (3, 2)] {
            let other = Epoch {
                number,
                holder: HolderNonce::from_bytes([holder; 16]),
            };
            assert!(!other.may_write(&current), "{other}");
        }
    }
}
