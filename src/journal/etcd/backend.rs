//! Transactions and their guards.
//!
//! Guarantees: after an error other than [`JournalError::Full`] nothing is written before the next
//! load. Not here: the content of keys.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::codec::{self, from_hexadecimal, hexadecimal};
use super::fold::{Batch, Fold, Known};
use super::layout::{Era, Head, Layout, Schema, VERSION, from_json, to_json};
use super::load::{self, ReadError};
use super::rows::Stored;
use super::transport::{Compare, Transport, TransportError, Txn, TxnResult, Write};
use super::{EtcdTransport, log};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::entropy::Entropy;
use crate::journal::{Backend, BackendTraits, JournalError, Loaded, Record, StoreAddress};
use crate::metrics::StoreMetrics;

/// The largest batch of the commit queue, by its own measure; the text may be larger.
const BATCH_BYTES_MAX: usize = 768 << 10;
/// The most bytes of the writes of one transaction: etcd allows 1.5 MiB.
const TXN_BYTES_MAX: usize = (3 << 19) - (64 << 10);
/// Batches, or bytes of them, from which on the log is folded while nothing is committed.
const FOLD_BATCHES_IDLE: usize = 128;
const FOLD_BYTES_IDLE: usize = 256 << 10;
/// The same while commits are made.
const FOLD_BATCHES: usize = 1024;
const FOLD_BYTES: usize = 4 << 20;
/// From here on the commits of clients wait for a fold.
const FOLD_BYTES_OVERDUE: usize = 4 * FOLD_BYTES;
/// Times that the head may change while it is claimed.
const CLAIMS_MAX: usize = 4;
/// Bytes that are written between two looks at the size of the database. A commit or a verification
/// counts as some, too.
const BYTES_PER_LOOK: usize = 16 << 20;
const BYTES_PER_CALL: usize = 16 << 10;
/// The quota of etcd unless it is set, and the size from which on this server warns.
const QUOTA_BYTES: u64 = 2 << 30;
const WARN_BYTES: u64 = QUOTA_BYTES / 10 * 8;

/// The state of a cluster, as its leader sees it.
pub struct EtcdBackend {
    transport: Box<dyn Transport>,
    layout: Layout,
    epoch: i64,
    /// The head, and the revision that wrote it; `None`: to be loaded.
    head: Option<(Head, i64)>,
    log: VecDeque<Batch>,
    log_bytes: usize,
    known: Known,
    fold: Option<Fold>,
    fold_batches: usize,
    fold_batches_idle: usize,
    bytes_until_look: usize,
    database_bytes: u64,
    metrics: Option<(Arc<StoreMetrics>, Clock)>,
}

impl EtcdBackend {
    /// Connects to the store as the leader of `epoch`: the revision that created the key `leader`.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// If the address is not that of a store that this version can use.
    pub fn open(address: &StoreAddress, epoch: i64) -> Result<EtcdBackend, JournalError> {
        let transport = EtcdTransport::start(address)?;
        let mut backend = EtcdBackend::new(Box::new(transport), &address.prefix, epoch);
        backend.find_or_create_schema().map(|_| backend)
    }

    /// [`EtcdBackend::open`] over any transport. `prefix` ends without a slash.
    ///
    /// # Errors
    ///
    /// As of [`EtcdBackend::open`].
    pub fn over(
        transport: Box<dyn Transport>,
        prefix: &str,
        epoch: i64,
    ) -> Result<EtcdBackend, JournalError> {
        let mut backend = EtcdBackend::new(transport, prefix, epoch);
        backend.find_or_create_schema()?;
        Ok(backend)
    }

    fn new(transport: Box<dyn Transport>, prefix: &str, epoch: i64) -> EtcdBackend {
        EtcdBackend {
            transport,
            layout: Layout::below(prefix),
            epoch,
            head: None,
            log: VecDeque::new(),
            log_bytes: 0,
            known: Known::default(),
            fold: None,
            fold_batches: FOLD_BATCHES,
            fold_batches_idle: FOLD_BATCHES_IDLE,
            bytes_until_look: 0,
            database_bytes: 0,
            metrics: None,
        }
    }

    /// Records there what is measured of the store, from the next load on.
    pub fn measured(self, metrics: Arc<StoreMetrics>, clock: Clock) -> EtcdBackend {
        EtcdBackend { metrics: Some((metrics, clock)), ..self }
    }

