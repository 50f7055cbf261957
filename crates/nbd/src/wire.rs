//! The bytes of NBD as values, without I/O, and the bounds that both sides keep to.
//!
//! Names, numbers and layouts are those of `doc/proto.md`. All integers are big-endian. Codes that the protocol may
//! extend are newtypes with constants: a code that this crate does not know is still a value, and never an error by itself.

pub mod error_code;
pub(crate) mod fields;
pub mod handshake;
pub mod options;
pub mod reply;
pub mod request;

/// The longest export or context name, as the protocol says.
pub const NAME_BYTES_MAXIMUM: usize = 4096;

/// The longest option, and the longest answer to one, that is read: some names and their lengths, with room to spare.
pub const OPTION_BYTES_MAXIMUM: u32 = 64 * 1024;

/// The longest read that is asked for or answered: the largest payload that clients may count on (QEMU's too).
pub const READ_BYTES_MAXIMUM: u32 = 32 * 1024 * 1024;

/// What is wrong with bytes that claim to be NBD.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A fixed field does not fit into what is left.
    #[error("{needed_bytes} bytes are needed where {left_bytes} are left")]
    Truncated {
        /// How long the field is.
        needed_bytes: usize,
        /// How much there is.
        left_bytes: usize,
    },
    /// A magic number is not the one that must stand there.
    #[error("the magic number of {what} is {found:#x}")]
    Magic {
        /// What should have begun here.
        what: &'static str,
        /// What stood there.
        found: u64,
    },
    /// Bytes follow where the message should end.
    #[error("{excess_bytes} bytes follow the end of the message")]
    Trailing {
        /// How many.
        excess_bytes: usize,
    },
    /// A name is longer than the protocol allows.
    #[error("a name of {length_bytes} bytes is longer than {NAME_BYTES_MAXIMUM}")]
    NameTooLong {
        /// How long it claims to be.
        length_bytes: usize,
    },
    /// A name is not UTF-8.
    #[error("a name is not UTF-8")]
    NameNotText,
    /// A list of status descriptors is empty, cut, or has an empty descriptor.
    #[error("a block status has no descriptors, a cut one or an empty one")]
    StatusMalformed,
}

#[cfg(test)]
mod tests;
