//! What a client is told when a command cannot be carried out.
//!
//! Promise: the first word is a stable code; texts that clients compare are Redis' own. Absent: outcomes such as "held
//! by another", which are replies.

use std::borrow::Cow;

use crate::domain::Invalid;
use crate::engine::Unavailable;
use crate::reply::Reply;

/// A failure, as a text that starts with its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    text: Cow<'static, str>,
    /// It tells of the state of locks or sessions, which must be durable first.
    tells_of_state: bool,
}

impl CommandError {
    pub(super) const SYNTAX: CommandError = CommandError::fixed("ERR syntax error");
    pub(super) const NOT_AN_INTEGER: CommandError =
        CommandError::fixed("ERR value is not an integer or out of range");
    pub(super) const WRONG_TYPE: CommandError =
        CommandError::fixed("WRONGTYPE Operation against a key holding the wrong kind of value");

    /// Not a failure: the request is to be carried out again once others had their turn.
    pub(super) const UNSETTLED: CommandError =
        CommandError::fixed("ERR too many leases ended at once; try again");

    pub(super) const fn fixed(text: &'static str) -> CommandError {
        CommandError { text: Cow::Borrowed(text), tells_of_state: false }
    }

    pub(super) fn new(text: impl Into<String>) -> CommandError {
        CommandError { text: Cow::Owned(text.into()), tells_of_state: false }
    }

    pub(super) fn arity(name: &str) -> CommandError {
        CommandError::new(format!("ERR wrong number of arguments for '{name}' command"))
    }

    pub(super) fn expire_time(name: &str) -> CommandError {
        CommandError::new(format!("ERR invalid expire time in '{name}' command"))
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the request is to be carried out again once others had their turn.
    pub(super) fn is_unsettled(&self) -> bool {
        *self == CommandError::UNSETTLED
    }

    /// Whether it tells of the state of locks or sessions, which must be durable first.
    pub(super) fn tells_of_state(&self) -> bool {
        self.tells_of_state
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Reply {
        Reply::Error(error.text)
    }
}

impl From<Invalid> for CommandError {
    fn from(invalid: Invalid) -> CommandError {
        CommandError::new(format!("ERR {invalid}"))
    }
}

impl From<Unavailable> for CommandError {
    fn from(unavailable: Unavailable) -> CommandError {
        let tells_of_state = !matches!(unavailable, Unavailable::Journal(_) | Unavailable::Unsettled);
        let error = match unavailable {
            Unavailable::Journal(error) => CommandError::new(format!(
                "MISCONF the journal is down, so nothing can be changed or read safely; locks stay held: {error}"
            )),
            Unavailable::LocksMax => CommandError::fixed(
                "OOM as many locks are held as --locks-max allows; held locks can still be renewed and released",
            ),
            Unavailable::SessionsMax => {
                CommandError::fixed("OOM as many sessions are open as --sessions-max allows")
            }
            Unavailable::WaitersMax => CommandError::fixed(
                "OOM as many requests wait for this lock as --waiters-per-lock-max allows",
            ),
            Unavailable::AccountMax => {
                CommandError::fixed("OOM as many leases count toward the account as may")
            }
            Unavailable::NoSession => {
                CommandError::fixed("NOSESSION the session has ended, or there never was one with this id")
            }
            // A connection asks again instead.
            Unavailable::Unsettled => CommandError::UNSETTLED,
            Unavailable::TokensExhausted => {
                CommandError::fixed("ERR all fencing tokens up to 2^53 are used up")
            }
        };
        CommandError { tells_of_state, ..error }
    }
}

/// What a client is told whose commit failed.
pub const OUTCOME_UNKNOWN: Reply = Reply::Error(Cow::Borrowed(
    "UNKNOWN the commit failed, so whether this took effect is unknown; look before you retry",
));
