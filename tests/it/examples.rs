//! Examples in the documents: shell commands, the users file, and the snippets of the README.
//!
//! Guarantees: every block of shell commands runs as it is printed, apart from the ports, or its
//! section is listed with the script that runs it. Sessions with redis-cli are run by `docs`;
//! snippets in Python and JavaScript by `tests/clients/run`, those in Go and Java by
//! `tests/tools/snippets`, and the configuration of Prometheus by `tests/tools/prometheus`.

use std::path::Path;
use std::process::{Command, Stdio};

use octostore::config::OPTIONS;

use crate::docs::{pages, read, root};
use crate::support::certificates::Certificates;
use crate::support::peers::skip;
use crate::support::port::free_port;
use crate::support::process::Process;
use crate::support::server::TestServer;

/// Sections whose shell commands need more than this program, and the check that covers them.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("docs/install.md", "## Debian package", "tests/tools/deb"),
    ("docs/install.md", "## systemd without the package", "tests/tools/packaging"),
    ("docs/install.md", "## Container", "tests/tools/image"),
    ("docs/install.md", "## Kubernetes", "tests/tools/packaging"),
    ("docs/high-availability.md", "## Start", "tests/it/cluster/nodes.rs"),
    ("docs/high-availability.md", "## Shards", "tests/it/cluster/shards.rs"),
    ("docs/durability.md", "## Longer runs", ".ci/run"),
    ("CONTRIBUTING.md", "## Build and test", ".ci/run"),
    ("CONTRIBUTING.md", "## Rewrite transcripts and documents", ".ci/run"),
    ("CONTRIBUTING.md", "## Measure", ".ci/run"),
];

/// A fenced block of a page.
struct Block {
    section: String,
    language: String,
    text: String,
}

/// The fenced blocks of a page, in order.
fn blocks(page: &str) -> Vec<Block> {
    let (mut found, mut section) = (Vec::new(), String::new());
    let mut open: Option<Block> = None;
    for line in page.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => {
                let (section, language) = (section.clone(), language.to_owned());
                open = Some(Block { section, language, text: String::new() });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (None, None) if line.starts_with("## ") => section = line.to_owned(),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "every block ends");
    found
}

fn blocks_of(page: &str, language: &str) -> Vec<Block> {
    let blocks = blocks(&read(&root().join(page))).into_iter();
    blocks.filter(|block| block.language == language).collect()
}

#[test]
fn every_shell_command_of_the_documents_runs() {
    let programs = ["bash", "curl", "openssl", "sqlite3"];
    let is_there = |program: &&str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if let Some(missing) = programs.iter().find(|program| !is_there(program)) {
        return skip(&format!("{missing} is not installed"));
    }
    let mut listed = vec![false; ELSEWHERE.len()];
    let mut run = 0;
    for page in pages() {
        let name = page.strip_prefix(root()).expect("below it").to_string_lossy().into_owned();
        let surroundings = Surroundings::new();
        for block in blocks_of(&name, "sh") {
            let is_of = |(page, section, _): &(&str, &str, &str)| *page == name && *section == block.section;
            match ELSEWHERE.iter().position(is_of) {
                Some(at) => {
                    check_flags(&name, &block.text);
                    listed[at] = true;
                }
                None => {
                    surroundings.run(&name, &block);
                    run += 1;
                }
            }
        }
    }
    for ((page, section, check), is_listed) in ELSEWHERE.iter().zip(listed) {
        assert!(is_listed, "{page} has no shell commands in {section}");
        assert!(root().join(check).exists(), "{check} exists");
    }
    assert!(run > 5, "{run}");
}

/// Checks the flags of servers that are not started here.
fn check_flags(page: &str, commands: &str) {
    let commands = commands.replace("\\\n", " ");
    for command in commands.lines().filter(|line| line.trim_start().starts_with("octostore --")) {
        for flag in command.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
            assert!(OPTIONS.iter().any(|option| option.name == flag), "{page} names --{flag}");
        }
    }
}

