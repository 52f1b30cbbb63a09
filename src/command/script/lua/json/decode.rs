//! JSON becomes values.

use mlua::{Lua, Value};

use super::super::expansion::Budget;
use super::super::native::Fault;
use super::{DEPTH_MAX, JsonSettings};

/// The value of a text.
pub(super) fn decode(
    lua: &Lua,
    text: &[u8],
    settings: &JsonSettings,
    budget: Budget<'_>,
) -> Result<Value, Fault> {
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(Fault::from("JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut decoder = Decoder { lua, text, settings, budget, at: 0, depth: 0 };
    let token = decoder.next_token();
    let value = decoder.value(token)?;
    match decoder.next_token() {
        (_, Token::End) => Ok(value),
        token => Err(unexpected("the end", &token)),
    }
}

struct Decoder<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    settings: &'a JsonSettings,
    budget: Budget<'a>,
    at: usize,
    depth: i64,
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    /// The name in errors.
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::String(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Error(what) => what,
        }
    }
}

/// A token and the offset at which it starts.
type Placed = (usize, Token);

fn unexpected(expected: &str, (at, token): &Placed) -> Fault {
    Fault::Text(format!("Expected {expected} but found {} at character {}", token.name(), at + 1))
}

impl Decoder<'_> {
    fn value(&mut self, token: Placed) -> Result<Value, Fault> {
        self.budget.take(0)?;
        match token {
            (_, Token::String(bytes)) => Ok(Value::String(self.lua.create_string(bytes)?)),
            (_, Token::Number(number)) => Ok(Value::Number(number)),
            (_, Token::Boolean(boolean)) => Ok(Value::Boolean(boolean)),
            (_, Token::Null) => Ok(Value::NULL),
            (_, Token::ObjectBegin) => self.object(),
            (_, Token::ArrayBegin) => self.array(),
            other => Err(unexpected("value", &other)),
        }
    }

    fn descend(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        match self.depth > self.settings.decode_depth_max.min(DEPTH_MAX) {
            true => Err(Fault::Text(format!(
                "Found too many nested data structures ({}) at character {}",
                self.depth, self.at
            ))),
            false => Ok(()),
        }
    }

    fn object(&mut self) -> Result<Value, Fault> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next_token();
        if !matches!(token.1, Token::ObjectEnd) {
            loop {
                let (_, Token::String(key)) = token else {
                    return Err(unexpected("object key string", &token));
                };
                let colon = self.next_token();
                if !matches!(colon.1, Token::Colon) {
                    return Err(unexpected("colon", &colon));
                }
                let value = self.next_token();
                let value = self.value(value)?;
                table.raw_set(self.lua.create_string(key)?, value)?;
                let after = self.next_token();
                match after.1 {
                    Token::ObjectEnd => break,
                    Token::Comma => token = self.next_token(),
                    _ => return Err(unexpected("comma or object end", &after)),
                }
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }

    fn array(&mut self) -> Result<Value, Fault> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next_token();
        if !matches!(token.1, Token::ArrayEnd) {
            for n in 1.. {
                table.raw_set(n, self.value(token)?)?;
                let after = self.next_token();
                match after.1 {
                    Token::ArrayEnd => break,
                    Token::Comma => token = self.next_token(),
                    _ => return Err(unexpected("comma or array end", &after)),
                }
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }

    /// The byte at `at`; the text ends with a NUL.
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn next_token(&mut self) -> Placed {
        while matches!(self.byte(self.at), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let start = self.at;
        let single = match self.byte(start) {
            b'{' => Some(Token::ObjectBegin),
            b'}' => Some(Token::ObjectEnd),
            b'[' => Some(Token::ArrayBegin),
            b']' => Some(Token::ArrayEnd),
            b':' => Some(Token::Colon),
            b',' => Some(Token::Comma),
            _ => None,
        };
        if let Some(token) = single {
            self.at += 1;
            return (start, token);
        }
        match self.byte(start) {
            0 => (start, Token::End),
            b'"' => self.string_token(),
            b'-' | b'+' | b'0'..=b'9' if self.settings.decode_invalid || !self.is_invalid_number() => {
                (start, self.number_token())
            }
            b'-' | b'+' | b'0'..=b'9' => (start, Token::Error("invalid number")),
            _ => (start, self.word_token()),
        }
    }

    fn word_token(&mut self) -> Token {
        let rest = &self.text[self.at.min(self.text.len())..];
        for (word, token) in
            [("true", Token::Boolean(true)), ("false", Token::Boolean(false)), ("null", Token::Null)]
        {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return token;
            }
        }
        match self.settings.decode_invalid && self.is_invalid_number() {
            true => self.number_token(),
            false => Token::Error("invalid token"),
        }
    }

    /// Whether a number starts here that JSON does not have: hexadecimal, with leading zeros, `inf`
    /// or `nan`.
    fn is_invalid_number(&self) -> bool {
        let mut at = self.at;
        match self.byte(at) {
            b'+' => return true,
            b'-' => at += 1,
            _ => {}
        }
        if self.byte(at) == b'0' {
            return matches!(self.byte(at + 1) | 0x20, b'x' | b'0'..=b'9');
        }
        if self.byte(at).is_ascii_digit() {
            return false;
        }
        let rest = &self.text[at.min(self.text.len())..];
        let starts_with =
            |word: &[u8]| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        starts_with(b"inf") || starts_with(b"nan")
    }

    /// The longest number at this place, as C's `strtod` reads it.
    fn number_token(&mut self) -> Token {
        let rest = &self.text[self.at.min(self.text.len())..];
        match parse_number(rest) {
            Some((number, length)) => {
                self.at += length;
                Token::Number(number)
            }
            None => Token::Error("invalid number"),
        }
    }

    fn string_token(&mut self) -> Placed {
        let start = self.at;
        let mut bytes = Vec::new();
        self.at += 1;
        loop {
            match self.byte(self.at) {
                b'"' => break,
                0 if self.at >= self.text.len() => {
                    return (self.at, Token::Error("unexpected end of string"));
                }
                b'\\' => match self.escape(&mut bytes) {
                    Ok(length) => self.at += length,
                    Err(what) => return (self.at, Token::Error(what)),
                },
                byte => {
                    bytes.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        (start, Token::String(bytes))
    }

    /// Decodes the escape sequence at this place and returns its length.
    fn escape(&self, bytes: &mut Vec<u8>) -> Result<usize, &'static str> {
        bytes.push(match self.byte(self.at + 1) {
            b'u' => return self.unicode_escape(bytes).ok_or("invalid unicode escape code"),
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            byte @ (b'"' | b'\\' | b'/') => byte,
            _ => return Err("invalid escape code"),
        });
        Ok(2)
    }

    fn unicode_escape(&self, bytes: &mut Vec<u8>) -> Option<usize> {
        let unit = |at: usize| {
            let digits =
                self.text.get(at + 2..at + 6).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        let first = unit(self.at)?;
        let (units, length) = match first {
            0xd800..=0xdbff => {
                let next = self.text.get(self.at + 6..self.at + 8)?;
                (vec![first, unit(self.at + 6).filter(|_| next == b"\\u")?], 12)
            }
            _ => (vec![first], 6),
        };
        let character = char::decode_utf16(units).next()?.ok()?;
        bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Some(length)
    }
}

/// The number at the start of a text, and its length.
fn parse_number(text: &[u8]) -> Option<(f64, usize)> {
    let sign_length = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let sign = if text.first() == Some(&b'-') { -1.0 } else { 1.0 };
    let rest = &text[sign_length..];
    let has_prefix =
        |word: &[u8]| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if has_prefix(b"infinity") {
        return Some((sign * f64::INFINITY, sign_length + 8));
    }
    if has_prefix(b"inf") {
        return Some((sign * f64::INFINITY, sign_length + 3));
    }
    if has_prefix(b"nan") {
        return Some((sign * f64::NAN, sign_length + 3));
    }
    if has_prefix(b"0x") {
        let digits = rest[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > 0 {
            let value = rest[2..2 + digits]
                .iter()
                .fold(0.0, |value, byte| value * 16.0 + (*byte as char).to_digit(16).map_or(0.0, f64::from));
            return Some((sign * value, sign_length + 2 + digits));
        }
    }
    let digits =
        |at: usize| rest[at.min(rest.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(0);
    let mut length = whole;
    let mut decimals = 0;
    if rest.get(whole) == Some(&b'.') {
        decimals = digits(whole + 1);
        length += 1 + decimals;
    }
    if whole + decimals == 0 {
        return None;
    }
    if matches!(rest.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    let value: f64 = std::str::from_utf8(&rest[..length]).ok()?.parse().ok()?;
    Some((sign * value, sign_length + length))
}
