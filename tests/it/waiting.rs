//! Waiting over sockets: order, waiters that disconnect, connections that end.

use crate::support::client::Client;
use crate::support::server::TestServer;
use crate::support::until;

fn token(reply: &str) -> i64 {
    reply.strip_prefix(':').unwrap_or_else(|| panic!("not granted: {reply}")).parse().expect("a number")
}

/// Clients that queue for `k`, in this order.
fn queue(server: &TestServer, names: impl Iterator<Item = String>) -> Vec<(String, Client)> {
    let already = server.engine.lock_stats().waiting();
    let queued = names.enumerate().map(|(n, name)| {
        let mut client = server.connect();
        client.send(&["LOCK", "k", &name, "WAIT", "600000"]);
        server.until_waiting(already + n as u64 + 1);
        (name, client)
    });
    queued.collect()
}

#[test]
fn five_hundred_waiters_are_granted_in_order() {
    let server = TestServer::real(&[]);
    let mut first = server.connect();
    let mut last = token(&first.line("LOCK k first"));
    let waiters = queue(&server, (0..500).map(|n| format!("w{n}")));
    assert_eq!(first.line("UNLOCK k first"), ":1");
    for (name, mut client) in waiters {
        let next = token(&client.reply());
        assert_eq!(next, last + 1, "no other client came between");
        last = next;
        assert_eq!(client.call(&["UNLOCK", "k", &name]), ":1");
    }
    assert_eq!(server.engine.lock_stats().leases(), 0);
    assert_eq!(server.engine.deadlines(), 0);
}

#[test]
fn disconnected_waiters_delay_no_other() {
    let server = TestServer::real(&[]);
    let mut first = server.connect();
    let held = token(&first.line("LOCK k first"));
    let mut waiters = queue(&server, (0..20).map(|n| format!("w{n}")));
    // Every second one goes away: closed, or reset with data on the way.
    let mut left = Vec::new();
    for (n, (name, mut client)) in waiters.drain(..).enumerate() {
        match n % 4 {
            0 => drop(client),
            2 => {
                client.send(&["PING"]);
                let socket = socket_of(&client);
                socket.set_zero_linger().expect("a socket option");
                drop(client);
            }
            _ => left.push((name, client)),
        }
    }
    server.until_waiting(10);
    assert_eq!(first.line("UNLOCK k first"), ":1");
    for (n, (name, mut client)) in left.into_iter().enumerate() {
        assert_eq!(token(&client.reply()), held + 1 + n as i64, "those who left took no grant");
        assert_eq!(client.call(&["UNLOCK", "k", &name]), ":1");
    }
}

/// A handle whose options reach the client's socket.
fn socket_of(client: &Client) -> tokio::net::TcpSocket {
    tokio::net::TcpSocket::from_std_stream(client.stream().try_clone().expect("a handle"))
}

#[test]
fn a_half_closed_connection_counts_as_disconnected() {
    let server = TestServer::real(&[]);
    let mut first = server.connect();
    first.line("LOCK k first");
    let waiters = queue(&server, ["half".to_owned()].into_iter());
    waiters[0].1.stream().shutdown(std::net::Shutdown::Write).expect("a half-closed socket");
    server.until_waiting(0);
    assert_eq!(first.line("UNLOCK k first"), ":1");
    assert_eq!(first.line("LOCK k next"), ":2", "the one that left was granted nothing");
}

#[test]
fn the_locks_of_a_connection_end_with_it() {
    let server = TestServer::real(&[]);
    let mut holder = server.connect();
    holder.line("LOCK a me CONN");
    holder.line("LOCK b me CONN EX 3000");
    holder.line("LOCK c me");
    let mut next = server.connect();
    assert_eq!(next.line("LOCK a you"), "(nil)");
    next.send(&["LOCK", "a", "you", "WAIT", "60000"]);
    server.until_waiting(1);
    drop(holder);
    assert_eq!(next.reply(), ":4");
    assert_eq!(next.line("LOCK b you"), ":5");
    assert_eq!(next.line("LOCK c you"), "(nil)", "this one was not bound to the connection");
}

