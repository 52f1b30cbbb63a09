//! The simulated world: one server, its disk and clock, its clients, and an operator.
//!
//! One seed decides everything. The lock manager, its journal and the rules of locks are the real
//! ones; time, storage, and the network between clients and the server are simulated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Waker};

use octostore::clock::Clock;
use octostore::domain::{LockName, Owner, SessionId, Ttl};
use octostore::engine::{Blocked, Engine};
use octostore::entropy::Entropy;
use octostore::journal::JournalError;

use super::clients::Client;
use super::disk::{Disk, Fate};
use super::network::InFlight;
use super::oracle::{Belief, ensure};
use super::values::{Death, Values};
use crate::linearizability::Call;
use crate::support::engine_config;
use crate::support::random::Random;

pub(super) const CLIENTS: usize = 4;
/// Nothing that a client asks for lasts longer, in milliseconds.
pub(super) const LONGEST_MS: u64 = 5_000;

/// What a lock is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Exclusive; its history is checked.
    Plain,
    /// Exclusive, by sessions as well; its history is checked.
    Sessions,
    /// In all modes.
    Modes,
    /// With lock-delays and MAXHOLD.
    Delays,
}

pub(super) const KEYS: [(&str, Kind); 4] =
    [("plain", Kind::Plain), ("sessions", Kind::Sessions), ("modes", Kind::Modes), ("delays", Kind::Delays)];

/// A defect put in on purpose, to show that the check of histories finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Defect {
    /// Replies do not wait for their commit.
    RepliesBeforeCommit,
    /// After a restart tokens start again.
    TokensComeBack,
    /// A waiter that is gone is granted the lock.
    GrantsToTheDead,
    /// Leases end by the wall clock.
    LeasesByWallClock,
    /// The disk says that a commit is kept when it is not.
    DiskLies,
    /// The disk loses elements of values.
    DiskLosesElements,
    /// A release frees the lock of any holder.
    ReleasesByName,
}

