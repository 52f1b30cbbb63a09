//! Clients that lock, release and read over all servers of a cluster, and the history of what they
//! were answered.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use octostore::clock::Clock;

use super::Caller;
use crate::linearizability::{self, Answered, Asked, Call};
use crate::support::random::Random;
use crate::support::until;

const KEYS: [&str; 3] = ["a", "b", "c"];
const TTL_MS: u64 = 600_000;

/// What all clients share.
pub(super) struct History {
    calls: Mutex<Vec<(usize, Call)>>,
    order: AtomicU64,
    clock: Clock,
    is_over: AtomicBool,
    /// The servers that run.
    pub(super) addresses: Mutex<Vec<SocketAddr>>,
}

impl History {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> History {
        History {
            calls: Mutex::default(),
            order: AtomicU64::new(0),
            clock: Clock::system(),
            is_over: AtomicBool::new(false),
            addresses: Mutex::new(addresses),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now().as_nanos() / 1_000_000
    }

    fn next(&self) -> (u64, u64) {
        (self.order.fetch_add(1, Ordering::SeqCst), self.now_ms())
    }

    fn grants(&self) -> usize {
        let calls = self.calls.lock().expect("no panic under it");
        calls.iter().filter(|(_, call)| matches!(call.answered, Some(Answered::Token(1..)))).count()
    }

    /// Waits for more grants.
    pub(super) fn until_granted(&self, more: usize) {
        let enough = self.grants() + more;
        until(|| self.grants() >= enough);
    }

    /// Milliseconds from `since_ms` to the answer of the first grant that was asked for afterwards.
    pub(super) fn first_grant_after(&self, since_ms: u64) -> u64 {
        let is_grant = |call: &Call| matches!(call.asked, Asked::Lock { .. }) && call.began_ms >= since_ms;
        let calls = self.calls.lock().expect("no panic under it");
        let granted = calls.iter().map(|(_, call)| call).filter(|call| is_grant(call));
        let granted = granted.filter(|call| matches!(call.answered, Some(Answered::Token(_))));
        granted.map(|call| call.ended_ms - since_ms).min().expect("a grant")
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Locks, releases and reads until it is over, each connection on another server.
    pub(super) fn serve_client(&self, owner: u8) {
        let mut random = Random::new(u64::from(owner) + 1);
        let mut connection = None;
        while !self.is_over.load(Ordering::SeqCst) {
            let Some(caller) = &mut connection else {
                let addresses = self.addresses.lock().expect("no panic under it").clone();
                connection = Caller::connect(addresses[random.below(addresses.len() as u64) as usize]);
                continue;
            };
            let key = random.below(KEYS.len() as u64) as usize;
            let (owner_text, ttl) = (owner.to_string(), TTL_MS.to_string());
            let (asked, words) = match random.below(5) {
                0..2 => {
                    (Asked::Lock { owner, ttl: TTL_MS }, vec!["LOCK", KEYS[key], &owner_text, "PX", &ttl])
                }
                2..4 => (Asked::Unlock { owner, token: None }, vec!["UNLOCK", KEYS[key], &owner_text]),
                _ => (Asked::Fence, vec!["FENCE", KEYS[key]]),
            };
            let (began, began_ms) = self.next();
            let reply = caller.call(&words);
            let (ended, ended_ms) = self.next();
            let answered = match reply.as_deref() {
                // No server has run it.
                Some(refusal) if refusal.starts_with("-LOADING") || refusal.starts_with("-MISCONF") => {
                    connection = None;
                    continue;
                }
                // It may have been run.
                None => {
                    connection = None;
                    None
                }
                Some(unknown) if unknown.starts_with("-UNKNOWN") => None,
                Some(reply) => Some(read(&asked, reply)),
            };
            let call = Call { asked, began, ended, began_ms, ended_ms, answered };
            self.calls.lock().expect("no panic under it").push((key, call));
        }
    }

    /// Fails unless every key was a mutex.
    pub(super) fn check(&self) {
        let calls = self.calls.lock().expect("no panic under it");
        for (index, key) in KEYS.iter().enumerate() {
            let of_key = calls.iter().filter(|(key, _)| *key == index).map(|(_, call)| call.clone());
            let of_key: Vec<Call> = of_key.collect();
            linearizability::check(&of_key).unwrap_or_else(|why| panic!("{key}: {why}"));
        }
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
