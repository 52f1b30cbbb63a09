//! Counters and histograms of a running server.
//!
//! Guarantees: an observation costs one or two additions to memory that threads seldom share, and
//! never waits; a reader sees every earlier observation. Not here: labels, formats and
//! clocks.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Number of parts of a counter.
pub const STRIPES: usize = 2 * OWN_STRIPES;
/// Stripes that belong to one thread each: those of the threads that count first, as long as they
/// run. All others share the rest. Without another writer, an addition needs no locked instruction,
/// which costs as much as ten others.
const OWN_STRIPES: usize = 8;

/// Own stripes that no thread has.
static FREE: Mutex<[bool; OWN_STRIPES]> = Mutex::new([true; OWN_STRIPES]);

/// The part of every counter that a thread changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stripe(usize);

thread_local! {
    /// The stripe that this thread holds, where every addition finds it at once.
    static OF_THREAD: Cell<Stripe> = const { Cell::new(Stripe::UNKNOWN) };
    static HELD: HeldStripe = HeldStripe::take();
}

impl Stripe {
    /// The thread has counted nothing yet.
    const UNKNOWN: Stripe = Stripe(STRIPES);

    /// The stripe of this thread.
    #[inline]
    pub fn of_thread() -> Stripe {
        match OF_THREAD.get() {
            Stripe::UNKNOWN => Stripe::take(),
            stripe => stripe,
        }
    }

    #[cold]
    fn take() -> Stripe {
        // A thread that ends has given its stripe back.
        let stripe = HELD.try_with(|held| held.0).unwrap_or(Stripe(STRIPES - 1));
        OF_THREAD.set(stripe);
        stripe
    }

    fn is_own(self) -> bool {
        self.0 < OWN_STRIPES
    }

    /// Changes a number of this stripe unless `change` returns `None`. Returns whether it did.
    pub fn update(self, number: &AtomicU64, change: impl Fn(u64) -> Option<u64>) -> bool {
        if !self.is_own() {
            return number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok();
        }
        let changed = change(number.load(Ordering::Relaxed));
        changed.into_iter().for_each(|changed| number.store(changed, Ordering::Relaxed));
        changed.is_some()
    }

    /// Adds to a number, which must be of this stripe: its threads are the only ones that change it.
    #[inline]
    pub fn add(self, number: &AtomicU64, more: u64) {
        match self.is_own() {
            true => number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed),
            false => add_to_shared(number, more),
        }
    }

    /// Subtracts from a number, which must be of this stripe.
    #[inline]
    pub fn subtract(self, number: &AtomicU64, less: u64) {
        self.add(number, less.wrapping_neg());
    }
}

/// Kept apart from the addition of most threads, which is in many places.
#[cold]
fn add_to_shared(number: &AtomicU64, more: u64) {
    number.fetch_add(more, Ordering::Relaxed);
}

/// The stripe of a thread, given back when the thread ends.
struct HeldStripe(Stripe);

impl HeldStripe {
    fn take() -> HeldStripe {
        static SHARED: AtomicUsize = AtomicUsize::new(0);
        let mut free = FREE.lock();
        let own = free.iter_mut().position(std::mem::take);
        HeldStripe(Stripe(own.unwrap_or_else(|| {
            OWN_STRIPES + SHARED.fetch_add(1, Ordering::Relaxed) % (STRIPES - OWN_STRIPES)
        })))
    }
}

impl Drop for HeldStripe {
    fn drop(&mut self) {
        // What the thread counts from now on, another thread may count, too.
        OF_THREAD.set(Stripe(STRIPES - 1));
        // The lock lets the next thread see what this one has written.
        if let Some(is_free) = FREE.lock().get_mut(self.0.0) {
            *is_free = true;
        }
    }
}

/// Numbers that many threads change and few read: one `T` for each stripe. What is changed together
/// belongs in one of these, where it is side by side in memory.
#[derive(Debug, Default)]
pub struct Striped<T>([CachePadded<T>; STRIPES]);

impl<T> Striped<T> {
    /// The stripe of this thread, and its numbers.
    #[inline]
    pub fn of_thread(&self) -> (Stripe, &T) {
        let stripe = Stripe::of_thread();
        (stripe, &self.0[stripe.0])
    }

    /// The numbers of all stripes.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|numbers| &**numbers)
    }

    /// The sum of one number over all stripes, never below 0. Concurrent changes may be included or
    /// not.
    pub fn sum(&self, number: impl Fn(&T) -> &AtomicU64) -> u64 {
        let parts = self.iter().map(|numbers| number(numbers).load(Ordering::Relaxed));
        let sum = parts.fold(0u64, u64::wrapping_add);
        u64::try_from(sum.cast_signed()).unwrap_or(0)
    }
}

