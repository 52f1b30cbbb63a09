//! Behaviour of one lock: a readable table of cases, an exhaustive search of small scopes, and
//! random runs.

use proptest::prelude::*;

use super::*;
use crate::domain::{FencingToken, Owner, SessionId, Timestamp, Ttl, WaiterId};

/// Counts tokens up and holds the waiters that have gone away.
#[derive(Clone, Default)]
struct World {
    tokens: i64,
    gone: Vec<WaiterId>,
}

impl Env for World {
    fn take_token(&mut self) -> FencingToken {
        self.tokens += 1;
        FencingToken::new(self.tokens).unwrap()
    }
    fn is_undeliverable(&mut self, waiter: &Waiter) -> Option<LeaveReason> {
        self.gone.contains(&waiter.id).then_some(LeaveReason::Gone)
    }
}

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

fn ttl(millis: u64) -> Option<Ttl> {
    Some(Ttl::from_millis(millis).unwrap())
}

fn owner(name: &str) -> Owner {
    Owner::new(name.as_bytes()).unwrap()
}

fn request(name: &str) -> Request {
    Request::exclusive(owner(name), ttl(100))
}

/// Runs a script against one lock and compares what it says.
///
/// A line is `time verb owner [words] => outcome; effects`, for example `0 lock a ttl=100 =>
/// granted 1`. Words: `ttl=`, `max=`, `delay=`, `wait=ID:MS`, `session=`, `shared`, `limit=`,
/// `token=`, `xx`, `nx`, `if=`, `keepttl`.
fn check(script: &str) {
    let (mut slot, mut world) = (Slot::default(), World::default());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (ask, expect) = line.split_once("=>").unwrap();
        let got = step(&mut slot, &mut world, ask);
        assert_eq!(got, expect.trim(), "\nin line: {line}\nof script: {script}");
    }
}

