//! Requests of very many arguments, executed in parts.
//!
//! Guarantees: a request of up to [`LONG_ARGS`] arguments is atomic. A longer one is executed in
//! parts, each of which is atomic; other clients are served in between and may see that only some
//! parts are done. Commands that cannot be divided refuse it. Not here: EXEC and scripts, whose
//! size has other limits.

use super::{Args, Command, CommandError, Context, Handler, OwnedArgs, Progress, Run, Steps};
use crate::reply::Reply;

/// Most arguments that a command executes at once; some milliseconds of work.
pub(super) const LONG_ARGS: usize = 16_384;
/// Arguments of one part, about one turn of work.
const PART_ARGS: usize = 512;

/// What a command does with more than [`LONG_ARGS`] arguments.
#[derive(Debug, Clone, Copy)]
pub(super) enum LongForm {
    /// Refuses them.
    Refused,
    /// Executes them at once, or in turns of its own.
    Whole,
    /// Executes them in parts.
    InParts(Parts),
}

/// How a command is divided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    /// The number of arguments that every part begins with.
    pub(super) common: fn(Args<'_>) -> usize,
    /// Arguments that stay together, such as 2 for a field and its value.
    pub(super) group: usize,
    /// How the replies to the parts become one.
    pub(super) join: Join,
}

/// How the replies to several parts become one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Join {
    /// Their sum.
    Sum,
    /// The last one.
    Last,
    /// All their elements.
    Append,
}

impl Context<'_> {
    /// Executes a request of more than [`LONG_ARGS`] arguments.
    #[cold]
    pub(super) fn call_long(
        &mut self,
        command: &'static Command,
        args: Args<'_>,
    ) -> Result<Reply, CommandError> {
        match (command.long_form, &command.run) {
            (LongForm::Whole, Run::Handler(handler)) => handler(self, args),
            (LongForm::InParts(Parts { common, group, join }), Run::Handler(handler)) => {
                let common = common(args);
                if !(args.len() - common).is_multiple_of(group) {
                    // It is invalid, and nothing is to be done of it.
                    return handler(self, args);
                }
                let (handler, args) = (*handler, args.to_owned());
                self.in_turns(Executing { handler, args, common, group, join, next: common, reply: None })
            }
            _ => Err(CommandError::new(format!(
                "ERR '{}' takes at most {LONG_ARGS} arguments",
                command.name.replace('|', " ")
            ))),
        }
    }
}

/// A request that is executed in parts.
struct Executing {
    handler: Handler,
    args: OwnedArgs,
    common: usize,
    group: usize,
    join: Join,
    /// The first argument that no part has had.
    next: usize,
    /// The reply to the parts so far.
    reply: Option<Reply>,
}

impl Steps for Executing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let args = self.args.as_args();
        let all = args.len();
        let end = self.next + PART_ARGS / self.group * self.group;
        // No part has a single group: for one key, some commands take turns by themselves.
        let end = if end + self.group >= all { all } else { end };
        let part = OwnedArgs::of((0..self.common).chain(self.next..end).map(|n| args.at(n)));
        let reply = (self.handler)(context, part.as_args())?;
        self.next = end;
        let reply = match self.reply.take() {
            None => reply,
            Some(before) => self.join.join(before, reply),
        };
        if end == all {
            return Ok(Progress::Done(reply));
        }
        self.reply = Some(reply);
        Ok(Progress::More)
    }
}

impl Join {
    fn join(self, before: Reply, reply: Reply) -> Reply {
        match (self, before, reply) {
            (Join::Sum, Reply::Integer(before), Reply::Integer(more)) => Reply::Integer(before + more),
            (Join::Append, Reply::Array(mut before), Reply::Array(more)) => {
                before.extend(more);
                Reply::Array(before)
            }
            (_, _, last) => last,
        }
    }
}
