//! Decides which recovery point a user means.

use std::fmt;

use farshore_blocks::{Sequence, clock::WallTime};
use serde::{Deserialize, Serialize};

/// How a user chose a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PointChoice {
    /// The newest.
    Latest,
    /// The newest that is consistent for the guest's applications.
    LatestAppConsistent,
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
    /// What it is consistent with.
    pub consistency: Consistency,
}

/// What a recovery point is consistent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// As after a power cut.
    Crash,
    /// The guest's applications knew of it.
    Application,
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
            Self::LatestAppConsistent => points
                .iter()
                .filter(|point| point.consistency == Consistency::Application)
                .map(|point| point.sequence)
                .max(),
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
            Self::LatestAppConsistent => out.write_str("that is app-consistent"),
            Self::Sequence(sequence) => write!(out, "{sequence}"),
            Self::NotAfter(time) => write!(out, "not after {}", time.to_rfc3339()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<Candidate> {
        let (crash, application) = (Consistency::Crash, Consistency::Application);
        [
            (2, 20, application),
            (3, 30, application),
            (4, 45, crash),
            (5, 40, crash),
        ]
        .map(|(sequence, captured, consistency)| Candidate {
            sequence: Sequence(sequence),
            captured_at: WallTime(captured),
            consistency,
        })
        .to_vec()
    }

    #[test]
    fn the_newest_application_consistent_point_is_found_behind_newer_ones() {
        let choice = PointChoice::LatestAppConsistent;
        assert_eq!(choice.choose(&points()).unwrap(), Sequence(3));
        let refused = choice.choose(&points()[2..]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "there is no recovery point that is app-consistent; the vault has 4 to 5"
        );
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
            "there is no recovery point 9; the vault has 2 to 5"
        );
        assert!(PointChoice::NotAfter(WallTime(19)).choose(&points()).is_err());
        assert_eq!(PointChoice::Latest.choose(&[]), Err(NoSuchPoint::NoneYet));
    }
}
