//! Commands called by scripts, and values that are stored.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::*;
use crate::auth::{DenialLog, Users};
use crate::clock::Clock;
use crate::command::sources::{Source, Stored, of_type};
use crate::command::table::{commands_and_subcommands, names};
use crate::command::values;
use crate::command::{
    AfterReply, Client, ClientLimits, Clients, Delivery, DeliveryTurn, Group, Incoming, LiveSettings,
    Lookups, OwnedArgs, Pauses, PubSub, ScriptEngine, ScriptLimits, ServerInfo, ServerState, ServerStats,
    SlowLog, Turn,
};
use crate::domain::{Limits, SharedTopology, Timestamp, Topology};
use crate::engine::{AnyTxn, ELEMENTS_AT_ONCE_MAX, Engine, EngineConfig, Unavailable};
use crate::entropy::Entropy;
use crate::journal::{Durability, MemoryBackend};
use crate::metrics::{Count, ServerMetrics};
use crate::value::{Kind, List, Set};

fn server() -> Arc<ServerState> {
    let config = EngineConfig {
        durability: Durability::Memory,
        locks_max: 5000,
        sessions_max: 4,
        waiters_per_lock_max: 4,
        values_bytes_max: 1 << 20,
        value_elements_max: 1 << 10,
        leases_per_account_max: 4,
        token_floor: 0,
        boot: None,
        entropy: Entropy::seeded(0),
    };
    let backend = Box::new(MemoryBackend::default());
    Arc::new(ServerState {
        engine: Engine::start(backend, Clock::manual(), config).expect("nothing to recover"),
        limits: Limits::default(),
        client_limits: ClientLimits { multi_bytes_max: 4096, ..ClientLimits::default() },
        users: Arc::new(Users::open(crate::command::catalog())),
        denials: DenialLog::default(),
        clients: Clients::default(),
        pauses: Pauses::default(),
        allows_flush: true,
        scripts: ScriptEngine::new(ScriptLimits::default()),
        pubsub: PubSub::default(),
        tracking: Default::default(),
        monitors: Default::default(),
        settings: LiveSettings::new(vec![]),
        info: ServerInfo {
            port: 0,
            data: "memory".into(),
            durability: "memory",
            run_id: String::new(),
            started: Timestamp::default(),
        },
        metrics: Arc::new(ServerMetrics::of(names())),
        commands_run: Count::default(),
        lookups: Lookups::default(),
        stats: ServerStats::default(),
        slow_log: SlowLog::default(),
        shutdown: tokio::sync::Notify::new(),
        topology: Arc::new(SharedTopology::new(Topology::of_one("octostore", ""))),
        shards: None,
        is_standby: false,
    })
}

fn connect(server: &Arc<ServerState>) -> Client {
    Client::new(server, "a".into(), "b".into())
}

fn send(server: &Arc<ServerState>, client: &mut Client, request: &str) -> Reply {
    let execution = client.execute(server, OwnedArgs::of(request.split(' ')).as_args());
    execution.reply.expect("replies are on")
}

/// Runs a script that calls these commands. Returns the reply to each.
fn run_script(server: &Arc<ServerState>, client: &mut Client, may_write: bool, calls: &[&str]) -> Vec<Reply> {
    let txn = server.engine.txn();
    let mut context = Context::new(server, client, AnyTxn::Shared(&txn));
    let reply = context.run_script(&[], may_write, |context| {
        let call = |call: &&str| context.dispatch(OwnedArgs::of(call.split(' ')).as_args());
        Ok(Reply::Array(calls.iter().map(call).map(|reply| reply.unwrap_or_else(Reply::from)).collect()))
    });
    let Ok(Reply::Array(replies)) = reply else { panic!("{reply:?}") };
    replies
}

fn error(text: &'static str) -> Reply {
    Reply::Error(text.into())
}

