//! Schedules under times that the tests give, and 2000 random ones.

use super::*;
use crate::entropy::Entropy;

const MS: u64 = 1_000_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * MS)
}

/// A run with a TTL of 30 s and a grace period of 5 s, whose request was sent at 0.
fn run(on_lost: OnLost) -> Schedule {
    let timing = Timing::new(Duration::from_secs(30), Duration::from_secs(5));
    Schedule::new(Lease::granted(timing, at(0)), on_lost)
}

/// The steps that follow if no renewal is answered: each attempt fails after `attempt` ms.
fn steps(schedule: &mut Schedule, attempt: u64) -> Vec<(u64, Step)> {
    let (mut now, mut found, mut fails_at) = (0, Vec::new(), u64::MAX);
    loop {
        if now >= fails_at {
            schedule.not_renewed(at(now));
            fails_at = u64::MAX;
        }
        match schedule.next(at(now)) {
            Step::Wait(Timestamp::NEVER) if fails_at == u64::MAX => return found,
            // Timers are late and not early.
            Step::Wait(until) => now = until.as_nanos().div_ceil(MS).min(fails_at),
            step => {
                found.push((now, step));
                if step == Step::Renew {
                    fails_at = now + attempt;
                }
            }
        }
    }
}

#[test]
fn the_group_is_killed_before_the_lease_ends() {
    let found = steps(&mut run(OnLost::Kill), 20_000);
    assert_eq!(found, [(10_000, Step::Renew), (24_000, Step::Terminate), (29_000, Step::Kill)]);
}

#[test]
fn renewals_are_repeated_until_the_command_must_end() {
    let found = steps(&mut run(OnLost::Kill), 3_333);
    let renewals = found.iter().filter(|(_, step)| *step == Step::Renew).count();
    assert_eq!(renewals, 4, "{found:?}");
    assert_eq!(found[4..], [(24_000, Step::Terminate), (29_000, Step::Kill)]);
}

#[test]
fn a_lost_lease_does_what_was_asked_for() {
    let found = steps(&mut run(OnLost::Term), 20_000);
    assert_eq!(found, [(10_000, Step::Renew), (24_000, Step::Terminate)]);
    let mut ignoring = run(OnLost::Ignore);
    assert_eq!(steps(&mut ignoring, 20_000), [(10_000, Step::Renew)]);
    assert!(ignoring.has_lost_lease());
}

#[test]
fn a_lease_that_the_server_has_ended_leaves_no_time() {
    let mut schedule = run(OnLost::Kill);
    assert_eq!(schedule.next(at(5)), Step::Wait(at(10_000)));
    schedule.lost();
    assert_eq!(schedule.next(at(6)), Step::Kill);
    assert_eq!(schedule.next(at(7)), Step::Wait(Timestamp::NEVER));
    let mut schedule = run(OnLost::Term);
    schedule.lost();
    assert_eq!(schedule.next(at(6)), Step::Terminate);
    assert!(schedule.has_lost_lease());
}

#[test]
fn a_machine_that_was_suspended_kills_at_once() {
    let mut schedule = run(OnLost::Kill);
    assert_eq!(schedule.next(at(0)), Step::Wait(at(10_000)));
    assert_eq!(schedule.next(at(3_600_000)), Step::Kill);
    assert!(schedule.has_lost_lease());
}

#[test]
fn a_late_reply_extends_from_the_time_of_its_request_and_not_after_the_loss() {
    let mut schedule = run(OnLost::Kill);
    assert_eq!(schedule.next(at(10_000)), Step::Renew);
    assert_eq!(schedule.next(at(10_000)), Step::Wait(at(24_000)), "one attempt at a time");
    schedule.renewed(at(10_000));
    assert_eq!(schedule.lease().end(), at(40_000));
    assert_eq!(schedule.next(at(20_000)), Step::Renew);
    assert_eq!(schedule.next(at(34_000)), Step::Terminate);
    schedule.renewed(at(20_000));
    assert_eq!(schedule.lease().end(), at(40_000));
    assert_eq!(schedule.next(at(38_999)), Step::Wait(at(39_000)));
    assert_eq!(schedule.next(at(39_000)), Step::Kill);
}

