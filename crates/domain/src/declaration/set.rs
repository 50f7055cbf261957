//! A set of declarations that are found by kind and name.

use std::collections::BTreeMap;

use super::{
    ConsistencyGroup, Declaration, DeclarationKey, Kind, Name, ProtectedVm, ReplicationPolicy, Site,
    suggestion::nearest,
};

/// Declarations, at most one of each kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclarationSet {
    declarations: BTreeMap<DeclarationKey, Declaration>,
}

impl DeclarationSet {
    /// The declaration of this kind and name.
    #[must_use]
    pub fn get(&self, key: &DeclarationKey) -> Option<&Declaration> {
        self.declarations.get(key)
    }

    /// Adds or replaces a declaration.
    pub fn insert(&mut self, declaration: Declaration) {
        self.declarations.insert(declaration.key(), declaration);
    }

    /// Takes a declaration away.
    pub fn remove(&mut self, key: &DeclarationKey) -> Option<Declaration> {
        self.declarations.remove(key)
    }

    /// All, by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = &Declaration> {
        self.declarations.values()
    }

    /// The site of this name.
    #[must_use]
    pub fn site(&self, name: &Name) -> Option<&Site> {
        match self.get(&key(Kind::Site, name))? {
            Declaration::Site(site) => Some(site),
            Declaration::ReplicationPolicy(_)
            | Declaration::ProtectedVm(_)
            | Declaration::ConsistencyGroup(_) => None,
        }
    }

    /// The policy of this name.
    #[must_use]
    pub fn policy(&self, name: &Name) -> Option<&ReplicationPolicy> {
        match self.get(&key(Kind::ReplicationPolicy, name))? {
            Declaration::ReplicationPolicy(policy) => Some(policy),
            Declaration::Site(_) | Declaration::ProtectedVm(_) | Declaration::ConsistencyGroup(_) => None,
        }
    }

    /// The protected VM of this name.
    #[must_use]
    pub fn vm(&self, name: &Name) -> Option<&ProtectedVm> {
        match self.get(&key(Kind::ProtectedVm, name))? {
            Declaration::ProtectedVm(vm) => Some(vm),
            Declaration::Site(_) | Declaration::ReplicationPolicy(_) | Declaration::ConsistencyGroup(_) => {
                None
            }
        }
    }

    /// All sites, by name.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.iter().filter_map(|declaration| match declaration {
            Declaration::Site(site) => Some(site),
            Declaration::ReplicationPolicy(_)
            | Declaration::ProtectedVm(_)
            | Declaration::ConsistencyGroup(_) => None,
        })
    }

    /// All protected VMs, by name.
    pub fn vms(&self) -> impl Iterator<Item = &ProtectedVm> {
        self.iter().filter_map(|declaration| match declaration {
            Declaration::ProtectedVm(vm) => Some(vm),
            Declaration::Site(_) | Declaration::ReplicationPolicy(_) | Declaration::ConsistencyGroup(_) => {
                None
            }
        })
    }

    /// All consistency groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = &ConsistencyGroup> {
        self.iter().filter_map(|declaration| match declaration {
            Declaration::ConsistencyGroup(group) => Some(group),
            Declaration::Site(_) | Declaration::ReplicationPolicy(_) | Declaration::ProtectedVm(_) => None,
        })
    }

    /// A declared name of this kind that may have been meant.
    pub(super) fn nearest(&self, kind: Kind, name: &Name) -> Option<Name> {
        let same_kind = self
            .declarations
            .keys()
            .filter(|key| key.kind == kind)
            .map(|key| &key.name);
        nearest_name(name, same_kind)
    }
}

impl FromIterator<Declaration> for DeclarationSet {
    fn from_iter<Declarations: IntoIterator<Item = Declaration>>(declarations: Declarations) -> Self {
        let mut set = Self::default();
        for declaration in declarations {
            set.insert(declaration);
        }
        set
    }
}

pub(super) fn key(kind: Kind, name: &Name) -> DeclarationKey {
    DeclarationKey {
        kind,
        name: name.clone(),
    }
}

pub(super) fn nearest_name<'a>(name: &Name, known: impl Iterator<Item = &'a Name>) -> Option<Name> {
    nearest(name.as_str(), known.map(Name::as_str))?.parse().ok()
}
