//! The lock manager: runs the transitions of [`crate::lock`] under a guard of the table, and
//! carries their effects out: journal, waiters, sessions, expiry, events.
//!
//! Guarantees: nothing seen in a [`Txn`] may be revealed before [`Engine::barrier`] of its Seq.
//! Sequence numbers are assigned under the guard of the lock they concern. A waiter that is gone is
//! granted nothing.
//!
//! Lock order: `expiring`, the table, then a key's shard, then the queues of pops, then one of
//! sessions, waiters, deadlines, tokens, watches, scripts or events, then the journal's queue. Not
//! here: protocols, storage, and the rules of locks.

mod apply;
mod blocking;
mod events;
mod examination;
mod expiry;
mod keyspace;
mod late_owners;
mod line;
mod long_work;
mod losses;
mod notifications;
mod pseudonyms;
mod quotas;
mod recovery;
mod scripts;
mod sessions;
mod stats;
mod tokens;
mod txn;
mod values;
mod watches;

#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::domain::SessionId;
use crate::entropy::Entropy;
pub use crate::journal::CommitMetrics;
use crate::journal::{
    Backend, CommitGroup, Durability, Journal, JournalError, Loaded, OutcomeUnknown, Seq, Stopwatch,
};
pub use blocking::{
    Blocked, PopAction, PopRequest, Popped, PoppedElements, Popping, WAITED_KEYS_MAX, WaitOutcome,
};
use blocking::{Cancellations, PopQueues, Undelivered, Waiters};
use events::Events;
pub use events::{Event, EventKind, Heard, Interest, LeaseEvent};
pub use examination::{Examination, examine};
use expiry::Deadlines;
pub use expiry::Expiry;
pub use keyspace::{Content, FoundKey, KeyKind, KeyOrder, KeyedValue, Scan, Scanned};
use keyspace::{Gate, NameHash, Table};
use late_owners::LateOwners;
use line::Line;
pub use line::PutOff;
pub use long_work::{ELEMENTS_AT_ONCE_MAX, leave_other_tasks, run_long, visit_elements};
pub use notifications::Cause;
pub use pseudonyms::Pseudonyms;
use quotas::Quotas;
use recovery::Progress;
pub use scripts::ScriptId;
use scripts::Scripts;
use sessions::Sessions;
pub use stats::LockStats;
use tokens::Tokens;
pub use txn::{Acquired, AnyTxn, ExclusiveTxn, Seen, SharedTxn, Txn};
pub use values::{Draft, HeldValue, Making, Renamed, ValueStats};
use values::{Holds, Reclaimer};
pub use watches::Watch;
use watches::Watches;

/// Locks, and about as many leases, that the expiry thread frees in one step.
const EXPIRIES_PER_STEP: usize = 256;
/// The same for a thread that serves requests.
const EXPIRIES_PER_TURN: usize = 32;

/// Milliseconds after which a transaction that keeps all others out is no longer waited for.
pub const BUSY_AFTER_MS: u64 = 200;
/// How often a request is tried again that such a transaction holds up.
const HELD_UP_CHECK: Duration = Duration::from_millis(1);

/// How the manager is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// When replies may leave.
    pub durability: Durability,
    /// Leases held and lock-delays running at once; beyond it nothing new is granted.
    pub locks_max: u64,
    /// Sessions open at once, those of connections included.
    pub sessions_max: usize,
    /// Requests that may queue for one lock.
    pub waiters_per_lock_max: usize,
    /// Leases that count toward one account.
    pub leases_per_account_max: u64,
    /// Bytes of all values together; at the limit nothing is added to any.
    pub values_bytes_max: u64,
    /// Elements of one value; at the limit nothing is added to it.
    pub value_elements_max: usize,
    /// Tokens start above this, for a database restored from an old backup.
    pub token_floor: i64,
    /// The kernel's name for this boot.
    pub boot: Option<String>,
    /// Where random numbers come from.
    pub entropy: Entropy,
}

