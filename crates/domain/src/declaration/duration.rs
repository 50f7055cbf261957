//! Durations as documents write them: `200ms`, `5s`, `2h`.

use std::time::Duration;

use serde::Serializer;

use super::text::TextRefused;

/// Reads a duration with its unit.
///
/// # Errors
/// When it has no unit, an unknown one, or is no number.
pub fn parse_duration(text: &str) -> Result<Duration, TextRefused> {
    humantime::parse_duration(text).map_err(|_| {
        let with_seconds = format!("{}s", text.trim());
        let meant = humantime::parse_duration(&with_seconds)
            .is_ok()
            .then_some(with_seconds);
        TextRefused::new(text, "a duration with a unit, like `200ms`, `5s` or `2h`", meant)
    })
}

/// Writes a duration in the largest unit that holds it exactly, so that it reads back as the same.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let units: [(u128, &str); 6] = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    units
        .iter()
        .find(|(unit, _)| nanoseconds > 0 && nanoseconds.is_multiple_of(*unit))
        .map_or_else(
            || "0s".to_owned(),
            |(unit, name)| format!("{}{name}", nanoseconds / unit),
        )
}

pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_duration(*duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_in_its_largest_exact_unit() {
        for (milliseconds, text) in [
            (0, "0s"),
            (200, "200ms"),
            (2_000, "2s"),
            (90_000, "90s"),
            (120_000, "2m"),
            (86_400_000, "24h"),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(format_duration(duration), text);
            assert_eq!(parse_duration(text).unwrap(), duration);
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_with_what_was_meant() {
        let refused = parse_duration("15").unwrap_err();
        assert_eq!(refused.suggestion.as_deref(), Some("15s"));
        assert!(parse_duration("soon").unwrap_err().suggestion.is_none());
    }
}
