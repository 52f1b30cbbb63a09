//! Splits the text of a script into tokens.

/// A word of a script, or a sign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// A name or keyword.
    Name(&'a [u8]),
    Number(f64),
    Text(&'a [u8]),
    Sign(&'static str),
    End,
}

/// Signs, the longer ones first. Those that are not here are not in the subset.
const SIGNS: &[&str] = &["==", "~=", "<=", ">=", "<", ">", "=", "(", ")", "[", "]", ",", ";", ".", "-"];

/// The most digits of a number: every integer of this length is exact as `f64`.
const DIGITS_MAX: usize = 15;

/// Splits a script into its words.
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    /// The line of what comes next, from 1.
    line: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Lexer<'a> {
        Lexer { text, line: 1 }
    }

    /// The next word and its line. `None`: it is not in the subset.
    pub(super) fn next(&mut self) -> Option<(Token<'a>, usize)> {
        self.skip_blanks()?;
        let line = self.line;
        let Some(&first) = self.text.first() else { return Some((Token::End, line)) };
        let token = match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => Token::Name(self.take_while(is_of_name)),
            b'0'..=b'9' => self.number()?,
            b'"' | b'\'' => self.string(first)?,
            _ => {
                let sign = SIGNS.iter().find(|sign| self.text.starts_with(sign.as_bytes()))?;
                self.text = &self.text[sign.len()..];
                Token::Sign(sign)
            }
        };
        Some((token, line))
    }

    /// Skips blanks, line breaks and short comments.
    fn skip_blanks(&mut self) -> Option<()> {
        loop {
            match self.text {
                [b' ' | b'\t' | 0x0b | 0x0c, rest @ ..] => self.text = rest,
                // Both characters of a line break are one.
                [b'\r', b'\n', rest @ ..] | [b'\n', b'\r', rest @ ..] | [b'\r' | b'\n', rest @ ..] => {
                    self.text = rest;
                    self.line += 1;
                }
                [b'-', b'-', b'[', ..] => return None,
                [b'-', b'-', ..] => {
                    self.take_while(|byte| !matches!(byte, b'\r' | b'\n'));
                }
                _ => return Some(()),
            }
        }
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.text.iter().position(|byte| !belongs(*byte)).unwrap_or(self.text.len());
        let (taken, rest) = self.text.split_at(end);
        self.text = rest;
        taken
    }

    /// A decimal integer.
    fn number(&mut self) -> Option<Token<'a>> {
        let digits = self.take_while(|byte| is_of_name(byte) || byte == b'.');
        let is_short = digits.len() <= DIGITS_MAX && digits.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(digits).ok().filter(|_| is_short)?;
        Some(Token::Number(number.parse().ok()?))
    }

    /// A string without escapes.
    fn string(&mut self, quote: u8) -> Option<Token<'a>> {
        self.text = &self.text[1..];
        let text = self.take_while(|byte| byte != quote && !matches!(byte, b'\\' | b'\r' | b'\n' | 0));
        self.text = self.text.strip_prefix(&[quote])?;
        Some(Token::Text(text))
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
