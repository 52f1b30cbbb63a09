//! The documents: generated sections match their tables, links lead somewhere, examples run.
//!
//! `UPDATE_DOCS=1 cargo test --test it -- docs` rewrites the generated sections; review them as a
//! diff. A generated section stands between `<!-- generated -->` and `<!-- end of generated -->`.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use octostore::command::{Command, Flags, Group, commands, commands_and_subcommands};
use octostore::config::OPTIONS;

use crate::differential::intended::{INTENDED, Intended};
use crate::support::certificates::Certificates;
use crate::support::http::call;
use crate::support::server::TestServer;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Markdown files at the top and in `docs`.
pub(crate) fn pages() -> Vec<PathBuf> {
    let folders = [root().to_path_buf(), root().join("docs")];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The lines of a page outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The code spans of a page outside fenced code.
fn code_spans(text: &str) -> Vec<&str> {
    prose(text).flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

// Generated sections.

const BEGIN: &str = "<!-- generated -->\n";
const END: &str = "<!-- end of generated -->";

/// Compares the generated section of a page with `expected`, or rewrites it.
fn check_generated(page: &str, expected: &str) {
    let path = root().join(page);
    let text = read(&path);
    let (before, rest) = text.split_once(BEGIN).expect("the begin of the generated section");
    let (found, after) = rest.split_once(END).expect("the end of the generated section");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let text = format!("{before}{BEGIN}{expected}{END}{after}");
        std::fs::write(&path, text).expect("a writable page");
    } else {
        assert!(found == expected, "{page} is out of date; UPDATE_DOCS=1 cargo test --test it -- docs");
    }
}

#[test]
fn the_command_page_matches_the_command_table() {
    let groups = [
        (Group::Lock, "Locks"),
        (Group::String, "Strings"),
        (Group::Generic, "Keys"),
        (Group::Hash, "Hashes"),
        (Group::Set, "Sets"),
        (Group::SortedSet, "Sorted sets"),
        (Group::List, "Lists"),
        (Group::Scripting, "Scripts"),
        (Group::Transactions, "Transactions"),
        (Group::PubSub, "Publish and subscribe"),
        (Group::Connection, "Connection"),
        (Group::Server, "Server"),
    ];
    let mut page = String::new();
    let mut listed = 0;
    for (group, title) in groups {
        let members: Vec<_> = commands().filter(|command| command.group == group).collect();
        if members.is_empty() {
            continue;
        }
        let _ = write!(page, "\n## {title}\n\n| command | | example | flags |\n|---|---|---|---|\n");
        members.iter().for_each(|command| page.push_str(&command_rows(command)));
        listed += members.len();
    }
    page.push('\n');
    assert_eq!(listed, commands().count(), "every group has a title");
    check_generated("docs/commands.md", &page);
}

/// The row of a command, or the rows of its subcommands.
fn command_rows(command: &Command) -> String {
    if !command.subcommands().is_empty() {
        return command.subcommands().iter().map(command_rows).collect();
    }
    let name = command.name.to_ascii_uppercase().replace('|', " ");
    let call = format!("{name} {}", command.syntax);
    let call = call.trim_end().replace('|', "\\|");
    let summary = command.summary.replace('|', "\\|").replace('<', "\\<");
    let flags = Flags::names(command.flags).join(", ");
    format!("| `{call}` | {summary} | `{}` | {flags} |\n", command.example)
}

#[test]
fn the_compatibility_page_lists_the_differences_that_are_intended() {
    let mut page = String::from("| commands | difference |\n|---|---|\n");
    for Intended { commands, reason, .. } in INTENDED {
        let names = commands.iter().map(|name| format!("`{}`", name.to_ascii_uppercase()));
        let names = if commands.is_empty() { "all".to_owned() } else { names.collect::<Vec<_>>().join(", ") };
        let _ = writeln!(page, "| {names} | {reason} |");
    }
    check_generated("docs/redis-compatibility.md", &page);
}

#[test]
fn the_example_of_every_command_runs() {
    let server = TestServer::manual(&[]);
    for command in commands_and_subcommands().filter(|command| command.subcommands().is_empty()) {
        let mut client = server.connect();
        let reply = if command.flags & Flags::BLOCKING == 0 {
            client.line(command.example)
        } else {
            // Nothing waits in a transaction.
            client.line("MULTI");
            client.line(command.example);
            client.line("EXEC").lines().skip(1).map(str::trim_start).collect()
        };
        let refusals = ["-ERR syntax", "-ERR wrong number", "-ERR unknown", "-ERR value is not"];
        assert!(!refusals.iter().any(|start| reply.starts_with(start)), "{}: {reply}", command.example);
    }
}

#[test]
fn the_configuration_page_matches_the_options_table() {
    let mut headings: Vec<&str> = OPTIONS.iter().map(|option| option.heading).collect();
    headings.dedup();
    let mut page = String::new();
    for heading in headings {
        let _ = write!(page, "\n### {heading}\n\n| option | default | |\n|---|---|---|\n");
        for option in OPTIONS.iter().filter(|option| option.heading == heading) {
            let flag = format!("--{} {}", option.name, option.value);
            let default = match option.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            let _ = writeln!(page, "| `{}` | {default} | {} |", flag.trim_end(), option.help);
        }
    }
    page.push('\n');
    check_generated("docs/configuration.md", &page);
}

/// Checks that a folder has exactly these files, each with what the program prints with these
/// arguments.
fn check_printed(folder: &str, files: &[(String, Vec<&str>)]) {
    let folder = root().join(folder);
    for (file, arguments) in files {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_octostore"));
        let printed = program.args(arguments).env_clear().output().expect("the program");
        assert!(printed.status.success(), "{file}");
        let printed = String::from_utf8(printed.stdout).expect("text");
        let path = folder.join(file);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &printed).expect("a file");
        }
        let is_current = read(&path) == printed;
        assert!(is_current, "{file} is out of date; UPDATE_DOCS=1 cargo test --test it -- docs");
    }
    assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), files.len(), "no other files");
}

