//! `COPY source destination [DB destination-db] [REPLACE]`

use crate::command::options::{self, OptionSpec, flag, value};
use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, name_or_none};
use crate::domain::DATABASES;
use crate::engine::AnyTxn;
use crate::reply::Reply;

pub(super) const COPY: Command = Command::new("copy", -3, copy)
    .group(Group::Generic)
    .flags(Flags::WRITE | Flags::DENYOOM | Flags::LOOKS_UP)
    .keys(KeySpec::Two(KeyAccess::Read, KeyAccess::Write))
    .syntax("source destination [DB destination-db] [REPLACE]")
    .summary(
        "Copies a key. The copy takes a new fencing token and has the time to live of the source. \
         Returns 1, or 0 if the source does not exist or the destination does.",
    )
    .example("COPY jobs:import jobs:backup");

const OPTIONS: [OptionSpec; 2] = [value("DB").check(|index| database(index).map(drop)), flag("REPLACE")];

/// Parses the number of a database.
pub(in crate::command) fn database(arg: &[u8]) -> Result<u8, CommandError> {
    let index = i32::try_from(options::integer(arg)?).map_err(|_| {
        CommandError::fixed("ERR value is out of range, value must between -2147483648 and 2147483647")
    })?;
    let index = u8::try_from(index).ok().filter(|index| *index < DATABASES);
    index.ok_or(CommandError::fixed("ERR DB index is out of range"))
}

fn copy(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let [db, replace] = args.options(3, &OPTIONS)?;
    let database = db.value().map_or(Ok(context.database), database)?;
    context.check_database(database, "ERR Copying to another database is not allowed in cluster mode")?;
    let (source, destination) = (args.at(1), args.at(2));
    if source == destination && database == context.database {
        return Err(CommandError::fixed("ERR source and destination objects are the same"));
    }
    let Some(from) = name_or_none(context, source)? else { return Ok(Reply::Integer(0)) };
    let to = context.server.limits.key(database, destination)?;
    let replaces = replace.is_given();
    let is_copied = match context.txn {
        AnyTxn::Exclusive(txn) => txn.copy(&from, &to, replaces)?,
        AnyTxn::Shared(txn) => txn.copy(&from, &to, replaces)?,
    };
    Ok(Reply::Integer(i64::from(is_copied)))
}
