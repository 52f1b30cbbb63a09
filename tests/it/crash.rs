//! kill -9 at random points under load: nothing acknowledged is lost, no token is issued twice.
//!
//! 50 cycles in `cargo test`; `OCTOSTORE_TEST_CRASHES=2000 cargo test --release kill_9_under_load
//! -- --nocapture` for more. A failure prints the seed; `OCTOSTORE_TEST_SEED` repeats its choices
//! (when exactly the process dies is not repeatable).

mod values;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::client::{Client, encode};
use crate::support::process::Process;
use crate::support::random::{Random, setting};

const CLIENTS: u64 = 4;
const KEYS: u64 = 8;

/// What the only client of a key knows about it. Token 0: the key is free.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Known {
    #[default]
    Free,
    Held(i64),
    /// A request was in flight when the server died: free, or held under this token or an unknown
    /// one.
    MaybeFree(i64),
    MaybeTaken,
}

#[derive(Default)]
struct Knowledge {
    keys: HashMap<String, Known>,
    tokens: Vec<i64>,
}

/// Takes and releases locks, several requests at once, until the server dies.
fn load(
    mut connection: Client,
    client: usize,
    seed: u64,
    mut known: Knowledge,
    acknowledged: &AtomicU64,
) -> Knowledge {
    let mut random = Random::new(seed);
    loop {
        // Different keys, so that no request depends on the one before it.
        let first = random.below(KEYS);
        let depth = 1 + random.below(4);
        let keys: Vec<String> = (0..depth).map(|n| format!("c{client}k{}", (first + n) % KEYS)).collect();
        let mut requests = Vec::new();
        for key in &keys {
            requests.extend(match known.keys.get(key).copied().unwrap_or_default() {
                Known::Free => encode(&["LOCK", key, "me", "PX", "600000"]),
                _ => encode(&["UNLOCK", key, "me"]),
            });
        }
        let mut answered = 0;
        if connection.stream().write_all(&requests).is_ok() {
            for key in &keys {
                let reply = connection.reply();
                if reply == "(closed)" {
                    break;
                }
                let number = reply.strip_prefix(':').unwrap_or_else(|| panic!("{reply}"));
                let n: i64 = number.parse().expect("a number");
                let now = match known.keys.get(key).copied().unwrap_or_default() {
                    Known::Free => {
                        known.tokens.push(n);
                        Known::Held(n)
                    }
                    _ => {
                        assert_eq!(n, 1, "{key} was held");
                        Known::Free
                    }
                };
                known.keys.insert(key.clone(), now);
                acknowledged.fetch_add(1, Ordering::Relaxed);
                answered += 1;
            }
        }
        if answered < keys.len() {
            for key in &keys[answered..] {
                let doubt = match known.keys.get(key).copied().unwrap_or_default() {
                    Known::Free => Known::MaybeTaken,
                    Known::Held(token) => Known::MaybeFree(token),
                    doubt => doubt,
                };
                known.keys.insert(key.clone(), doubt);
            }
            return known;
        }
    }
}

/// Compares the recovered state with the acknowledged one, and resolves doubts.
fn check(server: &Process, known: &mut Knowledge, told: &HashSet<i64>) {
    let mut client = server.connect();
    for (key, state) in &mut known.keys {
        let reply = client.call(&["FENCE", key]);
        let found = reply.strip_prefix(':').map_or(0, |token| token.parse::<i64>().expect("a token"));
        let fits = match *state {
            Known::Free => found == 0,
            Known::Held(token) => found == token,
            Known::MaybeFree(token) => found == 0 || found == token,
            // A token that was never acknowledged must not be an acknowledged one.
            Known::MaybeTaken => found == 0 || !told.contains(&found),
        };
        assert!(fits, "{key}: clients know {state:?}, the server has {found}");
        if found > 0 {
            assert_eq!(client.call(&["GET", key]), "\"me\"");
            let left: i64 = client.call(&["PTTL", key])[1..].parse().expect("a number");
            assert!((300_000..=600_000).contains(&left), "{key}: {left} ms left");
        }
        *state = if found > 0 { Known::Held(found) } else { Known::Free };
    }
}

/// Kills the server while each client loads it. Returns what the clients know then, and how many
/// operations were acknowledged.
fn kill_under_load<K: Send + 'static>(
    server: Process,
    known: Vec<K>,
    random: &mut Random,
    operations_max: u64,
    load: fn(Client, usize, u64, K, &AtomicU64) -> K,
) -> (Vec<K>, u64) {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let start = |(client, known): (usize, K)| {
        // Here, because the server may be dead before the thread runs.
        let connection = server.connect();
        let (seed, acknowledged) = (random.next(), Arc::clone(&acknowledged));
        std::thread::spawn(move || load(connection, client, seed, known, &acknowledged))
    };
    let clients: Vec<_> = known.into_iter().enumerate().map(start).collect();
    let enough = random.below(operations_max);
    crate::support::until(|| acknowledged.load(Ordering::Relaxed) >= enough);
    server.kill();
    let known = clients.into_iter().map(|client| client.join().expect("nothing is lost")).collect();
    (known, acknowledged.load(Ordering::Relaxed))
}

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let cycles = setting("OCTOSTORE_TEST_CRASHES").unwrap_or(50);
    let seed = setting("OCTOSTORE_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{cycles} cycles, seed {seed}");
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let mut knowledge: Vec<Knowledge> = (0..CLIENTS).map(|_| Knowledge::default()).collect();
    let (mut operations, mut highest, mut told) = (0, 0, HashSet::new());
    for _ in 0..cycles {
        let server = Process::start(&data, &[]);
        knowledge.iter_mut().for_each(|known| check(&server, known, &told));
        let acknowledged;
        (knowledge, acknowledged) = kill_under_load(server, knowledge, &mut random, 400, load);
        operations += acknowledged;
        let mut tokens: Vec<i64> = knowledge.iter_mut().flat_map(|known| known.tokens.drain(..)).collect();
        tokens.sort_unstable();
        assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "a token was issued twice");
        assert!(tokens.first().is_none_or(|first| *first > highest), "a token came back after a crash");
        told.extend(&tokens);
        highest = tokens.last().copied().unwrap_or(highest);
    }
    println!("{operations} acknowledged operations, highest token {highest}");
    assert!(operations > 0);
}
