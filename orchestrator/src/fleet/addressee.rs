//! Decides which of a site's replicators a command is for.

use super::registry::{Session, Sessions};
use crate::replicators::Duty;

/// For whom a command is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addressee {
    pub(super) site: String,
    pub(super) duty: Duty,
}

/// Who is attached of those that it may be for.
pub(super) enum Found<'a> {
    None,
    One(&'a Session),
    /// All their names; the addressee does not tell them apart.
    Several(Vec<String>),
}

impl Addressee {
    /// Whether it may be for this one.
    pub(super) fn is(&self, session: &Session) -> bool {
        session.site == self.site
            && match &self.duty {
                Duty::Vault => session.can.keep,
                Duty::Source(Some(name)) => session.name == *name,
                Duty::Source(None) => session.can.capture,
            }
    }

    pub(super) fn among<'a>(&self, sessions: &'a Sessions) -> Found<'a> {
        let mut found = sessions.values().filter(|session| self.is(session));
        match (found.next(), found.next()) {
            (None, _) => Found::None,
            (Some(one), None) => Found::One(one),
            (Some(one), Some(another)) => {
                let all = [one, another].into_iter().chain(found);
                Found::Several(all.map(|session| session.name.clone()).collect())
            }
        }
    }
}