fn step(slot: &mut Slot, world: &mut World, ask: &str) -> String {
    let mut words = ask.split_whitespace();
    let now = ms(words.next().unwrap().parse().unwrap());
    let verb = words.next().unwrap();
    let who = words.next().unwrap_or("-");
    let mut request = request(who);
    let mut extra = LeaseExtra::default();
    let (mut wait, mut token, mut condition, mut keep_ttl) = (None, None, SetCondition::Always, false);
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "ttl" => request.ttl = if value == "none" { None } else { ttl(value.parse().unwrap()) },
            "max" => extra.max_hold = ttl(value.parse().unwrap()),
            "delay" => extra.delay = ttl(value.parse().unwrap()),
            "session" => extra.session = Some(SessionId(value.parse().unwrap())),
            "shared" => request.mode = Mode::Shared,
            "limit" => request.mode = Mode::limit(value.parse().unwrap()).unwrap(),
            "token" => token = Some(FencingToken::new(value.parse().unwrap()).unwrap()),
            "wait" => {
                let (id, millis) = value.split_once(':').unwrap();
                wait = Some((WaiterId(id.parse().unwrap()), now.after(ttl(millis.parse().unwrap()))));
            }
            "nx" => condition = SetCondition::IfFree,
            "xx" => condition = SetCondition::IfHeld,
            "if" => condition = SetCondition::IfOwner(owner(value)),
            "delay-always" => extra.delays_after_release = true,
            "keepttl" => keep_ttl = true,
            _ => panic!("unknown word {word}"),
        }
    }
    let request = request.with(extra);
    let op = match verb {
        "lock" => Op::Acquire { request, wait },
        "unlock" => Op::Release { owner: request.owner, token },
        "renew" => Op::Renew { owner: request.owner, ttl: request.ttl, token },
        "renew-same" => Op::Renew { owner: request.owner, ttl: None, token },
        "give-back" => Op::RevertGrant { owner: request.owner, token: token.unwrap() },
        "force" => Op::Force,
        "end-session" => Op::EndSession { session: SessionId(who.parse().unwrap()), clean: false },
        "close-session" => Op::EndSession { session: SessionId(who.parse().unwrap()), clean: true },
        "leave" => Op::CancelWait { waiter: WaiterId(who[1..].parse().unwrap()), owner: owner(&who[..1]) },
        "vanish" => {
            world.gone.push(WaiterId(who.parse().unwrap()));
            Op::Inspect
        }
        "set" => Op::Set { request, condition, keep_ttl },
        "del" => Op::Delete { if_owner: None },
        "delif" => Op::Delete { if_owner: Some(request.owner) },
        "expire" => Op::SetTtl { ttl: request.ttl },
        "inspect" => Op::Inspect,
        _ => panic!("unknown verb {verb}"),
    };
    let mut effects = Effects::default();
    let outcome = apply(slot, &op, now, world, &mut effects);
    invariants::check(slot, now).unwrap();
    let mut said = match outcome {
        Outcome::Granted { token, already_held: false } => format!("granted {}", token.get()),
        Outcome::Granted { token, already_held: true } => format!("still {}", token.get()),
        Outcome::Queued => "queued".into(),
        Outcome::Refused(Refusal::Held) => "held".into(),
        Outcome::Refused(Refusal::Delayed) => "delayed".into(),
        Outcome::Refused(Refusal::OtherMode(_)) => "other-mode".into(),
        Outcome::Refused(Refusal::OtherSession) => "other-session".into(),
        Outcome::Refused(Refusal::Condition) => "condition".into(),
        Outcome::Released(n) => format!("released {n}"),
        Outcome::Renewed { deadline } if deadline == Timestamp::NEVER => "until never".into(),
        Outcome::Renewed { deadline } => format!("until {}", deadline.as_nanos() / 1_000_000),
        Outcome::NotHeld => "not-held".into(),
        Outcome::NotExclusive => "not-exclusive".into(),
        Outcome::Done => "done".into(),
        Outcome::Unsettled => "unsettled".into(),
    };
    for effect in effects.iter() {
        match effect {
            Effect::Granted { token, waiter: Some((waiter, _)) } => {
                said += &format!("; grant {} to waiter {}", token.get(), waiter.0);
            }
            Effect::Ended { lease, how } if *how != EndReason::Released => {
                said += &format!("; {how:?} {}", lease.token.get()).to_lowercase();
            }
            Effect::WaiterLeft { waiter, why, .. } => {
                said += &format!("; waiter {} {why:?}", waiter.0).to_lowercase();
            }
            Effect::DelayStarted { delay, .. } => {
                said += &format!("; delay until {}", delay.until.as_nanos() / 1_000_000);
            }
            Effect::DelayEnded => said += "; delay over",
            _ => {}
        }
    }
    said
}

#[test]
fn one_owner_holds_an_exclusive_lock_until_its_deadline() {
    check(
        "0   lock a       => granted 1
         1   lock b       => held
         99  lock b       => held
         100 lock b       => granted 2; expired 1
         101 unlock a     => not-held
         101 renew a      => not-held
         102 unlock b     => released 1
         103 unlock b     => not-held",
    );
}

#[test]
fn an_expired_lock_that_is_still_free_is_not_renewed() {
    check(
        "0   lock a  => granted 1
         100 renew a => not-held; expired 1",
    );
}

#[test]
fn asking_again_keeps_the_token_and_never_shortens() {
    check(
        "0  lock a            => granted 1
         10 lock a ttl=20     => still 1
         50 lock a ttl=100    => still 1
         99 lock b            => held
         149 lock a shared    => other-mode
         149 renew a ttl=5    => until 154
         150 renew-same a     => until 250",
    );
}

#[test]
fn a_retried_unlock_frees_nothing_of_the_successor() {
    check(
        "0 lock a            => granted 1
         1 unlock a token=1  => released 1
         2 lock a            => granted 2
         3 unlock a token=1  => not-held
         3 renew a token=1   => not-held
         4 unlock a token=2  => released 1",
    );
}

#[test]
fn waiters_are_served_in_the_order_they_came() {
    check(
        "0 lock a                  => granted 1
         1 lock b wait=1:1000       => queued
         2 lock c wait=2:1000       => queued
         3 lock d                   => held
         4 unlock a                 => released 1; grant 2 to waiter 1
         5 unlock b token=2         => released 1; grant 3 to waiter 2",
    );
}

