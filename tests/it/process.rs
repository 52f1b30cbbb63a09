//! The program: start, output, end, and the conditions under which it refuses to start.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::client::Client;
use crate::support::process::{Process, command, refused, signal};

#[test]
fn a_lock_survives_kill_9_with_owner_token_and_remaining_time() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start(&data, &[]);
    assert!(server.banner[3].contains("0 locks recovered"), "{:?}", server.banner);
    let mut client = server.connect();
    assert_eq!(client.line("LOCK job me EX 60 META nightly"), ":1");
    assert_eq!(client.line("LOCK gone me"), ":2");
    assert_eq!(client.line("UNLOCK gone me"), ":1");
    assert_eq!(client.line("RENEW job me EX 90"), ":1");
    server.kill();
    let server = Process::start(&data, &[]);
    assert!(server.banner[3].contains("1 lock recovered"), "{:?}", server.banner);
    let mut client = server.connect();
    assert_eq!(client.line("GET job"), "\"me\"");
    assert_eq!(client.line("FENCE job"), ":1");
    let left: i64 = client.line("PTTL job")[1..].parse().unwrap();
    assert!((60_000..=90_000).contains(&left), "{left}");
    assert!(client.line("LOCKINFO job").contains("nightly"));
    assert_eq!(client.line("FENCE gone"), "(nil)");
    let next: i64 = client.line("LOCK gone me")[1..].parse().unwrap();
    assert!(next > 2);
}

#[test]
fn the_start_counts_locks_and_values_apart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start(&data, &[]);
    let mut client = server.connect();
    assert_eq!(client.line("HSET h f v"), ":1");
    assert_eq!(client.line("LOCK job me EX 60"), ":2");
    assert_eq!(client.line("LOCK other me EX 60"), ":3");
    server.kill();
    let server = Process::start(&data, &[]);
    assert!(server.banner[3].contains("(2 locks and 1 value recovered)"), "{:?}", server.banner);
}

#[test]
fn sigterm_ends_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start(&data, &[]);
    let mut idle = server.connect();
    assert_eq!(idle.line("LOCK k me"), ":1");
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(idle.reply(), "(closed)");
    assert!(!dir.path().join("octostore.db-wal").exists(), "everything is in the one file");
    let server = Process::start(&data, &[]);
    assert_eq!(server.connect().line("GET k"), "\"me\"");
}

#[test]
fn shutdown_ends_it_as_sigterm_does() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let mut server = Process::start(&data, &[]);
    let (mut idle, mut client) = (server.connect(), server.connect());
    assert_eq!(client.line("LOCK k me"), ":1");
    assert_eq!(client.line("SHUTDOWN NOSAVE"), "(closed)");
    assert_eq!(server.wait(), Some(0));
    assert_eq!(idle.reply(), "(closed)");
    let server = Process::start(&data, &[]);
    assert_eq!(server.connect().line("GET k"), "\"me\"");
}

#[test]
fn no_token_is_issued_twice_after_a_restart_or_with_an_old_copy() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let copy = dir.path().join("backup");
    let server = Process::start(&data, &[]);
    server.terminate();
    std::fs::copy(&data, &copy).unwrap();
    let server = Process::start(&data, &[]);
    let mut client = server.connect();
    let mut last = 0;
    for _ in 0..5000 {
        last = client.line("LOCK k me")[1..].parse::<i64>().unwrap();
        client.line("UNLOCK k me");
    }
    server.terminate();
    std::fs::copy(&copy, &data).unwrap();
    let server = Process::start(&data, &[]);
    let next: i64 = server.connect().line("LOCK k me")[1..].parse().unwrap();
    assert!(next > last, "{next} after {last}");
    server.terminate();
    let server = Process::start(&data, &["--token-floor", "1000000"]);
    let next: i64 = server.connect().line("LOCK other me")[1..].parse().unwrap();
    assert!(next > 1_000_000, "{next}");
}

#[test]
fn one_server_serves_a_database_under_any_name_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let link = dir.path().join("link.db");
    let server = Process::start(&data, &[]);
    std::os::unix::fs::symlink(&data, &link).unwrap();
    let (code, said) = refused(&link, &[]);
    assert!(code == Some(1) && said.contains("another server"), "{said}");
    if cfg!(target_os = "linux") {
        let hard = dir.path().join("hard.db");
        std::fs::hard_link(&data, &hard).unwrap();
        let (code, said) = refused(&hard, &[]);
        assert!(code == Some(1) && said.contains("another server"), "{said}");
    }
    drop(server);
    std::fs::remove_file(&data).unwrap();
    let (code, said) = refused(&link, &[]);
    assert!(code == Some(1) && said.contains("a link to nothing"), "{said}");
}

