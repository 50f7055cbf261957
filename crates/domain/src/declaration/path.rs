//! Where in a document something is: for people as text, for the locator as steps.

use std::fmt;

/// The way from a document's root to one of its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path {
    steps: Vec<usize>,
    text: String,
}

impl Path {
    /// To the value of the entry at `place` of a mapping.
    pub(super) fn entry(&self, place: usize, key: &str) -> Self {
        let separator = if self.text.is_empty() { "" } else { "." };
        self.child(place, &format!("{separator}{}", key.escape_debug()))
    }

    /// To the item at `place` of a list.
    pub(super) fn item(&self, place: usize) -> Self {
        self.child(place, &format!("[{place}]"))
    }

    /// Which child to take at each level.
    pub(super) fn steps(&self) -> &[usize] {
        &self.steps
    }

    fn child(&self, place: usize, text: &str) -> Self {
        let mut steps = self.steps.clone();
        steps.push(place);
        Self {
            steps,
            text: format!("{}{text}", self.text),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}
