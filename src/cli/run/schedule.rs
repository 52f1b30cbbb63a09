//! When to renew a lease, and when the command must end because the lease will.
//!
//! Guarantees: a pure function of the times and events given to it. With [`OnLost::Kill`], SIGKILL
//! is due [`Timing::kill_reserve`] before the first moment at which the server could end the lease.
//! A lease counts from before its request was sent, and only a reply extends it. Not here: clocks,
//! sockets, processes.

use std::time::Duration;

use crate::domain::Timestamp;

/// Shortest TTL: below, a busy machine may not get to renew in time.
pub(super) const TTL_MIN: Duration = Duration::from_secs(1);

/// What happens to a command whose lease cannot be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnLost {
    /// SIGTERM, then SIGKILL, before the lease ends.
    Kill,
    /// SIGTERM only. The command may run longer than the lease.
    Term,
    /// Nothing.
    Ignore,
}

/// The fixed times of a run, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    ttl: u64,
    /// Between SIGTERM and SIGKILL.
    grace: u64,
}

impl Timing {
    /// `grace` is at most a third of the TTL: the first third passes before the renewal, and the
    /// second is for attempts to renew.
    pub(super) fn new(ttl: Duration, grace: Duration) -> Timing {
        let ttl = nanos(ttl);
        Timing { ttl, grace: nanos(grace).min(ttl / 3) }
    }

    /// How long SIGKILL may take to end a process.
    fn kill_reserve(self) -> u64 {
        (self.ttl / 10).min(1_000_000_000)
    }

    /// Between a failed attempt to renew and the next one.
    fn retry(self) -> u64 {
        (self.ttl / 30).min(500_000_000)
    }

    /// How long one attempt may take. Two fit between the renewal and SIGTERM.
    pub(super) fn attempt(self) -> Duration {
        Duration::from_nanos((self.ttl / 9).min(5_000_000_000))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn plus(time: Timestamp, nanos: u64) -> Timestamp {
    Timestamp::from_nanos(time.as_nanos().saturating_add(nanos))
}

fn minus(time: Timestamp, nanos: u64) -> Timestamp {
    Timestamp::from_nanos(time.as_nanos().saturating_sub(nanos))
}

/// A lease as its holder knows it: of one lock, or the shortest of several.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    timing: Timing,
    /// The server does not end the lease before.
    end: Timestamp,
    renew_at: Timestamp,
    is_renewing: bool,
}

impl Lease {
    /// A lease that was granted for a request sent at `sent`.
    pub(super) fn granted(timing: Timing, sent: Timestamp) -> Lease {
        Lease {
            timing,
            end: plus(sent, timing.ttl),
            renew_at: plus(sent, timing.ttl / 3),
            is_renewing: false,
        }
    }

    /// The lease of these locks and of another, granted for a request sent at `sent`.
    pub(super) fn joined(self, sent: Timestamp) -> Lease {
        let other = Lease::granted(self.timing, sent);
        Lease { end: self.end.min(other.end), renew_at: self.renew_at.min(other.renew_at), ..self }
    }

    /// The first moment at which the server could end the lease.
    pub(super) fn end(&self) -> Timestamp {
        self.end
    }

    /// Whether the lease has so much time before it that it need not be renewed yet.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now < minus(self.end, self.timing.ttl / 3 * 2)
    }

    /// Makes a renewal due, unless one is under way.
    pub(super) fn renew_now(&mut self, now: Timestamp) {
        self.renew_at = self.renew_at.min(now);
    }

    /// When to renew; [`Timestamp::NEVER`] during an attempt.
    pub(super) fn renew_at(&self) -> Timestamp {
        if self.is_renewing { Timestamp::NEVER } else { self.renew_at }
    }

    /// An attempt to renew begins.
    pub(super) fn renewing(&mut self) {
        self.is_renewing = true;
    }

