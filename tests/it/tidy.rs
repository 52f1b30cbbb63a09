//! Rules of the code that the compiler does not check.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

fn sources() -> Vec<(String, String)> {
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// The name below `root` and the text of every Rust file.
fn rust_files(root: &Path) -> Vec<(String, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(root, &mut found);
    let text = |path: PathBuf| {
        let name = path.strip_prefix(root).expect("below it").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).expect("a source file"))
    };
    found.into_iter().map(text).collect()
}

/// Code without comments and without the tests behind it.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn modules_import_only_what_they_may() {
    let allowed: &[(&str, &[&str])] = &[
        ("domain", &[]),
        ("lock", &["domain"]),
        ("value", &["domain"]),
        ("reply", &[]),
        ("clock", &["domain", "lock"]),
        ("entropy", &[]),
        ("journal", &["domain", "lock", "value", "clock", "entropy", "metrics"]),
        ("metrics", &[]),
        ("net", &["metrics"]),
        ("glob", &[]),
        ("auth", &["domain", "glob"]),
        ("engine", &["domain", "lock", "value", "journal", "clock", "entropy", "metrics"]),
        ("cli", &["domain", "clock", "entropy", "config", "engine", "journal", "server"]),
        // The Seq that a reply waits for, the clock's times and the journal's errors pass through.
        (
            "command",
            &["domain", "glob", "auth", "engine", "lock", "value", "reply", "journal", "metrics", "clock"],
        ),
        ("resp", &["domain", "command", "reply", "engine", "journal", "lock", "net", "metrics"]),
        ("http", &["domain", "auth", "engine", "lock", "journal", "metrics", "net"]),
        ("cluster", &["domain", "auth", "entropy", "journal", "net"]),
        ("config", &["domain", "auth", "command", "journal", "lock", "resp", "http", "net"]),
    ];
    let modules = [
        "domain", "lock", "reply", "clock", "journal", "engine", "command", "resp", "http", "config",
        "cluster", "server", "metrics", "net", "auth", "entropy", "value", "glob", "cli",
    ];
    for (name, text) in sources() {
        let own = name.split(['/', '.']).next().unwrap_or("").to_owned();
        let Some((_, may)) = allowed.iter().find(|(module, _)| *module == own) else { continue };
        if name.ends_with("tests.rs") || name.contains("/tests/") {
            continue;
        }
        for other in modules.iter().filter(|other| **other != own && !may.contains(other)) {
            assert!(!code(&text).contains(&format!("crate::{other}")), "{name} must not use {other}");
        }
    }
}

#[test]
fn a_dependency_is_named_in_one_place() {
    // The crates that must be easy to replace have one file or folder. The others may have several.
    for (dependency, places) in [
        ("dashmap", vec!["engine/keyspace/table.rs"]),
        ("rusqlite", vec!["journal/sqlite/"]),
        ("base64", vec!["journal/log/bytes.rs", "http/credentials.rs"]),
        ("redis_protocol", vec!["resp/codec.rs"]),
        ("clap", vec!["config/", "cli/"]),
        ("clap_complete", vec!["cli/shell.rs"]),
        ("clap_mangen", vec!["cli/shell.rs"]),
        ("redis", vec!["cli/client/", "command/script/lua/"]),
        ("nix", vec!["cli/run/terminal.rs"]),
        ("signal_hook", vec!["cli/run/end.rs"]),
        ("hdrhistogram", vec!["cli/bench/"]),
        ("rustls", vec!["net/tls/"]),
        ("x509_cert", vec!["net/tls/certificate.rs"]),
        ("toml", vec!["config/sources.rs"]),
        ("tracing_subscriber", vec!["server/logging.rs"]),
        ("sd_notify", vec!["server/supervisor.rs"]),
        ("getrandom", vec!["entropy.rs"]),
        ("subtle", vec!["auth/secret.rs"]),
        ("axum", vec!["http/"]),
        ("hyper", vec!["http/listener.rs"]),
        ("hyper_util", vec!["http/listener.rs"]),
        ("prometheus_client", vec!["http/metrics.rs"]),
        ("etcd_client", vec!["journal/etcd/", "cluster/"]),
        ("hmac", vec!["engine/pseudonyms.rs", "auth/secret.rs"]),
        ("sha2", vec!["engine/pseudonyms.rs", "auth/secret.rs", "journal/etcd/rows.rs"]),
        ("percent_encoding", vec!["http/names.rs", "journal/store_address.rs"]),
        ("memchr", vec!["glob/mod.rs", "command/script/lua/strings.rs"]),
        ("mlua", vec!["command/script/lua/"]),
        ("sha1", vec!["engine/scripts.rs"]),
        ("bigdecimal", vec!["command/number.rs"]),
        ("xxhash_rust", vec!["command/string/digest.rs"]),
        ("indexmap", vec!["value/elements.rs"]),
    ] {
        for (name, text) in sources() {
            let code = code(&text);
            let is_word = |at: &usize| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let path = format!("{dependency}::");
            let is_named = code.match_indices(&path).any(|(at, _)| is_word(&at));
            assert!(
                !is_named || places.iter().any(|place| name.starts_with(place)),
                "{name} names {dependency}, which belongs to {places:?}"
            );
        }
    }
}

