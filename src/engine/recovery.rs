//! Recovery: the table as the journal has it, at the start and after a failed commit.
//!
//! Guarantees: states that no server of ours could have left are refused. After a failure tokens go
//! on from the last one taken, so none is issued twice. A long recovery says how far it is, every
//! second. Not here: storage.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::keyspace::{Content, KeyedValue, Table};
use super::sessions::MemberKind;
use super::{Core, WaitOutcome};
use crate::clock::Clock;
use crate::domain::{FencingToken, LockName, Timestamp, Ttl};
use crate::journal::{Backend, JournalError, Record, Recover, StoredLease, StoredValue};
use crate::lock::Delay;
use crate::value::{Malformed, Value};

/// Records read between two looks at the clock.
const RECORDS_PER_LOOK: usize = 4096;
/// Time between two lines of progress.
const PROGRESS_MS: u64 = 1000;

/// Tells the operator how far recovery is.
pub(super) struct Progress<'a> {
    clock: &'a Clock,
    next_line: Timestamp,
}

impl Progress<'_> {
    pub(super) fn new(clock: &Clock) -> Progress<'_> {
        Progress { clock, next_line: Progress::line_after(clock.now()) }
    }

    /// Records the total number of records read so far.
    pub(super) fn record(&mut self, records: usize) {
        if !records.is_multiple_of(RECORDS_PER_LOOK) {
            return;
        }
        let now = self.clock.now();
        if now >= self.next_line {
            self.next_line = Progress::line_after(now);
            tracing::info!("recovering: {records} records read so far");
        }
    }

    fn line_after(now: Timestamp) -> Timestamp {
        now.after(Ttl::from_millis(PROGRESS_MS).ok())
    }
}

impl Core {
    /// Puts recovered records into an empty table. States that no server of ours could have left are
    /// passed to `refuse` and left out, unless it returns the error.
    pub(super) fn restore(
        &self,
        table: &mut Table,
        records: Vec<Record>,
        tokens_reserved: i64,
        refuse: &mut dyn FnMut(JournalError) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        self.sessions.clear();
        self.scripts.clear();
        self.deadlines.clear();
        self.lock_stats.clear();
        self.value_stats.clear();
        self.quotas.clear();
        // A clock that went back although the machine did not restart, as in a container that was
        // moved, makes nothing longer.
        let now = self.clock.now();
        let mut records = records.into_iter().peekable();
        while let Some(record) = records.next() {
            let restored = match record {
                Record::Session(mut session) => {
                    session.deadline = session.deadline.min(now.after(session.ttl));
                    self.sessions.put(session);
                    Ok(())
                }
                Record::ScriptPut { sha, body } => {
                    self.scripts.restore(sha, body);
                    Ok(())
                }
                Record::DelayStarted(name, delay) => self.restore_delay(table, &name, delay, now),
                Record::Granted(stored) => is_issued(stored.lease.token, tokens_reserved)
                    .and_then(|()| self.restore_lease(table, stored, now)),
                Record::ValuePut(stored) => {
                    let id = stored.id;
                    let mut elements = std::iter::from_fn(|| {
                        let is_own =
                            |record: &Record| matches!(record, Record::Element { id: of, .. } if *of == id);
                        match records.next_if(is_own)? {
                            Record::Element { field, value: Some(value), .. } => Some((field, value)),
                            _ => None,
                        }
                    });
                    let value = Value::restore(stored.kind, &mut elements);
                    // Those that a value which cannot be restored has left.
                    elements.for_each(drop);
                    is_issued(stored.token.max(stored.id), tokens_reserved)
                        .and_then(|()| self.restore_value(table, *stored, value, now))
                }
                other => Err(JournalError::Corrupt { what: format!("not a state: {other:?}") }),
            };
            restored.or_else(&mut *refuse)?;
        }
        Ok(())
    }

    fn restore_delay(
        &self,
        table: &Table,
        name: &LockName,
        mut delay: Delay,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        delay.until = delay.until.min(now.after(Some(delay.length)));
        let fits = self.restore_into(table, name, now, |content| match content {
            Content::Lock(slot) => {
                slot.restore_delay(delay);
                true
            }
            Content::Value(_) => false,
        });
        if !fits {
            return Err(corrupt(format!("{name:?}: a value and a delay")));
        }
        self.lock_stats.delay_restored();
        Ok(())
    }

