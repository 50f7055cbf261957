//! Which version of the protocol two peers speak: the newest that both know.
//!
//! The source offers a range in its hello, the target picks from it in its welcome. A peer from before ranges names a single
//! version.

use std::{fmt, ops::RangeInclusive};

/// The versions that this crate speaks.
pub const PROTOCOL_VERSIONS: Versions = Versions { oldest: 1, newest: 1 };

/// Versions of the protocol without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    oldest: u32,
    newest: u32,
}

/// Two peers have no version in common: one of them must be updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("protocol {theirs} is refused; accepted here: {ours}")]
pub struct NoCommonVersion {
    /// What the peer speaks.
    pub theirs: Versions,
    /// What is spoken here.
    pub ours: Versions,
}

impl Versions {
    /// As a peer names them; an `oldest` of 0 is left out.
    #[must_use]
    pub fn offered(oldest: u32, newest: u32) -> Self {
        let oldest = if oldest == 0 { newest } else { oldest };
        Self { oldest, newest }
    }

    /// The first.
    #[must_use]
    pub fn oldest(self) -> u32 {
        self.oldest
    }

    /// The last.
    #[must_use]
    pub fn newest(self) -> u32 {
        self.newest
    }

    /// All of them.
    #[must_use]
    pub fn range(self) -> RangeInclusive<u32> {
        self.oldest..=self.newest
    }

    /// The newest version that both speak.
    ///
    /// # Errors
    /// When there is none.
    pub fn agree(self, theirs: Self) -> Result<u32, NoCommonVersion> {
        let version = self.newest.min(theirs.newest);
        if self.range().contains(&version) && theirs.range().contains(&version) {
            return Ok(version);
        }
        Err(NoCommonVersion { theirs, ours: self })
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            return write!(out, "version {}", self.newest);
        }
        write!(out, "versions {} to {}", self.oldest, self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_both_know_is_spoken() {
        let ours = Versions { oldest: 3, newest: 5 };
        for (oldest, newest, agreed) in [
            (3, 5, Some(5)),
            (1, 4, Some(4)),
            (4, 9, Some(5)),
            (0, 3, Some(3)),
            (0, 0, None),
            (1, 2, None),
            (6, 9, None),
            (0, 6, None),
            // A range that is none.
            (9, 4, None),
        ] {
            let theirs = Versions::offered(oldest, newest);
            assert_eq!(ours.agree(theirs).ok(), agreed, "{oldest} {newest}");
            assert_eq!(theirs.agree(ours).ok(), agreed, "{oldest} {newest}");
        }
    }

    #[test]
    fn a_refusal_says_what_both_speak() {
        let ours = Versions { oldest: 3, newest: 5 };
        let refused = ours.agree(Versions::offered(0, 9)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "protocol version 9 is refused; accepted here: versions 3 to 5"
        );
    }
}
