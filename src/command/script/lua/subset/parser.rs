//! The parser: tokens become a program, or the text is not in the subset.
//!
//! What is read here must be what Lua reads: when in doubt, a text is not in the subset.

use super::lexer::{Lexer, Token};
use super::{Block, Call, Expression, Statement};

/// The longest text, in bytes.
const TEXT_MAX: usize = 8 << 10;
/// Blocks and parentheses within each other.
const DEPTH_MAX: usize = 50;
/// Operators in a script, which nest in each other.
const OPERATORS_MAX: usize = 200;
/// Variables at one place and arguments of calls within each other: Lua has up to 250 registers for
/// them and for the sides of comparisons.
const REGISTERS_MAX: usize = 150;

/// Words that cannot be names, of the subset or not.
const KEYWORDS: &[&[u8]] = &[
    b"and",
    b"break",
    b"do",
    b"else",
    b"elseif",
    b"end",
    b"false",
    b"for",
    b"function",
    b"if",
    b"in",
    b"local",
    b"nil",
    b"not",
    b"or",
    b"repeat",
    b"return",
    b"then",
    b"true",
    b"until",
    b"while",
];
/// Names that mean something else than a variable; the subset has no variables of these names.
const GLOBALS: &[&[u8]] = &[b"KEYS", b"ARGV", b"redis"];

/// Reads a script. `None`: it is not in the subset.
pub(super) fn parse(text: &[u8]) -> Option<Block> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let mut lexer = Lexer::new(text);
    let next = lexer.next()?;
    let mut parser =
        Parser { lexer, next, last_line: 1, variables: Vec::new(), values: 0, depth: 0, operators: 0 };
    let body = parser.block()?;
    (parser.next.0 == Token::End).then_some(body)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The word that comes next, and its line.
    next: (Token<'a>, usize),
    /// The line of the word before it.
    last_line: usize,
    /// The names of the variables in scope, in the order of the frame.
    variables: Vec<&'a [u8]>,
    /// Arguments, and values of new variables, that have been read and not yet used.
    values: usize,
    depth: usize,
    operators: usize,
}

