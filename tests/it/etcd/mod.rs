//! Storage in etcd: a simulated one whose responses are lost or late, and a real one that is killed,
//! stopped and cut off.

mod real;
mod simulated;

use octostore::lock::Outcome;

use crate::linearizability::Answered;

/// What a client learns from an outcome.
fn answer(outcome: Outcome) -> Answered {
    match outcome {
        Outcome::Granted { token, .. } => Answered::Token(token.get()),
        Outcome::Released(count) => Answered::Done(count > 0),
        Outcome::NotHeld => Answered::Done(false),
        _ => Answered::Refused,
    }
}