#[test]
fn the_error_names_what_prevents_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start(&data, &[]);
    let taken = server.addr.to_string();
    let foreign = dir.path().join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    let garbage = dir.path().join("garbage.db");
    std::fs::write(&garbage, [7; 100_000]).unwrap();
    let newer = dir.path().join("newer.db");
    Process::start(&newer, &[]).kill();
    rusqlite::Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let busy = dir.path().join("busy.db");
    Process::start(&busy, &[]).kill();
    let holder = rusqlite::Connection::open(&busy).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let folder = dir.path().join("missing/octostore.db");
    for (data, flags, code, part) in [
        (&data, vec![], 1, "another server (process "),
        (&dir.path().join("x.db"), vec!["--listen", &taken], 1, "port in use"),
        (&foreign, vec![], 1, "is not a database of octostore"),
        (&garbage, vec![], 1, "is not a database of octostore"),
        (&newer, vec![], 1, "schema version 99"),
        (&busy, vec![], 1, "locked by another process"),
        (&folder, vec![], 1, "there is no directory"),
        (&dir.path().to_owned(), vec![], 1, "is a directory; name a file in it"),
        (&data, vec!["--listen", "0.0.0.0:0"], 2, "--requirepass-file"),
        (&data, vec!["--locks-max", "x"], 2, "is not a number"),
        (&data, vec!["--colour"], 2, "octostore: unknown option --colour"),
        (&data, vec!["--listen"], 2, "octostore: a value is required"),
        (
            &dir.path().join("x.db"),
            vec!["--listen", "192.0.2.1:0", "--allow-no-password"],
            1,
            "does not have the address",
        ),
    ] {
        let (found, said) = refused(data, &flags);
        assert_eq!(found, Some(code), "{said}");
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn it_serves_if_stdout_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (reader, stdout) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command(&dir.path().join("octostore.db"));
    let mut child = command.args(["--listen", &port]).stdout(stdout).spawn().expect("the program");
    crate::support::until(|| std::net::TcpStream::connect(&port).is_ok());
    let answer = Client::connect(port.parse().unwrap()).line("PING");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer, "+PONG");
}

#[test]
fn variables_configure_it_and_flags_win() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        command(&dir.path().join("db")).env("OCTOSTORE_LOCKS_MAX", "none").output().expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--locks-max (from OCTOSTORE_LOCKS_MAX)"), "{said}");
    let help = command(Path::new("x")).arg("--help").output().expect("the program");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("--durability <MODE>") && help.contains("[default: always]"), "{help}");
}

#[test]
fn wrong_passwords_are_counted_and_their_log_is_limited() {
    // Each attempt delays the next one of its connection.
    const CLIENTS: usize = 200;
    const EACH: usize = 10;
    let times = (CLIENTS * EACH) as u64;
    let dir = tempfile::tempdir().unwrap();
    // Its stderr is a pipe that nothing reads until it has ended.
    let server = Process::start(&dir.path().join("db"), &["--requirepass", "swordfish"]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let request = if n % 2 == 0 { "AUTH guess\r\n" } else { "HELLO 3 AUTH default guess\r\n" };
        client.send_bytes(request.repeat(EACH).as_bytes());
    }
    for client in &mut clients {
        (0..EACH).for_each(|_| assert!(client.reply().starts_with("-WRONGPASS")));
    }
    let mut other = server.connect();
    assert_eq!(other.line("AUTH swordfish"), "+OK");
    assert!(other.line("INFO stats").contains(&format!("acl_access_denied_auth:{times}\\r\\n")));
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("wrong user or password")).collect();
    // One a second, and one at the end; this is the work of a second, with room for a slow machine.
    assert!((2..=62).contains(&lines.len()), "{log}");
    let number = |line: &&str| line.split_once("(the latest of ")?.1.split(';').next()?.parse::<u64>().ok();
    let counted: u64 = lines.iter().map(|line| number(line).unwrap_or(1)).sum();
    assert_eq!(counted, times, "{log}");
    assert!(lines.iter().any(|line| line.ends_with("; clients 127.0.0.1)")), "{log}");
    assert!(!log.contains("guess"), "{log}");
}

