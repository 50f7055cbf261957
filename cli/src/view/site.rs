//! A site, as shown.

use farshore_blocks::clock::WallTime;
use farshore_proto::v1;
use serde::Serialize;

use super::Listed;
use crate::output::format::{self, or_nothing};

/// A place where VMs run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SiteView {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) networks: Vec<NetworkView>,
    pub(crate) links: Vec<LinkView>,
}

/// A link to another site, and how much of it replication may take.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkView {
    pub(crate) to: String,
    /// Outside the hours of the schedule; `null`: not limited.
    pub(crate) bandwidth_limit_bytes_per_second: Option<u64>,
    pub(crate) schedule: Vec<LinkHoursView>,
}

/// Hours of the week, in UTC, with a limit of their own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkHoursView {
    pub(crate) days: Vec<&'static str>,
    pub(crate) from: String,
    pub(crate) to: String,
    /// `null`: not limited.
    pub(crate) limit_bytes_per_second: Option<u64>,
}

/// A network that recovered VMs may be plugged into.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetworkView {
    pub(crate) name: String,
    pub(crate) bridge: String,
}

impl From<v1::Site> for SiteView {
    fn from(site: v1::Site) -> Self {
        let networks = site.networks.into_iter();
        let links = site.links.into_iter().map(LinkView::from).collect();
        Self {
            name: site.name,
            provider: site.provider,
            networks: networks
                .map(|network| NetworkView {
                    name: network.name,
                    bridge: network.bridge,
                })
                .collect(),
            links,
        }
    }
}

impl From<v1::LinkLimit> for LinkView {
    fn from(link: v1::LinkLimit) -> Self {
        const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let limited = |rate: u64| Some(rate).filter(|rate| *rate > 0);
        let day = |number: u32| usize::try_from(number).ok().and_then(|at| DAYS.get(at).copied());
        let time = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        let schedule = link.hours.into_iter().map(|hours| LinkHoursView {
            days: hours.days.into_iter().filter_map(day).collect(),
            from: time(hours.from_minute),
            to: time(hours.to_minute),
            limit_bytes_per_second: limited(hours.bytes_per_second),
        });
        Self {
            to: link.to,
            bandwidth_limit_bytes_per_second: limited(link.bytes_per_second),
            schedule: schedule.collect(),
        }
    }
}

impl LinkView {
    fn in_words(&self) -> String {
        let limit = self.bandwidth_limit_bytes_per_second;
        let limit = limit.map_or("not limited".to_owned(), |limit| {
            format!("{}/s", format::size(limit))
        });
        match self.schedule.len() {
            0 => format!("{}: {limit}", self.to),
            _ => format!("{}: {limit}, scheduled", self.to),
        }
    }
}

impl Listed for SiteView {
    const HEADINGS: &'static [&'static str] = &["name", "provider", "networks"];
    const WIDE_HEADINGS: &'static [&'static str] = &["bridges", "links"];

    fn key(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _now: WallTime) -> Vec<String> {
        let names: Vec<&str> = self
            .networks
            .iter()
            .map(|network| network.name.as_str())
            .collect();
        vec![
            self.name.clone(),
            self.provider.clone(),
            or_nothing(&names.join(",")),
        ]
    }

    fn wide_cells(&self, _now: WallTime) -> Vec<String> {
        let bridges: Vec<&str> = self
            .networks
            .iter()
            .map(|network| network.bridge.as_str())
            .collect();
        let links: Vec<String> = self.links.iter().map(LinkView::in_words).collect();
        vec![or_nothing(&bridges.join(",")), or_nothing(&links.join("; "))]
    }
}
