//! Taking the locks of a command.
//!
//! Guarantees: several locks are taken in one order, so that two runs cannot wait for each other.
//! Those that are held are renewed during the wait for the others. Afterwards either all are held,
//! under a lease that need not be renewed yet, or none is.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinHandle;

use super::options::{Options, Wait};
use super::progress::Progress;
use super::renewer::{Lock, Renewal, Renewer};
use super::schedule::{Lease, Timing};
use super::signals::Signals;
use super::{say, until};
use crate::cli::client::{Failure, Reply, Target, integer};
use crate::clock::Clock;
use crate::domain::Timestamp;

/// How long the server may take to answer a request that does not wait.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two attempts to reach a server that was reached before.
const RETRY: Duration = Duration::from_millis(250);
/// Errors that pass: the same request may be granted later.
const PASSING_ERRORS: [&str; 8] =
    ["UNKNOWN", "MISCONF", "BUSY", "LOADING", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN", "MOVED"];
/// The WAIT of a run that waits without a limit: that of the server.
const WAIT_MS_MAX: u64 = i64::MAX as u64;

/// Why the locks are not held.
#[derive(Debug)]
pub(super) enum NotAcquired {
    /// Others held this lock for too long.
    Held(Vec<u8>),
    /// The server cannot be reached.
    Unavailable(String),
    /// The server refuses the request.
    Refused(String),
    /// A signal asked to end.
    Interrupted(Signal),
}

/// Locks that are held.
pub(super) struct Acquired {
    /// In the order of the keys in [`Options::keys`].
    pub(super) locks: Vec<Lock>,
    pub(super) lease: Lease,
    pub(super) renewer: Renewer,
}

/// Takes the locks.
pub(super) async fn acquire(
    options: &Options,
    target: &Arc<Target>,
    clock: &Clock,
    signals: &mut Signals,
) -> Result<Acquired, NotAcquired> {
    let gives_up = match options.wait {
        Wait::Try => clock.now(),
        Wait::For(time) => later(clock.now(), time),
        Wait::Forever => Timestamp::NEVER,
    };
    let connecting = target.connect(ANSWER_MAX);
    let connection = tokio::select! {
        connection = connecting => connection.map_err(|failure| NotAcquired::Unavailable(failure.to_string()))?,
        signal = signals.next_to_end() => return Err(NotAcquired::Interrupted(signal)),
    };
    let timing = Timing::new(options.ttl, options.grace);
    let renewer = Renewer::new(target, connection, &options.owner, options.ttl, timing.attempt());
    let mut acquisition = Acquisition {
        options,
        target,
        clock,
        signals,
        timing,
        gives_up,
        renewer,
        locks: Vec::new(),
        lease: None,
    };
    let outcome = acquisition.take_all().await;
    match (outcome, acquisition.lease) {
        (Ok(()), Some(lease)) => {
            Ok(Acquired { locks: acquisition.locks, lease, renewer: acquisition.renewer })
        }
        (Ok(()), None) => Err(NotAcquired::Refused("there is no key".to_owned())),
        (Err(reason), _) => {
            match reason {
                NotAcquired::Held(_) | NotAcquired::Refused(_) => acquisition.release().await,
                NotAcquired::Unavailable(_) | NotAcquired::Interrupted(_) => acquisition.withdraw().await,
            }
            Err(reason)
        }
    }
}

/// An acquisition under way.
struct Acquisition<'a> {
    options: &'a Options,
    target: &'a Arc<Target>,
    clock: &'a Clock,
    signals: &'a mut Signals,
    timing: Timing,
    gives_up: Timestamp,
    renewer: Renewer,
    locks: Vec<Lock>,
    lease: Option<Lease>,
}

/// A request that has not been answered. Dropping it closes its connection, which withdraws it.
struct Request {
    sent: Timestamp,
    task: JoinHandle<Result<Reply, Failure>>,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What happened during a wait.
enum Event {
    /// The reply to the request that was sent at this time.
    Answered(Timestamp, Result<Reply, Failure>),
    /// The locks that are held were renewed.
    Renewed,
    /// A lock that was held is lost.
    Lost,
    /// The time has come.
    Due,
}

impl Acquisition<'_> {
    async fn take_all(&mut self) -> Result<(), NotAcquired> {
        loop {
            match self.options.keys.get(self.locks.len()) {
                Some(key) => self.take(key).await?,
                None if self.is_fresh() => return Ok(()),
                None => self.renew().await?,
            }
        }
    }

    fn is_fresh(&self) -> bool {
        self.lease.is_some_and(|lease| lease.is_fresh(self.clock.now()))
    }

