//! A test failover, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::{LeakView, Listed, RecoveredView, state, time};
use crate::output::format;

/// A rehearsal in an isolated network.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestFailoverView {
    pub(crate) name: String,
    pub(crate) vm: String,
    pub(crate) state: String,
    pub(crate) detail: String,
    pub(crate) point: u64,
    pub(crate) recovered: Option<RecoveredView>,
    pub(crate) job: String,
    pub(crate) notes: String,
    pub(crate) leaks: Vec<LeakView>,
    pub(crate) started_at: Option<String>,
    pub(crate) ended_at: Option<String>,
}

impl From<v1::TestFailover> for TestFailoverView {
    fn from(test: v1::TestFailover) -> Self {
        Self {
            state: state("TEST_FAILOVER_STATE_", test.state().as_str_name()),
            name: test.name,
            vm: test.vm,
            detail: test.detail,
            point: test.point,
            recovered: test.recovered.map(RecoveredView::from),
            job: test.job,
            notes: test.notes,
            leaks: test.leaks.into_iter().map(LeakView::from).collect(),
            started_at: time(test.started_at),
            ended_at: time(test.ended_at),
        }
    }
}

impl TestFailoverView {
    /// `isolated`, or what leads out; nothing before it ran.
    pub(crate) fn isolation(&self) -> String {
        let Some(recovered) = &self.recovered else {
            return format::NOTHING.to_owned();
        };
        if recovered.ways_out.is_empty() {
            "isolated".to_owned()
        } else {
            format!("ways out: {}", recovered.ways_out.join(", "))
        }
    }
}

impl Listed for TestFailoverView {
    const HEADINGS: &'static [&'static str] = &["name", "vm", "state", "point", "network", "age"];
    const WIDE_HEADINGS: &'static [&'static str] = &["job", "namespace", "leaks", "detail"];

    fn key(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now: WallTime) -> Vec<String> {
        vec![
            self.name.clone(),
            self.vm.clone(),
            self.state.clone(),
            if self.point == 0 {
                format::NOTHING.to_owned()
            } else {
                self.point.to_string()
            },
            self.isolation(),
            format::age(self.started_at.as_deref(), now),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        let namespace = self
            .recovered
            .as_ref()
            .and_then(|recovered| recovered.namespace.as_deref());
        vec![
            format::or_nothing(&self.job),
            format::or_nothing(namespace.unwrap_or_default()),
            self.leaks.len().to_string(),
            format::or_nothing(&self.detail),
        ]
    }
}
