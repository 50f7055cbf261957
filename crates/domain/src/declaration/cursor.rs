//! Reads one value of a document as what it should be, and notes why when it is not.
//!
//! A reader returns `None` only after it has noted a problem.

use std::{str::FromStr, time::Duration};

use farshore_blocks::ByteCount;

use super::{
    document::Node,
    duration::parse_duration,
    path::Path,
    problems::{Place, Problems},
    size::parse_size,
    suggestion::choose,
    text::TextRefused,
};

/// A value and where it is.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub(super) node: &'a Node,
    pub(super) path: Path,
}

impl<'a> Cursor<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self {
            node,
            path: Path::default(),
        }
    }

    /// Notes that this value is refused.
    pub(super) fn refuse<T>(&self, message: impl Into<String>, problems: &mut Problems) -> Option<T> {
        problems.note(&self.path, Place::Value, message.into(), None);
        None
    }

    /// Reads a text of a checked form.
    pub(super) fn parsed<T: FromStr<Err = TextRefused>>(&self, problems: &mut Problems) -> Option<T> {
        self.text_as(str::parse, problems)
    }

    /// Reads one of a few names.
    pub(super) fn choice<T: Clone>(
        &self,
        what: &str,
        choices: &[(&str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        self.text_as(|text| choose(what, choices, text), problems)
    }

    /// Reads a duration with its unit.
    pub(super) fn duration(&self, problems: &mut Problems) -> Option<Duration> {
        self.quantity(parse_duration, problems)
    }

    /// Reads a size; a bare number is bytes.
    pub(super) fn size(&self, problems: &mut Problems) -> Option<ByteCount> {
        self.quantity(parse_size, problems)
    }

    /// A quantity as it was written, for an error.
    pub(super) fn written(&self) -> String {
        match self.node {
            Node::Text(text) | Node::OtherNumber(text) => text.clone(),
            Node::Whole(number) => number.to_string(),
            Node::Nothing | Node::Truth(_) | Node::List(_) | Node::Map(_) => self.node.describe(),
        }
    }

    /// Reads a whole number within bounds, both included.
    pub(super) fn number(&self, least: u32, most: u32, problems: &mut Problems) -> Option<u32> {
        let number = match self.node {
            Node::Whole(number) => u32::try_from(*number).ok(),
            Node::Nothing
            | Node::Truth(_)
            | Node::OtherNumber(_)
            | Node::Text(_)
            | Node::List(_)
            | Node::Map(_) => None,
        };
        let accepted = number.filter(|number| (least..=most).contains(number));
        if accepted.is_none() {
            let found = self.node.describe();
            let message = format!("expected a whole number from {least} to {most}, found {found}");
            return self.refuse(message, problems);
        }
        accepted
    }

    /// Reads a list of at most `most` items; bad items are noted and left out.
    pub(super) fn list<T>(
        &self,
        most: usize,
        problems: &mut Problems,
        read: impl Fn(&Cursor<'a>, &mut Problems) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Node::List(items) = self.node else {
            return self.refuse(
                format!("expected a list, found {}", self.node.describe()),
                problems,
            );
        };
        if items.len() > most {
            return self.refuse(format!("has {} items; at most {most}", items.len()), problems);
        }
        let read_item = |(place, node)| {
            let path = self.path.item(place);
            read(&Cursor { node, path }, problems)
        };
        // Collected in two steps, so that one bad item does not hide the problems of those behind it.
        let read_items: Vec<_> = items.iter().enumerate().map(read_item).collect();
        read_items.into_iter().collect()
    }

    /// Notes every item of this list whose value of `field` an earlier item has too.
    pub(super) fn refuse_repeated<'b>(
        &self,
        field: &str,
        values: impl Iterator<Item = &'b str>,
        problems: &mut Problems,
    ) -> Option<()> {
        let Node::List(items) = self.node else {
            return Some(());
        };
        let values: Vec<_> = values.collect();
        let mut accepted = Some(());
        for (place, (value, node)) in values.iter().zip(items).enumerate() {
            let Some(first) = values.iter().take(place).position(|other| other == value) else {
                continue;
            };
            let path = self.path.item(place);
            let path = entry_of(node, &path, field).unwrap_or(path);
            let message = format!("`{value}` is also the {field} of {}", self.path.item(first));
            problems.note(&path, Place::Value, message, None);
            accepted = None;
        }
        accepted
    }

    fn quantity<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, TextRefused>,
        problems: &mut Problems,
    ) -> Option<T> {
        match self.node {
            Node::Whole(_) | Node::OtherNumber(_) => self.accepted(parse(&self.written()), problems),
            Node::Nothing | Node::Truth(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => {
                self.text_as(parse, problems)
            }
        }
    }

    fn text_as<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, TextRefused>,
        problems: &mut Problems,
    ) -> Option<T> {
        match self.node {
            Node::Text(text) => self.accepted(parse(text), problems),
            Node::Nothing | Node::List(_) | Node::Map(_) => self.refuse(
                format!("expected a text, found {}", self.node.describe()),
                problems,
            ),
            Node::Truth(_) | Node::Whole(_) | Node::OtherNumber(_) => self.refuse(
                format!(
                    "expected a text, found {}; put it in quotes",
                    self.node.describe()
                ),
                problems,
            ),
        }
    }

    fn accepted<T>(&self, read: Result<T, TextRefused>, problems: &mut Problems) -> Option<T> {
        read.map_err(|refused| {
            problems.note(
                &self.path,
                Place::Value,
                refused.to_string(),
                refused.suggestion.clone(),
            );
        })
        .ok()
    }
}

fn entry_of(node: &Node, path: &Path, key: &str) -> Option<Path> {
    let Node::Map(entries) = node else {
        return None;
    };
    let place = entries.iter().position(|(name, _)| name == key)?;
    Some(path.entry(place, key))
}