/// Packages have the manual pages that the program prints.
#[test]
fn the_manual_pages_match_the_program() {
    let names = octostore::cli::names();
    let page = |name| (format!("octostore-{name}.1"), vec!["man", name]);
    let mut pages: Vec<_> = names.iter().map(|name| page(name.as_str())).collect();
    pages.push(("octostore.1".to_owned(), vec!["man"]));
    check_printed("packaging/man", &pages);
}

/// Packages have the completions that the program prints, named as the shells look for them.
#[test]
fn the_completions_match_the_program() {
    let files = [("octostore", "bash"), ("_octostore", "zsh"), ("octostore.fish", "fish")];
    let files = files.map(|(file, shell)| (file.to_owned(), vec!["completions", shell]));
    check_printed("packaging/completions", &files);
}

/// The example in CONTRIBUTING.md is the source of a small command, as the diff that would add it.
#[test]
fn the_example_of_a_new_command_matches_its_source() {
    let mut files = Vec::new();
    rust_files(&root().join("src/command"), &mut files);
    let mut diff = "\n```diff\n".to_owned();
    let is_row = |line: &&str| line.trim() == "fence::FENCE,";
    for path in files {
        let (text, name) = (read(&path), path.strip_prefix(root()).expect("below it").display());
        let added: Vec<&str> = match path.ends_with("fence.rs") {
            true => text.lines().collect(),
            false => text.lines().filter(is_row).collect(),
        };
        if !added.is_empty() {
            let _ = writeln!(diff, "+++ {name}");
            for line in added {
                let _ = writeln!(diff, "{}", format!("+{line}").trim_end());
            }
        }
    }
    diff.push_str("```\n\n");
    assert_eq!(diff.matches("+++ ").count(), 2, "the command and its row");
    check_generated("CONTRIBUTING.md", &diff);
}

// Names.

