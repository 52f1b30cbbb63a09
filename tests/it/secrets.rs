//! Secrets enter a server in every way there is, and nothing that others can read shows them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::support::client::Client;
use crate::support::http::exchange;
use crate::support::process::{Process, command, refused, signal};

/// What clients and operators give to the server; each is part of no other text.
const PASSWORD: &str = "pa55-of-default";
const OF_FILE: &str = "pa55-of-the-file";
const OF_COMMAND: &str = "pa55-of-a-command";
const OF_TOKEN: &str = "pa55-of-a-token";
const OF_OPERATORS: &str = "pa55-of-operators";
const WRONG: &str = "pa55-that-is-wrong";
/// All secrets have this in common.
const MARK: &str = "pa55";

fn private_file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.expect("a file").write_all(text.as_bytes()).expect("a file");
    path.to_str().expect("text").to_owned()
}

/// Requests that authenticate, that change users, and that try to, in forms that are valid and not.
fn requests() -> Vec<String> {
    [
        "AUTH {wrong}",
        "AUTH default {wrong}",
        "AUTH {wrong} {wrong}",
        "AUTH default {wrong} {wrong}",
        "AUTH filed {filed}",
        "HELLO 3 AUTH default {wrong}",
        "HELLO 3 AUTH {wrong} {wrong} SETNAME x",
        "HELLO 3 SETNAME x AUTH default {wrong}",
        "HELLO AUTH default {wrong}",
        "HELLO 9 AUTH default {wrong}",
        "HELLO 3 AUTH {wrong}",
        "HELLO 2 AUTH filed {filed}",
        "AUTH default {default}",
        "ACL SETUSER made on >{command} ~* +@all",
        "ACL SETUSER made >{wrong} nosuch",
        "ACL SETUSER made <{wrong}",
        "ACL SETUSER made {wrong}",
        "ACL SETUSER made #{wrong}",
        "ACL SETUSER made (~k >{wrong})",
        "ACL SETUSER made (>{wrong}",
        "ACL SETUSER {wrong} {wrong}",
        "ACL GETUSER {wrong}",
        "ACL DELUSER {wrong}",
        "ACL DRYRUN made AUTH {wrong}",
        "ACL DRYRUN made ACL SETUSER x >{wrong}",
        "ACL NOSUCH {wrong}",
        "CONFIG SET requirepass {wrong}",
        "CONFIG SET maxmemory 0 requirepass {wrong}",
        "CONFIG SET masterauth {wrong}",
        "MULTI",
        "AUTH default {wrong}",
        "ACL SETUSER made >{wrong} nosuch",
        "EXEC",
        "DISCARD",
    ]
    .map(|request| {
        request
            .replace("{default}", PASSWORD)
            .replace("{filed}", OF_FILE)
            .replace("{command}", OF_COMMAND)
            .replace("{wrong}", WRONG)
    })
    .to_vec()
}

