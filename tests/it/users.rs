//! Users over Redis and HTTP: what they reach, how they change, and what is not shown.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use octostore::auth::WRONG_PASSWORD_DELAY;
use octostore::command::{Command, OwnedArgs, commands_and_subcommands};

use crate::support::client::{Client, encode};
use crate::support::http::{Answer, exchange};
use crate::support::server::TestServer;
use crate::support::until;

/// Requests that create keys of each type, with a value that no other request has.
const HIDDEN: [&str; 6] = [
    "SET other:string treasure",
    "HSET other:hash treasure treasure",
    "SADD other:set treasure",
    "ZADD other:sorted 1 treasure",
    "RPUSH other:list treasure",
    "LOCK other:lock treasure META treasure",
];

/// Commands that end the connection or the server, change its user, or block it.
const NOT_TRIED: [&str; 8] = ["auth", "hello", "reset", "quit", "shutdown", "client|reply", "multi", "exec"];

/// Everything about the hidden keys.
fn state(admin: &mut Client) -> String {
    let requests = [
        "KEYS *",
        "GET other:string",
        "HGETALL other:hash",
        "SMEMBERS other:set",
        "ZRANGE other:sorted 0 -1 WITHSCORES",
        "LRANGE other:list 0 -1",
        "LOCKINFO other:lock",
        "PTTL other:lock",
    ];
    let replies = requests.map(|request| admin.line(request));
    let keys: Vec<_> = replies[0].lines().filter(|line| line.contains("other:")).collect();
    [&keys.join(" "), &replies[1..].join(" ")[..]].concat()
}

/// The example of a command with allowed keys in place of its own, and once for each argument with
/// the name of a hidden key in its place; for each key that exists.
fn attempts(command: &Command, hidden: &str) -> Vec<Vec<String>> {
    let example = OwnedArgs::of(command.example.split(' '));
    let mut keys = Vec::new();
    // Examples are valid.
    command.visit_keys(example.as_args(), &mut |key, _| keys.push(key)).expect("valid keys");
    let allowed = |arg: &[u8]| match keys.iter().position(|key| *key == arg) {
        Some(n) => format!("team:{n}"),
        None => String::from_utf8(arg.to_vec()).expect("text"),
    };
    let args: Vec<String> = example.as_args().from(0).map(allowed).collect();
    let first = if command.name.contains('|') { 2 } else { 1 };
    (first..args.len())
        .map(|place| {
            let mut attempt = args.clone();
            attempt[place] = hidden.to_owned();
            attempt
        })
        .collect()
}

#[test]
fn no_command_reaches_a_key_outside_the_patterns_of_a_user() {
    let server = TestServer::manual(&["--allow-flush"]);
    let mut admin = server.connect();
    HIDDEN.iter().for_each(|request| assert!(!admin.line(request).starts_with('-'), "{request}"));
    let rules = "ACL SETUSER alice on >pw ~team:* &* +@all -@admin";
    assert_eq!(admin.line(rules), "+OK");
    let before = state(&mut admin);
    let mut alice = server.connect();
    assert!(alice.line("HELLO 3 AUTH alice pw").starts_with('%'));
    let names: Vec<&str> = HIDDEN.iter().filter_map(|request| request.split(' ').nth(1)).collect();
    let mut try_it = |requests: &[&[&str]]| {
        // No request waits for what an earlier one has locked.
        admin.line("DEL team:0 team:1 team:2");
        for request in requests {
            let reply = alice.call(request);
            let is_given = |name: &str| requests.concat().iter().any(|arg| arg.contains(name));
            let leaks = reply.contains("treasure")
                || names.iter().any(|name| reply.contains(name) && !is_given(name));
            assert!(!leaks, "{requests:?}: {reply}");
            assert_ne!(reply, "(closed)", "{requests:?}");
        }
        if alice.line("PING") != "+PONG" {
            // What subscribing more than once has left unread.
            alice = server.connect();
            assert!(alice.line("HELLO 3 AUTH alice pw").starts_with('%'));
        }
    };
    let mut tried = 0;
    let tried_commands = commands_and_subcommands()
        .filter(|command| command.subcommands().is_empty() && !NOT_TRIED.contains(&command.name));
    for command in tried_commands {
        for hidden in &names {
            for attempt in attempts(command, hidden) {
                let attempt: Vec<&str> = attempt.iter().map(String::as_str).collect();
                try_it(&[&attempt]);
                let script = "return redis.call(unpack(ARGV))";
                try_it(&[&[&["EVAL", script, "0"], &attempt[..]].concat()]);
                try_it(&[&["MULTI"], &attempt, &["EXEC"]]);
                tried += 1;
            }
        }
        // Without the name of any key, too.
        if command.example.split(' ').count() == 1 {
            try_it(&[&[command.example]]);
        }
    }
    for request in ["KEYS *", "SCAN 0 COUNT 1000", "SCAN 0 TYPE hash", "LOCKS 0", "RANDOMKEY", "FLUSHALL"] {
        try_it(&[&request.split(' ').collect::<Vec<_>>()]);
    }
    assert!(tried > 1000, "{tried}");
    assert_eq!(state(&mut admin), before);
}

