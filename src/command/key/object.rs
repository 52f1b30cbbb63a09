//! `OBJECT ENCODING | FREQ | IDLETIME | REFCOUNT key`
//!
//! Not here: access times and frequencies, which only an eviction would need.

use crate::command::{
    Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, name_or_none, options,
};
use crate::engine::Content;
use crate::lock::Mode;
use crate::reply::Reply;

const KEY: KeySpec = KeySpec::Range { first: 2, last: 2, step: 1, access: KeyAccess::Read };

pub(super) const OBJECT: Command = Command::container(
    "object",
    -2,
    &[
        Command::new("object|encoding", 3, encoding)
            .group(Group::Generic)
            .flags(Flags::READONLY)
            .keys(KEY)
            .syntax("key")
            .summary("Returns the name of the encoding that Redis has for such a key, or Null.")
            .example("OBJECT ENCODING jobs:import"),
        Command::new("object|freq", 3, freq)
            .group(Group::Generic)
            .flags(Flags::READONLY)
            .keys(KEY)
            .syntax("key")
            .summary("Fails: the frequency of accesses is not tracked. Returns Null for no key.")
            .example("OBJECT FREQ jobs:import"),
        Command::new("object|idletime", 3, idletime)
            .group(Group::Generic)
            .flags(Flags::READONLY)
            .keys(KEY)
            .syntax("key")
            .summary("Fails: the time of the last access is not tracked. Returns Null for no key.")
            .example("OBJECT IDLETIME jobs:import"),
        Command::new("object|refcount", 3, refcount)
            .group(Group::Generic)
            .flags(Flags::READONLY)
            .keys(KEY)
            .syntax("key")
            .summary("Returns 1, or Null if the key does not exist.")
            .example("OBJECT REFCOUNT jobs:import"),
    ],
)
.group(Group::Generic)
.summary("A container for commands about how keys are stored.");

/// Longest string that Redis stores as `embstr`, in bytes.
const EMBEDDED_BYTES_MAX: usize = 44;

fn encoding(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, args.at(2))? else { return Ok(Reply::Null) };
    let encoding = context.txn.read_key(&name, |content, _| encoding_of(content))?;
    context.count_lookup(encoding.is_some());
    Ok(encoding.map_or(Reply::Null, Reply::bulk))
}

fn encoding_of(content: &Content) -> Option<&'static str> {
    if let Some(value) = content.value() {
        return Some(value.encoding());
    }
    let lease = content.lease()?;
    let owner = lease.owner.as_bytes();
    Some(match lease.mode {
        Mode::Shared | Mode::Limit(_) => "lock",
        Mode::Exclusive if options::integer(owner).is_ok() => "int",
        Mode::Exclusive if owner.len() <= EMBEDDED_BYTES_MAX => "embstr",
        Mode::Exclusive => "raw",
    })
}

/// Returns `answer` for a key that exists.
fn if_exists(
    context: &Context<'_>,
    key: &[u8],
    answer: Result<Reply, CommandError>,
) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, key)? else { return Ok(Reply::Null) };
    let exists = context.txn.exists(&name)?;
    context.count_lookup(exists);
    if exists { answer } else { Ok(Reply::Null) }
}

fn freq(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    const NOT_TRACKED: CommandError = CommandError::fixed(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
         between policies at runtime LRU and LFU data will take some time to adjust.",
    );
    if_exists(context, args.at(2), Err(NOT_TRACKED))
}

fn idletime(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    const NOT_TRACKED: CommandError =
        CommandError::fixed("ERR idle time not tracked: no key is ever evicted");
    if_exists(context, args.at(2), Err(NOT_TRACKED))
}

fn refcount(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if_exists(context, args.at(2), Ok(Reply::Integer(1)))
}
