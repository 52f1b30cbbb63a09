//! `MONITOR`: the connection receives every command that the server runs.
//!
//! Guarantees: costs one load per command while there is no monitor. Secrets are not shown. A monitor
//! that does not read fast enough is disconnected. Not here: which arguments are secrets.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::dispatch::find;
use super::pubsub::{Entry, Notice, Via};
use super::steps::{KEY_WORK, work_of_bytes};
use super::{Args, Caller, ClientInfo, Command, CommandError, Context, Flags, Group, OwnedArgs, secrets};
use crate::auth::User;
use crate::reply::Reply;

pub(super) const MONITOR: Command = Command::new("monitor", 1, monitor)
    .group(Group::Server)
    .flags(Flags::ADMIN | Flags::NOSCRIPT | Flags::EVERY_KEY)
    .summary("Sends every command that the server runs to the connection.")
    .example("MONITOR");

/// The connections that monitor the server.
#[derive(Default)]
pub struct Monitors {
    count: AtomicUsize,
    all: Mutex<BTreeMap<u64, Arc<ClientInfo>>>,
}

impl Monitors {
    fn add(&self, info: &Arc<ClientInfo>) {
        let mut all = self.all.lock();
        all.insert(info.id, Arc::clone(info));
        self.count.store(all.len(), Ordering::Relaxed);
    }

    /// Removes a connection, if it is one of them.
    pub(super) fn remove(&self, client: u64) {
        let mut all = self.all.lock();
        all.remove(&client);
        self.count.store(all.len(), Ordering::Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }
}

fn monitor(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    if context.caller != Caller::Connection {
        return Err(CommandError::fixed("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    context.client.is_monitor = true;
    context.server.monitors.add(context.client.info());
    Ok(Reply::OK)
}

/// Whether a user may run MONITOR, also after a change of its rules.
pub(super) fn may_monitor(user: &User) -> bool {
    let request = OwnedArgs::of([MONITOR.name]);
    find(request.as_args()).is_ok_and(|found| found.check(user, request.as_args()).is_ok())
}

/// The line that shows a command.
fn line(context: &Context<'_>, args: Args<'_>) -> String {
    let millis = context.txn.wall_millis();
    let source = match context.caller {
        Caller::Script { .. } => "lua",
        Caller::Connection | Caller::Queue { .. } => &context.client.info().addr,
    };
    let (seconds, micros, database) = (millis / 1000, millis % 1000 * 1000, context.database);
    let mut line = format!("{seconds}.{micros:06} [{database} {source}]");
    for n in 0..args.len() {
        line.push_str(" \"");
        for byte in secrets::shown(args, n) {
            // Writing to a String does not fail.
            let _ = match byte {
                b'\\' | b'"' => write!(line, "\\{}", char::from(*byte)),
                b'\n' => write!(line, "\\n"),
                b'\r' => write!(line, "\\r"),
                b'\t' => write!(line, "\\t"),
                7 => write!(line, "\\a"),
                8 => write!(line, "\\b"),
                b' '..=b'~' => write!(line, "{}", char::from(*byte)),
                _ => write!(line, "\\x{byte:02x}"),
            };
        }
        line.push('"');
    }
    line
}

impl Context<'_> {
    /// Shows a command to all monitors.
    #[cold]
    pub(super) fn show_to_monitors(&mut self, args: Args<'_>) {
        let line = line(self, args).into_bytes();
        let bytes = line.len();
        let notice = Arc::new(Notice { channel: Arc::default(), payload: line.into() });
        let monitors = self.server.monitors.all.lock();
        for info in monitors.values() {
            info.send_message(Entry { via: Via::Monitor, notice: Arc::clone(&notice) });
        }
        let count = monitors.len();
        drop(monitors);
        self.spend(work_of_bytes(bytes) + count * KEY_WORK);
    }
}