#[test]
fn expiry_hands_the_lock_to_the_next_in_line() {
    check(
        "0   lock a             => granted 1
         1   lock b wait=1:1000 => queued
         100 inspect            => done; expired 1; grant 2 to waiter 1",
    );
}

#[test]
fn a_waiter_that_timed_out_or_vanished_gets_nothing_and_delays_no_other() {
    check(
        "0   lock a              => granted 1
         1   lock b wait=1:10    => queued
         2   lock c wait=2:1000  => queued
         2   lock d wait=3:1000  => queued
         50  vanish 2            => done; waiter 1 timedout; waiter 2 gone
         51  unlock a            => released 1; grant 2 to waiter 3",
    );
}

#[test]
fn a_retried_wait_keeps_its_place() {
    check(
        "0 lock a             => granted 1
         1 lock b wait=1:1000 => queued
         2 lock c wait=2:1000 => queued
         3 lock b wait=3:1000 => queued; waiter 1 replaced
         4 lock b             => held
         5 unlock a           => released 1; grant 2 to waiter 3",
    );
}

#[test]
fn an_undelivered_grant_is_given_back_unless_its_owner_learned_of_it() {
    check(
        "0 lock a             => granted 1
         1 lock b wait=1:1000 => queued
         2 unlock a           => released 1; grant 2 to waiter 1
         3 give-back b token=1 => not-held
         3 give-back b token=2 => released 1
         4 lock a             => granted 3
         5 lock b wait=2:1000 => queued
         6 unlock a           => released 1; grant 4 to waiter 2
         7 lock b ttl=1       => still 4
         8 give-back b token=4 => not-held
         9 unlock b           => released 1
         10 lock a            => granted 5
         10 give-back a token=5 => not-held
         11 lock b wait=3:1000 => queued
         12 unlock a          => released 1; grant 6 to waiter 3
         13 renew b           => until 113
         14 give-back b token=6 => not-held",
    );
}

#[test]
fn a_lease_remembers_the_length_it_was_last_given() {
    let (mut slot, mut world) = (Slot::default(), World::default());
    for (ask, effective_ttl) in [
        ("0 lock a ttl=100", ttl(100)),
        ("1 renew a ttl=300", ttl(300)),
        ("2 lock a ttl=50", ttl(300)),
        ("3 lock a ttl=400", ttl(400)),
        ("4 expire x ttl=70", ttl(70)),
        ("5 set b keepttl", ttl(70)),
        ("6 set b ttl=80", ttl(80)),
        ("7 renew-same b", ttl(100)),
        ("8 expire x ttl=none", None),
    ] {
        step(&mut slot, &mut world, ask);
        let lease = slot.newest().unwrap();
        assert_eq!(lease.effective_ttl, effective_ttl, "after {ask}");
        let mut restarted = lease.clone();
        restarted.restart(ms(5000));
        assert!(restarted.deadline == ms(5000).after(effective_ttl), "after {ask}");
    }
}

#[test]
fn leaving_the_queue_lets_the_others_through() {
    check(
        "0 lock a shared             => granted 1
         1 lock w wait=1:1000        => queued
         2 lock b shared wait=2:1000 => queued
         3 leave w1                  => done; waiter 1 gone; grant 2 to waiter 2
         4 leave w1                  => not-held",
    );
}

#[test]
fn readers_share_but_do_not_starve_a_writer() {
    check(
        "0 lock a shared             => granted 1
         1 lock b shared             => granted 2
         2 lock w wait=1:1000        => queued
         3 lock c shared             => held
         4 lock c shared wait=2:1000 => queued
         5 unlock a                  => released 1
         6 unlock b                  => released 1; grant 3 to waiter 1
         7 unlock w                  => released 1; grant 4 to waiter 2",
    );
}

#[test]
fn a_limit_counts_and_the_smallest_one_rules() {
    check(
        "0 lock a limit=3 => granted 1
         1 lock b limit=2 => granted 2
         2 lock c limit=3 => held
         3 lock c         => held
         3 lock c shared  => held
         4 unlock b       => released 1
         5 lock c limit=3 => granted 3
         6 lock d limit=3 => granted 4
         7 lock e limit=3 => held
         8 unlock a       => released 1
         9 lock e limit=1 => held",
    );
}

