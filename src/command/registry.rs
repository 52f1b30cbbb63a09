//! The registry of connected clients.
//!
//! Guarantees: the information about a connection is at most one batch of requests old. Not here:
//! sockets. A connection checks itself whether it has been killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::Unblock;
use super::attention::Attention;
use super::pubsub::MessageQueue;
use super::tracking::ClientTracking;
use crate::auth::DEFAULT_USER;
use crate::domain::Timestamp;

/// All connected clients.
#[derive(Default)]
pub struct Clients {
    last_id: AtomicU64,
    connected: Mutex<BTreeMap<u64, Arc<ClientInfo>>>,
}

/// Public information about a connection.
pub struct ClientInfo {
    /// The connection's id, never reused.
    pub id: u64,
    /// The client's address.
    pub addr: String,
    /// The server's address.
    pub local_addr: String,
    pub(super) opened: Timestamp,
    details: Mutex<Details>,
    is_killed: AtomicBool,
    is_handed_over: AtomicBool,
    is_gone: AtomicBool,
    attention: Attention,
    pub(super) messages: MessageQueue,
}

/// The mutable part of [`ClientInfo`].
#[derive(Default, Clone)]
pub(super) struct Details {
    pub(super) name: String,
    /// The user; `None` before authentication.
    pub(super) user: Option<Arc<str>>,
    pub(super) lib_name: String,
    pub(super) lib_version: String,
    pub(super) database: u8,
    pub(super) protocol: u8,
    pub(super) last_seen: Timestamp,
    pub(super) last_command: &'static str,
    pub(super) channels: usize,
    pub(super) patterns: usize,
    pub(super) shard_channels: usize,
    pub(super) queued: Option<usize>,
    pub(super) watched: usize,
    pub(super) is_monitor: bool,
    pub(super) tracking: Option<ClientTracking>,
    pub(super) is_waiting: bool,
    /// The wait is to be ended.
    pub(super) unblock: Option<Unblock>,
}

impl Clients {
    fn connected(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ClientInfo>>> {
        self.connected.lock()
    }

    pub(super) fn register(
        &self,
        addr: String,
        local_addr: String,
        now: Timestamp,
        message_bytes_max: usize,
    ) -> Arc<ClientInfo> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let details = Details { protocol: 2, last_seen: now, last_command: "NULL", ..Details::default() };
        let info = Arc::new(ClientInfo {
            id,
            addr,
            local_addr,
            opened: now,
            details: Mutex::new(details),
            is_killed: AtomicBool::new(false),
            is_handed_over: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            attention: Attention::default(),
            messages: MessageQueue::new(message_bytes_max),
        });
        self.connected().insert(id, Arc::clone(&info));
        info
    }

    pub(super) fn remove(&self, id: u64) {
        let removed = self.connected().remove(&id);
        if let Some(info) = removed {
            info.is_gone.store(true, Ordering::Release);
        }
    }

    /// The number of connected clients.
    pub fn len(&self) -> usize {
        self.connected().len()
    }

    /// Whether no client is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn find(&self, id: u64) -> Option<Arc<ClientInfo>> {
        self.connected().get(&id).cloned()
    }

    pub(super) fn waiting(&self) -> usize {
        self.all().iter().filter(|info| info.details().is_waiting).count()
    }

    /// Closes all connections after the requests they have received.
    pub fn kill_all(&self) {
        self.all().iter().for_each(|info| info.kill());
    }

    /// Asks all connections that another service can go on with to go there.
    pub fn hand_over_all(&self) {
        self.all().iter().for_each(|info| info.hand_over());
    }

    pub(super) fn all(&self) -> Vec<Arc<ClientInfo>> {
        self.connected().values().cloned().collect()
    }
}

