//! Decides what is said of a cycle that takes longer than its interval, and where its time went.

use std::time::Duration;

use super::{Health, Observation, Reason};

/// Where the time of the last cycle went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CycleTimes {
    /// What was declared from one begin to the next.
    pub interval: Duration,
    /// All of it.
    pub took: Duration,
    /// Until reading could begin: bitmaps, filters, the instant.
    pub begin: Duration,
    /// Waiting for the disks' bytes.
    pub read: Duration,
    /// Waiting for the link, its limits and the target.
    pub send: Duration,
    /// From the last acknowledgement to the point.
    pub seal: Duration,
}

/// What took longest, and what to do about it.
struct Longest {
    cause: &'static str,
    what_to_do: &'static str,
}

/// Cycles cannot follow each other as declared.
pub(super) fn of_cycles(seen: &Observation<'_>) -> Option<Reason> {
    let times = seen
        .last_cycle
        .filter(|times| times.took > times.interval && seen.protection.follows_reports())?;
    let longest = longest(times);
    Some(Reason {
        health: Health::Warning,
        code: "cycle-too-long",
        what: format!(
            "the last cycle took {}, the interval is {}: begin {}, read {}, send {}, seal {}",
            seconds(times.took),
            seconds(times.interval),
            seconds(times.begin),
            seconds(times.read),
            seconds(times.send),
            seconds(times.seal)
        ),
        possible_cause: longest.cause,
        what_to_do: longest.what_to_do,
    })
}

fn longest(times: CycleTimes) -> Longest {
    let begin = Longest {
        cause: "the hypervisor was slow to take the instant: it drains and flushes the VM's disks for it",
        what_to_do: "look at the load of the hypervisor's host and its disks; `cache=none` shortens the flush",
    };
    let read = Longest {
        cause: "the VM's disks were slow to give the changed data",
        what_to_do: "look at the load of the source's disks and of the replicator's host",
    };
    let send = Longest {
        cause: "the link, the bandwidth limit or the target's disk takes less than the VM writes",
        what_to_do: "look at the bandwidth limit, the link and the load of the target; a longer interval writes less \
                     where the VM writes the same places again and again",
    };
    let seal = Longest {
        cause: "the target was slow to make the point durable",
        what_to_do: "look at the load of the disk under the vault",
    };
    let phases = [
        (times.begin, begin),
        (times.read, read),
        (times.seal, seal),
        (times.send, send),
    ];
    let [first, rest @ ..] = phases;
    rest.into_iter()
        .fold(
            first,
            |longest, phase| {
                if phase.0 >= longest.0 { phase } else { longest }
            },
        )
        .1
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