#[test]
fn a_script_gets_the_errors_of_redis_for_scripts() {
    let (unknown, arity, refused) = (
        "ERR Unknown Redis command called from script",
        "ERR Wrong number of args calling Redis command from script",
        "ERR This Redis command is not allowed from script",
    );
    for (call, expected) in [
        ("NOSUCH", unknown),
        ("NOSUCH GET a", unknown),
        ("COMMAND NOSUCH", unknown),
        ("GET", arity),
        ("SET a", arity),
        ("SESSION", arity),
        ("COMMAND COUNT a", arity),
        ("COMMAND LIST a", "ERR syntax error"),
        ("CLIENT ID", refused),
        ("MULTI", refused),
        ("SUBSCRIBE a", refused),
        ("HELLO 3", refused),
        ("QUIT", refused),
    ] {
        let server = server();
        let replies = run_script(&server, &mut connect(&server), true, &[call]);
        assert_eq!(replies, [error(expected)], "{call}");
    }
}

#[test]
fn a_read_only_script_calls_only_commands_without_effects() {
    let refused = || error("ERR Write commands are not allowed from read-only scripts.");
    let server = server();
    let calls = ["SET a b", "PUBLISH a b", "GET a", "PING"];
    let replies = run_script(&server, &mut connect(&server), false, &calls);
    assert_eq!(replies, [refused(), refused(), Reply::Null, Reply::Simple("PONG")]);
}

#[test]
fn a_script_sees_its_own_changes() {
    let server = server();
    let replies = run_script(&server, &mut connect(&server), true, &["SET a b", "GET a"]);
    assert_eq!(replies, [Reply::OK, Reply::bulk("b")]);
}

#[test]
fn the_database_of_a_script_ends_with_it() {
    let server = server();
    let mut client = connect(&server);
    send(&server, &mut client, "SELECT 1");
    let calls = ["SET a 1", "SELECT 2", "SET a 2", "GET a", "SELECT 16"];
    let replies = run_script(&server, &mut client, true, &calls);
    let out_of_range = error("ERR DB index is out of range");
    assert_eq!(replies, [Reply::OK, Reply::OK, Reply::OK, Reply::bulk("2"), out_of_range]);
    assert_eq!(send(&server, &mut client, "GET a"), Reply::bulk("1"));
    let Reply::Text(info) = send(&server, &mut client, "CLIENT INFO") else { panic!("not a text") };
    assert!(info.contains(" db=1 "), "{info}");
}

#[test]
fn a_script_does_not_wait_for_a_lock() {
    let server = server();
    let mut client = connect(&server);
    let replies = run_script(&server, &mut client, true, &["LOCK a b", "LOCK a c WAIT 1000"]);
    assert_eq!(replies, [Reply::Integer(1), Reply::Null]);
}

#[test]
fn what_a_script_publishes_is_counted_at_once_and_sent_after_it() {
    let server = server();
    let (mut client, mut subscriber) = (connect(&server), connect(&server));
    send(&server, &mut subscriber, "SUBSCRIBE news");
    send(&server, &mut subscriber, "PSUBSCRIBE n* x*");
    let txn = server.engine.txn();
    let mut context = Context::new(&server, &mut client, AnyTxn::Shared(&txn));
    let mut next = || subscriber.next_message(&mut Turn::default());
    let reply = context.run_script(&[], true, |context| {
        let reply = context.dispatch(OwnedArgs::of(["PUBLISH", "news", "hello"]).as_args());
        assert!(matches!(next(), Incoming::Nothing), "it is not sent yet");
        reply
    });
    assert_eq!(reply, Ok(Reply::Integer(2)));
    for _ in 0..2 {
        assert!(matches!(next(), Incoming::Message(_)));
    }
}

