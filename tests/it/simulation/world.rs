//! The simulated world: one server, its disk and clock, clients that come, stall and vanish, and an operator.
//!
//! Everything is chosen by one seed. The lock manager, its journal and the rules of locks are the real ones; simulated are
//! time, storage, and the network between clients and the server.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use octostore::clock::Clock;
use octostore::domain::{FencingToken, LockName, Owner, SessionId, Ttl};
use octostore::engine::{Acquired, Blocked, Engine, EngineConfig, Unavailable, WaitOutcome};
use octostore::journal::{Durability, JournalError, Seq};
use octostore::lock::{LeaseExtra, Mode, Op, Outcome, Refusal, Request};

use super::disk::{Disk, Fate};
use crate::linearizability::{Answered, Asked, Call};
use crate::random::Random;

const CLIENTS: usize = 4;
/// Nothing that a client asks for lasts longer, in milliseconds.
const LONGEST_MS: u64 = 5_000;

/// What a lock is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Exclusive; its history is checked.
    Plain,
    /// Exclusive, by sessions as well; its history is checked.
    Sessions,
    /// In all modes.
    Modes,
    /// With lock-delays and MAXHOLD.
    Delays,
}

const KEYS: [(&str, Kind); 4] =
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
    /// A release frees the lock whoever holds it.
    ReleasesByName,
}

/// What a client asks the server for.
#[derive(Clone, Debug)]
enum Ask {
    Lock { key: usize, request: Request, wait: Option<Ttl> },
    Unlock { key: usize, token: Option<FencingToken> },
    Renew { key: usize, token: Option<FencingToken>, ttl: Ttl },
    Fence { key: usize },
    Force { key: usize },
    OpenSession { ttl: Ttl },
    KeepAlive { session: SessionId },
    CloseSession { session: SessionId },
}

impl Ask {
    fn key(&self) -> Option<usize> {
        match self {
            Ask::Lock { key, .. }
            | Ask::Unlock { key, .. }
            | Ask::Renew { key, .. }
            | Ask::Fence { key }
            | Ask::Force { key } => Some(*key),
            _ => None,
        }
    }
}

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Lock(Answered),
    Session(SessionId),
    SessionKept(SessionId),
    SessionClosed,
    NoSession(SessionId),
    /// Whether it happened is not known, or it did not.
    Error,
}

enum Progress {
    /// On its way to the server.
    Sent,
    Blocked(Blocked, u64),
    /// On its way back once this is durable.
    Answered {
        answer: Answer,
        seq: Seq,
        at_ms: u64,
        parked: Option<Blocked>,
    },
}

/// A request between its client and the server.
struct InFlight {
    client: usize,
    /// Nobody waits for the answer any more.
    is_cut: bool,
    /// Since it was granted an operator, or a late request of the same client, may have freed the lock.
    is_overtaken: bool,
    ask: Ask,
    progress: Progress,
    /// Where it is in the history.
    call: Option<usize>,
    highest_token_before: i64,
}

/// What a client may rely on.
#[derive(Clone, Debug)]
struct Belief {
    client: usize,
    key: usize,
    token: i64,
    mode: Mode,
    until_ms: u64,
    hold_until_ms: u64,
    session: Option<SessionId>,
}

/// A session as its client knows it.
#[derive(Clone, Copy)]
struct Session {
    id: SessionId,
    ttl_ms: u64,
    until_ms: u64,
}

#[derive(Default)]
struct Client {
    busy: bool,
    session: Option<Session>,
    /// The last token of each lock, however old.
    tokens: BTreeMap<usize, i64>,
}

pub(crate) struct World {
    random: Random,
    defect: Option<Defect>,
    disk: Arc<Disk>,
    clock: Clock,
    engine: Arc<Engine>,
    boots: u32,
    now_ms: u64,
    order: u64,
    clients: Vec<Client>,
    requests: Vec<InFlight>,
    beliefs: Vec<Belief>,
    ended_sessions: Vec<SessionId>,
    /// The lock that an operator, or a late request, may have freed in this step.
    freed: Option<usize>,
    /// Tokens that a client heard of, the client and the lock.
    told: BTreeMap<i64, (usize, usize)>,
    /// Clients, and locks of which they may have been granted more than they heard.
    lost: BTreeSet<(usize, usize)>,
    ghosts: Vec<Blocked>,
    calls: Vec<Vec<Call>>,
    trace: Option<Vec<String>>,
}