#[test]
fn a_server_whose_log_is_not_read_starts_serves_and_stops() {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let dir = tempfile::tempdir().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while std::io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
    while std::io::Write::write(&mut writer, b"x").is_ok() {}
    // Not a byte of room is left, and the server waits as on any other pipe.
    fcntl_setfl(&writer, flags).unwrap();
    let data = dir.path().join("db");
    let mut server =
        Process::spawn(command(&data).args(["--connections-max", "1", "--log", "debug"]).stderr(writer))
            .unwrap();
    let mut client = server.connect();
    for _ in 0..3000 {
        assert_eq!(server.connect().reply(), "-ERR max number of clients reached");
    }
    // Outlives the restart, however slow the machine is.
    assert_eq!(client.line("LOCK k me EX 86400"), ":1");
    signal(&server, "-TERM");
    assert_eq!(server.wait(), Some(0));
    drop(reader);
    // Nor does it die of a reader that has gone.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut server = Process::spawn(command(&data).stderr(writer)).unwrap();
    assert_eq!(server.connect().line("GET k"), "\"me\"");
    signal(&server, "-TERM");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn all_addresses_share_one_limit_of_connections() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--listen",
        "127.0.0.1:0,127.0.0.2:0",
        "--http",
        "127.0.0.2:0, 127.0.0.1:0",
        "--connections-max",
        "2",
    ];
    let server = Process::start(&dir.path().join("db"), &flags);
    let port = server.addr.port();
    assert_eq!(server.banner[1], format!("  redis  127.0.0.1:{port}, 127.0.0.2:{port}"));
    let other = SocketAddr::new("127.0.0.2".parse().unwrap(), port);
    let (mut first, mut second) = (server.connect(), Client::connect(other));
    assert_eq!(first.line("LOCK k me"), ":1");
    assert_eq!(second.line("GET k"), "\"me\"");
    assert_eq!(Client::connect(other).reply(), "-ERR max number of clients reached");
    assert_eq!(server.connect().reply(), "-ERR max number of clients reached");
    let settings = first.line("CONFIG GET bind port");
    assert!(settings.contains("127.0.0.1 127.0.0.2") && settings.contains(&port.to_string()), "{settings}");
    let http = server.http.expect("HTTP").port();
    for ip in ["127.0.0.1", "127.0.0.2"] {
        let address = SocketAddr::new(ip.parse().unwrap(), http);
        let answer = crate::support::http::exchange(
            address,
            b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        );
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let ip6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    if ip6 {
        let server = Process::start(&dir.path().join("db6"), &["--listen", "127.0.0.1:0,[::1]:0"]);
        let other = SocketAddr::new("::1".parse().unwrap(), server.addr.port());
        assert_eq!(Client::connect(other).line("PING"), "+PONG");
    }
}

/// The program with a limit of open files.
fn with_open_files(data: &Path, files: u32) -> Command {
    let program = command(data);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]);
    shell.arg(program.get_program()).args(program.get_args());
    shell.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

#[test]
fn the_log_does_not_interrupt_the_banner() {
    let dir = tempfile::tempdir().unwrap();
    let (output, stdout) = std::io::pipe().unwrap();
    // The limit causes a line of the log immediately before the banner.
    let mut command = with_open_files(&dir.path().join("octostore.db"), 200);
    command.stderr(stdout.try_clone().unwrap()).stdout(stdout);
    let mut child = command.spawn().expect("the program");
    drop(command);
    let lines: Vec<String> = BufReader::new(output).lines().take(6).map_while(Result::ok).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines[0].contains(" WARN --connections-max lowered from"), "{lines:?}");
    for (line, start) in lines[1..].iter().zip(["octostore ", "  redis ", "  http ", "  data ", "  try "]) {
        assert!(line.starts_with(start), "{lines:?}");
    }
}

#[test]
fn the_database_is_shown_with_its_absolute_path() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(Path::new("./octostore.db"));
    let server = Process::spawn(command.current_dir(dir.path())).unwrap();
    let path = dir.path().join("octostore.db").display().to_string();
    assert!(server.banner[3].contains(&format!("data   {path} (")), "{:?}", server.banner);
    assert!(server.connect().line("INFO persistence").contains(&format!("data:{path}")));
}

