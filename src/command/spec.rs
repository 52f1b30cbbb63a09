//! A row of the command table.
//!
//! Guarantees: a row is a constant, built by [`Command::new`] and the methods after it.
//! Not here: the table itself, handlers.

use super::parts::{Join, LongForm, Parts};
use super::{Args, Categories, CommandError, Context, KeySpec};
use crate::reply::Reply;

/// A command, or a subcommand of one.
#[derive(Debug)]
pub struct Command {
    /// Lower case. A subcommand has the name of its container in front: `client|id`.
    pub name: &'static str,
    /// Number of arguments including the name; `-n` means at least `n`.
    pub arity: i8,
    /// The implementation.
    pub run: Run,
    /// The group in the documentation.
    pub group: Group,
    /// [`Flags`], combined.
    pub flags: u16,
    /// Categories instead of those of the group.
    pub(super) own_categories: Option<Categories>,
    /// The name of the keyspace notification for what it changes; empty: `set`, `del` or another that
    /// follows from the change, or the handler chooses it.
    pub(super) event: &'static str,
    /// The positions of the keys among the arguments.
    pub keys: KeySpec,
    /// What it does with very many arguments.
    pub(super) long_form: LongForm,
    /// The arguments in the notation of Redis' documentation: `[ ]` optional, `|` alternatives,
    /// `< >` around alternatives one of which is required, `...` repeated.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// A valid request; empty for a container.
    pub example: &'static str,
}

/// The implementation of a [`Command`].
#[derive(Debug)]
pub enum Run {
    /// A handler.
    Handler(Handler),
    /// Subcommands, selected by the second argument.
    Subcommands(&'static [Command]),
}

/// Executes a command.
pub type Handler = fn(&mut Context<'_>, Args<'_>) -> Result<Reply, CommandError>;

/// Redis' groups of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The native lock commands.
    Lock,
    /// Redis' lock idiom: string values are owners.
    String,
    /// Keys of any kind.
    Generic,
    /// Hashes.
    Hash,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Lists.
    List,
    /// Scripts.
    Scripting,
    /// Transactions.
    Transactions,
    /// Lock events and messages.
    PubSub,
    /// The connection itself.
    Connection,
    /// The server itself.
    Server,
}

impl Group {
    /// The name in `COMMAND DOCS`.
    pub fn as_str(self) -> &'static str {
        match self {
            Group::Lock => "lock",
            Group::String => "string",
            Group::Generic => "generic",
            Group::Hash => "hash",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::List => "list",
            Group::Scripting => "scripting",
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
    /// No flags.
    pub const NONE: u16 = 0;
    /// May change a key.
    pub const WRITE: u16 = 1;
    /// Reads keys.
    pub const READONLY: u16 = 1 << 1;
    /// Takes constant or logarithmic time.
    pub const FAST: u16 = 1 << 2;
    /// For operators.
    pub const ADMIN: u16 = 1 << 3;
    /// May block the connection.
    pub const BLOCKING: u16 = 1 << 4;
    /// May grant a lock; refused when the lock limit is reached.
    pub const DENYOOM: u16 = 1 << 5;
    /// Allowed before authentication.
    pub const NO_AUTH: u16 = 1 << 6;
    /// Executed at once inside MULTI.
    pub const NOT_QUEUED: u16 = 1 << 7;
    /// Refused inside MULTI.
    pub const NO_MULTI: u16 = 1 << 8;
    /// Allowed on a RESP2 connection with subscriptions.
    pub const SUBSCRIBED: u16 = 1 << 9;
    /// Belongs to pub/sub.
    pub const PUBSUB: u16 = 1 << 10;
    /// Refused in scripts: acts on the connection itself.
    pub const NOSCRIPT: u16 = 1 << 11;
    /// Changes no key, but has an effect that a read-only script must not have.
    pub const MAY_REPLICATE: u16 = 1 << 12;

    /// Affects or shows keys that it does not name, and does not leave out those that the user may not
    /// use.
    pub const EVERY_KEY: u16 = 1 << 13;

    /// Announces the keys that it looks up and does not find, as commands that only read do.
    pub const LOOKS_UP: u16 = 1 << 14;

    /// Answered by every server of a cluster itself, whichever leads.
    pub const ANY_NODE: u16 = 1 << 15;

    /// Redis' names of the flags that Redis knows.
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
            (Flags::NOSCRIPT, "noscript"),
        ]
        .into_iter()
        .filter_map(|(flag, name)| (flags & flag != 0).then_some(name))
        .collect()
    }
}

impl Command {
    /// A command without flags, keys and arguments.
    pub(super) const fn new(name: &'static str, arity: i8, handler: Handler) -> Command {
        Command::with(name, arity, Run::Handler(handler))
    }

    /// A command whose second argument selects a subcommand.
    pub(super) const fn container(name: &'static str, arity: i8, subcommands: &'static [Command]) -> Command {
        Command::with(name, arity, Run::Subcommands(subcommands))
    }

    const fn with(name: &'static str, arity: i8, run: Run) -> Command {
        Command {
            name,
            arity,
            run,
            group: Group::Server,
            flags: Flags::NONE,
            own_categories: None,
            event: "",
            keys: KeySpec::None,
            long_form: LongForm::Refused,
            syntax: "",
            summary: "",
            example: "",
        }
    }

    pub(super) const fn group(self, group: Group) -> Command {
        Command { group, ..self }
    }

    pub(super) const fn flags(self, flags: u16) -> Command {
        Command { flags, ..self }
    }

    /// Replaces the categories of the group.
    pub(super) const fn own_categories(self, categories: Categories) -> Command {
        Command { own_categories: Some(categories), ..self }
    }

    /// Sets the name of its keyspace notifications.
    pub(super) const fn event(self, event: &'static str) -> Command {
        Command { event, ..self }
    }

    pub(super) const fn keys(self, keys: KeySpec) -> Command {
        Command { keys, ..self }
    }

    /// Executes very many arguments in parts, each of which begins with the first `common` ones and
    /// goes on with groups of `group`.
    pub(super) const fn in_parts(self, common: fn(Args<'_>) -> usize, group: usize, join: Join) -> Command {
        Command { long_form: LongForm::InParts(Parts { common, group, join }), ..self }
    }

    /// Executes very many arguments at once, or in turns of its own.
    pub(super) const fn takes_many(self) -> Command {
        Command { long_form: LongForm::Whole, ..self }
    }

    pub(super) const fn syntax(self, syntax: &'static str) -> Command {
        Command { syntax, ..self }
    }

    pub(super) const fn summary(self, summary: &'static str) -> Command {
        Command { summary, ..self }
    }

    pub(super) const fn example(self, example: &'static str) -> Command {
        Command { example, ..self }
    }

    /// The name without the container's.
    pub fn own_name(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }

    /// The subcommands; empty for a handler.
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
