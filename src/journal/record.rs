//! What the journal keeps, as absolute states, and what a batch of them comes to.
//!
//! Promise: applying a batch twice is applying it once; a lease that was granted and ended within one batch
//! comes to nothing.

use std::collections::BTreeMap;

use crate::lock::{Delay, FencingToken, Lease, LockName, SessionId, Timestamp, Ttl};

/// A lease and the lock it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLease {
    /// The lock.
    pub name: LockName,
    /// The lease.
    pub lease: Lease,
}

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its unguessable name.
    pub id: SessionId,
    /// Its name for people.
    pub name: String,
    /// How long it lives without a keepalive; `None` for the session of a connection.
    pub ttl: Option<Ttl>,
    /// When it ends.
    pub deadline: Timestamp,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A new lease; its token was never in a record before.
    Granted(StoredLease),
    /// A lease as it is now.
    Renewed(StoredLease),
    /// The lease with this token is over.
    Ended(FencingToken),
    /// A lock rests.
    DelayStarted(LockName, Delay),
    /// A lock rests no more.
    DelayEnded(LockName),
    /// A session as it is now.
    SessionOpened(SessionRecord),
    /// A session is over.
    SessionEnded(SessionId),
    /// Tokens up to this one may be issued.
    TokensReserved(i64),
}

/// What becomes of a lease in a batch.
#[derive(Debug, Clone, Copy)]
pub(super) enum LeaseNet<'a> {
    /// It is new.
    Granted(&'a StoredLease),
    /// It was there before.
    Renewed(&'a StoredLease),
    /// It was there before, and is over.
    Ended,
}

/// What a batch comes to: the last state of everything it names.
#[derive(Debug, Default)]
pub(super) struct Net<'a> {
    /// By token. Absent: granted and ended within the batch.
    pub(super) leases: BTreeMap<FencingToken, LeaseNet<'a>>,
    pub(super) delays: BTreeMap<&'a LockName, Option<Delay>>,
    pub(super) sessions: BTreeMap<SessionId, Option<&'a SessionRecord>>,
    pub(super) tokens_reserved: Option<i64>,
}

impl<'a> Net<'a> {
    pub(super) fn of(batch: &'a [Record]) -> Net<'a> {
        let mut net = Net::default();
        for record in batch {
            match record {
                Record::Granted(stored) => {
                    net.leases.insert(stored.lease.token, LeaseNet::Granted(stored));
                }
                Record::Renewed(stored) => {
                    let token = stored.lease.token;
                    let is_new = matches!(net.leases.get(&token), Some(LeaseNet::Granted(_)));
                    let renewed = if is_new { LeaseNet::Granted(stored) } else { LeaseNet::Renewed(stored) };
                    net.leases.insert(token, renewed);
                }
                Record::Ended(token) => {
                    if let Some(LeaseNet::Granted(_)) = net.leases.insert(*token, LeaseNet::Ended) {
                        net.leases.remove(token);
                    }
                }
                Record::DelayStarted(name, delay) => {
                    net.delays.insert(name, Some(*delay));
                }
                Record::DelayEnded(name) => {
                    net.delays.insert(name, None);
                }
                Record::SessionOpened(session) => {
                    net.sessions.insert(session.id, Some(session));
                }
                Record::SessionEnded(id) => {
                    net.sessions.insert(*id, None);
                }
                Record::TokensReserved(upto) => {
                    net.tokens_reserved = net.tokens_reserved.max(Some(*upto));
                }
            }
        }
        net
    }

    /// Whether the state after the batch is the state before it.
    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty()
            && self.delays.is_empty()
            && self.sessions.is_empty()
            && self.tokens_reserved.is_none()
    }
}