/// Reads messages up to the one about the key `team:end`, and returns them.
fn messages(observer: &mut Client) -> String {
    let mut all = String::new();
    while !all.contains("team:end") {
        let message = observer.reply();
        assert_ne!(message, "(closed)", "{all}");
        all.push_str(&message);
        all.push('\n');
    }
    all
}

#[test]
fn no_observer_hears_of_a_key_outside_the_patterns_of_its_user() {
    let server = TestServer::manual(&["--allow-flush"]);
    let mut admin = server.connect();
    for request in [
        "ACL SETUSER alice on >pw ~team:* &* +@all",
        "ACL SETUSER chief on >pw ~* &* +@all",
        "ACL SETUSER watcher on >pw ~* &* +@all",
        "CONFIG SET notify-keyspace-events KEA",
    ] {
        assert_eq!(admin.line(request), "+OK");
    }
    let observe = |user: &str, requests: &[&str]| {
        let mut client = server.connect();
        assert!(client.line(&format!("HELLO 3 AUTH {user} pw")).starts_with('%'));
        requests.iter().for_each(|request| assert!(!client.line(request).starts_with('-'), "{request}"));
        client
    };
    let all: [&[&str]; 5] = [
        &["PSUBSCRIBE __key*"],
        &["PSUBSCRIBE __lock*"],
        &["PSUBSCRIBE *"],
        &["CLIENT TRACKING ON BCAST"],
        &["CLIENT TRACKING ON BCAST PREFIX other: PREFIX team:"],
    ];
    let mut of_alice = all.map(|requests| observe("alice", requests));
    let mut of_chief = all.map(|requests| observe("chief", requests));
    let mut waiting = observe("alice", &[]);
    waiting.send(&["BLPOP", "team:list", "0"]);
    server.until_waiting(1);
    let mut monitor = observe("chief", &["MONITOR"]);
    let mut alice = observe("alice", &[]);
    assert!(alice.line("MONITOR").starts_with("-NOPERM"));
    assert!(alice.line("SUBSCRIBE __keyspace@0__:other:0").starts_with("-NOPERM"));
    let mut subscriber = server.connect();
    subscriber.line("SUBSCRIBE __lock__:other:lock __keyspace@0__:other:lock");
    subscriber.reply();
    assert_eq!(alice.line("PUBSUB CHANNELS"), "*0");
    assert!(admin.line("PUBSUB CHANNELS").contains("__lock__:other:lock"));
    let mut ran = 0;
    for command in commands_and_subcommands().filter(|command| command.subcommands().is_empty()) {
        let example = OwnedArgs::of(command.example.split(' '));
        let mut keys = Vec::new();
        // Examples are valid.
        command.visit_keys(example.as_args(), &mut |key, _| keys.push(key)).expect("valid keys");
        if keys.is_empty() {
            continue;
        }
        let args = example.as_args().from(0).map(|arg| match keys.iter().position(|key| *key == arg) {
            Some(n) => format!("other:{n}"),
            None => String::from_utf8(arg.to_vec()).expect("text"),
        });
        let args: Vec<String> = args.collect();
        // In a transaction, nothing waits. On keys that are absent, and that have a value.
        for before in
            ["DEL other:0 other:1 other:2", "SET other:0 me", "RPUSH other:1 a b", "HSET other:2 f v"]
        {
            admin.line("MULTI");
            admin.line(before);
            admin.call(&args.iter().map(String::as_str).collect::<Vec<_>>());
            assert_ne!(admin.line("EXEC"), "(closed)", "{args:?}");
            ran += 1;
        }
    }
    assert!(ran > 200, "{ran}");
    for request in ["DEL other:0", "LOCK other:0 me", "FLUSHALL", "LOCK team:end me", "RPUSH team:list x"] {
        admin.line(request);
    }
    for (n, (alice, chief)) in of_alice.iter_mut().zip(&mut of_chief).enumerate() {
        let (heard, everything) = (messages(alice), messages(chief));
        assert!(!heard.contains("other:"), "{:?}: {heard}", all[n]);
        assert!(everything.matches("other:").count() > 5, "{:?}: {everything}", all[n]);
    }
    assert!(waiting.reply().contains("team:list"));
    // A monitor ends as soon as its user may see less.
    assert_eq!(admin.line("ACL SETUSER chief resetkeys ~team:*"), "+OK");
    monitor.rest();
    // Without the right to the command, it hears nothing.
    let mut monitor = observe("watcher", &["MONITOR"]);
    admin.line("ECHO openly");
    let mut shown = String::new();
    while !shown.contains("openly") {
        shown = monitor.reply();
        assert_ne!(shown, "(closed)");
    }
    for request in ["ACL SETUSER watcher -monitor", "ECHO secretly", "ACL DELUSER watcher"] {
        admin.line(request);
    }
    let heard = String::from_utf8(monitor.rest()).expect("text");
    assert!(!heard.contains("secretly"), "{heard}");
}