pub(crate) struct World {
    pub(super) random: Random,
    pub(super) defect: Option<Defect>,
    pub(super) disk: Arc<Disk>,
    pub(super) clock: Clock,
    pub(super) entropy: Entropy,
    pub(super) engine: Arc<Engine>,
    pub(super) boots: u32,
    pub(super) now_ms: u64,
    pub(super) order: u64,
    pub(super) clients: Vec<Client>,
    pub(super) requests: Vec<InFlight>,
    pub(super) beliefs: Vec<Belief>,
    pub(super) ended_sessions: Vec<SessionId>,
    /// The lock that an operator, or a late request, may have freed in this step.
    pub(super) freed: Option<usize>,
    /// Tokens that a client heard of, the client and the lock.
    pub(super) issued: BTreeMap<i64, (usize, usize)>,
    /// Clients, and locks of which they may have been granted more than they heard.
    pub(super) lost: BTreeSet<(usize, usize)>,
    pub(super) ghosts: Vec<Blocked>,
    pub(super) calls: Vec<Vec<Call>>,
    pub(super) values: Values,
    pub(super) trace: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, defect: Option<Defect>, is_traced: bool) -> World {
        let (disk, clock) = (Arc::new(Disk::default()), Clock::manual());
        let entropy = Entropy::seeded(seed);
        if defect == Some(Defect::TokensComeBack) {
            disk.forget_reservations();
        }
        World {
            random: Random::new(seed),
            defect,
            engine: start(&disk, &clock, &entropy, 0).expect("an empty disk"),
            disk,
            clock,
            entropy,
            boots: 0,
            now_ms: 0,
            order: 0,
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            requests: Vec::new(),
            beliefs: Vec::new(),
            ended_sessions: Vec::new(),
            freed: None,
            issued: BTreeMap::new(),
            lost: BTreeSet::new(),
            ghosts: Vec::new(),
            calls: vec![Vec::new(); KEYS.len()],
            values: Values::default(),
            trace: is_traced.then(Vec::new),
        }
    }

    /// What happened, for people.
    pub(crate) fn trace(&self) -> String {
        self.trace.as_deref().unwrap_or_default().join("\n")
    }

    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.now_ms;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>6} ms  {}", what()));
        }
    }

    pub(super) fn next_in_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Does one thing. Says what is wrong, if anything is.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        // What a step changes lands in one commit: the commit thread must not take a part of it by
        // chance.
        let engine = Arc::clone(&self.engine);
        let one_commit = engine.one_commit();
        // The other defects are about locks.
        let has_values = self.defect.is_none_or(|defect| defect == Defect::DiskLosesElements);
        if has_values && self.random.permille(300) {
            self.change_value();
        }
        match self.random.below(1000) {
            0..300 => self.ask(),
            300..550 => self.deliver_one(),
            550..720 => self.answer_one()?,
            720..800 => self.let_time_pass(),
            800..850 => {
                self.engine.expire_due();
            }
            850..930 => self.commit(),
            930..960 => self.cut_one(),
            960..970 => self.look_at_beliefs().and_then(|()| self.look_at_values())?,
            970..985 => self.step_wall_clock(),
            985..992 => self.refuse_commit()?,
            _ => self.crash()?,
        }
        self.receive_outcomes()?;
        drop(one_commit);
        self.freed = None;
        self.wait_for_journal();
        self.receive_durability();
        self.check()
    }

    /// Waits until the commit thread has nothing to do, or waits for the fate of a commit.
    pub(super) fn wait_for_journal(&self) {
        // What no reply waits for, the commit thread may leave for a while.
        let mut reply = Some(Box::pin(self.engine.barrier(self.engine.last())));
        loop {
            if self.disk.has_commit() {
                return;
            }
            // Do not read locks here: that could expire leases, and their waiters would be served
            // late.
            let is_up = self.engine.journal_down().is_none();
            if is_up && self.engine.durability_of(self.engine.last()).is_some() {
                return;
            }
            reply.take_if(|reply| reply.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
            std::thread::yield_now();
        }
    }

    pub(super) fn commit(&mut self) {
        if !self.disk.has_commit() {
            return;
        }
        let fate = match self.defect {
            Some(Defect::DiskLies) if self.random.permille(300) => Fate::Lied,
            Some(Defect::DiskLosesElements) => Fate::Torn,
            _ => Fate::Kept,
        };
        self.say(|| format!("a commit ends: {fate:?}"));
        self.disk.decide(fate);
    }

    /// A commit fails; then storage works again, and the server goes back to what it has kept.
    pub(super) fn refuse_commit(&mut self) -> Result<(), String> {
        if !self.disk.has_commit() {
            return Ok(());
        }
        self.say(|| "a commit fails".into());
        self.disk.decide(Fate::Refused);
        while self.engine.journal_down().is_none() && !self.disk.has_commit() {
            std::thread::yield_now();
        }
        while let Some(why) = self.engine.journal_down() {
            ensure(!matches!(why, JournalError::Corrupt { .. }), || {
                format!("what was kept is refused: {why}")
            })?;
            if self.disk.has_commit() {
                self.disk.decide(Fate::Kept);
            }
            std::thread::yield_now();
        }
        self.receive_durability();
        self.look_at_values()
    }

    pub(super) fn let_time_pass(&mut self) {
        let most = self.random.of(&[2, 20, 200, 200, 1000]);
        let millis = 1 + self.random.below(most);
        self.now_ms += millis;
        self.clock.advance_millis(millis);
    }

    pub(super) fn step_wall_clock(&mut self) {
        const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
        let to = self.random.below(3 * YEAR_MS);
        self.say(|| format!("the wall clock is set to {to}"));
        if self.defect == Some(Defect::LeasesByWallClock) {
            self.clock.advance_millis(self.random.below(2000));
        }
        self.clock.step_wall_to(to);
    }

    /// The server dies: killed, or with the whole machine. Another one starts.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        let keeps_last = self.random.permille(500);
        let reboots = self.random.permille(300);
        let down_ms = self.random.below(300);
        self.say(|| {
            let what = if reboots { "the machine goes down" } else { "the server is killed" };
            let last = if keeps_last { "kept" } else { "lost" };
            format!("{what}; a commit under way is {last}")
        });
        self.disk.kill(keeps_last);
        for request in std::mem::take(&mut self.requests) {
            if !request.is_cut {
                self.clients[request.client].busy = false;
            }
            self.lost.extend(request.ask.key().map(|key| (request.client, key)));
            self.close_call(request.ask.key(), request.call, None);
        }
        self.ghosts.clear();
        let death = Death { died_ms: self.now_ms, has_rebooted: reboots };
        self.now_ms += down_ms;
        if reboots {
            self.boots += 1;
            self.clock = Clock::manual();
            self.clock.advance_millis(self.random.below(1000));
        } else {
            self.clock.advance_millis(down_ms);
        }
        self.engine = start(&self.disk, &self.clock, &self.entropy, self.boots)?;
        self.look_at_recovered_values(&death)?;
        self.wait_for_journal();
        self.look_at_beliefs()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A commit that waits for its outcome would block the commit thread and the thread that
        // joins it.
        self.disk.kill(false);
    }
}

pub(super) fn name(key: usize) -> LockName {
    LockName::new(0, KEYS[key].0.as_bytes()).expect("a short name")
}

pub(super) fn owner(client: usize) -> Owner {
    Owner::new(format!("client {client}").as_bytes()).expect("a short owner")
}

pub(super) fn ttl(millis: u64) -> Ttl {
    Ttl::from_millis(millis).expect("a short TTL")
}

pub(super) fn start(
    disk: &Arc<Disk>,
    clock: &Clock,
    entropy: &Entropy,
    boots: u32,
) -> Result<Arc<Engine>, String> {
    let config = engine_config(format!("boot {boots}"), entropy.clone());
    Engine::start(disk.backend(), clock.clone(), config)
        .map_err(|why| format!("what was kept is refused: {why}"))
}
