//! `SLOWLOG GET [count] | LEN | RESET`: the latest commands that took long.
//!
//! Guarantees: bounded in entries and bytes; long requests are cut as in Redis, and secrets are not
//! kept. The time is that of the execution: without the wait for a lock, for other connections or
//! for the commit. Not here: measuring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::command::{
    Args, Command, CommandError, Context, Flags, Progress, ServerState, Steps, options, secrets,
};
use crate::reply::Reply;

const FLAGS: u16 = Flags::ADMIN;

pub(super) const SLOWLOG: Command = Command::container(
    "slowlog",
    -2,
    &[
        Command::new("slowlog|get", -2, get)
            .flags(FLAGS | Flags::EVERY_KEY)
            .syntax("[count]")
            .summary(
                "Returns the newest entries, 10 unless told otherwise, -1 for all: number, time in \
                 seconds, microseconds of execution, arguments, address and name of the client.",
            )
            .example("SLOWLOG GET 10"),
        Command::new("slowlog|len", 2, len)
            .flags(FLAGS | Flags::FAST)
            .summary("Returns the number of entries.")
            .example("SLOWLOG LEN"),
        Command::new("slowlog|reset", 2, reset)
            .flags(FLAGS | Flags::FAST)
            .summary("Removes all entries.")
            .example("SLOWLOG RESET"),
    ],
)
.summary("A container for slow log commands.");

/// Arguments that an entry has.
const ARGS_MAX: usize = 32;
/// Bytes that an argument of an entry has.
const ARG_BYTES_MAX: usize = 128;

/// The latest commands that took long.
#[derive(Default)]
pub struct SlowLog(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// The oldest first.
    kept: VecDeque<Arc<Entry>>,
    next_id: u64,
}

struct Entry {
    id: u64,
    seconds: u64,
    micros: u64,
    args: Vec<Vec<u8>>,
    addr: String,
    name: String,
}

/// The arguments of a request as an entry has them.
pub(in crate::command) fn cut(args: Args<'_>) -> Vec<Vec<u8>> {
    let count = args.len().min(ARGS_MAX);
    let arg = |n| {
        if n + 1 == ARGS_MAX && args.len() > ARGS_MAX {
            return format!("... ({} more arguments)", args.len() - n).into_bytes();
        }
        let arg = secrets::shown(args, n);
        match arg.len().checked_sub(ARG_BYTES_MAX) {
            None | Some(0) => arg.to_vec(),
            Some(more) => [&arg[..ARG_BYTES_MAX], format!("... ({more} more bytes)").as_bytes()].concat(),
        }
    };
    (0..count).map(arg).collect()
}

impl SlowLog {
    /// Adds a command that took at least the time that makes it slow.
    #[cold]
    pub(in crate::command) fn add(
        &self,
        server: &ServerState,
        took: Duration,
        args: Vec<Vec<u8>>,
        addr: &str,
        name: String,
    ) {
        let seconds = server.engine.clock().wall_millis() / 1000;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let len_max = server.settings.slowlog_len_max();
        let mut entries = self.0.lock();
        let id = entries.next_id;
        entries.next_id += 1;
        let addr = addr.to_owned();
        entries.kept.push_back(Arc::new(Entry { id, seconds, micros, args, addr, name }));
        while entries.kept.len() > len_max {
            entries.kept.pop_front();
        }
    }
}

fn get(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    const WRONG_COUNT: CommandError = CommandError::fixed("ERR count should be greater than or equal to -1");
    let count = match args.len() {
        2 => 10,
        3 => options::integer(args.at(2)).ok().filter(|count| *count >= -1).ok_or(WRONG_COUNT)?,
        _ => return Err(CommandError::subcommand_arity(args)),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let newest: Vec<_> = context.server.slow_log.0.lock().kept.iter().rev().take(count).cloned().collect();
    context.spend(newest.len());
    context.in_turns(Listing { newest: newest.into_iter(), found: Vec::new() })
}

/// A SLOWLOG GET in progress.
struct Listing {
    newest: std::vec::IntoIter<Arc<Entry>>,
    found: Vec<Reply>,
}

/// Units of work to copy an entry.
const ENTRY_WORK: usize = 32;

impl Steps for Listing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        for entry in self.newest.by_ref() {
            self.found.push(Reply::Array(vec![
                Reply::unsigned(entry.id),
                Reply::unsigned(entry.seconds),
                Reply::unsigned(entry.micros),
                Reply::Array(entry.args.iter().map(Reply::bulk).collect()),
                Reply::bulk(&entry.addr),
                Reply::bulk(&entry.name),
            ]));
            context.spend(ENTRY_WORK);
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done(Reply::Array(std::mem::take(&mut self.found))))
    }
}

fn len(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(context.server.slow_log.0.lock().kept.len()))
}

fn reset(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.server.slow_log.0.lock().kept.clear();
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::OwnedArgs;

    #[test]
    fn long_requests_are_cut() {
        let cut = |args: &[String]| cut(OwnedArgs::of(args).as_args());
        let args = |count| (0..count).map(|n| format!("{n}")).collect::<Vec<_>>();
        assert_eq!(cut(&args(32)).last().map(Vec::as_slice), Some(b"31".as_slice()));
        let long = cut(&args(33));
        assert_eq!((long.len(), long[30].as_slice()), (32, b"30".as_slice()));
        assert_eq!(long[31], b"... (2 more arguments)");
        assert_eq!(cut(&["x".repeat(128)])[0].len(), 128);
        assert_eq!(cut(&["x".repeat(129)])[0], ("x".repeat(128) + "... (1 more bytes)").as_bytes());
    }
}
