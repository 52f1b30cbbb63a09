//! Finds requests in a stream of bytes: arrays of bulk strings, or inline commands.
//!
//! Guarantees: a scan continues where it stopped, so every byte is read once; only inline arguments
//! are copied; every length is checked against a limit before anything is stored; nested arrays do
//! not exist. Error texts are those of Redis. Not here: sockets, commands, buffers (the caller
//! keeps one).

use std::fmt;

use crate::command::{Args, OwnedArgs, Span};

/// The limits of a request.
#[derive(Debug, Clone)]
pub struct ScanLimits {
    /// Number of arguments of a request.
    pub args_max: usize,
    /// Length of an argument, in bytes.
    pub arg_bytes_max: usize,
    /// Length of a request, in bytes.
    pub request_bytes_max: usize,
    /// Length of an inline request, in bytes.
    pub inline_bytes_max: usize,
    /// Whether these are the limits before authentication.
    pub is_unauthenticated: bool,
}

impl Default for ScanLimits {
    fn default() -> ScanLimits {
        ScanLimits {
            args_max: 1 << 20,
            arg_bytes_max: 1 << 20,
            request_bytes_max: 32 << 20,
            inline_bytes_max: 64 << 10,
            is_unauthenticated: false,
        }
    }
}

impl ScanLimits {
    /// The limits before authentication: enough for HELLO.
    pub fn unauthenticated(&self) -> ScanLimits {
        const ARGS_MAX: usize = 16;
        const BYTES_MAX: usize = 8 << 10;
        ScanLimits {
            args_max: self.args_max.min(ARGS_MAX),
            arg_bytes_max: self.arg_bytes_max.min(BYTES_MAX),
            request_bytes_max: self.request_bytes_max.min(BYTES_MAX),
            inline_bytes_max: self.inline_bytes_max.min(BYTES_MAX),
            is_unauthenticated: true,
        }
    }

    /// A limit as an error names it.
    fn named(&self, max: usize, flag: &'static str) -> NamedLimit {
        NamedLimit { max, flag: (!self.is_unauthenticated).then_some(flag) }
    }
}

/// A limit that a request exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedLimit {
    /// The limit.
    pub max: usize,
    /// The option that sets it; `None` before authentication.
    pub flag: Option<&'static str>,
}

impl fmt::Display for NamedLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flag {
            Some(flag) => write!(f, "at most {} ({flag})", self.max),
            None => write!(f, "at most {} before authentication", self.max),
        }
    }
}

/// Why the stream cannot be parsed. The connection closes after this error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProtocolError {
    /// `*` without a valid count.
    InvalidCount,
    /// Too many arguments.
    TooManyArgs(NamedLimit),
    /// `$` without a valid length.
    InvalidLength,
    /// An argument is too long.
    ArgTooLong(NamedLimit),
    /// Another byte where an argument must begin with `$`.
    ExpectedBulk(u8),
    /// A count whose line does not end.
    CountTooLong,
    /// A length whose line does not end.
    LengthTooLong,
    /// An argument that does not end after its length.
    ExpectedLineEnd,
    /// The arguments together are too long.
    RequestTooLong(NamedLimit),
    /// An inline command is too long.
    InlineTooLong,
    /// Quotes in an inline command do not match.
    UnbalancedQuotes,
    /// An HTTP request. It gets no reply: its client may be a browser that a web page misuses.
    Http,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            ProtocolError::InvalidCount => f.write_str("invalid multibulk length"),
            ProtocolError::TooManyArgs(limit) => write!(f, "invalid multibulk length: {limit}"),
            ProtocolError::InvalidLength => f.write_str("invalid bulk length"),
            ProtocolError::ArgTooLong(limit) => write!(f, "invalid bulk length: {limit}"),
            ProtocolError::ExpectedBulk(found) => {
                let found = if found.is_ascii_graphic() { char::from(*found) } else { '?' };
                write!(f, "expected '$', got '{found}'")
            }
            ProtocolError::CountTooLong => f.write_str("too big mbulk count string"),
            ProtocolError::LengthTooLong => f.write_str("too big bulk count string"),
            ProtocolError::ExpectedLineEnd => f.write_str("expected CRLF after a bulk string"),
            ProtocolError::RequestTooLong(limit) => write!(f, "too big request: {limit}"),
            ProtocolError::InlineTooLong => f.write_str("too big inline request"),
            ProtocolError::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::Http => f.write_str("this is not an HTTP port"),
        }
    }
}

