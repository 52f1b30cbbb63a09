//! Random schedules: the network is cut and repaired at random times.
//!
//! `OCTOSTORE_TEST_RUNS=1000 cargo test --test it -- in_random_schedules` runs more of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use octostore::clock::Clock;

use super::relay::Relay;
use super::run::{Running, STUBBORN};
use crate::support::random::{Random, setting};
use crate::support::server::TestServer;

const RUNS: u64 = 6;
const AT_ONCE: u64 = 12;
const TTL_MS: u64 = 1_000;

/// In each run, under one lock or several, the group is gone before a lease can have ended: less
/// than one TTL after the last request about it that has reached the server.
#[test]
fn in_random_schedules_every_group_is_gone_before_its_lease_ends() {
    let server = TestServer::real(&[]);
    let runs = setting("OCTOSTORE_TEST_RUNS").unwrap_or(RUNS);
    let next = AtomicU64::new(0);
    let longest = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(runs) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= runs {
                        break;
                    }
                    longest.fetch_max(one_run(&server, seed), Ordering::Relaxed);
                }
            });
        }
    });
    println!("{runs} runs; the last group was gone {} ms after its last request", longest.into_inner());
}

/// Returns how many milliseconds after the last request about its lease the group was gone.
fn one_run(server: &TestServer, seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let relay = Relay::start(server.addr);
    let keys = ["a", "b", "c"].map(|key| format!("{key}{seed}"));
    let grace = format!("{}ms", 1 + random.below(500));
    let kinds: [&[&str]; 5] =
        [&[], &["--shared"], &["--limit", "3"], &[&keys[1]], &[&keys[2], &keys[1], "--shared"]];
    let flags = [random.of(&kinds), &[&keys[0], "--ttl", "1s", "--grace", &grace]].concat();
    let running = Running::start(relay.addr, &flags, STUBBORN);
    let clock = Clock::system();
    let gone = std::thread::scope(|scope| {
        // The end may come before the last disturbance.
        let gone = scope.spawn(|| running.until_gone());
        // A few disturbances that pass, then one that stays.
        for _ in 0..random.below(4) {
            pause(&clock, random.below(TTL_MS / 2));
            relay.set(random.permille(500), random.permille(500));
            pause(&clock, random.below(TTL_MS / 3));
            relay.set(false, false);
        }
        pause(&clock, random.below(TTL_MS));
        let (drops_requests, drops_replies) = random.of(&[(true, false), (false, true), (true, true)]);
        relay.set(drops_requests, drops_replies);
        gone.join().expect("its end")
    });
    let lasted = gone.millis_since(relay.extended_at());
    let (code, messages) = running.wait();
    assert!(lasted < TTL_MS && code == 76, "seed {seed}: {lasted} ms, code {code}: {messages}");
    lasted
}

/// Lets time pass in which the program runs.
fn pause(clock: &Clock, millis: u64) {
    let began = clock.now();
    while clock.now().millis_since(began) < millis {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
