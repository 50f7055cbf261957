//! Sizes in bytes as documents write them: `512MiB`. What is one is decided where everybody else reads them from.

use farshore_blocks::{ByteCount, SizeRefused};
use serde::Serializer;

pub use farshore_blocks::format_size;

use super::text::TextRefused;

/// Reads a size with its unit; a bare number is bytes.
///
/// # Errors
/// When it has an unknown or an ambiguous unit, is no number, or is more than 2^64 - 1.
pub fn parse_size(text: &str) -> Result<ByteCount, TextRefused> {
    farshore_blocks::parse_size(text)
        .map_err(|refused| TextRefused::new(text, SizeRefused::EXPECTED, refused.suggestion))
}

pub(super) fn serialize<S: Serializer>(size: &ByteCount, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_size(*size))
}

pub(super) fn serialize_if_any<S: Serializer>(
    size: &Option<ByteCount>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match size {
        Some(size) => serialize(size, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_written_size_reads_back(bytes in 0..u64::MAX) {
            prop_assert_eq!(parse_size(&format_size(ByteCount(bytes))).unwrap(), ByteCount(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_size(&text);
        }
    }
}
