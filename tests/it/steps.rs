//! Requests that visit many keys run in turns: other clients are served in between, and the reply
//! is the same.

use std::sync::Arc;

use octostore::command::{AfterReply, Client, Execution, OwnedArgs, ServerState};
use octostore::domain::{LockName, Owner, Ttl};
use octostore::lock::{Mode, Op, Request};
use octostore::reply::Reply;

use super::corpus::requests::server;
use crate::support::client::encode;
use crate::support::server::TestServer;

const LOCKS: usize = 20_000;

fn key(n: usize) -> String {
    format!("key:{n:06}")
}

fn lock(server: &ServerState, database: u8, key: &str, owner: &str, mode: Mode) {
    let name = LockName::new(database, key.as_bytes()).expect("a key");
    let owner = Owner::new(owner.as_bytes()).expect("an owner");
    let request = Request { mode, ..Request::exclusive(owner, Ttl::from_millis(600_000).ok()) };
    let done = server.engine.txn().submit(&name, &Op::Acquire { request, wait: None });
    assert!(done.is_ok(), "{done:?}");
}

fn connect(server: &Arc<ServerState>) -> Client {
    Client::new(server, "a".into(), "b".into())
}

/// Runs a request to its end. Returns the reply and the number of turns; `between` runs between
/// turns.
fn run(
    server: &Arc<ServerState>,
    client: &mut Client,
    words: &[&str],
    mut between: impl FnMut(),
) -> (Reply, usize) {
    client.begin_turn();
    let mut owned = OwnedArgs::default();
    words.iter().for_each(|word| owned.push(word.as_bytes()));
    let mut turns = 1;
    let mut request = loop {
        let Execution { reply, next, .. } = client.execute(server, owned.as_args());
        match next {
            AfterReply::Steps(request) => break request,
            AfterReply::Again => {}
            _ => return (reply.expect("a reply"), turns),
        }
        between();
        turns += 1;
        client.begin_turn();
    };
    loop {
        between();
        turns += 1;
        if let Some(Execution { reply, .. }) = client.advance(server, &mut request) {
            return (reply.expect("a reply"), turns);
        }
    }
}

fn count(reply: &Reply) -> usize {
    match reply {
        Reply::Bulks(bulks) => bulks.len(),
        Reply::Array(parts) => parts.len(),
        other => panic!("not a list: {other:?}"),
    }
}

#[test]
fn long_commands_yield_to_other_clients() {
    let server = server(1 << 20, 1 << 20);
    (0..LOCKS).for_each(|n| lock(&server, 0, &key(n), "me", Mode::Exclusive));
    let kilo: Vec<String> = (0..200).map(|n| format!("{n:03}{}", "a".repeat(1000))).collect();
    kilo.iter().for_each(|key| lock(&server, 1, key, "me", Mode::Exclusive));
    (0..2000).for_each(|n| lock(&server, 2, "shared", &format!("owner{n}"), Mode::Shared));
    let others: Vec<Client> = (0..2000).map(|_| connect(&server)).collect();

    let glob = "*a".repeat(500) + "*b";
    let keys: Vec<String> = (0..9999).map(key).collect();
    let with = |command: &[&'static str], words: &[String]| -> Vec<String> {
        command.iter().map(|word| (*word).to_owned()).chain(words.iter().cloned()).collect()
    };
    let (docs, settings) = (vec!["lock".to_owned(); 1000], vec![glob.clone(); 500]);
    let mut client = connect(&server);
    // In which database, what, and how many turns it takes at least.
    for (database, request, turns_min) in [
        ("0", with(&["keys", "*"], &[]), 4),
        ("0", with(&["keys", "none"], &[]), 4),
        ("1", with(&["keys"], std::slice::from_ref(&glob)), 30),
        ("1", with(&["scan", "0", "count", "1000", "match"], std::slice::from_ref(&glob)), 15),
        ("15", with(&["scan", "0", "count", "1000"], &[]), 2),
        ("0", with(&["watch"], &keys), 10),
        ("2", with(&["lockinfo", "shared"], &[]), 3),
        ("0", with(&["client", "list"], &[]), 5),
        ("0", with(&["client", "kill", "maxage", "100", "maxage", "100", "maxage", "100"], &[]), 2),
        ("0", with(&["command", "info"], &docs), 5),
        ("0", with(&["command", "docs"], &docs), 10),
        ("0", with(&["config", "get"], &settings), 2),
        ("0", with(&["flushall"], &[]), 30),
    ] {
        let words: Vec<&str> = request.iter().map(String::as_str).collect();
        run(&server, &mut client, &["select", database], || {});
        let mut probes = 0;
        let mut other = connect(&server);
        let (reply, turns) = run(&server, &mut client, &words, || {
            let probe = format!("probe{probes}");
            let granted = run(&server, &mut other, &["lock", &probe, "me"], || {}).0;
            assert!(matches!(granted, Reply::Integer(_)), "{granted:?}");
            assert_eq!(run(&server, &mut other, &["unlock", &probe, "me"], || {}).0, Reply::Integer(1));
            probes += 1;
        });
        assert!(!matches!(reply, Reply::Error(_)), "{:?}: {reply:?}", &words[..2]);
        assert!(turns >= turns_min, "{:?} took {turns} turns", &words[..2]);
        if words == ["keys", "*"] {
            assert_eq!(count(&reply), LOCKS);
        }
    }
    drop(others);
}

