//! Random sequences of steps, which a seed repeats.

use super::commands::{CALLS, SUBSCRIPTIONS, WAITS};
use super::reply::{Rule, Words, words};
use super::words::{call, fill, filling};
use crate::support::random::Random;

/// The connections of a sequence that send one request after the other: the first speaks RESP2,
/// the second RESP3.
pub(super) const CALLERS: usize = 2;

/// One step, which may be removed without a change to the others.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A request of a caller, and the rule for its reply.
    Call(usize, Words, Rule),
    /// The blocking pop of a connection of its own, and what a caller does while it waits.
    Wait(Words, Vec<Words>),
    /// A request of the subscriber.
    Subscribe(Words),
}

impl std::fmt::Display for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Step::Call(caller, words, _) => write!(formatter, "{caller}: {}", Shown(words)),
            Step::Subscribe(words) => write!(formatter, "subscriber: {}", Shown(words)),
            Step::Wait(words, meanwhile) => {
                write!(formatter, "waits: {}", Shown(words))?;
                meanwhile.iter().try_for_each(|words| write!(formatter, "; meanwhile {}", Shown(words)))
            }
        }
    }
}

/// A request as redis-cli would read it.
pub(super) struct Shown<'w>(pub(super) &'w Words);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let blank = if index == 0 { "" } else { " " };
            let is_plain = !word.is_empty() && word.iter().all(u8::is_ascii_graphic);
            let quote = if is_plain && !word.contains(&b'"') { "" } else { "\"" };
            write!(formatter, "{blank}{quote}{}{quote}", word.escape_ascii())?;
        }
        Ok(())
    }
}

/// A sequence of this many steps.
pub(super) fn plan(random: &mut Random, steps: usize) -> Vec<Step> {
    // Most sequences use a part of the commands, so that they meet each other's values more often.
    let kinds: Vec<char> = match random.below(4) {
        0 => vec!['v', 'h', 'l', 's', 'z', '*'],
        _ => vec![random.of(&['v', 'h', 'l', 's', 'z']), '*'],
    };
    let mut plan = Vec::new();
    // A caller sends a few requests at once.
    let mut caller = 0;
    while plan.len() < steps {
        if random.permille(150) {
            caller = random.below(CALLERS as u64) as usize;
        }
        let step = match random.below(1000) {
            0..12 => wait(random),
            12..40 => {
                let row = &SUBSCRIPTIONS[random.below(SUBSCRIPTIONS.len() as u64) as usize];
                Step::Subscribe(call(random, row))
            }
            40..70 => Step::Call(
                caller,
                words(random.of(&["MULTI", "MULTI", "EXEC", "EXEC", "DISCARD"])),
                Rule::Exact,
            ),
            70..80 => Step::Call(
                caller,
                words(random.of(&["SELECT 0", "SELECT 1", "SELECT 16", "SELECT abc"])),
                Rule::Exact,
            ),
            80..85 => Step::Call(caller, unknown(random), Rule::Exact),
            85..90 => {
                // Redis writes each reply in a transaction by the protocol of its moment.
                plan.push(Step::Call(caller, words("DISCARD"), Rule::Exact));
                // The reply has the version and the id.
                Step::Call(caller, words(random.of(&["HELLO 2", "HELLO 3"])), Rule::Kind)
            }
            90..92 => Step::Call(caller, words("RESET"), Rule::Exact),
            92..94 => Step::Subscribe(words(random.of(&["HELLO 2", "HELLO 3"]))),
            94..102 => {
                let kind = random.of(&kinds);
                Step::Call(caller, filling(random, kind), Rule::Exact)
            }
            _ => any_call(random, caller, &kinds),
        };
        plan.push(step);
    }
    plan
}

fn any_call(random: &mut Random, caller: usize, kinds: &[char]) -> Step {
    loop {
        let row = &CALLS[random.below(CALLS.len() as u64) as usize];
        // FLUSHALL and such would leave little to find.
        let is_seldom =
            row.0.starts_with("flush") || row.0.starts_with("function") || row.0.starts_with("pubsub");
        if !kinds.contains(&row.1) || is_seldom && !random.permille(100) {
            continue;
        }
        let mut request = call(random, row);
        if random.permille(60) {
            let name = random.of(&["call", "call", "pcall"]);
            let script = format!("return redis.{name}(unpack(ARGV))");
            request.splice(0..0, [b"EVAL".to_vec(), script.into_bytes(), b"0".to_vec()]);
        }
        return Step::Call(caller, request, row.2);
    }
}

fn unknown(random: &mut Random) -> Words {
    let line = random.of(&[
        "NOSUCH",
        "nosuch a b",
        "OBJECT NOSUCH a",
        "SCRIPT",
        "PUBSUB nosuch",
        "OBJECT",
        "GETT a",
    ]);
    words(line)
}

/// A pop that waits, then commands that may serve it.
fn wait(random: &mut Random) -> Step {
    let pop = random.of(WAITS);
    let kind = if pop.contains('Z') { 'z' } else { 'l' };
    let calls = match kind {
        'z' => {
            &["ZADD $k $score $member", "ZADD $k 1 a 2 b", "ZUNIONSTORE $k 1 $k", "RENAME $k $k", "DEL $k"][..]
        }
        _ => &[
            "RPUSH $k $members",
            "LPUSH $k a b",
            "LMOVE $k $k LEFT RIGHT",
            "RENAME $k $k",
            "SET $k v",
            "COPY $k $k",
        ][..],
    };
    let waiting = fill(random, kind, pop);
    let count = 1 + random.below(4);
    let meanwhile = (0..count).map(|_| {
        let call = random.of(calls);
        fill(random, kind, call)
    });
    Step::Wait(waiting, meanwhile.collect())
}
