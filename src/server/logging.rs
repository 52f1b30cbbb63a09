//! Writes the log to stderr.
//!
//! Guarantees: logging never waits for the reader of stderr. Lines go through a queue of bounded
//! size to a thread of their own; lines that do not fit are dropped, and the log says how many. A
//! client cannot fill the log: each call site writes at most one line a second at INFO or worse;
//! the events of the rest of that second become one line with their number and the clients'
//! addresses. Not here: what is logged.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, poll};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::Clock;
use crate::domain::Timestamp;

/// Size of the queue, in bytes. As much again may be in the hands of the writer.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Capacity that an empty queue keeps, in bytes.
const QUEUE_BYTES_KEPT: usize = 64 << 10;
/// How long a flush, or the end of the process, waits for the last lines.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);
/// A call site writes one line within this time.
const WINDOW: Duration = Duration::from_secs(1);
/// Addresses that a summary names.
const CLIENTS_MAX: usize = 4;

/// The log of this process. Dropping it writes what is left, for at most a second.
pub struct Log(Arc<Output>);

/// Sends what is logged at `level` or worse to stderr, panics included. The variable RUST_LOG
/// overrides the level. Fails if the system refuses a thread.
pub fn to_stderr(level: Level) -> io::Result<Log> {
    let output = Output::start(Clock::system(), Box::new(Stderr))?;
    // Libraries tell of every frame; RUST_LOG can ask for that.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},h2=info,hyper_util=info,tonic=info,tower=info")));
    let lines = lines(&output, io::IsTerminal::is_terminal(&io::stderr()));
    // A second call, as in tests, keeps what the first one set up.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    // The default hook writes to stderr itself, and would wait for its reader.
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        match trace.status() {
            std::backtrace::BacktraceStatus::Captured => tracing::error!("{panic}\n{trace}"),
            _ => tracing::error!("{panic}"),
        }
    }));
    Ok(Log(output))
}

/// Formats events as lines of `output`.
fn lines<S>(output: &Arc<Output>, has_colours: bool) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
{
    let writer = Arc::clone(output);
    tracing_subscriber::fmt::layer()
        .with_writer(move || QueueWriter(Arc::clone(&writer)))
        .with_ansi(has_colours)
        .with_target(false)
        .with_filter(OncePerWindow(Arc::clone(output)))
}

impl Log {
    /// Writes a line as it is, after everything that was logged before.
    pub fn print(&self, line: &str) {
        self.0.push(format!("{line}\n").as_bytes());
    }

    /// Waits until everything that was logged before is written, for at most a second.
    pub fn flush(&self) {
        self.0.flush();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The queue between threads that log and the one that writes.
struct Output {
    state: Mutex<State>,
    changed: Condvar,
    clock: Clock,
}

#[derive(Default)]
struct State {
    text: Vec<u8>,
    /// Lines dropped since the writer last took the text.
    dropped: u64,
    windows: Windows,
    /// The writer has taken text and is writing it.
    is_writing: bool,
    is_closing: bool,
    is_done: bool,
}

impl Output {
    fn start(clock: Clock, mut sink: Box<dyn Write + Send>) -> io::Result<Arc<Output>> {
        let output = Arc::new(Output { state: Mutex::default(), changed: Condvar::new(), clock });
        let writer = Arc::clone(&output);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&mut *sink))?;
        Ok(output)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.text.len() + line.len() > QUEUE_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        let was_empty = state.text.is_empty();
        state.text.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.changed.notify_all();
        }
    }

    /// Waits until the queue is written, for at most [`FLUSH_TIME_MAX`].
    fn flush(&self) {
        let is_pending = |state: &mut State| state.is_writing || !state.text.is_empty();
        self.changed.wait_while_for(&mut self.state(), is_pending, FLUSH_TIME_MAX);
    }

    /// Writes what is left, for at most [`FLUSH_TIME_MAX`], and ends the writer.
    fn close(&self) {
        let mut state = self.state();
        state.is_closing = true;
        self.changed.notify_all();
        // If the reader of stderr takes nothing, the last lines are lost.
        self.changed.wait_while_for(&mut state, |state| !state.is_done, FLUSH_TIME_MAX);
    }

    /// The writer's thread. Errors are ignored: there is nowhere to report them.
    fn run(&self, sink: &mut dyn Write) {
        let mut text = Vec::new();
        loop {
            let mut state = self.state();
            let is_idle = |state: &mut State| state.text.is_empty() && !state.is_closing;
            if state.windows.is_empty() {
                self.changed.wait_while(&mut state, is_idle);
            } else {
                self.changed.wait_while_for(&mut state, is_idle, WINDOW);
            }
            std::mem::swap(&mut text, &mut state.text);
            state.is_writing = true;
            let dropped = std::mem::take(&mut state.dropped);
            let is_closing = state.is_closing;
            let summaries = state.windows.end_due(self.clock.now(), is_closing);
            drop(state);
            if dropped > 0 {
                let loss = format!("{dropped} lines dropped: stderr was not read in time");
                text.extend_from_slice(line(Level::WARN, &loss).as_bytes());
            }
            for (level, summary) in summaries {
                text.extend_from_slice(line(level, &summary).as_bytes());
            }
            let _ = sink.write_all(&text);
            text.clear();
            text.shrink_to(QUEUE_BYTES_KEPT);
            let mut state = self.state();
            state.is_writing = false;
            state.is_done = is_closing;
            drop(state);
            self.changed.notify_all();
            if is_closing {
                return;
            }
        }
    }
}

