//! The flags of keys, as Redis describes them: how a command opens a key, and what it does with the
//! value.
//!
//! Not here: permissions, which know only reading and writing.

use crate::command::options::is;
use crate::command::{Args, Command, KeyAccess};

/// `RO`, `RW`, `OW` (overwrites it unread) or `RM` (removes it), then `access` (returns something of
/// the value), `insert`, `delete` or `update`.
pub(super) type KeyFlags = &'static [&'static str];

/// Commands that only look at the existence, the type or the length.
const METADATA: &str = "exists hexists hlen hstrlen llen memory|usage object|encoding object|freq \
    object|idletime object|refcount scard sismember strlen touch type watch zcard";
const OVERWRITING: &str = "copy mset psetex rename sdiffstore set setex sunionstore zdiffstore zinterstore \
    zrangestore zunionstore";
const OVERWRITING_NEW: &str = "msetnx renamenx setnx";
const REMOVING: &str = "del forceunlock unlink unlock";
const DELETING: &str = "hdel lrem ltrim srem zrem zremrangebylex zremrangebyrank zremrangebyscore";
const INSERTING: &str = "append blmove brpoplpush hsetnx linsert lmove lpush lpushx rpoplpush rpush rpushx \
    sadd smove";
const TAKING: &str = "blmove blmpop blpop brpop brpoplpush bzmpop bzpopmax bzpopmin delex delifeq getdel lmove \
    lmpop lpop rename renamenx rpop rpoplpush smove spop zmpop zpopmax zpopmin";

/// The flags of a key that `command` names, given its access to it.
pub(super) fn key_flags(command: &Command, access: KeyAccess) -> KeyFlags {
    let is_in = |names: &str| names.split_ascii_whitespace().any(|name| name == command.name);
    match access {
        KeyAccess::Read if is_in(METADATA) => &["RO"],
        KeyAccess::Read => &["RO", "access"],
        KeyAccess::Write if is_in(OVERWRITING) => &["OW", "update"],
        KeyAccess::Write if is_in(OVERWRITING_NEW) => &["OW", "insert"],
        KeyAccess::Write if is_in(REMOVING) => &["RM", "delete"],
        KeyAccess::Write if is_in(DELETING) => &["RW", "delete"],
        KeyAccess::Write if is_in(INSERTING) => &["RW", "insert"],
        KeyAccess::Write => &["RW", "update"],
        KeyAccess::ReadWrite if is_in(TAKING) => &["RW", "access", "delete"],
        KeyAccess::ReadWrite => &["RW", "access", "update"],
    }
}

/// [`key_flags`] of one request. Those of `SET` depend on its options.
pub(super) fn key_flags_of(command: &Command, request: Args<'_>, access: KeyAccess) -> KeyFlags {
    if command.name == "set" && request.from(3).any(|arg| is(arg, "get")) {
        return key_flags(command, KeyAccess::ReadWrite);
    }
    key_flags(command, access)
}

/// The flags in `COMMAND INFO`, for any options.
pub(super) fn spec_flags(command: &Command, access: KeyAccess) -> KeyFlags {
    if command.name == "set" {
        return &["RW", "access", "update", "variable_flags"];
    }
    key_flags(command, access)
}