    /// The server has confirmed the renewal of every lock, in reply to requests sent at `sent`.
    pub(super) fn renewed(&mut self, sent: Timestamp) {
        self.is_renewing = false;
        self.end = self.end.max(plus(sent, self.timing.ttl));
        self.renew_at = plus(sent, self.timing.ttl / 3);
    }

    /// The attempt brought no such reply.
    pub(super) fn not_renewed(&mut self, now: Timestamp) {
        self.is_renewing = false;
        self.renew_at = plus(now, self.timing.retry());
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Renew the lease.
    Renew,
    /// Send SIGTERM to the process group.
    Terminate,
    /// Send SIGKILL to the process group.
    Kill,
    /// Nothing until then, or until an event.
    Wait(Timestamp),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// SIGTERM was sent. SIGKILL is due at this time, or before the lease ends.
    Terminating(Timestamp),
    Killed,
}

/// A command that runs under a lease.
#[derive(Debug)]
pub(super) struct Schedule {
    lease: Lease,
    on_lost: OnLost,
    phase: Phase,
    /// The lease could not be renewed in time, or the server has ended it.
    has_lost_lease: bool,
    /// The first process of the group has ended.
    has_ended: bool,
}

impl Schedule {
    /// A command that is about to start.
    pub(super) fn new(lease: Lease, on_lost: OnLost) -> Schedule {
        Schedule { lease, on_lost, phase: Phase::Running, has_lost_lease: false, has_ended: false }
    }

    /// The lease.
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether the lease is lost, or had to be given up.
    pub(super) fn has_lost_lease(&self) -> bool {
        self.has_lost_lease
    }

    /// What to do now. Each step is returned once.
    pub(super) fn next(&mut self, now: Timestamp) -> Step {
        let timing = self.lease.timing;
        let kill_at = minus(self.lease.end, timing.kill_reserve());
        let terminate_at = minus(kill_at, timing.grace);
        let must_kill_in_time = self.on_lost == OnLost::Kill;
        self.has_lost_lease |= now >= terminate_at;
        if must_kill_in_time && self.phase != Phase::Killed && now >= kill_at {
            return self.kill();
        }
        match self.phase {
            Phase::Running if self.has_ended => {
                self.phase = Phase::Terminating(plus(now, timing.grace));
                return Step::Terminate;
            }
            Phase::Running if self.has_lost_lease && self.on_lost != OnLost::Ignore => {
                self.phase = Phase::Terminating(Timestamp::NEVER);
                return Step::Terminate;
            }
            Phase::Terminating(kill) if now >= kill => return self.kill(),
            _ => {}
        }
        if !self.has_lost_lease && now >= self.lease.renew_at() {
            self.lease.renewing();
            return Step::Renew;
        }
        let mut until =
            if self.has_lost_lease { Timestamp::NEVER } else { terminate_at.min(self.lease.renew_at()) };
        if let Phase::Terminating(kill) = self.phase {
            until = until.min(kill);
        }
        if must_kill_in_time && self.phase != Phase::Killed {
            until = until.min(kill_at);
        }
        Step::Wait(until)
    }

    fn kill(&mut self) -> Step {
        self.phase = Phase::Killed;
        Step::Kill
    }

    /// See [`Lease::renewed`]. A lease that was given up stays so.
    pub(super) fn renewed(&mut self, sent: Timestamp) {
        if !self.has_lost_lease {
            self.lease.renewed(sent);
        }
    }

    /// See [`Lease::not_renewed`].
    pub(super) fn not_renewed(&mut self, now: Timestamp) {
        self.lease.not_renewed(now);
    }

    /// The server has ended the lease. Another client may hold the lock, so nothing is left to wait
    /// for.
    pub(super) fn lost(&mut self) {
        self.has_lost_lease = true;
        self.lease.end = Timestamp::from_nanos(0);
    }

    /// The first process has ended. The rest of its group gets SIGTERM, and SIGKILL after the
    /// grace period.
    pub(super) fn ended(&mut self) {
        self.has_ended = true;
    }
}

#[cfg(test)]
mod tests;
