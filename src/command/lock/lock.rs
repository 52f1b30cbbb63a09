//! ```text
//! LOCK key owner [EX s | PX ms] [WAIT ms] [SHARED | LIMIT n] [MAXHOLD ms] [DELAY ms]
//!      [SESSION id | CONN] [META text]
//! ```
//!
//! Integer: the fencing token. Null: not granted within WAIT.

use crate::command::options::{self, Given, OptionSpec, flag, once, value};
use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, Waiting};
use crate::domain::{LOCK_TTL_MS_MAX, LockName, Owner, Ttl};
use crate::engine::{Acquired, AnyTxn, SharedTxn, Unavailable, WaitOutcome};
use crate::lock::{LeaseExtra, Mode, Op, Outcome, Refusal, Request};
use crate::reply::Reply;

pub(super) const LOCK: Command = Command::new("lock", -3, run)
    .group(Group::Lock)
    .flags(Flags::WRITE | Flags::DENYOOM | Flags::FAST | Flags::BLOCKING)
    .keys(KeySpec::first(KeyAccess::Write))
    .syntax(
        "key owner [EX seconds | PX milliseconds] [WAIT milliseconds] [SHARED | LIMIT n] \
         [MAXHOLD milliseconds] [DELAY milliseconds] [SESSION id | CONN] [META text]",
    )
    .summary(
        "Acquires a lock, waiting in FIFO order if asked to. Returns the fencing token, or \
         Null if the lock was not granted.",
    )
    .example("LOCK jobs:import worker-1 PX 30000 WAIT 5000");

/// Longest WAIT, in milliseconds: 30 days. A longer one counts as this.
const WAIT_MS_MAX: u64 = LOCK_TTL_MS_MAX;

const TTL: u8 = 1;
const MODE: u8 = 2;
const SESSION: u8 = 3;

const OPTIONS: [OptionSpec; 10] = once([
    value("EX").group(TTL),
    value("PX").group(TTL),
    value("WAIT").integer(),
    flag("SHARED").group(MODE),
    value("LIMIT").group(MODE).integer(),
    value("MAXHOLD"),
    value("DELAY").integer(),
    value("SESSION").group(SESSION),
    flag("CONN").group(SESSION),
    value("META"),
]);

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.borrowed_name(args.at(1))?;
    let owner = context.borrowed_owner(args.at(2))?;
    // Most requests have a TTL and no other option.
    let unit_ms = match args.at(3) {
        arg if args.len() == 5 && options::is(arg, "px") => 1,
        arg if args.len() == 5 && options::is(arg, "ex") => 1000,
        _ => return run_with_options(context, &name.to_owned(), owner.to_owned(), args),
    };
    let ttl = context.ttl(args.at(4), unit_ms, "lock")?;
    let request = Request::exclusive(owner.to_owned(), Some(ttl));
    let request = Request { origin: Some(context.client.origin()), ..request };
    reply(context.txn.submit(&name.to_owned(), &Op::Acquire { request, wait: None })?)
}

/// A request with any options.
#[inline(never)]
fn run_with_options(
    context: &mut Context<'_>,
    name: &LockName,
    owner: Owner,
    args: Args<'_>,
) -> Result<Reply, CommandError> {
    let [ex, px, wait, shared, limit, max_hold, delay, session, conn, meta] = args.options(3, &OPTIONS)?;
    let ttl = context.ttl_option(ex, px, "lock")?;
    let wait = wait_millis(wait)?;
    let mode = match limit.integer()? {
        Some(n) => Mode::limit(u32::try_from(n).map_err(|_| LIMIT_RANGE)?)?,
        None if shared.is_given() => Mode::Shared,
        None => Mode::Exclusive,
    };
    let max_hold = max_hold.value().map(|millis| context.ttl(millis, 1, "lock")).transpose()?;
    let delay = match delay.integer()? {
        // An explicit 0 means no delay.
        None | Some(0) => None,
        Some(_) => delay.value().map(|millis| context.ttl(millis, 1, "lock")).transpose()?,
    };
    let no_session = || CommandError::from(Unavailable::NoSession);
    let session = session.value().map(|id| options::session_id(id).ok_or_else(no_session)).transpose()?;
    let meta = meta.value().map(|text| self::meta(text, context.server.limits.meta_bytes_max)).transpose()?;
    let session = if conn.is_given() { Some(context.connection_session()?) } else { session };
    let ttl = match (ttl, session) {
        // The session or the connection alone decides.
        (None, Some(_)) => None,
        (ttl, _) => Some(ttl.map_or_else(|| context.server.limits.ttl_default(), Ok)?),
    };
    let request = Request { mode, origin: Some(context.client.origin()), ..Request::exclusive(owner, ttl) };
    let request = request.with(LeaseExtra { max_hold, delay, session, meta, ..LeaseExtra::default() });
    acquire(context, name, request, wait)
}

