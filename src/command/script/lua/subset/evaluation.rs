//! Runs a program of the subset.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::{Block, Call, Expression, Program, Statement};
use crate::command::script::lua::convert::{push_arg, push_number};
use crate::command::script::lua::number::truncate;
use crate::command::script::lua::redis::run_command;
use crate::command::script::lua::{CHUNK, Host, Invocation, OUT_OF_MEMORY, Shared, convert, located};
use crate::command::script::running::STOPPED;
use crate::command::{Args, CommandError, OwnedArgs};
use crate::reply::Reply;

/// A value of a script.
#[derive(Debug, Clone)]
enum Value<'a> {
    Nil,
    Boolean(bool),
    Number(f64),
    Text(&'a [u8]),
    /// A string if it is [`Reply::Bulk`], otherwise a table.
    Reply(Rc<HeldReply<'a>>),
}

/// A reply that counts toward the memory of its script for as long as a value refers to it.
#[derive(Debug)]
struct HeldReply<'a> {
    reply: Reply,
    size: usize,
    held_bytes: &'a Cell<usize>,
}

impl<'a> HeldReply<'a> {
    fn new(reply: Reply, held_bytes: &'a Cell<usize>) -> HeldReply<'a> {
        let size = reply.size();
        held_bytes.set(held_bytes.get() + size);
        HeldReply { reply, size, held_bytes }
    }
}

impl Drop for HeldReply<'_> {
    fn drop(&mut self) {
        self.held_bytes.set(self.held_bytes.get() - self.size);
    }
}

impl<'a> Value<'a> {
    /// What `redis.call` returns for a reply.
    fn of_reply(reply: Reply, held_bytes: &'a Cell<usize>) -> Value<'a> {
        match reply {
            Reply::Integer(integer) => Value::Number(integer as f64),
            Reply::Boolean(boolean) => Value::Number(f64::from(u8::from(boolean))),
            Reply::Null | Reply::NullArray => Value::Boolean(false),
            reply => Value::Reply(Rc::new(HeldReply::new(convert::in_resp2(reply), held_bytes))),
        }
    }

    fn into_reply(self) -> Reply {
        match self {
            Value::Nil | Value::Boolean(false) => Reply::Null,
            Value::Boolean(true) => Reply::Integer(1),
            Value::Number(number) => Reply::Integer(truncate(number)),
            Value::Text(text) => Reply::bulk(text),
            Value::Reply(held) => match Rc::try_unwrap(held) {
                Ok(mut held) => std::mem::replace(&mut held.reply, Reply::Null),
                Err(held) => held.reply.clone(),
            },
        }
    }

    fn is_true(&self) -> bool {
        !matches!(self, Value::Nil | Value::Boolean(false))
    }

    /// The bytes, if it is a string.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Text(text) => Some(text),
            Value::Reply(held) => match &held.reply {
                Reply::Bulk(bytes) => Some(bytes),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether both are the same, as `==` finds.
    fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Nil, Value::Nil) => true,
            (Value::Boolean(one), Value::Boolean(other)) => one == other,
            (Value::Number(one), Value::Number(other)) => one == other,
            (one, two) => match (one.bytes(), two.bytes()) {
                (Some(one), Some(two)) => one == two,
                _ => one.is_same_table(two),
            },
        }
    }

    fn is_same_table(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Reply(one), Value::Reply(other)) => Rc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The name of its type.
    fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Boolean(_) => "boolean",
            Value::Number(_) => "number",
            value if value.bytes().is_some() => "string",
            _ => "table",
        }
    }
}

/// One run of a program.
pub(in crate::command::script::lua) struct Evaluation<'a, 'h> {
    shared: &'a Shared,
    script: &'a Invocation<'a>,
    host: &'h mut dyn Host,
    bytes_max: usize,
    /// The variables in scope.
    frame: Vec<Value<'a>>,
    /// Bytes that were compared since the last look at the clock.
    compared: usize,
}

