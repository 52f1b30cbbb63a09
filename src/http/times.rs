//! Times as answers show them. Absent: clocks.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What has no end is shown with the last second that the format knows.
const NEVER: &str = "9999-12-31T23:59:59Z";

/// Nanoseconds since 1970 as RFC 3339 in UTC; `None`: never.
pub(super) fn rfc3339(nanos: Option<i64>) -> String {
    let time = nanos.and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos)).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| NEVER.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_as_many_digits_as_needed() {
        assert_eq!(rfc3339(Some(1_767_607_230_123_456_789)), "2026-01-05T10:00:30.123456789Z");
        assert_eq!(rfc3339(Some(1_767_607_230_000_000_000)), "2026-01-05T10:00:30Z");
        assert_eq!(rfc3339(None), NEVER);
    }
}
