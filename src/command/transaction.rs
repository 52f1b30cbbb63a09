//! Transactions: `MULTI`, `EXEC`, `DISCARD`, `WATCH key ...`, `UNWATCH`.
//!
//! Guarantees: no other command runs between those of an EXEC, all changes are in one commit, and
//! the reply waits for it.

use super::connection::selected_database;
use super::steps::{KEY_WORK, RemainingArgs, work_of_bytes};
use super::{
    Args, Caller, Client, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, OwnedArgs,
    Progress, Steps, name_or_none, options,
};
use crate::domain::LockName;
use crate::engine::Watch;
use crate::reply::Reply;

pub(in crate::command) const COMMANDS: &[Command] = &[MULTI, EXEC, DISCARD, WATCH, UNWATCH];

/// The commands queued by MULTI.
#[derive(Default)]
pub(super) struct Transaction {
    queued: Vec<OwnedArgs>,
    bytes: usize,
    /// A command could not be queued, so EXEC fails.
    pub(super) is_broken: bool,
}

impl Transaction {
    pub(super) fn len(&self) -> usize {
        self.queued.len()
    }

    /// The commands.
    pub(super) fn requests(&self) -> impl Iterator<Item = Args<'_>> {
        self.queued.iter().map(OwnedArgs::as_args)
    }

    /// The keys of its commands, and those that are watched.
    fn names(&self, context: &mut Context<'_>, watch: Option<&Watch>) -> Vec<LockName> {
        let mut names: Vec<LockName> = watch.into_iter().flat_map(Watch::names).cloned().collect();
        let database = context.database;
        for args in &self.queued {
            let args = args.as_args();
            match selected_database(args) {
                Some(selected) => context.database = selected,
                None => names.extend(context.names_in(args)),
            }
        }
        context.database = database;
        context.spend(KEY_WORK * names.len());
        // Very many commands may name the same key.
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether one of its commands may edit values.
    fn edits(&self) -> bool {
        self.requests().filter_map(Command::of_request).any(|command| !command.is(Flags::READONLY))
    }

    /// Runs its commands, unless a watched key has changed.
    fn run(&self, context: &mut Context<'_>, watch: Option<&Watch>) -> Result<Reply, CommandError> {
        if let Some(watch) = watch
            && watch.is_broken(&context.txn)?
        {
            return Ok(Reply::NullArray);
        }
        let mut replies = Vec::with_capacity(self.queued.len());
        context.begin_transaction();
        for (place, args) in self.queued.iter().enumerate() {
            context.caller = Caller::Queue { place };
            let reply = context.dispatch(args.as_args()).unwrap_or_else(Reply::from);
            context.spend(work_of_bytes(reply.size()));
            replies.push(reply);
        }
        Ok(Reply::Array(replies))
    }
}

const MULTI: Command = Command::new("multi", 1, multi)
    .group(Group::Transactions)
    .flags(Flags::NOT_QUEUED | Flags::FAST | Flags::NOSCRIPT)
    .summary("Starts a transaction: queues the commands that follow until EXEC.")
    .example("MULTI");

const EXEC: Command = Command::new("exec", 1, exec)
    .group(Group::Transactions)
    .flags(Flags::NOT_QUEUED | Flags::NOSCRIPT)
    .summary(
        "Executes the queued commands atomically. Returns Null if a watched key has \
         changed.",
    )
    .example("EXEC");

const DISCARD: Command = Command::new("discard", 1, discard)
    .group(Group::Transactions)
    .flags(Flags::NOT_QUEUED | Flags::FAST | Flags::NOSCRIPT)
    .summary("Discards a transaction.")
    .example("DISCARD");

fn discard(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    if context.client.transaction.is_none() {
        return Err(CommandError::fixed("ERR DISCARD without MULTI"));
    }
    context.client.discard_transaction();
    Ok(Reply::OK)
}

const WATCH: Command = Command::new("watch", -2, watch)
    .takes_many()
    .group(Group::Transactions)
    .flags(Flags::NOT_QUEUED | Flags::FAST | Flags::NOSCRIPT)
    .keys(KeySpec::all(KeyAccess::Read))
    .syntax("key [key ...]")
    .summary("Monitors keys: EXEC returns Null if one of them changes first.")
    .example("WATCH jobs:import");

const UNWATCH: Command = Command::new("unwatch", 1, unwatch)
    .group(Group::Transactions)
    .flags(Flags::FAST | Flags::NOSCRIPT)
    .summary("Forgets all watched keys.")
    .example("UNWATCH");

fn unwatch(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.client.watch = None;
    Ok(Reply::OK)
}

fn multi(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    if context.client.transaction.is_some() {
        return Err(CommandError::fixed("ERR MULTI calls can not be nested"));
    }
    context.client.transaction = Some(Transaction::default());
    Ok(Reply::OK)
}