fn poll_now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn name(key: usize) -> LockName {
    LockName::new(0, KEYS[key].0.as_bytes()).expect("a short name")
}

fn owner(client: usize) -> Owner {
    Owner::new(format!("client {client}").as_bytes()).expect("a short owner")
}

fn ttl(millis: u64) -> Ttl {
    Ttl::from_millis(millis).expect("a short TTL")
}

fn start(disk: &Arc<Disk>, clock: &Clock, boots: u32) -> Result<Arc<Engine>, String> {
    let config = EngineConfig {
        durability: Durability::Always,
        locks_max: 1000,
        sessions_max: 1000,
        waiters_per_lock_max: 1000,
        leases_per_account_max: 1000,
        token_floor: 0,
        boot: Some(format!("boot {boots}")),
    };
    Engine::start(disk.backend(), clock.clone(), config)
        .map_err(|why| format!("what was kept is refused: {why}"))
}

/// Things are so, or the simulation has found something.
fn ensure(is_so: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(what()) }
}

impl World {
    pub(crate) fn new(seed: u64, defect: Option<Defect>, is_traced: bool) -> World {
        let (disk, clock) = (Arc::new(Disk::default()), Clock::manual());
        if defect == Some(Defect::TokensComeBack) {
            disk.forget_reservations();
        }
        World {
            random: Random::new(seed),
            defect,
            engine: start(&disk, &clock, 0).expect("an empty disk"),
            disk,
            clock,
            boots: 0,
            now_ms: 0,
            order: 0,
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            requests: Vec::new(),
            beliefs: Vec::new(),
            ended_sessions: Vec::new(),
            freed: None,
            told: BTreeMap::new(),
            lost: BTreeSet::new(),
            ghosts: Vec::new(),
            calls: vec![Vec::new(); KEYS.len()],
            trace: is_traced.then(Vec::new),
        }
    }

    /// What happened, for people.
    pub(crate) fn trace(&self) -> String {
        self.trace.as_deref().unwrap_or_default().join("\n")
    }

