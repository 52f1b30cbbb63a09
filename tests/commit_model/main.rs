//! A model of group commit: loom runs the files of `src/journal/commit` through all interleavings
//! of a few threads, up to a number of preemptions.
//!
//! Each scenario shows that every barrier resolves (a lost wake-up is a deadlock), that none
//! resolves to `Ok` before its record is stored, and that groups reach the backend as a whole. Not
//! here: timeouts, by which the commit thread finds records that no barrier awaits.

mod backend;
#[allow(dead_code, unreachable_pub, reason = "the model uses a part of what the library exports")]
mod journal;
mod scenarios;
