//! What clients can ask for: one table of commands, one file per verb.
//!
//! Promise: [`COMMANDS`] is the only list of commands; look-up, arity, `COMMAND DOCS` and the README's table come from
//! it. Handlers are synchronous: they return a reply and the Seq it has to wait for, and never touch a socket.
//! Absent: wire formats, sockets, storage, the rules of locks.

mod args;
mod auth;
mod client;
mod clients;
mod config;
mod connection;
mod del;
mod docs;
mod error;
mod expire;
mod fence;
mod forceunlock;
mod get;
mod glob;
mod hub;
mod info;
mod keys;
mod lock;
mod lockinfo;
mod locks;
mod pubsub;
mod renew;
mod server;
mod session;
mod set;
mod steps;
mod transaction;
mod unlock;

use std::sync::{Arc, LazyLock};

use rustc_hash::FxHashMap;

use crate::domain::{Invalid, KEY_BYTES_MAX, LockName, OWNER_BYTES_MAX, Owner, TTL_MS_MAX, Ttl};
use crate::engine::{Blocked, Engine, Txn, Unavailable};
use crate::journal::Seq;
use crate::lock::{Op, Outcome};
use crate::metrics::{Count, ServerMetrics};
use crate::reply::Reply;
pub use args::{Args, OwnedArgs, Span};
pub use auth::{CurrentPassword, Password};
pub use client::{Client, Executed, Next};
pub use clients::{ClientInfo, Clients};
pub use error::{CommandError, OUTCOME_UNKNOWN};
pub use hub::{Hub, Publication};
pub use pubsub::{Incoming, Turn};
pub use steps::{Progress, Steps};

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

/// All commands, in the order in which people want to read about them.
pub static COMMANDS: &[Command] = &[
    lock::LOCK,
    unlock::UNLOCK,
    renew::RENEW,
    fence::FENCE,
    lockinfo::LOCKINFO,
    locks::LOCKS,
    forceunlock::FORCEUNLOCK,
    session::SESSION,
    set::SET,
    set::SETNX,
    get::GET,
    del::DEL,
    del::UNLINK,
    del::DELEX,
    del::DELIFEQ,
    keys::EXISTS,
    keys::TYPE,
    expire::TTL,
    expire::PTTL,
    expire::EXPIRE,
    expire::PEXPIRE,
    expire::PERSIST,
    locks::SCAN,
    keys::KEYS,
    keys::DBSIZE,
    transaction::MULTI,
    transaction::EXEC,
    transaction::DISCARD,
    transaction::WATCH,
    transaction::UNWATCH,
    pubsub::SUBSCRIBE,
    pubsub::PSUBSCRIBE,
    pubsub::UNSUBSCRIBE,
    pubsub::PUNSUBSCRIBE,
    pubsub::PUBLISH,
    connection::HELLO,
    connection::AUTH,
    connection::PING,
    connection::ECHO,
    connection::SELECT,
    connection::RESET,
    connection::QUIT,
    clients::CLIENT,
    docs::COMMAND,
    config::CONFIG,
    info::INFO,
    server::TIME,
    server::WAIT,
];

/// By their packed names.
static BY_NAME: LazyLock<FxHashMap<u128, &'static Command>> = LazyLock::new(|| {
    let key = |command: &Command| {
        packed(command.name.as_bytes()).unwrap_or_else(|| unreachable!("names are short"))
    };
    COMMANDS.iter().map(|command| (key(command), command)).collect()
});

/// A name as a number, without regard to case, and with its length; `None` if it is longer than any command's. As the names of
/// commands are letters, setting the bit that makes letters small gives their numbers to nothing but their own letters.
fn packed(name: &[u8]) -> Option<u128> {
    const SMALL: u128 = u128::from_le_bytes([0x20; 16]);
    let mut bytes = [0; 16];
    bytes[..15].get_mut(..name.len())?.copy_from_slice(name);
    bytes[15] = name.len() as u8;
    Some(u128::from_le_bytes(bytes) | SMALL)
}

/// The names of all commands, and of their subcommands.
pub fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS
        .iter()
        .flat_map(|command| std::iter::once(command).chain(command.subcommands()))
        .map(|it| it.name)
}