#[test]
fn a_script_inside_exec_publishes_after_exec() {
    let server = server();
    let (mut client, mut subscriber) = (connect(&server), connect(&server));
    send(&server, &mut subscriber, "SUBSCRIBE news");
    let mut next = || subscriber.next_message(&mut Turn::default());
    let publish = OwnedArgs::of(["PUBLISH", "news", "hello"]);
    let txn = server.engine.txn();
    let reply = txn.exclusively(&[], |exclusive| {
        let mut context = Context::new(&server, &mut client, AnyTxn::Exclusive(exclusive));
        context.caller = Caller::Queue { place: 0 };
        let scripted = context.run_script(&[], true, |context| context.dispatch(publish.as_args()));
        context.caller = Caller::Queue { place: 1 };
        let queued = context.dispatch(publish.as_args());
        assert!(matches!(next(), Incoming::Nothing), "nothing is sent yet");
        Reply::Array([scripted, queued].map(|reply| reply.unwrap_or_else(Reply::from)).into())
    });
    let reply = reply.expect("nothing was rebuilt");
    let mut context = Context::new(&server, &mut client, AnyTxn::Shared(&txn));
    let expected = Reply::Array(vec![Reply::Integer(1), Reply::Integer(1)]);
    assert_eq!(context.publish_deferred(reply), Ok(expected));
    for _ in 0..2 {
        assert!(matches!(next(), Incoming::Message(_)));
    }
}

#[test]
fn a_subscriber_with_many_messages_sends_a_part_of_them_in_each_turn() {
    let server = server();
    let (mut client, mut subscriber) = (connect(&server), connect(&server));
    send(&server, &mut subscriber, "SUBSCRIBE news");
    let messages = 5000;
    for _ in 0..messages {
        client.begin_turn();
        send(&server, &mut client, "PUBLISH news hello");
    }
    let mut turns = Vec::new();
    while subscriber.has_messages() {
        let mut turn = Turn::default();
        let sent = std::iter::from_fn(|| match subscriber.next_message(&mut turn) {
            Incoming::Message(message) => Some(message),
            Incoming::Nothing | Incoming::Unfinished => None,
        });
        turns.push(sent.count());
    }
    assert_eq!(turns.iter().sum::<usize>(), messages);
    assert!(turns.iter().all(|sent| (1..=500).contains(sent)), "{turns:?}");
}

#[test]
fn events_for_many_subscribers_share_the_work_of_a_turn() {
    let server = server();
    let mut subscribers: Vec<Client> = (0..100).map(|_| connect(&server)).collect();
    for subscriber in &mut subscribers {
        send(&server, subscriber, "SUBSCRIBE news");
    }
    let (mut turn, mut turns) = (DeliveryTurn::default(), 1);
    for n in 0..100 {
        let mut delivery = Delivery::message("news", &n.to_string());
        while !delivery.advance(&server, &mut turn) {
            (turn, turns) = (DeliveryTurn::default(), turns + 1);
        }
    }
    // 10 000 messages, at most a thousand in a turn, which is about a millisecond.
    assert!((10..=40).contains(&turns), "{turns}");
    for subscriber in &mut subscribers {
        let mut heard = 0;
        while subscriber.has_messages() {
            heard +=
                usize::from(matches!(subscriber.next_message(&mut Turn::default()), Incoming::Message(_)));
        }
        assert_eq!(heard, 100);
    }
}

#[test]
fn what_has_ended_of_the_keys_of_a_transaction_is_freed_in_turns_before_it() {
    let server = server();
    let mut client = connect(&server);
    send(&server, &mut client, "SELECT 3");
    for n in 0..3000 {
        send(&server, &mut client, &format!("LOCK k o{n} SHARED PX 1000"));
    }
    send(&server, &mut client, "SELECT 0");
    server.engine.clock().advance_millis(1000);
    for queued in ["MULTI", "SELECT 16", "SELECT 3", "EXISTS k"] {
        send(&server, &mut client, queued);
    }
    let exec = OwnedArgs::of(["EXEC"]);
    let mut turns = 1;
    let replies = loop {
        let execution = client.execute(&server, exec.as_args());
        match execution.next {
            AfterReply::Again => turns += 1,
            _ => break execution.reply,
        }
    };
    assert!((4..10).contains(&turns), "{turns}");
    let expected = vec![error("ERR DB index is out of range"), Reply::OK, Reply::Integer(0)];
    assert_eq!(replies, Some(Reply::Array(expected)));
}

#[test]
fn what_a_script_publishes_is_bounded() {
    let server = server();
    let message = "x".repeat(3000);
    let call = format!("PUBLISH a {message}");
    let replies = run_script(&server, &mut connect(&server), true, &[&call, &call]);
    assert_eq!(replies[0], Reply::Integer(0));
    assert_eq!(replies[1], error("ERR messages published by a script exceed 4096 bytes (--multi-bytes-max)"));
}