/// The folder in which the commands of a page run, with the files that they name.
struct Surroundings {
    certificates: Certificates,
    ports: [u16; 2],
}

impl Surroundings {
    fn new() -> Surroundings {
        let certificates = Certificates::new();
        certificates.write("authority.pem", &String::from_utf8_lossy(&certificates.read("ca.pem")));
        let users = blocks_of("docs/security.md", "text");
        certificates.write("users.acl", &users.first().expect("the users file").text);
        std::fs::create_dir(certificates.path("copies")).expect("a folder");
        Surroundings { certificates, ports: [free_port(), free_port()] }
    }

    fn run(&self, page: &str, block: &Block) {
        let [redis, http] = self.ports.map(|port| port.to_string());
        let commands = block.text.replace("7379", &redis).replace("7380", &http);
        let is_server = |line: &str| line.starts_with("octostore --") || line.starts_with("cargo run");
        let start = if commands.contains("octostore restore") {
            "rm -f octostore.db*\n"
        } else if commands.lines().any(is_server) {
            ""
        } else {
            "serve\n"
        };
        let library = root().join("tests/it/data/examples.sh");
        let script = format!("set -euo pipefail\nsource '{}'\n{start}{commands}", library.display());
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(self.certificates.path("")).stdin(Stdio::null());
        bash.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        bash.env("OCTOSTORE", env!("CARGO_BIN_EXE_octostore"));
        // Addresses that the commands do not give.
        bash.env("OCTOSTORE_URL", format!("redis://127.0.0.1:{redis}"));
        bash.env("OCTOSTORE_LISTEN", format!("127.0.0.1:{redis}"));
        bash.env("OCTOSTORE_HTTP", format!("127.0.0.1:{http}"));
        let output = bash.output().expect("bash");
        let [printed, errors] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{page}, {}:\n{commands}\n{printed}{errors}", block.section);
        let mut rest = printed.as_str();
        for expected in expected_replies(&block.text) {
            let found = rest.split_once(expected);
            rest = found.unwrap_or_else(|| panic!("{page} promises {expected}: {printed}")).1;
        }
    }
}

/// What each comment `# {"field":"value",…` says, up to its first comma.
fn expected_replies(text: &str) -> impl Iterator<Item = &str> {
    let comments = text.lines().filter_map(|line| line.split_once("# {"));
    comments.map(|(_, reply)| reply.split(',').next().unwrap_or_default())
}

#[test]
fn the_users_file_of_the_documents_is_accepted() {
    let surroundings = Surroundings::new();
    let data = surroundings.certificates.path("octostore.db");
    let users = surroundings.certificates.path("users.acl");
    let server = Process::start(Path::new(&data), &["--users", &users]);
    assert!(server.banner[4].ends_with(" --user USER --askpass LOCK demo me EX 30"), "{:?}", server.banner);
    let mut client = server.connect();
    assert!(client.line("GET jobs:1").starts_with("-NOAUTH"));
    assert_eq!(client.line("AUTH worker password"), "+OK");
    assert_eq!(client.line("LOCK jobs:1 me"), ":1");
    assert!(client.line("LOCK other me").starts_with("-NOPERM"));
}

