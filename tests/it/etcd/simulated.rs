//! Leaders that follow each other on one simulated etcd, by seeds: responses are lost, transactions
//! run late, a deposed leader goes on serving as long as it can. The histories of all clients over
//! all leaders must be those of a mutex.

use std::sync::Arc;

use octostore::clock::Clock;
use octostore::domain::{LockName, Owner, Timestamp, Ttl};
use octostore::engine::{Engine, Unavailable};
use octostore::entropy::Entropy;
use octostore::journal::etcd::{EtcdBackend, Fate, LeftOut, SimulatedEtcd};
use octostore::journal::{Backend, BackendTraits, JournalError, Loaded, Record, Seq};
use octostore::lock::{Op, Request};

use super::answer;
use crate::linearizability::{self, Answered, Asked, Call};
use crate::support::engine_config;
use crate::support::random::{Random, setting};

const STEPS: usize = 80;
const SEEDS: u64 = 60;
const PREFIX: &str = "/locks";
const KEYS: [&str; 2] = ["a", "b"];
const CLIENTS: u64 = 3;

/// What is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    NoGuard(LeftOut),
    ReadsWithoutCommit,
}

/// A backend whose reads do not ask for a commit.
struct HastyReads(EtcdBackend);

impl Backend for HastyReads {
    fn traits(&self) -> BackendTraits {
        BackendTraits { reads_need_commit: false, ..self.0.traits() }
    }

    fn load(
        &mut self,
        boot: Option<&str>,
        now: Timestamp,
        each: &mut dyn FnMut(Record),
    ) -> Result<Loaded, JournalError> {
        self.0.load(boot, now, each)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), JournalError> {
        self.0.commit(batch)
    }

    fn verify(&mut self) -> Result<(), JournalError> {
        Ok(())
    }

    fn maintain(&mut self) -> Result<bool, JournalError> {
        self.0.maintain()
    }
}

/// A server that leads, or thinks so.
struct Leader {
    engine: Arc<Engine>,
    clock: Clock,
}

/// A reply that waits to be revealed.
struct Pending {
    key: usize,
    call: usize,
    leader: usize,
    seq: Seq,
    answer: Option<Answered>,
}

struct World {
    random: Random,
    etcd: SimulatedEtcd,
    defect: Option<Defect>,
    leaders: Vec<Leader>,
    pending: Vec<Pending>,
    calls: [Vec<Call>; KEYS.len()],
    /// Counts everything that happens.
    order: u64,
    now_ms: u64,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new(seed: u64, defect: Option<Defect>) -> World {
        let etcd = SimulatedEtcd::default();
        if let Some(Defect::NoGuard(guard)) = defect {
            etcd.leave_out(guard);
        }
        let mut fates = Random::new(!seed);
        etcd.decide(move |_| match fates.below(100) {
            0..3 => Fate::RequestLost,
            3..6 => Fate::ResponseLost,
            6..12 => Fate::Late,
            12 => Fate::NoSpace,
            _ => Fate::Answered,
        });
        let mut world = World {
            random: Random::new(seed),
            etcd,
            defect,
            leaders: Vec::new(),
            pending: Vec::new(),
            calls: Default::default(),
            order: 0,
            now_ms: 0,
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
        };
        world.elect();
        world
    }

    fn next(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Another server leads. The one before does not know.
    fn elect(&mut self) {
        let epoch = self.etcd.elect(PREFIX);
        let folds_at = self.random.of(&[1, 3, 1000]);
        for _ in 0..100 {
            let clock = Clock::manual();
            clock.advance_millis(self.random.below(1_000_000));
            let Ok(mut backend) = EtcdBackend::over(Box::new(self.etcd.clone()), PREFIX, epoch) else {
                continue;
            };
            backend.fold_at(folds_at);
            let backend: Box<dyn Backend> = match self.defect {
                Some(Defect::ReadsWithoutCommit) => Box::new(HastyReads(backend)),
                _ => Box::new(backend),
            };
            if let Ok(engine) =
                Engine::start(backend, clock.clone(), engine_config("boot", Entropy::system()))
            {
                self.leaders.push(Leader { engine, clock });
                return;
            }
        }
        panic!("no server can lead");
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..4 => self.elect(),
            4..10 => self.etcd.run_late(),
            10..16 => {
                let millis = self.random.below(400);
                self.now_ms += millis;
                self.leaders.iter().for_each(|leader| leader.clock.advance_millis(millis));
            }
            16..58 => self.reveal(),
            _ => self.ask(),
        }
    }

