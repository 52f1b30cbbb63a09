//! The commands: one table, one file or folder per family.
//!
//! Guarantees: [`COMMANDS`] is the only list of commands; look-up, arity, `COMMAND DOCS` and the README's table come from
//! it. Handlers are synchronous: they return a reply and the Seq it has to wait for, and never touch a socket.
//! Not here: wire formats, sockets, storage, the rules of locks.

mod args;
mod client;
mod connection;
mod context;
mod docs;
mod error;
mod glob;
mod key;
mod lock;
mod options;
mod pubsub;
mod registry;
mod scan;
mod server;
mod session;
mod spec;
mod state;
mod steps;
mod string;
mod transaction;

use std::sync::LazyLock;

use rustc_hash::FxHashMap;

pub use args::{Args, OwnedArgs, Span};
pub use client::{AfterReply, Client, Execution};
pub use context::Context;
use context::name_or_none;
pub use error::{CommandError, OUTCOME_UNKNOWN};
pub use pubsub::{Incoming, PubSub, Publication, Turn};
pub use registry::{ClientInfo, Clients};
pub use spec::{Command, Flags, Group, Handler, Run};
pub use state::{Limits, ServerInfo, ServerState};
pub use steps::{LongRequest, Progress, Steps};

/// All commands, in the order in which people want to read about them.
pub static COMMANDS: &[Command] = &[
    lock::LOCK,
    lock::UNLOCK,
    lock::RENEW,
    lock::FENCE,
    lock::LOCKINFO,
    lock::LOCKS,
    lock::FORCEUNLOCK,
    session::SESSION,
    string::SET,
    string::SETNX,
    string::GET,
    key::DEL,
    key::UNLINK,
    string::DELEX,
    string::DELIFEQ,
    key::EXISTS,
    key::TYPE,
    key::TTL,
    key::PTTL,
    key::EXPIRE,
    key::PEXPIRE,
    key::PERSIST,
    key::SCAN,
    key::KEYS,
    key::DBSIZE,
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
    connection::CLIENT,
    docs::COMMAND,
    server::CONFIG,
    server::INFO,
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

impl Command {
    /// The command of a name, in any case.
    pub fn find(name: &[u8]) -> Option<&'static Command> {
        BY_NAME.get(&packed(name)?).copied()
    }
}

/// The names of all commands, and of their subcommands.
pub fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS
        .iter()
        .flat_map(|command| std::iter::once(command).chain(command.subcommands()))
        .map(|it| it.name)
}

/// The version of Redis whose answers these are. Clients choose commands by it.
pub(crate) const REDIS_VERSION: &str = "7.4.0";

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