#[test]
fn a_reload_without_http_does_not_claim_to_change_its_users() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    let write = |text: &str| {
        std::fs::write(&tokens, text).unwrap();
        std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write("alice:old\n");
    let flags = ["--http", "off", "--http-tokens", tokens.to_str().unwrap()];
    let mut server = Process::start(&dir.path().join("db"), &flags);
    write("alice:new\n");
    let log = BufReader::new(server.stderr());
    signal(&server, "-HUP");
    let line = log.lines().map_while(Result::ok).find(|line| line.contains("SIGHUP")).expect("a line");
    assert!(line.ends_with("SIGHUP: the users were reloaded"), "{line}");
}

#[test]
fn sighup_reads_the_users_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    let write = |text: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write("user default off\nuser alice on >one +@all ~*\nuser bob on >two +@all\n");
    let mut server = Process::start(&dir.path().join("db"), &["--users", path.to_str().unwrap()]);
    let mut log = BufReader::new(server.stderr());
    let (mut alice, mut bob) = (server.connect(), server.connect());
    assert_eq!((&*alice.line("AUTH alice one"), &*bob.line("AUTH bob two")), ("+OK", "+OK"));
    let mut until_line = |part: &str| loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "{part}");
        if line.contains(part) {
            return line;
        }
    };
    write("user alice on >one +@all ~*\nuser bob on >two +nosuch\n");
    signal(&server, "-HUP");
    let refused = until_line("SIGHUP");
    assert!(
        refused.contains("nothing was reloaded") && refused.contains("line 2: rule '+nosuch'"),
        "{refused}"
    );
    assert_eq!(bob.line("ACL WHOAMI"), "\"bob\"");
    write("user default off\nuser alice on >one +@all ~team:*\n");
    signal(&server, "-HUP");
    assert!(until_line("SIGHUP").contains("the users were reloaded"));
    assert_eq!(bob.reply(), "(closed)");
    assert_eq!(alice.line("GET other"), "-NOPERM No permissions to access a key");
}

#[test]
fn sighup_reloads_passwords_and_users_and_never_stops_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (tokens, password) = (file("tokens", "alice:old\n"), file("password", "one\n"));
    let config = file("octostore.toml", "");
    let flags = ["--config", &config, "--http-tokens", &tokens, "--requirepass-file", &password];
    let mut server = Process::start(&dir.path().join("db"), &flags);
    let mut log = BufReader::new(server.stderr());
    let http = server.http.expect("HTTP");
    let status = |token: &str| {
        let request = format!(
            "GET /locks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        crate::support::http::exchange(http, request.as_bytes()).expect("an answer").status
    };
    let auth = |password: &str| server.connect().line(&format!("AUTH {password}"));
    let mut authenticated = server.connect();
    assert_eq!((authenticated.line("AUTH one").as_str(), status("old"), status("new")), ("+OK", 200, 401));
    // Users and password change, and no request fails for it.
    file("tokens", "alice:new\nbob:other\n");
    file("password", "two\n");
    signal(&server, "-HUP");
    crate::support::until(|| status("new") == 200);
    assert_eq!((status("old"), status("other")), (401, 200));
    assert!(auth("one").starts_with("-WRONGPASS"));
    assert_eq!(auth("two"), "+OK");
    assert_eq!(authenticated.line("LOCK k me"), ":1", "it stays authenticated");
    // An invalid configuration changes nothing.
    file("tokens", "alice\n");
    file("password", "three\n");
    signal(&server, "-HUP");
    // Signals of one kind may be merged, so the log shows when this one was handled.
    let mut lines = Vec::new();
    let mut until_line = |part: &str| loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "{part}: {lines:?}");
        lines.push(line.clone());
        if line.contains(part) {
            return line;
        }
    };
    assert!(until_line("SIGHUP").contains("INFO SIGHUP: the password and the users were reloaded\n"));
    let refusal = until_line("SIGHUP");
    assert!(refusal.contains("ERROR SIGHUP: nothing was reloaded: --http-tokens"), "{refusal}");
    assert_eq!((auth("two").as_str(), status("new")), ("+OK", 200));
    // Settings that need a restart are named.
    file("tokens", "alice:new\nbob:other\n");
    file("octostore.toml", "locks-max = 7\n");
    signal(&server, "-HUP");
    let reloaded = until_line("SIGHUP");
    assert!(
        reloaded.contains("the password was reloaded; restart required to change --locks-max"),
        "{reloaded}"
    );
    assert_eq!(auth("three"), "+OK");
    file("octostore.toml", "metrics-open = true\n");
    signal(&server, "-HUP");
    let reloaded = until_line("SIGHUP");
    assert!(reloaded.ends_with("SIGHUP: --metrics-open was reloaded\n"), "{reloaded}");
}

