//! A real redis-server for tests that compare with it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::support::client::Client;
use crate::support::transcript::resp::Answers;
use crate::support::until;

/// A real redis-server without persistence, killed when it is dropped.
pub(super) struct Redis {
    child: Child,
    pub(super) addr: SocketAddr,
    flags: Vec<String>,
    /// Where it would find the files of another one otherwise.
    _dir: tempfile::TempDir,
}

impl Redis {
    /// The version that is installed, if any.
    pub(super) fn version() -> Option<String> {
        let output = Command::new("redis-server").arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(text.split_once("v=")?.1.split_whitespace().next()?.to_owned())
    }

    /// The reason to skip a comparison: there is no redis-server 7. Panics where one is demanded.
    pub(super) fn is_missing() -> bool {
        let version = Redis::version();
        if version.as_deref().is_some_and(|version| version.starts_with("7.")) {
            return false;
        }
        let is_demanded = std::env::var_os("PEERS_DEMANDED").is_some();
        assert!(!is_demanded, "there is no redis-server 7 here, but {version:?}");
        println!("skipped: there is no redis-server 7 here, but {version:?}");
        true
    }

    pub(super) fn start(flags: &[&str]) -> Redis {
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
    pub(super) fn control(&self) -> Client {
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
