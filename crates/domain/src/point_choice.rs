//! Decides which recovery point a user means.

use std::fmt;

use farshore_blocks::{Sequence, clock::WallTime};
use serde::{Deserialize, Serialize};

/// How a user chose a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PointChoice {
    /// The newest.
    Latest,
    /// This one.
    Sequence(Sequence),
    /// The newest that was captured not after this time.
    NotAfter(WallTime),
}

/// What a choice looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the chain.
    pub sequence: Sequence,
    /// The source's clock when it was taken.
    pub captured_at: WallTime,
}

/// There is no such point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchPoint {
    /// The chain has none.
    #[error("there is no recovery point yet")]
    NoneYet,
    /// None fits the choice.
    #[error("there is no recovery point {choice}; the vault has {oldest} to {newest}")]
    NoneFits {
        /// What was wanted.
        choice: PointChoice,
        /// The oldest there is.
        oldest: Sequence,
        /// The newest there is.
        newest: Sequence,
    },
}

impl PointChoice {
    /// The chosen point.
    ///
    /// # Errors
    /// When none fits.
    pub fn choose(self, points: &[Candidate]) -> Result<Sequence, NoSuchPoint> {
        let sequences = || points.iter().map(|point| point.sequence);
        let (Some(oldest), Some(newest)) = (sequences().min(), sequences().max()) else {
            return Err(NoSuchPoint::NoneYet);
        };
        let found = match self {
            Self::Latest => Some(newest),
            Self::Sequence(wanted) => sequences().find(|sequence| *sequence == wanted),
            Self::NotAfter(limit) => points
                .iter()
                .filter(|point| point.captured_at <= limit)
                .map(|point| point.sequence)
                .max(),
        };
        found.ok_or(NoSuchPoint::NoneFits {
            choice: self,
            oldest,
            newest,
        })
    }
}

impl fmt::Display for PointChoice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => out.write_str("latest"),
            Self::Sequence(sequence) => write!(out, "{sequence}"),
            Self::NotAfter(time) => write!(out, "not after {}", time.to_rfc3339()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<Candidate> {
        [(3, 30), (4, 45), (5, 40)]
            .map(|(sequence, captured)| Candidate {
                sequence: Sequence(sequence),
                captured_at: WallTime(captured),
            })
            .to_vec()
    }

    #[test]
    fn order_is_by_sequence_and_never_by_clock() {
        assert_eq!(PointChoice::Latest.choose(&points()).unwrap(), Sequence(5));
        assert_eq!(
            PointChoice::NotAfter(WallTime(42)).choose(&points()).unwrap(),
            Sequence(5)
        );
        assert_eq!(
            PointChoice::NotAfter(WallTime(39)).choose(&points()).unwrap(),
            Sequence(3)
        );
    }

    #[test]
    fn a_point_that_is_not_there_is_refused_with_what_there_is() {
        let refused = PointChoice::Sequence(Sequence(9)).choose(&points()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "there is no recovery point 9; the vault has 3 to 5"
        );
        assert!(PointChoice::NotAfter(WallTime(29)).choose(&points()).is_err());
        assert_eq!(PointChoice::Latest.choose(&[]), Err(NoSuchPoint::NoneYet));
    }
}
