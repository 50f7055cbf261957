//! A consistency group: protected VMs whose recovery points are taken at one instant.

use std::time::Duration;

use serde::Serialize;

use super::{cursor::Cursor, duration, fields::Fields, policy::read_between, problems::Problems, text::Name};

/// How many VMs a group has at most.
pub const MAX_MEMBERS: usize = 64;

const SHORTEST_HOLD: Duration = Duration::from_millis(50);
const LONGEST_HOLD: Duration = Duration::from_secs(5);
/// Most of it is what QEMU takes to flush a disk when it stops.
const DEFAULT_HOLD: Duration = Duration::from_secs(1);

/// A declared group. It has members, and none of them twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsistencyGroup {
    #[serde(skip)]
    name: Name,
    members: Vec<Name>,
    #[serde(serialize_with = "duration::serialize")]
    hold_limit: Duration,
}

impl ConsistencyGroup {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The names of its protected VMs.
    #[must_use]
    pub fn members(&self) -> &[Name] {
        &self.members
    }

    /// How long a member's guest may be stopped for an instant.
    #[must_use]
    pub fn hold_limit(&self) -> Duration {
        self.hold_limit
    }

    /// Whether an instant of it stops processors: only one of several VMs does.
    #[must_use]
    pub fn stops_guests(&self) -> bool {
        self.members.len() > 1
    }

    pub(super) fn read(name: Option<Name>, spec: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(spec, &["members", "holdLimit"], problems)?;
        let members = fields.required("members", problems, read_members);
        let hold_limit = fields.optional("holdLimit", problems, |limit, problems| {
            read_between(limit, SHORTEST_HOLD, LONGEST_HOLD, problems)
        });
        Some(Self {
            name: name?,
            members: members?,
            hold_limit: hold_limit?.unwrap_or(DEFAULT_HOLD),
        })
    }
}

fn read_members(at: &Cursor<'_>, problems: &mut Problems) -> Option<Vec<Name>> {
    let members: Vec<Name> = at.list(MAX_MEMBERS, problems, Cursor::parsed)?;
    if members.is_empty() {
        return at.refuse("has no items; a group has at least one member", problems);
    }
    at.refuse_repeated("name", members.iter().map(Name::as_str), problems)?;
    Some(members)
}