fn private_file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.expect("a file").write_all(text.as_bytes()).expect("a file");
    path.to_str().expect("text").to_owned()
}

#[test]
fn a_users_file_is_read_saved_and_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |text: &str| private_file(folder.path(), "users", text);
    let path = file("user default off\nuser alice on >pw ~team:* +@all\nuser bob on >pw2\n");
    let server = TestServer::manual(&["--users", &path]);
    let mut alice = server.connect();
    assert_eq!(alice.line("PING"), "-NOAUTH Authentication required.");
    assert_eq!(alice.line("AUTH pw"), "-WRONGPASS invalid username-password pair or user is disabled.");
    assert_eq!(alice.line("AUTH alice pw"), "+OK");
    let mut bob = server.connect();
    assert_eq!(bob.line("AUTH bob pw2"), "+OK");
    assert_eq!(alice.line("ACL SETUSER carol on >pw3 +ping"), "+OK");
    assert_eq!(alice.line("ACL SAVE"), "+OK");
    let saved = std::fs::read_to_string(&path).expect("a file");
    assert!(saved.contains("user carol on #") && !saved.contains("pw3"), "{saved}");
    // An error changes nothing and names the line.
    file("user alice on >pw +@all\nuser bob on nosuch\n");
    let refused = alice.line("ACL LOAD");
    assert!(refused.contains("line 2: rule 2 of user 'bob': Syntax error"), "{refused}");
    assert!(alice.line("ACL USERS").contains("carol"));
    // A user that is gone loses its connections; one that stays has its new rules.
    file("user default off\nuser alice on >pw ~team:* +@all -get\n");
    assert_eq!(alice.line("ACL LOAD"), "+OK");
    assert_eq!(bob.reply(), "(closed)");
    assert_eq!(alice.line("GET team:a"), "-NOPERM User alice has no permissions to run the 'get' command");
    assert_eq!(alice.line("ACL DELUSER alice"), ":1");
    assert_eq!(alice.reply(), "(closed)");
}