fn http(server: &Process, method: &str, path: &str, header: &str) -> u16 {
    let body = if method == "POST" { "{}" } else { "" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(server.http.expect("HTTP"), request.as_bytes()).expect("an answer").status
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    let credentials = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
    format!("authorization: Basic {credentials}")
}

/// Sends secrets over HTTP, in headers that are right, wrong and meant for something else.
fn over_http(server: &Process, session: &str) {
    for (header, status) in [
        (format!("authorization: Bearer {OF_TOKEN}"), 200),
        (basic("filed", OF_FILE), 200),
        (format!("authorization: Bearer {WRONG}"), 401),
        (format!("authorization: bearer {WRONG}"), 401),
        (format!("authorization: {WRONG}"), 401),
        (basic("filed", WRONG), 401),
        (basic(WRONG, WRONG), 401),
    ] {
        assert_eq!(http(server, "GET", "/locks", &header), status, "{header}");
    }
    let key = format!("x-admin-key: {OF_OPERATORS}");
    assert_eq!(http(server, "GET", "/admin/status", &key), 200);
    assert_eq!(http(server, "GET", "/admin/status", &format!("x-admin-key: {WRONG}")), 401);
    assert_eq!(http(server, "GET", "/metrics", &format!("authorization: Bearer admin:{OF_OPERATORS}")), 200);
    let bearer = format!("authorization: Bearer {OF_TOKEN}");
    assert_eq!(http(server, "POST", &format!("/sessions/{session}/keepalive"), &bearer), 404);
    // A request for the other port, and one for none.
    for port in [server.addr, server.http.expect("HTTP")] {
        for bytes in
            [format!("GET /locks HTTP/1.1\r\n{bearer}\r\n\r\n"), format!("*2\r\n$4\r\nAUTH\r\n${WRONG}\r\n")]
        {
            let mut stream = TcpStream::connect(port).expect("a connection");
            stream.write_all(bytes.as_bytes()).expect("a server that reads");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            // Ends with or without a reply.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
}

/// Everything that an operator can ask for.
const SHOWN: [&str; 14] = [
    "INFO everything",
    "CONFIG GET *",
    "CONFIG GET requirepass",
    "CLIENT LIST",
    "CLIENT INFO",
    "SLOWLOG GET -1",
    "ACL LIST",
    "ACL USERS",
    "ACL GETUSER made",
    "ACL GETUSER filed",
    "ACL LOG",
    "LATENCY DOCTOR",
    "COMMAND GETKEYS GET k",
    "LOCKINFO k",
];

fn admin(server: &Process) -> Client {
    let mut client = server.connect();
    assert_eq!(client.line(&format!("AUTH {PASSWORD}")), "+OK");
    client
}

#[test]
fn no_log_monitor_or_reply_shows_a_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| private_file(folder.path(), name, text);
    let users = file("users", &format!("user filed on >{OF_FILE} ~* +@all -auth\n"));
    let password = file("password", &format!("{PASSWORD}\n"));
    let tokens = file("tokens", &format!("token:{OF_TOKEN}\n"));
    let operators = file("operators", &format!("{OF_OPERATORS}\n"));
    let flags = [
        ["--users", &users],
        ["--requirepass-file", &password],
        ["--http-tokens", &tokens],
        ["--http-admin-key-file", &operators],
        // Every line that there is.
        ["--log", "trace"],
    ];
    let data = folder.path().join("octostore.db");
    let mut server = Process::spawn(command(&data).args(flags.as_flattened())).expect("a server");
    let log = std::thread::spawn({
        let mut stderr = server.stderr();
        move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).expect("text");
            log
        }
    });
    let mut operator = admin(&server);
    assert_eq!(operator.line("CONFIG SET slowlog-log-slower-than 0"), "+OK");
    let mut monitor = TcpStream::connect(server.addr).expect("a connection");
    monitor.write_all(format!("AUTH {PASSWORD}\r\nMONITOR\r\n").as_bytes()).expect("a server that reads");
    let mut monitor = BufReader::new(monitor);
    let mut line = String::new();
    for _ in 0..2 {
        monitor.read_line(&mut line).expect("a reply");
    }
    assert_eq!(line, "+OK\r\n+OK\r\n");
    let mut client = admin(&server);
    for request in requests() {
        let reply = client.line(&request);
        assert_ne!(reply, "(closed)", "{request}");
    }
    assert_eq!(client.line(&format!("AUTH made {OF_COMMAND}")), "+OK");
    let session = client.line("SESSION OPEN EX 1000");
    let session = session.trim_matches('"').to_owned();
    assert_eq!(session.len(), 32, "{session}");
    client.line(&format!("LOCK k me SESSION {session} EX 100"));
    client.line(&format!("SESSION KEEPALIVE {session}"));
    over_http(&server, &session);
    // A file that cannot be loaded, by command and by signal.
    file("users", &format!("user filed on > {WRONG}\n"));
    operator.line("ACL LOAD");
    signal(&server, "-HUP");
    for request in SHOWN {
        let reply = operator.line(request);
        assert!(!reply.contains(MARK) && !reply.contains(&session), "{request}: {reply}");
    }
    operator.line("PING the-end");
    let mut monitored = String::new();
    while !monitored.contains("the-end") {
        assert!(monitor.read_line(&mut monitored).expect("a line") > 0, "{monitored}");
    }
    assert!(monitored.contains("\"AUTH\" \"(redacted)\""), "{monitored}");
    assert!(!monitored.contains(MARK) && !monitored.contains(&session), "{monitored}");
    drop((monitor, operator, client));
    signal(&server, "-TERM");
    assert_eq!(server.wait(), Some(0));
    let log = log.join().expect("a log");
    assert!(!log.contains(MARK) && !log.contains(&session), "{log}");
    assert!(log.contains("wrong user or password"), "{log}");
    assert!(log.contains("line 1: rule 3 of user 'filed'"), "{log}");
}