/// Why an operation was not run at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// The journal cannot be written; nothing changed.
    Journal(Box<JournalError>),
    /// As many locks are held as may be.
    LocksMax,
    /// As many requests queue for this lock as may.
    WaitersMax,
    /// As many sessions are open as may.
    SessionsMax,
    /// As many leases count toward the account as may.
    AccountMax,
    /// The session has ended, or never was.
    NoSession,
    /// No fencing token is left.
    TokensExhausted,
    /// The key holds something of another type, or is a lock that rests.
    WrongType,
    /// All values together have as many bytes as they may.
    ValuesBytesMax,
    /// The value has as many elements as it may.
    ValueElementsMax,
    /// The changes that wait for storage have as many bytes as they may.
    BacklogMax,
    /// So much has ended that others are to get their turn before the rest is freed, a transaction
    /// keeps all others out, or others do long work. Nothing was done of what was asked: yield, and
    /// ask again.
    Unsettled,
    /// A transaction has kept all others out for [`BUSY_AFTER_MS`]; only a script takes that long.
    /// Nothing was done of what was asked.
    Busy,
}

impl From<JournalError> for Unavailable {
    fn from(error: JournalError) -> Unavailable {
        Unavailable::Journal(Box::new(error))
    }
}

/// Changes that wait for storage, in bytes, from which on nothing is added.
pub const BACKLOG_BYTES_MAX: usize = 256 << 20;

/// The lock manager.
pub struct Engine {
    core: Arc<Core>,
    journal: Arc<OnceLock<Journal>>,
}

/// All but the journal, which in turn rebuilds this after a failure.
struct Core {
    table: Gate<Table>,
    /// That of `table`, to be read without its lock.
    epoch: AtomicU64,
    hash: NameHash,
    clock: Clock,
    config: EngineConfig,
    tokens: Tokens,
    sessions: Sessions,
    waiters: Waiters,
    pops: PopQueues,
    undelivered: Undelivered,
    deadlines: Deadlines,
    /// Locked while a thread frees locks whose hashes it has taken out of `deadlines`.
    expiring: Mutex<()>,
    cancellations: Cancellations,
    watches: Watches,
    scripts: Scripts,
    events: Events,
    lock_stats: LockStats,
    value_stats: ValueStats,
    holds: Holds,
    line: Arc<Line>,
    reclaimer: Reclaimer,
    quotas: Quotas,
    late_owners: LateOwners,
    commits: Arc<CommitMetrics>,
    /// Notified again and again while the journal is down.
    suspended: Notify,
    secret: [u8; 32],
    pseudonyms: Pseudonyms,
}

impl Core {
    /// Nothing is held yet; tokens start above those that were reserved.
    fn new(clock: Clock, config: EngineConfig, loaded: &Loaded) -> Core {
        Core {
            table: Gate::new(Table::new(0)),
            epoch: AtomicU64::new(0),
            hash: NameHash::new(&config.entropy),
            tokens: Tokens::above(loaded.tokens_reserved.max(config.token_floor)),
            deadlines: Deadlines::default(),
            expiring: Mutex::default(),
            cancellations: Cancellations::default(),
            config,
            sessions: Sessions::new(),
            waiters: Waiters::default(),
            pops: PopQueues::default(),
            undelivered: Undelivered::default(),
            watches: Watches::default(),
            scripts: Scripts::default(),
            events: Events::default(),
            lock_stats: LockStats::default(),
            value_stats: ValueStats::default(),
            holds: Holds::default(),
            line: Arc::default(),
            reclaimer: Reclaimer::default(),
            quotas: Quotas::default(),
            late_owners: LateOwners::default(),
            commits: CommitMetrics::new(&clock),
            suspended: Notify::new(),
            secret: loaded.secret,
            pseudonyms: Pseudonyms::new(&loaded.secret),
            clock,
        }
    }
}

