//! The record of a test failover.

use farshore_blocks::{ChainId, Sequence, clock::WallTime};
use farshore_domain::{job::JobId, point_choice::PointChoice, test_failover::TestFailover};
use serde::{Deserialize, Serialize};

use super::{Record, Started};

/// A test failover. It outlives the protection of its VM, so it holds all that its cleanup needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestRecord {
    /// Its name, which is also the recovered VM's.
    pub name: String,
    /// The VM that is rehearsed.
    pub vm: String,
    /// The site where the clone runs.
    pub site: String,
    /// The chain of the point.
    pub chain: ChainId,
    /// Where it is.
    pub state: TestFailover,
    /// Which point was ordered.
    pub choice: PointChoice,
    /// Which point it became.
    pub point: Option<Sequence>,
    /// The clone as it was started.
    pub started: Option<Started>,
    /// The job that works on it, or did last.
    pub job: JobId,
    /// What people noted at its cleanup.
    pub notes: String,
    /// What becomes of a cleanup that leaves something behind.
    pub leftovers: Leftovers,
    /// What its cleanup found left behind.
    pub leaks: Vec<LeakRecord>,
    /// When it was ordered.
    pub started_at: WallTime,
    /// When its VM ran in a bubble that was found isolated.
    pub succeeded_at: Option<WallTime>,
    /// When it was cleaned up.
    pub ended_at: Option<WallTime>,
}

/// What becomes of a cleanup that leaves something behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leftovers {
    /// It fails.
    Refuse,
    /// They are recorded and the test counts as cleaned: a user forced it.
    Record,
}

/// Something that was left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakRecord {
    /// What kind of thing.
    pub kind: String,
    /// Which.
    pub name: String,
}

impl Record for TestRecord {
    const KIND: &'static str = "test";

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl TestRecord {
    /// What it is in events, like `test/shop-db-t1`.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("test/{}", self.name)
    }
}