/// Bytes of strings that may be compared between two looks at the clock.
const COMPARED_MAX: usize = 1 << 20;

type Outcome<T> = Result<T, CommandError>;

impl<'a, 'h> Evaluation<'a, 'h> {
    /// Runs `program`, whose commands `host` runs. A reply of a command may take `bytes_max` bytes, and
    /// so may all replies together that variables and unfinished expressions hold.
    pub(in crate::command::script::lua) fn run(
        program: &'a Program,
        shared: &'a Shared,
        script: &'a Invocation<'a>,
        host: &'h mut dyn Host,
        bytes_max: usize,
    ) -> Outcome<Reply> {
        shared.held_bytes.set(0);
        let mut evaluation = Evaluation { shared, script, host, bytes_max, frame: Vec::new(), compared: 0 };
        let flow = evaluation.block(&program.0)?;
        // A reply that no variable holds any more is not copied.
        evaluation.frame.clear();
        Ok(match flow {
            ControlFlow::Break(value) => value.into_reply(),
            ControlFlow::Continue(()) => Reply::Null,
        })
    }

    /// Runs a block. Breaks with what the script returns.
    fn block(&mut self, block: &'a Block) -> Outcome<ControlFlow<Value<'a>>> {
        let outer = self.frame.len();
        for statement in block {
            match statement {
                Statement::Call(call) => drop(self.call(call)?),
                Statement::Return(value) => return Ok(ControlFlow::Break(self.value(value)?)),
                Statement::If { branches, otherwise } => {
                    let flow = self.branches(branches, otherwise)?;
                    if flow.is_break() {
                        return Ok(flow);
                    }
                }
                Statement::Local { variables, values } => self.declare(*variables, values)?,
                Statement::Assign { variable, value } => {
                    let value = self.value(value)?;
                    if let Some(variable) = self.frame.get_mut(*variable) {
                        *variable = value;
                    }
                }
            }
        }
        self.frame.truncate(outer);
        Ok(ControlFlow::Continue(()))
    }

    fn branches(
        &mut self,
        branches: &'a [(Expression, Block)],
        otherwise: &'a Block,
    ) -> Outcome<ControlFlow<Value<'a>>> {
        for (condition, block) in branches {
            if self.value(condition)?.is_true() {
                return self.block(block);
            }
        }
        self.block(otherwise)
    }

    /// New variables. Values without a variable are computed, too.
    fn declare(&mut self, variables: usize, values: &'a [Expression]) -> Outcome<()> {
        let end = self.frame.len() + variables;
        for value in values {
            let value = self.value(value)?;
            self.frame.push(value);
        }
        self.frame.resize(end, Value::Nil);
        Ok(())
    }

