//! What a database holds, and what is wrong with it, without a server.
//!
//! Guarantees: a state is found to be good if and only if a server that starts with it accepts it and
//! every lock keeps its invariants. Not here: storage.

use std::collections::HashSet;

use super::keyspace::{Content, Table};
use super::{Core, EngineConfig};
use crate::clock::Clock;
use crate::domain::{DATABASES, LockName, Timestamp};
use crate::entropy::Entropy;
use crate::journal::{Durability, Loaded, Record};
use crate::lock::invariants;

/// What [`examine`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// Keys that exist.
    pub keys: u64,
    /// Open sessions.
    pub sessions: usize,
    /// No token above this one has been issued.
    pub tokens_reserved: i64,
    /// What is wrong.
    pub findings: Vec<String>,
}

/// Examines a state that was loaded from a database.
pub fn examine(records: Vec<Record>, loaded: &Loaded) -> Examination {
    // A clock at its start, at which no deadline has passed.
    let clock = Clock::manual();
    let core = Core::new(clock, config(), loaded);
    let locks: HashSet<LockName> = records.iter().filter_map(lock_of).cloned().collect();
    let mut findings = Vec::new();
    let mut table = core.table.close_in_time(|| core.clock.now());
    let restored = core.restore(&mut table, records, loaded.tokens_reserved, &mut |fault| {
        findings.push(fault.what());
        Ok(())
    });
    findings.extend(restored.err().map(|fault| fault.to_string()));
    let broken = locks.iter().filter_map(|name| broken_invariant(&core, &table, name));
    findings.extend(broken);
    let keys = (0..DATABASES).map(|database| core.lock_stats.keys(database)).sum();
    Examination { keys, sessions: core.sessions.len(), tokens_reserved: loaded.tokens_reserved, findings }
}

/// Nothing is granted, so that no limit matters.
fn config() -> EngineConfig {
    EngineConfig {
        durability: Durability::Memory,
        locks_max: 0,
        sessions_max: 0,
        waiters_per_lock_max: 0,
        leases_per_account_max: 0,
        values_bytes_max: 0,
        value_elements_max: 0,
        token_floor: 0,
        boot: None,
        entropy: Entropy::system(),
    }
}

fn lock_of(record: &Record) -> Option<&LockName> {
    match record {
        Record::Granted(stored) => Some(&stored.name),
        Record::DelayStarted(name, _) => Some(name),
        _ => None,
    }
}

fn broken_invariant(core: &Core, table: &Table, name: &LockName) -> Option<String> {
    table
        .with_key(core.hash.of(name), name, |key| match key.content {
            Content::Lock(slot) => invariants::check(slot, Timestamp::default()).err(),
            Content::Value(_) => None,
        })
        .map(|invariant| format!("{name:?}: broken: {invariant}"))
}
