//! Thousands of short lives of a server, each chosen by a seed: clients stall, retry, vanish and
//! come back late; commits wait, fail, and are lost with the power; the wall clock jumps; the
//! server is killed and the machine rebooted.
//!
//! `OCTOSTORE_TEST_SEEDS=100000 cargo test --release simulation -- --nocapture` runs more; a
//! failure prints its seed and what happened, and `OCTOSTORE_TEST_SEED` repeats that one.

mod clients;
mod disk;
mod network;
mod oracle;
mod values;
mod world;

use std::ops::Range;

use crate::linearizability;
use crate::support::random::setting;
use world::{Defect, World};

const STEPS: usize = 250;
const SEEDS: u64 = 400;

/// One life. What was wrong with it, and what happened until then.
fn live(seed: u64, defect: Option<Defect>, is_traced: bool) -> Result<(), (String, String)> {
    let mut world = World::new(seed, defect, is_traced);
    let lived = (0..STEPS).try_for_each(|_| world.step()).and_then(|()| world.end());
    let lived = lived.and_then(|()| {
        let explain = |(name, calls)| {
            linearizability::check(calls).map_err(|why| format!("no mutex behaves as {name:?} did: {why}"))
        };
        world.histories().try_for_each(explain)
    });
    lived.map_err(|why| (why, world.trace()))
}

/// The first `count` seeds, unless the environment asks for others.
fn seeds(count: u64) -> Range<u64> {
    match setting("OCTOSTORE_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("OCTOSTORE_TEST_SEEDS").unwrap_or(count),
    }
}

#[test]
fn no_seed_breaks_a_promise() {
    let seeds = seeds(SEEDS);
    for seed in seeds.clone() {
        if let Err((why, _)) = live(seed, None, false) {
            let (_, trace) = live(seed, None, true).err().unwrap_or_default();
            panic!("{trace}\nseed {seed}: {why}");
        }
    }
    println!("{} lives of {STEPS} steps, seeds {seeds:?}: nothing found", seeds.end - seeds.start);
}

/// The check is worth something: it finds what is broken on purpose.
#[test]
fn every_defect_is_found() {
    use Defect::{
        DiskLies, DiskLosesElements, GrantsToTheDead, LeasesByWallClock, ReleasesByName, RepliesBeforeCommit,
        TokensComeBack,
    };
    let defects = [
        RepliesBeforeCommit,
        TokensComeBack,
        GrantsToTheDead,
        LeasesByWallClock,
        DiskLies,
        DiskLosesElements,
        ReleasesByName,
    ];
    for defect in defects {
        let found = (0..SEEDS).find(|seed| live(*seed, Some(defect), false).is_err());
        println!("{defect:?}: found by seed {found:?}");
        assert!(found.is_some(), "{defect:?} is not found");
    }
}

/// A failure can be repeated: the seed decides everything, the order of expired locks included.
#[test]
fn two_runs_of_a_seed_have_the_same_trace() {
    let trace = |seed| {
        let mut world = World::new(seed, None, true);
        let lived = (0..STEPS).try_for_each(|_| world.step()).and_then(|()| world.end());
        (lived, world.trace())
    };
    for seed in seeds(40) {
        let (first, second) = (trace(seed), trace(seed));
        assert!(first == second, "{}\nseed {seed}: {}", first.1, difference(&first.1, &second.1));
    }
}

/// The lines at which two traces part.
fn difference(first: &str, second: &str) -> String {
    let (mut first, mut second) = (first.lines(), second.lines());
    loop {
        match (first.next(), second.next()) {
            (one, other) if one != other => return format!("first run: {one:?}\nsecond run: {other:?}"),
            (None, _) => return "the results differ".into(),
            _ => {}
        }
    }
}