#[test]
fn a_failed_login_over_http_is_a_line_of_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("octostore.db");
    let operators = private_file(folder.path(), "operators", OF_OPERATORS);
    let flags = ["--requirepass", PASSWORD, "--http-admin-key-file", &operators];
    let server = Process::start(&data, &flags);
    for _ in 0..3 {
        assert_eq!(http(&server, "GET", "/locks", &format!("authorization: Bearer {WRONG}")), 401);
        assert_eq!(http(&server, "GET", "/admin/status", &format!("x-admin-key: {WRONG}")), 401);
    }
    // Without credentials, nothing was guessed.
    assert_eq!(http(&server, "GET", "/locks", "accept: */*"), 401);
    let mut client = server.connect();
    client.line(&format!("AUTH {WRONG}"));
    client.line(&format!("AUTH {PASSWORD}"));
    let counted = client.line("INFO stats");
    assert!(counted.contains("acl_access_denied_auth:1\\r\\n"), "{counted}");
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0));
    // Lines of the same second are one, with their number.
    let counted =
        log.lines().filter_map(|line| line.split_once("wrong user or password")).map(|(_, rest)| {
            assert!(rest.contains("127.0.0.1"), "{log}");
            let several = rest.strip_prefix(" (the latest of ").and_then(|rest| rest.split_once(';'));
            several.map_or(1, |(number, _)| number.parse().expect("a number"))
        });
    assert_eq!(counted.sum::<u64>(), 7, "{log}");
}

#[test]
fn refusals_to_start_show_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("octostore.db");
    let file = |text: &str| private_file(folder.path(), "file", text);
    for (flag, text) in [
        ("--config", format!("requirepass = \"{WRONG}\n")),
        ("--config", format!("requirepass = {WRONG}\n")),
        ("--config", format!("requirepass {WRONG}\n")),
        ("--config", format!("requirepass = [\"{WRONG}\"]\n")),
        ("--users", format!("user a on >{WRONG} nosuch\n")),
        ("--users", format!("user a on {WRONG}\n")),
        ("--users", format!("user a on (>{WRONG}\n")),
        ("--users", format!("user a on (+nosuch >{WRONG})\n")),
        ("--users", format!("requirepass {WRONG}\n")),
        ("--http-tokens", format!("{WRONG}\n")),
        ("--http-tokens", format!("a:{WRONG}\na:{WRONG}\n")),
        ("--tls-key", format!("-----BEGIN PRIVATE KEY-----\n{WRONG}\n")),
    ] {
        let path = file(&text);
        let mut flags = vec![flag, &path];
        if flag == "--tls-key" {
            flags.extend(["--tls-cert", &path, "--tls-listen", "127.0.0.1:0"]);
        }
        let (code, output) = refused(&data, &flags);
        assert!(code != Some(0) && !output.is_empty(), "{flag}: {text}");
        assert!(!output.contains(MARK), "{flag}: {output}");
    }
}

#[test]
fn what_is_printed_for_debugging_has_no_secret() {
    use octostore::config::Config;
    let folder = tempfile::tempdir().expect("a folder");
    let users = private_file(folder.path(), "users", &format!("user filed on >{OF_FILE} ~* +@all\n"));
    let flags = [
        ["--requirepass", PASSWORD],
        ["--http-token", &format!("token:{OF_TOKEN}")],
        ["--http-admin-key", OF_OPERATORS],
        ["--users", &users],
    ];
    let config = Config::with(flags.as_flattened()).expect("good flags");
    let printed = format!("{config:?}");
    assert!(!printed.contains(MARK), "{printed}");
}
