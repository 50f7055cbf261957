//! Identities: of a vault's incarnation, of a chain, of a point in it and of a volume.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text or byte string that is no identity or digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an identity of the expected length in hexadecimal digits")]
pub struct ParseIdentityError(String);

impl ParseIdentityError {
    pub(crate) fn wrong_length(bytes: usize) -> Self {
        Self(format!("{bytes} bytes"))
    }

    pub(crate) fn wrong_text(text: &str) -> Self {
        Self(text.to_owned())
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// The identity with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// A fresh one from the system's source of randomness.
            ///
            /// # Errors
            /// When the system has no randomness to give.
            pub fn random() -> Result<Self, std::io::Error> {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
                Ok(Self(bytes))
            }

            /// Its bytes, as formats and the wire carry them.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdentityError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse(text).map(Self).ok_or_else(|| ParseIdentityError::wrong_text(text))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdentityError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = ParseIdentityError;

            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                bytes.try_into().map(Self).map_err(|_| ParseIdentityError::wrong_length(bytes.len()))
            }
        }

        impl From<$name> for String {
            fn from(identity: $name) -> Self {
                identity.to_string()
            }
        }
    };
}

identity! {
    /// The random identity of a vault's life: a restored copy of a vault does not share it.
    Incarnation
}
identity! {
    /// The recovery points of one protected VM towards one target.
    ChainId
}
identity! {
    /// Who holds an epoch: a number alone cannot tell two claimants of the same epoch apart.
    HolderNonce
}

fn parse(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

/// The place of a recovery point in its chain; the first sealed point is 1, and 0 stands for "nothing yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The sequence of the point that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Which volume of a protected VM: its place in the chain's list of volumes, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct VolumeIndex(pub u32);

impl VolumeIndex {
    /// As an index into a slice of volumes.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for VolumeIndex {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_from_its_text() {
        let chain = ChainId::random().unwrap();
        assert_eq!(chain.to_string().parse::<ChainId>().unwrap(), chain);
        assert_eq!(chain.to_string().len(), 32);
    }

    #[test]
    fn a_text_that_is_no_identity_is_refused() {
        for text in [
            "",
            "12",
            "zz000000000000000000000000000000",
            "+0000000000000000000000000000001",
        ] {
            assert!(text.parse::<ChainId>().is_err(), "{text}");
        }
    }
}
