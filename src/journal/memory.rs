//! The backend that keeps nothing beyond the process: for `--durability memory` and for tests.
//!
//! Promise: the same answers as a durable backend while the value lives. Absent: files.

use std::collections::BTreeMap;

use super::record::{LeaseNet, Net};
use super::{Backend, JournalError, Loaded, Record, SessionRecord, StoredLease};
use crate::lock::{Delay, FencingToken, LockName, SessionId, Timestamp};

/// State in memory.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    leases: BTreeMap<FencingToken, StoredLease>,
    delays: BTreeMap<LockName, Delay>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    tokens_reserved: i64,
    boot: Option<String>,
}

impl Backend for MemoryBackend {
    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        let rebooted = boot.is_none() || self.boot.as_deref() != boot;
        if rebooted {
            for stored in self.leases.values_mut() {
                stored.lease.granted_at = now;
                stored.lease.deadline = now.after(stored.lease.ttl).min(stored.lease.hold_until());
            }
            for delay in self.delays.values_mut() {
                delay.until = now.after(Some(delay.length));
            }
            for session in self.sessions.values_mut() {
                session.deadline = now.after(session.ttl);
            }
            self.boot = boot.map(str::to_owned);
        }
        self.sessions.values().for_each(|session| each(Record::SessionOpened(session.clone())));
        self.delays.iter().for_each(|(name, delay)| each(Record::DelayStarted(name.clone(), *delay)));
        self.leases.values().for_each(|stored| each(Record::Granted(stored.clone())));
        Ok(Loaded { tokens_reserved: self.tokens_reserved, rebooted })
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
        let net = Net::of(batch);
        for (token, lease) in net.leases {
            let stored = match lease {
                LeaseNet::Granted(stored) | LeaseNet::Renewed(stored) => Some(stored.clone()),
                LeaseNet::Ended => None,
            };
            put(&mut self.leases, token, stored);
        }
        for (name, delay) in net.delays {
            put(&mut self.delays, name.clone(), delay);
        }
        for (id, session) in net.sessions {
            put(&mut self.sessions, id, session.cloned());
        }
        self.tokens_reserved = self.tokens_reserved.max(net.tokens_reserved.unwrap_or(0));
        Ok(())
    }

    fn maintain(&mut self) -> Result<(), JournalError> {
        Ok(())
    }
}