    /// What clients saw of each lock whose history can be checked.
    pub(crate) fn histories(&self) -> impl Iterator<Item = (&'static str, &[Call])> {
        KEYS.iter().zip(&self.calls).map(|((name, _), calls)| (*name, calls.as_slice()))
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.now_ms;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>6} ms  {}", what()));
        }
    }

    fn next_in_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Does one thing. Says what is wrong, if anything is.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        match self.random.below(1000) {
            0..300 => self.ask(),
            300..550 => self.deliver_one(),
            550..720 => self.answer_one()?,
            720..800 => self.let_time_pass(),
            800..850 => {
                let _one_commit = self.engine.one_commit();
                self.engine.expire_due();
            }
            850..930 => self.commit(),
            930..960 => self.cut_one(),
            960..970 => self.look_at_beliefs()?,
            970..985 => self.step_wall_clock(),
            985..992 => self.refuse_commit()?,
            _ => self.crash()?,
        }
        self.hear_waiters()?;
        self.freed = None;
        self.wait_for_journal();
        self.check()
    }

    // Clients.

    fn ask(&mut self) {
        let client = self.random.below(CLIENTS as u64) as usize;
        if self.clients[client].busy {
            return;
        }
        let key = self.random.below(KEYS.len() as u64) as usize;
        let believes = self.beliefs.iter().any(|belief| belief.client == client && belief.key == key);
        let token = self.clients[client].tokens.get(&key).copied().filter(|_| self.random.permille(500));
        let token = token.and_then(|token| FencingToken::new(token).ok());
        let session = self.clients[client].session;
        let ask = match self.random.below(100) {
            0..8 if KEYS[key].1 == Kind::Sessions => match session {
                None => Ask::OpenSession { ttl: ttl(100 + self.random.below(3000)) },
                Some(session) if self.random.permille(250) => Ask::CloseSession { session: session.id },
                Some(session) => Ask::KeepAlive { session: session.id },
            },
            0..10 => Ask::Fence { key },
            10..12 => Ask::Force { key },
            12..25 => Ask::Renew { key, token, ttl: ttl(20 + self.random.below(2000)) },
            25..60 if believes => Ask::Unlock { key, token },
            25..35 => Ask::Unlock { key, token },
            _ => self.ask_for_lock(client, key),
        };
        self.rely_on_less(client, &ask);
        if let Ask::CloseSession { .. } = ask {
            self.clients[client].session = None;
        }
        self.say(|| format!("client {client} asks: {}", shown(&ask)));
        let call = self.record(client, &ask);
        self.clients[client].busy = true;
        let highest_token_before = self.told.keys().next_back().copied().unwrap_or(0);
        let progress = Progress::Sent;
        self.requests.push(InFlight {
            client,
            is_cut: false,
            is_overtaken: false,
            ask,
            progress,
            call,
            highest_token_before,
        });
    }

    /// A client relies on nothing that its own request may end.
    fn rely_on_less(&mut self, client: usize, ask: &Ask) {
        let own = |belief: &Belief| belief.client == client && Some(belief.key) == ask.key();
        match ask {
            Ask::Unlock { .. } => self.forget_beliefs(own),
            Ask::Renew { ttl, .. } => {
                let until = self.now_ms + u64::from(ttl.as_millis());
                for belief in self.beliefs.iter_mut().filter(|belief| own(belief)) {
                    belief.until_ms = belief.until_ms.min(until);
                }
            }
            Ask::CloseSession { session } => self.forget_beliefs(|belief| belief.session == Some(*session)),
            _ => {}
        }
    }

    fn ask_for_lock(&mut self, client: usize, key: usize) -> Ask {
        let mut request = Request::exclusive(owner(client), Some(ttl(20 + self.random.below(2000))));
        let mut extra = LeaseExtra::default();
        match KEYS[key].1 {
            Kind::Plain => {}
            Kind::Sessions => {
                if let Some(session) = self.clients[client].session
                    && self.random.permille(600)
                {
                    (extra.session, request.ttl) = (Some(session.id), None);
                }
            }
            Kind::Modes => {
                let two = Mode::limit(2).expect("a limit");
                request.mode = self.random.of(&[Mode::Exclusive, Mode::Shared, Mode::Shared, two, two]);
            }
            Kind::Delays => {
                extra.delay = self.random.permille(500).then(|| ttl(20 + self.random.below(500)));
                extra.max_hold = self.random.permille(300).then(|| ttl(20 + self.random.below(3000)));
            }
        }
        let wait = self.random.permille(600).then(|| ttl(1 + self.random.below(2000)));
        Ask::Lock { key, request: request.with(extra), wait }
    }

    /// Puts a call into the history of its lock.
    fn record(&mut self, client: usize, ask: &Ask) -> Option<usize> {
        let key = ask.key().filter(|key| matches!(KEYS[*key].1, Kind::Plain | Kind::Sessions))?;
        let owner = client as u8;
        let token_of = |token: &Option<FencingToken>| token.map(FencingToken::get);
        // Whatever is asked for, a session may end at any time.
        let effective_ttl =
            |ttl: Ttl| if KEYS[key].1 == Kind::Sessions { 0 } else { u64::from(ttl.as_millis()) };
        let asked = match ask {
            // A session may end at any time after its lock was asked for.
            Ask::Lock { request, .. } => {
                Asked::Lock { owner, ttl: request.ttl.map_or(0, |ttl| u64::from(ttl.as_millis())) }
            }
            Ask::Unlock { token, .. } => Asked::Unlock { owner, token: token_of(token) },
            Ask::Renew { token, ttl, .. } => {
                Asked::Renew { owner, token: token_of(token), ttl: effective_ttl(*ttl) }
            }
            Ask::Fence { .. } => Asked::Fence,
            Ask::Force { .. } => Asked::Force,
            _ => return None,
        };
        Some(self.record_open(key, asked))
    }

    fn record_open(&mut self, key: usize, asked: Asked) -> usize {
        let began = self.next_in_order();
        let (began_ms, ended, ended_ms) = (self.now_ms, u64::MAX, u64::MAX);
        self.calls[key].push(Call { asked, began, ended, began_ms, ended_ms, answered: None });
        self.calls[key].len() - 1
    }

    /// A call has its answer, or will never have one.
    fn close_call(&mut self, key: Option<usize>, call: Option<usize>, answered: Option<Answered>) {
        let ended = self.next_in_order();
        if let (Some(key), Some(call)) = (key, call) {
            let call = &mut self.calls[key][call];
            (call.ended, call.ended_ms, call.answered) = (ended, self.now_ms, answered);
        }
    }

    fn forget_beliefs(&mut self, is_over: impl Fn(&Belief) -> bool) {
        self.beliefs.retain(|belief| !is_over(belief));
    }

    /// When a client can rely on its lease no more.
    fn end_of(&self, belief: &Belief) -> u64 {
        let session = belief.session.map(|id| {
            let known = self.clients[belief.client].session.filter(|session| session.id == id);
            known.map_or(0, |session| session.until_ms)
        });
        belief.until_ms.min(session.unwrap_or(u64::MAX))
    }

    // The network.

    fn pick(&mut self, is_wanted: impl Fn(&InFlight) -> bool) -> Option<usize> {
        let wanted: Vec<usize> = (0..self.requests.len()).filter(|n| is_wanted(&self.requests[*n])).collect();
        (!wanted.is_empty()).then(|| self.random.of(&wanted))
    }

    fn deliver_one(&mut self) {
        let Some(index) = self.pick(|request| matches!(request.progress, Progress::Sent)) else { return };
        let mut request = self.requests.swap_remove(index);
        let client = request.client;
        self.say(|| format!("the server runs for client {client}: {}", shown(&request.ask)));
        let engine = Arc::clone(&self.engine);
        let (at_ms, parked) = (self.now_ms, None);
        let one_commit = engine.one_commit();
        request.progress = match self.run(&request) {
            Ok(Run::Answered(answer, seq)) => Progress::Answered { answer, seq, at_ms, parked },
            Ok(Run::Blocked(parked)) => Progress::Blocked(parked, self.next_in_order()),
            Err(Unavailable::NoSession) => {
                let answer = match &request.ask {
                    Ask::KeepAlive { session } | Ask::CloseSession { session } => Answer::NoSession(*session),
                    _ => Answer::Error,
                };
                Progress::Answered { answer, seq: engine.last(), at_ms, parked }
            }
            Err(_) => Progress::Answered { answer: Answer::Error, seq: Seq::default(), at_ms, parked },
        };
        drop(one_commit);
        if request.is_cut {
            // It came late: the client may have asked again, and been answered, since.
            self.rely_on_less(client, &request.ask);
            self.freed = request.ask.key();
            for other in &mut self.requests {
                let is_answered = matches!(other.progress, Progress::Answered { .. });
                other.is_overtaken |=
                    is_answered && other.client == client && other.ask.key() == request.ask.key();
            }
            self.say(|| format!("nobody hears the answer to client {client}"));
            self.end_cut(request);
        } else {
            self.requests.push(request);
        }
    }

    fn answer_one(&mut self) -> Result<(), String> {
        let is_answered = |request: &InFlight| matches!(request.progress, Progress::Answered { .. });
        let Some(index) = self.pick(is_answered) else { return Ok(()) };
        let Progress::Answered { answer, seq, .. } = self.requests[index].progress else { return Ok(()) };
        let answer = match self.engine.verdict(seq) {
            Some(Ok(())) => answer,
            Some(Err(_)) => Answer::Error,
            None if self.defect == Some(Defect::RepliesBeforeCommit) => answer,
            None => return Ok(()),
        };
        let request = self.requests.swap_remove(index);
        self.hear(request, answer)
    }

    /// A client gets its answer.
    fn hear(&mut self, request: InFlight, answer: Answer) -> Result<(), String> {
        let client = request.client;
        let Progress::Answered { at_ms, .. } = request.progress else { unreachable!("it was answered") };
        self.say(|| format!("client {client} hears: {answer:?}"));
        self.clients[client].busy = false;
        let answered = match answer {
            Answer::Lock(answered) => Some(answered),
            _ => None,
        };
        self.close_call(request.ask.key(), request.call, answered);
        if answer == Answer::Error {
            self.lost.extend(request.ask.key().map(|key| (client, key)));
        }
        match (&request.ask, answer) {
            (Ask::Lock { key, request: asked, .. }, Answer::Lock(Answered::Token(token))) => {
                let (key, was) = (*key, self.told.get(&token).copied());
                self.told.insert(token, (client, key));
                if self.defect.is_none() {
                    // Unless an earlier request was granted, and its answer lost.
                    let is_new = token > request.highest_token_before || self.lost.contains(&(client, key));
                    let is_fine = was.map_or(is_new, |was| was == (client, key));
                    ensure(is_fine, || format!("token {token} was issued twice"))?;
                }
                self.clients[client].tokens.insert(key, token);
                let known =
                    self.beliefs.iter().find(|belief| belief.client == client && belief.token == token);
                // If an earlier request was granted and its answer lost, the hold may run since then.
                let is_older = was.is_some() || self.lost.contains(&(client, key));
                let may_be_older = is_older && KEYS[key].1 == Kind::Delays;
                let hold_until_ms = match (known, max_hold(asked)) {
                    (Some(known), _) => known.hold_until_ms,
                    (None, _) if may_be_older => 0,
                    (None, None) => u64::MAX,
                    (None, Some(hold)) => at_ms + u64::from(hold.as_millis()),
                };
                let known_until = known.map_or(0, |known| known.until_ms);
                let asked_until = asked.ttl.map_or(u64::MAX, |ttl| at_ms + u64::from(ttl.as_millis()));
                self.forget_beliefs(|belief| belief.client == client && belief.key == key);
                if request.is_overtaken {
                    self.lost.insert((client, key));
                    return Ok(());
                }
                self.beliefs.push(Belief {
                    client,
                    key,
                    token,
                    mode: asked.mode,
                    until_ms: asked_until.max(known_until).min(hold_until_ms),
                    hold_until_ms,
                    session: asked.session(),
                });
            }
            (Ask::Lock { key, .. }, _) => {
                // Refused: or it asked in another mode than it holds it in.
                let key = *key;
                if KEYS[key].1 != Kind::Modes {
                    self.forget_beliefs(|belief| belief.client == client && belief.key == key);
                }
            }
            (Ask::Renew { key, token, ttl }, Answer::Lock(Answered::Done(true))) if !request.is_overtaken => {
                let (key, until) = (*key, at_ms + u64::from(ttl.as_millis()));
                // What had ended was not renewed: that was a lease of which the client has not heard.
                self.beliefs.retain(|belief| belief.client != client || belief.until_ms > at_ms);
                for belief in &mut self.beliefs {
                    let is_meant = token.is_none_or(|token| token.get() == belief.token);
                    if belief.client == client && belief.key == key && is_meant {
                        belief.until_ms = until.min(belief.hold_until_ms);
                    }
                }
            }
            (Ask::OpenSession { ttl }, Answer::Session(id)) => {
                let ttl_ms = u64::from(ttl.as_millis());
                self.clients[client].session = Some(Session { id, ttl_ms, until_ms: at_ms + ttl_ms });
            }
            (_, Answer::SessionKept(id)) => {
                ensure(!self.ended_sessions.contains(&id), || "a session that had ended came back".into())?;
                if let Some(session) = &mut self.clients[client].session {
                    session.until_ms = at_ms + session.ttl_ms;
                }
            }
            (_, Answer::NoSession(id)) => {
                self.ended_sessions.push(id);
                if let Some(session) = self.clients[client].session.filter(|session| session.id == id) {
                    ensure(self.defect.is_some() || session.until_ms <= self.now_ms, || {
                        format!("the session of client {client} ended early")
                    })?;
                    self.clients[client].session = None;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A client's connection breaks. The client goes on, and may ask the same again.
    fn cut_one(&mut self) {
        let Some(index) = self.pick(|request| !request.is_cut) else { return };
        let mut request = self.requests.swap_remove(index);
        let client = request.client;
        self.say(|| format!("the connection of client {client} breaks"));
        self.lost.extend(request.ask.key().map(|key| (client, key)));
        self.clients[client].busy = false;
        request.is_cut = true;
        if matches!(request.progress, Progress::Sent) {
            // It may still be in a buffer, and reach the server.
            self.requests.push(request);
        } else {
            self.end_cut(request);
        }
    }

    /// The server finds that nobody waits for this answer any more.
    fn end_cut(&mut self, request: InFlight) {
        let (key, client) = (request.ask.key(), request.client);
        self.lost.extend(key.map(|key| (client, key)));
        self.close_call(key, request.call, None);
        let given_back = key.filter(|_| request.call.is_some());
        let given_back =
            given_back.map(|key| (key, self.record_open(key, Asked::RevertGrant { owner: client as u8 })));
        let engine = Arc::clone(&self.engine);
        let one_commit = engine.one_commit();
        match request.progress {
            Progress::Blocked(parked, _) if self.defect == Some(Defect::GrantsToTheDead) => {
                self.ghosts.push(parked)
            }
            Progress::Blocked(parked, _) => drop(parked),
            // It was sent, and lost on the way; or it could not be sent.
            Progress::Answered { parked: Some(parked), .. } if self.random.permille(500) => {
                if let Some(token) = parked.granted() {
                    parked.give_back(token);
                }
            }
            _ => {}
        }
        drop(one_commit);
        if let Some((key, call)) = given_back {
            self.close_call(Some(key), Some(call), None);
        }
    }

    // The server.

    fn run(&mut self, request: &InFlight) -> Result<Run, Unavailable> {
        let engine = Arc::clone(&self.engine);
        let access = engine.access();
        let owner = owner(request.client);
        let done = |outcome: Outcome| {
            if let Outcome::Refused(Refusal::OtherMode(_) | Refusal::OtherSession) = outcome {
                return Answer::Error;
            }
            Answer::Lock(match outcome {
                Outcome::Granted { token, .. } => Answered::Token(token.get()),
                Outcome::Released(n) => Answered::Done(n > 0),
                Outcome::Renewed { .. } => Answered::Done(true),
                Outcome::NotHeld => Answered::Done(false),
                _ => Answered::Refused,
            })
        };
        let (answer, seq) = match &request.ask {
            Ask::Lock { key, request: asked, wait: Some(wait) } => {
                let until = self.clock.now().after(Some(*wait));
                match access.submit_or_wait(&name(*key), asked.clone(), until)? {
                    Acquired::Blocked(parked) => return Ok(Run::Blocked(parked)),
                    Acquired::Now(outcome, seq) => (done(outcome), seq),
                }
            }
            Ask::Lock { key, request: asked, wait: None } => {
                let op = Op::Acquire { request: asked.clone(), wait: None };
                let (outcome, seq) = access.submit(&name(*key), &op)?;
                (done(outcome), seq)
            }
            Ask::Unlock { key, token } => {
                let op = match self.defect {
                    Some(Defect::ReleasesByName) => Op::Force,
                    _ => Op::Release { owner, token: *token },
                };
                let (outcome, seq) = access.submit(&name(*key), &op)?;
                (done(outcome), seq)
            }
            Ask::Renew { key, token, ttl } => {
                let op = Op::Renew { owner, ttl: Some(*ttl), token: *token };
                let (outcome, seq) = access.submit(&name(*key), &op)?;
                (done(outcome), seq)
            }
            Ask::Fence { key } => {
                let newest =
                    access.read(&name(*key), |slot, _| slot.newest().map_or(0, |lease| lease.token.get()));
                let (token, seq) = newest?;
                (Answer::Lock(Answered::Token(token)), seq)
            }
            Ask::Force { key } => {
                let (outcome, seq) = access.submit(&name(*key), &Op::Force)?;
                let key = *key;
                // The operator says so to everyone, and who is being answered hears of it.
                self.forget_beliefs(|belief| belief.key == key);
                for request in &mut self.requests {
                    let is_answered = matches!(request.progress, Progress::Answered { .. });
                    request.is_overtaken |= is_answered && request.ask.key() == Some(key);
                }
                self.freed = Some(key);
                (done(outcome), seq)
            }
            Ask::OpenSession { ttl } => {
                let (id, seq) = access.open_session("simulated", None, Some(*ttl))?;
                (Answer::Session(id), seq)
            }
            Ask::KeepAlive { session } => {
                let (_, seq) = access.keep_alive(*session)?;
                (Answer::SessionKept(*session), seq)
            }
            Ask::CloseSession { session } => {
                let (_, seq) = access.close_session(*session, self.random.permille(500))?;
                (Answer::SessionClosed, seq)
            }
        };
        Ok(Run::Answered(answer, seq))
    }

    /// Passes verdicts on to waiters, in the order in which they came.
    fn hear_waiters(&mut self) -> Result<(), String> {
        let place = |request: &InFlight| match request.progress {
            Progress::Blocked(_, place) => Some(place),
            _ => None,
        };
        self.requests.sort_by_key(|request| place(request).unwrap_or(0));
        for index in 0..self.requests.len() {
            let Progress::Blocked(parked, _) = &mut self.requests[index].progress else { continue };
            let Some(verdict) = poll_now(parked.verdict()) else { continue };
            let (answer, seq) = match verdict {
                WaitOutcome::Granted(token, seq) => (Answer::Lock(Answered::Token(token.get())), seq),
                WaitOutcome::TimedOut(seq) => (Answer::Lock(Answered::Refused), seq),
                _ => (Answer::Error, Seq::default()),
            };
            let (client, key) = (self.requests[index].client, self.requests[index].ask.key());
            self.say(|| format!("client {client} waited, and is told: {verdict:?}"));
            let overtaken =
                self.requests[..index].iter().find(|other| other.ask.key() == key && place(other).is_some());
            let is_fair = key.is_none_or(|key| KEYS[key].1 == Kind::Modes) || overtaken.is_none();
            if let (WaitOutcome::Granted(..), false) = (verdict, is_fair) {
                return Err(format!("client {client} was served before one who waited longer"));
            }
            // If the lease before had ended and nobody had looked, the grant came first, and was freed at once.
            let is_overtaken = match (verdict, self.freed) {
                (WaitOutcome::Granted(token, _), Some(forced)) if key == Some(forced) => {
                    let has = self.engine.access().read(&name(forced), |slot, _| slot.lease(token).is_some());
                    !has.is_ok_and(|(has, _)| has)
                }
                _ => false,
            };
            let request = &mut self.requests[index];
            request.is_overtaken |= is_overtaken;
            let progress = std::mem::replace(&mut request.progress, Progress::Sent);
            let Progress::Blocked(parked, _) = progress else { continue };
            request.progress = Progress::Answered { answer, seq, at_ms: self.now_ms, parked: Some(parked) };
        }
        Ok(())
    }

    /// Waits until the commit thread has nothing to do, or waits for the fate of a commit.
    fn wait_for_journal(&self) {
        loop {
            if self.disk.has_commit() {
                return;
            }
            // Nothing that looks at locks: that could end what is due, and whoever waits would hear of it late.
            let is_up = self.engine.journal_down().is_none();
            if is_up && self.engine.verdict(self.engine.last()).is_some() {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn commit(&mut self) {
        if !self.disk.has_commit() {
            return;
        }
        let lies = self.defect == Some(Defect::DiskLies) && self.random.permille(300);
        self.say(|| if lies { "a commit is kept, says the disk" } else { "a commit is kept" }.into());
        self.disk.decide(if lies { Fate::Lied } else { Fate::Kept });
    }

    /// A commit fails; then storage works again, and the server goes back to what it has kept.
    fn refuse_commit(&mut self) -> Result<(), String> {
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
        Ok(())
    }

    fn let_time_pass(&mut self) {
        let most = self.random.of(&[2, 20, 200, 200, 1000]);
        let millis = 1 + self.random.below(most);
        self.now_ms += millis;
        self.clock.advance_millis(millis);
    }

    fn step_wall_clock(&mut self) {
        const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
        let to = self.random.below(3 * YEAR_MS);
        self.say(|| format!("the wall clock is set to {to}"));
        if self.defect == Some(Defect::LeasesByWallClock) {
            self.clock.advance_millis(self.random.below(2000));
        }
        self.clock.step_wall_to(to);
    }

    /// The server dies: killed, or with the whole machine. Another one starts.
    fn crash(&mut self) -> Result<(), String> {
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
        self.now_ms += down_ms;
        if reboots {
            self.boots += 1;
            self.clock = Clock::manual();
            self.clock.advance_millis(self.random.below(1000));
        } else {
            self.clock.advance_millis(down_ms);
        }
        self.engine = start(&self.disk, &self.clock, self.boots)?;
        self.wait_for_journal();
        self.look_at_beliefs()
    }

    // What has to be so.

    /// The server still has every lease that a client relies on, for at least as long.
    fn look_at_beliefs(&mut self) -> Result<(), String> {
        if self.defect.is_some() {
            return Ok(());
        }
        self.say(|| "an observer looks".into());
        let engine = Arc::clone(&self.engine);
        let _one_commit = engine.one_commit();
        for belief in self.beliefs.clone() {
            let left = self.end_of(&belief).saturating_sub(self.now_ms);
            if left == 0 {
                continue;
            }
            let lease = engine.access().read(&name(belief.key), |slot, now| {
                let lease = slot.lease_of(&owner(belief.client));
                lease.map(|lease| (lease.token.get(), lease.deadline.millis_left(now).unwrap_or(u64::MAX)))
            });
            let Ok((found, _)) = lease else { continue };
            let limit = if belief.session.is_some() { 0 } else { left };
            let is_there = found.is_some_and(|(token, found)| token == belief.token && found >= limit);
            ensure(is_there, || {
                format!(
                    "client {} relies on token {} of {} for {left} ms, the server has {found:?}",
                    belief.client, belief.token, KEYS[belief.key].0
                )
            })?;
        }
        Ok(())
    }

    /// Nobody relies on a lock that another one relies on.
    fn check(&mut self) -> Result<(), String> {
        if self.defect.is_some() {
            return Ok(());
        }
        let now = self.now_ms;
        let valid: Vec<&Belief> = self.beliefs.iter().filter(|belief| self.end_of(belief) > now).collect();
        for (n, one) in valid.iter().enumerate() {
            for other in &valid[n + 1..] {
                ensure(one.key != other.key || one.mode.mixes_with(other.mode), || {
                    format!("{one:?} and {other:?} exclude each other")
                })?;
            }
            let holders = valid.iter().filter(|other| other.key == one.key).count();
            ensure(one.mode.capacity().is_none_or(|most| holders <= most as usize), || {
                format!("{holders} hold what {one:?} allows to fewer")
            })?;
        }
        Ok(())
    }

    /// Everyone goes, and time passes: nothing is left, in memory or on disk.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        for request in std::mem::take(&mut self.requests) {
            self.end_cut(request);
        }
        self.beliefs.clear();
        self.ghosts.clear();
        for _ in 0..3 {
            self.now_ms += LONGEST_MS;
            self.clock.advance_millis(LONGEST_MS);
            {
                let _one_commit = self.engine.one_commit();
                self.engine.expire_due();
            }
            self.wait_for_journal();
            while self.disk.has_commit() {
                self.disk.decide(Fate::Kept);
                self.wait_for_journal();
            }
        }
        let (engine, lock_stats) = (&self.engine, self.engine.lock_stats());
        let left = [
            lock_stats.kept(),
            lock_stats.waiting(),
            lock_stats.keys(0),
            engine.deadlines() as u64,
            engine.sessions() as u64,
            self.disk.records(&format!("boot {}", self.boots)) as u64,
        ];
        ensure(self.defect.is_some() || left == [0; 6], || {
            format!("leases, waiters, keys, deadlines, sessions and records are left: {left:?}")
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A commit that waits for its fate would keep the commit thread, and whoever joins it.
        self.disk.kill(false);
    }
}

enum Run {
    Answered(Answer, Seq),
    Blocked(Blocked),
}

fn max_hold(request: &Request) -> Option<Ttl> {
    request.extra.as_ref().and_then(|extra| extra.max_hold)
}

fn shown(ask: &Ask) -> String {
    match ask {
        Ask::Lock { key, request, wait } => {
            let millis = |ttl: Option<Ttl>| ttl.map_or("-".to_owned(), |ttl| ttl.as_millis().to_string());
            format!(
                "LOCK {} {:?} PX {} WAIT {} DELAY {} MAXHOLD {}{}",
                KEYS[*key].0,
                request.mode,
                millis(request.ttl),
                millis(*wait),
                millis(request.extra.as_ref().and_then(|extra| extra.delay)),
                millis(max_hold(request)),
                if request.session().is_some() { " SESSION" } else { "" }
            )
        }
        other => format!("{other:?}"),
    }
}
