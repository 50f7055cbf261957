//! An event, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::{Listed, state, time};
use crate::output::format;

/// Something that happened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView {
    pub(crate) number: u64,
    pub(crate) at: Option<String>,
    pub(crate) severity: String,
    pub(crate) subject: String,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl From<v1::Event> for EventView {
    fn from(event: v1::Event) -> Self {
        Self {
            severity: state("SEVERITY_", event.severity().as_str_name()),
            number: event.number,
            at: time(event.at),
            subject: event.subject,
            code: event.code,
            message: event.message,
        }
    }
}

impl Listed for EventView {
    const HEADINGS: &'static [&'static str] = &["age", "severity", "subject", "code", "message"];
    const WIDE_HEADINGS: &'static [&'static str] = &["number", "at"];

    fn key(&self) -> String {
        self.number.to_string()
    }

    fn cells(&self, now: WallTime) -> Vec<String> {
        vec![
            format::age(self.at.as_deref(), now),
            self.severity.clone(),
            self.subject.clone(),
            self.code.clone(),
            self.message.clone(),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        vec![
            self.number.to_string(),
            format::or_nothing(self.at.as_deref().unwrap_or_default()),
        ]
    }
}
