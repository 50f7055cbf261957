//! A job and its steps, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::{Listed, state, time};
use crate::output::format;

/// A durable workflow.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobView {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) state: String,
    pub(crate) steps: Vec<StepView>,
    pub(crate) error: String,
    pub(crate) created_at: Option<String>,
    pub(crate) ended_at: Option<String>,
}

/// A part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepView {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) attempts: u32,
    pub(crate) detail: String,
    pub(crate) started_at: Option<String>,
    pub(crate) ended_at: Option<String>,
}

impl From<v1::Job> for JobView {
    fn from(job: v1::Job) -> Self {
        Self {
            state: state("JOB_STATE_", job.state().as_str_name()),
            id: job.id,
            kind: job.kind,
            subject: job.subject,
            steps: job.steps.into_iter().map(StepView::from).collect(),
            error: job.error,
            created_at: time(job.created_at),
            ended_at: time(job.ended_at),
        }
    }
}

impl From<v1::Step> for StepView {
    fn from(step: v1::Step) -> Self {
        Self {
            state: state("STEP_STATE_", step.state().as_str_name()),
            name: step.name,
            attempts: step.attempts,
            detail: step.detail,
            started_at: time(step.started_at),
            ended_at: time(step.ended_at),
        }
    }
}

impl JobView {
    fn present_step(&self) -> String {
        let done = self.steps.iter().filter(|step| step.state == "Done").count();
        let present = self
            .steps
            .iter()
            .find(|step| matches!(step.state.as_str(), "Running" | "Failed"));
        let name = present.map_or(String::new(), |step| format!(" {}", step.name));
        format!("{done}/{}{name}", self.steps.len())
    }
}

impl Listed for JobView {
    const HEADINGS: &'static [&'static str] = &["id", "kind", "subject", "state", "steps", "age"];
    const WIDE_HEADINGS: &'static [&'static str] = &["ended at", "error"];

    fn key(&self) -> String {
        self.id.clone()
    }

    fn cells(&self, now: WallTime) -> Vec<String> {
        vec![
            self.id.clone(),
            self.kind.clone(),
            self.subject.clone(),
            self.state.clone(),
            self.present_step(),
            format::age(self.created_at.as_deref(), now),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        vec![
            format::or_nothing(self.ended_at.as_deref().unwrap_or_default()),
            format::or_nothing(&self.error),
        ]
    }
}
