//! Transcripts over RESP, and the session that the README shows.

use crate::support::server::TestServer;
use crate::support::transcript::check;
use crate::support::transcript::resp::RespSession;

#[test]
fn every_transcript_is_answered_as_written() {
    let count = check("tests/it/scripts", |flags| RespSession::new(TestServer::manual(flags)));
    assert!(count >= 8, "the transcripts are there");
}

/// What the README shows is what redis-cli prints on a new database.
#[test]
fn the_session_in_the_readme_is_answered_as_printed() {
    let readme = include_str!("../../README.md");
    let session = readme.split("```console\n").nth(1).and_then(|rest| rest.split("```").next());
    let server = TestServer::manual(&[]);
    let mut client = server.connect();
    let mut lines = session.expect("a session").lines();
    let mut asked = 0;
    while let Some(line) = lines.next() {
        let request = line.strip_prefix("127.0.0.1:7379> ").expect("a request");
        let reply = client.line(request);
        let printed = match reply.strip_prefix(':') {
            Some(number) => format!("(integer) {number}"),
            None => reply,
        };
        assert_eq!(lines.next(), Some(&*printed), "{request}");
        asked += 1;
    }
    assert!(asked >= 8, "the session is there");
}