impl Engine {
    /// Loads what `backend` holds and starts the commit thread.
    pub fn start(
        mut backend: Box<dyn Backend>,
        clock: Clock,
        config: EngineConfig,
    ) -> Result<Arc<Engine>, JournalError> {
        let mut found = Vec::new();
        let mut progress = Progress::new(&clock);
        let loaded = backend.load(config.boot.as_deref(), clock.now(), &mut |record| {
            found.push(record);
            progress.record(found.len());
        })?;
        let core = Arc::new(Core::new(clock, config, &loaded));
        let mut table = core.table.close_in_time(|| core.clock.now());
        core.restore(&mut table, found, loaded.tokens_reserved, &mut Err)?;
        drop(table);
        let journal = Journal::start(
            backend,
            core.config.durability,
            Box::new(Arc::clone(&core)),
            Arc::clone(&core.commits) as Arc<dyn Stopwatch>,
        )
        .map_err(|error| JournalError::Io { what: format!("cannot start the commit thread: {error}") })?;
        let cell = OnceLock::new();
        cell.get_or_init(|| journal);
        let engine = Arc::new(Engine { core, journal: Arc::new(cell) });
        while engine.close_orphans()? {}
        Ok(engine)
    }

    /// A random number, for commands that choose at random.
    pub fn random_number(&self) -> u64 {
        self.core.config.entropy.number()
    }

    /// Fills `bytes` with random numbers that cannot be guessed.
    ///
    /// # Errors
    ///
    /// If the system has none.
    pub fn fill_random(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        self.core.config.entropy.fill(bytes)
    }

    fn journal(&self) -> &Journal {
        self.journal.get().unwrap_or_else(|| unreachable!("set when the engine starts"))
    }

    /// Completes when a result that was computed before this call, and depends on `seq`, may be sent to
    /// a client. May block the thread for one commit: hold no guard and no [`ExclusiveTxn`].
    pub async fn barrier(&self, seq: Seq) -> Result<(), OutcomeUnknown> {
        let awaited = self.awaited(seq);
        if awaited == Seq::default() {
            return Ok(());
        }
        self.journal().revealed(awaited).await
    }

    /// Completes when everything up to this Seq is durable, which does not yet reveal what was read.
    async fn durable(&self, seq: Seq) -> Result<(), OutcomeUnknown> {
        self.journal().synced(self.awaited(seq)).await
    }

    /// Whether another server has taken over the data.
    pub fn is_fenced(&self) -> bool {
        self.has_ever_failed() && self.journal_down() == Some(JournalError::Fenced)
    }

    /// Completes once the journal is down for good, because another server has taken over or no
    /// retry can help.
    pub async fn fenced(&self) {
        loop {
            let mut suspended = std::pin::pin!(self.core.suspended.notified());
            suspended.as_mut().enable();
            if self.journal_down().is_some_and(|error| !error.is_retryable()) {
                return;
            }
            suspended.await;
        }
    }

    /// Whether everything up to this Seq is durable; `None`: it is not decided. Never blocks. Where
    /// reads need a commit, only [`Engine::barrier`] says whether a result may be revealed.
    pub fn durability_of(&self, seq: Seq) -> Option<Result<(), OutcomeUnknown>> {
        self.journal().durability_of(self.awaited(seq))
    }

    /// What is to be durable before a result with this Seq may be told.
    fn awaited(&self, seq: Seq) -> Seq {
        match self.journal().durability() {
            Durability::Always => seq,
            // A lost commit may lose grants in this mode, but never repeat a token.
            Durability::Interval(_) => self.core.tokens.reservation(),
            Durability::Memory => Seq::default(),
        }
    }

