//! A client at the limits of what it may ask for does not stop or bloat the others.
//!
//! Guarantees: every command and subcommand, every HTTP route of the published description and
//! every kind of lock event runs with its worst arguments, on a table of very many locks and on a
//! server with one worker thread, while a probe on a connection of its own is served in between.
//! What has no entry in the tables below fails the test. What a client can make the server keep is
//! bounded in bytes. Not here: what the requests answer; a refusal is as good as an answer.
//!
//! `TURNS=word cargo test turns -- --nocapture` runs only the cases with this word in their name
//! and prints all figures. The ignored test has the full size.
#![allow(clippy::disallowed_methods)]

mod load;
mod probe;
mod tables;
mod world;

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use octostore::command::commands_and_subcommands;

use self::load::{Abuse, Sender, send};
use self::probe::Probe;
use self::tables::{Listeners, ROUTES, UNREAD, WORST, events};
use self::world::{Line, MARK, PIPELINE_BYTES_MAX, PIPELINE_MAX, World, auth};
use crate::support::client::encode;

/// The size of a test.
#[derive(Clone, Copy)]
struct Scale {
    /// The server's threads that serve requests.
    threads: usize,
    /// Locks in the table.
    locks: usize,
    /// Requests that wait for one lock, each on a connection.
    waiters: usize,
    /// Owners that hold one lock, and sessions that end together.
    holders: usize,
    /// Words of one request.
    words: usize,
    /// Subscribers and watchers of one lock.
    listeners: usize,
}

/// What an unoptimised build can do within seconds.
const SMALL: Scale =
    Scale { threads: 1, locks: 200_000, waiters: 1000, holders: 3000, words: 9000, listeners: 200 };
/// Where the table does not matter.
const TINY: Scale = Scale { locks: 2000, ..SMALL };
/// The size at which the faults of this kind were found.
const FULL: Scale =
    Scale { threads: 1, locks: 500_000, waiters: 6000, holders: 20_000, words: 16_000, listeners: 2000 };

/// The longest wait of the probe. The server serves it within a few milliseconds where a request
/// yields as it should, and after hundreds of milliseconds to minutes where one does not; the rest
/// is room for a busy machine, and for code that is not optimized.
const WAIT_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1200 } else { 400 });
/// The same where a request may not delay the probe at all, because it has a thread of its own.
const APART_WAIT_MAX: Duration = Duration::from_millis(100);
/// How long such a request may take.
const APART_MAX: Duration = Duration::from_secs(10);
/// A wait that no busy machine explains, so that another attempt is of no use.
const STOPPED: Duration = Duration::from_secs(1);
/// Attempts of one case. What stops the server does so each time; a busy machine does not.
const ATTEMPTS: usize = 3;
/// What a case may add to the server's memory at its peak: some megabytes for each of up to 20
/// clients.
const BYTES_MAX: u64 = 128 << 20;
/// How long a case sends, if it is not done before. One request is enough to stop the server, and
/// the probe's wait counts to its end, however long that is.
const WINDOW: Duration = Duration::from_millis(60);
/// The same for a transaction, which the server reads in full before it runs it.
const MULTI_WINDOW: Duration = Duration::from_millis(250);
/// Time between two checks whether a case is over. They leave the processors to the server.
const TICK: Duration = Duration::from_millis(2);

/// Runs cases, and collects what went wrong in them.
struct Runner {
    world: World,
    only: Option<String>,
    faults: Vec<String>,
}

