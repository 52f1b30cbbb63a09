//! Checks whether the replies for one lock are those of a mutex with fencing tokens.
//!
//! The search of Wing and Gong with the memory of Lowe: calls that overlap may have taken effect in
//! any order, each at one instant between its start and its answer; a call without an answer may
//! have taken effect until its connection ended, or never. The mutex is free or has one owner;
//! every grant has a larger token than all before it; a lease may end by itself once its TTL has
//! passed since the start of the call that set it, never before.

use std::collections::HashMap;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Acquires the lock for `ttl` milliseconds.
    Lock { owner: u8, ttl: u64 },
    /// Releases the lock, or only the acquisition with this token.
    Unlock { owner: u8, token: Option<i64> },
    /// Reverts a grant that could not be delivered.
    RevertGrant { owner: u8 },
    /// Sets the TTL to `ttl` milliseconds.
    Renew { owner: u8, token: Option<i64>, ttl: u64 },
    /// Reads the token of the holder.
    Fence,
    /// Frees the lock.
    Force,
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// A token; of FENCE: 0 if it is free.
    Token(i64),
    /// Not granted.
    Refused,
    /// Whether the request had an effect.
    Done(bool),
}

/// One call of one client.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) asked: Asked,
    /// Places in the order of all that happened: the start, and the answer or the end of the
    /// connection.
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// The same in milliseconds.
    pub(crate) began_ms: u64,
    pub(crate) ended_ms: u64,
    /// `None`: the reply was lost.
    pub(crate) answered: Option<Answered>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    owner: u8,
    /// `None`: no reply has contained it yet.
    token: Option<i64>,
    /// It does not expire before this time.
    until_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Mutex {
    held: Option<Held>,
    last_token: i64,
}

impl Mutex {
    /// The states in which the mutex may be after a call that was answered like this. None: it
    /// cannot have been.
    fn after(&self, call: &Call) -> Vec<Mutex> {
        let mut before = vec![self.clone()];
        if self.held.as_ref().is_some_and(|held| held.until_ms <= call.ended_ms) {
            before.push(self.freed());
        }
        let mut after = Vec::new();
        for state in before {
            state.answer(call, &mut after);
        }
        after
    }

    /// Whether whatever can follow this state can follow `other`, too: they differ by a later end at most.
    fn is_as_hard_as(&self, other: &Mutex) -> bool {
        let until_ms = |mutex: &Mutex| mutex.held.as_ref().map(|held| held.until_ms);
        let known = |mutex: &Mutex| mutex.held.as_ref().map(|held| (held.owner, held.token));
        self.last_token == other.last_token
            && known(self) == known(other)
            && until_ms(self) >= until_ms(other)
    }

    fn freed(&self) -> Mutex {
        Mutex { held: None, last_token: self.last_token }
    }

    /// As it is if it is held under this token.
    fn known_as(&self, token: i64) -> Option<Mutex> {
        let held = self.held.as_ref()?;
        match held.token {
            Some(known) => (known == token).then(|| self.clone()),
            None if token > self.last_token => {
                Some(Mutex { held: Some(Held { token: Some(token), ..held.clone() }), last_token: token })
            }
            None => None,
        }
    }

    /// Every state in which this acquisition of this owner is held: its token may be learned by
    /// that.
    fn held_by(&self, owner: u8, token: Option<i64>) -> Option<Mutex> {
        if self.held.as_ref()?.owner != owner {
            return None;
        }
        token.map_or_else(|| Some(self.clone()), |token| self.known_as(token))
    }