/// A longer list of arguments is given back after its request.
const SPANS_KEPT_MAX: usize = 4096;
/// Longest line with a number, in bytes; no number needs more.
const NUMBER_LINE_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Inline,
    Count,
    Length { args_left: usize },
    Arg { args_left: usize, length: usize },
}

/// A scanner at some point of a stream.
#[derive(Debug)]
pub struct Scanner {
    limits: ScanLimits,
    state: State,
    /// The request is parsed up to here.
    position: usize,
    /// The line that begins at `position` does not end before here.
    searched: usize,
    spans: Vec<Span>,
    inline: OwnedArgs,
}

impl Scanner {
    /// A scanner at the start of a stream.
    pub fn new(limits: ScanLimits) -> Scanner {
        let (spans, inline) = (Vec::new(), OwnedArgs::default());
        Scanner { limits, state: State::Start, position: 0, searched: 0, spans, inline }
    }

    /// Replaces the limits.
    pub fn set_limits(&mut self, limits: ScanLimits) {
        self.limits = limits;
    }

    /// Searches the end of the request that begins at the start of `input`. Returns its length, or
    /// `None` if more input is needed; the next call must then have the same start. Until the next
    /// call, [`Scanner::args`] returns the arguments.
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if self.state == State::Start {
            self.spans.clear();
            if self.spans.capacity() > SPANS_KEPT_MAX {
                self.spans = Vec::new();
            }
            if !self.inline.is_empty() {
                self.inline = OwnedArgs::default();
            }
            if let Some(length) = self.common(input) {
                return Ok(Some(length));
            }
        }
        self.scan_any(input)
    }

    /// Any request, from its start or from where the last call has stopped.
    #[inline(never)]
    fn scan_any(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        loop {
            match self.state {
                State::Start => {
                    self.spans.clear();
                    (self.position, self.searched) = (0, 0);
                    self.state = match input.first() {
                        None => return Ok(None),
                        Some(b'*') => State::Count,
                        Some(_) => State::Inline,
                    };
                }
                State::Inline => return self.inline(input),
                State::Count => {
                    let Some(line) = self.line(input, ProtocolError::CountTooLong)? else { return Ok(None) };
                    let count = number(line.get(1..).unwrap_or(b"")).ok_or(ProtocolError::InvalidCount)?;
                    if count <= 0 {
                        return Ok(self.complete());
                    }
                    let args_left = usize::try_from(count).map_err(|_| ProtocolError::InvalidCount)?;
                    if args_left > self.limits.args_max {
                        let limit = self.limits.named(self.limits.args_max, "--args-max");
                        return Err(ProtocolError::TooManyArgs(limit));
                    }
                    self.state = State::Length { args_left };
                }
                State::Length { args_left: 0 } => return Ok(self.complete()),
                State::Length { args_left } => {
                    match input.get(self.position) {
                        None => return Ok(None),
                        Some(b'$') => {}
                        Some(other) => return Err(ProtocolError::ExpectedBulk(*other)),
                    }
                    let Some(line) = self.line(input, ProtocolError::LengthTooLong)? else { return Ok(None) };
                    let length = number(line.get(1..).unwrap_or(b"")).ok_or(ProtocolError::InvalidLength)?;
                    let length = usize::try_from(length).map_err(|_| ProtocolError::InvalidLength)?;
                    self.check_length(length)?;
                    self.state = State::Arg { args_left, length };
                }
                State::Arg { args_left, length } => {
                    let end = self.position + length;
                    let Some(line_end) = input.get(end..end + 2) else { return Ok(None) };
                    if line_end != b"\r\n" {
                        return Err(ProtocolError::ExpectedLineEnd);
                    }
                    // Within request_bytes_max, which fits.
                    self.spans.push((self.position as u32, end as u32));
                    self.position = end + 2;
                    self.searched = self.position;
                    self.state = State::Length { args_left: args_left - 1 };
                }
            }
        }
    }

    /// Whether the next argument may be this long.
    fn check_length(&self, length: usize) -> Result<(), ProtocolError> {
        let ScanLimits { arg_bytes_max, request_bytes_max, .. } = self.limits;
        if length > arg_bytes_max {
            return Err(ProtocolError::ArgTooLong(self.limits.named(arg_bytes_max, "--arg-bytes-max")));
        }
        if self.position + length > request_bytes_max {
            let limit = self.limits.named(request_bytes_max, "--request-bytes-max");
            return Err(ProtocolError::RequestTooLong(limit));
        }
        Ok(())
    }

    /// The arguments of the request that [`Scanner::scan`] found in `input`; none for an empty one.
    pub fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        if self.inline.is_empty() { Args::new(input, &self.spans) } else { self.inline.as_args() }
    }

    /// Common case: a complete request of fewer than 100 arguments of fewer than 100 bytes. Returns
    /// its length; `None` for any other request, which must be scanned from the start.
    ///
    /// Not inlined: within the loop over requests, too little of it stays in registers.
    #[inline(never)]
    fn common(&mut self, input: &[u8]) -> Option<usize> {
        let ScanLimits { args_max, arg_bytes_max, request_bytes_max, .. } = self.limits;
        let (args, mut position) = short_number(b'*', input)?;
        if args == 0 || args > args_max {
            return None;
        }
        self.spans.reserve(args);
        for _ in 0..args {
            let (length, digits) = short_number(b'$', input.get(position..)?)?;
            let (start, end) = (position + digits, position + digits + length);
            if length > arg_bytes_max || end > request_bytes_max || input.get(end..end + 2)? != b"\r\n" {
                return None;
            }
            self.spans.push((start as u32, end as u32));
            position = end + 2;
        }
        Some(position)
    }

    fn complete(&mut self) -> Option<usize> {
        self.state = State::Start;
        Some(self.position)
    }

    /// The line at `position` without its end. Advances past both.
    fn line<'a>(
        &mut self,
        input: &'a [u8],
        too_long: ProtocolError,
    ) -> Result<Option<&'a [u8]>, ProtocolError> {
        let start = self.position;
        let Some(offset) = input[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = input.len();
            return if input.len() - start > NUMBER_LINE_MAX { Err(too_long) } else { Ok(None) };
        };
        let end = self.searched + offset;
        if end - start > NUMBER_LINE_MAX {
            return Err(too_long);
        }
        (self.position, self.searched) = (end + 1, end + 1);
        // A bare \n becomes an empty line, which is no number.
        Ok(Some(input[start..end].strip_suffix(b"\r").unwrap_or(b"")))
    }

    fn inline(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(offset) = input[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = input.len();
            return match input.len() > self.limits.inline_bytes_max {
                true => Err(ProtocolError::InlineTooLong),
                false => Ok(None),
            };
        };
        let end = self.searched + offset;
        if end > self.limits.inline_bytes_max {
            return Err(ProtocolError::InlineTooLong);
        }
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        self.inline = split(line, self.limits.args_max)?;
        let first = self.inline.as_args().at(0);
        if first.eq_ignore_ascii_case(b"post") || first.eq_ignore_ascii_case(b"host:") {
            return Err(ProtocolError::Http);
        }
        self.position = end + 1;
        Ok(self.complete())
    }
}

