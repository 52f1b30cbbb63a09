//! Transcripts over RESP.

use crate::support::server::TestServer;
use crate::support::transcript::check;
use crate::support::transcript::resp::RespSession;

#[test]
fn every_transcript_is_answered_as_written() {
    let count = check("tests/it/scripts", |flags| RespSession::new(TestServer::manual(flags)));
    assert!(count >= 8, "the transcripts are there");
}
