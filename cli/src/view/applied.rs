//! What an apply did, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::{Listed, state};
use crate::output::format;

/// One declared thing and what became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppliedView {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) effect: String,
    /// `null`: none was set going.
    pub(crate) job: Option<String>,
}

impl From<v1::Applied> for AppliedView {
    fn from(applied: v1::Applied) -> Self {
        Self {
            effect: state("APPLY_EFFECT_", applied.effect().as_str_name()),
            kind: applied.kind,
            name: applied.name,
            job: Some(applied.job).filter(|job| !job.is_empty()),
        }
    }
}

impl Listed for AppliedView {
    const HEADINGS: &'static [&'static str] = &["kind", "name", "effect", "job"];
    const WIDE_HEADINGS: &'static [&'static str] = &[];

    fn key(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    fn cells(&self, _now: WallTime) -> Vec<String> {
        vec![
            self.kind.clone(),
            self.name.clone(),
            self.effect.clone(),
            format::or_nothing(self.job.as_deref().unwrap_or_default()),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        Vec::new()
    }
}