    /// Takes one more lock. If one of those that are held is lost meanwhile, none is held
    /// afterwards.
    async fn take(&mut self, key: &[u8]) -> Result<(), NotAcquired> {
        let _progress = Progress::start(self.target, key, &self.options.owner);
        let mut request = self.request(key);
        let mut has_failed = false;
        loop {
            match self.event(Some(&mut request), Timestamp::NEVER).await? {
                Event::Answered(sent, Ok(reply)) => match integer(Some(&reply)) {
                    Some(token) => {
                        self.locks.push(Lock { key: key.to_vec(), token });
                        let granted = || Lease::granted(self.timing, sent);
                        self.lease = Some(self.lease.map_or_else(granted, |lease| lease.joined(sent)));
                        return Ok(());
                    }
                    // The server has a longest WAIT.
                    None if self.options.wait == Wait::Forever => request = self.request(key),
                    None => return Err(NotAcquired::Held(key.to_vec())),
                },
                Event::Answered(_, Err(failure)) => {
                    let reason = failure.to_string();
                    self.may_retry(failure)?;
                    if !has_failed {
                        say(format_args!("{reason}; trying again"));
                        has_failed = true;
                    }
                    if let Event::Lost = self.event(None, later(self.clock.now(), RETRY)).await? {
                        self.withdraw().await;
                        return Ok(());
                    }
                    request = self.request(key);
                }
                Event::Lost => {
                    drop(request);
                    self.withdraw().await;
                    return Ok(());
                }
                Event::Renewed | Event::Due => {}
            }
        }
    }

    /// Sends a LOCK on a connection of its own, which it may have to itself for long.
    fn request(&self, key: &[u8]) -> Request {
        let now = self.clock.now();
        let left_ms = self.gives_up.millis_left(now).map_or(WAIT_MS_MAX, |left| left.min(WAIT_MS_MAX));
        let mut words = vec![b"LOCK".to_vec(), key.to_vec(), self.options.owner.clone()];
        words.extend([b"PX".to_vec(), self.options.ttl.as_millis().to_string().into_bytes()]);
        words.extend(self.options.mode.iter().cloned());
        if left_ms > 0 {
            words.extend([b"WAIT".to_vec(), left_ms.to_string().into_bytes()]);
        }
        // If the server does not answer when the wait is over, it has stopped.
        let answers_within = Duration::from_millis(left_ms).saturating_add(ANSWER_MAX);
        let target = Arc::clone(self.target);
        let task = async move {
            let mut connection = target.connect(ANSWER_MAX).await?;
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            connection.call_within(answers_within, &words).await
        };
        Request { sent: now, task: tokio::spawn(task) }
    }

    /// Whether the request may be sent again after this failure.
    fn may_retry(&self, failure: Failure) -> Result<(), NotAcquired> {
        let is_over = self.clock.now() >= self.gives_up;
        match failure {
            Failure::Unavailable(reason) if is_over => Err(NotAcquired::Unavailable(reason)),
            Failure::Unavailable(_) => Ok(()),
            Failure::Refused(reason) => {
                let code = reason.split(' ').next().unwrap_or_default();
                let passes = PASSING_ERRORS.contains(&code) && !is_over;
                if passes { Ok(()) } else { Err(NotAcquired::Refused(reason)) }
            }
        }
    }

    /// Waits until the request is answered, a lock is lost, or `due`. Renews what is held.
    async fn event(
        &mut self,
        mut request: Option<&mut Request>,
        due: Timestamp,
    ) -> Result<Event, NotAcquired> {
        loop {
            let now = self.clock.now();
            if now >= due {
                return Ok(Event::Due);
            }
            let renew_at = self.lease.map_or(Timestamp::NEVER, |lease| lease.renew_at());
            if let (true, Some(lease)) = (now >= renew_at, &mut self.lease) {
                lease.renewing();
                self.renewer.begin(&self.locks, now);
                continue;
            }
            let answer = async {
                match &mut request {
                    Some(request) => (request.sent, (&mut request.task).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (sent, answer) = answer => {
                    let failed = |error| Err(Failure::Unavailable(format!("{error}")));
                    return Ok(Event::Answered(sent, answer.unwrap_or_else(failed)));
                }
                (sent, renewal) = self.renewer.done() => match (renewal, &mut self.lease) {
                    (Renewal::Confirmed, Some(lease)) => {
                        lease.renewed(sent);
                        return Ok(Event::Renewed);
                    }
                    (Renewal::Lost(_), _) => return Ok(Event::Lost),
                    (_, Some(lease)) => lease.not_renewed(self.clock.now()),
                    (_, None) => {}
                },
                signal = self.signals.next_to_end() => return Err(NotAcquired::Interrupted(signal)),
                () = until(self.clock, due.min(renew_at)) => {}
            }
        }
    }

    /// Renews, so that the lease counts from a known moment: the request of a lock that was waited
    /// for was sent long before the grant.
    async fn renew(&mut self) -> Result<(), NotAcquired> {
        let fails_at = later(self.clock.now(), ANSWER_MAX);
        if let Some(lease) = &mut self.lease {
            lease.renew_now(self.clock.now());
        }
        match self.event(None, fails_at).await? {
            Event::Lost => {
                self.release().await;
                Ok(())
            }
            Event::Due if self.clock.now() >= self.gives_up => {
                Err(NotAcquired::Unavailable("the lease was not renewed in time".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Releases what is held, and what was requested last: it may have been granted.
    async fn withdraw(&mut self) {
        if let Some(key) = self.options.keys.get(self.locks.len()) {
            self.renewer.withdraw(key).await;
        }
        self.release().await;
    }

    async fn release(&mut self) {
        if !self.locks.is_empty() {
            self.renewer.release(&self.locks).await;
        }
        self.locks.clear();
        self.lease = None;
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
    Timestamp::from_nanos(time.as_nanos().saturating_add(nanos))
}
