//! One change of a message, and how its bytes come to the target.

use farshore_blocks::{Digest, Frame};

/// Changed bytes on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// They travel.
    Sent(Frame),
    /// The target has them in a seed and is told their digest. They are kept here until they are durable there: should the seed
    /// have others, they travel after all.
    Seeded(Frame),
}

impl Change {
    /// The change itself, however it travels.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        match self {
            Self::Sent(frame) | Self::Seeded(frame) => frame,
        }
    }

    /// How many bytes of payload travel for it.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Sent(frame) => frame.payload().len(),
            Self::Seeded(_) => Digest::LENGTH,
        }
    }
}

impl From<Frame> for Change {
    fn from(frame: Frame) -> Self {
        Self::Sent(frame)
    }
}