    fn answer(&self, call: &Call, after: &mut Vec<Mutex>) {
        let is = |answer| call.answered.is_none_or(|answered| answered == answer);
        match call.asked {
            Asked::Lock { owner, ttl } => {
                let until_ms = call.began_ms + ttl;
                let token = match call.answered {
                    Some(Answered::Token(token)) => Some(token),
                    Some(_) => {
                        after.extend(
                            self.held.as_ref().filter(|held| held.owner != owner).map(|_| self.clone()),
                        );
                        return;
                    }
                    None => None,
                };
                if self.held.is_none() && token.is_none_or(|token| token > self.last_token) {
                    let last_token = token.unwrap_or(self.last_token);
                    after.push(Mutex { held: Some(Held { owner, token, until_ms }), last_token });
                }
                // The same again: it keeps its token, and lasts at least as long as it would have.
                after.extend(self.held_by(owner, token).map(|mut state| {
                    state.held.iter_mut().for_each(|held| held.until_ms = held.until_ms.max(until_ms));
                    state
                }));
            }
            Asked::Unlock { owner, token } => {
                let held = self.held_by(owner, token);
                if is(Answered::Done(true)) {
                    after.extend(held.as_ref().map(Mutex::freed));
                }
                if is(Answered::Done(false)) && !self.is_surely_held_by(owner, token) {
                    after.push(self.clone());
                }
            }
            Asked::RevertGrant { owner } => {
                after.extend(self.held_by(owner, None).map(|state| state.freed()))
            }
            Asked::Renew { owner, token, ttl } => {
                if is(Answered::Done(true)) {
                    after.extend(self.held_by(owner, token).map(|mut state| {
                        state.held.iter_mut().for_each(|held| held.until_ms = call.began_ms + ttl);
                        state
                    }));
                }
                if is(Answered::Done(false)) && !self.is_surely_held_by(owner, token) {
                    after.push(self.clone());
                }
            }
            Asked::Fence => match call.answered {
                Some(Answered::Token(0)) => after.extend(self.held.is_none().then(|| self.clone())),
                Some(Answered::Token(token)) => after.extend(self.known_as(token)),
                _ => after.push(self.clone()),
            },
            Asked::Force => {
                if is(Answered::Done(self.held.is_some())) {
                    after.push(self.freed());
                }
            }
        }
    }

    fn is_surely_held_by(&self, owner: u8, token: Option<i64>) -> bool {
        let Some(held) = &self.held else { return false };
        held.owner == owner && token.is_none_or(|token| held.token == Some(token))
    }
}

/// Finds an order of the calls of one lock; otherwise returns the calls at which the search
/// stopped.
pub(crate) fn check(calls: &[Call]) -> Result<(), String> {
    let mut calls: Vec<&Call> = calls.iter().collect();
    calls.sort_by_key(|call| call.began);
    let mut search = Search { seen: HashMap::new(), deepest: Vec::new(), calls: &calls };
    let nothing_done = vec![false; calls.len()];
    if search.explain(&nothing_done, &Mutex::default()) {
        return Ok(());
    }
    let deepest = &search.deepest;
    let open = calls.iter().zip(deepest).filter(|(call, done)| !**done && call.answered.is_some());
    let open: Vec<String> = open.take(8).map(|(call, _)| format!("  {call:?}")).collect();
    let explained = deepest.iter().filter(|done| **done).count();
    Err(format!("{explained} calls can be explained, then one of these cannot:\n{}", open.join("\n")))
}

struct Search<'a> {
    calls: &'a [&'a Call],
    /// The states that were reached with these answered calls, and the unanswered ones that had taken
    /// effect then.
    seen: HashMap<(Vec<bool>, Mutex), Vec<Vec<bool>>>,
    deepest: Vec<bool>,
}

