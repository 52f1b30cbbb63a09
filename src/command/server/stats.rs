//! The totals that INFO shows, which CONFIG RESETSTAT restarts at 0.
//!
//! Guarantees: the counters themselves only grow, as readers of `/metrics` expect; INFO subtracts
//! what they were at the last reset.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::command::ServerState;
use crate::domain::Timestamp;

/// Units of work to read all totals.
pub(super) const STATS_WORK: usize = 1000;

/// The totals that INFO shows.
#[derive(Default)]
pub struct ServerStats(Mutex<State>);

#[derive(Default)]
struct State {
    at_reset: Totals,
    rate: Rate,
}

/// The commands per second, measured from one INFO to a later one.
#[derive(Default)]
struct Rate {
    measured_at: Timestamp,
    commands: u64,
    per_second: u64,
}

/// Time over which a rate is measured at least.
const RATE_MS: u64 = 1000;

/// Totals since the start, or since the last reset.
#[derive(Default, Clone)]
pub(super) struct Totals {
    pub(super) connections: u64,
    pub(super) refused_connections: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) commands: u64,
    pub(super) failed_logins: u64,
    pub(super) expired_keys: u64,
    pub(super) lookup_hits: u64,
    pub(super) lookup_misses: u64,
    pub(super) by_command: BTreeMap<&'static str, CommandTotals>,
}

/// The totals of one command.
#[derive(Default, Clone, Copy)]
pub(super) struct CommandTotals {
    pub(super) calls: u64,
    pub(super) micros: u64,
    pub(super) errors: u64,
}

impl Totals {
    /// Totals since the start.
    fn read(server: &ServerState) -> Totals {
        let (metrics, engine) = (&server.metrics, &server.engine);
        let mut by_command: BTreeMap<&'static str, CommandTotals> = BTreeMap::new();
        for (name, times) in metrics.commands.times() {
            let times = times.read();
            let totals = by_command.entry(name).or_default();
            (totals.calls, totals.micros) = (times.count, times.sum / 1000);
        }
        for (name, errors) in metrics.commands.errors() {
            by_command.entry(name).or_default().errors = errors;
        }
        Totals {
            connections: metrics.redis.opened(),
            refused_connections: metrics.redis.refused(),
            received_bytes: metrics.redis.received.read(),
            sent_bytes: metrics.redis.sent.read(),
            commands: server.commands_run.read(),
            failed_logins: metrics.failed_logins.read(),
            expired_keys: engine.lock_stats().totals().expiries + engine.value_stats().expiries.read(),
            lookup_hits: server.lookups.hits.read(),
            lookup_misses: server.lookups.misses.read(),
            by_command,
        }
    }

    fn since(mut self, earlier: &Totals) -> Totals {
        self.connections -= earlier.connections.min(self.connections);
        self.refused_connections -= earlier.refused_connections.min(self.refused_connections);
        self.received_bytes -= earlier.received_bytes.min(self.received_bytes);
        self.sent_bytes -= earlier.sent_bytes.min(self.sent_bytes);
        self.commands -= earlier.commands.min(self.commands);
        self.failed_logins -= earlier.failed_logins.min(self.failed_logins);
        self.lookup_hits -= earlier.lookup_hits.min(self.lookup_hits);
        self.lookup_misses -= earlier.lookup_misses.min(self.lookup_misses);
        self.expired_keys -= earlier.expired_keys.min(self.expired_keys);
        for (name, totals) in &mut self.by_command {
            let earlier = earlier.by_command.get(name).copied().unwrap_or_default();
            totals.calls -= earlier.calls.min(totals.calls);
            totals.micros -= earlier.micros.min(totals.micros);
            totals.errors -= earlier.errors.min(totals.errors);
        }
        self
    }
}

impl ServerStats {
    /// The totals since the last reset.
    pub(super) fn totals(&self, server: &ServerState) -> Totals {
        let totals = Totals::read(server);
        totals.since(&self.0.lock().at_reset)
    }

    /// Restarts the totals at 0.
    pub(super) fn reset(&self, server: &ServerState) {
        let totals = Totals::read(server);
        self.0.lock().at_reset = totals;
    }

    /// Commands per second since this was last asked, or since the start; measured over a second at
    /// least.
    pub(super) fn commands_per_second(&self, server: &ServerState) -> u64 {
        let (now, commands) = (server.engine.clock().now(), server.commands_run.read());
        let rate = &mut self.0.lock().rate;
        let since = rate.measured_at.max(server.info.started);
        let millis = now.millis_since(since);
        if millis >= RATE_MS {
            let per_second = commands.saturating_sub(rate.commands).saturating_mul(1000) / millis;
            *rate = Rate { measured_at: now, commands, per_second };
        }
        rate.per_second
    }
}
