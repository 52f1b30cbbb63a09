//! Golden transcripts: what clients send and what they get, as text that anyone can read.
//!
//! Lines that are empty, start with `#` or with `flags ` are copied; `flags FLAGS` sets the server
//! up. `advance MS` advances the clock. Every other line is a request, or the answer that the
//! server is expected to give; the protocol decides ([`resp`], [`http`]). With UPDATE_SCRIPTS set,
//! the answers of the server are written into the files; review them as a diff.

use std::fmt::Write as _;
use std::path::Path;

pub(crate) mod http;
pub(crate) mod resp;

/// A server, and the clients of one transcript.
pub(crate) trait Session {
    /// Advances the clock.
    fn advance(&mut self, millis: u64);
    /// Performs a line, unless it is an answer.
    fn perform(&mut self, line: &str) -> Performed;
}

/// What became of a line.
pub(crate) enum Performed {
    /// It has this answer.
    Answered(String),
    /// It has no answer, or a later line reads it.
    Silent,
    /// It is no request but an answer.
    NotARequest,
}

/// Runs all transcripts of a folder, each on a new server, and compares them with what the server
/// answers. Returns their number.
pub(crate) fn check<S: Session>(folder: &str, start: impl Fn(&[&str]) -> S) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the transcripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    let mut differing = Vec::new();
    for path in &files {
        let text = std::fs::read_to_string(path).expect("a transcript");
        let answered = run(&text, &start);
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            std::fs::write(path, &answered).expect("a writable transcript");
        } else if answered != text {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            differing.push(format!("{name}:{}", first_difference(&text, &answered)));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    files.len()
}

fn first_difference(expected: &str, found: &str) -> String {
    let common = expected.lines().zip(found.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(common).unwrap_or("(nothing)").to_owned();
    format!("{}: expected {:?}, got {:?}", common + 1, line(expected), line(found))
}

/// The transcript with the answers that the server gives now.
fn run<S: Session>(script: &str, start: impl Fn(&[&str]) -> S) -> String {
    let flags = script.lines().find_map(|line| line.strip_prefix("flags ")).unwrap_or("");
    let mut session = start(&flags.split_whitespace().collect::<Vec<_>>());
    let mut answered = String::new();
    for line in script.lines() {
        let performed = if line.is_empty() || line.starts_with('#') || line.starts_with("flags ") {
            Performed::Silent
        } else if let Some(millis) = line.strip_prefix("advance ") {
            session.advance(millis.parse().expect("milliseconds"));
            Performed::Silent
        } else {
            session.perform(line)
        };
        match performed {
            Performed::Answered(answer) => writeln!(answered, "{line}\n{answer}").expect("room"),
            Performed::Silent => writeln!(answered, "{line}").expect("room"),
            Performed::NotARequest => {}
        }
    }
    answered
}
