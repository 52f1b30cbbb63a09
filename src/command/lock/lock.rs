//! `LOCK key owner [EX s | PX ms] [WAIT ms] [SHARED | LIMIT n] [MAXHOLD ms] [DELAY ms] [SESSION id | CONN] [META text]`
//!
//! Integer: the fencing token. Null: not granted within WAIT.

use crate::command::{Args, Command, CommandError, Context, Flags, Group, KeyAccess, KeySpec, options};
use crate::domain::Ttl;
use crate::engine::{Acquired, AnyTxn, Blocked, WaitOutcome};
use crate::journal::Seq;
use crate::lock::{LeaseExtra, Mode, Op, Outcome, Refusal, Request};
use crate::reply::Reply;

pub(super) const LOCK: Command = Command::new("lock", -3, run)
    .group(Group::Lock)
    .flags(Flags::WRITE | Flags::DENYOOM | Flags::FAST | Flags::BLOCKING)
    .keys(KeySpec::first(KeyAccess::ReadWrite))
    .syntax(
        "key owner [EX seconds | PX milliseconds] [WAIT milliseconds] [SHARED | LIMIT n] \
         [MAXHOLD milliseconds] [DELAY milliseconds] [SESSION id | CONN] [META text]",
    )
    .summary(
        "Acquires a lock, waiting in FIFO order if asked to. Returns the fencing token, or \
         Null if the lock was not granted.",
    )
    .example("LOCK jobs:import worker-1 PX 30000 WAIT 5000");

/// Longest WAIT, in milliseconds; a longer one counts as this: 30 days.
const WAIT_MS_MAX: u64 = crate::domain::TTL_MS_MAX as u64;

#[derive(Default)]
struct Options {
    ttl: Option<Ttl>,
    wait: Option<u64>,
    mode: Option<Mode>,
    max_hold: Option<Ttl>,
    delay: Option<Ttl>,
    session: Option<crate::domain::SessionId>,
    conn: bool,
    meta: Option<Box<str>>,
}

fn parse(context: &Context<'_>, args: Args<'_>) -> Result<Options, CommandError> {
    let mut found = Options::default();
    let mut options = args.options(3);
    while let Some(arg) = options.next_arg() {
        let is = |name| options::is(arg, name);
        if is("ex") && found.ttl.is_none() {
            found.ttl = Some(context.ttl(options.value()?, 1000, "lock")?);
        } else if is("px") && found.ttl.is_none() {
            found.ttl = Some(context.ttl(options.value()?, 1, "lock")?);
        } else if is("wait") && found.wait.is_none() {
            let millis = u64::try_from(options.integer()?)
                .map_err(|_| CommandError::fixed("ERR WAIT must be 0 or more milliseconds"))?;
            found.wait = Some(millis.min(WAIT_MS_MAX));
        } else if is("shared") && found.mode.is_none() {
            found.mode = Some(Mode::Shared);
        } else if is("limit") && found.mode.is_none() {
            let n = u32::try_from(options.integer()?)
                .map_err(|_| CommandError::fixed("ERR LIMIT must be between 1 and 4294967295"))?;
            found.mode = Some(Mode::limit(n)?);
        } else if is("maxhold") && found.max_hold.is_none() {
            found.max_hold = Some(context.ttl(options.value()?, 1, "lock")?);
        } else if is("delay") && found.delay.is_none() {
            let arg = options.value()?;
            // No delay, said explicitly.
            if options::integer(arg)? != 0 {
                found.delay = Some(context.ttl(arg, 1, "lock")?);
            }
        } else if is("session") && found.session.is_none() && !found.conn {
            let id = options::session_id(options.value()?);
            found.session = Some(id.ok_or(CommandError::from(crate::engine::Unavailable::NoSession))?);
        } else if is("conn") && found.session.is_none() && !found.conn {
            found.conn = true;
        } else if is("meta") && found.meta.is_none() {
            found.meta = Some(meta(options.value()?, context.server.limits.meta_bytes_max)?);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(found)
}

fn meta(text: &[u8], bytes_max: usize) -> Result<Box<str>, CommandError> {
    if text.len() > bytes_max {
        return Err(CommandError::new(format!("ERR META exceeds {bytes_max} bytes")));
    }
    std::str::from_utf8(text).map(Box::from).map_err(|_| CommandError::fixed("ERR META must be UTF-8"))
}

fn run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.name(args.at(1))?;
    let owner = context.owner(args.at(2))?;
    let found = parse(context, args)?;
    let session = if found.conn { Some(context.connection_session()?) } else { found.session };
    let ttl = match (found.ttl, session) {
        // The session or the connection alone decides.
        (None, Some(_)) => None,
        (ttl, _) => ttl.or(Ttl::from_millis(u64::from(context.server.limits.ttl_ms_default)).ok()),
    };
    let request = Request {
        mode: found.mode.unwrap_or(Mode::Exclusive),
        origin: Some(context.client.origin()),
        ..Request::exclusive(owner, ttl)
    };
    let request = request.with(LeaseExtra {
        max_hold: found.max_hold,
        delay: found.delay,
        session,
        meta: found.meta,
        ..LeaseExtra::default()
    });
    let wait = found.wait.filter(|millis| *millis > 0);
    let (AnyTxn::Shared(txn), Some(wait)) = (context.txn, wait) else {
        return reply(context.txn.submit(&name, &Op::Acquire { request, wait: None })?);
    };
    let until = txn.now().after(Ttl::from_millis(wait).ok());
    match txn.submit_or_wait(&name, request, until)? {
        Acquired::Now(outcome) => reply(outcome),
        Acquired::Blocked(parked) => {
            context.parked = Some(parked);
            Ok(Reply::Null)
        }
    }
}

fn reply(outcome: Outcome) -> Result<Reply, CommandError> {
    match outcome {
        Outcome::Granted { token, .. } => Ok(Reply::Integer(token.get())),
        Outcome::Refused(Refusal::OtherMode(held)) => {
            let held = match held {
                Mode::Exclusive => "exclusive".to_owned(),
                Mode::Shared => "SHARED".to_owned(),
                Mode::Limit(n) => format!("LIMIT {n}"),
            };
            Err(CommandError::new(format!(
                "ERR owner already holds the lock in another mode ({held}); release it first or request that mode"
            )))
        }
        Outcome::Refused(Refusal::OtherSession) => Err(CommandError::fixed(
            "ERR owner already holds the lock under a different session or without one; release it first",
        )),
        _ => Ok(Reply::Null),
    }
}

/// The reply to a request that was parked, and what it has to wait for.
pub(in crate::command) async fn verdict(parked: &mut Blocked) -> (Reply, Seq) {
    let error = |error: CommandError| (Reply::from(error), Seq::default());
    match parked.outcome().await {
        WaitOutcome::Granted(token, seq) => (Reply::Integer(token.get()), seq),
        WaitOutcome::TimedOut(seq) => (Reply::Null, seq),
        WaitOutcome::SessionEnded(seq) => {
            (CommandError::from(crate::engine::Unavailable::NoSession).into(), seq)
        }
        WaitOutcome::Replaced => error(CommandError::fixed(
            "ERR superseded by a newer request of the same owner, which takes its place in the queue",
        )),
        WaitOutcome::Unavailable => {
            error(CommandError::fixed("MISCONF journal failed while the request was queued; retry"))
        }
    }
}
