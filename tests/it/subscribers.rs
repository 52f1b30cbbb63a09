//! Subscribers with slow patterns, many subscriptions, or too little room, beside others.

use std::io::Write;
use std::sync::Arc;

use octostore::domain::{LockName, Owner, Ttl};
use octostore::journal::Faults;
use octostore::lock::{Op, Request};

use crate::support::client::{Client, encode};
use crate::support::server::TestServer;
use crate::support::until;

/// A pattern that matches none of the texts it is tried on, and takes much work to find that out.
fn slow_pattern(n: usize) -> String {
    format!("__lock__:*{}?b{n}*", "a".repeat(400))
}

fn subscribe(client: &mut Client, verb: &str, topics: &[String]) {
    let words: Vec<&str> = std::iter::once(verb).chain(topics.iter().map(String::as_str)).collect();
    client.send(&words);
    for n in 1..=topics.len() {
        let confirmed = client.reply();
        assert!(confirmed.ends_with(&format!(":{n}")), "{confirmed}");
    }
}

fn message(channel: &str, payload: &str) -> String {
    format!("*3\n  \"message\"\n  \"{channel}\"\n  \"{payload}\"")
}

#[test]
fn a_client_that_reads_many_keys_is_not_cut_off_for_what_it_is_told_of_them() {
    const READS: usize = 4000;
    let server = TestServer::real(&[]);
    let mut client = server.connect();
    client.line("HELLO 3");
    assert_eq!(client.line("CLIENT TRACKING ON"), "+OK");
    let mut input = client.stream().try_clone().expect("a socket");
    let writer = std::thread::spawn(move || {
        for n in 0..READS {
            input.write_all(&encode(&["GET".to_owned(), format!("{n:01000}")])).expect("a server that reads");
        }
    });
    // Long keys fill what it may track, so that each read makes it forget one before.
    let (mut answers, mut told) = (0, 0);
    while answers < READS {
        match client.reply().as_str() {
            "_" => answers += 1,
            other => {
                assert!(other.starts_with(">2\n  \"invalidate\""), "{other} after {answers}");
                told += 1;
            }
        }
    }
    assert!(told > READS / 4, "{told}");
    writer.join().expect("all sent");
}

#[test]
fn slow_patterns_of_one_subscriber_delay_no_other_client() {
    let server = TestServer::real(&[]);
    let key = "a".repeat(1020);
    let mut slow = server.connect();
    subscribe(&mut slow, "PSUBSCRIBE", &(0..2000).map(slow_pattern).collect::<Vec<_>>());
    let (mut exact, mut pattern) = (server.connect(), server.connect());
    let channel = format!("__lock__:{key}");
    subscribe(&mut exact, "SUBSCRIBE", std::slice::from_ref(&channel));
    subscribe(&mut pattern, "PSUBSCRIBE", &["__lock__:a*".to_owned()]);
    let mut holder = server.connect();
    let token = holder.call(&["LOCK", &key, "me", "EX", "100"]);
    for n in 0..32 {
        holder.send(&["RENEW", &key, "me", "PX", &(200_000 + n).to_string()]);
    }
    holder.send(&["PING"]);
    (0..32).for_each(|_| assert_eq!(holder.reply(), ":1"));
    assert_eq!(holder.reply(), "+PONG");
    assert_eq!(server.connect().line("PING"), "+PONG");
    let token = token.trim_start_matches(':');
    for n in 0..33 {
        let payload = format!("{} {token}", if n == 0 { "acquired" } else { "renewed" });
        assert_eq!(exact.reply(), message(&channel, &payload));
        assert_eq!(
            pattern.reply(),
            format!("*4\n  \"pmessage\"\n  \"__lock__:a*\"\n  \"{channel}\"\n  \"{payload}\"")
        );
    }
}

#[test]
fn a_subscriber_whose_patterns_are_too_slow_for_the_events_is_dropped() {
    let server = TestServer::real(&["--subscriber-bytes-max", "20000"]);
    let key = "a".repeat(1020);
    let mut slow = server.connect();
    subscribe(&mut slow, "PSUBSCRIBE", &(0..2000).map(slow_pattern).collect::<Vec<_>>());
    let mut holder = server.connect();
    holder.call(&["LOCK", &key, "me", "EX", "100"]);
    for n in 0..100 {
        holder.send(&["RENEW", &key, "me", "PX", &(200_000 + n).to_string()]);
    }
    (0..100).for_each(|_| assert_eq!(holder.reply(), ":1"));
    assert_eq!(slow.reply(), "(closed)");
}