    fn value(&mut self, expression: &'a Expression) -> Outcome<Value<'a>> {
        Ok(match expression {
            Expression::Nil => Value::Nil,
            Expression::Boolean(boolean) => Value::Boolean(*boolean),
            Expression::Number(number) => Value::Number(*number),
            Expression::Text(text) => Value::Text(text),
            Expression::Key(n) => nth(self.script.keys, *n),
            Expression::Arg(n) => nth(self.script.args, *n),
            Expression::Variable(n) => self.frame.get(*n).cloned().unwrap_or(Value::Nil),
            Expression::Call(call) => self.call(call)?,
            Expression::Not(value) => Value::Boolean(!self.value(value)?.is_true()),
            Expression::And(sides) => match self.value(&sides[0])? {
                value if value.is_true() => self.value(&sides[1])?,
                value => value,
            },
            Expression::Or(sides) => match self.value(&sides[0])? {
                value if value.is_true() => value,
                _ => self.value(&sides[1])?,
            },
            Expression::Equal { sides, is_negated } => {
                let (left, right) = self.sides(sides)?;
                Value::Boolean(left.equals(&right) != *is_negated)
            }
            Expression::Less { sides, is_swapped, or_equal, line } => {
                let (left, right) = self.sides(sides)?;
                // As Lua compares them, and names them in its error.
                let (less, more) = if *is_swapped { (right, left) } else { (left, right) };
                Value::Boolean(self.is_less(&less, &more, *or_equal, *line)?)
            }
        })
    }

    /// Both sides of a comparison, which takes as long as the shorter one is.
    fn sides(&mut self, sides: &'a [Expression; 2]) -> Outcome<(Value<'a>, Value<'a>)> {
        let (left, right) = (self.value(&sides[0])?, self.value(&sides[1])?);
        if let (Some(left), Some(right)) = (left.bytes(), right.bytes()) {
            self.compared += left.len().min(right.len());
        }
        if self.compared > COMPARED_MAX {
            self.compared = 0;
            if self.shared.must_stop().is_some() {
                return Err(STOPPED);
            }
        }
        Ok((left, right))
    }

    #[inline(never)]
    fn is_less(&self, less: &Value<'_>, more: &Value<'_>, or_equal: bool, line: usize) -> Outcome<bool> {
        match (less, more) {
            (Value::Number(less), Value::Number(more)) => {
                Ok(if or_equal { less <= more } else { less < more })
            }
            _ => match (less.bytes(), more.bytes()) {
                (Some(less), Some(more)) => Ok(if or_equal { less <= more } else { less < more }),
                _ => Err(self.not_comparable(less.kind(), more.kind(), line)),
            },
        }
    }

    fn not_comparable(&self, one: &str, other: &str, line: usize) -> CommandError {
        let values = match one == other {
            true => format!("two {one} values"),
            false => format!("{one} with {other}"),
        };
        self.error(&format!("ERR user_script:{line}: attempt to compare {values}"), line)
    }

    /// An error at a line of the script.
    #[cold]
    fn error(&self, text: &str, line: usize) -> CommandError {
        located(text, self.script.id, CHUNK, &line.to_string())
    }

    /// Runs a command.
    fn call(&mut self, call: &'a Call) -> Outcome<Value<'a>> {
        let mut args = self.shared.args.take();
        args.clear();
        self.push_args(call, &mut args)?;
        let host = &mut *self.host;
        let reply = run_command(self.shared, self.bytes_max, || host.call(&args)).ok_or(STOPPED)?;
        self.shared.keep_args(args);
        match reply {
            Reply::Error(text) => Err(self.error(&text, call.line)),
            reply => {
                let value = Value::of_reply(reply, &self.shared.held_bytes);
                if self.shared.held_bytes.get() > self.bytes_max { Err(OUT_OF_MEMORY) } else { Ok(value) }
            }
        }
    }

    /// Computes all arguments; only then an argument that no command can have is an error.
    fn push_args(&mut self, call: &'a Call, args: &mut OwnedArgs) -> Outcome<()> {
        let mut pushed = if call.args.is_empty() { Err(convert::NO_ARGS) } else { Ok(()) };
        for arg in &call.args {
            // Calls among the arguments do not get the memory of those before them.
            let (held_bytes, size) = (&self.shared.held_bytes, args.size());
            held_bytes.set(held_bytes.get() + size);
            let value = self.value(arg)?;
            held_bytes.set(held_bytes.get() - size);
            if pushed.is_ok() {
                pushed = match (&value, value.bytes()) {
                    (_, Some(bytes)) => push_arg(args, bytes, self.bytes_max),
                    (Value::Number(number), _) => push_number(args, *number, self.bytes_max),
                    _ => Err(convert::NOT_AN_ARG),
                };
            }
        }
        pushed.map_err(|error| self.error(error.text(), call.line))
    }
}

/// Element number `n` of `KEYS` or `ARGV`.
fn nth<'a>(args: Args<'a>, n: usize) -> Value<'a> {
    match n.checked_sub(1) {
        Some(n) if n < args.len() => Value::Text(args.at(n)),
        _ => Value::Nil,
    }
}