    /// Runs a request, most often on the newest leader.
    fn ask(&mut self) {
        let newest = self.leaders.len() - 1;
        let leader = if self.random.permille(300) { newest.saturating_sub(1) } else { newest };
        self.wait_for_recovery(leader);
        let engine = Arc::clone(&self.leaders[leader].engine);
        let (key, owner) = (self.random.below(KEYS.len() as u64) as usize, self.random.below(CLIENTS) as u8);
        let name = LockName::new(0, KEYS[key].as_bytes()).expect("a name");
        let holder = Owner::new(&[owner]).expect("an owner");
        let ttl = 500 + self.random.below(1000);
        let began = self.next();
        let txn = engine.txn();
        let (asked, ran) = match self.random.below(10) {
            0..4 => {
                let request = Request::exclusive(holder, Ttl::from_millis(ttl).ok());
                let ran = txn.submit(&name, &Op::Acquire { request, wait: None });
                (Asked::Lock { owner, ttl }, ran.map(answer))
            }
            4..7 => {
                let ran = txn.submit(&name, &Op::Release { owner: holder, token: None });
                (Asked::Unlock { owner, token: None }, ran.map(answer))
            }
            _ => {
                let token = txn.read(&name, |slot, _| slot.newest().map_or(0, |lease| lease.token.get()));
                (Asked::Fence, token.map(Answered::Token))
            }
        };
        let seq = txn.finish();
        let (ended, ended_ms) = (u64::MAX, u64::MAX);
        let call = Call { asked, began, ended, began_ms: self.now_ms, ended_ms, answered: None };
        let call = self.record(key, call);
        match ran {
            Ok(answer) => self.pending.push(Pending { key, call, leader, seq, answer: Some(answer) }),
            Err(Unavailable::Journal(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }

    fn record(&mut self, key: usize, call: Call) -> usize {
        self.calls[key].push(call);
        self.calls[key].len() - 1
    }

    /// Answers a request that has run, unless its commit fails.
    fn reveal(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let place = self.random.below(self.pending.len() as u64) as usize;
        let Pending { key, call, leader, seq, answer } = self.pending.swap_remove(place);
        let engine = Arc::clone(&self.leaders[leader].engine);
        let is_revealed = self.runtime.block_on(engine.barrier(seq)).is_ok();
        let ended = self.next();
        if is_revealed {
            let call = &mut self.calls[key][call];
            (call.ended, call.ended_ms, call.answered) = (ended, self.now_ms, answer);
        }
    }

    /// Waits until a failed commit is recovered from, or never will be.
    fn wait_for_recovery(&self, leader: usize) {
        let engine = &self.leaders[leader].engine;
        crate::support::until(|| engine.journal_down().is_none_or(|error| !error.is_retryable()));
    }

    fn finish(mut self) -> Result<(), String> {
        while !self.pending.is_empty() {
            self.reveal();
        }
        self.etcd.run_late();
        self.elect();
        for (key, text) in KEYS.into_iter().enumerate() {
            let newest = self.leaders.len() - 1;
            self.wait_for_recovery(newest);
            let engine = Arc::clone(&self.leaders[newest].engine);
            let name = LockName::new(0, text.as_bytes()).expect("a name");
            let began = self.next();
            let txn = engine.txn();
            let token = txn.read(&name, |slot, _| slot.newest().map_or(0, |lease| lease.token.get()));
            let seq = txn.finish();
            let answered = match token {
                Ok(token) if self.runtime.block_on(engine.barrier(seq)).is_ok() => {
                    Some(Answered::Token(token))
                }
                _ => None,
            };
            let (ended, began_ms, ended_ms) = (self.next(), self.now_ms, self.now_ms);
            self.record(key, Call { asked: Asked::Fence, began, ended, began_ms, ended_ms, answered });
        }
        let explain = |(key, calls): (&str, &Vec<Call>)| {
            let history = calls.iter().map(|call| format!("  {call:?}")).collect::<Vec<_>>().join("\n");
            linearizability::check(calls).map_err(|why| format!("{key}: {why}\nThe history:\n{history}"))
        };
        KEYS.into_iter().zip(&self.calls).try_for_each(explain)
    }
}

fn live(seed: u64, defect: Option<Defect>) -> Result<(), String> {
    let mut world = World::new(seed, defect);
    (0..STEPS).for_each(|_| world.step());
    world.finish()
}

#[test]
fn leaders_on_an_unreliable_etcd_behave_as_one_mutex() {
    let seeds = match setting("OCTOSTORE_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("OCTOSTORE_TEST_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        live(seed, None).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

/// The check is worth something: it finds each guard that is left out.
#[test]
fn every_guard_that_is_left_out_is_missed() {
    for defect in
        [Defect::NoGuard(LeftOut::Created), Defect::NoGuard(LeftOut::Modified), Defect::ReadsWithoutCommit]
    {
        let is_found =
            |seed| std::panic::catch_unwind(|| live(seed, Some(defect))).is_ok_and(|lived| lived.is_err());
        let found = (0..4 * SEEDS).find(|seed| is_found(*seed));
        println!("{defect:?}: found by seed {found:?}");
        assert!(found.is_some(), "{defect:?} is not found");
    }
}