impl Command {
    /// The command of a name, in any case.
    pub fn find(name: &[u8]) -> Option<&'static Command> {
        BY_NAME.get(&packed(name)?).copied()
    }

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

    fn accepts(&self, words: usize) -> bool {
        let words = i64::try_from(words).unwrap_or(i64::MAX);
        let arity = i64::from(self.arity);
        if arity >= 0 { words == arity } else { words >= -arity }
    }

    fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// What all connections share.
pub struct Service {
    /// The lock manager.
    pub engine: Arc<Engine>,
    /// What requests may ask for.
    pub limits: Limits,
    /// Without it everyone may do everything.
    pub password: CurrentPassword,
    /// Who is connected.
    pub clients: Clients,
    /// Who listens to what.
    pub hub: Hub,
    /// What `CONFIG GET` shows. No secrets.
    pub settings: Vec<(&'static str, String)>,
    /// What `INFO` and `HELLO` say of the server itself.
    pub about: About,
    /// What is measured.
    pub metrics: Arc<ServerMetrics>,
    /// Commands carried out since the start.
    pub commands_run: Count,
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// The port of the RESP listener.
    pub port: u16,
    /// Where the data is, for people.
    pub data: String,
    /// The durability mode, for people.
    pub durability: &'static str,
    /// When it was started, on the engine's clock.
    pub started: crate::domain::Timestamp,
}

/// What requests may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest TTL, in milliseconds; at most [`TTL_MS_MAX`].
    pub ttl_ms_max: u32,
    /// The TTL of a LOCK that names none, in milliseconds.
    pub ttl_ms_default: u32,
    /// Longest key, in bytes; at most [`KEY_BYTES_MAX`].
    pub key_bytes_max: usize,
    /// Longest owner, in bytes; at most [`OWNER_BYTES_MAX`].
    pub owner_bytes_max: usize,
    /// Longest META text, in bytes.
    pub meta_bytes_max: usize,
    /// Bytes of commands that one MULTI may queue.
    pub multi_bytes_max: usize,
    /// Messages that wait for a subscriber who does not read, in bytes.
    pub subscriber_bytes_max: usize,
    /// Channels and patterns of one connection.
    pub subscriptions_max: usize,
    /// The same in bytes.
    pub subscriptions_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ttl_ms_max: TTL_MS_MAX,
            ttl_ms_default: 30_000,
            key_bytes_max: KEY_BYTES_MAX,
            owner_bytes_max: OWNER_BYTES_MAX,
            meta_bytes_max: 1024,
            multi_bytes_max: 1 << 20,
            subscriber_bytes_max: 1 << 20,
            subscriptions_max: 10_000,
            subscriptions_bytes_max: 4 << 20,
        }
    }
}

/// The version of Redis whose answers these are. Clients choose commands by it.
pub(crate) const REDIS_VERSION: &str = "7.4.0";

/// What a handler works with.
pub struct Context<'a> {
    /// What all connections share.
    pub(self) service: &'a Arc<Service>,
    /// The connection that asks.
    pub(self) client: &'a mut Client,
    /// The locks.
    pub(self) access: &'a Txn<'a>,
    /// The reply must wait for this.
    pub(self) seq: Seq,
    /// The request waits for a lock; there is no reply yet.
    pub(self) parked: Option<Blocked>,
    /// The request goes on in further turns; there is no reply yet.
    pub(self) steps: Option<Box<dyn Steps>>,
    /// The connection ends after the reply.
    pub(self) closes: bool,
}