/// Common case: a line of `kind` and one or two digits. Returns the number and the length of the
/// line.
fn short_number(kind: u8, input: &[u8]) -> Option<(usize, usize)> {
    let digit = |byte: u8| usize::from(byte - b'0');
    match *input {
        [first, ones @ b'0'..=b'9', b'\r', b'\n', ..] if first == kind => Some((digit(ones), 4)),
        [first, tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..] if first == kind => {
            Some((digit(tens) * 10 + digit(ones), 5))
        }
        _ => None,
    }
}

/// A number as Redis reads them: no leading zeros, no plus.
fn number(digits: &[u8]) -> Option<i64> {
    let plain = digits.strip_prefix(b"-").unwrap_or(digits);
    let is_plain = match plain {
        [b'0'] => digits.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    std::str::from_utf8(digits).ok().filter(|_| is_plain)?.parse().ok()
}

/// Splits an inline command as Redis does: blanks between words, `"…"` with escapes, `'…'` with
/// `\'` only.
fn split(line: &[u8], args_max: usize) -> Result<OwnedArgs, ProtocolError> {
    let mut args = OwnedArgs::default();
    let mut arg = Vec::new();
    let mut rest = line;
    loop {
        while let [first, after @ ..] = rest
            && first.is_ascii_whitespace()
        {
            rest = after;
        }
        if rest.is_empty() {
            return Ok(args);
        }
        if args.as_args().len() == args_max {
            return Err(ProtocolError::InvalidCount);
        }
        arg.clear();
        loop {
            match rest {
                [] => break,
                [blank, ..] if blank.is_ascii_whitespace() => break,
                [quote @ (b'"' | b'\''), after @ ..] => {
                    rest = quoted(*quote, after, &mut arg)?;
                    // A closing quote ends the argument.
                    if rest.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                        return Err(ProtocolError::UnbalancedQuotes);
                    }
                    break;
                }
                [byte, after @ ..] => {
                    arg.push(*byte);
                    rest = after;
                }
            }
        }
        args.push(&arg);
    }
}