/// A number that many threads change and few read.
#[derive(Debug, Default)]
pub struct Count(Striped<AtomicU64>);

impl Count {
    /// Adds `more`.
    pub fn add(&self, more: u64) {
        let (stripe, number) = self.0.of_thread();
        stripe.add(number, more);
    }

    /// Subtracts `less`.
    pub fn subtract(&self, less: u64) {
        self.add(less.wrapping_neg());
    }

    /// The number, never below 0. Concurrent changes may be included or not.
    pub fn read(&self) -> u64 {
        self.0.sum(|number| number)
    }

    /// Sets it to 0. There must be no concurrent change.
    pub fn clear(&self) {
        self.0.iter().for_each(|number| number.store(0, Ordering::Relaxed));
    }
}

/// Buckets with an upper bound. A larger value is only in the count.
const BUCKETS: usize = 28;

/// A histogram whose bucket bounds double.
#[derive(Debug)]
pub struct Histogram {
    /// The upper bound of the first bucket.
    unit: u64,
    stripes: Box<[CachePadded<Seen>]>,
}

#[derive(Debug)]
struct Seen {
    buckets: [AtomicU64; BUCKETS + 1],
    sum: AtomicU64,
    least: AtomicU64,
    most: AtomicU64,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen {
            buckets: [const { AtomicU64::new(0) }; BUCKETS + 1],
            sum: AtomicU64::new(0),
            least: AtomicU64::new(u64::MAX),
            most: AtomicU64::new(0),
        }
    }
}

impl Seen {
    /// Whether anything was observed.
    fn is_used(&self) -> bool {
        self.most.load(Ordering::Relaxed) > 0 || self.least.load(Ordering::Relaxed) < u64::MAX
    }
}

/// The state of a [`Histogram`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Inclusive upper bounds, each with the number of values up to it and above the bound before.
    /// The last bound is [`u64::MAX`].
    pub buckets: Vec<(u64, u64)>,
    /// Number of values.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The smallest; 0 if there was none.
    pub least: u64,
    /// The largest.
    pub most: u64,
}

impl Histogram {
    fn new(unit: u64) -> Histogram {
        Histogram { unit, stripes: (0..STRIPES).map(|_| CachePadded::default()).collect() }
    }

    /// A histogram of times in nanoseconds: from a microsecond to two minutes.
    pub fn of_times() -> Histogram {
        Histogram::new(1000)
    }

    /// A histogram of counts: from 1 to about 10^8.
    pub fn of_sizes() -> Histogram {
        Histogram::new(1)
    }

    /// Records `value`, observed `times` times.
    pub fn observe(&self, value: u64, times: u64) {
        let stripe = Stripe::of_thread();
        let seen = &self.stripes[stripe.0];
        let bucket = value.div_ceil(self.unit).next_power_of_two().trailing_zeros() as usize;
        stripe.add(&seen.buckets[bucket.min(BUCKETS)], times);
        stripe.add(&seen.sum, value.saturating_mul(times));
        if value > seen.most.load(Ordering::Relaxed) {
            seen.most.fetch_max(value, Ordering::Relaxed);
        }
        if value < seen.least.load(Ordering::Relaxed) {
            seen.least.fetch_min(value, Ordering::Relaxed);
        }
    }

    /// All observations so far.
    pub fn read(&self) -> Observed {
        // Most threads never run most commands.
        let used: Vec<&Seen> =
            self.stripes.iter().map(|seen| &**seen).filter(|seen| seen.is_used()).collect();
        let all = |of: fn(&Seen) -> &AtomicU64| used.iter().map(move |seen| of(seen).load(Ordering::Relaxed));
        let bound = |bucket: usize| if bucket == BUCKETS { u64::MAX } else { self.unit << bucket };
        let in_bucket = |bucket: usize| -> u64 {
            used.iter().map(|seen| seen.buckets[bucket].load(Ordering::Relaxed)).sum()
        };
        let buckets: Vec<(u64, u64)> =
            (0..=BUCKETS).map(|bucket| (bound(bucket), in_bucket(bucket))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Observed {
            buckets,
            count,
            sum: all(|seen| &seen.sum).fold(0, u64::wrapping_add),
            least: if count == 0 { 0 } else { all(|seen| &seen.least).min().unwrap_or(0) },
            most: all(|seen| &seen.most).max().unwrap_or(0),
        }
    }
}

impl Observed {
    /// An upper bound of `hundredths` percent of the values: that of a bucket, or the largest
    /// value.
    pub fn percentile(&self, hundredths: u64) -> u64 {
        self.permille(hundredths * 10)
    }