/// A line as the formatter of events writes it.
fn line(level: Level, text: &str) -> String {
    let mut line = String::new();
    // Writing to a String does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut line));
    line.push_str(&format!(" {level:>5} {text}\n"));
    line
}

/// Appends formatted events to the queue.
struct QueueWriter(Arc<Output>);

impl Write for QueueWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error, also if another process has made it non-blocking.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match io::stderr().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&io::stderr(), PollFlags::OUT)], None)?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Passes the first event of a call site within [`WINDOW`], and counts the others.
struct OncePerWindow(Arc<Output>);

impl<S> Filter<S> for OncePerWindow {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let level = *event.metadata().level();
        // Levels below INFO are for debugging; they write every line.
        if level > Level::INFO {
            return true;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = self.0.clock.now();
        self.0.state().windows.admits(event.metadata().callsite(), level, now, fields)
    }
}

/// The parts of an event that a summary uses.
#[derive(Default)]
struct Fields {
    message: String,
    /// The other fields, each with a space in front.
    others: String,
    client: Option<String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let (name, value) = (field.name(), format!("{value:?}"));
        if name == "message" {
            self.message = value;
            return;
        }
        self.others.push_str(&format!(" {name}={value}"));
        if name == "client" || name == "by" {
            // The port does not identify the client.
            let ip = value.parse::<std::net::SocketAddr>().map(|addr| addr.ip().to_string());
            self.client = Some(ip.unwrap_or(value));
        }
    }
}

/// Call sites that have written a line within [`WINDOW`].
#[derive(Default)]
struct Windows(HashMap<Identifier, Window>);

struct Window {
    level: Level,
    began: Timestamp,
    omitted: u64,
    /// Of the latest omitted event: it says what holds now.
    message: String,
    others: String,
    clients: Vec<String>,
    has_more_clients: bool,
}

impl Windows {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an event is written. Counts it otherwise.
    fn admits(&mut self, site: Identifier, level: Level, now: Timestamp, event: Fields) -> bool {
        use std::collections::hash_map::Entry;
        match self.0.entry(site) {
            Entry::Vacant(free) => {
                free.insert(Window::new(level, now));
                true
            }
            Entry::Occupied(mut window) => {
                window.get_mut().count(event);
                false
            }
        }
    }

    /// Ends windows that are over, or all of them. Returns the summaries of those in which events
    /// were left out. A summary is its site's line of the next window, which begins now.
    fn end_due(&mut self, now: Timestamp, all: bool) -> Vec<(Level, String)> {
        let mut summaries = Vec::new();
        self.0.retain(|_, window| {
            if !all && u128::from(now.millis_since(window.began)) < WINDOW.as_millis() {
                return true;
            }
            if window.omitted == 0 {
                return false;
            }
            let ended = std::mem::replace(window, Window::new(window.level, now));
            summaries.push((ended.level, ended.summary()));
            true
        });
        summaries
    }
}

impl Window {
    fn new(level: Level, began: Timestamp) -> Window {
        let (message, others, clients) = (String::new(), String::new(), Vec::new());
        Window { level, began, omitted: 0, message, others, clients, has_more_clients: false }
    }

    fn count(&mut self, event: Fields) {
        self.omitted += 1;
        (self.message, self.others) = (event.message, event.others);
        match event.client {
            Some(client) if self.clients.contains(&client) => {}
            Some(client) if self.clients.len() < CLIENTS_MAX => self.clients.push(client),
            Some(_) => self.has_more_clients = true,
            None => {}
        }
    }

