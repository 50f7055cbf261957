//! A replication policy, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::{Listed, seconds};
use crate::output::format;

/// How often points are made and how much may be lost.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyView {
    pub(crate) name: String,
    pub(crate) interval_seconds: Option<f64>,
    pub(crate) rpo_target_seconds: Option<f64>,
    /// `null`: not limited.
    pub(crate) bandwidth_limit_bytes_per_second: Option<u64>,
    /// 0: none is compared.
    pub(crate) audit_bytes_per_second: u64,
    /// `null`: no fast mode.
    pub(crate) guest_cost_limit_percent: Option<u32>,
    /// `null`: all points are crash-consistent.
    pub(crate) app_consistent_every_seconds: Option<f64>,
    pub(crate) freeze_limit_seconds: Option<f64>,
    /// `null`: not told.
    pub(crate) retention: Option<RetentionView>,
}

/// Which recovery points are kept.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetentionView {
    pub(crate) keep_all_seconds: Option<f64>,
    pub(crate) hourly: u32,
    pub(crate) daily: u32,
    pub(crate) weekly: u32,
    pub(crate) monthly: u32,
    pub(crate) yearly: u32,
    /// `null`: not limited.
    pub(crate) limit_bytes: Option<u64>,
}

impl RetentionView {
    /// `all of 1 d 0 h, 7 daily, 4 weekly, at most 500 GiB`
    fn in_words(&self) -> String {
        let all = format!("all of {}", format::optional_seconds(self.keep_all_seconds));
        let tiers = [
            (self.hourly, "hourly"),
            (self.daily, "daily"),
            (self.weekly, "weekly"),
            (self.monthly, "monthly"),
            (self.yearly, "yearly"),
        ];
        let tiers = tiers
            .iter()
            .filter(|(slots, _)| *slots > 0)
            .map(|(slots, tier)| format!("{slots} {tier}"));
        let limit = self
            .limit_bytes
            .map(|bytes| format!("at most {}", format::size(bytes)));
        let parts: Vec<String> = std::iter::once(all).chain(tiers).chain(limit).collect();
        parts.join(", ")
    }
}

impl PolicyView {
    /// What is kept, in one line.
    pub(crate) fn retention_in_words(&self) -> String {
        let retention = self.retention.as_ref();
        retention.map_or_else(|| format::NOTHING.to_owned(), RetentionView::in_words)
    }

    /// How much of the link may be used.
    pub(crate) fn bandwidth_in_words(&self) -> String {
        let limit = self.bandwidth_limit_bytes_per_second;
        limit.map_or_else(|| "none".to_owned(), |bytes| format!("{}/s", format::size(bytes)))
    }
}

impl PolicyView {
    /// How fast source and replica are compared.
    pub(crate) fn audit_in_words(&self) -> String {
        match self.audit_bytes_per_second {
            0 => "none".to_owned(),
            rate => format!("{}/s", format::size(rate)),
        }
    }

    /// How often points are application-consistent.
    pub(crate) fn app_consistency_in_words(&self) -> String {
        match self.app_consistent_every_seconds {
            None => "never".to_owned(),
            every => format!(
                "every {}, frozen for {} at most",
                format::optional_seconds(every),
                format::optional_seconds(self.freeze_limit_seconds)
            ),
        }
    }

    /// By what cycles of less than a second are held back.
    pub(crate) fn fast_mode_in_words(&self) -> String {
        self.guest_cost_limit_percent.map_or_else(
            || "off".to_owned(),
            |percent| format!("writes held for at most {percent}% of the time"),
        )
    }
}

impl From<v1::Retention> for RetentionView {
    fn from(retention: v1::Retention) -> Self {
        Self {
            keep_all_seconds: seconds(retention.keep_all),
            hourly: retention.hourly,
            daily: retention.daily,
            weekly: retention.weekly,
            monthly: retention.monthly,
            yearly: retention.yearly,
            limit_bytes: Some(retention.limit_bytes).filter(|limit| *limit > 0),
        }
    }
}

impl From<v1::Policy> for PolicyView {
    fn from(policy: v1::Policy) -> Self {
        Self {
            name: policy.name,
            interval_seconds: seconds(policy.interval),
            rpo_target_seconds: seconds(policy.rpo_target),
            bandwidth_limit_bytes_per_second: Some(policy.bandwidth_bytes_per_second)
                .filter(|limit| *limit > 0),
            audit_bytes_per_second: policy.audit_bytes_per_second,
            guest_cost_limit_percent: Some(policy.guest_cost_limit_percent).filter(|percent| *percent > 0),
            app_consistent_every_seconds: seconds(policy.app_consistent_every),
            freeze_limit_seconds: seconds(policy.freeze_limit),
            retention: policy.retention.map(RetentionView::from),
        }
    }
}

impl Listed for PolicyView {
    const HEADINGS: &'static [&'static str] = &["name", "interval", "rpo target", "bandwidth limit"];
    const WIDE_HEADINGS: &'static [&'static str] = &["retention"];

    fn key(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _now: WallTime) -> Vec<String> {
        vec![
            self.name.clone(),
            format::optional_seconds(self.interval_seconds),
            format::optional_seconds(self.rpo_target_seconds),
            self.bandwidth_in_words(),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        vec![self.retention_in_words()]
    }
}

#[cfg(test)]
mod tests {
    use farshore_domain::declaration::Retention;
    use farshore_vault::RetentionPolicy;

    #[test]
    fn what_is_not_declared_is_what_the_vault_would_do_by_itself() {
        let (declared, by_itself) = (Retention::default(), RetentionPolicy::default());
        assert_eq!(
            RetentionPolicy {
                keep_all: declared.keep_all(),
                hourly: declared.hourly(),
                daily: declared.daily(),
                weekly: declared.weekly(),
                monthly: declared.monthly(),
                yearly: declared.yearly(),
                limit: declared.limit(),
            },
            by_itself
        );
    }
}
