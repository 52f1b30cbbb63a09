//! The HTTP adapter over real sockets. `*.txt` are golden transcripts.

use crate::support::http::{
    Answer, call, credentials, exchange, metric, read_answer, read_head, request, server, tokens_file,
};
use crate::support::transcript::check;
use crate::support::transcript::http::HttpSession;

mod bodies;
mod document;
mod faults;
mod heads;
mod keys;
pub(crate) mod openapi;
mod reference;
mod service;
mod watch;

#[test]
fn every_http_transcript_is_answered_as_written() {
    assert!(check("tests/it/http", HttpSession::start) >= 5, "the transcripts are there");
}