    /// A single event as it is; of several, the message of the latest, their number and clients.
    fn summary(&self) -> String {
        if self.omitted == 1 {
            return format!("{}{}", self.message, self.others);
        }
        let clients = match self.clients.join(", ") {
            clients if clients.is_empty() => clients,
            clients if self.has_more_clients => format!("; clients {clients} and others"),
            clients => format!("; clients {clients}"),
        };
        format!("{} (the latest of {}{clients})", self.message, self.omitted)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes a text each time the test allows it.
    struct Slow {
        may_write: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The test is over when it drops its side.
            let _ = self.may_write.recv();
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Arc<Output>, Arc<Mutex<Vec<u8>>>, mpsc::Sender<()>) {
        let (allow, may_write) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Slow { may_write, written: Arc::clone(&written) };
        (Output::start(Clock::manual(), Box::new(sink)).unwrap(), written, allow)
    }

    fn text(written: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(written.lock().clone()).unwrap()
    }

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_counted() {
        let (output, written, allow) = output();
        let line = [b'x'; 1023].iter().chain(b"\n").copied().collect::<Vec<u8>>();
        let lines = QUEUE_BYTES_MAX / line.len() * 3;
        // Nothing is read meanwhile, and every push returns.
        (0..lines).for_each(|_| output.push(&line));
        drop(allow);
        output.close();
        let text = text(&written);
        let kept = text.lines().filter(|line| line.starts_with('x')).count();
        // The writer may have taken a full queue before it was blocked: then there are two losses.
        let losses =
            text.lines().filter_map(|line| line.split_once(" WARN ")?.1.split_once(" lines dropped"));
        let dropped: usize = losses.map(|(number, _)| number.parse::<usize>().unwrap()).sum();
        assert_eq!(dropped, lines - kept, "{kept} of {lines}");
        assert!((lines / 3..=lines / 3 * 2).contains(&kept), "{kept} of {lines}");
    }

    #[test]
    fn a_flush_returns_once_the_lines_before_it_are_written() {
        let (output, written, allow) = output();
        output.push(b"before\n");
        allow.send(()).unwrap();
        output.flush();
        assert_eq!(text(&written), "before\n");
        output.flush();
        drop(allow);
    }

    #[test]
    fn a_queue_that_nothing_reads_does_not_delay_the_end_for_long() {
        let (output, written, allow) = output();
        output.push(b"never read\n");
        output.close();
        assert_eq!(text(&written), "");
        drop(allow);
    }

    #[test]
    fn a_call_site_writes_one_line_a_second_and_a_summary() {
        let (output, written, allow) = output();
        drop(allow);
        let subscriber = tracing_subscriber::registry().with(lines(&output, false));
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..10_000 {
                tracing::warn!(client = %format!("10.0.0.{}:{n}", n % 2), "wrong");
            }
            for n in 0..10 {
                tracing::info!(client = %format!("[::{n:x}]:1"), "other");
                tracing::info!("state {n}");
                tracing::debug!(n, "every one");
            }
            tracing::error!("rare");
        });
        output.clock.advance_millis(1000);
        output.close();
        let text = text(&written);
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        assert_eq!(
            (count("wrong"), count("other"), count("every one"), count("rare")),
            (2, 2, 10, 1),
            "{text}"
        );
        assert!(text.contains(" WARN wrong client=10.0.0.0:0\n"), "{text}");
        assert!(text.contains(" WARN wrong (the latest of 9999; clients 10.0.0.1, 10.0.0.0)\n"), "{text}");
        assert!(text.contains(" INFO state 0\n"), "{text}");
        assert!(text.contains(" INFO state 9 (the latest of 9)\n"), "{text}");
        assert!(
            text.contains(" INFO other (the latest of 9; clients ::1, ::2, ::3, ::4 and others)\n"),
            "{text}"
        );
    }

    #[test]
    fn a_window_ends_after_its_time_and_not_before() {
        fn site() -> Identifier {
            static CALLSITE: tracing::callsite::DefaultCallsite = {
                static META: Metadata<'static> = tracing::metadata! {
                    name: "test", target: "test", level: Level::WARN,
                    fields: tracing::fieldset!("message"), callsite: &CALLSITE,
                    kind: tracing::metadata::Kind::EVENT,
                };
                tracing::callsite::DefaultCallsite::new(&META)
            };
            tracing::callsite::Identifier(&CALLSITE)
        }
        let clock = Clock::manual();
        let mut windows = Windows::default();
        let event = || Fields { message: "m".to_owned(), others: " key=1".to_owned(), client: None };
        let admits = |windows: &mut Windows| windows.admits(site(), Level::WARN, clock.now(), event());
        assert!(admits(&mut windows) && !admits(&mut windows));
        clock.advance_millis(999);
        assert_eq!(windows.end_due(clock.now(), false), []);
        clock.advance_millis(1);
        assert_eq!(windows.end_due(clock.now(), false), [(Level::WARN, "m key=1".to_owned())]);
        // The summary was this second's line.
        assert!(!admits(&mut windows));
        clock.advance_millis(1000);
        assert_eq!(windows.end_due(clock.now(), false).len(), 1);
        clock.advance_millis(1000);
        assert_eq!(windows.end_due(clock.now(), false), []);
        assert!(windows.is_empty() && admits(&mut windows));
    }
}
