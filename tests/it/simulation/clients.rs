//! The clients: their requests, and what they conclude from the answers.
//!
//! A client has at most one request in flight. It stalls, retries and returns late at random.

use std::collections::BTreeMap;

use octostore::domain::{FencingToken, SessionId, Ttl};
use octostore::lock::{LeaseExtra, Mode, Request};

use super::network::{InFlight, Progress};
use super::oracle::{Belief, ensure};
use super::world::{CLIENTS, KEYS, Kind, World, owner, ttl};
use crate::linearizability::{Answered, Asked, Call};

/// What a client asks the server for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
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
    pub(super) fn key(&self) -> Option<usize> {
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
pub(super) enum Answer {
    Lock(Answered),
    Session(SessionId),
    SessionKept(SessionId),
    SessionClosed,
    NoSession(SessionId),
    /// Whether it happened is not known, or it did not.
    Error,
}

/// A session as its client knows it.
#[derive(Clone, Copy)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) ttl_ms: u64,
    pub(super) until_ms: u64,
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) busy: bool,
    pub(super) session: Option<Session>,
    /// The last token of each lock, however old.
    pub(super) tokens: BTreeMap<usize, i64>,
}

impl World {
    pub(super) fn ask(&mut self) {
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
        self.say(|| format!("client {client} asks: {}", describe(&ask)));
        let call = self.record(client, &ask);
        self.clients[client].busy = true;
        let highest_token_before = self.issued.keys().next_back().copied().unwrap_or(0);
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
    pub(super) fn rely_on_less(&mut self, client: usize, ask: &Ask) {
        let own = |belief: &Belief| belief.client == client && Some(belief.key) == ask.key();
        match ask {
            Ask::Unlock { .. } => self.forget_beliefs(own),
            Ask::Renew { ttl, .. } => {
                let until = self.now_ms + ttl.as_millis();
                for belief in self.beliefs.iter_mut().filter(|belief| own(belief)) {
                    belief.until_ms = belief.until_ms.min(until);
                }
            }
            Ask::CloseSession { session } => self.forget_beliefs(|belief| belief.session == Some(*session)),
            _ => {}
        }
    }

    pub(super) fn ask_for_lock(&mut self, client: usize, key: usize) -> Ask {
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
    pub(super) fn record(&mut self, client: usize, ask: &Ask) -> Option<usize> {
        let key = ask.key().filter(|key| matches!(KEYS[*key].1, Kind::Plain | Kind::Sessions))?;
        let owner = client as u8;
        let token_of = |token: &Option<FencingToken>| token.map(FencingToken::get);
        // A session may end before the TTL.
        let effective_ttl = |ttl: Ttl| if KEYS[key].1 == Kind::Sessions { 0 } else { ttl.as_millis() };
        let asked = match ask {
            // A session may end at any time after the request for its lock.
            Ask::Lock { request, .. } => {
                Asked::Lock { owner, ttl: request.ttl.map_or(0, |ttl| ttl.as_millis()) }
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

    pub(super) fn record_open(&mut self, key: usize, asked: Asked) -> usize {
        let began = self.next_in_order();
        let (began_ms, ended, ended_ms) = (self.now_ms, u64::MAX, u64::MAX);
        self.calls[key].push(Call { asked, began, ended, began_ms, ended_ms, answered: None });
        self.calls[key].len() - 1
    }

    /// A call has its answer, or will never have one.
    pub(super) fn close_call(&mut self, key: Option<usize>, call: Option<usize>, answered: Option<Answered>) {
        let ended = self.next_in_order();
        if let (Some(key), Some(call)) = (key, call) {
            let call = &mut self.calls[key][call];
            (call.ended, call.ended_ms, call.answered) = (ended, self.now_ms, answered);
        }
    }

    /// Delivers an answer to its client, which draws its conclusions.
    pub(super) fn receive(&mut self, request: InFlight, answer: Answer) -> Result<(), String> {
        let client = request.client;
        let Progress::Answered { at_ms, .. } = request.progress else { unreachable!("it was answered") };
        self.say(|| format!("client {client} receives: {answer:?}"));
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
            (Ask::Lock { .. }, Answer::Lock(Answered::Token(token))) => {
                return self.receive_token(&request, token, at_ms);
            }
            (Ask::Lock { key, .. }, _) => {
                // The lock was refused; or the client holds it in another mode.
                let key = *key;
                if KEYS[key].1 != Kind::Modes {
                    self.forget_beliefs(|belief| belief.client == client && belief.key == key);
                }
            }
            (Ask::Renew { key, token, ttl }, Answer::Lock(Answered::Done(true))) if !request.is_overtaken => {
                self.extend_beliefs(client, *key, *token, *ttl, at_ms);
            }
            (Ask::OpenSession { ttl }, Answer::Session(id)) => {
                let ttl_ms = ttl.as_millis();
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

    /// The client of a LOCK receives a token that was issued at `at_ms`.
    fn receive_token(&mut self, request: &InFlight, token: i64, at_ms: u64) -> Result<(), String> {
        let Ask::Lock { key, request: asked, .. } = &request.ask else {
            unreachable!("only LOCK has a token")
        };
        let (client, key, has_lost_reply) =
            (request.client, *key, self.lost.contains(&(request.client, *key)));
        let earlier = self.issued.insert(token, (client, key));
        if self.defect.is_none() {
            // Unless an earlier request was granted and its answer lost.
            let is_new = token > request.highest_token_before || has_lost_reply;
            let is_fine = earlier.map_or(is_new, |earlier| earlier == (client, key));
            ensure(is_fine, || format!("token {token} was issued twice"))?;
        }
        self.clients[client].tokens.insert(key, token);
        let known = self.beliefs.iter().find(|belief| belief.client == client && belief.token == token);
        // If an earlier request was granted and its answer lost, the hold may have begun then.
        let may_be_older = (earlier.is_some() || has_lost_reply) && KEYS[key].1 == Kind::Delays;
        let hold_until_ms = match (known, max_hold(asked)) {
            (Some(known), _) => known.hold_until_ms,
            (None, _) if may_be_older => 0,
            (None, None) => u64::MAX,
            (None, Some(hold)) => at_ms + hold.as_millis(),
        };
        let known_until = known.map_or(0, |known| known.until_ms);
        let asked_until = asked.ttl.map_or(u64::MAX, |ttl| at_ms + ttl.as_millis());
        let (mode, session) = (asked.mode, asked.session());
        self.forget_beliefs(|belief| belief.client == client && belief.key == key);
        if request.is_overtaken {
            self.lost.insert((client, key));
            return Ok(());
        }
        let until_ms = asked_until.max(known_until).min(hold_until_ms);
        self.beliefs.push(Belief { client, key, token, mode, until_ms, hold_until_ms, session });
        Ok(())
    }

    /// A RENEW succeeded at `at_ms`: the client believes in the new deadline.
    fn extend_beliefs(
        &mut self,
        client: usize,
        key: usize,
        token: Option<FencingToken>,
        ttl: Ttl,
        at_ms: u64,
    ) {
        let until = at_ms + ttl.as_millis();
        // A lease that had ended was not renewed; the renewed one is a lease unknown to the client.
        self.beliefs.retain(|belief| belief.client != client || belief.until_ms > at_ms);
        for belief in &mut self.beliefs {
            let is_meant = token.is_none_or(|token| token.get() == belief.token);
            if belief.client == client && belief.key == key && is_meant {
                belief.until_ms = until.min(belief.hold_until_ms);
            }
        }
    }
}

pub(super) fn max_hold(request: &Request) -> Option<Ttl> {
    request.extra.as_ref().and_then(|extra| extra.max_hold)
}

pub(super) fn describe(ask: &Ask) -> String {
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
