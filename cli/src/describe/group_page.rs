//! A consistency group on one page.

use super::section;
use crate::{
    output::{
        format::{optional_seconds, or_nothing},
        table::{sheet, table},
    },
    view::GroupView,
};

/// The group and how its members' instants go.
pub(super) fn page(group: &GroupView) -> String {
    let facts = sheet(vec![
        ("Group", group.name.clone()),
        ("Hold limit", optional_seconds(group.hold_limit_seconds)),
        ("Longest hold", optional_seconds(group.longest_hold_seconds)),
        ("Led by", or_nothing(group.leader.as_deref().unwrap_or_default())),
        (
            "Newest instant",
            or_nothing(group.instant_at.as_deref().unwrap_or_default()),
        ),
        (
            "  its number",
            or_nothing(group.instant.as_deref().unwrap_or_default()),
        ),
    ]);
    let rows = group.members.iter().map(|member| {
        vec![
            member.vm.clone(),
            or_nothing(member.replicator.as_deref().unwrap_or_default()),
            member.instants.to_string(),
            optional_seconds(member.longest_hold_seconds),
            or_nothing(member.missed.as_deref().unwrap_or_default()),
        ]
    });
    let members = table(
        &["vm", "replicator", "instants", "longest hold", "missed"],
        rows.collect(),
    );
    format!("{facts}{}", section("Members", &members))
}
