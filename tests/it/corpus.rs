//! Inputs that the fuzz targets started from, or that once broke something, replayed without a fuzzer.

use std::path::Path;

#[path = "../../fuzz/src/http.rs"]
mod http;
#[path = "../../fuzz/src/recovery.rs"]
mod recovery;
#[path = "../../fuzz/src/requests.rs"]
pub(crate) mod requests;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder).expect("a corpus") {
        let path = entry.expect("a file").path();
        println!("{}", path.display());
        let input = std::fs::read(&path).expect("readable");
        run(&input);
        // What was cut short, as a connection or a disk does.
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
