//! The record of an idempotency key: the request that it came with, and what was answered.

use farshore_blocks::{Digest, Sequence, clock::WallTime};
use farshore_domain::{declaration::Kind, job::JobId};
use serde::{Deserialize, Serialize};

use super::Record;

/// A key that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRecord {
    /// The key, with the method that it was used for.
    pub key: String,
    /// Of the request.
    pub request: Digest,
    /// What was answered.
    pub answer: Answer,
    /// When.
    pub at: WallTime,
}

/// What was answered: enough to answer again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of an apply.
    Applied(Vec<Applied>),
    /// Of a delete: the job, if it takes one.
    Deleted(Option<JobId>),
    /// A test failover.
    Test(String),
    /// A job.
    Job(JobId),
    /// A point that was pinned or unpinned.
    Point(Sequence),
}

/// What became of one declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What changed.
    pub effect: AppliedEffect,
    /// The job that it set going.
    pub job: Option<JobId>,
}

/// What an apply changed of a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppliedEffect {
    /// It is new.
    Created,
    /// It was different before.
    Changed,
    /// It was the same before.
    Unchanged,
}

impl Record for AnswerRecord {
    const KIND: &'static str = "answer";

    fn name(&self) -> String {
        self.key.clone()
    }
}
