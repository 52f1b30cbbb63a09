//! `FLUSHDB` and `FLUSHALL`, if `--allow-flush` permits them.
//!
//! Guarantees: every key that exists from the start to the end of the command is deleted, as DEL
//! does it: sessions stay, a lock with a queue passes to the first waiter, and a lock-delay runs.
//! Keys go in steps, and other clients are served in between. Fencing tokens go on.
//! Other clients can see states in which only some keys are gone.

use crate::command::scan;
use crate::command::steps::KEY_WORK;
use crate::command::{
    Args, Categories, Command, CommandError, Context, Flags, Group, Progress, Steps, options,
};
use crate::domain::{DATABASES, LockName};
use crate::engine::{AnyTxn, Scan};
use crate::lock::Op;
use crate::reply::Reply;

pub(super) const FLUSHDB: Command = Command::new("flushdb", -1, flushdb)
    .group(Group::Server)
    .own_categories(Categories::KEYSPACE.and(Categories::DANGEROUS))
    .flags(Flags::WRITE | Flags::EVERY_KEY)
    .syntax("[ASYNC | SYNC]")
    .summary(
        "Deletes all keys of the current database, in steps that other clients can see. Needs \
         --allow-flush.",
    )
    .example("FLUSHDB");

pub(super) const FLUSHALL: Command = Command::new("flushall", -1, flushall)
    .group(Group::Server)
    .own_categories(Categories::KEYSPACE.and(Categories::DANGEROUS))
    .flags(Flags::WRITE | Flags::EVERY_KEY)
    .syntax("[ASYNC | SYNC]")
    .summary(
        "Deletes all keys of all databases, in steps that other clients can see. Needs \
         --allow-flush.",
    )
    .example("FLUSHALL");

/// Keys of all databases with which a transaction or a script may use these commands: nothing else
/// runs while they visit them.
const KEYS_IN_TRANSACTION_MAX: u64 = 5000;

fn flushdb(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    flush(context, args, &[context.database])
}

fn flushall(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let all: Vec<u8> = (0..DATABASES).collect();
    flush(context, args, &all)
}

fn flush(context: &mut Context<'_>, args: Args<'_>, databases: &[u8]) -> Result<Reply, CommandError> {
    let is_known = |arg: &[u8]| options::is(arg, "async") || options::is(arg, "sync");
    if args.len() > 2 || !args.from(1).all(is_known) {
        return Err(CommandError::SYNTAX);
    }
    if !context.server.allows_flush {
        let name = args.at(0).escape_ascii().to_string().to_ascii_uppercase();
        return Err(CommandError::new(format!(
            "ERR {name} is disabled: it would release every lock; start the server with --allow-flush"
        )));
    }
    let mut keys = 0;
    let mut occupied = Vec::new();
    for database in 0..DATABASES {
        let count = context.txn.key_count(database)?;
        keys += count;
        if count > 0 && databases.contains(&database) {
            occupied.push(database);
        }
    }
    let Some(first) = occupied.pop() else { return Ok(Reply::OK) };
    let scan = Scan::new(first, 0, KEYS_PER_STEP);
    let mut flushing =
        Flushing { databases: occupied, database: first, scan, is_scanned: false, found: Vec::new() };
    if let AnyTxn::Shared(_) = context.txn {
        return context.in_turns(flushing);
    }
    context.check_transaction_budget()?;
    if keys > KEYS_IN_TRANSACTION_MAX {
        return Err(CommandError::new(format!(
            "ERR a transaction or script can flush only while there are at most {KEYS_IN_TRANSACTION_MAX} keys; flush \
             outside of it"
        )));
    }
    loop {
        if let Progress::Done(reply) = flushing.advance(context)? {
            return Ok(reply);
        }
    }
}

/// A FLUSHDB or FLUSHALL in progress.
struct Flushing {
    /// The databases after this one.
    databases: Vec<u8>,
    database: u8,
    scan: Scan,
    /// The scan has seen all keys of the database.
    is_scanned: bool,
    /// Keys that are deleted next.
    found: Vec<LockName>,
}

/// Table entries to visit at once.
const KEYS_PER_STEP: usize = 64;

impl Steps for Flushing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        loop {
            while let Some(name) = self.found.last() {
                context.txn.submit(name, &Op::Delete { if_owner: None })?;
                self.found.pop();
                context.spend(KEY_WORK);
            }
            if !self.is_scanned {
                let (database, found) = (self.database, &mut self.found);
                let scanned = context.txn.scan(&mut self.scan, KEYS_PER_STEP, |key| {
                    found.extend(LockName::new(database, key.key()));
                })?;
                scan::spend(context, &scanned);
                self.is_scanned = scanned.is_done;
            } else if let Some(next) = self.databases.pop() {
                (self.database, self.is_scanned) = (next, false);
                self.scan = Scan::new(next, 0, KEYS_PER_STEP);
            } else {
                context.txn.invalidate_all();
                return Ok(Progress::Done(Reply::OK));
            }
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
    }
}
