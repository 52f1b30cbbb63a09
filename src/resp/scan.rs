//! Finds requests in a stream of bytes: arrays of bulk strings, or inline commands.
//!
//! Guarantees: goes on where it stopped, so every byte is looked at once; nothing is copied but inline words; every length
//! is checked against a limit before anything is kept; nested arrays do not exist. Error texts are Redis'.
//! Not here: sockets, commands, buffers (the caller keeps one).

use std::fmt;

use crate::command::{Args, OwnedArgs, Span};

/// What a request may be.
#[derive(Debug, Clone)]
pub struct ScanLimits {
    /// Words of one request.
    pub args_max: usize,
    /// Bytes of one word.
    pub arg_bytes_max: usize,
    /// Bytes of one request, in all.
    pub request_bytes_max: usize,
    /// Bytes of an inline request.
    pub inline_bytes_max: usize,
}

impl Default for ScanLimits {
    fn default() -> ScanLimits {
        ScanLimits {
            args_max: 16_384,
            arg_bytes_max: 1 << 20,
            request_bytes_max: 2 << 20,
            inline_bytes_max: 64 << 10,
        }
    }
}

impl ScanLimits {
    /// For those who have not given the password: enough for HELLO.
    pub fn unauthenticated(&self) -> ScanLimits {
        ScanLimits {
            args_max: self.args_max.min(10),
            arg_bytes_max: self.arg_bytes_max.min(16 << 10),
            request_bytes_max: self.request_bytes_max.min(64 << 10),
            inline_bytes_max: self.inline_bytes_max.min(16 << 10),
        }
    }
}

/// Why the stream cannot be read on. The connection ends after telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProtocolError {
    /// `*` and something that is no count, or too many words.
    InvalidCount,
    /// `$` and something that is no length, or a word too long.
    InvalidLength,
    /// Not `$` where a word must begin.
    ExpectedBulk(u8),
    /// A line without an end where a count must be.
    CountTooLong,
    /// A line without an end where a length must be.
    LengthTooLong,
    /// A word that does not end after its length.
    ExpectedLineEnd,
    /// All words together are too long.
    RequestTooLong,
    /// An inline command is too long.
    InlineTooLong,
    /// Quotes in an inline command do not match.
    UnbalancedQuotes,
    /// Somebody speaks HTTP: answered with silence, as it may be a browser that was tricked.
    Http,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            ProtocolError::InvalidCount => f.write_str("invalid multibulk length"),
            ProtocolError::InvalidLength => f.write_str("invalid bulk length"),
            ProtocolError::ExpectedBulk(found) => {
                let found = if found.is_ascii_graphic() { char::from(*found) } else { '?' };
                write!(f, "expected '$', got '{found}'")
            }
            ProtocolError::CountTooLong => f.write_str("too big mbulk count string"),
            ProtocolError::LengthTooLong => f.write_str("too big bulk count string"),
            ProtocolError::ExpectedLineEnd => f.write_str("expected CRLF after a bulk string"),
            ProtocolError::RequestTooLong => f.write_str("too big request"),
            ProtocolError::InlineTooLong => f.write_str("too big inline request"),
            ProtocolError::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::Http => f.write_str("this is not an HTTP port"),
        }
    }
}

/// Longest line with a number; more than any number needs.
const NUMBER_LINE_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Inline,
    Count,
    Length { words_left: usize },
    Word { words_left: usize, length: usize },
}

/// A scanner at some point of a stream.
#[derive(Debug)]
pub struct Scanner {
    limits: ScanLimits,
    state: State,
    /// Up to here the request is understood.
    position: usize,
    /// Up to here there is no end of the line that begins at `position`.
    searched: usize,
    spans: Vec<Span>,
    inline: OwnedArgs,
}

impl Scanner {
    /// At the start of a stream.
    pub fn new(limits: ScanLimits) -> Scanner {
        let (spans, inline) = (Vec::new(), OwnedArgs::default());
        Scanner { limits, state: State::Start, position: 0, searched: 0, spans, inline }
    }

    /// Other limits from here on.
    pub fn set_limits(&mut self, limits: ScanLimits) {
        self.limits = limits;
    }

