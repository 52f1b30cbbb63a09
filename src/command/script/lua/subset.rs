//! The subset of Lua in which most scripts of lock libraries are written, run without an interpreter.
//!
//! Guarantees: a program in the subset does what Lua does with it, errors and the lines they name
//! included; a text that is not in it is refused before anything runs, and Lua runs it. The subset has
//! `local` variables, assignments to them, `if`, `return`, comparisons, `and`, `or`, `not`, literals,
//! `KEYS[n]`, `ARGV[n]` and `redis.call`. It has no loops, functions, tables or arithmetic, so that a
//! program ends after its commands and holds nothing but their replies.
//! A new construct is read in `parser.rs` and run in `evaluation.rs`; `tests.rs` makes programs with it
//! and compares with Lua. Not here: everything else that scripts use.

mod evaluation;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;

pub(super) use self::evaluation::Evaluation;

/// A script in the subset.
#[derive(Debug, PartialEq)]
pub(super) struct Program(Block);

type Block = Vec<Statement>;

#[derive(Debug, PartialEq)]
enum Statement {
    /// That many new variables, at the end of the frame.
    Local {
        variables: usize,
        values: Vec<Expression>,
    },
    /// A value for a variable, by its position in the frame.
    Assign {
        variable: usize,
        value: Expression,
    },
    Call(Call),
    /// The first branch whose condition holds, or the last block.
    If {
        branches: Vec<(Expression, Block)>,
        otherwise: Block,
    },
    Return(Expression),
}

#[derive(Debug, PartialEq)]
enum Expression {
    Nil,
    Boolean(bool),
    Number(f64),
    Text(Box<[u8]>),
    /// `KEYS[n]`
    Key(usize),
    /// `ARGV[n]`
    Arg(usize),
    /// A variable, by its position in the frame.
    Variable(usize),
    Call(Call),
    Not(Box<Expression>),
    And(Box<[Expression; 2]>),
    Or(Box<[Expression; 2]>),
    /// Whether both sides are equal, or are not.
    Equal {
        sides: Box<[Expression; 2]>,
        is_negated: bool,
    },
    /// Whether one side is less than the other, or at most as large: the first one, or if the sides
    /// are swapped, the second one.
    Less {
        sides: Box<[Expression; 2]>,
        is_swapped: bool,
        or_equal: bool,
        line: usize,
    },
}

/// `redis.call(…)`
#[derive(Debug, PartialEq)]
struct Call {
    args: Vec<Expression>,
    line: usize,
}

impl Program {
    /// Reads a script. `None`: it is not in the subset.
    pub(super) fn parse(text: &[u8]) -> Option<Program> {
        parser::parse(text).map(Program)
    }
}
