//! What a command is: its row in the table.
//!
//! Not here: the table itself, handlers.

use super::{Args, CommandError, Context};
use crate::reply::Reply;

/// A command, or a subcommand of one.
#[derive(Debug)]
pub struct Command {
    /// In lower case; a subcommand's with its container's before it: `client|id`.
    pub name: &'static str,
    /// What follows the name, as in Redis' documentation: `[ ]` optional, `|` either, `...` repeated.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// For people who look for a command.
    pub group: Group,
    /// Number of words, the name included; negative: at least so many.
    pub arity: i8,
    /// [`Flags`], combined.
    pub flags: u16,
    /// Where the keys are: first, last (negative: from the end), step. All 0: none.
    pub keys: (i8, i8, i8),
    /// What it does.
    pub run: Run,
}

/// What a [`Command`] does.
#[derive(Debug)]
pub enum Run {
    /// This.
    Handler(Handler),
    /// One of these, by the second word.
    Subcommands(&'static [Command]),
}

/// Carries a command out.
pub type Handler = fn(&mut Context<'_>, Args<'_>) -> Result<Reply, CommandError>;

/// Commands that belong together, by Redis' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The native lock commands.
    Lock,
    /// Redis' lock idiom: string values are owners.
    String,
    /// Keys of any kind.
    Generic,
    /// Several commands as one.
    Transactions,
    /// Lock events and messages.
    PubSub,
    /// The connection itself.
    Connection,
    /// The server itself.
    Server,
}

impl Group {
    /// The word that `COMMAND DOCS` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Group::Lock => "lock",
            Group::String => "string",
            Group::Generic => "generic",
            Group::Transactions => "transactions",
            Group::PubSub => "pubsub",
            Group::Connection => "connection",
            Group::Server => "server",
        }
    }
}

/// Properties of a [`Command`].
pub struct Flags;

impl Flags {
    /// None of them.
    pub const NONE: u16 = 0;
    /// It may change a lock.
    pub const WRITE: u16 = 1;
    /// It reads locks.
    pub const READONLY: u16 = 1 << 1;
    /// Its time does not depend on how much there is.
    pub const FAST: u16 = 1 << 2;
    /// For operators.
    pub const ADMIN: u16 = 1 << 3;
    /// It may park the connection.
    pub const BLOCKING: u16 = 1 << 4;
    /// It may grant a lock, which is refused at the limit.
    pub const DENYOOM: u16 = 1 << 5;
    /// It runs before a password was given.
    pub const NO_AUTH: u16 = 1 << 6;
    /// It is not queued by MULTI, but done at once.
    pub const NOT_QUEUED: u16 = 1 << 7;
    /// It is refused inside MULTI.
    pub const NO_MULTI: u16 = 1 << 8;
    /// It works on a connection that has subscribed in RESP2.
    pub const SUBSCRIBED: u16 = 1 << 9;
    /// It is about messages.
    pub const PUBSUB: u16 = 1 << 10;

    /// Redis' words for those that Redis has.
    pub fn names(flags: u16) -> Vec<&'static str> {
        [
            (Flags::WRITE, "write"),
            (Flags::READONLY, "readonly"),
            (Flags::FAST, "fast"),
            (Flags::ADMIN, "admin"),
            (Flags::BLOCKING, "blocking"),
            (Flags::DENYOOM, "denyoom"),
            (Flags::NO_AUTH, "no_auth"),
            (Flags::NO_MULTI, "no_multi"),
            (Flags::PUBSUB, "pubsub"),
        ]
        .into_iter()
        .filter_map(|(flag, name)| (flags & flag != 0).then_some(name))
        .collect()
    }
}

impl Command {
    /// The part of the name after the container's.
    pub fn own_name(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }

    /// Its subcommands, if it has any.
    pub fn subcommands(&self) -> &'static [Command] {
        match self.run {
            Run::Subcommands(subcommands) => subcommands,
            Run::Handler(_) => &[],
        }
    }

    pub(super) fn accepts(&self, args: usize) -> bool {
        let args = i64::try_from(args).unwrap_or(i64::MAX);
        let arity = i64::from(self.arity);
        if arity >= 0 { args == arity } else { args >= -arity }
    }

    pub(super) fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}
