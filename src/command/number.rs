//! Numbers with a fraction, as INCRBYFLOAT reads, adds and writes them.
//!
//! Guarantees: the digits are those of Redis on x86, whose `long double` has [`BITS`] significant
//! bits. They do not depend on the processor. The only file that names bigdecimal.

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, RoundingMode, Signed, Zero};

use super::CommandError;

/// Significant bits of a number.
const BITS: i64 = 64;
/// The exponent of 2 in the last bit of the largest number.
const EXPONENT_MAX: i64 = 16384 - BITS;
/// Digits before the point that no number has.
const DIGITS_MAX: i64 = 4934;
/// Digits before the point of numbers that change no sum: they are below half of its last bit, or
/// all of it is behind the places that are written. Minus 60 are 60 zeros behind the point.
const NEGLIGIBLE: i64 = -60;
/// Digits before the point of the smallest number.
const DIGITS_MIN: i64 = -4950;

/// Longest text of a number, in bytes.
const TEXT_BYTES_MAX: usize = 5119;
/// Places after the point that are written.
const PLACES: i64 = 17;

/// A finite number of [`BITS`] bits, or an infinity.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Number(Option<BigDecimal>);

impl Number {
    /// Parses a number like `strtold` of C. `None` for spaces, for NaN, and for a number that is too
    /// large or too small. Unlike there, hexadecimal numbers are refused.
    pub(super) fn parse(text: &[u8]) -> Option<Number> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= TEXT_BYTES_MAX)?;
        // The parser of the standard library decides what a number is.
        let double: f64 = text.parse().ok().filter(|number: &f64| !number.is_nan())?;
        let unsigned = text.trim_start_matches(['-', '+']);
        let significand = unsigned.split(['e', 'E']).next().unwrap_or(unsigned);
        if double.is_infinite() && unsigned.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Some(Number(None));
        }
        if significand.bytes().all(|byte| matches!(byte, b'0' | b'.')) {
            return Some(Number(Some(BigDecimal::zero())));
        }
        let exact: BigDecimal = text.parse().ok()?;
        // The exponent may be huge, and then 10 to its power is out of reach.
        let digits = i64::try_from(exact.digits()).ok()?;
        match digits.checked_sub(exact.fractional_digit_count())? {
            DIGITS_MAX.. => None,
            position @ ..NEGLIGIBLE => {
                (!is_too_small(exact, position)).then(|| Number(Some(BigDecimal::zero())))
            }
            _ => round(&exact).map(|number| Number(Some(number))),
        }
    }

    pub(super) fn is_infinite(&self) -> bool {
        self.0.is_none()
    }

    /// The text of a sum.
    pub(super) fn sum(&self, other: &Number) -> Result<String, CommandError> {
        let finite = self.0.as_ref().zip(other.0.as_ref());
        let sum = finite.and_then(|(a, b)| round(&(a + b)));
        let sum = sum.ok_or(CommandError::fixed("ERR increment would produce NaN or Infinity"))?;
        Ok(sum.with_scale_round(PLACES, RoundingMode::HalfEven).normalized().to_plain_string())
    }
}

/// Whether a number with this many digits before the point is rounded to 0.
fn is_too_small(exact: BigDecimal, position: i64) -> bool {
    // Half of the smallest number: 2 to the power of -16446.
    let smallest = BigDecimal::new(BigInt::from(18_225_997_659_412_373_012_u64), 20);
    let (digits, scale) = exact.abs().into_bigint_and_exponent();
    position < DIGITS_MIN || position == DIGITS_MIN && BigDecimal::new(digits, scale + position) <= smallest
}

/// The nearest number of [`BITS`] bits, the even one of two; `None` if it would be infinite.
fn round(exact: &BigDecimal) -> Option<BigDecimal> {
    let (digits, scale) = exact.as_bigint_and_exponent();
    let (mut numerator, mut denominator) = (digits.abs(), BigInt::from(1));
    let power = BigInt::from(10).pow(u32::try_from(scale.unsigned_abs()).ok()?);
    if scale > 0 {
        denominator *= power
    } else {
        numerator *= power
    }

    // The quotient of the shifted numbers has BITS or BITS + 1 bits.
    let bits = |number: &BigInt| i64::try_from(number.bits()).unwrap_or(i64::MAX);
    let exponent = bits(&numerator) - bits(&denominator) - BITS;
    let (mut mantissa, mut exponent) = divide(&numerator, &denominator, exponent);
    if bits(&mantissa) > BITS {
        (mantissa, exponent) = divide(&numerator, &denominator, exponent + 1);
    }
    if exponent + bits(&mantissa) > EXPONENT_MAX + BITS {
        return None;
    }
    let mantissa = if digits.is_negative() { -mantissa } else { mantissa };
    Some(if exponent >= 0 {
        BigDecimal::from(mantissa << exponent)
    } else {
        // m / 2ⁿ = m · 5ⁿ / 10ⁿ
        let places = -exponent;
        BigDecimal::new(mantissa * BigInt::from(5).pow(u32::try_from(places).ok()?), places)
    })
}

/// The nearest integer to `numerator / denominator / 2^exponent`, the even one of two.
fn divide(numerator: &BigInt, denominator: &BigInt, exponent: i64) -> (BigInt, i64) {
    let (numerator, denominator) = match exponent {
        0.. => (numerator.clone(), denominator << exponent),
        _ => (numerator << -exponent, denominator.clone()),
    };
    let (mut quotient, remainder) = (&numerator / &denominator, &numerator % &denominator);
    let doubled = remainder << 1;
    if doubled > denominator || doubled == denominator && quotient.bit(0) {
        quotient += 1;
    }
    (quotient, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        Number::parse(a.as_bytes())?.sum(&Number::parse(b.as_bytes())?).ok()
    }

    #[test]
    fn sums_are_written_as_redis_writes_them() {
        for (a, b, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-3", "0"),
            ("-1.5", "-0.25", "-1.75"),
            ("1e20", "1", "100000000000000000000"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("18446744073709551616", "1", "18446744073709551616"),
            ("123456789.123456789123456789", "0", "123456789.12345678912242875"),
            ("1e-400", "2", "2"),
            ("1e-18", "0", "0"),
            ("-1e-18", "0", "0"),
            ("0e99999999999999999999", "1", "1"),
            (".5", "+1.", "1.5"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
        let largest = sum("1.18973149535723176502e4932", "0").expect("a finite number");
        assert!(largest.len() == 4933 && largest.starts_with("118973149535723176502126385303097020"));
        assert_eq!(sum("1e4932", "1e4932"), None);
    }

    #[test]
    fn numbers_are_read_as_redis_reads_them() {
        let long = format!("1.{}", "0".repeat(TEXT_BYTES_MAX));
        for bad in [
            "",
            " 1",
            "1 ",
            "abc",
            "1_000",
            "nan",
            "0x1",
            "1e",
            "--1",
            ".",
            "1e4933",
            "-1e999999999999999999999",
            "1.18973149535723176509e4932",
            "1.8e-4951",
            "1e-99999999999",
            &long,
        ] {
            assert_eq!(Number::parse(bad.as_bytes()), None, "{bad:?}");
        }
        for infinite in ["inf", "-infinity", "+INF"] {
            assert!(
                Number::parse(infinite.as_bytes()).is_some_and(|number| number.is_infinite()),
                "{infinite}"
            );
        }
        for small in ["1.9e-4951", "3e-4951", "1e-4940"] {
            assert!(Number::parse(small.as_bytes()).is_some(), "{small}");
        }
    }
}