#[test]
fn maxhold_ends_what_renewals_would_not() {
    check(
        "0   lock a max=150  => granted 1
         90  renew a ttl=100 => until 150
         95  lock a ttl=100  => still 1
         150 lock b          => granted 2; expired 1",
    );
}

#[test]
fn the_delay_follows_unclean_ends_only() {
    check(
        "0   lock a delay=50     => granted 1
         10  unlock a            => released 1
         11  lock a delay=50     => granted 2
         12  lock b wait=1:1000  => queued
         111 inspect             => done; delay until 161; expired 2
         112 lock c              => delayed
         112 set c nx            => delayed
         161 inspect             => done; delay over; grant 3 to waiter 1
         162 force               => released 1; forced 3
         163 lock a delay=20     => granted 4
         164 force               => released 1; delay until 184; forced 4
         184 lock c              => granted 5; delay over",
    );
}

#[test]
fn an_unconditional_set_replaces_the_holder_and_the_delay() {
    check(
        "0   lock a delay=50        => granted 1
         100 set b nx               => delayed; delay until 150; expired 1
         101 set b xx               => condition
         102 set b if=a             => condition
         103 set b keepttl          => granted 2; delay over
         104 unlock b               => released 1
         105 lock c                 => granted 3
         106 unlock c               => released 1
         107 lock a delay=50        => granted 4
         108 lock w wait=1:1000     => queued
         207 set w                  => granted 5; delay until 257; expired 4; delay over; waiter 1 replaced
         208 unlock w               => released 1
         209 lock a shared delay=50 => granted 6
         209 lock b shared ttl=500  => granted 7
         309 lock c shared          => delayed; delay until 359; expired 6
         310 set c nx               => condition
         311 set c xx               => granted 8; replaced 7; delay over
         312 unlock c               => released 1",
    );
}

#[test]
fn a_delay_that_is_due_always_follows_clean_ends_too() {
    check(
        "0   lock a delay=50 delay-always           => granted 1
         10  unlock a                               => released 1; delay until 60
         11  lock a                                 => delayed
         60  lock a session=7 delay=5 delay-always  => granted 2; delay over
         61  close-session 7                        => released 1; delay until 66; session { clean: true } 2
         66  lock a delay=5 delay-always            => granted 3; delay over
         67  set b                                  => granted 4; replaced 3",
    );
}

#[test]
fn a_delay_counts_from_the_deadline_however_late_it_is_noticed() {
    check(
        "0   lock a delay=50 => granted 1
         149 lock b          => delayed; delay until 150; expired 1
         150 lock b          => granted 2; delay over",
    );
}

#[test]
fn a_session_takes_its_leases_and_its_waiters_with_it() {
    check(
        "0 lock a session=7 ttl=none  => granted 1
         1 lock b session=8 wait=1:99 => queued
         2 lock c wait=2:99           => queued
         3 end-session 8              => released 0; waiter 1 sessionended
         4 close-session 7            => released 1; session { clean: true } 1; grant 2 to waiter 2",
    );
}

#[test]
fn a_plain_set_replaces_the_holder_under_a_new_token() {
    check(
        "0 set a nx           => granted 1
         1 set b nx           => condition
         2 lock b             => held
         3 set a xx ttl=50    => still 1
         4 set b              => granted 2; replaced 1
         5 set c if=a         => condition
         6 set c if=b keepttl => granted 3; replaced 2
         104 set d nx         => granted 4; expired 3
         105 delif a          => not-held
         106 delif d          => released 1
         107 set e xx         => condition",
    );
}

#[test]
fn key_commands_work_on_one_holder_of_any_name() {
    check(
        "0  set a             => granted 1
         1  expire x ttl=50   => until 51
         2  expire x ttl=none => until never
         3  del x             => released 1
         4  del x             => not-held
         5  lock a shared     => granted 2
         6  expire x          => not-exclusive
         7  delif a           => not-exclusive
         8  lock b shared     => granted 3
         9  del x             => released 2",
    );
}