    /// Looks for the end of the request that begins at the start of `input`. `None`: more input is needed, call again
    /// with the same start. Else the request's length; its words are [`Scanner::args`] until the next call.
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        loop {
            match self.state {
                State::Start => {
                    self.spans.clear();
                    if !self.inline.is_empty() {
                        self.inline = OwnedArgs::default();
                    }
                    if let Some(length) = self.usual(input) {
                        return Ok(Some(length));
                    }
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
                    let words_left = usize::try_from(count).map_err(|_| ProtocolError::InvalidCount)?;
                    if words_left > self.limits.args_max {
                        return Err(ProtocolError::InvalidCount);
                    }
                    self.state = State::Length { words_left };
                }
                State::Length { words_left: 0 } => return Ok(self.complete()),
                State::Length { words_left } => {
                    match input.get(self.position) {
                        None => return Ok(None),
                        Some(b'$') => {}
                        Some(other) => return Err(ProtocolError::ExpectedBulk(*other)),
                    }
                    let Some(line) = self.line(input, ProtocolError::LengthTooLong)? else { return Ok(None) };
                    let length = number(line.get(1..).unwrap_or(b"")).ok_or(ProtocolError::InvalidLength)?;
                    let length = usize::try_from(length).map_err(|_| ProtocolError::InvalidLength)?;
                    if length > self.limits.arg_bytes_max {
                        return Err(ProtocolError::InvalidLength);
                    }
                    if self.position + length > self.limits.request_bytes_max {
                        return Err(ProtocolError::RequestTooLong);
                    }
                    self.state = State::Word { words_left, length };
                }
                State::Word { words_left, length } => {
                    let end = self.position + length;
                    let Some(line_end) = input.get(end..end + 2) else { return Ok(None) };
                    if line_end != b"\r\n" {
                        return Err(ProtocolError::ExpectedLineEnd);
                    }
                    // Within request_bytes_max, which fits.
                    self.spans.push((self.position as u32, end as u32));
                    self.position = end + 2;
                    self.searched = self.position;
                    self.state = State::Length { words_left: words_left - 1 };
                }
            }
        }
    }

    /// The words of the request that [`Scanner::scan`] just found in `input`; none for an empty one.
    pub fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        if self.inline.is_empty() { Args::new(input, &self.spans) } else { self.inline.as_args() }
    }

    /// The length of a request like most, which is all there, of fewer than a hundred words of fewer than a hundred bytes.
    /// `None`: look closer, from the start.
    fn usual(&mut self, input: &[u8]) -> Option<usize> {
        let (args, mut position) = short_number(b'*', input)?;
        if args == 0 || args > self.limits.args_max {
            return None;
        }
        for _ in 0..args {
            let (length, digits) = short_number(b'$', input.get(position..)?)?;
            let (start, end) = (position + digits, position + digits + length);
            if length > self.limits.arg_bytes_max
                || end > self.limits.request_bytes_max
                || input.get(end..end + 2)? != b"\r\n"
            {
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

    /// The line at `position`, without its end, which is passed.
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
        // A bare \n leaves a byte too many for a number, or is itself the fault.
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

/// A line of `kind` and one or two digits, as nearly all are, and how many bytes it takes. `None`: look closer.
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

/// Splits an inline command as Redis does: blanks between words, `"..."` with escapes, `'...'` with `\'` only.
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
                    // A closing quote ends the word.
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
            ("*16385\r\n", "invalid multibulk length"),
            ("*9223372036854775808\r\n", "invalid multibulk length"),
            ("*1\r\n:1\r\n", "expected '$', got ':'"),
            ("*1\r\n*1\r\n", "expected '$', got '*'"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$1048577\r\n", "invalid bulk length"),
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
        let limits = ScanLimits { args_max: 2, arg_bytes_max: 3, request_bytes_max: 22, inline_bytes_max: 4 };
        let scan = |bytes: &str| Scanner::new(limits.clone()).scan(bytes.as_bytes());
        assert_eq!(scan("*2\r\n$3\r\nabc\r\n$3\r\nabc\r\n"), Ok(Some(22)));
        assert_eq!(scan("*3\r\n"), Err(ProtocolError::InvalidCount));
        assert_eq!(scan("*1\r\n$4\r\n"), Err(ProtocolError::InvalidLength));
        let tight = ScanLimits { request_bytes_max: 19, ..limits.clone() };
        assert_eq!(
            Scanner::new(tight).scan(b"*2\r\n$3\r\nabc\r\n$3\r\n"),
            Err(ProtocolError::RequestTooLong)
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
        fn words_lie_where_redis_protocol_finds_them(
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
