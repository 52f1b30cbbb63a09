//! A server inside the test process.

use std::net::SocketAddr;
use std::sync::Arc;

use octostore::clock::Clock;
use octostore::config::Config;
use octostore::engine::Engine;
use octostore::journal::{Faults, FaultyBackend, MemoryBackend};
use octostore::server::Server;
use tokio::sync::oneshot;

use super::client::Client;
use super::until;

/// A server on ephemeral ports, stopped when dropped.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) clock: Clock,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TestServer {
    /// In memory, with `flags`, on a manual clock.
    pub(crate) fn manual(flags: &[&str]) -> TestServer {
        TestServer::start(flags, Clock::manual())
    }

    /// In memory, with `flags`, in real time.
    pub(crate) fn real(flags: &[&str]) -> TestServer {
        TestServer::start(flags, Clock::system())
    }

    /// In memory and in real time, with storage that fails on command.
    pub(crate) fn on(faults: Arc<Faults>) -> TestServer {
        TestServer::on_with(faults, &["--allow-flush"])
    }

    /// [`TestServer::on`] with `flags`.
    pub(crate) fn on_with(faults: Arc<Faults>, flags: &[&str]) -> TestServer {
        let flags = [&["--durability", "always"], flags].concat();
        TestServer::start_on(&flags, Clock::system(), Some(faults))
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
                    .send((
                        [Some(server.address()), server.http_address()],
                        [server.tls_address(), server.https_address()],
                        Arc::clone(server.engine()),
                    ))
                    .expect("a test that waits");
                // A dropped sender stops the server, too.
                server.run(async { stopped.await.unwrap_or(()) }).await;
            });
        });
        let ([addr, http], [tls, https], engine) = wait.recv().expect("the server started");
        let addr = addr.expect("an address");
        TestServer { addr, http, tls, https, engine, clock, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// The number of requests that wait for locks or elements.
    pub(crate) fn waiting(&self) -> u64 {
        self.engine.lock_stats().waiting() + self.engine.blocked_pops() as u64
    }

    /// Waits until `waiting` requests wait.
    pub(crate) fn until_waiting(&self, waiting: u64) {
        until(|| self.waiting() == waiting);
    }

    /// Advances a manual clock and expires what is due.
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
