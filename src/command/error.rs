//! Errors of commands.
//!
//! Guarantees: the first word is a stable code. Texts that clients compare are Redis' own. Not
//! here: outcomes such as "held by another owner", which are replies.

use std::borrow::Cow;

use super::{Args, options};
use crate::domain::Invalid;
use crate::engine::Unavailable;
use crate::glob::PatternTooLong;
use crate::reply::Reply;

/// A failure, as a text that starts with its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    text: Cow<'static, str>,
}

impl CommandError {
    pub(super) const SYNTAX: CommandError = CommandError::fixed("ERR syntax error");
    pub(super) const NOT_AN_INTEGER: CommandError =
        CommandError::fixed("ERR value is not an integer or out of range");
    pub(super) const VALUE_TOO_LONG: CommandError =
        CommandError::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    pub(super) const KEY_COUNT: CommandError =
        CommandError::fixed("ERR Number of keys can't be greater than number of args");
    pub(super) const WRONG_TYPE: CommandError =
        CommandError::fixed("WRONGTYPE Operation against a key holding the wrong kind of value");

    /// Internal: the connection yields and executes the request again.
    pub(super) const UNSETTLED: CommandError =
        CommandError::fixed("ERR too many leases ended at once; retry");

    pub(super) const fn fixed(text: &'static str) -> CommandError {
        CommandError { text: Cow::Borrowed(text) }
    }

    pub(super) fn new(text: impl Into<String>) -> CommandError {
        CommandError { text: Cow::Owned(text.into()) }
    }

    pub(super) fn arity(name: &str) -> CommandError {
        CommandError::new(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// A subcommand that takes another number of arguments, as some subcommands of Redis say it.
    pub(super) fn subcommand_arity(args: Args<'_>) -> CommandError {
        let arg = |n| printable(args.at(n), 128);
        let name = arg(0).to_ascii_uppercase();
        CommandError::new(format!(
            "ERR unknown subcommand or wrong number of arguments for '{}'. Try {name} HELP.",
            arg(1)
        ))
    }

    pub(super) fn expire_time(name: &str) -> CommandError {
        CommandError::new(format!("ERR invalid expire time in '{name}' command"))
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the connection must yield and execute the request again.
    pub(super) fn is_unsettled(&self) -> bool {
        *self == CommandError::UNSETTLED
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Reply {
        Reply::Error(error.text)
    }
}

impl From<PatternTooLong> for CommandError {
    fn from(error: PatternTooLong) -> CommandError {
        CommandError::new(format!("ERR {error}"))
    }
}

impl From<Invalid> for CommandError {
    fn from(invalid: Invalid) -> CommandError {
        CommandError::new(format!("ERR {invalid}"))
    }
}

impl From<Unavailable> for CommandError {
    #[cold]
    fn from(unavailable: Unavailable) -> CommandError {
        match unavailable {
            Unavailable::Journal(error) => CommandError::new(format!(
                "MISCONF journal unavailable; reads and writes are refused, existing locks stay held: {error}"
            )),
            Unavailable::LocksMax => CommandError::fixed(
                "OOM lock limit reached (--locks-max); existing locks can still be renewed or released",
            ),
            Unavailable::SessionsMax => CommandError::fixed("OOM session limit reached (--sessions-max)"),
            Unavailable::WaitersMax => {
                CommandError::fixed("OOM queue limit of this lock reached (--waiters-per-lock-max)")
            }
            Unavailable::AccountMax => CommandError::fixed("OOM lease limit of the account reached"),
            Unavailable::NoSession => CommandError::fixed("NOSESSION session expired or unknown"),
            // A connection executes the request again instead.
            Unavailable::Unsettled => CommandError::UNSETTLED,
            Unavailable::Busy => CommandError::fixed(
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            ),
            Unavailable::WrongType => CommandError::WRONG_TYPE,
            Unavailable::BacklogMax => {
                CommandError::fixed("OOM changes that wait for storage have reached 256 MiB; retry later")
            }
            Unavailable::ValuesBytesMax => {
                CommandError::fixed("OOM memory limit of values reached (--values-bytes-max)")
            }
            Unavailable::ValueElementsMax => {
                CommandError::fixed("OOM element limit of this value reached (--value-elements-max)")
            }
            Unavailable::TokensExhausted => CommandError::fixed("ERR fencing tokens exhausted (2^53)"),
        }
    }
}

/// Input for an error message: truncated, up to a NUL as in C, control characters replaced.
pub(super) fn printable(arg: &[u8], bytes_max: usize) -> String {
    let arg = options::up_to_nul(arg);
    let arg = String::from_utf8_lossy(&arg[..arg.len().min(bytes_max)]);
    arg.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The reply to a request whose commit failed.
pub const OUTCOME_UNKNOWN: Reply = Reply::Error(Cow::Borrowed(
    "UNKNOWN commit failed; the command may or may not have taken effect, check before retrying",
));