/// Every step of the search, by verb; times are relative to the step before.
const STEPS: &[&str] = &[
    "lock a",
    "lock b delay=2",
    "lock b wait=1:3",
    "lock c wait=2:9",
    "lock c shared wait=2:9",
    "lock a shared max=4",
    "lock b limit=2",
    "unlock a",
    "unlock b",
    "renew b ttl=2",
    "force",
    "set c",
    "set c nx",
    "set c xx ttl=2",
    "leave b1",
];

/// Follows every sequence of steps to a depth and compares each transition with the rules.
fn search(slot: &Slot, world: &World, now: u64, depth: usize, visited: &mut u64) {
    if depth == 0 {
        return;
    }
    for elapsed in [0, 3] {
        for words in STEPS {
            let (mut slot, mut world) = (slot.clone(), world.clone());
            let (before, tokens) = (slot.clone(), world.tokens);
            let now = now + elapsed;
            let said = step(&mut slot, &mut world, &format!("{now} {words}"));
            *visited += 1;
            let context = || format!("{words} at {now} on {before:?} said {said}");
            // Nothing ends before its time unless a command ended it.
            for lease in before.holders().filter(|lease| !lease.is_over(ms(now))) {
                let ended = ["unlock", "force", "set"].iter().any(|verb| words.starts_with(verb));
                assert!(slot.lease(lease.token).is_some() || ended, "lost a lease: {}", context());
            }
            // What is held anew has a token above all before.
            for lease in slot.holders().filter(|lease| before.lease(lease.token).is_none()) {
                assert!(lease.token.get() > tokens, "an old token: {}", context());
            }
            // An unconditional SET is never refused.
            assert!(*words != "set c" || slot.lease_of(&owner("c")).is_some(), "refused: {}", context());
            // Who left the queue by a grant was ahead of everybody who stays; SET asks no queue.
            let stays = slot
                .waiters()
                .filter(|waiter| before.waiters().any(|was| was == *waiter))
                .map(|waiter| waiter.place)
                .min()
                .unwrap_or(i64::MAX);
            for waiter in before.waiters().filter(|waiter| slot.lease_of(&waiter.request.owner).is_some()) {
                assert!(waiter.place < stays || words.starts_with("set c"), "overtaken: {}", context());
            }
            search(&slot, &world, now, depth - 1, visited);
        }
    }
}

#[test]
fn every_short_history_keeps_the_invariants() {
    let mut visited = 0;
    search(&Slot::default(), &World::default(), 0, 4, &mut visited);
    assert_eq!(visited, (1..=4).map(|depth| (2 * STEPS.len() as u64).pow(depth)).sum::<u64>());
}

proptest! {
    #[test]
    fn long_histories_end_vacant(steps in prop::collection::vec((0..STEPS.len(), 0..5_u64), 1..200)) {
        let (mut slot, mut world, mut now) = (Slot::default(), World::default(), 0);
        for (index, elapsed) in steps {
            now += elapsed;
            step(&mut slot, &mut world, &format!("{now} {}", STEPS[index]));
        }
        // A bounded number of hand-offs later nothing is left, not even a queue or a delay.
        for _ in 0..10 {
            now += 1000;
            step(&mut slot, &mut world, &format!("{now} inspect"));
        }
        prop_assert!(slot.is_vacant(), "left behind: {slot:?}");
        prop_assert_eq!(slot.next_deadline(), Timestamp::NEVER);
    }

    #[test]
    fn transitions_are_deterministic(steps in prop::collection::vec((0..STEPS.len(), 0..5_u64), 1..50)) {
        let run = || {
            let (mut slot, mut world, mut now) = (Slot::default(), World::default(), 0);
            let mut said = Vec::new();
            for (index, elapsed) in &steps {
                now += elapsed;
                said.push(step(&mut slot, &mut world, &format!("{now} {}", STEPS[*index])));
            }
            (said, format!("{slot:?}"))
        };
        prop_assert_eq!(run(), run());
    }
}