    fn restore_lease(&self, table: &Table, stored: StoredLease, now: Timestamp) -> Result<(), JournalError> {
        let StoredLease { name, mut lease } = stored;
        lease.deadline = lease.deadline.min(now.after(lease.effective_ttl));
        let (session, counted_by) = (lease.session(), lease.counted_by());
        if let Some(account) = lease.account() {
            self.quotas.add(account);
        }
        let fits = self.restore_into(table, &name, now, |content| {
            let Content::Lock(slot) = content else { return false };
            let mixes = slot.newest().is_none_or(|held| held.mode.mixes_with(lease.mode));
            let fits = mixes && slot.lease_of(&lease.owner).is_none();
            if fits {
                slot.restore(lease);
            }
            fits
        });
        if !fits {
            return Err(corrupt(format!("two leases of {name:?} that exclude each other, or a value")));
        }
        self.lock_stats.lease_restored();
        if let Some(session) = session {
            // If its session is over, the first sweep frees it.
            self.sessions.attach(session, &name, MemberKind::Lease);
        }
        if let Some(session) = counted_by {
            self.sessions.count(session, &name, true);
        }
        Ok(())
    }

    fn restore_value(
        &self,
        table: &Table,
        stored: StoredValue,
        value: Result<Value, Malformed>,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let StoredValue { id, token, name, ttl, deadline, .. } = stored;
        let value = value.map_err(|why| corrupt(format!("{name:?}: {why}")))?;
        if value.is_empty() {
            return Err(corrupt(format!("{name:?}: a value without elements")));
        }
        let deadline = deadline.min(now.after(ttl));
        let keyed = Box::new(KeyedValue { name, id, token, ttl, deadline, value: Arc::new(value) });
        let (name, bytes) = (keyed.name.clone(), keyed.bytes());
        let fits = self.restore_into(table, &name, now, |content| {
            let fits = content.is_vacant();
            if fits {
                *content = Content::Value(keyed);
            }
            fits
        });
        if !fits {
            return Err(corrupt(format!("{name:?}: a value and something else")));
        }
        self.value_stats.added(bytes);
        Ok(())
    }

    fn restore_into<R>(
        &self,
        table: &Table,
        name: &LockName,
        now: Timestamp,
        work: impl FnOnce(&mut Content) -> R,
    ) -> R {
        table.with_key(self.hash.of(name), name, |mut key| {
            let before = key.content.deadline();
            let result = work(key.content);
            self.lock_stats.key_changed(name.database(), before, key.content.deadline());
            self.deadlines.rearm(&mut key, now);
            result
        })
    }

    /// Replaces the table by what is durable, after a failed commit.
    fn rebuild_table(&self, backend: &mut dyn Backend, epoch: u64) -> Result<(), JournalError> {
        let mut found = Vec::new();
        let loaded =
            backend.load(self.config.boot.as_deref(), self.clock.now(), &mut |record| found.push(record))?;
        // Writing must work again, too.
        backend.commit(&[Record::TokensReserved(self.tokens.reserved())])?;
        let mut table = self.table.close_in_time(|| self.clock.now());
        let mut fresh = Table::new(epoch);
        self.restore(&mut fresh, found, loaded.tokens_reserved, &mut Err)?;
        self.tokens.after_failure();
        let stale = std::mem::replace(&mut *table, fresh);
        self.epoch.store(epoch, Ordering::Release);
        drop(table);
        drop(stale);
        self.watches.all_changed();
        Ok(())
    }
}

fn corrupt(what: String) -> JournalError {
    JournalError::Corrupt { what }
}

/// Fails if a token that exists was never reserved.
fn is_issued(token: FencingToken, tokens_reserved: i64) -> Result<(), JournalError> {
    if token.get() > tokens_reserved {
        let token = token.get();
        return Err(corrupt(format!("token {token} exists, and none above {tokens_reserved} was issued")));
    }
    Ok(())
}

impl Recover for Arc<Core> {
    /// Tells all waiters to ask again: their requests are lost, the outage may last, and no request
    /// can join a queue meanwhile.
    fn suspend(&mut self) {
        self.pops.clear();
        self.waiters.notify_all(&WaitOutcome::Unavailable);
        self.suspended.notify_waiters();
    }

    fn rebuild(&mut self, backend: &mut dyn Backend, epoch: u64) -> Result<(), JournalError> {
        self.rebuild_table(backend, epoch)
    }
}