impl ClientInfo {
    fn details(&self) -> MutexGuard<'_, Details> {
        self.details.lock()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Details)) {
        change(&mut self.details());
    }

    pub(super) fn read<R>(&self, read: impl FnOnce(&Details) -> R) -> R {
        read(&self.details())
    }

    pub(super) fn set_user(&self, user: Option<Arc<str>>) {
        self.update(|details| details.user = user);
    }

    /// The user, if the connection has authenticated or needs no password.
    pub(super) fn user(&self) -> Option<Arc<str>> {
        self.details().user.clone()
    }

    pub(super) fn name(&self) -> String {
        self.details().name.clone()
    }

    /// Asks the connection to close.
    pub fn kill(&self) {
        self.is_killed.store(true, Ordering::Release);
        self.wake();
    }

    fn hand_over(&self) {
        self.is_handed_over.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether another service is to go on with the connection, if it can.
    pub fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::Acquire)
    }

    /// Records whether a request of the connection waits, or is about to.
    pub(super) fn set_waiting(&self, is_waiting: bool) {
        self.update(|details| (details.is_waiting, details.unblock) = (is_waiting, None));
    }

    /// Ends the wait of the connection's request, if it waits. Returns whether it does.
    pub fn unblock(&self, how: Unblock) -> bool {
        let mut details = self.details();
        let is_waiting = details.is_waiting && details.unblock.is_none();
        if is_waiting {
            details.unblock = Some(how);
            drop(details);
            self.wake();
        }
        is_waiting
    }

    /// Whether the wait of the connection's request is to be ended.
    pub fn is_unblocked(&self) -> bool {
        self.details().unblock.is_some()
    }

    /// Notes that the connection's request waits no longer. Returns how its wait was ended, if it
    /// was ended by [`ClientInfo::unblock`].
    pub fn end_wait(&self) -> Option<Unblock> {
        let mut details = self.details();
        details.is_waiting = false;
        details.unblock.take()
    }

    /// Makes the connection check [`ClientInfo::is_killed`], [`ClientInfo::is_unblocked`] and its
    /// message queue.
    pub(super) fn wake(&self) {
        self.attention.call();
    }

    /// Whether the connection has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Whether the connection has been asked to close.
    pub fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Completes after `ClientInfo::wake`. Awaited by the connection only.
    pub async fn woken(&self) {
        self.attention.called().await;
    }

    /// Whether the connection waits for a key, or for messages.
    pub(super) fn is_listening(&self) -> bool {
        let details = self.details();
        let subscriptions = details.channels + details.patterns + details.shard_channels;
        details.is_waiting || details.is_monitor || subscriptions > 0
    }

    pub(super) fn client_type(&self) -> &'static str {
        let details = self.details();
        if details.channels + details.patterns + details.shard_channels > 0 { "pubsub" } else { "normal" }
    }

    /// The line of CLIENT LIST.
    pub(super) fn line(&self, now: Timestamp) -> String {
        let details = self.details().clone();
        let mut flags = String::new();
        flags.extend(details.is_monitor.then_some('O'));
        flags.extend((details.channels + details.patterns + details.shard_channels > 0).then_some('P'));
        flags.extend(details.queued.is_some().then_some('x'));
        flags.extend(details.is_waiting.then_some('b'));
        flags.extend(details.tracking.is_some().then_some('t'));
        flags.extend(details.tracking.is_some_and(|tracking| tracking.is_broadcast()).then_some('B'));
        if flags.is_empty() {
            flags.push('N');
        }
        format!(
            "id={} addr={} laddr={} name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} multi={} watch={} \
             cmd={} user={} redir={} resp={} lib-name={} lib-ver={}",
            self.id,
            self.addr,
            self.local_addr,
            details.name,
            now.millis_since(self.opened) / 1000,
            now.millis_since(details.last_seen) / 1000,
            details.database,
            details.channels,
            details.patterns,
            details.shard_channels,
            details.queued.map_or(-1, |queued| i64::try_from(queued).unwrap_or(i64::MAX)),
            details.watched,
            details.last_command,
            details.user.as_deref().unwrap_or(DEFAULT_USER),
            details.tracking.map_or(-1, |tracking| tracking.redirection()),
            details.protocol,
            details.lib_name,
            details.lib_version,
        )
    }
}