    /// Until the returned value is dropped, nothing is committed, and what is appended lands in one
    /// commit. Keep it short.
    pub fn one_commit(&self) -> CommitGroup<'_> {
        self.journal().commit_group()
    }

    /// The clock everything here goes by.
    pub fn clock(&self) -> &Clock {
        &self.core.clock
    }

    /// The configuration, with the limits.
    pub fn config(&self) -> &EngineConfig {
        &self.core.config
    }

    /// How many there are and were, of everything that is counted.
    pub fn lock_stats(&self) -> &LockStats {
        &self.core.lock_stats
    }

    /// The counts of values.
    pub fn value_stats(&self) -> &ValueStats {
        &self.core.value_stats
    }

    /// How many locks the expiry index knows.
    pub fn deadlines(&self) -> usize {
        self.core.deadlines.len()
    }

    /// The number of pops that wait for elements.
    pub fn blocked_pops(&self) -> usize {
        self.core.pops.len()
    }

    /// The number of stored scripts, and that of the bytes of their texts.
    pub fn scripts_size(&self) -> (usize, usize) {
        self.core.scripts.size()
    }

    /// How many sessions are open.
    pub fn sessions(&self) -> usize {
        self.core.sessions.len()
    }

    /// Lets other tasks run between two turns. Waits a little if a transaction has kept all others
    /// out for longer than they wait for it.
    pub async fn give_way(&self) {
        if self.core.table.is_closed_for_long() {
            tokio::time::sleep(HELD_UP_CHECK).await;
        } else {
            tokio::task::yield_now().await;
        }
    }

    /// Blocks the thread as long as a transaction keeps all others out.
    pub fn wait_while_held_up(&self) {
        self.core.table.wait_until_opened();
    }

    /// Why nothing can be changed at present; `None` when all is well.
    pub fn journal_down(&self) -> Option<JournalError> {
        self.journal().down()
    }

    /// Whether a commit has failed since the start, so that what came after it says nothing about
    /// what came before.
    pub fn has_ever_failed(&self) -> bool {
        self.journal().has_ever_failed()
    }

    /// What was measured of commits.
    pub fn commit_metrics(&self) -> &CommitMetrics {
        &self.core.commits
    }

    /// Belongs to the data: the key of what is derived from leases and must be the same after a
    /// restart.
    pub fn secret(&self) -> &[u8; 32] {
        &self.core.secret
    }

    /// What is shown in place of secrets.
    pub fn pseudonyms(&self) -> &Pseudonyms {
        &self.core.pseudonyms
    }

    /// The number after that of the latest token.
    pub fn next_token(&self) -> i64 {
        self.core.tokens.last() + 1
    }

    /// The Seq of everything decided so far. What was seen before may have been taken back since; a
    /// [`Txn`] knows.
    pub fn last(&self) -> Seq {
        self.journal().last()
    }

    /// Commits made and records written by them since the start.
    pub fn commits(&self) -> (u64, u64) {
        self.journal().commits()
    }

    /// Blocks until all that was decided so far is durable, or never will be.
    pub(crate) fn wait_for_commit(&self) {
        // Either way there is nothing to be told.
        let _ = self.journal().synced(self.awaited(self.last())).wait();
    }

    /// Commits what is pending and stops the commit thread.
    pub fn close(&self) {
        self.journal().close();
    }

    /// The size of the changes that wait for storage, in bytes.
    pub fn backlog_bytes(&self) -> usize {
        self.journal().backlog_bytes()
    }

    /// Refuses changes that add something while too many wait for storage: a transaction can rewrite
    /// a large value very often before anything is committed.
    fn check_backlog(&self) -> Result<(), Unavailable> {
        if self.backlog_bytes() < BACKLOG_BYTES_MAX { Ok(()) } else { Err(Unavailable::BacklogMax) }
    }

    #[inline]
    fn check_up(&self) -> Result<(), Unavailable> {
        if self.journal().is_down() { self.why_down() } else { Ok(()) }
    }

    #[cold]
    fn why_down(&self) -> Result<(), Unavailable> {
        self.journal().down().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Ends the session of a connection that is gone. If the journal is down, that happens once it
    /// is up.
    pub fn connection_is_gone(self: &Arc<Self>, id: SessionId) {
        self.core.sessions.connection(id, false);
        // If that fails, it is an orphan.
        let _ = self.txn().close_session(id, false);
    }

    /// Sessions without a TTL belong to connections: ends some of those whose connection is gone, be
    /// it that it ended with the process before this one, or that a failed commit took their end
    /// back. Returns whether there are more.
    fn close_orphans(self: &Arc<Self>) -> Result<bool, JournalError> {
        let orphans = self.core.sessions.orphans(EXPIRIES_PER_STEP);
        if orphans.is_empty() || self.journal_down().is_some() {
            return Ok(false);
        }
        let mut freed = 0;
        for id in orphans {
            if freed >= EXPIRIES_PER_STEP {
                break;
            }
            let txn = self.patient_txn();
            if let Err(Unavailable::Journal(error)) = txn.close_session(id, false) {
                return Err(*error);
            }
            freed += txn.work();
        }
        Ok(!self.core.sessions.orphans(1).is_empty())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The commit thread holds the core for rebuilds; end it before the core goes.
        self.close();
    }
}
