//! What a server offers: read-only exports, under names, in order.

use std::io;
use std::sync::Arc;

use crate::wire::NAME_BYTES_MAXIMUM;

/// A read-only block device. Its methods block: the server calls them on threads made for that.
pub trait Export: Send + Sync + 'static {
    /// The size in bytes, which must not change while the export is offered.
    fn size(&self) -> u64;

    /// Fills the whole buffer from `offset` on. The server asks only within the size.
    ///
    /// # Errors
    /// When the bytes cannot be had or cannot be trusted; the client gets EIO with the error's text.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The states of the bytes from `offset` on, without gaps and in order. The list may stop before `length`, so that
    /// a fragmented export need not list all of itself at once: what it leaves out is not reported, and read as data.
    ///
    /// # Errors
    /// When the states cannot be found out; the client gets EIO with the error's text.
    fn extents(&self, offset: u64, length: u64) -> io::Result<Vec<ExportExtent>>;
}

/// A run of bytes of one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportExtent {
    /// How long, in bytes.
    pub length: u64,
    /// What is there.
    pub state: ExtentState,
}

/// What is in a run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentState {
    /// Anything.
    Data,
    /// Zeroes which are allocated.
    Zero,
    /// Nothing allocated; it reads as zeroes.
    Hole,
}

/// Named exports in the order in which they are listed.
#[derive(Clone, Default)]
pub struct Exports {
    entries: Vec<(String, Arc<dyn Export>)>,
}

/// Collects exports.
#[derive(Default)]
pub struct ExportsBuilder {
    exports: Exports,
}

/// Why an export cannot have its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamingError {
    /// The name is empty (which means "the default" to clients) or longer than the protocol allows.
    #[error("an export's name has 1 to {NAME_BYTES_MAXIMUM} bytes, not {length_bytes}")]
    Length {
        /// How long it is.
        length_bytes: usize,
    },
    /// Another export has the name.
    #[error("there is already an export named {name:?}")]
    Taken {
        /// The name.
        name: String,
    },
}

impl Exports {
    /// Starts an empty collection.
    #[must_use]
    pub fn builder() -> ExportsBuilder {
        ExportsBuilder::default()
    }

    /// All names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// The export of this name. The empty name means the only export, where there is just one: with several,
    /// a client that forgot the name should be refused and not be given a disk that it did not mean.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(&str, Arc<dyn Export>)> {
        let entry = match (name, self.entries.as_slice()) {
            ("", [only]) => Some(only),
            (_, entries) => entries.iter().find(|(known, _)| known == name),
        };
        entry.map(|(known, export)| (known.as_str(), Arc::clone(export)))
    }
}

impl ExportsBuilder {
    /// Adds an export at the end.
    ///
    /// # Errors
    /// When the name is empty, too long or taken.
    pub fn add(mut self, name: impl Into<String>, export: Arc<dyn Export>) -> Result<Self, NamingError> {
        let name = name.into();
        if name.is_empty() || name.len() > NAME_BYTES_MAXIMUM {
            return Err(NamingError::Length {
                length_bytes: name.len(),
            });
        }
        if self.exports.names().any(|known| known == name) {
            return Err(NamingError::Taken { name });
        }
        self.exports.entries.push((name, export));
        Ok(self)
    }

    /// The finished collection.
    #[must_use]
    pub fn build(self) -> Exports {
        self.exports
    }
}