    /// Sets the number of batches from which on the log is folded.
    pub fn fold_at(&mut self, batches: usize) {
        (self.fold_batches, self.fold_batches_idle) = (batches, batches);
    }

    fn guard(&self) -> Compare {
        Compare::Created(self.layout.leader.clone(), self.epoch)
    }

    /// Runs a transaction of the leader. After a failure, the state must be loaded again.
    fn guarded(&mut self, txn: Txn) -> Result<TxnResult, JournalError> {
        let result = self.transport.txn(txn).map_err(failure);
        if let Err(error) = &result {
            self.head = None;
            if *error == JournalError::Full {
                self.look_at_size(BYTES_PER_LOOK);
            }
        }
        result
    }

    /// What a transaction of the leader says whose comparisons do not hold, from its last read.
    fn refusal(&mut self, result: &TxnResult) -> JournalError {
        self.head = None;
        let leader = result.found.iter().find(|found| found.key == self.layout.leader);
        if leader.is_some_and(|leader| leader.create_revision == self.epoch) {
            let what = "an earlier transaction was applied late, or another program writes to the store";
            JournalError::Unreachable { what: what.into() }
        } else {
            JournalError::Fenced
        }
    }

    /// Writes under both guards, and the head with it.
    fn write(&mut self, new_head: Head, mut writes: Vec<Write>) -> Result<(), JournalError> {
        let Some((_, revision)) = self.head else { return Err(not_loaded()) };
        writes.push(Write::Put(self.layout.head.clone(), to_json(&new_head)));
        let compares = vec![self.guard(), Compare::Modified(self.layout.head.clone(), revision)];
        let reads = vec![self.layout.leader.clone()];
        let result = self.guarded(Txn { compares, writes, reads })?;
        if !result.succeeded {
            return Err(self.refusal(&result));
        }
        self.head = Some((new_head, result.revision));
        Ok(())
    }

    /// Checks guard (a), by the majority of the servers.
    fn check_leadership(&mut self) -> Result<(), JournalError> {
        if self.head.is_none() {
            return Err(not_loaded());
        }
        let reads = vec![self.layout.leader.clone()];
        let txn = Txn { compares: vec![self.guard()], writes: Vec::new(), reads };
        let result = self.guarded(txn)?;
        if result.succeeded { Ok(()) } else { Err(self.refusal(&result)) }
    }

    fn find_or_create_schema(&mut self) -> Result<[u8; 32], JournalError> {
        let read = Txn { reads: vec![self.layout.schema.clone()], ..Txn::default() };
        let found = self.transport.txn(read.clone()).map_err(failure)?.found;
        if let Some(found) = found.first() {
            return secret_of(&from_json(found)?);
        }
        refuse_foreign(&mut *self.transport, &self.layout)?;
        let mut secret = [0; 32];
        let random = Entropy::system().fill(&mut secret);
        random.map_err(|error| JournalError::Io { what: error.to_string() })?;
        let schema = Schema { octostore: VERSION, secret: hexadecimal(&secret) };
        let create = Txn {
            compares: vec![Compare::Created(self.layout.schema.clone(), 0)],
            writes: vec![Write::Put(self.layout.schema.clone(), to_json(&schema))],
            ..read
        };
        // Another server may have been faster.
        let found = self.transport.txn(create).map_err(failure)?.found;
        let found = found.first().ok_or_else(|| JournalError::corrupt("the key schema is gone"))?;
        secret_of(&from_json(found)?)
    }