#[test]
fn an_event_is_delivered_once_for_each_matching_pattern() {
    let server = TestServer::real(&["--subscriber-bytes-max", "20000"]);
    let mut client = server.connect();
    // Far more bytes of messages than may wait: they are made when they are sent.
    let mut patterns: Vec<String> = (1..150).map(|n| format!("__lock__:{}", "*".repeat(n))).collect();
    patterns.extend((0..1000).map(|n| format!("*k[{n}k]")));
    subscribe(&mut client, "PSUBSCRIBE", &patterns);
    server.connect().line("LOCK kk me");
    let mut expected: Vec<String> = patterns
        .iter()
        .map(|pattern| format!("*4\n  \"pmessage\"\n  \"{pattern}\"\n  \"__lock__:kk\"\n  \"acquired 1\""))
        .collect();
    let mut heard: Vec<String> = patterns.iter().map(|_| client.reply()).collect();
    expected.sort();
    heard.sort();
    assert_eq!(heard, expected);
}

#[test]
fn messages_of_slow_patterns_are_counted_and_in_order() {
    let server = TestServer::real(&[]);
    let channel = "a".repeat(20_000) + "b";
    let patterns: Vec<String> = (0..50).map(|n| format!("*{}?b*", "a".repeat(n))).collect();
    let mut subscriber = server.connect();
    subscribe(&mut subscriber, "PSUBSCRIBE", &patterns);
    let mut publisher = server.connect();
    for payload in ["1", "2", "3"] {
        publisher.send(&["PUBLISH", &channel, payload]);
    }
    publisher.send(&["PING"]);
    assert_eq!(server.connect().line("PING"), "+PONG", "others are served meanwhile");
    for payload in ["1", "2", "3"] {
        assert_eq!(publisher.reply(), ":50");
        for _ in 0..50 {
            assert!(subscriber.reply().ends_with(&format!("\"{payload}\"")));
        }
    }
    assert_eq!(publisher.reply(), "+PONG");
}

#[test]
fn ten_thousand_channels_are_subscribed_and_unsubscribed_in_turns() {
    let server = TestServer::real(&[]);
    let mut client = server.connect();
    let channels: Vec<String> = (0..10_000).map(|n| format!("__lock__:{n}")).collect();
    subscribe(&mut client, "SUBSCRIBE", &channels);
    let mut holder = server.connect();
    holder.line("LOCK 9999 me");
    assert_eq!(client.reply(), message("__lock__:9999", "acquired 1"));
    client.send(&["UNSUBSCRIBE"]);
    for n in (0..10_000).rev() {
        assert!(client.reply().ends_with(&format!(":{n}")));
    }
    subscribe(&mut client, "SUBSCRIBE", &channels);
    let channels_of = |client: &mut Client| {
        let info = client.line("INFO");
        info.split("pubsub_channels:").nth(1).and_then(|rest| rest.split("\\r\\n").next()).map(str::to_owned)
    };
    assert_eq!(channels_of(&mut holder).as_deref(), Some("10000"));
    assert_eq!(client.line("RESET"), "+RESET");
    assert_eq!(channels_of(&mut holder).as_deref(), Some("0"));
    subscribe(&mut client, "SUBSCRIBE", &channels);
    drop(client);
    until(|| channels_of(&mut server.connect()).as_deref() == Some("0"));
}

#[test]
fn only_subscribers_that_may_have_missed_an_event_are_disconnected() {
    let faults = Arc::new(Faults::default());
    let server = TestServer::on(Arc::clone(&faults));
    let (mut exact, mut pattern, mut other) = (server.connect(), server.connect(), server.connect());
    subscribe(&mut exact, "SUBSCRIBE", &["__lock__:k".to_owned()]);
    subscribe(&mut pattern, "PSUBSCRIBE", &["*k".to_owned()]);
    subscribe(&mut other, "PSUBSCRIBE", &["news*".to_owned()]);
    // While the journal stalls, more happens than the queue of events holds.
    faults.hold_commits();
    let name = LockName::new(0, &[b'x'; 1000]).unwrap();
    let request = Request::exclusive(Owner::new(b"me").unwrap(), Ttl::from_millis(60_000).ok());
    for _ in 0..10_000 {
        server.engine.txn().submit(&name, &Op::Acquire { request: request.clone(), wait: None }).unwrap();
        server.engine.txn().submit(&name, &Op::Force).unwrap();
    }
    faults.release_commits();
    assert_eq!(exact.reply(), "(closed)");
    assert_eq!(pattern.reply(), "(closed)");
    let mut client = server.connect();
    assert_eq!(client.line("PUBLISH news here"), ":1");
    assert!(other.reply().ends_with("\"here\""));
    let mut again = server.connect();
    subscribe(&mut again, "SUBSCRIBE", &["__lock__:k".to_owned()]);
    let token = client.line("LOCK k me");
    assert_eq!(again.reply(), message("__lock__:k", &format!("acquired {}", &token[1..])));
}
