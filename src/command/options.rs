//! Reads options, numbers and ids from the arguments of a request.
//!
//! Guarantees: a handler declares its options in a table; what they have in common (order, case,
//! repetition, conflicts, missing values) is checked here. Numbers are read as Redis reads them.
//! Not here: what the options mean.

use super::{Args, CommandError};
use crate::domain::{FencingToken, SessionId};

/// An option of a command: its name and what follows it.
#[derive(Clone, Copy)]
pub(super) struct OptionSpec {
    name: &'static str,
    values: usize,
    /// Options of one group exclude each other; 0: no group.
    group: u8,
    is_once: bool,
    check: fn(&[u8]) -> Result<(), CommandError>,
}

/// An option without a value.
pub(super) const fn flag(name: &'static str) -> OptionSpec {
    values(name, 0)
}

/// An option with one value.
pub(super) const fn value(name: &'static str) -> OptionSpec {
    values(name, 1)
}

/// An option with `count` values.
pub(super) const fn values(name: &'static str, count: usize) -> OptionSpec {
    OptionSpec { name, values: count, group: 0, is_once: false, check: |_| Ok(()) }
}

/// Options each of which may be given once.
pub(super) const fn once<const N: usize>(mut options: [OptionSpec; N]) -> [OptionSpec; N] {
    let mut n = 0;
    while n < N {
        options[n].is_once = true;
        n += 1;
    }
    options
}

impl OptionSpec {
    /// Puts the option into a group, of which a request may use one option.
    pub(super) const fn group(self, group: u8) -> OptionSpec {
        OptionSpec { group, ..self }
    }

    /// The option may be given once. Other options may be repeated; the last one counts, as in
    /// Redis.
    pub(super) const fn once(self) -> OptionSpec {
        OptionSpec { is_once: true, ..self }
    }

    /// Checks each value before the options after it are read, so that its error comes first.
    pub(super) const fn check(self, check: fn(&[u8]) -> Result<(), CommandError>) -> OptionSpec {
        OptionSpec { check, ..self }
    }

    /// The values must be integers; checked as by [`OptionSpec::check`].
    pub(super) const fn integer(self) -> OptionSpec {
        self.check(|value| integer(value).map(drop))
    }
}

/// An option as a request gives it, or does not give it.
#[derive(Clone, Copy, Default)]
pub(super) struct Given<'a> {
    values: Option<Args<'a>>,
}

impl<'a> Given<'a> {
    /// Whether the option was given.
    pub(super) fn is_given(&self) -> bool {
        self.values.is_some()
    }

    /// The values, if the option was given.
    pub(super) fn values(&self) -> Option<Args<'a>> {
        self.values
    }

    /// The value, if the option was given.
    pub(super) fn value(&self) -> Option<&'a [u8]> {
        self.values.map(|values| values.at(0))
    }

    /// The value as an integer, if the option was given.
    pub(super) fn integer(&self) -> Result<Option<i64>, CommandError> {
        self.value().map(integer).transpose()
    }
}

impl<'a> Args<'a> {
    /// Reads all arguments from number `first` on as options. The result has one entry for each
    /// element of `specs`.
    pub(super) fn options<const N: usize>(
        &self,
        first: usize,
        specs: &[OptionSpec; N],
    ) -> Result<[Given<'a>; N], CommandError> {
        self.options_or(first, specs, |_| CommandError::SYNTAX)
    }

    /// [`Args::options`] with an error of the command's own, made from the argument that is not an
    /// option, has no value or conflicts with an earlier one.
    pub(super) fn options_or<const N: usize>(
        &self,
        first: usize,
        specs: &[OptionSpec; N],
        error: impl Fn(&[u8]) -> CommandError,
    ) -> Result<[Given<'a>; N], CommandError> {
        let mut given = [Given::default(); N];
        let end = self.read_options(first, specs, &mut given, &error)?;
        if end == self.len() { Ok(given) } else { Err(error(self.at(end))) }
    }

