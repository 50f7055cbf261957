//! A replication policy on one page.

use super::section;
use crate::{
    output::{
        format::{optional_seconds, size},
        table::sheet,
    },
    view::PolicyView,
};

/// The policy and what it keeps.
pub(super) fn page(policy: &PolicyView) -> String {
    let facts = sheet(vec![
        ("Policy", policy.name.clone()),
        ("Interval", optional_seconds(policy.interval_seconds)),
        ("RPO target", optional_seconds(policy.rpo_target_seconds)),
        ("Bandwidth limit", policy.bandwidth_in_words()),
        ("Audit", policy.audit_in_words()),
        ("Fast mode", policy.fast_mode_in_words()),
        ("Application-consistent", policy.app_consistency_in_words()),
    ]);
    let kept = policy.retention.as_ref().map(|retention| {
        let slots = |slots: u32, of: &str| match slots {
            0 => "-".to_owned(),
            slots => format!("one of each of the last {slots} {of} before"),
        };
        let limit = retention.limit_bytes;
        sheet(vec![
            ("All points of", optional_seconds(retention.keep_all_seconds)),
            ("Hourly", slots(retention.hourly, "hours")),
            ("Daily", slots(retention.daily, "days")),
            ("Weekly", slots(retention.weekly, "weeks")),
            ("Monthly", slots(retention.monthly, "months")),
            ("Yearly", slots(retention.yearly, "years")),
            (
                "Limit",
                limit.map_or_else(|| "none".to_owned(), |bytes| format!("{} a VM", size(bytes))),
            ),
        ])
    });
    format!("{facts}{}", section("Kept", &kept.unwrap_or_default()))
}