fn watch(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    if context.client.transaction.is_some() {
        return Err(CommandError::fixed("ERR WATCH inside MULTI is not allowed"));
    }
    context.in_turns(Watching(RemainingArgs::new(args, 1)))
}

/// A WATCH that is in progress.
struct Watching(RemainingArgs);

impl Steps for Watching {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let is_done = self.0.each(context, |context, key| {
            context.spend(KEY_WORK);
            // A key that no lock can have never changes.
            let Some(name) = name_or_none(context, key)? else { return Ok(()) };
            let txn = context.txn;
            let watch = context.client.watch.get_or_insert_with(|| Watch::new(txn.engine()));
            watch.add(&txn, &name)?;
            if watch.len() > WATCHED_MAX || watch.bytes() > WATCHED_BYTES_MAX {
                context.client.watch = None;
                return Err(CommandError::new(format!(
                    "ERR watch limit reached ({WATCHED_MAX} keys, {WATCHED_BYTES_MAX} bytes); no keys are watched now"
                )));
            }
            Ok(())
        })?;
        Ok(if is_done { Progress::Done(Reply::OK) } else { Progress::More })
    }
}

/// Maximum number of keys watched by one connection.
const WATCHED_MAX: usize = 10_000;
/// Maximum size of the names of these keys, in bytes.
const WATCHED_BYTES_MAX: usize = 1 << 20;

fn exec(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let reply = run_queue(context);
    let is_executed_again = reply.as_ref().is_err_and(CommandError::is_unsettled);
    // After the commands that it runs.
    if !is_executed_again && !context.server.monitors.is_empty() {
        context.show_to_monitors(args);
    }
    context.publish_deferred(reply?)
}

/// Runs the queued commands.
fn run_queue(context: &mut Context<'_>) -> Result<Reply, CommandError> {
    let Some(transaction) = context.client.transaction.take() else {
        return Err(CommandError::fixed("ERR EXEC without MULTI"));
    };
    let watch = context.client.watch.take();
    if transaction.is_broken {
        return Err(CommandError::fixed("EXECABORT Transaction discarded because of previous errors."));
    }
    let names = transaction.names(context, watch.as_ref());
    let run = |context: &mut Context<'_>| transaction.run(context, watch.as_ref());
    let reply = match transaction.edits() {
        true => context.edit_atomically(&names, run),
        false => context.atomically(&names, run),
    };
    match reply {
        // Nothing was run: the connection executes EXEC again.
        Err(error) if error.is_unsettled() => {
            (context.client.transaction, context.client.watch) = (Some(transaction), watch);
            Err(error)
        }
        reply => reply,
    }
}

impl Client {
    /// Discards the queued commands and the watched keys.
    fn discard_transaction(&mut self) {
        self.transaction = None;
        self.watch = None;
    }
}

impl Context<'_> {
    /// Marks the transaction as broken after a command could not be queued, so that EXEC fails. A
    /// refused EXEC discards the transaction.
    #[cold]
    pub(super) fn abort_transaction(&mut self, args: Args<'_>, error: CommandError) -> CommandError {
        if options::is(args.at(0), EXEC.name) {
            self.client.discard_transaction();
            let text = error.text();
            let why = text.strip_prefix("ERR ").unwrap_or(text);
            return CommandError::new(format!("EXECABORT Transaction discarded because of: {why}"));
        }
        if let Some(transaction) = self.client.transaction.as_mut() {
            transaction.is_broken = true;
        }
        error
    }

    /// The same after a request for another shard. Its error tells the client where to send it.
    #[cold]
    pub(super) fn leave_slot(&mut self, command: &Command, error: CommandError) -> CommandError {
        match self.client.transaction.as_mut() {
            Some(_) if command.name == EXEC.name => self.client.discard_transaction(),
            Some(transaction) => transaction.is_broken = true,
            None => {}
        }
        error
    }

    /// Queues a command for EXEC.
    #[inline(never)]
    pub(super) fn queue(&mut self, command: &'static Command, args: Args<'_>) -> Result<Reply, CommandError> {
        let bytes_max = self.server.client_limits.multi_bytes_max;
        let Some(transaction) = self.client.transaction.as_mut() else { return Err(CommandError::SYNTAX) };
        if command.is(Flags::NO_MULTI) {
            transaction.is_broken = true;
            return Err(CommandError::fixed("ERR Command not allowed inside a transaction"));
        }
        let args = args.to_owned();
        transaction.bytes += args.size() + size_of::<OwnedArgs>();
        if transaction.bytes > bytes_max {
            transaction.is_broken = true;
            transaction.queued = Vec::new();
            return Err(CommandError::new(format!(
                "ERR queued commands exceed {bytes_max} bytes (--multi-bytes-max)"
            )));
        }
        transaction.queued.push(args);
        Ok(Reply::Simple("QUEUED"))
    }
}
