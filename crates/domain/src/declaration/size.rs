//! Sizes in bytes as documents write them: `512MiB`. Units of 1000 are taken at their word (`1MB` is 1,000,000);
//! a bare letter (`50M`) is refused, since people mean either by it.

use bytesize::ByteSize;
use farshore_blocks::ByteCount;
use serde::Serializer;

use super::text::TextRefused;

const UNITS: [(u64, &str); 5] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1, "B"),
];

/// Reads a size with its unit; a bare number is bytes.
///
/// # Errors
/// When it has an unknown or an ambiguous unit, is no number, or is more than 2^64 - 1.
pub fn parse_size(text: &str) -> Result<ByteCount, TextRefused> {
    let letters = text.trim_start_matches(|byte: char| byte.is_ascii_digit() || byte == '.');
    let number = text.strip_suffix(letters).unwrap_or_default();
    let unit = letters.trim();
    let expected = "a size like `512MiB` or `4GiB`";
    let ambiguous = matches!(
        unit.to_ascii_lowercase().as_str(),
        "k" | "m" | "g" | "t" | "p" | "e"
    );
    if ambiguous {
        let meant = format!("{number}{}iB", unit.to_ascii_uppercase());
        return Err(TextRefused::new(text, expected, Some(meant)));
    }
    match text.trim().parse::<ByteSize>() {
        Ok(size) if size.as_u64() < u64::MAX => Ok(ByteCount(size.as_u64())),
        Ok(_) | Err(_) => Err(TextRefused::new(text, expected, None)),
    }
}

/// Writes a size in the largest IEC unit that holds it exactly, so that it reads back as the same.
#[must_use]
pub fn format_size(size: ByteCount) -> String {
    UNITS
        .iter()
        .find(|(unit, _)| size.0 > 0 && size.0.is_multiple_of(*unit))
        .map_or_else(
            || "0B".to_owned(),
            |(unit, name)| format!("{}{name}", size.0 / unit),
        )
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

    #[test]
    fn sizes_read_as_their_units_say() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1KiB", 1024),
            ("1.5 GiB", 3 << 29),
            ("50MB", 50_000_000),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_size(text).unwrap(), ByteCount(bytes), "{text}");
        }
    }

    #[test]
    fn ambiguous_and_senseless_sizes_are_refused() {
        assert_eq!(
            parse_size("50M").unwrap_err().suggestion.as_deref(),
            Some("50MiB")
        );
        for text in ["", "MiB", "-1MiB", "1XiB", "99999999999EiB", "1..5MiB", "٣MiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

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
