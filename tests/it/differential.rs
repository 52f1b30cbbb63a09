//! Scripts to which octostore must reply as Redis 7 does, run by octostore and, if it is installed,
//! by a real redis-server. `UPDATE_SCRIPTS=1 cargo test differential` records the replies of Redis.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::support::client::Client;
use crate::support::server::TestServer;
use crate::support::transcript::check;
use crate::support::transcript::resp::{Answers, RespSession};
use crate::support::until;

const SCRIPTS: &str = "tests/it/redis";
/// What lock libraries send.
const LIBRARIES: &str = "tests/it/redis/libraries";

/// A real redis-server without persistence, killed when it is dropped.
struct Redis {
    child: Child,
    addr: SocketAddr,
    flags: Vec<String>,
    /// Where it would find the files of another one otherwise.
    _dir: tempfile::TempDir,
}

impl Redis {
    /// The version that is installed, if any.
    fn version() -> Option<String> {
        let output = Command::new("redis-server").arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(text.split_once("v=")?.1.split_whitespace().next()?.to_owned())
    }

    fn start(flags: &[&str]) -> Redis {
        let dir = tempfile::tempdir().expect("a folder");
        // It cannot choose a port by itself: another program may take this one first.
        let started = (0..10).find_map(|_| {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let addr = free.local_addr().expect("its number");
            drop(free);
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &addr.port().to_string()]);
            command.arg("--dir").arg(dir.path());
            command.args(["--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]);
            let child = command.args(flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let mut child = child.expect("redis-server");
            let mut has_ended = || child.try_wait().expect("its state").is_some();
            loop {
                if TcpStream::connect(addr).is_ok() {
                    return Some((child, addr));
                }
                if has_ended() {
                    return None;
                }
                std::thread::yield_now();
            }
        });
        let (child, addr) = started.expect("a redis-server that starts");
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let redis = Redis { child, addr, flags, _dir: dir };
        // An expired key stays until a client reads it.
        assert_eq!(redis.control().line("DEBUG SET-ACTIVE-EXPIRE 0"), "+OK");
        redis
    }

    /// A connection without restrictions.
    fn control(&self) -> Client {
        let mut client = Client::connect(self.addr);
        if let [flag, password] = &self.flags[..]
            && flag == "--requirepass"
        {
            assert_eq!(client.call(&["AUTH", password]), "+OK");
        }
        client
    }
}

impl Answers for Redis {
    fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    fn advance(&self, millis: u64) {
        let control = std::cell::RefCell::new(self.control());
        let micros = || {
            let time = control.borrow_mut().line("TIME");
            let mut parts = time.lines().skip(1).map(|part| part.trim().trim_matches('"').parse::<u64>());
            let mut part = || parts.next().expect("a part").expect("a number");
            part() * 1_000_000 + part()
        };
        let end = micros() + millis * 1000;
        until(|| micros() > end);
    }

    fn waiting(&self) -> u64 {
        let clients = self.control().line("INFO clients");
        let count = clients.split_once("blocked_clients:").and_then(|(_, rest)| rest.split_once('\\'));
        count.expect("a field of INFO").0.parse().expect("a number")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn octostore_answers_as_redis_does() {
    let start = |flags: &[&str]| {
        let server = TestServer::manual(&[flags, &["--allow-flush"]].concat());
        // Times of today, as Redis has them.
        server.clock.step_wall_to(1_700_000_000_000);
        RespSession::new(server)
    };
    if std::env::var_os("UPDATE_SCRIPTS").is_none() {
        assert!(check(SCRIPTS, start) >= 5, "the scripts are there");
        assert!(check(LIBRARIES, start) >= 5, "the scripts are there");
    }
}

#[test]
fn redis_itself_answers_as_written() {
    match Redis::version() {
        Some(version) if version.starts_with("7.") => {
            for folder in [SCRIPTS, LIBRARIES] {
                check(folder, |flags| RespSession::new(Redis::start(flags)));
            }
        }
        found => {
            let is_demanded = std::env::var_os("PEERS_DEMANDED").is_some();
            assert!(!is_demanded, "there is no redis-server 7 here, but {found:?}");
            println!("skipped: there is no redis-server 7 here, but {found:?}");
        }
    }
}

/// The fields of a line of CLIENT LIST in Redis 7.4, in order.
const CLIENT_FIELDS: &str = "id addr laddr fd name age idle flags db sub psub ssub multi watch qbuf qbuf-free argv-mem multi-mem rbs \
                             rbp obl oll omem tot-mem events cmd user redir resp lib-name lib-ver";

fn check_client_lines(client: &mut Client) {
    for (request, command) in [("CLIENT LIST", "client|list"), ("client info", "client|info")] {
        let line = client.line(request);
        let line = line.trim_matches('"').trim_end_matches("\\n");
        let mut known = CLIENT_FIELDS.split_whitespace();
        let mut fields = line.split(' ').map(|field| field.split_once('=').expect("a field"));
        assert!(fields.clone().all(|(name, _)| known.any(|known| known == name)), "in another order: {line}");
        assert_eq!(fields.find(|(name, _)| *name == "cmd"), Some(("cmd", command)), "{line}");
    }
    assert_eq!(client.line("MULTI"), "+OK");
    assert_eq!(client.line("CLIENT INFO"), "+QUEUED");
    assert!(client.line("EXEC").contains(" cmd=exec "));
}

#[test]
fn client_list_has_the_fields_of_redis_in_order() {
    check_client_lines(&mut TestServer::manual(&[]).connect());
    if Redis::version().is_some_and(|version| version.starts_with("7.")) {
        check_client_lines(&mut Redis::start(&[]).control());
    }
}