#[test]
fn scripts_may_not_call_commands_that_act_on_the_connection() {
    let allowed = ["ping", "echo", "select"];
    for command in commands_and_subcommands().filter(|command| command.subcommands().is_empty()) {
        let acts_on_connection = matches!(command.group, Group::Connection | Group::Transactions)
            || command.is(Flags::SUBSCRIBED | Flags::NO_MULTI | Flags::NO_AUTH | Flags::NOT_QUEUED);
        if acts_on_connection && !allowed.contains(&command.name) {
            assert!(command.is(Flags::NOSCRIPT), "{}", command.name);
        }
    }
}

#[test]
fn a_value_that_was_computed_before_is_stored_if_its_sources_are_still_the_same() {
    let server = server();
    let (mut client, other) = (connect(&server), RefCell::new(connect(&server)));
    let execute =
        |request: &str| other.borrow_mut().execute(&server, OwnedArgs::of(request.split(' ')).as_args());
    for replacements in [0_usize, 1, 3] {
        execute("DEL source");
        execute("SADD source member");
        let computed = Cell::new(0);
        let compute = |sources: &[Source]| {
            let attempt = computed.replace(computed.get() + 1);
            if attempt < replacements {
                assert!(matches!(execute("SADD source more").next, AfterReply::Again), "it is put off");
                execute("DEL source");
                execute(&format!("SADD source member{attempt}"));
            }
            values::draft::<Set>(|mut draft| {
                for member in of_type::<Set>(&sources[0]).into_iter().flat_map(Set::iter) {
                    draft.insert(member);
                }
            })
        };
        let txn = server.engine.txn();
        let mut context = Context::new(&server, &mut client, AnyTxn::Shared(&txn));
        let keys: [&[u8]; 1] = [b"source"];
        let visits = |_: &[Source]| ELEMENTS_AT_ONCE_MAX + 1;
        let stored = Stored { destination: b"stored", keys: &keys, kinds: &[Kind::Set], visits, compute };
        let args = OwnedArgs::of(["SUNIONSTORE", "stored", "source"]);
        let lookups = || (server.lookups.hits.read(), server.lookups.misses.read());
        let before = lookups();
        assert_eq!(stored.store(&mut context, args.as_args()), Ok(Reply::Integer(1)));
        assert_eq!(computed.get(), replacements + 1);
        assert_eq!(lookups(), (before.0 + 1, before.1), "however often it is computed");
        let expected = replacements.checked_sub(1).map_or("member".into(), |last| format!("member{last}"));
        assert_eq!(execute("SMEMBERS stored").reply, Some(Reply::Set(vec![Reply::bulk(expected)])));
    }
}

#[test]
fn an_edit_whose_value_is_replaced_again_and_again_is_made_in_the_end() {
    let server = server();
    let name = LockName::new(0, b"k").expect("a valid key");
    let replace = || {
        let list = values::draft::<List>(|mut list| {
            (0..=ELEMENTS_AT_ONCE_MAX).for_each(|_| list.push_back(b"x"));
        });
        server.engine.txn().replace_value(&name, &mut Some(list))
    };
    assert_eq!(replace(), Ok(()));
    let mut client = connect(&server);
    let (mut put_off, mut attempts) = (None, 0);
    let popped = loop {
        attempts += 1;
        let txn = server.engine.txn();
        if let Some(put_off) = put_off.take() {
            txn.resume(put_off);
        }
        let context = Context::new(&server, &mut client, AnyTxn::Shared(&txn));
        let popped = values::edit_existing_many::<List, _>(&context, b"k", List::len, |mut list| {
            let replaced = replace();
            list.pop_front().map(|_| replaced)
        });
        match popped {
            Err(error) if error.is_unsettled() => put_off = txn.put_off(),
            popped => break popped,
        }
    };
    assert_eq!((attempts, popped), (4, Ok(Some(Some(Err(Unavailable::Unsettled))))));
}
