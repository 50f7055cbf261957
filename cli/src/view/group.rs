//! A consistency group, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::{Listed, seconds, time};
use crate::output::format;

/// VMs whose recovery points are taken at one instant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupView {
    pub(crate) name: String,
    pub(crate) members: Vec<GroupMemberView>,
    pub(crate) hold_limit_seconds: Option<f64>,
    /// The newest that all members are known to have sealed, as points name it. `null`: none yet.
    pub(crate) instant: Option<String>,
    /// By the sources' clock.
    pub(crate) instant_at: Option<String>,
    /// Of any member's guest.
    pub(crate) longest_hold_seconds: Option<f64>,
    /// The replicator at which they meet. `null`: their sources are at one.
    pub(crate) leader: Option<String>,
}

/// One of them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupMemberView {
    pub(crate) vm: String,
    /// Why its newest point is not of an instant of the group. `null`: it is.
    pub(crate) missed: Option<String>,
    pub(crate) longest_hold_seconds: Option<f64>,
    pub(crate) instants: u64,
    /// Of its source. `null` while that does not report.
    pub(crate) replicator: Option<String>,
}

/// An instant as points name it; nothing for a point that does not tell.
pub(crate) fn instant(number: u64) -> Option<String> {
    (number > 0).then(|| format!("{number:016x}"))
}

impl From<v1::Group> for GroupView {
    fn from(group: v1::Group) -> Self {
        let members = group.members.into_iter().map(|member| GroupMemberView {
            vm: member.vm,
            missed: Some(member.missed).filter(|missed| !missed.is_empty()),
            longest_hold_seconds: seconds(member.longest_hold),
            instants: member.instants,
            replicator: Some(member.replicator).filter(|name| !name.is_empty()),
        });
        Self {
            name: group.name,
            members: members.collect(),
            hold_limit_seconds: seconds(group.hold_limit),
            instant: instant(group.instant),
            instant_at: time(group.instant_at),
            longest_hold_seconds: seconds(group.longest_hold),
            leader: Some(group.leader).filter(|name| !name.is_empty()),
        }
    }
}

impl Listed for GroupView {
    const HEADINGS: &'static [&'static str] = &["name", "members", "newest instant", "age", "longest hold"];
    const WIDE_HEADINGS: &'static [&'static str] = &["instant", "hold limit"];

    fn key(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now: WallTime) -> Vec<String> {
        let names: Vec<&str> = self.members.iter().map(|member| member.vm.as_str()).collect();
        vec![
            self.name.clone(),
            names.join(","),
            format::or_nothing(self.instant_at.as_deref().unwrap_or_default()),
            format::age(self.instant_at.as_deref(), now),
            format::optional_seconds(self.longest_hold_seconds),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        vec![
            format::or_nothing(self.instant.as_deref().unwrap_or_default()),
            format::optional_seconds(self.hold_limit_seconds),
        ]
    }
}
