//! `DELEX key [IFEQ v | IFNE v | IFDEQ d | IFDNE d]`, `DELIFEQ key v`, `DIGEST key`, and the
//! conditions of `SET`
//!
//! The comparisons of Redis 8.4 and Valkey 9.

use super::{
    Args, Command, CommandError, Context, Edited, Expiry, Flags, KeyAccess, Owner, Reply, SetCondition,
    command, digest, edit, key, name_or_none, read,
};
use crate::command::options::{Given, OptionSpec, value};
use crate::command::steps::work_of_bytes;

pub(super) const DELEX: Command = command("delex", -2, delex, KeyAccess::ReadWrite)
    .flags(Flags::WRITE | Flags::FAST)
    .syntax(
        "key [IFEQ comparison-value | IFNE comparison-value | IFDEQ comparison-digest | IFDNE comparison-digest]",
    )
    .summary(
        "Deletes a key if its string value compares as stated. Returns 1, or 0 if it was not deleted.",
    )
    .example("DELEX jobs:import IFEQ worker-1");

pub(super) const DELIFEQ: Command = command("delifeq", 3, delifeq, KeyAccess::ReadWrite)
    .flags(Flags::WRITE | Flags::FAST)
    .syntax("key comparison-value")
    .summary("Deletes a key if its string value equals the given one. Returns 1, or 0 if it was not deleted.")
    .example("DELIFEQ jobs:import worker-1");

pub(super) const DIGEST: Command = command("digest", 2, digest_of, KeyAccess::Read)
    .flags(Flags::READONLY | Flags::FAST)
    .syntax("key")
    .summary("Returns the XXH3 digest of a string value as 16 hexadecimal digits, or Null.")
    .example("DIGEST jobs:import");

/// `IFEQ`, `IFNE`, `IFDEQ` and `IFDNE`.
pub(super) const OPTIONS: [OptionSpec; 4] = [value("IFEQ"), value("IFNE"), value("IFDEQ"), value("IFDNE")];

/// A condition on the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    Always,
    IfAbsent,
    IfPresent,
    IfEqual(&'a [u8]),
    IfNotEqual(&'a [u8]),
    IfDigest(&'a [u8]),
    IfNotDigest(&'a [u8]),
}

impl<'a> Condition<'a> {
    /// The condition that the [`OPTIONS`] of a request set; `None` if none is given.
    pub(super) fn of_options(
        [if_equal, if_not_equal, if_digest, if_not_digest]: [Given<'a>; 4],
    ) -> Result<Option<Condition<'a>>, CommandError> {
        let digests = [if_digest.value(), if_not_digest.value()];
        digests.into_iter().flatten().try_for_each(digest::check)?;
        let [if_digest, if_not_digest] = digests;
        let conditions = [
            if_equal.value().map(Condition::IfEqual),
            if_not_equal.value().map(Condition::IfNotEqual),
            if_digest.map(Condition::IfDigest),
            if_not_digest.map(Condition::IfNotDigest),
        ];
        Ok(conditions.into_iter().flatten().next())
    }

    /// Whether it holds for a value; `None` if the key does not exist.
    pub(super) fn holds(self, value: Option<&[u8]>) -> bool {
        let has_digest = |digest: &[u8]| {
            value.is_some_and(|value| digest::of(value).as_bytes().eq_ignore_ascii_case(digest))
        };
        match self {
            Condition::Always => true,
            Condition::IfAbsent => value.is_none(),
            Condition::IfPresent => value.is_some(),
            Condition::IfEqual(other) => value == Some(other),
            Condition::IfNotEqual(other) => value != Some(other),
            Condition::IfDigest(digest) => has_digest(digest),
            Condition::IfNotDigest(digest) => !has_digest(digest),
        }
    }

    /// The equivalent condition of the lock, if there is one.
    pub(super) fn of_lock(self) -> Option<SetCondition> {
        match self {
            Condition::Always => Some(SetCondition::Always),
            Condition::IfAbsent => Some(SetCondition::IfFree),
            Condition::IfPresent => Some(SetCondition::IfHeld),
            Condition::IfEqual(value) => Owner::new(value).ok().map(SetCondition::IfOwner),
            Condition::IfNotEqual(_) | Condition::IfDigest(_) | Condition::IfNotDigest(_) => None,
        }
    }
}

fn delex(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if args.len() == 2 {
        return key::delete(context, args.at(1), None);
    }
    if args.len() != 4 {
        return Err(CommandError::arity("delex"));
    }
    let invalid = |_: &[u8]| CommandError::fixed("ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE");
    let condition = Condition::of_options(args.options_or(2, &OPTIONS, invalid)?)?;
    let condition = condition.ok_or_else(|| invalid(b""))?;
    if let Condition::IfEqual(value) = condition {
        return key::delete(context, args.at(1), Some(value));
    }
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Integer(0)) };
    let is_deleted = edit(context, &name, Expiry::Never, |before| {
        let is_deleted = before.is_some() && condition.holds(before);
        Ok((if is_deleted { Edited::Delete } else { Edited::Keep }, is_deleted))
    })?;
    Ok(Reply::Integer(is_deleted.into()))
}

fn delifeq(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    key::delete(context, args.at(1), Some(args.at(2)))
}

fn digest_of(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, args.at(1))? else { return Ok(Reply::Null) };
    let Some(value) = read(context, &name)? else { return Ok(Reply::Null) };
    context.spend(work_of_bytes(8 * value.as_bytes().len()));
    Ok(Reply::bulk(digest::of(value.as_bytes()).as_bytes()))
}