const LIMIT_RANGE: CommandError = CommandError::fixed("ERR LIMIT must be between 1 and 4294967295");

/// How long to wait; `None` for 0 and without the option.
fn wait_millis(wait: Given<'_>) -> Result<Option<u64>, CommandError> {
    let Some(millis) = wait.integer()? else { return Ok(None) };
    let millis =
        u64::try_from(millis).map_err(|_| CommandError::fixed("ERR WAIT must be 0 or more milliseconds"))?;
    Ok(Some(millis.min(WAIT_MS_MAX)).filter(|millis| *millis > 0))
}

/// Requests the lock. Waits only if other requests may run meanwhile, which excludes EXEC and
/// scripts.
fn acquire(
    context: &mut Context<'_>,
    name: &LockName,
    request: Request,
    wait: Option<u64>,
) -> Result<Reply, CommandError> {
    match (context.txn, wait) {
        (AnyTxn::Shared(txn), Some(wait)) => acquire_or_wait(context, txn, name, request, wait),
        _ => reply(context.txn.submit(name, &Op::Acquire { request, wait: None })?),
    }
}

#[inline(never)]
fn acquire_or_wait(
    context: &mut Context<'_>,
    txn: &SharedTxn<'_>,
    name: &LockName,
    request: Request,
    wait: u64,
) -> Result<Reply, CommandError> {
    let until = txn.now().after(Ttl::from_millis(wait).ok());
    // Before others can see it in the queue: from then on, CLIENT UNBLOCK finds it.
    context.client.info().set_waiting(true);
    let acquired = txn.submit_or_wait(name, request, until);
    if !matches!(acquired, Ok(Acquired::Blocked(_))) {
        context.client.info().set_waiting(false);
    }
    match acquired? {
        Acquired::Now(outcome) => reply(outcome),
        Acquired::Blocked(blocked) => {
            context.waiting = Some(Box::new(Waiting::new(blocked, reply_after_wait)));
            Ok(Reply::Null)
        }
    }
}

fn meta(text: &[u8], bytes_max: usize) -> Result<Box<str>, CommandError> {
    if text.len() > bytes_max {
        return Err(CommandError::new(format!("ERR META exceeds {bytes_max} bytes")));
    }
    std::str::from_utf8(text).map(Box::from).map_err(|_| CommandError::fixed("ERR META must be UTF-8"))
}

fn reply(outcome: Outcome) -> Result<Reply, CommandError> {
    match outcome {
        Outcome::Granted { token, .. } => Ok(Reply::Integer(token.get())),
        Outcome::Refused(Refusal::OtherMode(held)) => Err(other_mode(held)),
        Outcome::Refused(Refusal::OtherSession) => Err(CommandError::fixed(
            "ERR owner already holds the lock under a different session or without one; release it first",
        )),
        _ => Ok(Reply::Null),
    }
}

#[cold]
fn other_mode(held: Mode) -> CommandError {
    let held = match held {
        Mode::Exclusive => "exclusive".to_owned(),
        Mode::Shared => "SHARED".to_owned(),
        Mode::Limit(n) => format!("LIMIT {n}"),
    };
    CommandError::new(format!(
        "ERR owner already holds the lock in another mode ({held}); release it first or request that mode"
    ))
}

/// The reply to a request that has waited.
fn reply_after_wait(outcome: Option<&WaitOutcome>) -> Reply {
    match outcome {
        Some(WaitOutcome::Granted(token, _)) => Reply::Integer(token.get()),
        _ => Reply::Null,
    }
}
