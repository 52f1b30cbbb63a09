//! Rules of the house that the compiler does not know.

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
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn modules_import_only_what_they_may() {
    let allowed: &[(&str, &[&str])] = &[
        ("domain", &[]),
        ("lock", &["domain"]),
        ("reply", &[]),
        ("clock", &["domain", "lock"]),
        ("journal", &["domain", "lock", "clock", "metrics"]),
        ("metrics", &[]),
        ("net", &[]),
        ("logging", &["domain", "clock", "lock"]),
        ("engine", &["domain", "lock", "journal", "clock", "metrics"]),
        // The Seq that a reply waits for, the clock's times and the journal's errors pass through.
        ("command", &["domain", "engine", "lock", "reply", "journal", "metrics"]),
        ("resp", &["domain", "command", "reply", "engine", "journal", "lock", "net"]),
        ("http", &["domain", "engine", "lock", "journal", "metrics", "net"]),
        ("config", &["domain", "command", "journal", "lock", "resp", "http", "net"]),
    ];
    let modules = [
        "domain", "lock", "reply", "clock", "journal", "engine", "command", "resp", "http", "config",
        "server", "metrics", "net", "logging",
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
    for (dependency, places) in [
        ("dashmap", vec!["engine/keyspace/table.rs"]),
        ("rusqlite", vec!["journal/sqlite/"]),
        ("redis_protocol", vec!["resp/codec.rs"]),
        ("clap", vec!["config.rs"]),
        ("toml", vec!["config.rs"]),
        ("tracing_subscriber", vec!["logging.rs"]),
        ("getrandom", vec!["engine/sessions/mod.rs", "journal/memory.rs"]),
        ("subtle", vec!["command/auth.rs", "http/users.rs"]),
        ("axum", vec!["http/"]),
        ("hyper", vec!["http/listener.rs"]),
        ("hyper_util", vec!["http/listener.rs"]),
        ("prometheus_client", vec!["http/metrics.rs"]),
        ("hmac", vec!["engine/pseudonyms.rs", "http/users.rs"]),
        ("sha2", vec!["engine/pseudonyms.rs"]),
        ("percent_encoding", vec!["http/names.rs"]),
        ("memchr", vec!["command/glob.rs"]),
    ] {
        for (name, text) in sources() {
            let is_named = code(&text).contains(&format!("{dependency}::"));
            assert!(
                !is_named || places.iter().any(|place| name.starts_with(place)),
                "{name} names {dependency}"
            );
        }
    }
}

#[test]
fn the_pure_core_has_no_clock_no_io_and_no_threads() {
    for (name, text) in
        sources().iter().filter(|(name, _)| name.starts_with("lock/") || name.starts_with("domain/"))
    {
        for word in
            ["std::time", "std::io", "std::fs", "std::thread", "std::net", "tokio", "tracing", "async "]
        {
            assert!(!code(text).contains(word), "{name} has {word}");
        }
    }
}

#[test]
fn every_module_says_what_it_promises() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name} starts with its purpose");
        let is_substantial = code(&text).lines().count() > 80;
        let says = text.contains("Guarantees:")
            || text.contains("Promise:")
            || name.starts_with("command/")
            || name == "lib.rs"
            || name.contains("/tests/")
            || name.ends_with("tests.rs");
        assert!(!is_substantial || says || name.ends_with("conformance.rs"), "{name} says what it promises");
    }
}

/// A package has everything that is in the repository, except for folders that are packages themselves.
#[test]
fn what_code_and_tests_read_is_in_the_package() {
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

#[test]
fn every_test_that_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("README.md");
    let files = rust_files(&root.join("tests")).into_iter().chain(sources());
    let tests: String = files.map(|(_, text)| text).collect();
    let section = readme.split("## What survives what").nth(1).expect("that section");
    let rows =
        section.split("\n## ").next().unwrap_or_default().lines().filter(|line| line.starts_with("| "));
    let mut named = 0;
    for row in rows.skip(1) {
        let shown_by = row.rsplit('|').nth(1).expect("a column");
        let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "a test is named in {row}");
        for name in names {
            assert!(tests.contains(&format!("fn {name}(")), "there is a test {name}");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}

#[test]
fn the_readme_lists_every_command_and_every_setting() {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md");
    for command in octostore::command::COMMANDS {
        let name = command.name.to_ascii_uppercase();
        for syntax in std::iter::once(command).chain(command.subcommands()) {
            if syntax.subcommands().is_empty() {
                let words = syntax.name.to_ascii_uppercase().replace('|', " ");
                let row = format!("`{}`", format!("{words} {}", syntax.syntax).trim_end());
                assert!(readme.contains(&row.replace('|', "\\|")), "README.md lists {row}");
            }
        }
        assert!(readme.contains(&name));
    }
    for option in octostore::config::OPTIONS {
        let default = match option.default {
            "" => String::new(),
            default => format!("`{default}` "),
        };
        let row = format!("| `--{}` | {default}|", option.name);
        assert!(readme.contains(&row), "README.md has a row that starts with {row}");
    }
}
