//! Streams of lock events.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{call, metric, read_head, request, server};
use crate::support::client::encode;
use crate::support::server::TestServer;
use crate::support::until;

/// A stream of lock events, read one at a time.
pub(super) struct Watch(BufReader<TcpStream>);

impl Watch {
    pub(super) fn open(addr: SocketAddr, who: &str, name: &str) -> Watch {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.write_all(&request(who, "GET", &format!("/locks/{name}/watch"), "", "")).expect("sent");
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader).expect("a head");
        let header =
            |name: &str| headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        assert_eq!(status, 200);
        assert_eq!(header("content-type"), Some("text/event-stream"));
        assert_eq!(header("cache-control"), Some("no-cache"));
        Watch(reader)
    }

    /// The next frame; `None` at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            match self.0.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
            // The last one may be cut off.
            if let Some(text) = line.strip_prefix("data: ").filter(|text| text.ends_with('\n')) {
                return Some(serde_json::from_str(text).expect("JSON"));
            }
        }
    }

    /// The next frame as a short text.
    fn next_event(&mut self) -> String {
        let frame = self.next().expect("a frame");
        assert!(frame["observed_at"].as_str().is_some_and(|at| at.ends_with('Z')));
        let token = frame["fencing_token"].as_i64().map_or(String::new(), |token| format!(" {token}"));
        assert_eq!(frame["expires_at"].is_string(), !token.is_empty());
        format!("{}{token}", frame["event"].as_str().expect("an event"))
    }
}

#[test]
fn a_watch_reports_changes_by_redis_clients_once_and_in_order() {
    let (server, _dir) = server(&[]);
    let addr = server.http.expect("HTTP");
    let mut redis = server.connect();
    let mut watch = Watch::open(addr, "alice", "job");
    assert_eq!(watch.next_event(), "released");
    for (request, event) in [
        ("LOCK job me EX 10", "acquired 1"),
        ("RENEW job me EX 20", "renewed 1"),
        ("LOCK other me EX 10", ""),
        ("LOCK job you", ""),
        ("UNLOCK job me", "released"),
        ("SET job me PX 5000", "acquired 3"),
        ("SET job you PX 5", "released"),
        ("", "acquired 4"),
    ] {
        if !request.is_empty() {
            redis.line(request);
        }
        if !event.is_empty() {
            assert_eq!(watch.next_event(), event, "{request}");
        }
    }
    server.clock.advance_millis(5);
    server.engine.expire_due();
    assert_eq!(watch.next_event(), "expired");
    let taken = call(addr, "bob", "POST", "/locks/job/acquire", "{}").json();
    assert_eq!(watch.next_event(), "acquired 5");
    redis.line("FORCEUNLOCK job");
    assert_eq!(watch.next_event(), "released");
    assert_eq!(taken["fencing_token"], 5);
    // A later stream begins with the current state.
    redis.line("LOCK job me EX 10");
    assert_eq!(Watch::open(addr, "bob", "job").next_event(), "acquired 6");
    assert_eq!(watch.next_event(), "acquired 6");
    let mut events = server.connect();
    events.line("PSUBSCRIBE __lock__:*");
    call(addr, "bob", "POST", "/locks/fresh/acquire", "{}");
    let message = events.reply();
    assert!(message.contains("__lock__:fresh") && message.contains("acquired 7"), "{message}");
}

#[test]
fn snapshots_and_events_never_disagree() {
    let server = TestServer::real(&[]);
    let addr = server.http.expect("HTTP");
    let is_over = Arc::new(AtomicBool::new(false));
    let worker = std::thread::spawn({
        let (mut redis, is_over) = (server.connect(), Arc::clone(&is_over));
        move || {
            while !is_over.load(Ordering::Relaxed) {
                redis.line("LOCK k me EX 60");
                redis.line("UNLOCK k me");
            }
        }
    });
    // Joining at any moment, a reader sees acquired and released by turns.
    for _ in 0..100 {
        let mut watch = Watch::open(addr, "anonymous", "k");
        let mut last = watch.next_event();
        for _ in 0..20 {
            let next = watch.next_event();
            assert_ne!(last.starts_with("acquired"), next.starts_with("acquired"), "{next} after {last}");
            last = next;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    worker.join().expect("the work");
}

#[test]
fn a_slow_reader_does_not_delay_a_thousand_streams() {
    const STREAMS: usize = 1000;
    const ROUND: usize = 50;
    let server = TestServer::real(&["--output-stall-ms", "100"]);
    let addr = server.http.expect("HTTP");
    let mut quiet: Vec<Watch> = (0..STREAMS).map(|_| Watch::open(addr, "anonymous", "quiet")).collect();
    let mut good = Watch::open(addr, "anonymous", "busy");
    let slow = Watch::open(addr, "anonymous", "busy");
    rustix::net::sockopt::set_socket_recv_buffer_size(slow.0.get_ref(), 4096).expect("a small buffer");
    assert_eq!(good.next_event(), "released");
    assert_eq!(metric(addr, "octostore_watchers"), STREAMS as u64 + 2);
    let mut redis = server.connect();
    let requests: Vec<u8> =
        (0..ROUND).flat_map(|_| ["LOCK", "UNLOCK"]).flat_map(|verb| encode(&[verb, "busy", "me"])).collect();
    let mut token = 0;
    while metric(addr, "octostore_watchers") == STREAMS as u64 + 2 {
        redis.send_bytes(&requests);
        for _ in 0..ROUND {
            token += 1;
            assert_eq!((redis.reply(), redis.reply()), (format!(":{token}"), ":1".to_owned()));
            assert_eq!(
                (good.next_event(), good.next_event()),
                (format!("acquired {token}"), "released".to_owned())
            );
        }
        assert!(token < 1_000_000, "the slow reader is never cut off");
    }
    // Its connection is closed, too: the others', and the one that asks, are left.
    until(|| metric(addr, "octostore_connections{protocol=\"http\"}") == STREAMS as u64 + 2);
    redis.line("LOCK quiet me EX 60");
    for reader in &mut quiet {
        assert_eq!(
            (reader.next_event(), reader.next_event()),
            ("released".to_owned(), format!("acquired {}", token + 1))
        );
    }
    // When the server stops, so do the streams.
    drop(server);
    assert!(quiet.iter_mut().all(|reader| reader.next().is_none()));
}