#[test]
fn the_sql_of_the_documents_refuses_late_writes() {
    for page in ["README.md", "docs/fencing.md"] {
        let [statement] = blocks_of(page, "sql").try_into().ok().expect("one statement");
        let database = rusqlite::Connection::open_in_memory().expect("a database");
        let table = "CREATE TABLE invoice (id INTEGER, total INTEGER, fence INTEGER); INSERT INTO invoice VALUES (42, 0, 0)";
        database.execute_batch(table).expect("a table");
        let write = |token: i64| {
            let mut update = database.prepare(&statement.text).expect("SQL");
            update
                .execute(rusqlite::named_params! {":total": 100 * token, ":token": token})
                .expect("an update")
        };
        assert_eq!([1, 3, 2, 3, 4].map(write), [1, 1, 0, 0, 1], "{page}");
        let kept =
            database.query_row("SELECT total, fence FROM invoice", [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(kept, Ok((400, 4)), "{page}");
    }
}

/// Times and addresses are other ones.
#[test]
fn the_lock_that_the_documents_show_has_the_fields_of_lockinfo() {
    let server = TestServer::manual(&[]);
    let mut client = server.connect();
    client.line("HELLO 3");
    client.line("LOCK invoice:42 worker-1");
    client.line("UNLOCK invoice:42 worker-1");
    assert_eq!(client.line("LOCK invoice:42 worker-2 EX 30"), ":2");
    let mut waiting = server.connect();
    waiting.send(&["LOCK", "invoice:42", "worker-4", "WAIT", "10000"]);
    server.until_waiting(1);
    let fields = |text: &str| text.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let [block] = blocks_of("docs/locks.md", "text").try_into().ok().expect("one block");
    let is_field =
        |text: &String| text.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !text.is_empty();
    let shown: Vec<String> = fields(&block.text).into_iter().filter(is_field).collect();
    let sent: Vec<String> =
        fields(&client.line("LOCKINFO invoice:42")).into_iter().filter(is_field).collect();
    assert_eq!(shown, sent);
}

/// Snippets of clients differ in punctuation; each sends these words in this order.
#[test]
fn every_snippet_of_the_readme_sends_the_same_commands() {
    let page = read(&root().join("README.md"));
    let languages = ["python", "js", "go", "java", "rust"];
    for block in blocks(&page).iter().filter(|block| languages.contains(&block.language.as_str())) {
        let text = block.text.replace("10_000", "10000");
        let words: Vec<&str> =
            text.split(|c: char| !c.is_alphanumeric() && c != ':').filter(|word| !word.is_empty()).collect();
        for command in ["LOCK invoice:42 owner EX 30 WAIT 10000", "UNLOCK invoice:42 owner TOKEN token"] {
            // Methods that take one argument each.
            let sent = words.iter().filter(|word| !["arg", "getBytes", "UTF", "8"].contains(*word));
            let sent = sent.copied().collect::<Vec<_>>().join(" ");
            assert!(sent.contains(command), "{} sends {command}: {sent}", block.language);
        }
    }
}

/// The snippet in Rust is this function, and the function works.
#[test]
fn the_readme_snippet_in_rust_compiles_and_runs() {
    let server = TestServer::real(&[]);
    let client = redis::Client::open(format!("redis://{}/", server.addr)).expect("a good address");
    let mut connection = client.get_connection().expect("a connection");
    let worked = std::cell::Cell::new(0);
    snippet(&mut connection, "me", |token| worked.set(token)).expect("a lock");
    assert_eq!(worked.get(), 1);
    let free: Option<i64> = redis::cmd("FENCE").arg("invoice:42").query(&mut connection).expect("a reply");
    assert_eq!(free, None);

    let words =
        |text: &str| text.split_whitespace().collect::<String>().replace("&mutconnection", "connection");
    let printed = blocks_of("README.md", "rust").first().map(|block| words(&block.text)).expect("a snippet");
    let source = read(&root().join("tests/it/examples.rs"));
    assert!(words(&source).contains(&printed), "{printed}");
}

fn snippet(connection: &mut redis::Connection, owner: &str, work: impl Fn(i64)) -> redis::RedisResult<()> {
    let token: Option<i64> = redis::cmd("LOCK")
        .arg("invoice:42")
        .arg(owner)
        .arg("EX")
        .arg(30)
        .arg("WAIT")
        .arg(10_000)
        .query(connection)?;
    if let Some(token) = token {
        work(token);
        redis::cmd("UNLOCK").arg("invoice:42").arg(owner).arg("TOKEN").arg(token).exec(connection)?;
    }
    Ok(())
}
