//! Clients that lock, release and read over all servers of a cluster, and the history of what they
//! were answered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use octostore::clock::Clock;

use super::Caller;
use crate::linearizability::{self, Answered, Asked, Call};
use crate::support::random::Random;

const KEYS: u64 = 3;
const TTL_MS: u64 = 600_000;
/// Pause of a client between two calls: long histories take long to check.
const PACE: Duration = Duration::from_millis(5);
/// The same after a connection or a request that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Calls are noted in the order of their ends, except for a moment.
const DISORDER_MS: u64 = 1000;
/// Far longer than any change of the leader takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key: the number of the round, and of the key in it.
type Key = (u64, u64);

/// A call of a client.
struct Made {
    key: Key,
    client: u8,
    call: Call,
}

/// What all clients share.
pub(super) struct History {
    calls: Mutex<Vec<Made>>,
    /// A call has ended.
    ended: Condvar,
    order: AtomicU64,
    clock: Clock,
    is_over: Mutex<bool>,
    over: Condvar,
    /// The keys of each round are new, so that the histories stay short.
    round: AtomicU64,
    /// The servers that clients connect to.
    addresses: Mutex<Vec<SocketAddr>>,
    /// The owner of each token of earlier rounds.
    tokens: Mutex<HashMap<i64, (Key, u8)>>,
}