#[test]
fn a_user_that_is_deleted_or_off_loses_its_connections() {
    let server = TestServer::manual(&[]);
    let mut admin = server.connect();
    let connect = |name: &str| {
        let mut client = server.connect();
        assert_eq!(client.line(&format!("AUTH {name} pw")), "+OK");
        client
    };
    for end in ["ACL SETUSER alice off", "ACL DELUSER alice"] {
        assert_eq!(admin.line("ACL SETUSER alice on >pw allkeys allchannels +@all"), "+OK");
        let (mut idle, mut waiting, mut subscriber) = (connect("alice"), connect("alice"), connect("alice"));
        assert_eq!(admin.line("SET k held"), "+OK");
        waiting.send(&["LOCK", "k", "me", "WAIT", "100000"]);
        server.until_waiting(1);
        subscriber.line("SUBSCRIBE news");
        assert_eq!(admin.line(end).chars().next(), Some(if end.contains("DEL") { ':' } else { '+' }));
        for client in [&mut idle, &mut waiting, &mut subscriber] {
            assert_eq!(client.reply(), "(closed)", "{end}");
        }
        server.until_waiting(0);
    }
    // Also the connection that says so, after its reply.
    for end in ["CLIENT KILL USER alice SKIPME no", "ACL SETUSER alice off", "ACL DELUSER alice"] {
        for in_transaction in [false, true] {
            assert_eq!(admin.line("ACL SETUSER alice on >pw allkeys allchannels +@all"), "+OK");
            let mut own = connect("alice");
            if in_transaction {
                assert_eq!(own.line("MULTI"), "+OK");
                assert_eq!(own.line(end), "+QUEUED");
                own.line("EXEC");
            } else {
                own.line(end);
            }
            assert_eq!(own.reply(), "(closed)", "{end}");
        }
    }
    // With fewer keys, a request that waits for one must not get it.
    assert_eq!(admin.line("ACL SETUSER alice on >pw ~k +@all"), "+OK");
    let (mut idle, mut waiting) = (connect("alice"), connect("alice"));
    waiting.send(&["LOCK", "k", "me", "WAIT", "100000"]);
    server.until_waiting(1);
    assert_eq!(admin.line("ACL SETUSER alice resetkeys ~other"), "+OK");
    assert_eq!(waiting.reply(), "(closed)");
    server.until_waiting(0);
    assert_eq!(idle.line("GET k"), "-NOPERM No permissions to access a key");
}

#[test]
fn a_subscriber_hears_only_what_its_channels_and_keys_allow() {
    let server = TestServer::manual(&[]);
    let mut admin = server.connect();
    assert_eq!(admin.line("ACL SETUSER alice on >pw ~team:* &__lock__:* &news +@all"), "+OK");
    let mut alice = server.connect();
    assert_eq!(alice.line("AUTH alice pw"), "+OK");
    assert!(alice.line("PSUBSCRIBE __lock__:*").contains("psubscribe"));
    assert!(alice.line("SUBSCRIBE news").contains("subscribe"));
    for key in ["other", "team:a", "others"] {
        assert_eq!(admin.line(&format!("LOCK {key} me")).chars().next(), Some(':'));
    }
    assert!(alice.reply().contains("__lock__:team:a"));
    assert_eq!(admin.line("PUBLISH news hello"), ":1");
    assert!(alice.reply().contains("hello"), "no other event was in front");
    // As in Redis, a subscriber that may hear less is disconnected.
    assert_eq!(admin.line("ACL SETUSER alice resetchannels"), "+OK");
    assert_eq!(alice.reply(), "(closed)");
}

