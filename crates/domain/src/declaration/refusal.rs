//! Why declarations do not fit together.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DeclarationKey, DiskPath, MonitorPath, Name};

/// Which of a VM's two sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SiteRole {
    /// Where it runs.
    Source,
    /// Where it goes.
    Target,
}

/// Why a VM cannot be in a group of several.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It does not go with the others.
    #[error("its {what} is {its}, and that of {other} is {theirs}; all members have the same")]
    Differs {
        /// In what.
        what: String,
        /// What it has.
        its: Name,
        /// Who has another.
        other: Name,
        /// Which.
        theirs: Name,
    },
    /// Its guest cannot be stopped safely.
    #[error(
        "it has no `source.watchdogMonitor`: a second QMP monitor, by which its guest is let go whatever happens"
    )]
    NoWatchdogMonitor,
    /// It has no instant.
    #[error("no hypervisor runs it, so that it cannot be stopped for an instant")]
    NoHypervisor,
}

/// Why declarations do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The same kind and name twice in one Apply.
    #[error("{key} is declared twice")]
    DeclaredTwice {
        /// Which.
        key: DeclarationKey,
    },
    /// A VM names a policy that does not exist.
    #[error("{vm} names the ReplicationPolicy {policy}, which is not declared{}", hint(meant.as_ref()))]
    MissingPolicy {
        /// Who names it.
        vm: Name,
        /// What is missing.
        policy: Name,
        /// What may have been meant.
        meant: Option<Name>,
    },
    /// A VM names a site that does not exist.
    #[error("{vm} names the {role} Site {site}, which is not declared{}", hint(meant.as_ref()))]
    MissingSite {
        /// Who names it.
        vm: Name,
        /// As what.
        role: SiteRole,
        /// What is missing.
        site: Name,
        /// What may have been meant.
        meant: Option<Name>,
    },
    /// A VM names a network that its target site does not have.
    #[error("{vm} names the network {network}, which the Site {site} does not have{}", hint(meant.as_ref()))]
    MissingNetwork {
        /// Who names it.
        vm: Name,
        /// The target site.
        site: Name,
        /// What is missing.
        network: Name,
        /// What may have been meant.
        meant: Option<Name>,
    },
    /// Two VMs name the same monitor of the same site: one of them is not what it says.
    #[error("{vm} names the monitor {monitor} of the Site {site}, which is that of {other}")]
    MonitorClaimed {
        /// Who names it too.
        vm: Name,
        /// The site.
        site: Name,
        /// The monitor.
        monitor: MonitorPath,
        /// Whose it is.
        other: Name,
    },
    /// Two VMs name the same disk of the same site.
    #[error("{vm} names the disk {disk} of the Site {site}, which is one of {other}")]
    DiskClaimed {
        /// Who names it too.
        vm: Name,
        /// The site.
        site: Name,
        /// The disk.
        disk: DiskPath,
        /// Whose it is.
        other: Name,
    },
    /// A group names a VM that does not exist.
    #[error("{group} names the ProtectedVm {vm}, which is not declared{}", hint(meant.as_ref()))]
    MissingMember {
        /// Who names it.
        group: Name,
        /// What is missing.
        vm: Name,
        /// What may have been meant.
        meant: Option<Name>,
    },
    /// A VM is in one group at most.
    #[error("{group} names the ProtectedVm {vm}, which is a member of {other}")]
    MemberClaimed {
        /// Who names it too.
        group: Name,
        /// The VM.
        vm: Name,
        /// Whose it is.
        other: Name,
    },
    /// A VM cannot be in the group that names it.
    #[error("{vm} cannot be a member of {group}: {misfit}")]
    MemberUnfit {
        /// Who names it.
        group: Name,
        /// The VM.
        vm: Name,
        /// Why.
        misfit: Box<Misfit>,
    },
    /// A site would lose a network that VMs declared before are to be plugged into.
    #[error(
        "the Site {site} would lose its network {network}, which is in use by {}",
        listed(vms)
    )]
    NetworkInUse {
        /// The site.
        site: Name,
        /// The network.
        network: Name,
        /// By whom.
        vms: Vec<Name>,
    },
    /// A site has a link to a site that does not exist.
    #[error("the Site {site} has a link to the Site {to}, which is not declared{}", hint(meant.as_ref()))]
    MissingLinkEnd {
        /// Whose link.
        site: Name,
        /// What is missing.
        to: Name,
        /// What may have been meant.
        meant: Option<Name>,
    },
    /// Of a VM's two sites, neither can be dialled by the other.
    #[error(
        "{vm} goes from the Site {from} to the Site {to}, which both have `inbound: closed`: neither can dial the other"
    )]
    NobodyDials {
        /// Which VM.
        vm: Name,
        /// Its source site.
        from: Name,
        /// Its target site.
        to: Name,
    },
    /// A site to which others have links cannot be deleted.
    #[error("{key} is where links lead of {}", listed(sites))]
    Linked {
        /// What.
        key: DeclarationKey,
        /// Of which sites.
        sites: Vec<Name>,
    },
    /// What others refer to cannot be deleted.
    #[error("{key} is in use by {}", listed(vms))]
    InUse {
        /// What.
        key: DeclarationKey,
        /// By whom.
        vms: Vec<Name>,
    },
    /// What is not there cannot be deleted.
    #[error("{key} is not declared{}", hint(meant.as_ref()))]
    NotFound {
        /// What.
        key: DeclarationKey,
        /// What may have been meant.
        meant: Option<Name>,
    },
}

impl Refusal {
    /// A stable code that scripts may rely on.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::DeclaredTwice { .. } => "declared-twice",
            Self::MissingPolicy { .. }
            | Self::MissingSite { .. }
            | Self::MissingNetwork { .. }
            | Self::MissingLinkEnd { .. }
            | Self::MissingMember { .. } => "missing-reference",
            Self::MemberClaimed { .. } => "member-claimed",
            Self::MemberUnfit { .. } => "member-unfit",
            Self::MonitorClaimed { .. } => "monitor-claimed",
            Self::DiskClaimed { .. } => "disk-claimed",
            Self::NobodyDials { .. } => "nobody-dials",
            Self::NetworkInUse { .. } | Self::InUse { .. } | Self::Linked { .. } => "in-use",
            Self::NotFound { .. } => "not-found",
        }
    }
}

impl fmt::Display for SiteRole {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

fn hint(meant: Option<&Name>) -> String {
    meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
}

fn listed(names: &[Name]) -> String {
    let names: Vec<_> = names.iter().map(Name::as_str).collect();
    names.join(", ")
}
