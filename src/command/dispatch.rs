//! Dispatch: from the arguments of a request to the handler of its command.
//!
//! Guarantees: every command is found, checked and run here, whether a connection sends it, EXEC
//! takes it from its queue, or a script calls it. Not here: what commands do, the state of a
//! connection.

use super::error::printable;
use super::parts::LONG_ARGS;
use super::steps::SCRIPT_WORK;
use super::{Args, Command, CommandError, Context, Flags, Group, Run, docs, options, sentinel};
use crate::auth::CommandId;
use crate::domain::LockName;
use crate::engine::Cause;
use crate::reply::Reply;

/// The caller of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// A connection. Inside MULTI, most of its commands are queued.
    Connection,
    /// EXEC, with a command that passed the checks of a connection when it was queued.
    Queue {
        /// The position of the command in the queue.
        place: usize,
    },
    /// A script, with the arguments of `redis.call`.
    Script {
        /// Whether the script may run commands that write.
        may_write: bool,
    },
}

impl Context<'_> {
    /// Executes a request of this context's caller: finds the command, checks that the caller may
    /// use it now, then runs or queues it.
    pub(super) fn dispatch(&mut self, args: Args<'_>) -> Result<Reply, CommandError> {
        match self.caller {
            Caller::Connection => self.dispatch_from_connection(args),
            Caller::Queue { .. } => self.dispatch_from_queue(args),
            Caller::Script { may_write } => self.dispatch_from_script(args, may_write),
        }
    }

    fn dispatch_from_connection(&mut self, args: Args<'_>) -> Result<Reply, CommandError> {
        let command = self.admit(args).map_err(|error| self.abort_transaction(args, error))?;
        self.check_slots(command, args).map_err(|error| self.leave_slot(command, error))?;
        let is_for_leader = || !self.client.is_sentinel && !sentinel::is_for_any_node(command, args);
        if self.server.is_standby && is_for_leader() {
            return self.leave_to_leader();
        }
        if self.client.transaction.is_some() && !command.is(Flags::NOT_QUEUED) {
            return self.queue(command, args);
        }
        let reply = self.call(command, args);
        if !reply.as_ref().is_err_and(CommandError::is_unsettled) {
            self.client.end_caching(command);
        }
        reply
    }

    #[inline(never)]
    fn dispatch_from_queue(&mut self, args: Args<'_>) -> Result<Reply, CommandError> {
        let found = find(args).map_err(|mismatch| mismatch.error(args))?;
        self.permit(found, args)?;
        if !found.command.is(Flags::WRITE) {
            self.check_transaction_budget()?;
        }
        self.call(found.command, args)
    }

    #[inline(never)]
    fn dispatch_from_script(&mut self, args: Args<'_>, may_write: bool) -> Result<Reply, CommandError> {
        let found = find_for_script(args, may_write)?;
        self.permit(found, args)?;
        self.check_slots(found.command, args)?;
        if found.command.is(Flags::WRITE) {
            self.server.scripts.write()?;
        }
        // The time limit of the script bounds its commands together; the budget bounds each of them.
        self.begin_transaction();
        self.call(found.command, args)
    }

    /// Finds the command and checks that the connection may send it now.
    fn admit(&mut self, args: Args<'_>) -> Result<&'static Command, CommandError> {
        let found = if self.has_command(args.at(0)) { find(args) } else { Err(Mismatch::Command) };
        let found = found.map_err(|mismatch| mismatch.error(args))?;
        let command = found.command;
        self.client.set_command(command);
        if !self.client.is_authenticated && !command.is(Flags::NO_AUTH) {
            return Err(unauthenticated());
        }
        self.permit(found, args)?;
        if self.is_in_pubsub_mode() && !command.is(Flags::SUBSCRIBED) {
            return Err(not_for_subscribers(command));
        }
        Ok(command)
    }

    /// Leaves the connection to the leader, together with this request.
    #[cold]
    fn leave_to_leader(&mut self) -> Result<Reply, CommandError> {
        if self.server.topology.read().leading_node().is_none() {
            return Err(sentinel::NO_LEADER);
        }
        if self.client.is_subscribed() {
            return Err(CommandError::fixed(
                "ERR this is for the leader: use another connection than that of the subscriptions",
            ));
        }
        self.is_for_leader = true;
        Ok(Reply::Null)
    }

    /// Whether this is a request of a RESP2 connection with subscriptions, which may send few
    /// commands.
    pub(super) fn is_in_pubsub_mode(&self) -> bool {
        self.caller == Caller::Connection && self.client.is_subscribed() && self.client.protocol() == 2
    }

    fn call(&mut self, command: &'static Command, args: Args<'_>) -> Result<Reply, CommandError> {
        if !self.client.take_retried() {
            self.client.count_command();
            if command.group == Group::Server {
                // It may show the count.
                self.client.publish_commands_run();
            }
            // EXEC shows itself after the commands that it runs.
            if !self.server.monitors.is_empty() && !command.is(Flags::ADMIN) && command.name != "exec" {
                self.show_to_monitors(args);
            }
        }
        if self.client.tracking.is_some() {
            self.track_keys(command, args);
        }
        let looks_up = command.is(Flags::READONLY | Flags::LOOKS_UP);
        self.txn.set_cause(Cause::of_client(self.client.info().id, command.event, looks_up));
        if args.len() > LONG_ARGS && self.caller == Caller::Connection {
            return self.call_long(command, args);
        }
        match command.run {
            Run::Handler(handler) => handler(self, args),
            Run::Subcommands(_) => Ok(docs::help(command)),
        }
    }

    /// Runs a script on the keys `names`. `script` calls commands with [`Context::dispatch`]; nothing else runs
    /// meanwhile, and all changes are in one commit. A SELECT in it ends with it, and what it
    /// publishes is sent after it.
    pub(super) fn run_script(
        &mut self,
        names: &[LockName],
        may_write: bool,
        script: impl FnOnce(&mut Context<'_>) -> Result<Reply, CommandError>,
    ) -> Result<Reply, CommandError> {
        if matches!(self.caller, Caller::Queue { .. }) {
            self.check_transaction_budget()?;
        }
        self.spend(SCRIPT_WORK);
        let began_at = self.client.transaction_began_at;
        let run = |context: &mut Context<'_>| {
            let caller = Caller::Script { may_write };
            let (server, database, txn) = (context.server, context.database, context.txn);
            let mut inner = Context { caller, database, ..Context::new(server, context.client, txn) };
            let reply = script(&mut inner);
            debug_assert!(inner.waiting.is_none() && inner.steps.is_none() && !inner.closes);
            reply
        };
        let reply = if may_write { self.edit_atomically(names, run) } else { self.atomically(names, run) };
        self.client.transaction_began_at = began_at;
        match reply {
            Err(error) if error.is_unsettled() => Err(error),
            // A script that fails keeps its changes, and what it published.
            reply => self.publish_deferred(reply.unwrap_or_else(Reply::from)),
        }
    }
}

