//! The network: requests are delivered, delayed, answered and cut off in any order.
//!
//! Delivery runs a request on the real engine. Not here: what clients conclude from the answers.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use octostore::engine::{Acquired, Blocked, SharedTxn, Unavailable, WaitOutcome};
use octostore::journal::Seq;
use octostore::lock::{Op, Outcome, Refusal};

use super::clients::{Answer, Ask, describe};
use super::world::{Defect, KEYS, Kind, World, name, owner};
use crate::linearizability::{Answered, Asked};

pub(super) enum Progress {
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
pub(super) struct InFlight {
    pub(super) client: usize,
    /// The client no longer waits for the answer.
    pub(super) is_cut: bool,
    /// Since it was granted an operator, or a late request of the same client, may have freed the
    /// lock.
    pub(super) is_overtaken: bool,
    pub(super) ask: Ask,
    pub(super) progress: Progress,
    /// Where it is in the history.
    pub(super) call: Option<usize>,
    pub(super) highest_token_before: i64,
}

pub(super) enum Run {
    Answered(Answer),
    Blocked(Blocked),
}

impl World {
    pub(super) fn pick(&mut self, is_wanted: impl Fn(&InFlight) -> bool) -> Option<usize> {
        let wanted: Vec<usize> = (0..self.requests.len()).filter(|n| is_wanted(&self.requests[*n])).collect();
        (!wanted.is_empty()).then(|| self.random.of(&wanted))
    }

    pub(super) fn deliver_one(&mut self) {
        let Some(index) = self.pick(|request| matches!(request.progress, Progress::Sent)) else { return };
        let mut request = self.requests.swap_remove(index);
        let client = request.client;
        self.say(|| format!("the server runs for client {client}: {}", describe(&request.ask)));
        let engine = Arc::clone(&self.engine);
        let (at_ms, parked) = (self.now_ms, None);
        let txn = engine.txn();
        let run = self.run(&txn, &request);
        let seq = txn.finish();
        request.progress = match run {
            Ok(Run::Answered(answer)) => Progress::Answered { answer, seq, at_ms, parked },
            Ok(Run::Blocked(parked)) => Progress::Blocked(parked, self.next_in_order()),
            Err(Unavailable::NoSession) => {
                let answer = match &request.ask {
                    Ask::KeepAlive { session } | Ask::CloseSession { session } => Answer::NoSession(*session),
                    _ => Answer::Error,
                };
                Progress::Answered { answer, seq, at_ms, parked }
            }
            Err(_) => Progress::Answered { answer: Answer::Error, seq: Seq::default(), at_ms, parked },
        };
        if request.is_cut {
            // It came late: the client may have asked again, and been answered, since.
            self.rely_on_less(client, &request.ask);
            self.freed = request.ask.key();
            for other in &mut self.requests {
                let is_answered = matches!(other.progress, Progress::Answered { .. });
                other.is_overtaken |=
                    is_answered && other.client == client && other.ask.key() == request.ask.key();
            }
            self.say(|| format!("the answer to client {client} is lost"));
            self.end_cut(request);
        } else {
            self.requests.push(request);
        }
    }

    pub(super) fn run(&mut self, txn: &SharedTxn<'_>, request: &InFlight) -> Result<Run, Unavailable> {
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
        let answer = match &request.ask {
            Ask::Lock { key, request: asked, wait: Some(wait) } => {
                let until = self.clock.now().after(Some(*wait));
                match txn.submit_or_wait(&name(*key), asked.clone(), until)? {
                    Acquired::Blocked(parked) => return Ok(Run::Blocked(parked)),
                    Acquired::Now(outcome) => done(outcome),
                }
            }
            Ask::Lock { key, request: asked, wait: None } => {
                let op = Op::Acquire { request: asked.clone(), wait: None };
                done(txn.submit(&name(*key), &op)?)
            }
            Ask::Unlock { key, token } => {
                let op = match self.defect {
                    Some(Defect::ReleasesByName) => Op::Force,
                    _ => Op::Release { owner, token: *token },
                };
                done(txn.submit(&name(*key), &op)?)
            }
            Ask::Renew { key, token, ttl } => {
                let op = Op::Renew { owner, ttl: Some(*ttl), token: *token };
                done(txn.submit(&name(*key), &op)?)
            }
            Ask::Fence { key } => {
                let newest =
                    txn.read(&name(*key), |slot, _| slot.newest().map_or(0, |lease| lease.token.get()));
                Answer::Lock(Answered::Token(newest?))
            }
            Ask::Force { key } => {
                let outcome = txn.submit(&name(*key), &Op::Force)?;
                let key = *key;
                // All clients learn of it, also those whose reply is under way.
                self.forget_beliefs(|belief| belief.key == key);
                for request in &mut self.requests {
                    let is_answered = matches!(request.progress, Progress::Answered { .. });
                    request.is_overtaken |= is_answered && request.ask.key() == Some(key);
                }
                self.freed = Some(key);
                done(outcome)
            }
            Ask::OpenSession { ttl } => Answer::Session(txn.open_session("simulated", None, Some(*ttl))?),
            Ask::KeepAlive { session } => {
                txn.keep_alive(*session)?;
                Answer::SessionKept(*session)
            }
            Ask::CloseSession { session } => {
                txn.close_session(*session, self.random.permille(500))?;
                Answer::SessionClosed
            }
        };
        Ok(Run::Answered(answer))
    }