    /// Takes over the head, so that no transaction of an earlier state can be applied any more.
    /// Returns whether a new era has begun.
    fn claim(&mut self, boot: Option<&str>, now: Timestamp) -> Result<bool, JournalError> {
        for _ in 0..CLAIMS_MAX {
            let reads =
                vec![self.layout.leader.clone(), self.layout.head.clone(), self.layout.tokens.clone()];
            let txn = Txn { compares: vec![self.guard()], writes: Vec::new(), reads };
            let result = self.guarded(txn)?;
            if !result.succeeded {
                return Err(self.refusal(&result));
            }
            let of = |key: &str| result.found.iter().find(|found| found.key == key);
            let (mut head, revision) = match of(&self.layout.head) {
                Some(found) => (from_json(found)?, found.mod_revision),
                None => (Head::default(), 0),
            };
            self.known =
                Known { tokens: of(&self.layout.tokens).map_or(Ok(0), from_json)?, ..Known::default() };
            let is_new_era =
                boot.is_none() || head.era.epoch != self.epoch || head.era.boot.as_deref() != boot;
            if is_new_era {
                let boot = boot.map(str::to_owned);
                let (began_ns, after) = (now.to_stored(), head.last);
                head.era = Era { epoch: self.epoch, boot, began_ns, after };
            }
            self.head = Some((head.clone(), revision));
            match self.write(head, Vec::new()) {
                Ok(()) => return Ok(is_new_era),
                // What was under way was applied just now.
                Err(JournalError::Unreachable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(JournalError::Unreachable { what: "the head of the log could not be claimed".into() })
    }

    /// Adds what can be folded in a transaction with writes of `bytes`, and returns the marker after
    /// it.
    fn fold_into(&mut self, writes: &mut Vec<Write>, bytes: usize, folded: u64) -> Result<u64, JournalError> {
        let Some(mut fold) = self.fold.take() else { return Ok(folded) };
        self.find_places(&mut fold)?;
        let room = TXN_BYTES_MAX.saturating_sub(bytes);
        writes.extend(fold.take(&self.layout, &mut self.known, room));
        if !fold.is_done() {
            self.fold = Some(fold);
            return Ok(folded);
        }
        writes.extend(fold.last_writes(&self.layout, folded, &mut self.known));
        Ok(fold.to)
    }

    /// Reads the places of the elements that the next step overwrites.
    fn find_places(&mut self, fold: &mut Fold) -> Result<(), JournalError> {
        let names = fold.needs_places_of();
        if names.is_empty() {
            return Ok(());
        }
        let reads = names.iter().map(|name| self.layout.row(name)).collect();
        let result = self.guarded(Txn { reads, ..Txn::default() })?;
        let mut places = std::collections::HashMap::with_capacity(names.len());
        for found in &result.found {
            if let Some(name) = self.layout.row_name(&found.key) {
                places.insert(name, Stored::read(&found.value)?.place());
            }
        }
        fold.set_places(|name| places.get(name).copied());
        Ok(())
    }

    /// Forgets the batches up to the marker.
    fn folded(&mut self, marker: u64) {
        let behind = self.log.partition_point(|batch| batch.last <= marker);
        self.log_bytes -= self.log.drain(..behind).map(|batch| batch.text.len()).sum::<usize>();
        self.measure_log(behind > 0);
    }

    /// Records the length of the log; `is_folded`: some of it was folded just now.
    fn measure_log(&self, is_folded: bool) {
        let Some((metrics, clock)) = &self.metrics else { return };
        let before = metrics.log_batches.swap(self.log.len() as u64, Ordering::Relaxed);
        metrics.log_bytes.store(self.log_bytes as u64, Ordering::Relaxed);
        if is_folded || before == 0 {
            metrics.folded_at.store(clock.wall_millis() / 1000, Ordering::Relaxed);
        }
    }

    fn begin_fold(&mut self, batches_min: usize, bytes_min: usize) -> Result<(), JournalError> {
        let is_due = self.log.len() >= batches_min || self.log_bytes >= bytes_min;
        if self.fold.is_none() && is_due {
            self.fold = Some(Fold::begin(&self.log, &self.known)?);
        }
        Ok(())
    }

    /// Looks at the size of the database now and then, after a call that has written this much.
    fn look_at_size(&mut self, written_bytes: usize) {
        self.bytes_until_look = self.bytes_until_look.saturating_sub(BYTES_PER_CALL + written_bytes);
        if self.bytes_until_look > 0 {
            return;
        }
        self.bytes_until_look = BYTES_PER_LOOK;
        let Ok(bytes) = self.transport.database_bytes() else { return };
        let before = std::mem::replace(&mut self.database_bytes, bytes);
        if let Some((metrics, _)) = &self.metrics {
            metrics.database_bytes.store(bytes, Ordering::Relaxed);
        }
        if bytes >= WARN_BYTES && before < WARN_BYTES {
            tracing::warn!(
                bytes,
                "etcd's database has 80 % of its usual quota of 2 GiB; let etcd compact old revisions \
                 (--auto-compaction-mode=periodic), defragment it, or raise --quota-backend-bytes: when it is full, \
                 nothing can be locked, renewed or released"
            );
        }
    }
}

impl Backend for EtcdBackend {
    fn traits(&self) -> BackendTraits {
        let batch_bytes_max = Some(BATCH_BYTES_MAX);
        BackendTraits { commit_on_caller: false, batch_bytes_max, reads_need_commit: true }
    }

    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        (self.fold, self.log_bytes) = (None, 0);
        self.log.clear();
        let secret = self.find_or_create_schema()?;
        let rebooted = self.claim(boot, now)?;
        let Some((head, revision)) = self.head.clone() else { return Err(not_loaded()) };
        let known = std::mem::take(&mut self.known);
        let found = load::load(&mut *self.transport, &self.layout, &head, revision, known);
        let found = found.map_err(|error| {
            self.head = None;
            match error {
                ReadError::Transport(error) => failure(error),
                ReadError::Journal(error) => error,
            }
        })?;
        found.state.pass_all(each);
        let tokens_reserved = found.state.tokens_reserved().max(found.known.tokens);
        (self.log, self.known) = (found.log, found.known);
        self.log_bytes = self.log.iter().map(|batch| batch.text.len()).sum();
        self.measure_log(true);
        self.look_at_size(0);
        Ok(Loaded { tokens_reserved, rebooted, secret })
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        let text = codec::encode(batch);
        self.look_at_size(text.len());
        if batch.is_empty() {
            return self.check_leadership();
        }
        let entries = log::split(&text);
        self.begin_fold(self.fold_batches, FOLD_BYTES)?;
        if self.log_bytes >= FOLD_BYTES_OVERDUE {
            self.maintain()?;
        }
        let Some((mut head, _)) = self.head.clone() else { return Err(not_loaded()) };
        let (mut number, last, marker) = (head.last, head.last + entries.len() as u64, head.folded);
        for entry in entries {
            number += 1;
            let bytes = entry.len();
            let mut writes = vec![Write::Put(self.layout.log(number), entry)];
            if number == last {
                head.last = last;
                head.folded = self.fold_into(&mut writes, bytes, marker)?;
            }
            self.write(head.clone(), writes)?;
        }
        self.log_bytes += text.len();
        self.log.push_back(Batch { last, text });
        self.folded(head.folded);
        Ok(())
    }

    fn verify(&mut self) -> Result<(), JournalError> {
        self.look_at_size(0);
        self.check_leadership()
    }

    fn maintain(&mut self) -> Result<bool, JournalError> {
        self.begin_fold(self.fold_batches_idle, FOLD_BYTES_IDLE)?;
        if self.fold.is_none() {
            return Ok(false);
        }
        let Some((mut head, _)) = self.head.clone() else { return Err(not_loaded()) };
        let mut writes = Vec::new();
        head.folded = self.fold_into(&mut writes, 0, head.folded)?;
        let marker = head.folded;
        self.write(head, writes)?;
        self.folded(marker);
        Ok(self.fold.is_some())
    }
}

fn not_loaded() -> JournalError {
    JournalError::Unreachable { what: "the state must be loaded from etcd again".into() }
}

fn failure(error: TransportError) -> JournalError {
    match error {
        TransportError::Unknown(what) => JournalError::Unreachable { what },
        TransportError::NoSpace => JournalError::Full,
        TransportError::Refused(what) => JournalError::Store { what },
    }
}

fn secret_of(schema: &Schema) -> Result<[u8; 32], JournalError> {
    match schema.octostore {
        VERSION => from_hexadecimal(&schema.secret),
        found => Err(JournalError::Newer { found, known: VERSION }),
    }
}

/// Refuses a prefix that has keys which no server of ours writes before there is a schema.
fn refuse_foreign(transport: &mut dyn Transport, layout: &Layout) -> Result<(), JournalError> {
    let read =
        load::read_all(transport, layout.all(), 0, &mut |found| match layout.is_of_servers(&found.key)
            || found.key == layout.schema
        {
            true => Ok(()),
            false => Err(JournalError::Store {
                what: format!(
                    "the key {:?} is not one of octostore; name another prefix in --store",
                    found.key
                ),
            }),
        });
    read.map_err(|error| match error {
        ReadError::Transport(error) => failure(error),
        ReadError::Journal(error) => error,
    })
}