/// Why a request is not one of any command.
pub(super) enum Mismatch {
    /// There is no such command.
    Command,
    /// This command has no such subcommand.
    Subcommand(&'static Command),
    /// This command does not take that number of arguments.
    Arity(&'static Command),
}

impl Mismatch {
    /// The error that a client gets.
    #[cold]
    fn error(self, args: Args<'_>) -> CommandError {
        match self {
            Mismatch::Command => unknown(args),
            Mismatch::Subcommand(command) => {
                let (arg, name) = (printable(args.at(1), 128), command.name.to_ascii_uppercase());
                CommandError::new(format!("ERR unknown subcommand '{arg}'. Try {name} HELP."))
            }
            Mismatch::Arity(command) => CommandError::arity(command.name),
        }
    }

    /// The error of ACL DRYRUN.
    pub(super) fn error_in_dry_run(self, args: Args<'_>) -> CommandError {
        match self {
            Mismatch::Arity(command) => CommandError::arity(command.name),
            Mismatch::Command | Mismatch::Subcommand(_) => {
                CommandError::new(format!("ERR Command '{}' not found", printable(args.at(0), 128)))
            }
        }
    }

    /// The error that a script gets.
    fn error_in_script(self) -> CommandError {
        CommandError::fixed(match self {
            Mismatch::Command | Mismatch::Subcommand(_) => "ERR Unknown Redis command called from script",
            Mismatch::Arity(_) => "ERR Wrong number of args calling Redis command from script",
        })
    }
}

/// The command or subcommand of a request.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) command: &'static Command,
    /// Its place in the catalog.
    pub(super) id: CommandId,
}

/// Finds the command or subcommand and checks its arity.
#[inline]
pub(super) fn find(args: Args<'_>) -> Result<Found, Mismatch> {
    let (command, place) = Command::find_with_place(args.at(0)).ok_or(Mismatch::Command)?;
    if !command.accepts(args.len()) {
        return Err(Mismatch::Arity(command));
    }
    match command.run {
        Run::Handler(_) => Ok(Found { command, id: CommandId::new(place) }),
        Run::Subcommands(_) => find_subcommand(command, place, args),
    }
}

#[inline(never)]
fn find_subcommand(container: &'static Command, place: u16, args: Args<'_>) -> Result<Found, Mismatch> {
    let n = match args.len() {
        // COMMAND without a subcommand is COMMAND INFO.
        1 => 0,
        _ if options::is(args.at(1), "help") => {
            return Ok(Found { command: container, id: CommandId::new(place) });
        }
        _ => container.subcommand_number(args.at(1)).ok_or(Mismatch::Subcommand(container))?,
    };
    let command = container.subcommands().get(n).ok_or(Mismatch::Subcommand(container))?;
    if args.len() > 1 && !command.accepts(args.len()) {
        return Err(Mismatch::Arity(command));
    }
    Ok(Found { command, id: CommandId::new(place + 1 + n as u16) })
}

/// Finds the command that a script calls, and checks that the script may call it.
fn find_for_script(args: Args<'_>, may_write: bool) -> Result<Found, CommandError> {
    let found = find(args).map_err(Mismatch::error_in_script)?;
    let command = found.command;
    if command.is(Flags::NOSCRIPT) {
        return Err(CommandError::fixed("ERR This Redis command is not allowed from script"));
    }
    if !may_write && command.is(Flags::WRITE | Flags::MAY_REPLICATE) {
        return Err(CommandError::fixed("ERR Write commands are not allowed from read-only scripts."));
    }
    Ok(found)
}

#[cold]
fn unauthenticated() -> CommandError {
    CommandError::fixed("NOAUTH Authentication required.")
}

#[cold]
fn not_for_subscribers(command: &Command) -> CommandError {
    CommandError::new(format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context",
        command.name
    ))
}

fn unknown(args: Args<'_>) -> CommandError {
    let mut begin = String::new();
    for arg in args.from(1) {
        if begin.len() >= 128 {
            break;
        }
        begin.push_str(&format!("'{}' ", printable(arg, 128 - begin.len())));
    }
    let name = printable(args.at(0), 128);
    CommandError::new(format!("ERR unknown command '{name}', with args beginning with: {begin}"))
}

#[cfg(test)]
mod tests;