#[test]
fn every_option_that_the_documents_name_exists() {
    // Options of the program that are no settings, of `cargo`, and of `tests/clients`.
    let others = ["config", "help", "version", "features", "server", "kills"];
    let of_subcommands = octostore::cli::flags();
    for path in pages().iter().filter(|path| !path.ends_with("CHANGELOG.md")) {
        for span in code_spans(&read(path)) {
            let Some(flag) = span.strip_prefix("--") else { continue };
            let name = flag.split([' ', '=']).next().unwrap_or_default();
            let exists = OPTIONS.iter().any(|option| option.name == name)
                || others.contains(&name)
                || of_subcommands.iter().any(|flag| flag == name);
            assert!(exists, "{} names --{name}", path.display());
        }
    }
}

/// In the documents, the alerting rules and the dashboard.
#[test]
fn every_metric_that_the_documents_name_exists() {
    let certificates = Certificates::new();
    let flags = certificates.flags(&[]);
    let server = TestServer::manual(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    server.connect().line("PING");
    let addr = server.http.expect("HTTP");
    call(addr, "anonymous", "GET", "/health", "");
    let metrics = call(addr, "anonymous", "GET", "/metrics", "").body;
    let samples: HashSet<&str> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let histograms: HashSet<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram")).collect();
    // Those of a cluster, which this server is not in.
    let source = read(&root().join("src/http/metrics.rs"));
    let is_of_cluster = |name: &str| {
        let name = name.trim_start_matches("octostore_").trim_end_matches("_total");
        ["cluster_", "store_"].iter().any(|start| name.starts_with(start))
            && source.contains(&format!("\"{name}\""))
    };
    let mut named = 0;
    let files = ["docs/monitoring/alerts.yaml", "docs/monitoring/grafana.json"];
    let pages = pages().into_iter().filter(|path| !path.ends_with("CHANGELOG.md"));
    for path in pages.chain(files.map(|file| root().join(file))) {
        let text = read(&path);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // Not `octostore_*.deb`.
        let is_metric = |word: &&str| word.starts_with("octostore_") && !word.ends_with('_');
        for name in text.split(|c| !is_part(c)).filter(is_metric) {
            let exists = samples.contains(name) || histograms.contains(name) || is_of_cluster(name);
            assert!(exists, "{} names {name}", path.display());
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
}

#[test]
fn every_option_and_version_in_packaging_exists() {
    let has_option = |name: &str| name == "config" || OPTIONS.iter().any(|option| option.name == name);
    let mut checked = 0;
    let mut check = |file: &str, name: &str| {
        assert!(has_option(name), "{file} names the option {name}");
        checked += 1;
    };
    let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
    for file in ["kubernetes/single.yaml", "kubernetes/cluster.yaml", "systemd/octostore.service"] {
        let text = read(&root().join("packaging").join(file));
        let arguments = text.lines().filter(|line| {
            let line = line.trim_start();
            line.starts_with("- --") || line.starts_with("ExecStart=")
        });
        for flag in arguments.filter_map(|line| Some(line.split_once("--")?.1)) {
            check(file, flag.split(|c| !is_name(c)).next().unwrap_or_default());
        }
        let images = text.lines().filter_map(|line| line.trim_start().strip_prefix("image: octostore:"));
        images.for_each(|version| assert_eq!(version, env!("CARGO_PKG_VERSION"), "{file}"));
    }
    // Keys that are commented out, too.
    for line in read(&root().join("packaging/octostore.toml")).lines() {
        match line.trim_start_matches('#').split_once(" = ") {
            Some((key, _)) if key.chars().all(is_name) => check("octostore.toml", key),
            _ => {}
        }
    }
    let image = read(&root().join("packaging/Dockerfile"));
    for variable in image.split("OCTOSTORE_").skip(1).filter_map(|rest| rest.split('=').next()) {
        check("Dockerfile", &variable.to_lowercase().replace('_', "-"));
    }
    assert!(checked > 12, "{checked}");
}

/// The commands of Redis that a compatibility section has a row for, in upper case.
fn commands_in(section: &str) -> Vec<&str> {
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn the_compatibility_page_has_every_command_in_the_right_section() {
    let page = read(&root().join("docs/redis-compatibility.md"));
    let (supported, unsupported) = page.split_once("## Not supported").expect("that section");
    let (supported, unsupported) = (commands_in(supported), commands_in(unsupported));
    let leaves = |command: &'static Command| match command.subcommands() {
        [] => vec![command],
        subcommands => subcommands.iter().collect(),
    };
    let names = commands().flat_map(leaves);
    let names: Vec<String> =
        names.map(|command| command.name.to_ascii_uppercase().replace('|', " ")).collect();
    for name in &names {
        assert!(supported.contains(&&**name), "a row for {name}");
        assert!(!unsupported.contains(&&**name), "{name} is supported");
    }
    for name in supported {
        assert!(names.iter().any(|known| known == name), "{name} is not supported");
    }
    assert!(unsupported.len() > 50, "{}", unsupported.len());
}

#[test]
fn every_test_that_the_durability_page_names_exists() {
    let page = read(&root().join("docs/durability.md"));
    let mut files = Vec::new();
    ["src", "tests"].iter().for_each(|folder| rust_files(&root().join(folder), &mut files));
    let tests: String = files.iter().map(|path| read(path)).collect();
    let section = page.split("## What survives what").nth(1).expect("that section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut named = 0;
    for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
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

/// Adds the Rust files below a folder, in order.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

// Links.

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut checked = 0;
    for page in pages() {
        let text = read(&page);
        for target in links(&text).filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => page.clone(),
                file => page.parent().expect("a folder").join(file),
            };
            assert!(file.exists(), "{} links to {target}", page.display());
            if !anchor.is_empty() {
                let anchors = anchors(&read(&file));
                assert!(anchors.iter().any(|it| it == anchor), "{} links to {target}", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

/// The targets of `[text](target)` outside code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let plain = prose(text).flat_map(|line| line.split('`').step_by(2));
    plain.flat_map(|text| text.split("](").skip(1)).filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let is_kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
        title.chars().filter(is_kept).map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    let mut unique = |slug: String| {
        let count = seen.entry(slug.clone()).or_default();
        *count += 1;
        if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
    };
    headings.map(|heading| unique(slug(heading))).collect()
}

// Examples.

/// Runs each block of redis-cli's output on a new database.
#[test]
fn every_session_with_redis_cli_is_answered_as_printed() {
    let mut run = 0;
    for page in pages() {
        let text = read(&page);
        for block in text.split("```console\n").skip(1) {
            let session = block.split("```").next().unwrap_or_default();
            let server = TestServer::manual(&[]);
            let mut client = server.connect();
            let mut lines = session.lines();
            while let Some(line) = lines.next() {
                let request = line.strip_prefix("127.0.0.1:7379> ").expect("a request");
                let printed = as_printed(&client.line(request));
                assert_eq!(lines.next(), Some(&*printed), "{}: {request}", page.display());
                run += 1;
            }
        }
    }
    assert!(run > 20, "{run}");
}

/// A reply of one line as redis-cli shows it.
fn as_printed(reply: &str) -> String {
    match reply.as_bytes().first() {
        Some(b':') => format!("(integer) {}", &reply[1..]),
        Some(b'-') => format!("(error) {}", &reply[1..]),
        Some(b'+') => reply[1..].to_owned(),
        _ => reply.to_owned(),
    }
}

#[test]
fn the_readme_has_at_most_150_lines() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= 150, "{lines}");
}

#[test]
fn lines_of_prose_have_at_most_100_columns() {
    let is_older = |path: &Path| path.ends_with("BENCHMARKS.md") || path.ends_with("CHANGELOG.md");
    for path in pages().iter().filter(|path| !is_older(path)) {
        for line in prose(&read(path)).filter(|line| !line.starts_with('|')) {
            assert!(line.chars().count() <= 100, "{}: {line}", path.display());
        }
    }
}

/// Paths in ARCHITECTURE.md are relative to the root or to `src`.
#[test]
fn every_path_that_the_architecture_names_exists() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut checked = 0;
    for span in code_spans(&text).into_iter().filter(|span| span.contains('/') && !span.contains(' ')) {
        let exists = [root().join(span), root().join("src").join(span)].iter().any(|path| path.exists());
        assert!(exists, "ARCHITECTURE.md names {span}");
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}
