//! The error numbers that travel in replies, which are the same on every system.

use std::fmt;

/// An error number of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// Not an error.
    pub const NONE: Self = Self(0);
    /// EPERM: the export is read-only.
    pub const NOT_PERMITTED: Self = Self(1);
    /// EIO.
    pub const INPUT_OUTPUT: Self = Self(5);
    /// ENOMEM.
    pub const OUT_OF_MEMORY: Self = Self(12);
    /// EINVAL: outside of the export, or not understood.
    pub const INVALID: Self = Self(22);
    /// ENOSPC.
    pub const NO_SPACE: Self = Self(28);
    /// EOVERFLOW: too long for one reply.
    pub const OVERFLOW: Self = Self(75);
    /// ENOTSUP.
    pub const NOT_SUPPORTED: Self = Self(95);
    /// ESHUTDOWN.
    pub const SHUTTING_DOWN: Self = Self(108);
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::NONE => "no error",
            Self::NOT_PERMITTED => "EPERM",
            Self::INPUT_OUTPUT => "EIO",
            Self::OUT_OF_MEMORY => "ENOMEM",
            Self::INVALID => "EINVAL",
            Self::NO_SPACE => "ENOSPC",
            Self::OVERFLOW => "EOVERFLOW",
            Self::NOT_SUPPORTED => "ENOTSUP",
            Self::SHUTTING_DOWN => "ESHUTDOWN",
            Self(other) => return write!(formatter, "error {other}"),
        };
        formatter.write_str(name)
    }
}
