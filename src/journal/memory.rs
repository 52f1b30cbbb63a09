//! The backend that stores nothing beyond the process: for `--durability memory` and for tests.
//!
//! Guarantees: the same results as a durable backend while the value lives. Not here: files.

use std::collections::BTreeMap;

use super::{Backend, BackendTraits, JournalError, Loaded, Record, SessionRecord, StoredLease};
use crate::domain::{FencingToken, LockName, SessionId, Timestamp};
use crate::entropy::Entropy;
use crate::lock::Delay;

/// State in memory.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    leases: BTreeMap<FencingToken, Box<StoredLease>>,
    delays: BTreeMap<LockName, Delay>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    tokens_reserved: i64,
    boot: Option<String>,
    secret: Option<[u8; 32]>,
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
            for stored in self.leases.values_mut() {
                stored.lease.restart(now);
            }
            for delay in self.delays.values_mut() {
                delay.until = now.after(Some(delay.length));
            }
            for session in self.sessions.values_mut() {
                session.deadline = now.after(session.ttl);
            }
            self.boot = boot.map(str::to_owned);
        }
        self.sessions.values().for_each(|session| each(Record::Session(session.clone())));
        self.delays.iter().for_each(|(name, delay)| each(Record::DelayStarted(name.clone(), *delay)));
        self.leases.values().for_each(|stored| each(Record::Granted(stored.clone())));
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
                Record::TokensReserved(upto) => self.tokens_reserved = self.tokens_reserved.max(*upto),
            }
        }
        Ok(())
    }

    fn maintain(&mut self) -> Result<bool, JournalError> {
        Ok(false)
    }
}
