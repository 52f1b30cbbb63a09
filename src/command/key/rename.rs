//! `RENAME key newkey` and `RENAMENX key newkey`

use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, name_or_none};
use crate::engine::{AnyTxn, Renamed};
use crate::reply::Reply;

pub(super) const RENAME: Command = Command::new("rename", 3, rename)
    .group(Group::Generic)
    .flags(Flags::WRITE)
    .keys(KeySpec::Two(KeyAccess::ReadWrite, KeyAccess::Write))
    .syntax("key newkey")
    .summary(
        "Renames a key, replacing any key of the new name. The key takes a new fencing token and \
         keeps its time to live.",
    )
    .example("RENAME jobs:import jobs:done");

pub(super) const RENAMENX: Command = Command::new("renamenx", 3, renamenx)
    .group(Group::Generic)
    .flags(Flags::WRITE | Flags::FAST)
    .keys(KeySpec::Two(KeyAccess::ReadWrite, KeyAccess::Write))
    .syntax("key newkey")
    .summary("Renames a key if no key has the new name. Returns 1, or 0 if one does.")
    .example("RENAMENX jobs:import jobs:done");

fn rename(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    run(context, args, true).map(|_| Reply::OK)
}

fn renamenx(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    run(context, args, false).map(|renamed| Reply::Integer(i64::from(renamed)))
}

/// Returns whether the key has its new name.
fn run(context: &mut Context<'_>, args: Args<'_>, replaces: bool) -> Result<bool, CommandError> {
    const NO_SUCH_KEY: CommandError = CommandError::fixed("ERR no such key");
    let from = name_or_none(context, args.at(1))?.ok_or(NO_SUCH_KEY)?;
    let to = context.key(args.at(2))?;
    let renamed = match context.txn {
        AnyTxn::Exclusive(txn) => txn.rename(&from, &to, replaces)?,
        AnyTxn::Shared(txn) => {
            let names = [from.clone(), to.clone()];
            txn.exclusively(&names, |txn| txn.rename(&from, &to, replaces))??
        }
    };
    match renamed {
        Renamed::Done => Ok(true),
        Renamed::Exists => Ok(false),
        Renamed::NoSuchKey => Err(NO_SUCH_KEY),
    }
}
