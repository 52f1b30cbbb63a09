//! `UNLOCK key owner [TOKEN t]`
//!
//! 1: released. 0: not held by that owner, or not under that token.

use super::{Args, Command, CommandError, Context, Flags, Group, Run, args};
use crate::domain::FencingToken;
use crate::lock::{Op, Outcome};
use crate::reply::Reply;

pub(super) const UNLOCK: Command = Command {
    name: "unlock",
    syntax: "key owner [TOKEN token]",
    summary: "Gives a lock back. Answers 1, or 0 if this owner does not hold it under this token.",
    group: Group::Lock,
    arity: -3,
    flags: Flags::WRITE | Flags::FAST,
    keys: (1, 1, 1),
    run: Run::Handler(run),
};

fn run(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(words.word(1))?;
    let owner = context.owner(words.word(2))?;
    let token = match option_token(words, 3)? {
        Wanted::Nobodys => return Ok(Reply::Integer(0)),
        Wanted::Any => None,
        Wanted::This(token) => Some(token),
    };
    let outcome = context.look(context.access.submit(&name, &Op::Release { owner, token }))?;
    Ok(Reply::Integer(i64::from(matches!(outcome, Outcome::Released(_)))))
}

/// Which acquisition is meant.
pub(super) enum Wanted {
    /// Whichever the owner has.
    Any,
    /// The one with this token.
    This(FencingToken),
    /// None: the number given is no token.
    Nobodys,
}

/// Reads `[TOKEN t]` as the only option, at word `n`.
pub(super) fn option_token(words: Args<'_>, n: usize) -> Result<Wanted, CommandError> {
    let mut wanted = Wanted::Any;
    let mut options = words.options(n);
    while let Some(word) = options.next_word() {
        if !args::is(word, "token") || !matches!(wanted, Wanted::Any) {
            return Err(CommandError::SYNTAX);
        }
        wanted = args::token(options.value()?)?.map_or(Wanted::Nobodys, Wanted::This);
    }
    Ok(wanted)
}
