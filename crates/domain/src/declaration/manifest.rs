//! Reads a file of declarations and tells every error in it with its place.
//!
//! Documents are read one by one, so that an error in one does not hide those of the next; only a text that is no
//! YAML ends the reading, since where the next document would begin is then unknown.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use super::{
    Declaration, DeclarationKey,
    cursor::Cursor,
    document::Node,
    locate::locate,
    problems::{Problem, Problems},
};

/// The largest text that is read at all.
pub const MAX_MANIFEST_BYTES: usize = 1 << 20;

/// How many errors are told: finding the place of each reads the text again.
const MAX_TOLD: usize = 32;

/// A place in a text, both numbers from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, in the whole file.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// One thing that is wrong in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// What the text is called: a file's name.
    pub source_name: String,
    /// Which document of it, from 1; 0 is the text as a whole.
    pub document: usize,
    /// Where, if that is known.
    pub position: Option<Position>,
    /// The way to the value, like `spec.machine.disks[0].bus`; empty for the document itself.
    pub path: String,
    /// What is wrong and what would be accepted.
    pub message: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
}

/// All that is wrong in a manifest, in the order of its documents. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestErrors {
    errors: Vec<ManifestError>,
    untold: usize,
}

/// Reads all documents of a text; empty ones are skipped.
///
/// # Errors
/// All errors of all documents. A text larger than [`MAX_MANIFEST_BYTES`], or without any document, is one too.
pub fn parse_manifest(source_name: &str, text: &str) -> Result<Vec<Declaration>, ManifestErrors> {
    if text.len() > MAX_MANIFEST_BYTES {
        let message = format!("has {} bytes; at most {MAX_MANIFEST_BYTES} are read", text.len());
        return Err(whole(source_name, message));
    }
    let mut reading = Reading {
        source_name,
        text,
        declarations: Vec::new(),
        first_seen: BTreeMap::new(),
        errors: Vec::new(),
        untold: 0,
    };
    for (place, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let number = place.saturating_add(1);
        match Node::deserialize(document) {
            Ok(Node::Nothing) => {}
            Ok(node) => reading.take(number, &node),
            Err(error) => {
                reading.refuse_document(number, &error);
                // Finding out reads the text again, so it is not done without end.
                if reading.errors.len() >= MAX_TOLD || is_syntax(text, number) {
                    break;
                }
            }
        }
    }
    reading.end()
}

impl Position {
    pub(super) fn of(error: &serde_yaml::Error) -> Option<Self> {
        error.location().map(|location| Self {
            line: location.line(),
            column: location.column(),
        })
    }
}

impl ManifestErrors {
    /// The errors that are told; never none.
    #[must_use]
    pub fn errors(&self) -> &[ManifestError] {
        &self.errors
    }

    /// How many more there are.
    #[must_use]
    pub fn untold(&self) -> usize {
        self.untold
    }
}

struct Reading<'a> {
    source_name: &'a str,
    text: &'a str,
    declarations: Vec<Declaration>,
    first_seen: BTreeMap<DeclarationKey, usize>,
    errors: Vec<ManifestError>,
    untold: usize,
}

impl Reading<'_> {
    fn take(&mut self, document: usize, node: &Node) {
        let mut problems = Problems::default();
        let root = Cursor::root(node);
        if let Some(declaration) = Declaration::read(&root, &mut problems) {
            let key = declaration.key();
            if let Some(first) = self.first_seen.get(&key) {
                let _: Option<()> = root.refuse(
                    format!("{key} is declared in document {first} already"),
                    &mut problems,
                );
            } else {
                self.first_seen.insert(key, document);
            }
            self.declarations.push(declaration);
        }
        for problem in problems.into_vec() {
            self.tell(document, problem);
        }
    }

    fn tell(&mut self, document: usize, problem: Problem) {
        if self.errors.len() >= MAX_TOLD {
            self.untold = self.untold.saturating_add(1);
            return;
        }
        self.errors.push(ManifestError {
            source_name: self.source_name.to_owned(),
            document,
            position: locate(self.text, document, &problem.path, problem.place),
            path: problem.path.to_string(),
            message: problem.message,
            suggestion: problem.suggestion,
        });
    }

    fn refuse_document(&mut self, document: usize, error: &serde_yaml::Error) {
        if self.errors.len() >= MAX_TOLD {
            self.untold = self.untold.saturating_add(1);
            return;
        }
        let position = Position::of(error);
        let mut message = error.to_string();
        if let Some(Position { line, column }) = position {
            message = message.replacen(&format!(" at line {line} column {column}"), "", 1);
        }
        self.errors.push(ManifestError {
            source_name: self.source_name.to_owned(),
            document,
            position,
            path: String::new(),
            message,
            suggestion: None,
        });
    }

    fn end(mut self) -> Result<Vec<Declaration>, ManifestErrors> {
        if !self.errors.is_empty() {
            // As they are met by someone who reads the manifest.
            self.errors
                .sort_by_key(|error| error.position.map(|position| (position.line, position.column)));
            return Err(ManifestErrors {
                errors: self.errors,
                untold: self.untold,
            });
        }
        if self.declarations.is_empty() {
            return Err(whole(self.source_name, "declares nothing".to_owned()));
        }
        Ok(self.declarations)
    }
}

/// Whether the document fails even when nothing in it is looked at: then the text is no YAML from there on.
fn is_syntax(text: &str, document: usize) -> bool {
    serde_yaml::Deserializer::from_str(text)
        .nth(document.saturating_sub(1))
        .is_none_or(|document| serde::de::IgnoredAny::deserialize(document).is_err())
}

fn whole(source_name: &str, message: String) -> ManifestErrors {
    let error = ManifestError {
        source_name: source_name.to_owned(),
        document: 0,
        position: None,
        path: String::new(),
        message,
        suggestion: None,
    };
    ManifestErrors {
        errors: vec![error],
        untold: 0,
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.source_name)?;
        if let Some(Position { line, column }) = self.position {
            write!(out, ":{line}:{column}")?;
        }
        if self.document > 0 {
            write!(out, ": document {}", self.document)?;
        }
        if !self.path.is_empty() {
            write!(out, ": {}", self.path)?;
        }
        write!(out, ": {}", self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(out, "; did you mean `{suggestion}`?")?;
        }
        Ok(())
    }
}

impl fmt::Display for ManifestErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.errors.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n" };
            write!(out, "{separator}{error}")?;
        }
        if self.untold > 0 {
            write!(out, "\nand {} more", self.untold)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
