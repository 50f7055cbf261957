//! A job on one page.

use farshore_blocks::clock::WallTime;

use super::section;
use crate::{
    output::{
        format::{age, or_nothing},
        table::{sheet, table},
    },
    view::JobView,
};

/// The job and its steps.
pub(super) fn page(job: &JobView) -> String {
    let now = WallTime::now();
    let facts = sheet(vec![
        ("Job", job.id.clone()),
        ("Kind", job.kind.clone()),
        ("Subject", job.subject.clone()),
        ("State", job.state.clone()),
        ("Error", or_nothing(&job.error)),
        (
            "Created",
            format!(
                "{} ({})",
                or_nothing(job.created_at.as_deref().unwrap_or_default()),
                age(job.created_at.as_deref(), now)
            ),
        ),
        ("Ended", or_nothing(job.ended_at.as_deref().unwrap_or_default())),
    ]);
    let steps = job.steps.iter().map(|step| {
        vec![
            step.name.clone(),
            step.state.clone(),
            step.attempts.to_string(),
            or_nothing(step.started_at.as_deref().unwrap_or_default()),
            or_nothing(step.ended_at.as_deref().unwrap_or_default()),
            or_nothing(&step.detail),
        ]
    });
    let headings = ["step", "state", "attempts", "started at", "ended at", "detail"];
    format!("{facts}{}", section("Steps", &table(&headings, steps.collect())))
}
