//! The backend that stores nothing beyond the process: for `--durability memory` and for tests.
//!
//! Guarantees: the same results as a durable backend while the value lives. Not here: files.

use std::collections::BTreeMap;

use super::elements::OrderedElements;
use super::{
    Backend, BackendTraits, JournalError, Loaded, Record, ScriptHash, SessionRecord, StoredLease, StoredValue,
};
use crate::domain::{FencingToken, LockName, SessionId, Timestamp};
use crate::entropy::Entropy;
use crate::lock::Delay;

/// State in memory.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    leases: BTreeMap<FencingToken, StoredLease>,
    delays: BTreeMap<LockName, Delay>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    values: BTreeMap<FencingToken, (Box<StoredValue>, OrderedElements)>,
    /// In the order in which they were last put.
    scripts: Vec<(ScriptHash, Box<[u8]>)>,
    tokens_reserved: i64,
    boot: Option<String>,
    secret: Option<[u8; 32]>,
}

impl MemoryBackend {
    /// Moves all deadlines to their full TTL from `now`.
    pub(super) fn restart(&mut self, now: Timestamp) {
        for stored in self.leases.values_mut() {
            stored.lease.restart(now);
        }
        for delay in self.delays.values_mut() {
            delay.until = now.after(Some(delay.length));
        }
        for session in self.sessions.values_mut() {
            session.deadline = now.after(session.ttl);
        }
        for (stored, _) in self.values.values_mut() {
            stored.deadline = now.after(stored.ttl);
        }
    }

    /// No token above this one has been issued.
    #[cfg(feature = "etcd")]
    pub(super) fn tokens_reserved(&self) -> i64 {
        self.tokens_reserved
    }

    /// Passes the whole state to `each`, as [`Backend::load`] does.
    pub(super) fn pass_all(&self, each: &mut dyn FnMut(Record)) {
        self.sessions.values().for_each(|session| each(Record::Session(session.clone())));
        self.delays.iter().for_each(|(name, delay)| each(Record::DelayStarted(name.clone(), *delay)));
        self.leases.values().for_each(|stored| each(Record::Granted(stored.clone())));
        for (sha, body) in &self.scripts {
            each(Record::ScriptPut { sha: *sha, body: body.clone() });
        }
        for (id, (stored, elements)) in &self.values {
            each(Record::ValuePut(stored.clone()));
            for (field, value) in elements.iter() {
                each(Record::Element { id: *id, field: field.into(), value: Some(value.into()) });
            }
        }
    }

    /// Applies records.
    pub(super) fn apply(&mut self, batch: &[Record]) {
        for record in batch {
            match record {
                Record::Granted(stored) => drop(self.leases.insert(stored.lease.token, stored.clone())),
                Record::Renewed(renewal) => {
                    if let Some(stored) = self.leases.get_mut(&renewal.token) {
                        renewal.apply_to(&mut stored.lease);
                    }
                }
                Record::Ended(token) => drop(self.leases.remove(token)),
                Record::DelayStarted(name, delay) => drop(self.delays.insert(name.clone(), *delay)),
                Record::DelayEnded(name) => drop(self.delays.remove(name)),
                Record::Session(session) => drop(self.sessions.insert(session.id, session.clone())),
                Record::SessionEnded(id) => drop(self.sessions.remove(id)),
                Record::ValuePut(stored) => {
                    let new = || (stored.clone(), OrderedElements::default());
                    self.values.entry(stored.id).or_insert_with(new).0.clone_from(stored);
                }
                Record::ValueGone(id) => drop(self.values.remove(id)),
                Record::Element { id, field, value } => {
                    if let Some((_, elements)) = self.values.get_mut(id) {
                        elements.set(field.clone(), value.clone());
                    }
                }
                Record::ScriptPut { sha, body } => {
                    self.scripts.retain(|(known, _)| known != sha);
                    self.scripts.push((*sha, body.clone()));
                }
                Record::ScriptGone { sha } => self.scripts.retain(|(known, _)| known != sha),
                Record::TokensReserved(upto) => self.tokens_reserved = self.tokens_reserved.max(*upto),
            }
        }
    }
}

impl Backend for MemoryBackend {
    fn traits(&self) -> BackendTraits {
        BackendTraits::LOCAL
    }

    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        let rebooted = boot.is_none() || self.boot.as_deref() != boot;
        if rebooted {
            self.restart(now);
            self.boot = boot.map(str::to_owned);
        }
        self.pass_all(each);
        let secret = match self.secret {
            Some(secret) => secret,
            None => {
                let mut secret = [0; 32];
                Entropy::system()
                    .fill(&mut secret)
                    .map_err(|error| JournalError::Io { what: error.to_string() })?;
                *self.secret.insert(secret)
            }
        };
        Ok(Loaded { tokens_reserved: self.tokens_reserved, rebooted, secret })
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        self.apply(batch);
        Ok(())
    }

    fn maintain(&mut self) -> Result<bool, JournalError> {
        Ok(false)
    }
}