#[test]
fn the_locks_of_a_connection_end_with_it_even_if_storage_fails() {
    let faults = std::sync::Arc::new(octostore::journal::Faults::default());
    let server = TestServer::on(faults.clone());
    let mut holder = server.connect();
    assert_eq!(holder.line("LOCK a me CONN"), ":1");
    let mut other = server.connect();
    other.send(&["LOCK", "a", "you", "WAIT", "600000"]);
    server.until_waiting(1);
    let mut behind = server.connect();
    behind.send(&["LOCK", "a", "them", "WAIT", "600000"]);
    server.until_waiting(2);
    faults.fail_with(Some(octostore::journal::JournalError::Full));
    // The connection ends; that its locks end with it cannot be kept.
    drop(holder);
    // If the end of the session fails to be committed before the lock is passed on, it is not.
    const STILL_QUEUED: &str = "-MISCONF journal failed while the request was queued";
    let told = other.reply();
    assert!(
        told.starts_with("-UNKNOWN") || told.starts_with(STILL_QUEUED),
        "the grant that followed is not durable: {told}"
    );
    let told = behind.reply();
    assert!(told.starts_with(STILL_QUEUED), "{told}");
    assert!(other.line("LOCK b you").starts_with("-MISCONF"));
    faults.fail_with(None);
    until(|| server.engine.journal_down().is_none());
    let next = token(&other.line("LOCK a you WAIT 60000"));
    assert_eq!(token(&other.line("LOCK b you CONN")), next + 1);
    // A session that was opened by a commit that failed is no session.
    let mut third = server.connect();
    faults.fail_with(Some(octostore::journal::JournalError::Full));
    assert!(third.line("LOCK c third CONN").starts_with("-UNKNOWN"));
    faults.fail_with(None);
    until(|| server.engine.journal_down().is_none());
    assert!(third.line("LOCK c third CONN").starts_with(':'));
}

#[test]
fn an_expiry_grants_the_next_waiter_without_a_request() {
    let server = TestServer::real(&[]);
    let mut holder = server.connect();
    holder.line("LOCK k a PX 20");
    let mut waiters = queue(&server, ["b".to_owned(), "c".to_owned()].into_iter());
    assert_eq!(waiters[0].1.reply(), ":2");
    assert_eq!(holder.line("UNLOCK k a"), ":0", "the late holder learns it");
    assert_eq!(waiters[0].1.line("RENEW k b PX 10"), ":1");
    assert_eq!(waiters[1].1.reply(), ":3");
}

#[test]
fn a_timeout_returns_null_and_the_connection_stays_open() {
    let server = TestServer::real(&[]);
    let mut holder = server.connect();
    holder.line("LOCK k a");
    let mut waiter = server.connect();
    // Requests behind a waiting one are answered after it.
    waiter.send_bytes(b"LOCK k b WAIT 10\r\nPING\r\n");
    assert_eq!(waiter.reply(), "(nil)");
    assert_eq!(waiter.reply(), "+PONG");
    assert_eq!(server.engine.lock_stats().waiting(), 0);
}

#[test]
fn no_client_hangs_after_client_kill_or_a_shutdown() {
    let server = TestServer::real(&[]);
    let mut holder = server.connect();
    holder.line("LOCK k a");
    let mut waiters = queue(&server, ["b".to_owned(), "c".to_owned()].into_iter());
    let list = holder.line("CLIENT LIST");
    let line = list.split("\\n").find(|line| line.contains("flags=b")).expect("a waiting client").to_owned();
    let id = line.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id").to_owned();
    assert_eq!(holder.call(&["CLIENT", "KILL", "ID", &id]), ":1");
    server.until_waiting(1);
    let killed = waiters.iter_mut().map(|(_, client)| client).next().expect("two waiters");
    assert_eq!(killed.reply(), "(closed)");
    let engine = std::sync::Arc::clone(&server.engine);
    server.stop();
    until(|| engine.lock_stats().waiting() == 0);
    assert_eq!(waiters[1].1.reply(), "(closed)");
}

#[test]
fn an_element_whose_client_is_gone_goes_to_the_next() {
    let server = TestServer::real(&[]);
    let mut pusher = server.connect();
    for round in 0..20 {
        let mut gone = server.connect();
        gone.send(&["BLPOP", "k", "0"]);
        server.until_waiting(1);
        let mut next = server.connect();
        next.send(&["BRPOP", "other", "k", "0"]);
        server.until_waiting(2);
        // The server learns of it before, while or after it serves.
        drop(gone);
        let item = format!("item-{round}");
        assert_eq!(pusher.call(&["RPUSH", "k", &item]), ":1");
        assert_eq!(next.reply(), format!("*2\n  \"k\"\n  \"{item}\""));
        server.until_waiting(0);
    }
    assert_eq!(pusher.line("EXISTS k"), ":0");
}

