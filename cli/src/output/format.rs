//! How sizes, times and durations read in tables: IEC sizes, ages, seconds.

use std::time::Duration;

use bytesize::ByteSize;
use farshore_blocks::clock::WallTime;
use jiff::Timestamp;

/// What stands where there is nothing to say.
pub(crate) const NOTHING: &str = "-";

/// `1.5 GiB`
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `3.2 s`, `420 ms`, `5 min 3 s`
pub(crate) fn seconds(seconds: f64) -> String {
    let Ok(duration) = Duration::try_from_secs_f64(seconds) else {
        return NOTHING.to_owned();
    };
    if duration < Duration::from_secs(1) {
        return format!("{} ms", duration.as_millis());
    }
    if duration < Duration::from_secs(60) {
        return format!("{seconds:.1} s");
    }
    let whole = duration.as_secs();
    let (larger, smaller) = match whole {
        0..3600 => ((whole / 60, "min"), (whole % 60, "s")),
        3600..86400 => ((whole / 3600, "h"), (whole % 3600 / 60, "min")),
        _ => ((whole / 86400, "d"), (whole % 86400 / 3600, "h")),
    };
    format!("{} {} {} {}", larger.0, larger.1, smaller.0, smaller.1)
}

/// [`seconds`], or nothing.
pub(crate) fn optional_seconds(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), seconds)
}

/// How long ago an RFC 3339 time was: `12.0 s ago`.
pub(crate) fn age(time: Option<&str>, now: WallTime) -> String {
    let then = time.and_then(|text| text.parse::<Timestamp>().ok());
    let then = then.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    then.map_or_else(
        || NOTHING.to_owned(),
        |nanoseconds| format!("{} ago", seconds(now.since(WallTime(nanoseconds)).as_secs_f64())),
    )
}

/// The text, or nothing.
pub(crate) fn or_nothing(text: &str) -> String {
    if text.is_empty() {
        NOTHING.to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_in_the_two_units_that_matter() {
        for (value, text) in [
            (0.0421, "42 ms"),
            (3.25, "3.2 s"),
            (63.0, "1 min 3 s"),
            (7260.0, "2 h 1 min"),
            (90000.0, "1 d 1 h"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(seconds(value), text);
        }
    }

    #[test]
    fn an_age_is_counted_from_now() {
        let now = WallTime(1_700_000_012_000_000_000);
        assert_eq!(age(Some("2023-11-14T22:13:20.000Z"), now), "12.0 s ago");
        assert_eq!(age(None, now), "-");
    }

    #[test]
    fn sizes_are_iec() {
        assert_eq!(size(1_610_612_736), "1.5 GiB");
        assert_eq!(size(0), "0 B");
    }
}
