//! A well-behaved client that measures how long it waits for its turn.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::world::Line;
use super::{STOPPED, TICK};
use crate::support::client::encode;

/// A well-behaved client, and how long it waited.
pub(super) struct Probe {
    shared: Arc<ProbeShared>,
    thread: Option<JoinHandle<()>>,
}

struct ProbeShared {
    base: Instant,
    is_over: AtomicBool,
    /// When the request that is under way was sent (`MAX`: there is none), and the longest wait,
    /// both in microseconds.
    sent: AtomicU64,
    longest: AtomicU64,
    answered: AtomicU64,
}

impl ProbeShared {
    fn micros(&self) -> u64 {
        self.base.elapsed().as_micros() as u64
    }
}

/// How long threads were ready to run and had no processor: a busy machine's fault, not the
/// server's.
struct ProcessorWaits {
    server: Vec<std::fs::File>,
    own: Option<std::fs::File>,
}

impl ProcessorWaits {
    /// Of all threads of a process, and of this one. Where the system does not count it, there is
    /// none.
    fn of(process: u32) -> ProcessorWaits {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let open = |path: std::path::PathBuf| std::fs::File::open(path.join("schedstat")).ok();
        let server = tasks.filter_map(|task| open(task.path())).collect();
        ProcessorWaits { server, own: open("/proc/thread-self".into()) }
    }

    fn read(&self) -> (Vec<u64>, u64) {
        let nanos = |file: &std::fs::File| {
            let mut text = [0; 64];
            let length = std::os::unix::fs::FileExt::read_at(file, &mut text, 0).unwrap_or(0);
            let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
            text.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
        };
        (self.server.iter().map(nanos).collect(), self.own.as_ref().map_or(0, nanos))
    }

    /// Microseconds since an earlier reading: those of the thread that waited most, and this one's.
    fn since(&self, (server, own): &(Vec<u64>, u64)) -> u64 {
        let (server_now, own_now) = self.read();
        let most = server_now.iter().zip(server).map(|(now, before)| now.saturating_sub(*before)).max();
        (most.unwrap_or(0) + own_now.saturating_sub(*own)) / 1000
    }
}

impl Probe {
    pub(super) fn start(addr: SocketAddr, process: u32) -> Probe {
        let shared = Arc::new(ProbeShared {
            base: Instant::now(),
            is_over: AtomicBool::new(false),
            sent: AtomicU64::new(u64::MAX),
            longest: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        });
        let mut line = Line::connect(addr);
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let shared = of_thread;
            let requests: [(&[&str], &[u8]); 3] = [
                (&["PING"], b"+PONG\r\n"),
                (&["LOCK", "probe", "me", "EX", "60"], b"\r\n"),
                (&["UNLOCK", "probe", "me"], b"\r\n"),
            ];
            let requests = requests.map(|(words, end)| (encode(words), end));
            let processor = ProcessorWaits::of(process);
            while !shared.is_over.load(Ordering::Acquire) {
                for (request, end) in &requests {
                    let before = processor.read();
                    let sent = shared.micros();
                    shared.sent.store(sent, Ordering::Release);
                    if line.0.write_all(request).is_err() {
                        return;
                    }
                    // As long as any refusal.
                    let mut reply = [0; 1024];
                    match line.0.read(&mut reply) {
                        Ok(length @ 1..) => {
                            assert!(reply[..length].ends_with(end), "{:?}", reply.escape_ascii())
                        }
                        _ => return,
                    }
                    let waited = (shared.micros() - sent).saturating_sub(processor.since(&before));
                    shared.longest.fetch_max(waited, Ordering::AcqRel);
                    shared.sent.store(u64::MAX, Ordering::Release);
                    shared.answered.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        Probe { shared, thread: Some(thread) }
    }

    /// The longest wait since it was started, that of the request under way included.
    pub(super) fn longest(&self) -> Duration {
        let under_way = self.shared.micros().saturating_sub(self.shared.sent.load(Ordering::Acquire));
        Duration::from_micros(self.shared.longest.load(Ordering::Acquire).max(under_way))
    }

    /// Waits for the request that is under way and for one of each kind after it, unless the server
    /// has stopped.
    pub(super) fn finish(&self) {
        let answered = self.shared.answered.load(Ordering::Acquire);
        let began = Instant::now();
        while self.shared.answered.load(Ordering::Acquire) < answered + 4 && began.elapsed() < 2 * STOPPED {
            std::thread::park_timeout(TICK);
        }
    }

    pub(super) fn stop(mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a probe that is answered");
        }
    }
}