impl Runner {
    /// Runs cases on a server of this size; fails if one of them was wrong.
    fn check(scale: Scale, cases: impl FnOnce(&mut Runner)) {
        // The probes of two servers would disturb each other.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        raise_file_limit();
        let only = std::env::var("TURNS").ok();
        let mut runner = Runner { world: World::new(scale), only, faults: Vec::new() };
        cases(&mut runner);
        let faults = runner.faults;
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// The probe must be served while this happens.
    fn serves(&mut self, name: &str, prepare: impl Fn(&mut World) -> Abuse) {
        self.serves_within(WAIT_MAX, name, prepare);
    }

    /// The probe must be served within `wait_max` while this happens.
    fn serves_within(&mut self, wait_max: Duration, name: &str, prepare: impl Fn(&mut World) -> Abuse) {
        if !self.is_wanted(name) {
            return;
        }
        let mut wait = Duration::MAX;
        for _ in 0..ATTEMPTS {
            let (waited, _) = self.attempt(&prepare);
            wait = wait.min(waited);
            if wait <= wait_max || waited >= STOPPED {
                break;
            }
        }
        println!("{:>8.1} ms  {name}", wait.as_secs_f64() * 1e3);
        if wait > wait_max {
            self.faults.push(format!("{name}: the probe waited {} ms", wait.as_millis()));
        }
    }

    /// Each of these lines, sent by a client of its own, must not delay the probe at all: the
    /// server has a thread for it.
    fn serves_apart(&mut self, lines: &[&str], prepare: impl Fn(&mut World)) {
        self.serves_within(APART_WAIT_MAX, &lines.join(" beside "), |world| {
            prepare(world);
            let addr = world.server.addr;
            let senders = lines.iter().map(|line| {
                let bytes = [auth(), world.expand_once(line), encode(&["ECHO", MARK])].concat();
                Sender { addr, bytes, ends_with: format!("{MARK}\r\n").into(), reads: true }
            });
            Abuse { senders: senders.collect(), at_most: APART_MAX, ..Abuse::default() }
        });
    }

    /// The server must not grow by more than [`BYTES_MAX`] over its size before all cases while
    /// this happens. Memory that an earlier case has freed therefore hides nothing.
    fn bounds(&mut self, name: &str, prepare: impl Fn(&mut World) -> Abuse) {
        if !self.is_wanted(name) {
            return;
        }
        let (_, peak) = self.attempt(&prepare);
        let grown = peak.saturating_sub(self.world.resident_before);
        println!("{:>8} MB  {name}", grown >> 20);
        if grown > BYTES_MAX {
            self.faults.push(format!("{name}: the server's memory grew by {} MB", grown >> 20));
            self.world = World::new(self.world.scale);
        }
    }

    /// The longest wait of the probe, and the peak of the server's memory in bytes.
    fn attempt(&mut self, prepare: impl Fn(&mut World) -> Abuse) -> (Duration, u64) {
        let abuse = prepare(&mut self.world);
        // Makes the peak begin anew; where that is not allowed, it is the peak since the start.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.world.server.id()), "5");
        let probe = Probe::start(self.world.server.addr, self.world.server.id());
        let began = Instant::now();
        let has_kept = !abuse.kept.is_empty() || !abuse.closing.is_empty();
        drop(abuse.closing);
        std::thread::scope(|scope| {
            for sender in &abuse.senders {
                scope.spawn(|| send(sender, began + WINDOW.max(abuse.at_least).max(abuse.at_most)));
            }
        });
        while began.elapsed() < abuse.at_least {
            std::thread::park_timeout(TICK);
        }
        probe.finish();
        let waited = probe.longest();
        let peak = self.world.resident("VmHWM");
        drop(abuse.kept);
        if waited >= STOPPED {
            // It may be busy for minutes.
            self.world = World::new(self.world.scale);
            // Its connection was closed together with the server.
            drop(probe);
        } else {
            probe.stop();
            if has_kept {
                self.world.until_closed();
            }
        }
        (waited, peak)
    }
}

fn commands(runner: &mut Runner, is_multi: bool) {
    for command in commands_and_subcommands() {
        let worst = WORST.iter().find(|(name, _)| *name == command.name);
        let Some((_, lines)) = worst else {
            runner.faults.push(format!("{}: no worst arguments are known", command.name));
            continue;
        };
        for line in *lines {
            let name = format!("{line}{}", if is_multi { " in MULTI" } else { "" });
            runner.serves(&name, |world| Abuse {
                senders: vec![world.pipeline(line, is_multi, PIPELINE_BYTES_MAX)],
                at_most: if is_multi { MULTI_WINDOW } else { WINDOW },
                ..Abuse::default()
            });
        }
    }
}

fn unread_replies(runner: &mut Runner) {
    for line in UNREAD {
        runner.serves(&format!("{line} by 20 clients that read nothing"), |world| unread(world, line));
    }
}

fn unread(world: &mut World, line: &str) -> Abuse {
    let mut sender = || Sender { reads: false, ..world.pipeline(line, false, PIPELINE_BYTES_MAX) };
    Abuse { senders: (0..20).map(|_| sender()).collect(), ..Abuse::default() }
}

fn routes(runner: &mut Runner) {
    let routes = runner.world.routes();
    assert!(routes.len() >= 15, "the routes are described: {routes:?}");
    for route in routes {
        let Some((_, requests)) = ROUTES.iter().find(|(name, _)| *name == route) else {
            runner.faults.push(format!("{route}: no worst requests are known"));
            continue;
        };
        let method = route.split(' ').next().unwrap_or_default();
        for (path, body) in *requests {
            for is_user in [true, false] {
                let shown: String = body.chars().take(40).collect();
                let name = format!("{method} {path} {shown}{}", if is_user { "" } else { " without token" });
                runner.serves(&name, |world| Abuse {
                    senders: (0..2).map(|_| world.http(method, path, body, is_user)).collect(),
                    ..Abuse::default()
                });
            }
        }
    }
}

fn lock_events(runner: &mut Runner) {
    for listeners in [Listeners::SlowPatterns, Listeners::AnyPattern, Listeners::Channel, Listeners::Watchers]
    {
        for (kind, line) in events() {
            let name = format!("{} ({line}) to {listeners:?}", kind.as_str());
            runner.serves(&name, |world| {
                let (kept, event) = world.listen(listeners);
                let line = line.replace("$event", &event);
                let senders = (0..3).map(|_| world.pipeline(&line, false, PIPELINE_BYTES_MAX)).collect();
                Abuse { senders, kept, at_least: WINDOW, ..Abuse::default() }
            });
        }
    }
}

/// Sessions and connections that share one lock and end together.
fn ends_of_many(runner: &mut Runner) {
    const TTL_MS: u64 = 1500;
    for mode in ["SHARED", "LIMIT 1000000"] {
        runner.serves(&format!("the end of sessions that share one lock ({mode})"), |world| {
            let (name, count) = (format!("ending{}", world.next()), world.scale.holders);
            let mut bytes = auth();
            (0..count).for_each(|_| bytes.extend(encode(&["SESSION", "OPEN", "PX", &TTL_MS.to_string()])));
            bytes.extend(encode(&["ECHO", MARK]));
            let mut line = Line(TcpStream::connect(world.server.addr).expect("a connection"));
            line.0.write_all(&bytes).expect("a server that reads");
            let replies = String::from_utf8(line.until(format!("{MARK}\r\n").as_bytes())).expect("text");
            let sessions: Vec<&str> = replies.lines().filter(|line| line.len() == 32).collect();
            assert_eq!(sessions.len(), count, "sessions are open");
            line.each(count, |n| format!("LOCK {name} holder{n} {mode} SESSION {}", sessions[n]));
            Abuse { at_least: Duration::from_millis(TTL_MS + 200), ..Abuse::default() }
        });
        runner.serves(&format!("the end of connections that share one lock ({mode})"), |world| {
            let (name, count) = (format!("closing{}", world.next()), world.room_for(world.scale.waiters));
            let lock = |n| format!("LOCK {name} o{n} {mode} CONN\r\n");
            let closing = (0..count).map(|n| world.open(lock(n).as_bytes())).collect();
            Abuse { closing, at_least: WINDOW, ..Abuse::default() }
        });
    }
}

/// What the server logs at a stranger's request goes into a pipe that nothing drains.
fn wrong_passwords(runner: &mut Runner) {
    runner.serves("AUTH wrong from two strangers", |world| {
        let wrong = encode(&["AUTH", "wrong"]).repeat(PIPELINE_MAX);
        let bytes = [wrong, auth(), encode(&["ECHO", MARK])].concat();
        let (addr, ends_with) = (world.server.addr, format!("{MARK}\r\n").into_bytes());
        let sender = || Sender { addr, bytes: bytes.clone(), ends_with: ends_with.clone(), reads: true };
        Abuse { senders: (0..2).map(|_| sender()).collect(), ..Abuse::default() }
    });
}

fn retained_bytes(runner: &mut Runner) {
    const MUCH: usize = 150 << 20;
    let at_most = Duration::from_secs(2);
    for (line, bytes) in [
        ("SUBSCRIBE $mega$n", MUCH),
        ("PSUBSCRIBE $patterns", 10 << 20),
        ("SUBSCRIBE $channels", MUCH / 10),
        ("WATCH $many", MUCH / 10),
        ("PING $mega", MUCH),
        ("CLIENT SETNAME $owner", MUCH / 10),
        ("COMMAND DOCS $lock_words", 1 << 20),
    ] {
        runner.bounds(&format!("{line}, again and again"), |world| Abuse {
            senders: vec![world.pipeline(line, false, bytes)],
            at_most,
            ..Abuse::default()
        });
    }
    for line in UNREAD {
        runner.bounds(&format!("{line} by 20 clients that read nothing"), |world| unread(world, line));
    }
    for (kind, line) in events() {
        runner.bounds(&format!("{} ({line}) to slow patterns", kind.as_str()), |world| {
            let (kept, event) = world.listen(Listeners::SlowPatterns);
            // Those patterns are part of the server's memory before.
            let line = line.replace("$event", &event);
            let senders = (0..3).map(|_| world.pipeline(&line, false, MUCH)).collect();
            Abuse { senders, kept, at_most, ..Abuse::default() }
        });
    }
    runner.bounds("HTTP bodies that do not end, without token", |world| {
        let addr = world.server.http.expect("HTTP");
        let head = "POST /locks/web/acquire HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    content-length: 2000000\r\n\r\n";
        let bytes = [head.as_bytes(), &vec![b' '; 1_900_000]].concat();
        let sender = || Sender { addr, bytes: bytes.clone(), ends_with: Vec::new(), reads: true };
        Abuse { senders: (0..150).map(|_| sender()).collect(), at_most, ..Abuse::default() }
    });
    add_elements(&mut runner.world, "SADD united", 100, |n| format!("m{n}"));
    runner.bounds("SUNION united united by 64 clients", |world| {
        let sender = || Sender {
            addr: world.server.addr,
            bytes: [auth(), encode(&["SUNION", "united", "united"]), encode(&["ECHO", MARK])].concat(),
            ends_with: format!("{MARK}\r\n").into(),
            reads: true,
        };
        Abuse { senders: (0..64).map(|_| sender()).collect(), at_most, ..Abuse::default() }
    });
}

/// Adds very many elements to a key, a thousand with each request.
fn add_elements(world: &mut World, line: &str, thousands: usize, element: fn(usize) -> String) {
    let elements = |n: usize| (n * 1000..(n + 1) * 1000).map(element).collect::<Vec<_>>().join(" ");
    world.control.each(thousands, |n| format!("{line} {}", elements(n)));
}

fn huge_values(runner: &mut Runner) {
    add_elements(&mut runner.world, "HSET huge-hash", 1000, |n| format!("f{n} {n}"));
    add_elements(&mut runner.world, "SADD huge-set", 1000, |n| format!("m{n}"));
    add_elements(&mut runner.world, "ZADD huge-sorted", 1000, |n| format!("{n} m{n}"));
    add_elements(&mut runner.world, "RPUSH huge-list", 1000, |n| format!("i{n}"));
    for line in [
        "HGETALL huge-hash",
        "HKEYS huge-hash",
        "HVALS huge-hash",
        "HRANDFIELD huge-hash 1000000 WITHVALUES",
        "SMEMBERS huge-set",
        "SRANDMEMBER huge-set 1000000",
        "ZRANGE huge-sorted 0 -1 WITHSCORES",
        "ZREVRANGEBYSCORE huge-sorted +inf -inf",
        "ZRANDMEMBER huge-sorted 1000000",
        "LRANGE huge-list 0 -1",
        "LPOS huge-list absent",
    ] {
        runner.serves_apart(&[line], |_| ());
    }
    // The value changes while it is read.
    runner.serves_apart(&["HGETALL huge-hash", "HSET huge-hash f0 x"], |_| ());
    runner.serves_apart(&["LRANGE huge-list 0 -1", "LPOP huge-list"], |_| ());
    runner.serves_apart(&["SMEMBERS huge-set", "MULTI; SADD huge-set more; EXEC"], |_| ());
    runner.serves_apart(&["LRANGE huge-list 0 -1", "BLPOP huge-list 0"], |_| ());
}

/// Combinations and changes of as many elements as take long enough to be noticed.
fn large_values(runner: &mut Runner) {
    const SETS: [&str; 3] = ["SINTER", "SUNION", "SDIFF"];
    const SORTED_SETS: [&str; 3] = ["ZINTER", "ZUNION", "ZDIFF"];
    add_elements(&mut runner.world, "SADD large:set", 200, |n| format!("m{n}"));
    add_elements(&mut runner.world, "ZADD large:sorted", 200, |n| format!("{n} m{n}"));
    add_elements(&mut runner.world, "RPUSH large:list", 200, |n| format!("i{n}"));
    for name in SETS {
        runner.serves_apart(&[&format!("{name} large:set large:set")], |_| ());
        runner.serves_apart(&[&format!("{name}STORE result large:set large:set")], |_| ());
    }
    for name in SORTED_SETS {
        runner.serves_apart(&[&format!("{name} 2 large:sorted large:set")], |_| ());
        runner.serves_apart(&[&format!("{name}STORE result 2 large:sorted large:set")], |_| ());
    }
    for line in [
        "SINTERCARD 2 large:set large:set",
        "ZINTERCARD 2 large:sorted large:sorted",
        "ZRANGESTORE result large:sorted 0 -1",
        "COPY large:sorted result REPLACE",
    ] {
        runner.serves_apart(&[line], |_| ());
    }
    for (kind, line) in [
        ("list", "LREM changed 0 absent"),
        ("list", "LREM changed 0 i0"),
        ("list", "LINSERT changed BEFORE i100000 x"),
        ("list", "LTRIM changed 100000 -1"),
        ("list", "RPOP changed 100000"),
        ("list", "LMPOP 1 changed LEFT COUNT 100000"),
        ("list", "DEL changed"),
        ("set", "SPOP changed 100000"),
        ("set", "SPOP changed 200000"),
        ("set", "UNLINK changed"),
        ("sorted", "ZPOPMIN changed 100000"),
        ("sorted", "ZMPOP 1 changed MAX COUNT 100000"),
        ("sorted", "ZREMRANGEBYRANK changed 0 -2"),
        ("sorted", "ZREMRANGEBYSCORE changed (5 +inf"),
        ("sorted", "SET changed me"),
    ] {
        runner.serves_apart(&[line], |world| {
            world.control.each(1, |_| format!("COPY large:{kind} changed REPLACE"));
        });
    }
    // Its source is to change meanwhile.
    runner.serves_apart(&["SUNIONSTORE result large:set large:set", "SADD large:set more"], |_| ());
    runner.serves_apart(&["SET shared me"], |world| {
        world.control.each(1, |_| "DEL shared".to_owned());
        world.control.each(20_000, |n| format!("LOCK shared holder{n} SHARED"));
    });
}

/// Asks the system for as many open files as it allows.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, the test says what is missing when it connects.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Every case in which the probe must be served, on one server.
fn all_cases(runner: &mut Runner) {
    commands(runner, false);
    commands(runner, true);
    unread_replies(runner);
    routes(runner);
    lock_events(runner);
    ends_of_many(runner);
}

/// One test, because filling the table takes longer than most cases; failures name their case.
#[test]
fn no_command_route_event_or_disconnect_delays_other_clients() {
    Runner::check(SMALL, all_cases);
}

#[test]
fn wrong_passwords_delay_no_other_client_while_stderr_is_not_read() {
    Runner::check(TINY, wrong_passwords);
}

#[test]
fn reads_of_huge_values_delay_no_other_client() {
    Runner::check(TINY, huge_values);
}

#[test]
fn combinations_and_changes_of_large_values_delay_no_other_client() {
    Runner::check(TINY, large_values);
}

#[test]
fn the_memory_that_clients_can_occupy_is_bounded() {
    // On one thread, the client that causes events would wait for their delivery.
    Runner::check(Scale { threads: 3, ..TINY }, retained_bytes);
}

#[test]
#[ignore = "takes minutes"]
fn no_request_delays_other_clients_at_full_size() {
    Runner::check(FULL, all_cases);
}