impl History {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> History {
        History {
            calls: Mutex::default(),
            ended: Condvar::new(),
            order: AtomicU64::new(0),
            clock: Clock::system(),
            is_over: Mutex::new(false),
            over: Condvar::new(),
            round: AtomicU64::new(0),
            addresses: Mutex::new(addresses),
            tokens: Mutex::default(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now().as_nanos() / 1_000_000
    }

    fn next(&self) -> (u64, u64) {
        (self.order.fetch_add(1, Ordering::SeqCst), self.now_ms())
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Made>> {
        self.calls.lock().expect("no panic under it")
    }

    /// Makes clients connect to these servers from now on.
    pub(super) fn reach(&self, addresses: Vec<SocketAddr>) {
        *self.addresses.lock().expect("no panic under it") = addresses;
    }

    /// Waits until something is true of the calls.
    fn wait_until(&self, holds: impl Fn(&[Made]) -> bool) -> MutexGuard<'_, Vec<Made>> {
        let waited = self.ended.wait_timeout_while(self.calls(), PATIENCE, |calls| !holds(calls));
        let (calls, timeout) = waited.expect("no panic under it");
        assert!(!timeout.timed_out(), "the clients make no progress");
        calls
    }

    /// Waits for this number of grants from now on.
    pub(super) fn until_granted(&self, grants: usize) {
        let since = self.order.load(Ordering::SeqCst);
        let is_new = |made: &&Made| made.call.began >= since && made.is_grant();
        let latest = |calls: &[Made]| {
            let calls = calls.iter().rev().take_while(|made| made.call.ended >= since);
            calls.filter(is_new).count()
        };
        drop(self.wait_until(|calls| latest(calls) >= grants));
    }

    /// Waits until each of the clients has been answered a call that it has made after a time.
    /// Returns the milliseconds from then until the first grant, and until the last of them was
    /// answered.
    pub(super) fn until_each_answered(&self, clients: u8, since_ms: u64) -> (u64, u64) {
        let first = |calls: &[Made], is_it: &dyn Fn(&Made) -> bool| {
            let calls = calls.iter().rev().take_while(|made| made.call.ended_ms + DISORDER_MS >= since_ms);
            let calls = calls.filter(|made| made.call.began_ms >= since_ms && is_it(made));
            calls.map(|made| made.call.ended_ms).min()
        };
        let of = |calls: &[Made], client| first(calls, &|made| made.client == client && made.is_answered());
        let granted = |calls: &[Made]| first(calls, &Made::is_grant);
        let calls = self.wait_until(|calls| {
            granted(calls).is_some() && (0..clients).all(|client| of(calls, client).is_some())
        });
        let last = (0..clients).filter_map(|client| of(&calls, client)).max();
        let passed = |ended: Option<u64>| ended.expect("an answer") - since_ms;
        (passed(granted(&calls)), passed(last))
    }

    /// Lets the clients take other keys, and checks the round before the one that ends.
    pub(super) fn end_round(&self) {
        let ending = self.round.fetch_add(1, Ordering::SeqCst);
        // A client may still wait for the answer to a call of the round that ends.
        self.check(|round| round < ending);
    }

    pub(super) fn end(&self) {
        *self.is_over.lock().expect("no panic under it") = true;
        self.over.notify_all();
    }

    /// Locks, releases and reads until it is over, each connection on another server.
    pub(super) fn serve_client(&self, client: u8) {
        let mut random = Random::new(u64::from(client) + 1);
        let mut connection = None;
        let mut pause = PACE;
        while self.goes_on_after(std::mem::replace(&mut pause, PACE)) {
            let Some(caller) = &mut connection else {
                let addresses = self.addresses.lock().expect("no panic under it").clone();
                let address = addresses[random.below(addresses.len() as u64) as usize];
                // What is not sent is certain not to run.
                let answers = |caller: &mut Caller| caller.call(&["PING"]).is_some();
                connection =
                    Caller::connect(address).and_then(|mut caller| answers(&mut caller).then_some(caller));
                if connection.is_none() {
                    pause = RETRY_PAUSE;
                }
                continue;
            };
            let key = (self.round.load(Ordering::SeqCst), random.below(KEYS));
            let (name, owner, ttl) = (format!("{}:{}", key.0, key.1), client.to_string(), TTL_MS.to_string());
            let (asked, words) = match random.below(5) {
                0..2 => (Asked::Lock { owner: client, ttl: TTL_MS }, vec!["LOCK", &name, &owner, "PX", &ttl]),
                2..4 => (Asked::Unlock { owner: client, token: None }, vec!["UNLOCK", &name, &owner]),
                _ => (Asked::Fence, vec!["FENCE", &name]),
            };
            let (began, began_ms) = self.next();
            let reply = caller.call(&words);
            let (ended, ended_ms) = self.next();
            let answered = match reply.as_deref() {
                // No server has run it.
                Some(refusal) if refusal.starts_with("-LOADING") || refusal.starts_with("-MISCONF") => {
                    (connection, pause) = (None, RETRY_PAUSE);
                    continue;
                }
                None => None,
                Some(unknown) if unknown.starts_with("-UNKNOWN") => None,
                Some(reply) => Some(read(&asked, reply)),
            };
            // It may have been run, and may still be on its way: to a leader, or from one to etcd.
            let ended = if answered.is_some() { ended } else { u64::MAX };
            if answered.is_none() {
                (connection, pause) = (None, RETRY_PAUSE);
                if let Asked::Fence = asked {
                    continue;
                }
            }
            let call = Call { asked, began, ended, began_ms, ended_ms, answered };
            self.calls().push(Made { key, client, call });
            self.ended.notify_all();
        }
    }

    /// Pauses. Returns whether it is not over.
    fn goes_on_after(&self, pause: Duration) -> bool {
        let is_over = self.is_over.lock().expect("no panic under it");
        let waited = self.over.wait_timeout_while(is_over, pause, |is_over| !*is_over);
        !*waited.expect("no panic under it").0
    }

    /// Fails unless every key was a mutex, and no token was that of two grants.
    pub(super) fn check_all(&self) {
        self.check(|_| true);
    }

    /// Checks the rounds for which `is_due`, and forgets their calls.
    fn check(&self, is_due: impl Fn(u64) -> bool) {
        let due: Vec<Made> = self.calls().extract_if(.., |made| is_due(made.key.0)).collect();
        let mut by_key: HashMap<Key, Vec<Call>> = HashMap::new();
        let mut tokens = self.tokens.lock().expect("no panic under it");
        for Made { key, client, call } in due {
            if let (Asked::Lock { .. }, Some(Answered::Token(token))) = (&call.asked, call.answered) {
                let grant = *tokens.entry(token).or_insert((key, client));
                assert_eq!(grant, (key, client), "token {token} appears twice");
            }
            by_key.entry(key).or_default().push(call);
        }
        for (key, calls) in by_key {
            linearizability::check(&calls).unwrap_or_else(|why| panic!("{key:?}: {why}"));
        }
    }
}

impl Made {
    fn is_answered(&self) -> bool {
        self.call.answered.is_some()
    }

    fn is_grant(&self) -> bool {
        let is_lock = matches!(self.call.asked, Asked::Lock { .. });
        is_lock && matches!(self.call.answered, Some(Answered::Token(_)))
    }
}

fn read(asked: &Asked, reply: &str) -> Answered {
    match (asked, reply) {
        (Asked::Unlock { .. }, ":0") => Answered::Done(false),
        (Asked::Unlock { .. }, ":1") => Answered::Done(true),
        (Asked::Lock { .. }, "$-1") => Answered::Refused,
        (Asked::Fence, "$-1") => Answered::Token(0),
        (Asked::Lock { .. } | Asked::Fence, token) => {
            let digits = token.strip_prefix(':').and_then(|digits| digits.parse().ok());
            Answered::Token(digits.unwrap_or_else(|| panic!("{token}")))
        }
        other => panic!("{other:?}"),
    }
}
