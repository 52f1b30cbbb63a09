//! Numbers with a fraction, as INCRBYFLOAT reads, adds and writes them.
//!
//! Guarantees: sums are exact to 17 places after the point. Redis computes with 80 bits and writes
//! as many places. The only file that names bigdecimal.

use bigdecimal::{BigDecimal, RoundingMode};

use super::CommandError;

const NOT_A_FLOAT: CommandError = CommandError::fixed("ERR value is not a valid float");
const INFINITE: CommandError = CommandError::fixed("ERR increment would produce NaN or Infinity");

/// Longest text of a number, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// Places after the point.
const PLACES: i64 = 17;

/// The sum of two numbers.
pub(super) fn sum(a: &[u8], b: &[u8]) -> Result<String, CommandError> {
    let (a, b) = (decimal(a)?, decimal(b)?);
    let sum = a.ok_or(INFINITE)? + b.ok_or(INFINITE)?;
    let sum = sum.with_scale_round(PLACES, RoundingMode::HalfEven).normalized();
    if sum.to_string().len() > TEXT_BYTES_MAX || !is_finite(&sum.to_plain_string()) {
        return Err(INFINITE);
    }
    Ok(sum.to_plain_string())
}

fn is_finite(text: &str) -> bool {
    text.parse().is_ok_and(f64::is_finite)
}

/// Parses a number; `None` if it is infinite.
fn decimal(arg: &[u8]) -> Result<Option<BigDecimal>, CommandError> {
    let text =
        std::str::from_utf8(arg).ok().filter(|text| text.len() <= TEXT_BYTES_MAX).ok_or(NOT_A_FLOAT)?;
    // The parser of the standard library decides what a number is; its range keeps exponents small.
    match text.parse::<f64>() {
        Ok(number) if number.is_nan() => Err(NOT_A_FLOAT),
        Ok(number) if number.is_infinite() => Ok(None),
        // Too small to make a difference.
        Ok(0.0) => Ok(Some(BigDecimal::from(0))),
        Ok(_) => text.parse().map(Some).map_err(|_| NOT_A_FLOAT),
        Err(_) => Err(NOT_A_FLOAT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_written_as_redis_writes_them() {
        for (a, b, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-3", "0"),
            ("-1.5", "-0.25", "-1.75"),
            ("1e20", "1", "100000000000000000001"),
            ("1e-400", "2", "2"),
            ("1e-18", "0", "0"),
            (".5", "+1.", "1.5"),
        ] {
            assert_eq!(sum(a.as_bytes(), b.as_bytes()).as_deref(), Ok(expected), "{a} + {b}");
        }
        for bad in ["", " 1", "1 ", "abc", "1_000", "nan", "0x1", "1e", "--1"] {
            assert_eq!(sum(bad.as_bytes(), b"1"), Err(NOT_A_FLOAT), "{bad:?}");
            assert_eq!(sum(b"inf", bad.as_bytes()), Err(NOT_A_FLOAT), "{bad:?}");
        }
        for infinite in ["inf", "1e400", "-infinity"] {
            assert_eq!(sum(infinite.as_bytes(), b"1"), Err(INFINITE), "{infinite:?}");
        }
        assert_eq!(sum(b"1.7e308", b"1.7e308"), Err(INFINITE));
    }
}