fn http(server: &TestServer, authorization: &str, method: &str, path: &str) -> Answer {
    let addr = server.http.expect("HTTP");
    let authorization = match authorization {
        "" => String::new(),
        value => format!("authorization: {value}\r\n"),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{authorization}content-type: \
         application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    exchange(addr, request.as_bytes()).expect("an answer")
}

#[test]
fn http_has_the_users_of_redis_clients() {
    let server = TestServer::manual(&["--requirepass", "swordfish"]);
    let mut admin = server.connect();
    assert_eq!(admin.line("AUTH swordfish"), "+OK");
    assert_eq!(admin.line("ACL SETUSER alice on >pw ~team/* %R~shared/* +@lock -@dangerous"), "+OK");
    assert_eq!(admin.line("ACL SETUSER bob on >pw2 ~* +@admin"), "+OK");
    let alice = |method: &str, path: &str| http(&server, "Bearer pw", method, path).status;
    assert_eq!(alice("POST", "/locks/team%2Fa/acquire"), 200);
    assert_eq!(alice("POST", "/locks/shared%2Fa/acquire"), 403);
    assert_eq!(alice("GET", "/locks/shared%2Fa"), 200);
    assert_eq!(alice("GET", "/locks/other"), 403);
    assert_eq!(alice("GET", "/locks/other/watch"), 403);
    assert_eq!(alice("POST", "/sessions"), 201);
    assert_eq!(alice("GET", "/metrics"), 403);
    let root = "Basic ZGVmYXVsdDpzd29yZGZpc2g=";
    assert_eq!(http(&server, root, "POST", "/locks/other/acquire").status, 200);
    let listed = http(&server, "Bearer pw", "GET", "/locks").json();
    assert_eq!((&listed["total"], &listed["locks"][0]["name"]), (&1.into(), &"team/a".into()));
    let bob = |method: &str, path: &str| http(&server, "Bearer pw2", method, path).status;
    assert_eq!((bob("GET", "/metrics"), bob("GET", "/admin/status")), (200, 200));
    assert_eq!((bob("GET", "/locks/other"), bob("POST", "/sessions")), (403, 403));
    // An operator of the server who may not read all keys sees the locks that it may read.
    let seen = || {
        let locks = http(&server, "Bearer pw2", "GET", "/admin/status").json();
        let names = locks["locks"].as_array().expect("locks").iter().map(|lock| lock["name"].to_string());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    };
    assert_eq!(seen(), ["\"other\"", "\"team/a\""]);
    assert_eq!(admin.line("ACL SETUSER bob resetkeys %R~team/*"), "+OK");
    assert_eq!(seen(), ["\"team/a\""]);
    for wrong in ["Bearer nosuch", "Basic YWxpY2U6eA=="] {
        assert_eq!(http(&server, wrong, "GET", "/locks").json()["code"], "authentication_failed");
    }
    assert_eq!(http(&server, "", "GET", "/locks").json()["code"], "authentication_required");
    // A user without a password proves nothing over HTTP.
    assert_eq!(admin.line("ACL SETUSER open on nopass +@all allkeys"), "+OK");
    assert_eq!(http(&server, "Basic b3Blbjp4", "GET", "/locks").status, 401);
    // Rules that change hold at once.
    assert_eq!(admin.line("ACL SETUSER alice off"), "+OK");
    assert_eq!(alice("GET", "/locks"), 401);
}

#[test]
fn a_user_with_one_prefix_lists_its_locks_whatever_their_names() {
    let server = TestServer::manual(&["--requirepass", "swordfish"]);
    let mut admin = server.connect();
    assert_eq!(admin.line("AUTH swordfish"), "+OK");
    assert_eq!(admin.line("ACL SETUSER worker on >pw ~jobs:* +@lock"), "+OK");
    for key in ["jobs:a", "jobs:a/b", "jobs", "other:a"] {
        assert!(admin.call(&["LOCK", key, "me"]).starts_with(':'));
    }
    let listed = |query: &str| {
        let list = http(&server, "Bearer pw", "GET", &format!("/locks{query}")).json();
        let names = list["locks"].as_array().map(|locks| locks.iter().map(|lock| lock["name"].to_string()));
        (names.map(|names| names.collect::<Vec<_>>().join(" ")), list["prefix"].as_str().map(str::to_owned))
    };
    let both = Some("\"jobs%3Aa\" \"jobs%3Aa%2Fb\"".to_owned());
    assert_eq!(listed(""), (both.clone(), Some("jobs:".to_owned())));
    assert_eq!(listed("?prefix=jobs:"), (both.clone(), Some("jobs:".to_owned())));
    assert_eq!(listed("?prefix=jobs%3Aa"), (both, Some("jobs:a".to_owned())));
    assert_eq!(listed("?prefix=jobs:a/"), (Some("\"jobs%3Aa%2Fb\"".to_owned()), Some("jobs:a/".to_owned())));
    assert_eq!(listed("?prefix=jobs"), (None, None), "beyond its keys");
}

#[test]
fn a_watch_ends_with_the_rights_of_its_user() {
    let server = TestServer::manual(&["--requirepass", "swordfish"]);
    let mut admin = server.connect();
    assert_eq!(admin.line("AUTH swordfish"), "+OK");
    assert_eq!(admin.line("ACL SETUSER alice on >pw ~team/* +@lock"), "+OK");
    let mut stream = TcpStream::connect(server.http.expect("HTTP")).expect("a connection");
    let request = "GET /locks/team%2Fa/watch HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer pw\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("a server that reads");
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    while !lines.iter().any(|line: &String| line.contains("released")) {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).expect("a line") > 0, "{lines:?}");
        lines.push(line);
    }
    assert_eq!(admin.line("ACL SETUSER alice resetkeys"), "+OK");
    assert_eq!(admin.line("LOCK team/a me"), ":1");
    let mut rest = String::new();
    // The stream ends, while the connection may serve another request.
    while !rest.ends_with("0\r\n\r\n") {
        assert!(reader.read_line(&mut rest).expect("a line") > 0, "{rest}");
    }
    assert!(!rest.contains("acquired"), "{rest}");
}

