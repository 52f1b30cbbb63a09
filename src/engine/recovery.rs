//! Recovery: the table as the journal has it, at the start and after a failed commit.
//!
//! Guarantees: states that no server of ours could have left are refused. After a failure tokens go
//! on from the last one taken, so none is issued twice. A long recovery says how far it is, every
//! second. Not here: storage.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::keyspace::Table;
use super::sessions::MemberKind;
use super::{Core, WaitOutcome};
use crate::clock::Clock;
use crate::domain::{LockName, Timestamp, Ttl};
use crate::journal::{Backend, JournalError, Record, Recover, StoredLease};
use crate::lock::Slot;

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
    /// Puts recovered records into an empty table. Refuses states that no server of ours could have
    /// left.
    pub(super) fn restore(
        &self,
        table: &mut Table,
        records: Vec<Record>,
        tokens_reserved: i64,
    ) -> Result<(), JournalError> {
        self.sessions.clear();
        self.deadlines.clear();
        self.lock_stats.clear();
        self.quotas.clear();
        // A clock that went back although the machine did not restart, as in a container that was
        // moved, makes nothing longer.
        let now = self.clock.now();
        for record in records {
            match record {
                Record::Session(mut session) => {
                    session.deadline = session.deadline.min(now.after(session.ttl));
                    self.sessions.put(session);
                }
                Record::DelayStarted(name, mut delay) => {
                    delay.until = delay.until.min(now.after(Some(delay.length)));
                    self.restore_into(table, &name, now, |slot| slot.restore_delay(delay));
                    self.lock_stats.delay_restored();
                }
                Record::Granted(stored) => {
                    let StoredLease { name, mut lease } = *stored;
                    lease.deadline = lease.deadline.min(now.after(lease.effective_ttl));
                    let token = lease.token.get();
                    if token > tokens_reserved {
                        let what =
                            format!("token {token} is held, and none above {tokens_reserved} was issued");
                        return Err(JournalError::Corrupt { what });
                    }
                    let (session, counted_by) = (lease.session(), lease.counted_by());
                    if let Some(account) = lease.account() {
                        self.quotas.add(account);
                    }
                    let fits = self.restore_into(table, &name, now, |slot| {
                        let mixes = slot.newest().is_none_or(|held| held.mode.mixes_with(lease.mode));
                        let fits = mixes && slot.lease_of(&lease.owner).is_none();
                        if fits {
                            slot.restore(lease);
                        }
                        fits
                    });
                    if !fits {
                        return Err(JournalError::Corrupt {
                            what: format!("two leases of {name:?} that exclude each other"),
                        });
                    }
                    self.lock_stats.lease_restored();
                    if let Some(session) = session {
                        // If its session is over, the first sweep frees it.
                        self.sessions.attach(session, &name, MemberKind::Lease);
                    }
                    if let Some(session) = counted_by {
                        self.sessions.count(session, &name, true);
                    }
                }
                other => return Err(JournalError::Corrupt { what: format!("not a state: {other:?}") }),
            }
        }
        Ok(())
    }

    fn restore_into<R>(
        &self,
        table: &Table,
        name: &LockName,
        now: Timestamp,
        work: impl FnOnce(&mut Slot) -> R,
    ) -> R {
        table.with_slot(self.hash.of(name), name, |mut guarded| {
            let was_held = guarded.slot.newest().is_some();
            let result = work(guarded.slot);
            self.lock_stats.key_changed(name.database(), was_held, guarded.slot.newest().is_some());
            self.deadlines.rearm(&mut guarded, now);
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
        let mut table = self.write();
        let mut fresh = Table::new(epoch);
        self.restore(&mut fresh, found, loaded.tokens_reserved)?;
        self.tokens.after_failure();
        *table = fresh;
        self.epoch.store(epoch, Ordering::Release);
        drop(table);
        self.watches.all_changed();
        self.sessions.has_orphans.store(true, Ordering::Release);
        Ok(())
    }
}

impl Recover for Arc<Core> {
    /// Tells all waiters to ask again: their requests are lost, the outage may last, and no request
    /// can join a queue meanwhile.
    fn suspend(&mut self) {
        self.waiters.notify_all(WaitOutcome::Unavailable);
    }

    fn rebuild(&mut self, backend: &mut dyn Backend, epoch: u64) -> Result<(), JournalError> {
        self.rebuild_table(backend, epoch)
    }
}
