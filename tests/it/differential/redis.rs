//! A real redis-server for tests that compare with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use crate::support::client::Client;
use crate::support::peers::skip;
use crate::support::port::{answers_with, free_port};
use crate::support::transcript::resp::Answers;
use crate::support::until;

/// A real redis-server without persistence, killed when it is dropped.
pub(crate) struct Redis {
    child: Child,
    pub(crate) addr: SocketAddr,
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
    pub(crate) fn is_missing() -> bool {
        let version = Redis::version();
        if version.as_deref().is_some_and(|version| version.starts_with("7.")) {
            return false;
        }
        skip(&format!("there is no redis-server 7 here, but {version:?}"));
        true
    }

    pub(crate) fn start(flags: &[&str]) -> Redis {
        let dir = tempfile::tempdir().expect("a folder");
        let login = password_in(flags).map_or_else(String::new, |password| format!("AUTH {password}\r\n"));
        let request = format!("{login}INFO server\r\nQUIT\r\n");
        let started = (0..10).find_map(|_| {
            let port = free_port();
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.arg("--dir").arg(dir.path());
            command.args(["--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]);
            let child = command.args(flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let mut child = child.expect("redis-server");
            let process = format!("process_id:{}\r\n", child.id());
            while !answers_with(port, &request, &process) {
                if child.try_wait().expect("its state").is_some() {
                    return None;
                }
                std::thread::yield_now();
            }
            Some((child, port))
        });
        let (child, port) = started.expect("a redis-server that starts");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let redis = Redis { child, addr, flags, _dir: dir };
        // An expired key stays until a client reads it.
        assert_eq!(redis.control().line("DEBUG SET-ACTIVE-EXPIRE 0"), "+OK");
        redis
    }

    /// A connection without restrictions.
    pub(crate) fn control(&self) -> Client {
        let mut client = Client::connect(self.addr);
        if let Some(password) = password_in(&self.flags) {
            assert_eq!(client.call(&["AUTH", password]), "+OK");
        }
        client
    }
}

/// The password that these flags set.
fn password_in(flags: &[impl AsRef<str>]) -> Option<&str> {
    match flags {
        [flag, password] if flag.as_ref() == "--requirepass" => Some(password.as_ref()),
        _ => None,
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
