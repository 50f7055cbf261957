//! The stable shapes in which the command line shows things: camelCase keys, bytes as hexadecimal digits, times as
//! RFC 3339 in UTC, durations as numbers of seconds, sizes as numbers of bytes.
//!
//! Scripts rely on them: a key is never renamed or removed, and what is unknown is `null` or empty.

mod applied;
mod cycle;
mod event;
mod group;
mod job;
mod machine;
mod point;
mod policy;
mod recovered;
mod replicator;
mod site;
mod test_failover;
mod vm;

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use farshore_blocks::clock::WallTime;
use serde::Serialize;

pub(crate) use applied::AppliedView;
pub(crate) use cycle::{AuditView, CycleTimesView};
pub(crate) use event::EventView;
pub(crate) use group::GroupView;
pub(crate) use job::{JobView, StepView};
pub(crate) use machine::MachineView;
pub(crate) use point::PointView;
pub(crate) use policy::PolicyView;
pub(crate) use recovered::{LeakView, RecoveredView};
pub(crate) use replicator::ReplicatorView;
pub(crate) use site::SiteView;
pub(crate) use test_failover::TestFailoverView;
pub(crate) use vm::VmView;

/// Something of which there are lists.
pub(crate) trait Listed: Serialize {
    /// The columns of its table.
    const HEADINGS: &'static [&'static str];
    /// The columns that a wide table has besides.
    const WIDE_HEADINGS: &'static [&'static str];

    /// What it is asked for by.
    fn key(&self) -> String;

    /// Its cells under [`Self::HEADINGS`].
    fn cells(&self, now: WallTime) -> Vec<String>;

    /// Its cells under [`Self::WIDE_HEADINGS`].
    fn wide_cells(&self, now: WallTime) -> Vec<String>;
}

/// `PROTECTION_STATE_INITIAL_SYNC` without its prefix, as people know it: `InitialSync`.
pub(crate) fn state(prefix: &str, name: &str) -> String {
    let bare = name.strip_prefix(prefix).unwrap_or(name);
    if bare == "UNSPECIFIED" {
        return "Unknown".to_owned();
    }
    let words = bare.split('_').filter(|word| !word.is_empty());
    words
        .map(|word| {
            let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
            format!("{first}{}", rest.to_ascii_lowercase())
        })
        .collect()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A moment of the wire as RFC 3339.
pub(crate) fn time(moment: Option<impl TryInto<SystemTime>>) -> Option<String> {
    let moment: SystemTime = moment?.try_into().ok()?;
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(WallTime(u64::try_from(since.as_nanos()).ok()?).to_rfc3339())
}

/// A duration of the wire in seconds.
pub(crate) fn seconds(duration: Option<impl TryInto<Duration>>) -> Option<f64> {
    let duration: Duration = duration?.try_into().ok()?;
    Some(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_as_the_documents_write_them() {
        assert_eq!(
            state("PROTECTION_STATE_", "PROTECTION_STATE_INITIAL_SYNC"),
            "InitialSync"
        );
        assert_eq!(state("JOB_STATE_", "JOB_STATE_UNSPECIFIED"), "Unknown");
    }

    #[test]
    fn bytes_are_hexadecimal_digits() {
        assert_eq!(hexadecimal(&[0, 0xab, 7]), "00ab07");
    }

    #[test]
    fn what_the_wire_cannot_mean_is_shown_as_unknown() {
        let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(time(Some(before_1970)), None);
        assert_eq!(seconds(None::<Duration>), None);
        assert_eq!(seconds(Some(Duration::from_millis(1500))), Some(1.5));
    }
}
