//! Numbers as C converts them.

/// Converts a number to an integer as C on x86-64 does: truncated, and the smallest integer if it
/// does not fit.
pub(super) fn truncate(value: f64) -> i64 {
    // 2^63 is the first number that does not fit; NaN is in no range.
    match (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
        true => value as i64,
        false => i64::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_become_the_smallest_integer() {
        for (value, integer) in [
            (3.99, 3),
            (-3.99, -3),
            (9_007_199_254_740_992.0, 1 << 53),
            (9_223_372_036_854_775_808.0, i64::MIN),
            (-9_223_372_036_854_775_808.0, i64::MIN),
            (f64::NAN, i64::MIN),
            (f64::INFINITY, i64::MIN),
        ] {
            assert_eq!(truncate(value), integer, "{value:?}");
        }
    }
}