impl<'a> Parser<'a> {
    fn take(&mut self) -> Option<Token<'a>> {
        let next = self.lexer.next()?;
        let (token, line) = std::mem::replace(&mut self.next, next);
        self.last_line = line;
        Some(token)
    }

    /// Takes the next word if it is this sign.
    fn takes_sign(&mut self, sign: &str) -> Option<bool> {
        let is_next = self.is_sign(sign);
        if is_next {
            self.take()?;
        }
        Some(is_next)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.next.0, Token::Sign(next) if next == sign)
    }

    /// Takes the next word if it is this name.
    fn takes_word(&mut self, word: &[u8]) -> Option<bool> {
        let is_next = self.next.0 == Token::Name(word);
        if is_next {
            self.take()?;
        }
        Some(is_next)
    }

    fn takes_operator(&mut self, word: &[u8]) -> Option<bool> {
        let is_next = self.takes_word(word)?;
        if is_next {
            self.count_operator()?;
        }
        Some(is_next)
    }

    fn count_operator(&mut self) -> Option<()> {
        self.operators += 1;
        (self.operators <= OPERATORS_MAX).then_some(())
    }

    fn expect_sign(&mut self, sign: &str) -> Option<()> {
        self.takes_sign(sign)?.then_some(())
    }

    fn expect_word(&mut self, word: &[u8]) -> Option<()> {
        self.takes_word(word)?.then_some(())
    }

    /// A name that can be that of a variable.
    fn variable_name(&mut self) -> Option<&'a [u8]> {
        match self.take()? {
            Token::Name(name) if !KEYWORDS.contains(&name) && !GLOBALS.contains(&name) => Some(name),
            _ => None,
        }
    }

    /// The variable of this name that was declared last.
    fn variable(&self, name: &[u8]) -> Option<usize> {
        self.variables.iter().rposition(|variable| *variable == name)
    }

    fn nested<R>(&mut self, read: impl FnOnce(&mut Parser<'a>) -> Option<R>) -> Option<R> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// The statements up to the end of a block.
    fn block(&mut self) -> Option<Block> {
        self.nested(|parser| {
            let outer = parser.variables.len();
            let mut block = Block::new();
            while !parser.is_at_end_of_block() {
                let statement = parser.statement()?;
                let is_last = matches!(statement, Statement::Return(_));
                block.push(statement);
                parser.takes_sign(";")?;
                if is_last {
                    break;
                }
            }
            parser.variables.truncate(outer);
            Some(block)
        })
    }

    fn is_at_end_of_block(&self) -> bool {
        matches!(self.next.0, Token::End | Token::Name(b"end" | b"else" | b"elseif"))
    }

    fn statement(&mut self) -> Option<Statement> {
        let Token::Name(word) = self.next.0 else { return None };
        match word {
            b"local" => self.local(),
            b"if" => self.branches(),
            b"return" => {
                self.take()?;
                let ends = self.is_at_end_of_block() || self.is_sign(";");
                Some(Statement::Return(if ends { Expression::Nil } else { self.expression()? }))
            }
            b"redis" => Some(Statement::Call(self.call()?)),
            _ => {
                let name = self.variable_name()?;
                let variable = self.variable(name)?;
                self.expect_sign("=")?;
                Some(Statement::Assign { variable, value: self.expression()? })
            }
        }
    }

    fn local(&mut self) -> Option<Statement> {
        self.take()?;
        let mut names = vec![self.variable_name()?];
        while self.takes_sign(",")? {
            names.push(self.variable_name()?);
        }
        let values = if self.takes_sign("=")? { self.list()? } else { Vec::new() };
        // The values cannot see the variables.
        self.variables.extend(&names);
        (self.variables.len() <= REGISTERS_MAX).then_some(Statement::Local { variables: names.len(), values })
    }

    /// One expression or more.
    fn list(&mut self) -> Option<Vec<Expression>> {
        let outer = self.values;
        let mut values = vec![self.expression()?];
        while self.takes_sign(",")? {
            self.values += 1;
            if self.variables.len() + self.values > REGISTERS_MAX {
                return None;
            }
            values.push(self.expression()?);
        }
        self.values = outer;
        Some(values)
    }

    fn branches(&mut self) -> Option<Statement> {
        let mut branches = Vec::new();
        let mut otherwise = Block::new();
        loop {
            // `if` or `elseif`
            self.take()?;
            let condition = self.expression()?;
            self.expect_word(b"then")?;
            branches.push((condition, self.block()?));
            if self.next.0 != Token::Name(b"elseif") {
                break;
            }
        }
        if self.takes_word(b"else")? {
            otherwise = self.block()?;
        }
        self.expect_word(b"end")?;
        Some(Statement::If { branches, otherwise })
    }

    fn expression(&mut self) -> Option<Expression> {
        self.nested(Parser::or)
    }

    fn or(&mut self) -> Option<Expression> {
        let mut left = self.and()?;
        while self.takes_operator(b"or")? {
            left = Expression::Or(Box::new([left, self.and()?]));
        }
        Some(left)
    }

    fn and(&mut self) -> Option<Expression> {
        let mut left = self.comparison()?;
        while self.takes_operator(b"and")? {
            left = Expression::And(Box::new([left, self.comparison()?]));
        }
        Some(left)
    }

    fn comparison(&mut self) -> Option<Expression> {
        let mut left = self.unary()?;
        loop {
            let Token::Sign(sign @ ("==" | "~=" | "<" | "<=" | ">" | ">=")) = self.next.0 else {
                return Some(left);
            };
            self.take()?;
            self.count_operator()?;
            let sides = Box::new([left, self.unary()?]);
            left = match sign {
                "==" | "~=" => Expression::Equal { sides, is_negated: sign == "~=" },
                _ => Expression::Less {
                    sides,
                    is_swapped: sign.starts_with('>'),
                    or_equal: sign.ends_with('='),
                    line: self.last_line,
                },
            };
        }
    }

    fn unary(&mut self) -> Option<Expression> {
        if self.takes_word(b"not")? {
            return self.nested(|parser| Some(Expression::Not(Box::new(parser.unary()?))));
        }
        if self.takes_sign("-")? {
            return match self.take()? {
                Token::Number(number) if number > 0.0 => Some(Expression::Number(-number)),
                _ => None,
            };
        }
        self.simple()
    }

    fn simple(&mut self) -> Option<Expression> {
        let expression = match self.next.0 {
            Token::Name(b"redis") => Expression::Call(self.call()?),
            Token::Name(b"KEYS") => Expression::Key(self.index()?),
            Token::Name(b"ARGV") => Expression::Arg(self.index()?),
            _ => match self.take()? {
                Token::Name(b"nil") => Expression::Nil,
                Token::Name(b"true") => Expression::Boolean(true),
                Token::Name(b"false") => Expression::Boolean(false),
                Token::Name(name) => Expression::Variable(self.variable(name)?),
                Token::Number(number) => Expression::Number(number),
                Token::Text(text) => Expression::Text(text.into()),
                Token::Sign("(") => {
                    let inner = self.expression()?;
                    self.expect_sign(")")?;
                    inner
                }
                Token::Sign(_) | Token::End => return None,
            },
        };
        (!self.is_indexed_or_called()).then_some(expression)
    }

    /// Whether a field or a call of what was read comes next.
    fn is_indexed_or_called(&self) -> bool {
        matches!(self.next.0, Token::Sign("." | "[" | "(") | Token::Text(_))
    }

    /// `KEYS[n]` or `ARGV[n]`
    fn index(&mut self) -> Option<usize> {
        self.take()?;
        self.expect_sign("[")?;
        let Token::Number(number) = self.take()? else { return None };
        self.expect_sign("]")?;
        Some(number as usize)
    }

    /// `redis.call(…)`
    fn call(&mut self) -> Option<Call> {
        self.take()?;
        self.expect_sign(".")?;
        self.expect_word(b"call")?;
        // Lua refuses a call whose parenthesis is on a line of its own.
        let line = self.last_line;
        if self.next.1 != line {
            return None;
        }
        self.expect_sign("(")?;
        let args = if self.is_sign(")") { Vec::new() } else { self.list()? };
        self.expect_sign(")")?;
        (!self.is_indexed_or_called()).then_some(Call { args, line })
    }
}