impl Search<'_> {
    /// Whether a state is worth a look. It is not if it was reached with fewer of the unanswered calls:
    /// those that are left can only help.
    fn is_new(&mut self, done: &[bool], mutex: &Mutex) -> bool {
        let of = |is_answered: bool| -> Vec<bool> {
            let calls = self.calls.iter().zip(done);
            calls.filter(|(call, _)| call.answered.is_some() == is_answered).map(|(_, done)| *done).collect()
        };
        let (answered, unanswered) = (of(true), of(false));
        let reached = self.seen.entry((answered, mutex.clone())).or_default();
        let is_part = |part: &Vec<bool>| part.iter().zip(&unanswered).all(|(part, all)| part <= all);
        if reached.iter().any(is_part) {
            return false;
        }
        reached.push(unanswered);
        true
    }

    /// Whether an unanswered call that began earlier would have the same effect on a mutex, so that
    /// this one can be left for later.
    fn has_earlier_twin(&self, index: usize, done: &[bool], mutex: &Mutex) -> bool {
        let call = self.calls[index];
        let may_expire = mutex.held.as_ref().is_some_and(|held| held.until_ms <= call.ended_ms);
        let mut earlier = self.calls[..index].iter().zip(done).filter(|(_, done)| !**done);
        call.answered.is_none()
            && !may_expire
            && earlier.any(|(earlier, _)| {
                earlier.answered.is_none() && earlier.asked == call.asked && earlier.ended >= call.ended
            })
    }

    fn explain(&mut self, start: &[bool], mutex: &Mutex) -> bool {
        let all = self.calls;
        let mut open = vec![(start.to_vec(), mutex.clone())];
        while let Some((done, mutex)) = open.pop() {
            let left = || all.iter().zip(&done).filter(|(_, done)| !**done).map(|(call, _)| call);
            if left().all(|call| call.answered.is_none()) {
                return true;
            }
            if done.iter().filter(|done| **done).count() >= self.deepest.iter().filter(|done| **done).count()
            {
                self.deepest.clone_from(&done);
            }
            // Nothing takes effect after the answer of a call that has not taken effect; and what
            // was not answered took effect before whatever began after its connection's end, or
            // never.
            let first_answer = left().filter(|call| call.answered.is_some()).map(|call| call.ended).min();
            let first_answer = first_answer.unwrap_or(u64::MAX);
            let began = all.iter().zip(&done).filter(|(_, done)| **done).map(|(call, _)| call.began);
            let last_began = began.max().unwrap_or(0);
            // What began first is tried first, and what was not answered only if nothing else explains
            // the answers: it may have taken effect just before it was seen.
            let unanswered_last = [false, true].map(|is_answered| {
                let calls = all.iter().enumerate().rev();
                calls.filter(move |(_, call)| call.answered.is_some() == is_answered)
            });
            for (index, call) in unanswered_last.into_iter().flatten() {
                let is_impossible = done[index] || call.began > first_answer || call.ended < last_began;
                if is_impossible || self.has_earlier_twin(index, &done, &mutex) {
                    continue;
                }
                for after in mutex.after(call) {
                    let mut next = done.clone();
                    next[index] = true;
                    let is_needless = call.answered.is_none() && after.is_as_hard_as(&mutex);
                    if !is_needless && self.is_new(&next, &after) {
                        open.push((next, after));
                    }
                }
            }
        }
        false
    }
}

/// A call that began and was answered at these times, for the tests below.
#[cfg(test)]
fn call(asked: Asked, began: u64, ended: u64, answered: Option<Answered>) -> Call {
    Call { asked, began, ended, began_ms: began, ended_ms: ended, answered }
}

#[test]
fn histories_of_a_mutex_are_linearizable() {
    use Answered::{Done, Refused, Token};
    let lock = |owner| Asked::Lock { owner, ttl: 100 };
    let unlock = |owner, token| Asked::Unlock { owner, token };
    // In turn, with a refusal, a repetition and a wrong token.
    let history = [
        call(lock(1), 0, 1, Some(Token(1))),
        call(lock(2), 2, 3, Some(Refused)),
        call(lock(1), 4, 5, Some(Token(1))),
        call(unlock(1, Some(7)), 6, 7, Some(Done(false))),
        call(unlock(1, Some(1)), 8, 9, Some(Done(true))),
        call(Asked::Fence, 10, 11, Some(Token(0))),
        call(lock(2), 12, 13, Some(Token(5))),
    ];
    assert_eq!(check(&history), Ok(()));
    // Overlapping: the second was granted because the release came first.
    let history = [
        call(lock(1), 0, 1, Some(Token(1))),
        call(lock(2), 2, 9, Some(Token(2))),
        call(unlock(1, None), 3, 10, Some(Done(true))),
    ];
    assert_eq!(check(&history), Ok(()));
    // Ended by itself once the TTL has passed.
    let history = [call(lock(1), 0, 1, Some(Token(1))), call(lock(2), 50, 100, Some(Token(2)))];
    assert_eq!(check(&history), Ok(()));
    // Never answered, and seen to have happened.
    let history = [call(lock(1), 0, 5, None), call(Asked::Fence, 6, 7, Some(Token(3)))];
    assert_eq!(check(&history), Ok(()));
}