#[test]
fn what_an_ended_command_leaves_gets_the_grace_period_under_a_renewed_lease() {
    let mut schedule = run(OnLost::Kill);
    schedule.ended();
    assert_eq!(schedule.next(at(9_000)), Step::Terminate);
    assert_eq!(schedule.next(at(10_000)), Step::Renew);
    schedule.renewed(at(10_000));
    assert_eq!(schedule.next(at(13_999)), Step::Wait(at(14_000)));
    assert_eq!(schedule.next(at(14_000)), Step::Kill);
    assert!(!schedule.has_lost_lease());
}

#[test]
fn several_locks_have_the_shortest_lease() {
    let timing = Timing::new(Duration::from_secs(30), Duration::from_secs(5));
    let lease = Lease::granted(timing, at(4_000)).joined(at(9_000));
    assert_eq!((lease.end(), lease.renew_at()), (at(34_000), at(14_000)));
    let lease = Lease::granted(timing, at(9_000)).joined(at(4_000));
    assert_eq!((lease.end(), lease.renew_at()), (at(34_000), at(14_000)));
}

#[test]
fn a_long_grace_period_leaves_time_to_renew() {
    let timing = Timing::new(TTL_MIN, Duration::from_secs(5));
    let mut schedule = Schedule::new(Lease::granted(timing, at(0)), OnLost::Kill);
    let found = steps(&mut schedule, 111);
    assert_eq!(found[0], (334, Step::Renew));
    assert!(found.iter().filter(|(_, step)| *step == Step::Renew).count() >= 2, "{found:?}");
    assert_eq!(found.last(), Some(&(900, Step::Kill)), "{found:?}");
}

/// A server and a network that lose and delay requests and replies. The server's lease is what
/// counts: as long as the command is alive, it has not ended.
#[test]
fn in_random_schedules_no_command_outlives_its_lease() {
    const RUNS: u64 = 2000;
    let (mut renewals, mut killed) = (0, 0);
    for seed in 0..RUNS {
        let random = Entropy::seeded(seed);
        let below = |bound: u64| random.number() % bound;
        let ttl = 1_000 + below(30_000);
        let timing = Timing::new(Duration::from_millis(ttl), Duration::from_millis(below(10_000)));
        let attempt = u64::try_from(timing.attempt().as_millis()).unwrap();
        let loss_permille = below(1000);
        let mut schedule = Schedule::new(Lease::granted(timing, at(0)), OnLost::Kill);
        let mut server_end = ttl;
        // The reply to the one request on its way: when it comes, and when the request was sent.
        let (mut now, mut reply, mut gives_up) = (0, None, u64::MAX);
        let mut is_dead = false;
        while !is_dead && now < 100 * ttl {
            assert!(now < server_end, "seed {seed}: alive at {now}, the lease ended at {server_end}");
            if let Some((comes, sent)) = reply.filter(|(comes, _)| *comes <= now) {
                assert!(comes <= gives_up);
                schedule.renewed(at(sent));
                (reply, gives_up) = (None, u64::MAX);
                renewals += 1;
            }
            if gives_up <= now {
                schedule.not_renewed(at(now));
                (reply, gives_up) = (None, u64::MAX);
            }
            match schedule.next(at(now)) {
                Step::Renew => {
                    let (there, back) = (below(attempt), below(attempt));
                    let (arrives, returns) = (below(1000) >= loss_permille, below(1000) >= loss_permille);
                    // Arrives in time, or the server has ended the lease.
                    if arrives && now + there < server_end {
                        server_end = now + there + ttl;
                        if returns && there + back <= attempt {
                            reply = Some((now + there + back, now));
                        }
                    }
                    gives_up = now + attempt;
                }
                Step::Terminate => {}
                Step::Kill => is_dead = true,
                Step::Wait(until) => {
                    let comes = reply.map_or(u64::MAX, |(comes, _)| comes);
                    now = until.as_nanos().div_ceil(MS).min(comes).min(gives_up).max(now + 1);
                }
            }
        }
        killed += u64::from(is_dead);
    }
    assert!(killed > RUNS / 2 && renewals > RUNS, "{killed} killed, {renewals} renewals");
}