    /// [`Observed::percentile`] in thousandths.
    pub fn permille(&self, thousandths: u64) -> u64 {
        let wanted = (self.count * thousandths).div_ceil(1000);
        let mut seen = 0;
        for (bound, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return (*bound).min(self.most);
            }
        }
        self.most
    }
}

/// Times and errors of commands, by name.
#[derive(Debug)]
pub struct CommandMetrics {
    /// In the order of the names.
    all: Vec<CommandMetric>,
    /// The position of each name in `all`.
    places: FxHashMap<&'static str, usize>,
}

#[derive(Debug)]
struct CommandMetric {
    name: &'static str,
    times: Histogram,
    errors: AtomicU64,
}

impl CommandMetrics {
    /// Metrics of the commands with these names.
    pub fn of(names: impl IntoIterator<Item = &'static str>) -> CommandMetrics {
        let new = |name| CommandMetric { name, times: Histogram::of_times(), errors: AtomicU64::new(0) };
        let names: BTreeSet<_> = names.into_iter().collect();
        let all: Vec<_> = names.into_iter().map(new).collect();
        let places = all.iter().enumerate().map(|(place, metric)| (metric.name, place)).collect();
        CommandMetrics { all, places }
    }

    /// Records commands whose replies took `nanos` nanoseconds, and empties `counts`.
    pub fn observe(&self, counts: &mut CommandCounts, nanos: u64) {
        for CommandCount { name, runs, errors } in counts.0.drain(..) {
            if let Some(metric) = self.places.get(name).and_then(|place| self.all.get(*place)) {
                metric.times.observe(nanos, runs);
                if errors > 0 {
                    metric.errors.fetch_add(errors, Ordering::Relaxed);
                }
            }
        }
    }

    /// Nanoseconds until the reply, for every command.
    pub fn times(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        self.all.iter().map(|metric| (metric.name, &metric.times))
    }

    /// Number of error replies, for every command.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.all.iter().map(|metric| (metric.name, metric.errors.load(Ordering::Relaxed)))
    }
}

/// Runs of each command in one batch of requests.
#[derive(Debug, Default)]
pub struct CommandCounts(Vec<CommandCount>);

#[derive(Debug)]
struct CommandCount {
    name: &'static str,
    runs: u64,
    errors: u64,
}

