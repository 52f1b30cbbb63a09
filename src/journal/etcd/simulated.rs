//! An etcd in memory whose responses are lost, and whose transactions are applied late, on command:
//! for tests of everything above the transport.
//!
//! Guarantees: without a command it does what etcd does with such requests, refusals included. Not
//! here: randomness, leases, watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::transport::{Compare, KeyValue, Range, Transport, TransportError, Txn, TxnResult, Write};

/// etcd's limit for the operations of a transaction.
const OPERATIONS_MAX: usize = 128;
/// etcd's limit for a request.
const REQUEST_BYTES_MAX: usize = 3 << 19;

/// What becomes of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is run, and answered.
    Answered,
    /// It is lost.
    RequestLost,
    /// It is run, and its response is lost.
    ResponseLost,
    /// There is no response, and it is run at [`SimulatedEtcd::run_late`].
    Late,
    /// There is no space.
    NoSpace,
}

/// A comparison that a broken server leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Guard (a).
    Created,
    /// Guard (b).
    Modified,
}

type Decide = Box<dyn FnMut(&Txn) -> Fate + Send>;

#[derive(Default)]
struct State {
    keys: BTreeMap<String, KeyValue>,
    revision: i64,
    late: Vec<Txn>,
    decide: Option<Decide>,
    left_out: Option<LeftOut>,
}

/// An etcd in memory. Clones are the same one.
#[derive(Clone, Default)]
pub struct SimulatedEtcd(Arc<Mutex<State>>);

impl SimulatedEtcd {
    /// From now on, `decide` decides the fate of each transaction.
    pub fn decide(&self, decide: impl FnMut(&Txn) -> Fate + Send + 'static) {
        self.0.lock().decide = Some(Box::new(decide));
    }

    /// From now on, comparisons of one kind always hold.
    pub fn leave_out(&self, left_out: LeftOut) {
        self.0.lock().left_out = Some(left_out);
    }

    /// Makes a new leader: replaces the key `leader` below `prefix`. Returns its epoch.
    pub fn elect(&self, prefix: &str) -> i64 {
        let mut state = self.0.lock();
        let key = format!("{prefix}/leader");
        state.write(vec![Write::Delete(key.clone(), format!("{key}\0"))]);
        state.write(vec![Write::Put(key, b"{}".to_vec())]);
        state.revision
    }

    /// Runs the transactions that are late.
    pub fn run_late(&self) {
        let mut state = self.0.lock();
        for txn in std::mem::take(&mut state.late) {
            state.run(txn);
        }
    }

    /// The keys that start with `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.0.lock().keys.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }
}

impl State {
    fn holds(&self, compare: &Compare) -> bool {
        let found = |key| self.keys.get(key);
        match compare {
            Compare::Created(key, revision) => {
                self.left_out == Some(LeftOut::Created)
                    || found(key).map_or(0, |found| found.create_revision) == *revision
            }
            Compare::Modified(key, revision) => {
                self.left_out == Some(LeftOut::Modified)
                    || found(key).map_or(0, |found| found.mod_revision) == *revision
            }
        }
    }

    fn write(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.revision += 1;
        }
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    let created = self.keys.get(&key).map_or(self.revision, |found| found.create_revision);
                    let (create_revision, mod_revision) = (created, self.revision);
                    let found = KeyValue { key: key.clone(), value, create_revision, mod_revision };
                    self.keys.insert(key, found);
                }
                Write::Delete(from, to) => self.keys.retain(|key, _| *key < from || *key >= to),
            }
        }
    }

    fn run(&mut self, txn: Txn) -> TxnResult {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        if succeeded {
            self.write(txn.writes);
        }
        let found = txn.reads.iter().filter_map(|key| self.keys.get(key).cloned()).collect();
        TxnResult { succeeded, revision: self.revision, found }
    }
}

/// Why etcd refuses a transaction whatever the state.
fn refusal(txn: &Txn) -> Option<&'static str> {
    let operations = txn.writes.len() + txn.reads.len();
    let bytes: usize = txn.writes.iter().map(Write::size_bytes).sum();
    let mut puts = std::collections::HashSet::new();
    let is_put_twice =
        txn.writes.iter().any(|write| matches!(write, Write::Put(key, _) if !puts.insert(key)));
    let is_put_and_deleted = txn.writes.iter().any(|write| match write {
        Write::Delete(from, to) => puts.iter().any(|key| *key >= from && *key < to),
        Write::Put(..) => false,
    });
    match () {
        () if operations.max(txn.compares.len()) > OPERATIONS_MAX => Some("too many operations"),
        () if bytes > REQUEST_BYTES_MAX => Some("request is too large"),
        () if is_put_twice || is_put_and_deleted => Some("duplicate key given in txn request"),
        () => None,
    }
}

impl Transport for SimulatedEtcd {
    fn txn(&mut self, txn: Txn) -> Result<TxnResult, TransportError> {
        if let Some(refusal) = refusal(&txn) {
            return Err(TransportError::Refused(refusal.into()));
        }
        let mut state = self.0.lock();
        let fate = state.decide.as_mut().map_or(Fate::Answered, |decide| decide(&txn));
        let lost = Err(TransportError::Unknown("no response".into()));
        match fate {
            Fate::Answered => Ok(state.run(txn)),
            Fate::RequestLost => lost,
            Fate::ResponseLost => {
                state.run(txn);
                lost
            }
            Fate::Late => {
                state.late.push(txn);
                lost
            }
            Fate::NoSpace => Err(TransportError::NoSpace),
        }
    }

    fn range(&mut self, Range { from, to, limit, .. }: Range) -> Result<Vec<KeyValue>, TransportError> {
        Ok(self.0.lock().keys.range(from..to).take(limit).map(|(_, found)| found.clone()).collect())
    }

    fn database_bytes(&mut self) -> Result<u64, TransportError> {
        Ok(self.0.lock().keys.values().map(|found| found.value.len() as u64).sum())
    }
}