    /// Reads arguments from number `first` on as options, up to the first that is none. Also
    /// returns the number of that argument.
    pub(super) fn leading_options<const N: usize>(
        &self,
        first: usize,
        specs: &[OptionSpec; N],
    ) -> Result<([Given<'a>; N], usize), CommandError> {
        let mut given = [Given::default(); N];
        let end = self.read_options(first, specs, &mut given, &|_| CommandError::SYNTAX)?;
        Ok((given, end))
    }

    /// Reads options into `given`, up to the first argument that is none. Returns its number.
    fn read_options(
        &self,
        first: usize,
        specs: &[OptionSpec],
        given: &mut [Given<'a>],
        error: &dyn Fn(&[u8]) -> CommandError,
    ) -> Result<usize, CommandError> {
        let mut next = first;
        while next < self.len() {
            let arg = self.at(next);
            let Some(n) = specs.iter().position(|spec| is(arg, spec.name)) else { break };
            let spec = &specs[n];
            let conflicts = |other: usize| {
                let is_same_group = spec.group != 0 && specs[other].group == spec.group;
                given[other].is_given() && if other == n { spec.is_once } else { is_same_group }
            };
            let end = next + 1 + spec.values;
            if end > self.len() || (0..specs.len()).any(conflicts) {
                return Err(error(arg));
            }
            let values = self.range(next + 1, end);
            values.from(0).try_for_each(spec.check)?;
            given[n] = Given { values: Some(values) };
            next = end;
        }
        Ok(next)
    }
}

/// The part of an argument that C reads, where Redis leaves that to C: up to a NUL.
pub(super) fn up_to_nul(arg: &[u8]) -> &[u8] {
    arg.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Compares ASCII case-insensitively.
pub(super) fn is(arg: &[u8], name: &str) -> bool {
    arg.eq_ignore_ascii_case(name.as_bytes())
}

/// Numbers of this many digits always fit into an i64.
const SHORT_DIGITS: usize = 18;

/// Parses a signed integer as Redis does: no `+`, no leading zeros, no spaces.
pub(super) fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    if let [b'1'..=b'9', ..] = arg
        && arg.len() <= SHORT_DIGITS
        && arg.iter().all(u8::is_ascii_digit)
    {
        return Ok(arg.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')));
    }
    let digits = arg.strip_prefix(b"-").unwrap_or(arg);
    let is_plain = match digits {
        [b'0'] => digits.len() == arg.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(arg).ok().filter(|_| is_plain);
    text.and_then(|text| text.parse().ok()).ok_or(CommandError::NOT_AN_INTEGER)
}

/// Parses a fencing token; `None` for an integer that cannot be a token.
pub(super) fn token(arg: &[u8]) -> Result<Option<FencingToken>, CommandError> {
    Ok(FencingToken::new(integer(arg)?).ok())
}

/// Parses a session id; `None` if it is malformed.
pub(super) fn session_id(arg: &[u8]) -> Option<SessionId> {
    // With hyphens, as in HTTP, or without.
    let text = match arg.len() {
        36 => arg.iter().copied().filter(|byte| *byte != b'-').collect(),
        _ => arg.to_vec(),
    };
    let is_hexadecimal = text.len() == 32 && text.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(&text).ok().filter(|_| is_hexadecimal)?;
    u128::from_str_radix(text, 16).ok().map(SessionId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::OwnedArgs;

    /// Reads the options of a request. Returns the values of each, `-` for one that is not given.
    fn read<const N: usize>(request: &str, specs: &[OptionSpec; N]) -> Result<String, CommandError> {
        let args = OwnedArgs::of(request.split_whitespace());
        let texts = args.as_args().options(0, specs)?.map(|given| match given.values() {
            None => "-".to_owned(),
            Some(values) => {
                String::from_utf8_lossy(&values.from(0).collect::<Vec<_>>().join(&b',')).into_owned()
            }
        });
        Ok(texts.join(" "))
    }

    #[test]
    fn options_are_read_in_any_order_and_case() {
        let specs = [flag("NX").group(1), flag("XX").group(1), value("PX"), values("LIMIT", 2)];
        let syntax = || Err(CommandError::SYNTAX);
        let ok = |text: &str| Ok(text.to_owned());
        for (request, expected) in [
            ("", ok("- - - -")),
            ("nx", ok(" - - -")),
            ("limit 1 2 Px 3 xx", ok("-  3 1,2")),
            ("px px", ok("- - px -")),
            ("px 1 px 2", ok("- - 2 -")),
            ("nx nx", ok(" - - -")),
            ("nx xx", syntax()),
            ("px", syntax()),
            ("limit 1", syntax()),
            ("px 1 other", syntax()),
            ("other px 1", syntax()),
        ] {
            assert_eq!(read(request, &specs), expected, "{request}");
        }
    }

    #[test]
    fn an_option_that_may_be_given_once_is_not_repeated() {
        let specs = once([flag("CONN"), value("PX")]);
        assert_eq!(read("px 1 conn", &specs).as_deref(), Ok(" 1"));
        for request in ["conn conn", "px 1 px 1"] {
            assert_eq!(read(request, &specs), Err(CommandError::SYNTAX), "{request}");
        }
    }

    #[test]
    fn a_checked_value_fails_before_later_options() {
        let specs = [value("COUNT").integer(), value("EX")];
        for (request, expected) in [
            ("count x other", CommandError::NOT_AN_INTEGER),
            ("other count x", CommandError::SYNTAX),
            ("ex x other", CommandError::SYNTAX),
        ] {
            assert_eq!(read(request, &specs), Err(expected), "{request}");
        }
    }

    #[test]
    fn leading_options_end_at_the_first_other_argument() {
        let args = OwnedArgs::of(["ZADD", "key", "ch", "1", "ch"]);
        let found = args.as_args().leading_options(2, &[flag("CH"), flag("INCR")]);
        let Ok(([ch, incr], end)) = found else { panic!("not read") };
        assert_eq!((ch.is_given(), incr.is_given(), end), (true, false, 3));
    }

    #[test]
    fn an_error_of_a_command_names_the_argument() {
        let args = OwnedArgs::of(["EXPIRE", "key", "1", "nx", "other"]);
        let error = |arg: &[u8]| CommandError::new(format!("ERR {}", arg.escape_ascii()));
        let found = args.as_args().options_or(3, &[flag("NX")], error).map(drop);
        assert_eq!(found, Err(CommandError::new("ERR other")));
    }

    #[test]
    fn numbers_are_read_as_redis_reads_them() {
        for (arg, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("42", Some(42)),
            ("999999999999999999", Some(999_999_999_999_999_999)),
            ("1000000000000000000", Some(1_000_000_000_000_000_000)),
            ("99999999999999999x", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("+1", None),
            ("01", None),
            ("-0", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("\u{663}", None),
        ] {
            assert_eq!(integer(arg.as_bytes()).ok(), expected, "{arg:?}");
        }
    }
}