#[test]
fn a_long_pipeline_takes_turns() {
    let server = server(16, 1 << 20);
    let mut client = connect(&server);
    let mut ping = OwnedArgs::default();
    ping.push(b"ping");
    let mut requests = 0;
    while client.has_turn_left() {
        client.execute(&server, ping.as_args());
        requests += 1;
    }
    assert!((100..2000).contains(&requests), "{requests}");
    client.begin_turn();
    assert!(client.has_turn_left());
}

#[test]
fn a_transaction_is_limited_in_what_it_reads() {
    let server = server(1 << 20, 1 << 20);
    (0..LOCKS).for_each(|n| lock(&server, 0, &key(n), "me", Mode::Exclusive));
    let mut client = connect(&server);
    let exec = |client: &mut Client, requests: &[&[&str]]| {
        run(&server, client, &["multi"], || {});
        for words in requests {
            assert_eq!(run(&server, client, words, || {}).0, Reply::Simple("QUEUED"));
        }
        match run(&server, client, &["exec"], || panic!("others ran in a transaction")).0 {
            Reply::Array(replies) => replies,
            other => panic!("{other:?}"),
        }
    };
    let keys: &[&str] = &["keys", "*"];
    let mut requests = vec![keys; 20];
    requests.extend([&["lock", "new", "me"][..], &["get", "new"], &["del", "new"]]);
    let replies = exec(&mut client, &requests);
    let refused =
        |reply: &Reply| matches!(reply, Reply::Error(text) if text.ends_with("the command was not executed"));
    assert_eq!(count(&replies[0]), LOCKS);
    assert!(refused(&replies[19]) && refused(&replies[21]), "{:?}", &replies[19..]);
    assert!(matches!(replies[20], Reply::Integer(_)), "what changes something is done");
    assert_eq!(replies[22], Reply::Integer(1));
    // Each transaction has a budget of its own.
    assert_eq!(count(&exec(&mut client, &[keys])[0]), LOCKS);
}

/// Between two turns, others see no holder any more.
#[test]
fn commands_that_end_many_holders_take_turns() {
    const HOLDERS: usize = 3000;
    for (request, reply) in [
        (&["forceunlock", "k"][..], HOLDERS as i64),
        (&["del", "k"], 1),
        (&["unlink", "k"], 1),
        (&["delex", "k"], 1),
        (&["expire", "k", "0"], 1),
    ] {
        let server = server(1 << 20, 1 << 20);
        (0..HOLDERS).for_each(|n| lock(&server, 0, "k", &format!("owner{n}"), Mode::Shared));
        let (mut client, mut other) = (connect(&server), connect(&server));
        let ended = run(&server, &mut client, request, || {
            assert!(server.engine.lock_stats().leases() > 0, "the reply waits for all");
            assert_eq!(count(&run(&server, &mut other, &["keys", "*"], || {}).0), 0);
        });
        assert_eq!(ended.0, Reply::Integer(reply), "{request:?}");
        assert!(ended.1 > 4, "{request:?} took {} turns", ended.1);
        assert_eq!(server.engine.lock_stats().leases(), 0);
    }
}

