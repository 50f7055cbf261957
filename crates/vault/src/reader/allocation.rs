//! What is known of an extent of a point without reading its bytes.

use farshore_blocks::{ByteCount, Encoding, Extent};

/// What is known of an extent without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// It holds data.
    Data,
    /// Zeroes were written to it.
    Zero,
    /// It was never written, and reads as zeroes.
    Hole,
}

impl Allocation {
    pub(super) fn of(encoding: Option<Encoding>) -> Self {
        match encoding {
            Some(Encoding::Raw | Encoding::Zstd) => Self::Data,
            Some(Encoding::Zero) => Self::Zero,
            None => Self::Hole,
        }
    }
}

/// Puts an extent behind those before it, which it continues; neighbours of one kind are joined.
pub(super) fn push(extents: &mut Vec<(Extent, Allocation)>, part: Extent, allocation: Allocation) {
    let joined = extents
        .last_mut()
        .filter(|(last, kind)| *kind == allocation && last.end() == part.start())
        .and_then(|last| {
            let length = last.0.length().0.saturating_add(part.length().0);
            last.0 = Extent::new(last.0.start(), ByteCount(length))?;
            Some(())
        });
    if joined.is_none() {
        extents.push((part, allocation));
    }
}
