//! Formats times. Not here: clocks.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The last second of the format, shown where there is no end.
const NEVER: &str = "9999-12-31T23:59:59Z";

/// Nanoseconds since 1970 as RFC 3339 in UTC; `None`: never.
pub(super) fn rfc3339(nanos: Option<i64>) -> String {
    let time = nanos.and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos)).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| NEVER.to_owned())
}

/// Milliseconds since 1970 as the header `date` has them.
pub(super) fn http_date(millis: u64) -> String {
    let time = i64::try_from(millis / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (weekday, month) = (time.weekday().to_string(), time.month().to_string());
    let (year, day, (hour, minute, second)) = (time.year(), time.day(), time.to_hms());
    format!("{}, {day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} GMT", &weekday[..3], &month[..3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc_with_the_needed_digits() {
        assert_eq!(rfc3339(Some(1_767_607_230_123_456_789)), "2026-01-05T10:00:30.123456789Z");
        assert_eq!(rfc3339(Some(1_767_607_230_000_000_000)), "2026-01-05T10:00:30Z");
        assert_eq!(rfc3339(None), NEVER);
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(http_date(1_767_607_230_999), "Mon, 05 Jan 2026 10:00:30 GMT");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