fn quoted<'a>(quote: u8, mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] => return Err(ProtocolError::UnbalancedQuotes),
            [end, after @ ..] if *end == quote => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0) as u8;
                arg.push(digit(high) * 16 + digit(low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] if quote == b'"' => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = after;
            }
            [b'\\', b'\'', after @ ..] if quote == b'\'' => {
                arg.push(b'\'');
                rest = after;
            }
            [byte, after @ ..] => {
                arg.push(*byte);
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis_protocol::resp2::decode::decode_range;
    use redis_protocol::resp2::types::RangeFrame;

    use super::*;

    /// All requests in `input`, given to the scanner in pieces that end at `cuts`.
    fn requests(input: &[u8], cuts: &[usize]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut scanner = Scanner::new(ScanLimits::default());
        let (mut start, mut found) = (0, Vec::new());
        for end in cuts.iter().copied().chain([input.len()]) {
            while let Some(length) = scanner.scan(&input[start..end])? {
                let args = scanner.args(&input[start..end]);
                found.push(args.from(0).map(<[u8]>::to_vec).collect());
                start += length;
            }
        }
        Ok(found)
    }

    fn encoded(args: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            bytes.extend_from_slice(arg);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    #[test]
    fn inline_commands_are_split_as_redis_does() {
        for (line, expected) in [
            ("PING\r\n", vec!["PING"]),
            ("  SET  a\tb \n", vec!["SET", "a", "b"]),
            ("a \"b c\" 'd \"e'\r\n", vec!["a", "b c", "d \"e"]),
            ("\"\\x41\\n\\\"\" '\\''\n", vec!["A\n\"", "'"]),
            ("\"\"\n", vec![""]),
            ("\r\n", vec![]),
        ] {
            let found = requests(line.as_bytes(), &[]).unwrap();
            let expected: Vec<Vec<u8>> = expected.iter().map(|arg| arg.as_bytes().to_vec()).collect();
            assert_eq!(found, vec![expected], "{line:?}");
        }
        for line in ["\"a\n", "'a\n", "\"a\"b\n"] {
            assert_eq!(requests(line.as_bytes(), &[]), Err(ProtocolError::UnbalancedQuotes), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_request_is_named() {
        for (bytes, expected) in [
            ("*x\r\n", "invalid multibulk length"),
            ("*\r\n", "invalid multibulk length"),
            ("*1\n", "invalid multibulk length"),
            ("*01\r\n", "invalid multibulk length"),
            ("*1048577\r\n", "invalid multibulk length: at most 1048576 (--args-max)"),
            ("*9223372036854775808\r\n", "invalid multibulk length"),
            ("*1\r\n:1\r\n", "expected '$', got ':'"),
            ("*1\r\n*1\r\n", "expected '$', got '*'"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$1048577\r\n", "invalid bulk length: at most 1048576 (--arg-bytes-max)"),
            ("*1\r\n$1\r\nab\r\n", "expected CRLF after a bulk string"),
            ("*1111111111111111111111111111111111", "too big mbulk count string"),
            ("*1\r\n$1111111111111111111111111111111111", "too big bulk count string"),
            ("POST / HTTP/1.1\r\n", "this is not an HTTP port"),
            ("Host: localhost\r\n", "this is not an HTTP port"),
        ] {
            let error = requests(bytes.as_bytes(), &[]).unwrap_err().to_string();
            assert_eq!(error, format!("Protocol error: {expected}"), "{bytes:?}");
        }
    }

    #[test]
    fn limits_hold_at_the_boundary_and_one_past_it() {
        let limits = ScanLimits {
            args_max: 2,
            arg_bytes_max: 3,
            request_bytes_max: 22,
            inline_bytes_max: 4,
            is_unauthenticated: false,
        };
        let named = |max, flag| NamedLimit { max, flag: Some(flag) };
        let scan = |bytes: &str| Scanner::new(limits.clone()).scan(bytes.as_bytes());
        assert_eq!(scan("*2\r\n$3\r\nabc\r\n$3\r\nabc\r\n"), Ok(Some(22)));
        assert_eq!(scan("*3\r\n"), Err(ProtocolError::TooManyArgs(named(2, "--args-max"))));
        assert_eq!(scan("*1\r\n$4\r\n"), Err(ProtocolError::ArgTooLong(named(3, "--arg-bytes-max"))));
        let tight = ScanLimits { request_bytes_max: 19, ..limits.clone() };
        assert_eq!(
            Scanner::new(tight).scan(b"*2\r\n$3\r\nabc\r\n$3\r\n"),
            Err(ProtocolError::RequestTooLong(named(19, "--request-bytes-max")))
        );
        assert_eq!(scan("abcd\n"), Ok(Some(5)));
        assert_eq!(scan("abcde\n"), Err(ProtocolError::InlineTooLong));
        assert_eq!(scan("abcde"), Err(ProtocolError::InlineTooLong));
        assert_eq!(scan("a b c\n"), Err(ProtocolError::InlineTooLong));
        assert_eq!(scan("*0\r\n"), Ok(Some(4)));
        assert_eq!(scan("*-1\r\n"), Ok(Some(5)));
    }

    proptest! {
        #[test]
        fn requests_are_found_wherever_the_stream_is_cut(
            requests_in in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..6), 1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let stream: Vec<u8> = requests_in.iter().flat_map(|args| encoded(args)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.sort_unstable();
            prop_assert_eq!(requests(&stream, &cuts), Ok(requests_in));
        }

        #[test]
        fn arguments_are_where_redis_protocol_finds_them(
            args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..12),
        ) {
            let bytes = encoded(&args);
            let mut scanner = Scanner::new(ScanLimits::default());
            let length = scanner.scan(&bytes).unwrap().unwrap();
            let (frame, consumed) = decode_range(&bytes).unwrap().unwrap();
            let RangeFrame::Array(items) = frame else { panic!("{frame:?}") };
            let ranges: Vec<Span> = items
                .iter()
                .map(|item| match item {
                    RangeFrame::BulkString((start, end)) => (*start as u32, *end as u32),
                    other => panic!("{other:?}"),
                })
                .collect();
            prop_assert_eq!(consumed, length);
            prop_assert_eq!(&scanner.spans, &ranges);
        }

        #[test]
        fn any_bytes_are_a_request_an_error_or_incomplete(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'*'), Just(b'$'), Just(b'1'), Just(b'\r'), Just(b'\n')], 0..60),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            // Where it is cut makes no difference to what is found.
            prop_assert_eq!(requests(&bytes, &cuts).ok(), requests(&bytes, &[]).ok());
        }
    }
}
