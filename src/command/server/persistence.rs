//! `SAVE`, `BGSAVE`, `BGREWRITEAOF`, `LASTSAVE`, `SHUTDOWN`: the answers of a server that saves every
//! change as it happens.

use crate::command::{Args, Command, CommandError, Context, Flags, Group, options};
use crate::reply::Reply;

const NOTHING_IS_SAVED: CommandError =
    CommandError::fixed("ERR nothing is saved: the server runs with --durability memory");

pub(super) const SAVE: Command = Command::new("save", 1, save)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::NOSCRIPT | Flags::NO_MULTI)
    .summary("Returns OK: changes are saved as they happen.")
    .example("SAVE");

fn save(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    check_saves(context)?;
    Ok(Reply::OK)
}

fn check_saves(context: &Context<'_>) -> Result<(), CommandError> {
    if context.server.info.durability == "memory" {
        return Err(NOTHING_IS_SAVED);
    }
    // A journal that cannot be written saves nothing.
    context.txn.key_count(context.database)?;
    Ok(())
}

pub(super) const BGSAVE: Command = Command::new("bgsave", -1, bgsave)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::NOSCRIPT)
    .syntax("[SCHEDULE]")
    .summary("Reports the start of a save, as Redis does. Changes are saved as they happen.")
    .example("BGSAVE");

fn bgsave(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if args.len() > 2 || args.len() == 2 && !options::is(args.at(1), "schedule") {
        return Err(CommandError::SYNTAX);
    }
    check_saves(context)?;
    Ok(Reply::Simple("Background saving started"))
}

pub(super) const BGREWRITEAOF: Command = Command::new("bgrewriteaof", 1, bgrewriteaof)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::NOSCRIPT)
    .summary("Reports the start of a rewrite, as Redis does. The database file needs none.")
    .example("BGREWRITEAOF");

fn bgrewriteaof(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    check_saves(context)?;
    Ok(Reply::Simple("Background append only file rewriting started"))
}

pub(super) const LASTSAVE: Command = Command::new("lastsave", 1, lastsave)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::FAST)
    .summary(
        "Returns the time up to which changes are saved, in seconds since 1970: now, or the start of \
         the server if it saves nothing.",
    )
    .example("LASTSAVE");

fn lastsave(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::unsigned(last_save_seconds(context)))
}

/// The time of the last save, in seconds since 1970.
pub(super) fn last_save_seconds(context: &Context<'_>) -> u64 {
    let info = &context.server.info;
    let now = context.txn.wall_millis();
    let age = match info.durability {
        "memory" => context.txn.now().millis_since(info.started),
        _ => 0,
    };
    now.saturating_sub(age) / 1000
}

pub(super) const SHUTDOWN: Command = Command::new("shutdown", -1, shutdown)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::ANY_NODE | Flags::NOSCRIPT | Flags::NO_MULTI)
    .syntax("[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]")
    .summary(
        "Stops the server as SIGTERM does: it finishes the requests it has received and saves \
         everything. There is no reply.",
    )
    .example("SHUTDOWN ABORT");

fn shutdown(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let is = |name| args.from(1).any(|arg| options::is(arg, name));
    let known = ["nosave", "save", "now", "force", "abort"];
    let is_known = |arg: &[u8]| known.iter().any(|name| options::is(arg, name));
    let is_abort = is("abort");
    if !args.from(1).all(is_known) || is("save") && is("nosave") || is_abort && args.len() > 2 {
        return Err(CommandError::SYNTAX);
    }
    if is_abort {
        return Err(CommandError::fixed("ERR No shutdown in progress."));
    }
    tracing::info!(client = %context.client.info().addr, "SHUTDOWN received");
    context.server.shutdown.notify_one();
    context.closes = true;
    // The connection closes without a reply.
    Ok(Reply::Sequence(vec![]))
}
