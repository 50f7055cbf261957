//! One prerequisite, looked at: what was found, and what to do about it.

use serde::{Deserialize, Serialize};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckOutcome {
    /// Nothing stands in the way.
    Passed,
    /// Protection will work, but a person should look.
    Warning,
    /// Protection cannot begin.
    Failed,
}

/// A prerequisite and its result. All are listed, not only the first that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// A stable code in kebab case that documents and scripts may name, like `monitor-reachable`.
    pub code: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// What was found, in one sentence.
    pub found: String,
    /// What would be accepted, or what to do; empty when it passed.
    pub remedy: String,
}

impl Check {
    /// A check that passed.
    pub fn passed(code: &str, found: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            outcome: CheckOutcome::Passed,
            found: found.into(),
            remedy: String::new(),
        }
    }

    /// A check that wants a person's eye.
    pub fn warning(code: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            outcome: CheckOutcome::Warning,
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    /// A check that failed.
    pub fn failed(code: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            outcome: CheckOutcome::Failed,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}
