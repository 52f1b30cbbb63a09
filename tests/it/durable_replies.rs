//! No reply leaves before what it stands on is durable, whatever was asked.
//!
//! The commit that a reply has to wait for is held, and then fails: who was told before that was told too early.

use std::sync::Arc;

use octostore::journal::{Faults, JournalError};

use crate::support::server::TestServer;
use crate::support::until;

/// What is there before: a lock with an owner, and a session, whose id stands for `ID` below.
const BEFORE: &str = "LOCK held me PX 60000";

fn prepared() -> (TestServer, Arc<Faults>, String) {
    let faults = Arc::new(Faults::default());
    let server = TestServer::on(Arc::clone(&faults));
    let mut client = server.connect();
    assert_eq!(client.line(BEFORE), ":1");
    let id = client.line("SESSION OPEN EX 60").trim_matches('"').to_owned();
    assert_eq!(client.line(&format!("LOCK in-session me SESSION {id}")), ":2");
    (server, faults, id)
}

#[test]
fn what_changes_something_is_answered_after_its_commit() {
    for request in [
        "LOCK new me PX 1000",
        "LOCK new me CONN",
        "LOCK new me SESSION ID",
        "LOCK held me PX 90000",
        "UNLOCK held me",
        "UNLOCK held me TOKEN 1",
        "RENEW held me PX 90000",
        "FORCEUNLOCK held",
        "SET new me NX PX 1000",
        "SET held me PX 90000",
        "SET held you GET",
        "SETNX new me",
        "DEL held",
        "UNLINK held",
        "DELIFEQ held me",
        "PEXPIRE held 90000",
        "PERSIST held",
        "SESSION OPEN EX 60",
        "SESSION KEEPALIVE ID",
        "SESSION CLOSE ID",
    ] {
        let (server, faults, id) = prepared();
        let mut client = server.connect();
        faults.hold_commits();
        let request = request.replace("ID", &id);
        client.send(&request.split(' ').collect::<Vec<_>>());
        faults.wait_until_held();
        faults.fail_with(Some(JournalError::Full));
        faults.release_commits();
        let reply = client.reply();
        assert!(reply.starts_with("-UNKNOWN"), "{request}: {reply}");
        faults.fail_with(None);
    }
}

#[test]
fn what_tells_of_a_change_waits_for_the_commit_of_that_change() {
    for (change, look) in [
        ("LOCK new me", "FENCE new"),
        ("LOCK new me", "FENCE new 3"),
        ("LOCK new me", "LOCK new me"),
        ("LOCK new me", "LOCK new you"),
        ("LOCK new me", "SET new you NX"),
        ("LOCK new me", "GET new"),
        ("LOCK new me", "EXISTS new"),
        ("LOCK new me", "PTTL new"),
        ("LOCK new me", "LOCKINFO new"),
        ("LOCK new me", "LOCKS 0"),
        ("LOCK new me", "SCAN 0"),
        ("LOCK new me", "KEYS *"),
        ("LOCK new me", "DBSIZE"),
        ("UNLOCK held me", "UNLOCK held me"),
        ("UNLOCK held me", "RENEW held me"),
        ("UNLOCK held me", "FENCE held 1"),
        ("DEL held", "DEL held"),
        ("SESSION CLOSE ID", "SESSION KEEPALIVE ID"),
        ("SESSION CLOSE ID", "SESSION INFO ID"),
        ("SESSION CLOSE ID", "SESSION CLOSE ID"),
        ("SESSION CLOSE ID", "LOCK new me SESSION ID"),
        ("SESSION CLOSE ID", "FENCE in-session 2"),
    ] {
        let (server, faults, id) = prepared();
        let (mut first, mut second, mut third) = (server.connect(), server.connect(), server.connect());
        let words = |line: &str| line.replace("ID", &id);
        let before = server.engine.last();
        let no_commit = server.engine.one_commit();
        first.send(&words(change).split(' ').collect::<Vec<_>>());
        until(|| server.engine.last() > before);
        second.send(&words(look).split(' ').collect::<Vec<_>>());
        // Time enough for the server to run it, as a rule; if not, it is refused below.
        (0..20).for_each(|_| assert_eq!(third.line("PING"), "+PONG"));
        faults.fail_with(Some(JournalError::Full));
        drop(no_commit);
        let reply = second.reply();
        assert!(
            reply.starts_with("-UNKNOWN") || reply.starts_with("-MISCONF"),
            "{look} after {change}: {reply}"
        );
        faults.fail_with(None);
    }
}