#[test]
fn what_has_ended_is_freed_in_turns_before_a_transaction() {
    let server = server(1 << 20, 1 << 20);
    let keys: Vec<String> = (0..5000).map(key).collect();
    keys.iter().for_each(|key| lock(&server, 0, key, "me", Mode::Exclusive));
    (0..5000).for_each(|n| lock(&server, 0, "shared", &format!("owner{n}"), Mode::Shared));
    let del: Vec<&str> = ["del"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    let mut client = connect(&server);
    run(&server, &mut client, &["watch", "unrelated"], || {});
    run(&server, &mut client, &["multi"], || {});
    for words in [&del[..], &["lock", "shared", "me"], &["exists", "shared"]] {
        assert_eq!(run(&server, &mut client, words, || {}).0, Reply::Simple("QUEUED"));
    }
    server.engine.clock().advance_millis(600_000);
    let (reply, turns) = run(&server, &mut client, &["exec"], || {});
    let Reply::Array(replies) = reply else { panic!("{reply:?}") };
    assert!(matches!(replies[1], Reply::Integer(token) if token > 10_000), "{replies:?}");
    assert_eq!((&replies[0], &replies[2]), (&Reply::Integer(0), &Reply::Integer(1)));
    assert!(turns > 10, "{turns} turns");
    assert!(matches!(run(&server, &mut client, &["exec"], || {}).0, Reply::Error(_)), "it is over");
}

#[test]
fn the_reply_of_keys_is_bounded() {
    let server = server(1 << 20, 1 << 20);
    let key = |n: usize| format!("{n:06}{}", "k".repeat(1000 - 6));
    // With the length of each.
    let fit = (64 << 20) / 1004;
    (0..fit).for_each(|n| lock(&server, 0, &key(n), "me", Mode::Exclusive));
    let mut client = connect(&server);
    assert_eq!(count(&run(&server, &mut client, &["keys", "*"], || {}).0), fit);
    lock(&server, 0, &key(fit), "me", Mode::Exclusive);
    let (refused, _) = run(&server, &mut client, &["keys", "*"], || {});
    assert!(matches!(&refused, Reply::Error(text) if text.contains("use SCAN or LOCKS")), "{refused:?}");
}

#[test]
fn lockinfo_shows_the_head_and_the_length_of_a_long_queue() {
    let server = server(1 << 20, 1 << 20);
    for (holders, shown) in [(1000, 1000), (1001, 1000)] {
        let key = format!("k{holders}");
        (0..holders).for_each(|n| lock(&server, 0, &key, &format!("owner{n}"), Mode::Shared));
        let mut client = connect(&server);
        let Reply::Map(fields) = run(&server, &mut client, &["lockinfo", &key], || {}).0 else {
            panic!("not a map")
        };
        let field = |name| &fields.iter().find(|(key, _)| *key == Reply::bulk(name)).expect("the field").1;
        assert_eq!(count(field("holders")), shown);
        assert_eq!(
            (field("holders_total"), field("waiters_total")),
            (&Reply::Integer(holders), &Reply::Integer(0))
        );
    }
}

#[test]
fn a_request_in_turns_is_answered_in_order_and_counted() {
    let server = TestServer::real(&[]);
    let mut client = server.connect();
    let locks: Vec<u8> = (0..LOCKS).flat_map(|n| encode(&["SET", &key(n), "me"])).collect();
    // The replies do not fit into the socket's buffers.
    std::thread::scope(|scope| {
        let mut writer = client.stream().try_clone().expect("a second handle");
        scope.spawn(move || std::io::Write::write_all(&mut writer, &locks).expect("it is read"));
        (0..LOCKS).for_each(|_| assert_eq!(client.reply(), "+OK"));
    });
    let batch: [&[&str]; 6] = [
        &["PING", "before"],
        &["KEYS", "*"],
        &["PING", "after"],
        &["CLIENT", "REPLY", "SKIP"],
        &["KEYS", "*"],
        &["PING"],
    ];
    client.send_bytes(&batch.iter().flat_map(|words| encode(words)).collect::<Vec<u8>>());
    assert_eq!(client.reply(), "\"before\"");
    assert_eq!(client.reply().lines().count(), 1 + LOCKS);
    assert_eq!(client.reply(), "\"after\"");
    assert_eq!(client.reply(), "+PONG");
}

#[test]
fn a_request_of_very_many_arguments_is_executed_in_parts() {
    const MANY: usize = 40_000;
    let server = server(1 << 20, 1 << 20);
    let mut client = connect(&server);
    let words: Vec<String> = (0..MANY).map(key).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let scored: Vec<&str> = words.iter().flat_map(|word| ["1.5", *word]).collect();
    let all = Reply::Integer(MANY as i64);
    let pairs = Reply::Integer(MANY as i64 / 2);
    let cases: &[(&[&str], &[&str], &Reply)] = &[
        (&["MSET"], &words, &Reply::OK),
        (&["EXISTS"], &words, &pairs),
        (&["TOUCH"], &words, &pairs),
        (&["DEL"], &words, &pairs),
        (&["UNLINK"], &words, &Reply::Integer(0)),
        (&["HSET", "h"], &words, &pairs),
        (&["HMSET", "h"], &words, &Reply::OK),
        (&["HDEL", "h"], &words, &pairs),
        (&["SADD", "s"], &words, &all),
        (&["SREM", "s"], &words, &all),
        (&["ZADD", "z"], &scored, &all),
        (&["ZADD", "z", "XX", "CH"], &scored, &Reply::Integer(0)),
        (&["ZREM", "z"], &words, &all),
        (&["RPUSH", "l"], &words, &all),
        (&["LPUSHX", "l"], &words, &Reply::Integer(2 * MANY as i64)),
    ];
    for (common, words, expected) in cases {
        let request = [*common, *words].concat();
        let (reply, turns) = run(&server, &mut client, &request, || {});
        assert_eq!(&reply, *expected, "{common:?}");
        assert!(turns > 20, "{common:?}: {turns} turns");
    }
    for common in [&["MGET"][..], &["HMGET", "h"], &["SMISMEMBER", "s"], &["ZMSCORE", "z"]] {
        let (reply, turns) = run(&server, &mut client, &[common, &words].concat(), || {});
        assert_eq!(count(&reply), MANY, "{common:?}");
        assert!(turns > 20, "{common:?}: {turns} turns");
    }
    for common in [["PUBSUB", "NUMSUB"], ["PUBSUB", "SHARDNUMSUB"]] {
        let (reply, turns) = run(&server, &mut client, &[&common[..], &words].concat(), || {});
        assert_eq!(count(&reply), 2 * MANY, "{common:?}");
        assert!(turns > 20, "{common:?}: {turns} turns");
    }
    for name in ["UNSUBSCRIBE", "SUNSUBSCRIBE", "PUNSUBSCRIBE"] {
        let (reply, turns) = run(&server, &mut client, &[&[name][..], &words].concat(), || {});
        assert!(matches!(&reply, Reply::Sequence(all) if all.len() == MANY), "{name}");
        assert!(turns > 20, "{name}: {turns} turns");
    }
    let (first, _) = run(&server, &mut client, &["LINDEX", "l", "0"], || {});
    assert_eq!(first, Reply::bulk(key(MANY - 1)), "the parts are pushed in order");
}

#[test]
fn very_many_arguments_are_refused_where_they_cannot_be_divided() {
    let server = server(1 << 20, 1 << 20);
    let mut client = connect(&server);
    let words = vec!["word"; 20_001];
    let tests: &[(&[&str], &str)] = &[
        (&["MSETNX"], "ERR 'msetnx' takes at most 16384 arguments"),
        (&["SUNIONSTORE"], "ERR 'sunionstore' takes at most 16384 arguments"),
        (&["COMMAND", "DOCS"], "ERR 'command docs' takes at most 16384 arguments"),
        // They are invalid, and no part is executed.
        (&["MSET"], "ERR wrong number of arguments for 'mset' command"),
        (&["HSET", "a"], "ERR wrong number of arguments for 'hset' command"),
        (&["ZADD", "a"], "ERR syntax error"),
    ];
    for (common, expected) in tests {
        let (reply, _) = run(&server, &mut client, &[*common, &words].concat(), || {});
        assert_eq!(reply, Reply::Error((*expected).into()));
    }
    let (reply, _) = run(&server, &mut client, &["DBSIZE"], || {});
    assert_eq!(reply, Reply::Integer(0));
}