#[test]
fn the_limit_of_open_files_limits_connections() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::spawn(&mut with_open_files(&dir.path().join("db"), 200)).unwrap();
    // 64 for the server itself, the rest in halves for Redis and HTTP.
    let mut client = server.connect();
    assert!(client.line("CONFIG GET maxclients").contains("\"68\""));
    assert!(client.line("CONFIG GET connections-max").contains("\"68\""));
    let _others: Vec<Client> = (1..68).map(|_| server.connect()).collect();
    assert_eq!(server.connect().reply(), "-ERR max number of clients reached");
    let (_, log) = server.terminate();
    let first = log.lines().next().expect("a line");
    assert!(first.contains(" WARN --connections-max lowered from"), "{log}");
}

#[test]
fn a_limit_of_open_files_that_leaves_many_connections_is_no_warning() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::spawn(&mut with_open_files(&dir.path().join("db"), 4096)).unwrap();
    let (_, log) = server.terminate();
    let first = log.lines().next().expect("a line");
    assert!(first.contains(" INFO --connections-max lowered from 10000 to 2016"), "{log}");
}

#[test]
fn a_file_that_is_not_a_database_is_refused_and_left_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "some text\n".repeat(500)).unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let device = dir.path().join("device");
    std::os::unix::fs::symlink("/dev/null", &device).unwrap();
    for (data, part) in [
        (text.as_path(), "is not a database of octostore"),
        (&fifo, "is not a regular file"),
        (&device, "is not a regular file"),
        (Path::new("/dev/null"), "is not a regular file"),
    ] {
        let (code, said) = refused(data, &[]);
        assert!(code == Some(1) && said.contains(part) && said.lines().count() == 1, "{said}");
    }
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["device", "fifo", "notes.txt"]);
    for beside in ["lock", "wal", "shm"] {
        assert!(!Path::new(&format!("/dev/null.{beside}")).exists(), "{beside}");
        assert!(!Path::new(&format!("/dev/null-{beside}")).exists(), "{beside}");
    }
}

#[test]
fn a_mistyped_variable_or_an_option_of_redis_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("db");
    let output = command(&data).env("OCTOSTORE_REQUIREPAS", "swordfish").output().expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(2) && said.contains("did you mean OCTOSTORE_REQUIREPASS?"),
        "{said}"
    );
    for (flags, part) in [(["--port", "6379"], "use --listen ADDR:PORT"), (["--requirepass", ""], "is empty")]
    {
        let (code, said) = refused(&data, &flags);
        assert!(code == Some(2) && said.contains(part), "{said}");
    }
    assert!(!data.exists());
}