#[test]
fn metrics_are_open_if_the_operator_says_so() {
    let server = TestServer::manual(&["--requirepass", "swordfish", "--metrics-open"]);
    assert_eq!(http(&server, "", "GET", "/metrics").status, 200);
    assert_eq!(http(&server, "", "GET", "/admin/status").status, 401);
}

#[test]
fn a_user_without_a_password_does_not_open_http_to_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = private_file(folder.path(), "tokens", "alice:token\n");
    let server = TestServer::manual(&["--http-tokens", &tokens]);
    for (credentials, status) in
        [("Bearer token", 200), ("Basic YWxpY2U6dG9rZW4=", 200), ("Basic ZGVmYXVsdDp4", 401), ("", 401)]
    {
        assert_eq!(http(&server, credentials, "GET", "/locks").status, status, "{credentials}");
    }
    // Nor does a name without a password replace the check of the host.
    let open = TestServer::manual(&[]);
    let request = "GET /locks HTTP/1.1\r\nhost: page.example\r\nconnection: close\r\n\
                   authorization: Basic ZGVmYXVsdDp4\r\n\r\n";
    let answer = exchange(open.http.expect("HTTP"), request.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 403);
}

#[test]
fn a_connection_that_does_not_authenticate_is_closed() {
    let server = TestServer::real(&["--requirepass", "swordfish", "--auth-timeout-ms", "50"]);
    let (mut silent, mut active) = (server.connect(), server.connect());
    assert_eq!(active.line("AUTH swordfish"), "+OK");
    assert_eq!(silent.reply(), "(closed)");
    assert_eq!(active.line("PING"), "+PONG");
    assert_eq!(active.line("RESET"), "+RESET");
    assert_eq!(active.reply(), "(closed)", "it must authenticate again");
}

/// What an HTTP connection begins with; the rest of the head is missing.
const HALF_HEAD: &str = "GET /locks HTTP/1.1\r\nhost: localhost\r\n";

/// Connects to the HTTP port and sends `text`.
fn connect_http(server: &TestServer, text: &str) -> TcpStream {
    let mut connection = TcpStream::connect(server.http.expect("HTTP")).expect("a connection");
    connection.write_all(text.as_bytes()).expect("sent");
    connection
}

/// What else the server sends until it closes the connection.
fn rest(mut connection: TcpStream) -> String {
    let mut text = String::new();
    // A connection that gives way may be reset.
    let _ = connection.read_to_string(&mut text);
    text
}

