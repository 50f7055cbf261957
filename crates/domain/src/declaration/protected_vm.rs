//! A protected VM: where it runs, where it goes, by which policy, and what machine it is.

use serde::Serialize;

use super::{
    cursor::Cursor,
    fields::Fields,
    machine::Machine,
    problems::Problems,
    seed::{self, Seed},
    source::Source,
    text::Name,
};

/// Names of recovered VMs, and of what belongs to them, are made from a VM's name.
pub const MAX_VM_NAME_BYTES: usize = 20;

/// A declared VM. Its source and its target are different sites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtectedVm {
    #[serde(skip)]
    name: Name,
    policy: Name,
    source: Source,
    target: Target,
    machine: Machine,
}

/// Where a VM goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its site.
    pub site: Name,
    /// The network of that site that it is plugged into after a failover; `None` is an isolated one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Name>,
    /// Older copies of its disks there, which the first sync makes use of.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "seed::serialize")]
    pub seed: Vec<Seed>,
}

impl ProtectedVm {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The name of its policy.
    #[must_use]
    pub fn policy(&self) -> &Name {
        &self.policy
    }

    /// Where it runs.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Where it goes.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What machine it is.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn read(name: Option<Name>, spec: &Cursor<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(spec, &["policy", "source", "target", "machine"], problems)?;
        let policy = fields.required("policy", problems, Cursor::parsed);
        let machine = fields.required("machine", problems, Machine::read);
        let source = fields.required("source", problems, |source, problems| {
            Source::read(source, machine.as_ref(), problems)
        });
        let source_site = source.as_ref().map(|source| &source.site);
        let target = fields.required("target", problems, |target, problems| {
            Target::read(target, (source_site, machine.as_ref()), problems)
        });
        Some(Self {
            name: name?,
            policy: policy?,
            source: source?,
            target: target?,
            machine: machine?,
        })
    }
}

pub(super) fn check_name(at: &Cursor<'_>, name: &Name, problems: &mut Problems) -> Option<()> {
    let length = name.as_str().len();
    if length <= MAX_VM_NAME_BYTES {
        return Some(());
    }
    let message = format!("`{name}` has {length} characters; a VM's name has at most {MAX_VM_NAME_BYTES}");
    at.refuse(message, problems)
}

impl Target {
    /// `machine` is absent where it is wrong itself; its disks are then not compared with those named here.
    fn read(
        target: &Cursor<'_>,
        (source_site, machine): (Option<&Name>, Option<&Machine>),
        problems: &mut Problems,
    ) -> Option<Self> {
        let fields = Fields::open(target, &["site", "network", "seed"], problems)?;
        let site = fields.required("site", problems, |site, problems| {
            let read: Name = site.parsed(problems)?;
            if Some(&read) == source_site {
                return site.refuse(
                    format!("`{read}` is the source site too; the target is another site"),
                    problems,
                );
            }
            Some(read)
        });
        let network = fields.optional("network", problems, Cursor::parsed);
        let seed = fields.optional("seed", problems, |seed, problems| {
            seed::read(seed, machine?, problems)
        });
        Some(Self {
            site: site?,
            network: network?,
            seed: seed?.unwrap_or_default(),
        })
    }
}
