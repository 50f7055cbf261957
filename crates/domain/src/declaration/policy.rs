//! A replication policy: how often a cycle runs, how old the newest recovery point may get, how much of the link may
//! be used, how fast source and replica are compared, and which recovery points are kept.

use std::time::Duration;

use farshore_blocks::ByteCount;
use serde::Serialize;

use super::{
    app_consistency::AppConsistency,
    cursor::Cursor,
    duration::{self, format_duration},
    fast_mode::FastMode,
    fields::Fields,
    problems::Problems,
    retention::Retention,
    size,
    text::Name,
};

const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);
const SHORTEST_ORDINARY_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);
const LONGEST_RPO_TARGET: Duration = Duration::from_secs(30 * 24 * 3600);
/// Less than this would not even carry the protocol's own messages in time.
const LEAST_BANDWIDTH: ByteCount = ByteCount(64 << 10);

/// A terabyte is compared in three days.
const DEFAULT_AUDIT_RATE: ByteCount = ByteCount(4 << 20);
const LEAST_AUDIT_RATE: ByteCount = ByteCount(64 << 10);
const FIELDS: [&str; 7] = [
    "interval",
    "rpoTarget",
    "bandwidthLimit",
    "auditRate",
    "fastMode",
    "appConsistent",
    "retention",
];

/// A declared policy. Its RPO target is never shorter than its interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationPolicy {
    #[serde(skip)]
    name: Name,
    #[serde(serialize_with = "duration::serialize")]
    interval: Duration,
    #[serde(serialize_with = "duration::serialize")]
    rpo_target: Duration,
    #[serde(
        serialize_with = "size::serialize_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    bandwidth_limit: Option<ByteCount>,
    #[serde(serialize_with = "size::serialize")]
    audit_rate: ByteCount,
    #[serde(skip_serializing_if = "Option::is_none")]
    fast_mode: Option<FastMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_consistent: Option<AppConsistency>,
    retention: Retention,
}

impl ReplicationPolicy {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The time from one cycle's begin to the next one's.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// How many seconds of data may be at stake before it is an alarm.
    #[must_use]
    pub fn rpo_target(&self) -> Duration {
        self.rpo_target
    }

    /// How many bytes a second may be sent; `None` is not limited.
    #[must_use]
    pub fn bandwidth_limit(&self) -> Option<ByteCount> {
        self.bandwidth_limit
    }

    /// How many bytes a second of source and replica are compared; 0 is none.
    #[must_use]
    pub fn audit_rate(&self) -> ByteCount {
        self.audit_rate
    }

    /// Without it cycles begin at most once a second.
    #[must_use]
    pub fn fast_mode(&self) -> Option<FastMode> {
        self.fast_mode
    }

    /// Without it all points are crash-consistent.
    #[must_use]
    pub fn app_consistent(&self) -> Option<AppConsistency> {
        self.app_consistent
    }

    /// Which recovery points are kept.
    #[must_use]
    pub fn retention(&self) -> &Retention {
        &self.retention
    }

    pub(super) fn read(name: Option<Name>, spec: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(spec, &FIELDS, problems)?;
        let fast_mode = fields.optional("fastMode", problems, FastMode::read);
        let app_consistent = fields.optional("appConsistent", problems, AppConsistency::read);
        let interval = fields.required("interval", problems, |interval, problems| {
            let read = read_between(interval, SHORTEST_INTERVAL, LONGEST_INTERVAL, problems)?;
            if read < SHORTEST_ORDINARY_INTERVAL && fast_mode == Some(None) {
                let written = interval.written();
                return interval.refuse(
                    format!("`{written}` is less than `1s`, for which `fastMode` must be given too"),
                    problems,
                );
            }
            Some(read)
        });
        let rpo_target = fields.required("rpoTarget", problems, |target, problems| {
            let read = read_between(target, SHORTEST_INTERVAL, LONGEST_RPO_TARGET, problems)?;
            match interval {
                Some(interval) if read < interval => target.refuse(
                    format!(
                        "`{}` is shorter than the interval, `{}`: it could never be met",
                        target.written(),
                        format_duration(interval)
                    ),
                    problems,
                ),
                Some(_) | None => Some(read),
            }
        });
        let bandwidth_limit = fields.optional("bandwidthLimit", problems, |limit, problems| {
            let read = limit.size(problems)?;
            if read < LEAST_BANDWIDTH {
                let least = size::format_size(LEAST_BANDWIDTH);
                return limit.refuse(format!("must be at least `{least}` a second"), problems);
            }
            Some(read)
        });
        let audit_rate = fields.optional("auditRate", problems, |rate, problems| {
            let read = rate.size(problems)?;
            if read != ByteCount(0) && read < LEAST_AUDIT_RATE {
                let least = size::format_size(LEAST_AUDIT_RATE);
                return rate.refuse(
                    format!("must be at least `{least}` a second, or `0` for no audit"),
                    problems,
                );
            }
            Some(read)
        });
        let retention = fields.optional("retention", problems, Retention::read);
        Some(Self {
            name: name?,
            interval: interval?,
            rpo_target: rpo_target?,
            bandwidth_limit: bandwidth_limit?,
            audit_rate: audit_rate?.unwrap_or(DEFAULT_AUDIT_RATE),
            fast_mode: fast_mode?,
            app_consistent: app_consistent?,
            retention: retention?.unwrap_or_default(),
        })
    }
}

pub(super) fn read_between(
    at: &Cursor<'_>,
    shortest: Duration,
    longest: Duration,
    problems: &mut Problems,
) -> Option<Duration> {
    let read = at.duration(problems)?;
    if (shortest..=longest).contains(&read) {
        return Some(read);
    }
    let message = format!(
        "`{}` is not between `{}` and `{}`",
        at.written(),
        format_duration(shortest),
        format_duration(longest)
    );
    at.refuse(message, problems)
}
