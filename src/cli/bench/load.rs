//! The clients of a benchmark: how often and how fast they do their work.
//!
//! Guarantees: every client waits for each reply before its next request. A time counts only if its
//! request succeeded; the first failure ends the benchmark.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::Plan;
use super::work::{Dialect, Locker};
use crate::cli::client::{Failure, Target};
use crate::clock::Clock;
use crate::domain::Timestamp;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Of the times that are reported.
const SIGNIFICANT_DIGITS: u8 = 3;
/// Between two looks at the progress.
const REFRESH: Duration = Duration::from_millis(100);

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Each takes and releases a lock of its own.
    Cycle,
    /// All take and release the same lock.
    Contend,
    /// Each holds a lock of its own and renews it.
    Renew,
}

impl Work {
    pub(super) const ALL: [(&str, Work); 3] =
        [("cycle", Work::Cycle), ("contend", Work::Contend), ("renew", Work::Renew)];

    pub(super) fn named(name: &str) -> Option<Work> {
        Work::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, work)| work)
    }

    pub(super) fn name(self) -> &'static str {
        Work::ALL[self as usize].0
    }

    /// The request whose rate counts.
    pub(super) fn counted(self) -> Request {
        if self == Work::Renew { Request::Renew } else { Request::Acquire }
    }
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Acquire,
    Release,
    Renew,
}

impl Request {
    pub(super) const ALL: [(&str, Request); 3] =
        [("acquire", Request::Acquire), ("release", Request::Release), ("renew", Request::Renew)];
}

/// The times of requests in nanoseconds, by their kind.
#[derive(Default)]
pub(super) struct Times([Option<Histogram<u64>>; Request::ALL.len()]);

impl Times {
    fn record(&mut self, request: Request, nanos: u64) {
        let slot = &mut self.0[request as usize];
        if slot.is_none() {
            *slot = Histogram::new(SIGNIFICANT_DIGITS).ok();
        }
        if let Some(times) = slot {
            // It grows as needed, which fails only for times of centuries.
            let _ = times.record(nanos);
        }
    }

    /// The times of a request; `None` if there was none.
    pub(super) fn of(&self, request: Request) -> Option<&Histogram<u64>> {
        self.0[request as usize].as_ref()
    }

    fn count(&self, request: Request) -> u64 {
        self.of(request).map_or(0, Histogram::len)
    }
}

/// A server under load.
pub(super) struct Side {
    pub(super) name: String,
    clients: Vec<Locker>,
    times: Arc<Mutex<Times>>,
    /// The rate of each turn, per second.
    pub(super) rates: Vec<f64>,
    /// The length of all turns.
    pub(super) elapsed: Duration,
}

impl Side {
    /// Connects the clients.
    pub(super) async fn connect(target: &Target, plan: &Plan) -> Result<Side, Failure> {
        let key = |client: u32| match plan.work {
            Work::Contend => format!("{}:0", plan.prefix).into_bytes(),
            Work::Cycle | Work::Renew => format!("{}:{client}", plan.prefix).into_bytes(),
        };
        let mut clients = Vec::new();
        let mut dialect = None;
        for client in 0..plan.clients {
            let mut connection = target.connect(CONNECT_MAX).await?;
            let dialect = match &dialect {
                Some(dialect) => Dialect::clone(dialect),
                None => {
                    let found = Dialect::of(&mut connection, &key(0)).await;
                    dialect.insert(found.map_err(|failure| failure.at(target.name()))?).clone()
                }
            };
            clients.push(Locker::new(connection, dialect, key(client), client.to_string().into_bytes()));
        }
        let name = target.name().to_owned();
        Ok(Side { name, clients, times: Arc::default(), rates: Vec::new(), elapsed: Duration::ZERO })
    }

    /// Works for this long. Calls `watch` from time to time with the rate up to then.
    pub(super) async fn turn(
        &mut self,
        work: Work,
        length: Duration,
        clock: &Clock,
        watch: impl Fn(&str, f64),
    ) -> Result<(), Failure> {
        let counted_before = self.times.lock().count(work.counted());
        let began = clock.now();
        let ends = Timestamp::from_nanos(began.as_nanos() + u64::try_from(length.as_nanos()).unwrap_or(0));
        let mut running = JoinSet::new();
        for client in self.clients.drain(..) {
            running.spawn(work_until(client, work, ends, clock.clone(), Arc::clone(&self.times)));
        }
        let rate = |times: &Times| {
            let seconds = Duration::from_nanos(clock.now().nanos_since(began).max(1)).as_secs_f64();
            (times.count(work.counted()) - counted_before) as f64 / seconds
        };
        loop {
            tokio::select! {
                joined = running.join_next() => match joined {
                    Some(Ok(client)) => {
                        let client = client.map_err(|failure| failure.at(&self.name))?;
                        self.clients.push(client);
                    }
                    Some(Err(error)) => return Err(Failure::Unavailable(error.to_string())),
                    None => break,
                },
                () = tokio::time::sleep(REFRESH) => watch(&self.name, rate(&self.times.lock())),
            }
        }
        self.rates.push(rate(&self.times.lock()));
        self.elapsed += Duration::from_nanos(clock.now().nanos_since(began));
        Ok(())
    }

    /// Calls `read` with the times of all turns.
    pub(super) fn with_times<R>(&self, read: impl FnOnce(&Times) -> R) -> R {
        read(&self.times.lock())
    }
}

/// Repeats the work of a client until then.
async fn work_until(
    mut client: Locker,
    work: Work,
    ends: Timestamp,
    clock: Clock,
    times: Arc<Mutex<Times>>,
) -> Result<Locker, Failure> {
    let mut last = clock.now();
    let mut record = |request| {
        let now = clock.now();
        times.lock().record(request, now.nanos_since(last));
        last = now;
        now
    };
    if work == Work::Renew {
        client.acquire().await?;
        record(Request::Acquire);
        loop {
            client.renew().await?;
            if record(Request::Renew) >= ends {
                break;
            }
        }
        client.release().await?;
        record(Request::Release);
        return Ok(client);
    }
    loop {
        client.acquire().await?;
        record(Request::Acquire);
        client.release().await?;
        if record(Request::Release) >= ends {
            return Ok(client);
        }
    }
}