#[test]
fn impossible_histories_are_rejected() {
    use Answered::{Done, Refused, Token};
    let lock = |owner| Asked::Lock { owner, ttl: 100 };
    let unlock = |owner, token| Asked::Unlock { owner, token };
    let wrong: [&[Call]; 7] = [
        // Two holders.
        &[call(lock(1), 0, 1, Some(Token(1))), call(lock(2), 2, 3, Some(Token(2)))],
        // One that ends early.
        &[call(lock(1), 0, 1, Some(Token(1))), call(lock(2), 50, 99, Some(Token(2)))],
        // A token that was there before.
        &[
            call(lock(1), 0, 1, Some(Token(2))),
            call(unlock(1, None), 2, 3, Some(Done(true))),
            call(lock(2), 4, 5, Some(Token(2))),
        ],
        // A refusal while it is free.
        &[call(lock(1), 0, 1, Some(Refused))],
        // Taken by one whose connection had ended before.
        &[
            call(lock(1), 0, 1, Some(Token(1))),
            call(lock(2), 2, 5, None),
            call(unlock(1, None), 6, 7, Some(Done(true))),
            call(lock(3), 8, 9, Some(Refused)),
        ],
        // A release that is forgotten.
        &[
            call(lock(1), 0, 1, Some(Token(1))),
            call(unlock(1, None), 2, 3, Some(Done(true))),
            call(Asked::Fence, 4, 5, Some(Token(1))),
        ],
        // Another's release.
        &[call(lock(1), 0, 1, Some(Token(1))), call(unlock(2, None), 2, 3, Some(Done(true)))],
    ];
    for history in wrong {
        assert!(check(history).is_err(), "{history:?}");
    }
}

/// Clients that get no answer for a while try again, and one of their requests has taken effect.
#[test]
fn many_calls_without_an_answer_do_not_keep_the_search_busy() {
    use Answered::{Done, Refused, Token};
    let lock = |owner| Asked::Lock { owner, ttl: 1_000_000 };
    let unlock = |owner| Asked::Unlock { owner, token: None };
    let mut history = vec![call(lock(1), 0, 1, Some(Token(1)))];
    for began in 2..102 {
        let owner = (began % 4) as u8;
        let asked = if began % 8 < 4 { lock(owner) } else { unlock(owner) };
        history.push(Call { ended: u64::MAX, ..call(asked, began, began, None) });
    }
    for round in 0..20 {
        let at = 200 + 10 * round;
        history.push(call(lock(0), at, at + 1, Some(Refused)));
        history.push(call(Asked::Fence, at + 2, at + 3, Some(Token(2))));
        history.push(call(unlock(1), at + 4, at + 5, Some(Done(false))));
    }
    history.push(call(unlock(2), 500, 501, Some(Done(true))));
    history.push(call(Asked::Fence, 502, 503, Some(Token(0))));
    assert_eq!(check(&history), Ok(()));
    // No call has taken this one's lock.
    history.push(call(lock(7), 504, 505, Some(Token(3))));
    history.push(call(Asked::Fence, 506, 507, Some(Token(0))));
    assert!(check(&history).is_err());
}