    pub(super) fn answer_one(&mut self) -> Result<(), String> {
        let is_answered = |request: &InFlight| matches!(request.progress, Progress::Answered { .. });
        let Some(index) = self.pick(is_answered) else { return Ok(()) };
        let Progress::Answered { answer, seq, .. } = self.requests[index].progress else { return Ok(()) };
        let answer = match self.engine.durability_of(seq) {
            Some(Ok(())) => answer,
            Some(Err(_)) => Answer::Error,
            None if self.defect == Some(Defect::RepliesBeforeCommit) => answer,
            None => return Ok(()),
        };
        let request = self.requests.swap_remove(index);
        self.receive(request, answer)
    }

    /// A client's connection breaks. The client goes on, and may ask the same again.
    pub(super) fn cut_one(&mut self) {
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

    /// The server detects that the client no longer waits for this answer.
    pub(super) fn end_cut(&mut self, request: InFlight) {
        let (key, client) = (request.ask.key(), request.client);
        self.lost.extend(key.map(|key| (client, key)));
        self.close_call(key, request.call, None);
        let given_back = key.filter(|_| request.call.is_some());
        let given_back =
            given_back.map(|key| (key, self.record_open(key, Asked::RevertGrant { owner: client as u8 })));
        match request.progress {
            Progress::Blocked(parked, _) if self.defect == Some(Defect::GrantsToTheDead) => {
                self.ghosts.push(parked)
            }
            Progress::Blocked(parked, _) => drop(parked),
            // It was sent, and lost on the way; or it could not be sent.
            Progress::Answered { parked: Some(parked), .. } if self.random.permille(500) => {
                parked.undo();
            }
            _ => {}
        }
        if let Some((key, call)) = given_back {
            self.close_call(Some(key), Some(call), None);
        }
    }

    /// Passes verdicts on to waiters, in the order in which they came.
    pub(super) fn receive_outcomes(&mut self) -> Result<(), String> {
        let place = |request: &InFlight| match request.progress {
            Progress::Blocked(_, place) => Some(place),
            _ => None,
        };
        self.requests.sort_by_key(|request| place(request).unwrap_or(0));
        for index in 0..self.requests.len() {
            let Progress::Blocked(parked, _) = &mut self.requests[index].progress else { continue };
            let Some(verdict) = poll_now(parked.outcome()) else { continue };
            let (answer, seq) = match &verdict {
                WaitOutcome::Granted(token, seq) => (Answer::Lock(Answered::Token(token.get())), *seq),
                WaitOutcome::TimedOut(seq) => (Answer::Lock(Answered::Refused), *seq),
                _ => (Answer::Error, Seq::default()),
            };
            let (client, key) = (self.requests[index].client, self.requests[index].ask.key());
            self.say(|| format!("client {client} waited; outcome: {verdict:?}"));
            let overtaken =
                self.requests[..index].iter().find(|other| other.ask.key() == key && place(other).is_some());
            let is_fair = key.is_none_or(|key| KEYS[key].1 == Kind::Modes) || overtaken.is_none();
            if let (WaitOutcome::Granted(..), false) = (&verdict, is_fair) {
                return Err(format!("client {client} was served before one who waited longer"));
            }
            // If the previous lease had ended but was not swept, the grant came first and was freed
            // at once.
            let is_overtaken = match (&verdict, self.freed) {
                (WaitOutcome::Granted(token, _), Some(forced)) if key == Some(forced) => {
                    let has = self.engine.txn().read(&name(forced), |slot, _| slot.lease(*token).is_some());
                    !has.is_ok_and(|has| has)
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
}

pub(super) fn poll_now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