#[test]
fn a_push_whose_commit_fails_reaches_no_client() {
    let faults = std::sync::Arc::new(octostore::journal::Faults::default());
    let server = TestServer::on(faults.clone());
    let (mut popper, mut mover, mut pusher) = (server.connect(), server.connect(), server.connect());
    popper.send(&["BLPOP", "k", "0"]);
    server.until_waiting(1);
    mover.send(&["BLMOVE", "k", "moved", "LEFT", "LEFT", "0"]);
    server.until_waiting(2);
    faults.hold_commits();
    pusher.send(&["RPUSH", "k", "a", "b"]);
    faults.wait_until_held();
    server.until_waiting(0);
    faults.fail_with(Some(octostore::journal::JournalError::Full));
    faults.release_commits();
    let reply = pusher.reply();
    assert!(reply.starts_with("-UNKNOWN"), "{reply}");
    for client in [&mut popper, &mut mover] {
        // The failure may reach it before the element does.
        let reply = client.reply();
        let is_told = reply.starts_with("-UNKNOWN") || reply.starts_with("-MISCONF journal failed while");
        assert!(is_told, "{reply}");
    }
    faults.fail_with(None);
    until(|| server.engine.journal_down().is_none());
    assert_eq!(pusher.line("EXISTS k moved"), ":0");
}

/// More waiters than one step serves, on one key.
#[test]
fn one_push_serves_many_clients() {
    const CLIENTS: usize = 200;
    let server = TestServer::real(&[]);
    let mut poppers: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    for (n, popper) in poppers.iter_mut().enumerate() {
        popper.send(&["BLPOP", "k", "0"]);
        server.until_waiting(n as u64 + 1);
    }
    let mut request = vec!["RPUSH".to_owned(), "k".to_owned()];
    request.extend((0..CLIENTS).map(|n| n.to_string()));
    let request: Vec<&str> = request.iter().map(String::as_str).collect();
    assert_eq!(server.connect().call(&request), format!(":{CLIENTS}"));
    for (n, popper) in poppers.iter_mut().enumerate() {
        assert_eq!(popper.reply(), format!("*2\n  \"k\"\n  \"{n}\""));
    }
}

#[test]
fn a_command_that_ends_many_leases_has_its_usual_reply() {
    const HOLDERS: usize = 2000;
    let server = TestServer::manual(&[]);
    let mut client = server.connect();
    for (request, before_ms, expected) in [
        (vec!["LOCK", "k", "me"], 1000, ":2001"),
        (vec!["FENCE", "k"], 1000, "(nil)"),
        (vec!["FORCEUNLOCK", "k"], 0, ":2000"),
        (vec!["DEL", "k"], 0, ":1"),
        (vec!["DEL", "k", "other"], 0, ":1"),
        (vec!["PEXPIRE", "k", "0"], 0, ":1"),
        (vec!["SET", "k", "me"], 0, "+OK"),
    ] {
        let requests: Vec<Vec<String>> = (0..HOLDERS)
            .map(|n| ["LOCK", "k", &format!("o{n}"), "SHARED", "PX", "1000"].map(String::from).to_vec())
            .collect();
        for batch in requests.chunks(100) {
            batch.iter().for_each(|words| client.send(&words.iter().map(String::as_str).collect::<Vec<_>>()));
            for _ in batch {
                token(&client.reply());
            }
        }
        server.clock.advance_millis(before_ms);
        let reply = client.call(&request);
        match expected {
            ":2001" => assert!(token(&reply) > HOLDERS as i64, "{request:?}: {reply}"),
            _ => assert_eq!(reply, expected, "{request:?}"),
        }
        client.call(&["DEL", "k"]);
        assert_eq!(server.engine.lock_stats().leases(), 0, "{request:?}");
    }
}

/// Waiters are granted the lock after an operation that ends many holders.
#[test]
fn waiters_outlast_the_operations_that_end_many_holders() {
    const HOLDERS: i64 = 600;
    for (request, expected, held_after) in [
        (["FORCEUNLOCK", "k"].as_slice(), format!(":{HOLDERS}"), 3),
        (&["DEL", "k"], ":1".to_owned(), 3),
        (&["SET", "k", "other"], "+OK".to_owned(), 1),
    ] {
        let server = TestServer::manual(&[]);
        let mut client = server.connect();
        for n in 0..HOLDERS {
            token(&client.line(&format!("LOCK k holder-{n} LIMIT {HOLDERS}")));
        }
        let mut waiters: Vec<_> = (0..3).map(|_| server.connect()).collect();
        for (n, waiter) in waiters.iter_mut().enumerate() {
            waiter.send(&["LOCK", "k", &format!("waiter-{n}"), "LIMIT", "600", "WAIT", "60000"]);
            server.until_waiting(n as u64 + 1);
        }
        assert_eq!(client.call(request), expected, "{request:?}");
        assert_eq!(server.engine.lock_stats().leases(), held_after, "{request:?}");
        if held_after == 3 {
            waiters.iter_mut().for_each(|waiter| assert!(token(&waiter.reply()) > HOLDERS));
        } else {
            assert_eq!(server.engine.lock_stats().waiting(), 3, "{request:?}");
        }
    }
}