/// Locks and releases that many names: `OCTOSTORE_TEST_NAMES=1000000 cargo test --release
/// released_names`.
#[test]
fn released_names_use_no_memory() {
    let names: usize =
        std::env::var("OCTOSTORE_TEST_NAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let server = Process::start(&data, &[]);
    let mut client = server.connect();
    let field = |text: &str, name: &str| -> i64 {
        let after = text.split(&format!("{name}:")).nth(1).unwrap_or_else(|| panic!("{name} in {text}"));
        after.split("\\r").next().and_then(|number| number.parse().ok()).expect("a number")
    };
    let reader = rusqlite::Connection::open(&data).unwrap();
    let rows = |table: &str| -> i64 {
        reader.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    let mut cycle = |from: usize, to: usize| {
        for verb in ["LOCK", "UNLOCK"] {
            for chunk in (from..to).collect::<Vec<_>>().chunks(500) {
                let mut requests = Vec::new();
                for n in chunk {
                    requests.extend(crate::support::client::encode(&[verb, &format!("name:{n}"), "me"]));
                }
                client.send_bytes(&requests);
                for _ in chunk {
                    assert!(client.reply().starts_with(':'));
                }
            }
        }
        assert_eq!(rows("leases"), 0);
        // Housekeeping removes the rest when all is quiet.
        crate::support::until(|| (rows("held"), rows("changes")) == (0, 0));
        field(&client.line("INFO memory"), "used_memory_rss")
    };
    let before = cycle(0, names / 10);
    let mut after = 0;
    for round in 1..10 {
        after = cycle(names * round / 10, names * (round + 1) / 10);
    }
    let info = client.line("INFO");
    assert_eq!(field(&info, "leases"), 0);
    assert_eq!(client.line("DBSIZE"), ":0");
    assert_eq!((rows("delays"), rows("sessions")), (0, 0));
    println!("resident after {} names: {before} bytes, after {names}: {after}", names / 10);
    // What the allocator and the page cache keep is some 10 MB; only many names show a leak of some
    // bytes for each.
    if names >= 1_000_000 {
        assert!(after < before + 24 * names as i64, "resident memory grew from {before} to {after}");
    }
}

#[test]
fn the_debug_log_records_lost_locks_and_late_owners() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&dir.path().join("octostore.db"), &["--log", "debug"]);
    let mut client = server.connect();
    let me = client.stream().local_addr().unwrap().to_string();
    let mut tied = server.connect();
    let tied_addr = format!("{} (worker-7)", tied.stream().local_addr().unwrap());
    assert_eq!(tied.line("CLIENT SETNAME worker-7"), "+OK");
    let mut other = server.connect();
    assert_eq!(other.line("LOCK expired s3cret PX 1"), ":1");
    let other_addr = other.stream().local_addr().unwrap().to_string();
    until_free(&mut client, "expired");
    assert_eq!(client.line("LOCK forced s3cret"), ":2");
    assert_eq!(client.line("FORCEUNLOCK forced"), ":1");
    assert_eq!(client.line("SET replaced s3cret"), "+OK");
    assert_eq!(client.line("SET replaced an0ther"), "+OK");
    assert_eq!(tied.line("LOCK tied s3cret CONN"), ":5");
    drop(tied);
    until_free(&mut client, "tied");
    let session = client.line("SESSION OPEN").trim_matches('"').to_owned();
    assert_eq!(client.line(&format!("LOCK closed s3cret SESSION {session}")), ":6");
    assert_eq!(client.line(&format!("SESSION CLOSE {session}")), ":1");
    assert_eq!(client.line("LOCK odd\u{fc}key s3cret"), ":7");
    assert_eq!(client.line("DEL odd\u{fc}key"), ":1");
    for late in [
        "UNLOCK expired s3cret",
        "UNLOCK expired s3cret",
        "RENEW forced s3cret",
        "UNLOCK replaced s3cret",
        "UNLOCK never s3cret",
    ] {
        assert_eq!(client.line(late), ":0", "{late}");
    }
    // Released by its owner: nothing was lost.
    assert_eq!(client.line("LOCK mine s3cret"), ":8");
    assert_eq!(client.line("UNLOCK mine s3cret"), ":1");
    let (_, log) = server.terminate();
    let said = |message: &str| log.lines().filter(|line| line.contains(message)).collect::<Vec<_>>();
    for (lock, token, holder, why) in [
        ("0:expired", 1, &other_addr, "it expired"),
        ("0:forced", 2, &me, "an operator ended it"),
        ("0:replaced", 3, &me, "a SET gave the lock to another owner"),
        ("0:tied", 5, &tied_addr, "its session expired or its connection was closed"),
        ("0:closed", 6, &me, "its session was closed"),
        ("0:odd\\xc3\\xbckey", 7, &me, "a DEL or an end in the past ended it"),
    ] {
        let lines = said(&format!("lease ended lock={lock} token={token} holder={holder} why=\"{why}\""));
        assert_eq!(lines.len(), 1, "{lock}: {log}");
    }
    assert_eq!(said("lease ended").len(), 6, "{log}");
    for (wanted, lock, token, holder) in [
        ("release", "0:expired", 1, &other_addr),
        ("renew", "0:forced", 2, &me),
        ("release", "0:replaced", 3, &me),
    ] {
        let message = format!("late {wanted}: the lease had ended lock={lock} token={token} holder={holder}");
        assert_eq!(said(&message).len(), 1, "{message}: {log}");
    }
    assert_eq!(said("the lease had ended").len(), 3, "{log}");
    assert!(!log.contains("s3cret") && !log.contains("an0ther") && !log.contains(&session), "{log}");
}

fn until_free(client: &mut Client, key: &str) {
    while client.line(&format!("FENCE {key}")) != "(nil)" {
        std::thread::yield_now();
    }
}