impl CommandCounts {
    /// Adds one run of a command.
    pub fn add(&mut self, name: &'static str, is_error: bool) {
        // Names come from one table, so equal names have equal addresses. A batch has few of them.
        match self.0.iter_mut().find(|count| std::ptr::eq(count.name, name)) {
            Some(count) => {
                count.runs += 1;
                count.errors += u64::from(is_error);
            }
            None => self.0.push(CommandCount { name, runs: 1, errors: u64::from(is_error) }),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Connections of one protocol.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    opened: AtomicU64,
    closed: AtomicU64,
    refused: AtomicU64,
    failed_handshakes: AtomicU64,
    /// Bytes read from clients.
    pub received: Count,
    /// Bytes sent to clients.
    pub sent: Count,
}

impl ConnectionMetrics {
    /// Counts an accepted connection.
    pub fn open(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that has ended.
    pub fn close(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that was refused at the limit.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections accepted since the start.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open_now(&self) -> u64 {
        // Read before `opened`, so that no connection counts as closed but not as opened.
        let closed = self.closed.load(Ordering::Relaxed);
        self.opened().saturating_sub(closed)
    }

    /// Counts a TLS handshake that was not completed.
    pub fn fail_handshake(&self) {
        self.failed_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// TLS handshakes that were not completed since the start.
    pub fn failed_handshakes(&self) -> u64 {
        self.failed_handshakes.load(Ordering::Relaxed)
    }

    /// Connections refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Metrics of both protocols.
#[derive(Debug)]
pub struct ServerMetrics {
    /// Commands of Redis clients.
    pub commands: CommandMetrics,
    /// Connections of Redis clients.
    pub redis: Arc<ConnectionMetrics>,
    /// Connections of HTTP clients.
    pub http: Arc<ConnectionMetrics>,
    /// Failed authentications of Redis clients.
    pub failed_logins: Count,
    /// When the server's certificate expires, in seconds since 1970; 0: there is none.
    pub certificate_expires_at: AtomicU64,
    /// `None`: the server is not one of a cluster.
    pub cluster: Option<ClusterMetrics>,
}

/// Metrics of a server of a cluster.
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    /// Leaders that this server has seen, itself included.
    pub leaders: Count,
    /// Connections that this server has passed on to the leader.
    pub forwarded: Count,
    /// What this server has measured of the store, as the leader.
    pub store: Arc<StoreMetrics>,
}

/// Measurements of the store of a cluster, by its leader.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// The size of the store's database in bytes.
    pub database_bytes: AtomicU64,
    /// Batches in the log that are not folded into rows.
    pub log_batches: AtomicU64,
    /// Bytes of them.
    pub log_bytes: AtomicU64,
    /// When the log was last folded, or empty, in seconds since 1970; 0: never.
    pub folded_at: AtomicU64,
}

impl ServerMetrics {
    /// Metrics of a server with these commands.
    pub fn of(commands: impl IntoIterator<Item = &'static str>) -> ServerMetrics {
        let (redis, http) = (Arc::default(), Arc::default());
        let (failed_logins, certificate_expires_at) = (Count::default(), AtomicU64::new(0));
        let commands = CommandMetrics::of(commands);
        ServerMetrics { commands, redis, http, failed_logins, certificate_expires_at, cluster: None }
    }

    /// Days until the server's certificate expires, at this time in milliseconds since 1970;
    /// negative if it has expired. `None`: there is no certificate.
    pub fn certificate_days(&self, wall_millis: u64) -> Option<i64> {
        let expires_at = self.certificate_expiry()?;
        let left = (expires_at.cast_signed()).saturating_sub((wall_millis / 1000).cast_signed());
        Some(left.div_euclid(86_400))
    }

    /// When the server's certificate expires, in seconds since 1970. `None`: there is no certificate.
    pub fn certificate_expiry(&self) -> Option<u64> {
        Some(self.certificate_expires_at.load(Ordering::Relaxed)).filter(|expires_at| *expires_at > 0)
    }
}

/// Resident memory of this process in bytes; `None` if the system does not report it.
pub fn resident_bytes() -> Option<u64> {
    kilobytes_in("/proc/self/status", "VmRSS:")
}

/// Resident memory of this process at its peak.
pub fn peak_resident_bytes() -> Option<u64> {
    kilobytes_in("/proc/self/status", "VmHWM:")
}

/// Memory of this machine in bytes.
pub fn machine_bytes() -> Option<u64> {
    kilobytes_in("/proc/meminfo", "MemTotal:")
}

/// The line with this name of a file that the system provides, in bytes.
fn kilobytes_in(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Processor time of this process in user and in system mode, in seconds.
pub fn cpu_seconds() -> Option<(f64, f64)> {
    /// The unit of these times in user space, on every architecture.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    Some((seconds()?, seconds()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_sums_the_parts_of_all_threads() {
        let count = Count::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| (0..1000).for_each(|_| count.add(3)));
            }
        });
        assert_eq!(count.read(), 6000 * STRIPES as u64);
        // More than this thread's own part.
        count.subtract(count.read() - 1);
        assert_eq!(count.read(), 1);
        count.subtract(5);
        assert_eq!(count.read(), 0);
        count.clear();
        count.add(2);
        assert_eq!(count.read(), 2);
    }

    #[test]
    fn no_number_is_lost_with_the_threads_that_counted() {
        let count = Count::default();
        for _ in 0..20 {
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| (0..100).for_each(|_| count.add(1)));
                }
            });
        }
        assert_eq!(count.read(), 6000);
    }

    #[test]
    fn a_value_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let sizes = Histogram::of_sizes();
        for (value, times) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 1), (5, 1), (u64::MAX / 2, 1)] {
            sizes.observe(value, times);
        }
        let seen = sizes.read();
        assert_eq!(seen.buckets[..4], [(1, 2), (2, 1), (4, 3), (8, 1)]);
        assert_eq!(seen.buckets[BUCKETS], (u64::MAX, 1));
        assert_eq!((seen.count, seen.least, seen.most), (8, 0, u64::MAX / 2));
        assert_eq!((seen.percentile(25), seen.percentile(50), seen.percentile(100)), (1, 4, u64::MAX / 2));
        let times = Histogram::of_times();
        assert_eq!((times.read().least, times.read().percentile(99)), (0, 0));
        times.observe(1000, 1);
        times.observe(1001, 1);
        assert_eq!(times.read().buckets[..2], [(1000, 1), (2000, 1)]);
    }
}
