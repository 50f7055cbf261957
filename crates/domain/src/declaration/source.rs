//! Where a VM's disks are read: beside its hypervisor, or as they lie there without one.

use serde::Serialize;

use super::{
    cursor::Cursor,
    fields::Fields,
    machine::Machine,
    problems::Problems,
    text::{DiskPath, MonitorPath, Name},
};

/// Where a VM runs, or its disks lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Its site.
    pub site: Name,
    /// The one of the site's replicators that reaches it; left out where only one captures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicator: Option<Name>,
    /// What of it the site's replicator uses.
    #[serde(flatten)]
    pub place: SourcePlace,
    /// The socket of its guest agent's channel, on the host of the site's replicator; application-consistent points need it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_agent: Option<MonitorPath>,
    /// The socket of a second QMP monitor for the watchdog; a member of a group of several VMs needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog_monitor: Option<MonitorPath>,
}

/// What a replicator captures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SourcePlace {
    /// A VM that runs, by the socket of its QMP monitor on the replicator's host.
    Monitor(MonitorPath),
    /// Disks without a hypervisor, in the order of the machine's.
    #[serde(serialize_with = "serialize_disks")]
    Disks(Vec<SourceDisk>),
}

/// A disk without a hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDisk {
    /// The name of the machine's disk.
    pub name: Name,
    /// A raw image or a block device on the replicator's host.
    pub path: DiskPath,
}

fn serialize_disks<S: serde::Serializer>(disks: &[SourceDisk], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(disks.iter().map(|disk| (&disk.name, &disk.path)))
}

impl Source {
    /// Whether nothing but where disks lie tells it from `other`.
    #[must_use]
    pub fn is_same_but_disks(&self, other: &Self) -> bool {
        let same_place = match (&self.place, &other.place) {
            (SourcePlace::Monitor(one), SourcePlace::Monitor(another)) => one == another,
            (SourcePlace::Disks(_), SourcePlace::Disks(_)) => true,
            (SourcePlace::Monitor(_), SourcePlace::Disks(_))
            | (SourcePlace::Disks(_), SourcePlace::Monitor(_)) => false,
        };
        same_place
            && self.site == other.site
            && self.replicator == other.replicator
            && self.guest_agent == other.guest_agent
    }

    /// The disks without a hypervisor; none of a VM that runs.
    #[must_use]
    pub fn disks(&self) -> &[SourceDisk] {
        match &self.place {
            SourcePlace::Monitor(_) => &[],
            SourcePlace::Disks(disks) => disks,
        }
    }

    /// `machine` is absent where it is wrong itself; its disks are then not compared with those named here.
    pub(super) fn read(
        source: &Cursor<'_>,
        machine: Option<&Machine>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let fields = Fields::open(
            source,
            &[
                "site",
                "replicator",
                "monitor",
                "disks",
                "guestAgent",
                "watchdogMonitor",
            ],
            problems,
        )?;
        let site = fields.required("site", problems, Cursor::parsed);
        let replicator = fields.optional("replicator", problems, Cursor::parsed);
        let disks = fields.optional("disks", problems, |disks, problems| {
            read_disks(disks, machine?, problems)
        });
        let monitor = fields.optional("monitor", problems, Cursor::parsed);
        let guest_agent = fields.optional("guestAgent", problems, Cursor::parsed);
        let watchdog = fields.optional("watchdogMonitor", problems, |at, problems| {
            let watchdog: MonitorPath = at.parsed(problems)?;
            if monitor
                .as_ref()
                .is_some_and(|monitor| monitor.as_ref() == Some(&watchdog))
            {
                let message =
                    format!("`{watchdog}` is the `monitor` too; a monitor serves one client at a time");
                return at.refuse(message, problems);
            }
            Some(watchdog)
        });
        let place = match (monitor?, disks?) {
            (Some(monitor), None) => SourcePlace::Monitor(monitor),
            (None, Some(disks)) => SourcePlace::Disks(disks),
            (Some(_), Some(_)) => {
                return source.refuse(
                    "has both `monitor` and `disks`: a VM runs, or it does not",
                    problems,
                );
            }
            (None, None) => {
                let message = "`monitor` is missing, or `disks` where no hypervisor runs the VM";
                return source.refuse(message, problems);
            }
        };
        let guest_agent = guest_agent?;
        if guest_agent.is_some() && matches!(place, SourcePlace::Disks(_)) {
            return source.refuse("has a `guestAgent`, but no guest runs on `disks`", problems);
        }
        let watchdog_monitor = watchdog?;
        if watchdog_monitor.is_some() && matches!(place, SourcePlace::Disks(_)) {
            return source.refuse("has a `watchdogMonitor`, but no guest runs on `disks`", problems);
        }
        Some(Self {
            site: site?,
            replicator: replicator?,
            place,
            guest_agent,
            watchdog_monitor,
        })
    }
}

fn read_disks(at: &Cursor<'_>, machine: &Machine, problems: &mut Problems) -> Option<Vec<SourceDisk>> {
    let names: Vec<&str> = machine.disks().iter().map(|disk| disk.name.as_str()).collect();
    let fields = Fields::open(at, &names, problems)?;
    let read: Vec<_> = machine
        .disks()
        .iter()
        .map(|disk| {
            let path = fields.required(disk.name.as_str(), problems, Cursor::parsed);
            path.map(|path| SourceDisk {
                name: disk.name.clone(),
                path,
            })
        })
        .collect();
    read.into_iter().collect()
}
