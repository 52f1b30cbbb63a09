//! Doubles as text, as Redis reads and writes them.
//!
//! Guarantees: a finite double that is written with 17 digits and read again is the same. Not here:
//! the frames of doubles, numbers of more than 64 bits.

/// Digits that tell every double from all others.
pub const EXACT_DIGITS: usize = 17;

/// Writes a double with at most `digits` significant digits, as `%.<digits>g` of C does.
pub fn format(number: f64, digits: usize) -> String {
    if !number.is_finite() {
        return match number.is_nan() {
            true => "nan".to_owned(),
            false if number > 0.0 => "inf".to_owned(),
            false => "-inf".to_owned(),
        };
    }
    let digits = digits.max(1);
    let scientific = format!("{number:.0$e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let decimals = digits as i32 - 1 - exponent;
    if exponent < -4 || decimals < 0 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", without_zeros(mantissa), exponent.unsigned_abs());
    }
    without_zeros(&format!("{number:.0$}", decimals as usize)).to_owned()
}

/// A number without the zeros at the end of its fraction.
fn without_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// Reads a double like [`parse`], but a number that is too large is infinite and one that is too small
/// is 0, as in the ends of ranges.
pub fn parse_rounded(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// Reads a double as `strtod` of C does, which Redis uses. `None` for spaces, for NaN, and for a
/// number that is too large or too small. Unlike Redis, hexadecimal numbers are refused.
pub fn parse(text: &[u8]) -> Option<f64> {
    let number = parse_rounded(text)?;
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    let is_word = digits.first().is_some_and(u8::is_ascii_alphabetic);
    let significand = digits.split(|byte| byte.eq_ignore_ascii_case(&b'e')).next().unwrap_or(digits);
    let is_zero = significand.iter().all(|byte| matches!(byte, b'0' | b'.'));
    let is_exact = match number {
        number if number.is_infinite() => is_word,
        number => number != 0.0 || is_zero,
    };
    is_exact.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_as_redis_writes_them() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (3.1, "3.1000000000000001"),
            (0.1, "0.10000000000000001"),
            (100.0, "100"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (1e-7, "9.9999999999999995e-08"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123_456_789_012_345_678.0, "1.2345678901234568e+17"),
            (1_732_550_184_123.0, "1732550184123"),
            (1e21, "1e+21"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(format(number, EXACT_DIGITS), expected);
        }
        for (number, expected) in [
            (3.1, "3.1"),
            (1.0 / 3.0, "0.33333333333333"),
            (1e14, "1e+14"),
            (99_999_999_999_999.0, "99999999999999"),
            (99_999_999_999_999.9, "1e+14"),
        ] {
            assert_eq!(format(number, 14), expected);
        }
    }

    #[test]
    fn doubles_are_read_as_redis_reads_them() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("+1", Some(1.0)),
            ("-1.5", Some(-1.5)),
            ("1.", Some(1.0)),
            (".5", Some(0.5)),
            ("1e5", Some(1e5)),
            ("1E-5", Some(1e-5)),
            ("0e9999", Some(0.0)),
            ("-0", Some(-0.0)),
            ("4.9e-324", Some(5e-324)),
            ("inf", Some(f64::INFINITY)),
            ("+Infinity", Some(f64::INFINITY)),
            ("-INF", Some(f64::NEG_INFINITY)),
            ("nan", None),
            ("1e400", None),
            ("-1e400", None),
            ("1e-400", None),
            ("", None),
            (".", None),
            ("1e", None),
            (" 1", None),
            ("1 ", None),
            ("+-1", None),
            ("1,5", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }
}