#[test]
fn http_connections_without_credentials_give_way() {
    let server = TestServer::real(&["--requirepass", "swordfish", "--connections-max", "100"]);
    let is_open = |connection: &TcpStream| {
        let read = (&*connection).read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    // Those that say nothing, or only a part of a head, do not keep out a client that has the password.
    let mut waiting: Vec<TcpStream> = Vec::new();
    for _ in 0..5 {
        for text in ["", HALF_HEAD].into_iter().cycle().take(40) {
            let connection = connect_http(&server, text);
            connection.set_nonblocking(true).expect("set");
            waiting.push(connection);
        }
        until(|| waiting.iter().filter(|&connection| is_open(connection)).count() <= 50);
    }
    assert!(waiting.iter().any(is_open), "those that came last still have time");
    assert_eq!(http(&server, "Bearer swordfish", "GET", "/locks").status, 200);
}

#[test]
fn http_connections_without_credentials_end_in_time() {
    let server = TestServer::real(&["--requirepass", "swordfish", "--auth-timeout-ms", "300"]);
    assert_eq!(rest(connect_http(&server, "")), "");
    assert!(rest(connect_http(&server, HALF_HEAD)).starts_with("HTTP/1.1 408 "));
    // What is answered without credentials does not count as credentials.
    let health = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(rest(connect_http(&server, health)).matches("HTTP/1.1 200 ").count(), 1);
    // A connection that has authenticated stays.
    let authorized = format!("{HALF_HEAD}authorization: Bearer swordfish\r\n\r\n");
    let mut connection = connect_http(&server, &authorized);
    rest(connect_http(&server, ""));
    let last = authorized.replace("host: ", "connection: close\r\nhost: ");
    connection.write_all(last.as_bytes()).expect("sent");
    assert_eq!(rest(connection).matches("HTTP/1.1 200 ").count(), 2);
}

#[test]
#[allow(clippy::disallowed_methods)] // Real time is what it is about.
fn a_client_that_tries_passwords_waits_for_each_reply() {
    let server = TestServer::real(&["--requirepass", "swordfish"]);
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
    let began = Instant::now();
    let mut client = server.connect();
    client.send_bytes(&encode(&["AUTH", "wrong"]).repeat(3));
    client.send(&["AUTH", "swordfish"]);
    (0..3).for_each(|_| assert_eq!(client.reply(), wrong));
    assert_eq!(client.reply(), "+OK");
    assert!(began.elapsed() >= 3 * WRONG_PASSWORD_DELAY);
    let began = Instant::now();
    assert_eq!(http(&server, "Bearer wrong", "GET", "/locks").status, 401);
    assert!(began.elapsed() >= WRONG_PASSWORD_DELAY);
    // Attempts that were sent in time do not extend it.
    let server = TestServer::real(&["--requirepass", "swordfish", "--auth-timeout-ms", "100"]);
    let mut client = server.connect();
    client.send_bytes(&encode(&["AUTH", "wrong"]).repeat(100));
    let replies = (0..100).take_while(|_| client.reply() != "(closed)").count();
    assert!(replies < 100, "{replies}");
}

#[test]
fn clients_that_have_not_authenticated_take_half_of_the_connections() {
    let server = TestServer::real(&["--requirepass", "swordfish", "--connections-max", "4"]);
    let noauth = "-NOAUTH Authentication required.";
    let connect = || {
        let mut client = server.connect();
        assert_eq!(client.line("PING"), noauth);
        client
    };
    let (mut first, mut second) = (connect(), connect());
    // Those that only wait do not keep out a client that has the password.
    let mut third = connect();
    assert_eq!(first.reply(), "(closed)");
    assert_eq!(third.line("AUTH swordfish"), "+OK");
    let fourth = connect();
    let _fifth = connect();
    assert_eq!(second.reply(), "(closed)");
    drop(fourth);
    assert_eq!(third.line("RESET"), "+RESET");
    assert_eq!(third.line("AUTH swordfish"), "+OK");
    assert_eq!(third.line("PING"), "+PONG");
}

#[test]
fn passwords_are_shown_nowhere() {
    let server = TestServer::manual(&["--requirepass", "swordfish"]);
    let mut admin = server.connect();
    assert_eq!(admin.line("AUTH swordfish"), "+OK");
    assert_eq!(admin.line("CONFIG SET slowlog-log-slower-than 0"), "+OK");
    let secrets = ["opensesame", "swordfish", "wrongword"];
    assert_eq!(admin.line("ACL SETUSER alice on >opensesame +@all ~*"), "+OK");
    let mut alice = server.connect();
    alice.line("AUTH alice wrongword");
    alice.line("AUTH wrongword wrongword");
    alice.line("HELLO 3 AUTH alice opensesame");
    for request in [
        "INFO everything",
        "CONFIG GET *",
        "CLIENT LIST",
        "SLOWLOG GET -1",
        "ACL LIST",
        "ACL GETUSER alice",
        "ACL LOG",
    ] {
        let reply = admin.line(request);
        assert!(!secrets.iter().any(|secret| reply.contains(secret)), "{request}: {reply}");
    }
    assert!(admin.line("ACL LOG").contains("(unknown)"));
    assert!(admin.line("CLIENT LIST").contains("user=alice"));
    alice.line("GET other");
    assert!(admin.line("INFO stats").contains("acl_access_denied_auth:2\\r\\nacl_access_denied_cmd:0"));
}
