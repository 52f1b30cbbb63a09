//! A server inside the test, and a client that shows every byte of a reply's shape.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use octostore::clock::Clock;
use octostore::config::Config;
use octostore::engine::Engine;
use octostore::journal::{Faults, FaultyBackend, MemoryBackend};
use octostore::server::Server;
use tokio::sync::oneshot;

/// A server on a port of its own, ended when it is dropped.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) clock: Clock,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TestServer {
    /// In memory, with these flags, under a clock that stands still.
    pub(crate) fn manual(flags: &[&str]) -> TestServer {
        TestServer::start(flags, Clock::manual())
    }

    /// In memory, with these flags, in real time.
    pub(crate) fn real(flags: &[&str]) -> TestServer {
        TestServer::start(flags, Clock::system())
    }

    /// In memory and in real time, with storage that fails on command.
    pub(crate) fn on(faults: Arc<Faults>) -> TestServer {
        TestServer::start_on(&["--durability", "always"], Clock::system(), Some(faults))
    }

    fn start(flags: &[&str], clock: Clock) -> TestServer {
        TestServer::start_on(flags, clock, None)
    }

    fn start_on(flags: &[&str], clock: Clock, faults: Option<Arc<Faults>>) -> TestServer {
        let mut all = vec!["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        if !flags.contains(&"--data") && faults.is_none() {
            all.extend(["--durability", "memory"]);
        }
        all.extend(flags);
        let config = Config::with(&all).expect("good flags");
        let (stop, stopped) = oneshot::channel();
        let (started, wait) = std::sync::mpsc::channel();
        let clock_of_server = clock.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let server = match faults {
                    None => Server::start_on(&config, clock_of_server).await,
                    Some(faults) => {
                        let backend = FaultyBackend::new(MemoryBackend::default(), faults);
                        Server::start_with(&config, clock_of_server, || Ok(Box::new(backend))).await
                    }
                }
                .expect("a server");
                started
                    .send((server.address(), server.http_address(), Arc::clone(server.engine())))
                    .expect("a test that waits");
                // A test that is gone wants the end, too.
                server.run(async { stopped.await.unwrap_or(()) }).await;
            });
        });
        let (addr, http, engine) = wait.recv().expect("the server started");
        TestServer { addr, http, engine, clock, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Waits until so many requests queue.
    pub(crate) fn until_waiting(&self, waiting: u64) {
        until(|| self.engine.lock_stats().waiting() == waiting);
    }

    /// Moves a manual clock, and ends what has to end.
    pub(crate) fn advance(&self, millis: u64) {
        self.clock.advance_millis(millis);
        self.engine.expire_due();
    }

    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ended without a panic");
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// Gives other threads their turns until something holds; gives up after a minute.
#[allow(clippy::disallowed_methods)]
pub(crate) fn until(holds: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::yield_now();
    }
}

/// A connection that neither retries nor hides anything.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        // Far longer than anything takes; a test that hangs should say where.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket option");
        Client { reader: BufReader::new(stream) }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("a server that reads");
    }

    pub(crate) fn send(&mut self, words: &[&str]) {
        self.send_bytes(&encode(words));
    }

    /// Sends a request and shows the reply.
    pub(crate) fn call(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.reply()
    }

    /// Splits a line at blanks, sends it and shows the reply.
    pub(crate) fn line(&mut self, line: &str) -> String {
        self.call(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// The next reply, one line for each part of it. "(closed)" if there is none.
    pub(crate) fn reply(&mut self) -> String {
        self.shown(0).unwrap_or_else(|_| "(closed)".to_owned())
    }

    /// What is left until the server closes the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }

    fn shown(&mut self, depth: usize) -> std::io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end_matches("\r\n");
        let (kind, rest) = line.split_at(1);
        let length = || rest.parse::<usize>().ok();
        let text = match kind {
            "+" | "-" | ":" | "_" | "#" | "," => line.to_owned(),
            "$" | "=" if rest == "-1" => "(nil)".to_owned(),
            "*" if rest == "-1" => "(nil array)".to_owned(),
            "$" | "=" => {
                let mut bytes = vec![0; length().expect("a length") + 2];
                self.reader.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                let sign = if kind == "=" { "=" } else { "" };
                format!("{sign}\"{}\"", bytes.escape_ascii())
            }
            "*" | "~" | ">" | "%" => {
                let count = length().expect("a count") * if kind == "%" { 2 } else { 1 };
                let mut text = line.to_owned();
                for _ in 0..count {
                    text.push('\n');
                    text.push_str(&self.shown(depth + 1)?);
                }
                return Ok(indented(&text, depth));
            }
            other => panic!("not a reply: {other}{rest}"),
        };
        Ok(indented(&text, depth))
    }
}

fn indented(text: &str, depth: usize) -> String {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let mut shown = format!("{}{first}", "  ".repeat(depth));
    if !rest.is_empty() {
        shown.push('\n');
        shown.push_str(rest);
    }
    shown
}

pub(crate) fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}
