//! A byte buffer whose memory begins at a multiple of 4096, as writes past the page cache call for.

/// What addresses, positions and lengths of direct writes are multiples of.
pub(super) const ALIGNMENT: usize = 4096;

/// Bytes that can be handed to a direct write.
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
    /// How much of the memory lies before the first aligned address.
    skipped: usize,
}

impl AlignedBuffer {
    /// An empty buffer with room for so many bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut memory: Vec<u8> = Vec::with_capacity(capacity.saturating_add(ALIGNMENT));
        let skipped = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        memory.resize(skipped, 0);
        Self { memory, skipped }
    }

    /// Appends bytes. Beyond the capacity the memory may move and be aligned no longer.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// Appends zeroes up to `length` in all.
    pub(crate) fn fill_to(&mut self, length: usize) {
        let total = self.skipped.saturating_add(length).max(self.memory.len());
        self.memory.resize(total, 0);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.get(self.skipped..).unwrap_or_default()
    }
}

/// Whether a write of these bytes there can pass the page cache.
pub(super) fn is_aligned(bytes: &[u8], position: u64) -> bool {
    let unit = u64::try_from(ALIGNMENT).unwrap_or(u64::MAX);
    bytes.as_ptr().align_offset(ALIGNMENT) == 0
        && bytes.len().is_multiple_of(ALIGNMENT)
        && position.is_multiple_of(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_within_its_capacity_is_aligned() {
        for capacity in [1, 4096, 1 << 20] {
            let mut buffer = AlignedBuffer::with_capacity(capacity);
            buffer.push(&[7]);
            buffer.fill_to(capacity.max(4096) / 4096 * 4096);
            assert_eq!(buffer.bytes().first(), Some(&7));
            assert_eq!(buffer.bytes().len() % 4096, 0);
            if capacity >= 4096 {
                assert!(is_aligned(buffer.bytes(), 8192));
            }
            assert!(!is_aligned(buffer.bytes(), 512));
        }
    }
}
