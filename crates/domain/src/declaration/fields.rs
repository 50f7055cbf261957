//! Reads a mapping field by field and notes everything that is wrong with it, rather than stop at the first.

use super::{
    cursor::Cursor,
    document::Node,
    path::Path,
    problems::{Place, Problems},
    suggestion::nearest,
};

/// The entries of a mapping, all of whose keys are known.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    entries: &'a [(String, Node)],
    path: Path,
}

impl<'a> Fields<'a> {
    /// Opens a mapping and notes every key that is unknown or there twice.
    pub(super) fn open(at: &Cursor<'a>, known: &[&str], problems: &mut Problems) -> Option<Self> {
        let Node::Map(entries) = at.node else {
            let found = at.node.describe();
            let expected = known.join("`, `");
            return at.refuse(
                format!("expected a mapping with `{expected}`, found {found}"),
                problems,
            );
        };
        for (place, (key, _)) in entries.iter().enumerate() {
            let path = at.path.entry(place, key);
            let earlier = entries.iter().take(place).any(|(other, _)| other == key);
            if !known.contains(&key.as_str()) {
                let message = format!("unknown field; known: `{}`", known.join("`, `"));
                let free = known
                    .iter()
                    .filter(|name| !entries.iter().any(|(key, _)| key == *name));
                let meant = nearest(key, free.copied());
                problems.note(&path, Place::Key, message, meant.map(str::to_owned));
            } else if earlier {
                problems.note(&path, Place::Key, "is here twice".to_owned(), None);
            }
        }
        Some(Self {
            entries,
            path: at.path.clone(),
        })
    }

    /// Reads a field that must be there.
    pub(super) fn required<T>(
        &self,
        key: &str,
        problems: &mut Problems,
        read: impl FnOnce(&Cursor<'a>, &mut Problems) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.value(key) else {
            problems.note(&self.path, Place::Value, format!("`{key}` is missing"), None);
            return None;
        };
        if *value.node == Node::Nothing {
            return value.refuse("has no value", problems);
        }
        read(&value, problems)
    }

    /// Reads a field that may be left out: `None` is a problem, `Some(None)` is left out.
    #[expect(clippy::option_option, reason = "refused and left out are two things")]
    pub(super) fn optional<T>(
        &self,
        key: &str,
        problems: &mut Problems,
        read: impl FnOnce(&Cursor<'a>, &mut Problems) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.value(key) {
            Some(value) if *value.node != Node::Nothing => read(&value, problems).map(Some),
            Some(_) | None => Some(None),
        }
    }

    fn value(&self, key: &str) -> Option<Cursor<'a>> {
        let place = self.entries.iter().position(|(name, _)| name == key)?;
        let (_, node) = self.entries.get(place)?;
        Some(Cursor {
            node,
            path: self.path.entry(place, key),
        })
    }
}