impl Context<'_> {
    /// Takes a result, and notes what the reply has to wait for.
    fn look<R>(&mut self, result: Result<(R, Seq), Unavailable>) -> Result<R, CommandError> {
        let (value, seq) = result?;
        self.seq = self.seq.max(seq);
        Ok(value)
    }

    /// Runs an operation that may end more leases than one step does, until it has ended all.
    fn submit_whole(&mut self, name: &LockName, op: &Op) -> Result<Outcome, CommandError> {
        loop {
            match self.look(self.access.submit(name, op))? {
                Outcome::ReleasedSome(_) if self.access.is_alone() => {}
                Outcome::ReleasedSome(_) => return Err(CommandError::UNSETTLED),
                outcome => return Ok(outcome),
            }
        }
    }

    /// Makes the reply wait for all that was looked at.
    fn depend_on_all(&mut self) -> Result<(), CommandError> {
        self.seq = self.seq.max(self.access.covering_seq()?);
        Ok(())
    }

    /// What a client is told of a command.
    fn reply_to(&mut self, done: Result<Reply, CommandError>) -> Reply {
        let Err(error) = done else { return done.unwrap_or(Reply::Null) };
        if error.tells_of_state()
            && let Err(unavailable) = self.depend_on_all()
        {
            return unavailable.into();
        }
        error.into()
    }

    /// Runs `work` with nobody coming between its operations.
    fn atomically<R>(
        &mut self,
        work: impl FnOnce(&mut Context<'_>) -> Result<R, CommandError>,
    ) -> Result<R, CommandError> {
        if self.access.is_alone() {
            return work(self);
        }
        let alone = self.access.engine().exclusive_txn();
        let mut inner = Context {
            service: self.service,
            client: self.client,
            access: &alone,
            seq: self.seq,
            parked: None,
            steps: None,
            closes: false,
        };
        let result = work(&mut inner);
        self.seq = inner.seq;
        result
    }

    /// The lock that `key` names in this connection's database.
    fn name(&self, key: &[u8]) -> Result<LockName, CommandError> {
        let max = self.service.limits.key_bytes_max;
        if key.len() > max && max < KEY_BYTES_MAX {
            return Err(CommandError::new(format!("ERR a key has 1 to {max} bytes")));
        }
        Ok(LockName::new(self.client.database(), key)?)
    }

    /// A TTL in seconds or milliseconds, for the command `name`.
    fn ttl(&self, word: &[u8], unit_ms: i64, name: &str) -> Result<Ttl, CommandError> {
        let amount = args::integer(word)?;
        let millis =
            Some(amount).filter(|amount| *amount > 0).and_then(|amount| self.millis(amount, unit_ms));
        self.ttl_of(millis.ok_or_else(|| CommandError::expire_time(name))?.unsigned_abs())
    }

    /// An amount of time in milliseconds; `None` if it ends when Redis has no number for the time.
    fn millis(&self, amount: i64, unit_ms: i64) -> Option<i64> {
        let millis = amount.checked_mul(unit_ms)?;
        if millis <= i64::from(TTL_MS_MAX) {
            return Some(millis);
        }
        let now = i64::try_from(self.access.engine().clock().wall_millis()).ok()?;
        now.checked_add(millis).map(|_| millis)
    }

    /// A TTL of so many milliseconds.
    fn ttl_of(&self, millis: u64) -> Result<Ttl, CommandError> {
        let max = self.service.limits.ttl_ms_max;
        let ttl = Ttl::from_millis(millis).ok().filter(|ttl| ttl.as_millis() <= max);
        ttl.ok_or_else(|| CommandError::new(format!("ERR a TTL is 1 to {max} milliseconds")))
    }

    /// An owner.
    fn owner(&self, owner: &[u8]) -> Result<Owner, CommandError> {
        let max = self.service.limits.owner_bytes_max;
        if owner.len() > max && max < OWNER_BYTES_MAX {
            return Err(CommandError::new(format!("ERR an owner has 1 to {max} bytes")));
        }
        Ok(Owner::new(owner)?)
    }
}

/// Commands that only compare keys find nothing under one that no lock can have.
fn name_or_none(context: &Context<'_>, key: &[u8]) -> Result<Option<LockName>, CommandError> {
    match LockName::new(context.client.database(), key) {
        Ok(name) => Ok(Some(name)),
        Err(Invalid::KeyLength) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_in_any_case_and_nothing_else_is() {
        for command in COMMANDS {
            assert!(command.name.bytes().all(|byte| byte.is_ascii_lowercase()), "{}", command.name);
            let upper = command.name.to_ascii_uppercase();
            for name in [command.name, &upper] {
                assert_eq!(Command::find(name.as_bytes()).map(|found| found.name), Some(command.name));
            }
            for byte in 0..=u8::MAX {
                let mut name = upper.clone().into_bytes();
                name[0] = byte;
                let is_another = !byte.eq_ignore_ascii_case(&upper.as_bytes()[0]);
                assert!(!is_another || Command::find(&name).is_none_or(|found| found.name != command.name));
                name[0] = upper.as_bytes()[0];
                name.push(byte);
                assert!(Command::find(&name).is_none_or(|found| found.name != command.name));
            }
        }
        assert!(Command::find(b"").is_none() && Command::find(&[b'A'; 100]).is_none());
    }
}
