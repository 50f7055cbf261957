//! What was found wrong in a document, all of it, each with its place.

use std::fmt;

use super::path::Path;

/// Which end of an entry a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Key,
    Value,
}

/// Something that is wrong in a document.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) path: Path,
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
}

/// All that is wrong in a document.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.0
    }

    pub(super) fn note(&mut self, path: &Path, place: Place, message: String, suggestion: Option<String>) {
        self.0.push(Problem {
            path: path.clone(),
            place,
            message,
            suggestion,
        });
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(out, "{separator}{}: {}", problem.path, problem.message)?;
        }
        Ok(())
    }
}
