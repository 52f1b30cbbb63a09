//! Durations as people write them.

use std::time::Duration;

/// Parses a number and a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let total = number.parse::<u32>().ok().map(|number| u64::from(number) * millis);
    match total {
        Some(total) if total > 0 => Ok(Duration::from_millis(total)),
        Some(_) if millis > 0 => Err("it must be more than 0".to_owned()),
        _ => Err("a number with ms, s, m, h or d is expected, as in 30s".to_owned()),
    }
}

/// Formats milliseconds for people: the two largest units.
pub(super) fn format(millis: u64) -> String {
    let seconds = millis / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d {}h", hours % 24),
        () if hours > 0 => format!("{hours}h {}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m {}s", seconds % 60),
        () if seconds > 0 => format!("{seconds}.{}s", millis % 1000 / 100),
        () => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let cases = [("5ms", 5), ("30s", 30_000), ("15m", 900_000), ("1h", 3_600_000), ("2d", 172_800_000)];
        for (text, millis) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "h", "1", "0h", "1w", "-1h", "1.5h", "4294967296d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("0s"), Err("it must be more than 0".to_owned()));
    }

    #[test]
    fn the_two_largest_units_are_shown() {
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1.0s"),
            (59_999, "59.9s"),
            (61_000, "1m 1s"),
            (3_600_000, "1h 0m"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(format(millis), text);
        }
    }
}
