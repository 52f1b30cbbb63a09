//! Replays the seeds of the fuzz targets, and inputs that once failed, without a fuzzer. They are
//! here and not in `fuzz` because a package does not include a folder that is a package itself.

use std::path::Path;

mod http;
mod recovery;
pub(crate) mod requests;
mod users;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder).expect("a corpus") {
        let path = entry.expect("a file").path();
        println!("{}", path.display());
        let input = std::fs::read(&path).expect("readable");
        run(&input);
        // Truncated, as by a connection or a disk.
        run(&input[..input.len() / 2]);
        replayed += 1;
    }
    assert!(replayed > 4, "{target}: a corpus of {replayed}");
}

#[test]
fn requests_of_the_corpus_are_answered() {
    replay("requests", requests::run);
}

#[test]
fn http_requests_of_the_corpus_are_answered() {
    replay("http", http::run);
}

#[test]
fn databases_of_the_corpus_are_recovered_or_refused() {
    replay("recovery", recovery::run);
}

#[test]
fn users_files_of_the_corpus_are_read_or_refused() {
    replay("users", users::run);
}
