//! Sizes in bytes as people write them: `512MiB`. Units of 1000 are taken at their word (`1MB` is 1,000,000);
//! a bare letter (`50M`) is refused, since people mean either by it.

use bytesize::ByteSize;

use crate::ByteCount;

const UNITS: [(u64, &str); 5] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1, "B"),
];

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is refused: {} is accepted", text.escape_debug(), Self::EXPECTED)]
pub struct SizeRefused {
    /// As it was given.
    pub text: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
}

impl SizeRefused {
    /// What would be accepted.
    pub const EXPECTED: &str = "a size like `512MiB` or `4GiB`";

    fn new(text: &str, suggestion: Option<String>) -> Self {
        Self {
            text: text.to_owned(),
            suggestion,
        }
    }
}

/// Reads a size with its unit; a bare number is bytes.
///
/// # Errors
/// When it has an unknown or an ambiguous unit, is no number, or is more than 2^64 - 1.
pub fn parse_size(text: &str) -> Result<ByteCount, SizeRefused> {
    let letters = text.trim_start_matches(|byte: char| byte.is_ascii_digit() || byte == '.');
    let number = text.strip_suffix(letters).unwrap_or_default();
    let unit = letters.trim();
    let ambiguous = matches!(
        unit.to_ascii_lowercase().as_str(),
        "k" | "m" | "g" | "t" | "p" | "e"
    );
    if ambiguous {
        let meant = format!("{number}{}iB", unit.to_ascii_uppercase());
        return Err(SizeRefused::new(text, Some(meant)));
    }
    match text.trim().parse::<ByteSize>() {
        Ok(size) if size.as_u64() < u64::MAX => Ok(ByteCount(size.as_u64())),
        Ok(_) | Err(_) => Err(SizeRefused::new(text, None)),
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

#[cfg(test)]
mod tests {
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
        let refused = parse_size("50M").unwrap_err();
        assert_eq!(refused.suggestion.as_deref(), Some("50MiB"));
        for text in ["", "MiB", "-1MiB", "1XiB", "99999999999EiB", "1..5MiB", "٣MiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