/// Lines that a function may have, and lines of code that a file may have before its tests.
const FUNCTION_LINES_MAX: usize = 80;
const FILE_LINES_MAX: usize = 600;
/// Files that are longer. Remove a row with the last reason for it.
const LONG_FILES: &[&str] = &[];
/// Files with a function that is longer, and its name.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// The names of functions, each with its number of lines. Needs code formatted by rustfmt.
fn functions(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let declaration = line.trim_start();
        let indent = line.len() - declaration.len();
        let head = declaration.split('(').next().unwrap_or_default();
        let Some((qualifiers, name)) = head.split_once("fn ") else { continue };
        let is_qualifier = |word: &str| word.starts_with("pub") || ["const", "async"].contains(&word);
        if !qualifiers.split_whitespace().all(is_qualifier) || declaration.ends_with([';', '}']) {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[at..].iter().position(|line| *line == end) {
            let name = name.split('<').next().unwrap_or_default();
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

#[test]
fn functions_and_files_are_short() {
    let (mut files, mut long) = (Vec::new(), Vec::new());
    for (name, text) in sources().iter().filter(|(name, _)| !name.ends_with("tests.rs")) {
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
        if text.lines().count() > FILE_LINES_MAX {
            files.push(name.clone());
        }
        let functions = functions(text).into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
        long.extend(functions.map(|(function, _)| (name.clone(), function)));
    }
    files.sort();
    long.sort();
    assert_eq!(files, LONG_FILES, "files of more than {FILE_LINES_MAX} lines; the list names the exceptions");
    let allowed: Vec<(String, String)> =
        LONG_FUNCTIONS.iter().map(|(file, name)| ((*file).to_owned(), (*name).to_owned())).collect();
    assert_eq!(long, allowed, "functions of more than {FUNCTION_LINES_MAX} lines");
}

#[test]
fn the_pure_core_has_no_clock_no_io_and_no_threads() {
    let is_pure = |name: &str| ["domain/", "lock/", "value/"].iter().any(|folder| name.starts_with(folder));
    for (name, text) in sources().iter().filter(|(name, _)| is_pure(name)) {
        for word in
            ["std::time", "std::io", "std::fs", "std::thread", "std::net", "tokio", "tracing", "async "]
        {
            assert!(!code(text).contains(word), "{name} has {word}");
        }
    }
}

#[test]
fn every_module_states_its_guarantees() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name} starts with its purpose");
        let is_substantial = code(&text).lines().count() > 80;
        let says = text.contains("Guarantees:")
            || name.starts_with("command/")
            || name == "lib.rs"
            || name.contains("/tests/")
            || name.ends_with("tests.rs");
        assert!(!is_substantial || says || name.ends_with("conformance.rs"), "{name} states its guarantees");
    }
}

/// Names of this project that standard terms have replaced, as whole identifiers.
const OLD_NAMES: &[&str] = &[
    "Access",
    "Census",
    "Roster",
    "Book",
    "Zombies",
    "drop_busy",
    "is_lost",
    "lasts",
    "is_unclaimed",
    "GiveBack",
    "reentrant",
    "SessionOpened",
    "About",
    "Executed",
    "Hub",
    "Mailbox",
    "Adapter",
    "Metered",
    "FEW",
    "KeepHouse",
    "Said",
    "Verdict",
    "settle",
];
/// Phrases that plain technical English does not have, in lower case.
const OLD_PHRASES: &[&str] = &[
    "promise: ",
    "absent: ",
    "whoever",
    "nobody",
    "somebody",
    "so many",
    "is told",
    "was told",
    "who waits",
    "who asks",
];

#[test]
fn names_and_comments_use_standard_terms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for (name, text) in sources().into_iter().chain(rust_files(&root.join("tests"))) {
        if name.ends_with("tidy.rs") {
            continue;
        }
        let is_identifier = |c: char| c.is_alphanumeric() || c == '_';
        let code = code(&text);
        let words: HashSet<&str> = code.split(|c| !is_identifier(c)).collect();
        found.extend(OLD_NAMES.iter().filter(|old| words.contains(*old)).map(|old| format!("{name}: {old}")));
        // Phrases may continue on the next line of a comment.
        let comments = text.lines().map(|line| line.trim_start().trim_start_matches(['/', '!']).trim());
        let prose = comments.collect::<Vec<_>>().join(" ").to_lowercase();
        found.extend(
            OLD_PHRASES.iter().filter(|old| prose.contains(*old)).map(|old| format!("{name}: {old}")),
        );
    }
    assert_eq!(found, Vec::<String>::new(), "old names and phrases");
}

/// A package has everything that is in the repository, except for folders that are packages
/// themselves.
#[test]
fn the_package_has_every_file_that_code_and_tests_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_packaged = |path: &Path| {
        let own = path.strip_prefix(root).is_ok();
        own && path
            .ancestors()
            .take_while(|folder| *folder != root)
            .all(|folder| !folder.join("Cargo.toml").exists())
    };
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let is_plain = |line: &str| !line.starts_with("exclude") && !line.starts_with("include");
    assert!(manifest.lines().all(is_plain), "the manifest takes nothing out");
    let mut read = 0;
    for folder in ["src", "tests", "benches"] {
        for (name, text) in rust_files(&root.join(folder)) {
            let file = root.join(folder).join(&name);
            // The text that follows each of these, up to the next quote.
            let beside =
                ["include_str!(\"", "include_bytes!(\"", "#[path = \""].map(|word| (word, file.parent()));
            let below = [("CARGO_MANIFEST_DIR\")).join(\"", Some(root)), ("root.join(\"", Some(root))];
            for (word, from) in beside.into_iter().chain(below) {
                for rest in text.split(word).skip(1) {
                    let path = rest.split('"').next().unwrap_or_default();
                    let Ok(path) = from.expect("a folder").join(path).canonicalize() else { continue };
                    assert!(is_packaged(&path), "{folder}/{name} reads {}", path.display());
                    read += 1;
                }
            }
        }
    }
    assert!(read > 8, "{read}");
}
