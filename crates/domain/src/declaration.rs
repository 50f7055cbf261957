//! What users declare: sites, replication policies, protected VMs and consistency groups, read from YAML and written back to it.
//!
//! A declaration exists only if it was read and found good: [`parse_manifest`] and `Deserialize` are the only
//! ways to one, and both are the same reader. What a declaration refers to is checked by [`check_apply`].

mod app_consistency;
mod cursor;
mod document;
mod duration;
mod fast_mode;
mod fields;
mod group;
mod link;
mod locate;
mod machine;
mod manifest;
mod path;
mod policy;
mod problems;
mod protected_vm;
mod references;
mod refusal;
mod retention;
mod seed;
mod set;
mod site;
mod size;
mod source;
mod suggestion;
mod text;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use app_consistency::AppConsistency;
pub use duration::{format_duration, parse_duration};
pub use fast_mode::{FastMode, Percent};
pub use group::{ConsistencyGroup, MAX_MEMBERS};
pub use link::{Link, LinkHours, TimeOfDay, Weekday};
pub use machine::{Disk, DiskBus, Firmware, MAX_DISKS, MAX_NICS, Machine, Nic};
pub use manifest::{MAX_MANIFEST_BYTES, ManifestError, ManifestErrors, Position, parse_manifest};
pub use policy::ReplicationPolicy;
pub use protected_vm::{MAX_VM_NAME_BYTES, ProtectedVm, Target};
pub use references::{ApplyPlan, Effect, Outcome, check_apply, check_delete};
pub use refusal::{Misfit, Refusal, SiteRole};
pub use retention::Retention;
pub use seed::Seed;
pub use set::DeclarationSet;
pub use site::{Dialler, Inbound, Network, Provider, Site};
pub use size::{format_size, parse_size};
pub use source::{Source, SourceDisk, SourcePlace};
pub use text::{
    BridgeName, DeviceIdentifier, DiskPath, MacAddress, MachineType, MachineUuid, MonitorPath, Name,
    TextRefused,
};

use cursor::Cursor;
use document::Node;
use fields::Fields;
use problems::Problems;

/// The only version of the documents so far.
pub const API_VERSION: &str = "farshore/v1";

/// One declared thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declaration {
    /// A place where VMs run.
    Site(Site),
    /// How often and how well to replicate.
    ReplicationPolicy(ReplicationPolicy),
    /// A VM to protect.
    ProtectedVm(ProtectedVm),
    /// VMs whose recovery points are taken at one instant.
    ConsistencyGroup(ConsistencyGroup),
}

/// What kind of thing is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// [`Site`].
    Site,
    /// [`ReplicationPolicy`].
    ReplicationPolicy,
    /// [`ProtectedVm`].
    ProtectedVm,
    /// [`ConsistencyGroup`].
    ConsistencyGroup,
}

/// Which declaration: names are unique within a kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeclarationKey {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
}

impl Declaration {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Site(_) => Kind::Site,
            Self::ReplicationPolicy(_) => Kind::ReplicationPolicy,
            Self::ProtectedVm(_) => Kind::ProtectedVm,
            Self::ConsistencyGroup(_) => Kind::ConsistencyGroup,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Site(site) => site.name(),
            Self::ReplicationPolicy(policy) => policy.name(),
            Self::ProtectedVm(vm) => vm.name(),
            Self::ConsistencyGroup(group) => group.name(),
        }
    }

    /// Its kind and name.
    #[must_use]
    pub fn key(&self) -> DeclarationKey {
        DeclarationKey {
            kind: self.kind(),
            name: self.name().clone(),
        }
    }

    fn read(document: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(document, &["apiVersion", "kind", "metadata", "spec"], problems)?;
        let version = fields.required("apiVersion", problems, |version, problems| {
            version.choice("an apiVersion", &[(API_VERSION, ())], problems)
        });
        let kind = fields.required("kind", problems, |kind, problems| {
            kind.choice("a kind", &Kind::NAMES, problems)
        });
        let name = fields.required("metadata", problems, |metadata, problems| {
            let fields = Fields::open(metadata, &["name"], problems)?;
            fields.required("name", problems, |name, problems| {
                let parsed: Name = name.parsed(problems)?;
                if kind == Some(Kind::ProtectedVm) {
                    protected_vm::check_name(name, &parsed, problems)?;
                }
                Some(parsed)
            })
        });
        // The specification is read even when the name is bad, so that all errors are told at once.
        let declaration = fields.required("spec", problems, |spec, problems| {
            kind.and_then(|kind| kind.read(name, spec, problems))
        });
        version.and(declaration)
    }
}

impl Kind {
    /// Every kind with the name that documents give it.
    const NAMES: [(&'static str, Self); 4] = [
        ("Site", Self::Site),
        ("ReplicationPolicy", Self::ReplicationPolicy),
        ("ProtectedVm", Self::ProtectedVm),
        ("ConsistencyGroup", Self::ConsistencyGroup),
    ];

    /// Its name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "Site",
            Self::ReplicationPolicy => "ReplicationPolicy",
            Self::ProtectedVm => "ProtectedVm",
            Self::ConsistencyGroup => "ConsistencyGroup",
        }
    }

    fn read(self, name: Option<Name>, spec: &Cursor<'_>, problems: &mut Problems) -> Option<Declaration> {
        match self {
            Self::Site => Site::read(name, spec, problems).map(Declaration::Site),
            Self::ReplicationPolicy => {
                ReplicationPolicy::read(name, spec, problems).map(Declaration::ReplicationPolicy)
            }
            Self::ProtectedVm => ProtectedVm::read(name, spec, problems).map(Declaration::ProtectedVm),
            Self::ConsistencyGroup => {
                ConsistencyGroup::read(name, spec, problems).map(Declaration::ConsistencyGroup)
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = TextRefused;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        suggestion::choose("a kind", &Self::NAMES, text)
    }
}

impl fmt::Display for DeclarationKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.kind, self.name)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, Specification> {
    api_version: &'static str,
    kind: Kind,
    metadata: Metadata<'a>,
    spec: &'a Specification,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a Name,
}

impl Serialize for Declaration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn envelope<'a, T>(declaration: &'a Declaration, spec: &'a T) -> Envelope<'a, T> {
            Envelope {
                api_version: API_VERSION,
                kind: declaration.kind(),
                metadata: Metadata {
                    name: declaration.name(),
                },
                spec,
            }
        }
        match self {
            Self::Site(site) => envelope(self, site).serialize(serializer),
            Self::ReplicationPolicy(policy) => envelope(self, policy).serialize(serializer),
            Self::ProtectedVm(vm) => envelope(self, vm).serialize(serializer),
            Self::ConsistencyGroup(group) => envelope(self, group).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Declaration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(deserializer)?;
        let mut problems = Problems::default();
        let declaration = Self::read(&Cursor::root(&node), &mut problems);
        match declaration {
            Some(declaration) if problems.is_empty() => Ok(declaration),
            Some(_) | None => Err(serde::de::Error::custom(problems)),
        }
    }
}

#[cfg(test)]
mod tests;
