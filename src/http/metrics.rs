//! The metrics, in the text formats of Prometheus and as JSON.
//!
//! Guarantees: every label comes from a closed set, such as the names of commands and of endpoints.
//! Not here: names of locks, owners and clients.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

use super::{HttpState, text_format};
use crate::metrics::{ClusterMetrics, Histogram, Observed, resident_bytes};

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The format that Prometheus had before, which more tools read.
    Plain,
}

impl TextFormat {
    /// The format for a client that accepts these media types, in lower case.
    pub(super) fn accepted(media_types: &str) -> TextFormat {
        match media_types.contains("application/openmetrics-text") {
            true => TextFormat::OpenMetrics,
            false => TextFormat::Plain,
        }
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            TextFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            TextFormat::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Routes that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Acquire,
    Renew,
    Release,
    Status,
    List,
    Watch,
    Session,
    Keys,
    Service,
    Other,
}

impl Endpoint {
    const ALL: [Endpoint; 10] = [
        Endpoint::Acquire,
        Endpoint::Renew,
        Endpoint::Release,
        Endpoint::Status,
        Endpoint::List,
        Endpoint::Watch,
        Endpoint::Session,
        Endpoint::Keys,
        Endpoint::Service,
        Endpoint::Other,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Endpoint::Acquire => "acquire",
            Endpoint::Renew => "renew",
            Endpoint::Release => "release",
            Endpoint::Status => "status",
            Endpoint::List => "list",
            Endpoint::Watch => "watch",
            Endpoint::Session => "session",
            Endpoint::Keys => "keys",
            Endpoint::Service => "service",
            Endpoint::Other => "other",
        }
    }
}

struct EndpointMetrics {
    times: Histogram,
    errors: AtomicU64,
}

impl Default for EndpointMetrics {
    fn default() -> EndpointMetrics {
        EndpointMetrics { times: Histogram::of_times(), errors: AtomicU64::new(0) }
    }
}

/// Metrics of requests.
#[derive(Default)]
pub(super) struct HttpMetrics {
    endpoints: [EndpointMetrics; Endpoint::ALL.len()],
}

impl HttpMetrics {
    /// Records a response that took `nanos` nanoseconds.
    pub(super) fn record(&self, endpoint: Endpoint, nanos: u64, is_error: bool) {
        let metrics = &self.endpoints[endpoint as usize];
        metrics.times.observe(nanos, 1);
        metrics.errors.fetch_add(u64::from(is_error), Ordering::Relaxed);
    }

    /// Number of requests since the start.
    pub(super) fn requests(&self) -> u64 {
        self.endpoints.iter().map(|metrics| metrics.times.read().count).sum()
    }
}

/// All metrics, as Prometheus scrapes them.
pub(super) fn as_text(state: &Arc<HttpState>, format: TextFormat) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("octostore");
    registry.register_collector(Box::new(All(Arc::clone(state))));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(match format {
        TextFormat::OpenMetrics => out,
        TextFormat::Plain => text_format::plain(&out),
    })
}

struct All(Arc<HttpState>);

impl fmt::Debug for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("All")
    }
}

/// The histograms of a family that have observed anything.
fn observed<'h>(
    all: impl Iterator<Item = (&'static str, &'h Histogram)>,
) -> impl Iterator<Item = (&'static str, Observed)> {
    all.map(|(name, times)| (name, times.read())).filter(|(_, observed)| observed.count > 0)
}

/// Writes metrics one by one.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn times(&mut self, name: &str, help: &str, seen: &Histogram) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let (sum, count, buckets) = in_seconds(&seen.read());
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    /// One histogram for each value of a label.
    fn labelled_times(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        all: impl Iterator<Item = (&'static str, Observed)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (value, observed) in all {
            let (sum, count, buckets) = in_seconds(&observed);
            let labels = [(label, value)];
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn labelled_counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        all: impl Iterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in all {
            let labels = [(label, value)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}

fn in_seconds(seen: &Observed) -> (f64, u64, Vec<(f64, u64)>) {
    const NANOS: f64 = 1e9;
    (seen.sum as f64 / NANOS, seen.count, bounds(seen, NANOS))
}

fn bounds(seen: &Observed, unit: f64) -> Vec<(f64, u64)> {
    let bound = |bound: u64| if bound == u64::MAX { f64::INFINITY } else { bound as f64 / unit };
    seen.buckets.iter().map(|(upper, count)| (bound(*upper), *count)).collect()
}

impl Collector for All {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.locks(&mut out)?;
        self.requests(&mut out)?;
        self.journal(&mut out)?;
        if let Some(metrics) = &self.0.server_metrics.cluster {
            self.cluster(&mut out, metrics)?;
        }
        self.process(&mut out)
    }
}

impl All {
    fn locks(&self, out: &mut Out<'_>) -> fmt::Result {
        let engine = &self.0.engine;
        let stats = engine.lock_stats();
        let limits = engine.config();
        out.gauge("leases", "Leases held", stats.leases())?;
        out.gauge("leases_max", "Limit of leases (--locks-max)", limits.locks_max)?;
        let values = engine.value_stats();
        out.gauge("values", "Hashes, sets, sorted sets and lists", values.values())?;
        out.gauge("values_bytes", "Memory of all values", values.bytes())?;
        let help = "Limit of the memory of all values (--values-bytes-max)";
        out.gauge("values_bytes_max", help, limits.values_bytes_max)?;
        out.counter("value_expiries", "Values that reached their deadline", values.expiries.read())?;
        out.gauge("queue_length", "Requests that wait for a lock", stats.waiting())?;
        out.gauge("sessions", "Sessions open", engine.sessions() as u64)?;
        out.gauge("watchers", "Streams of lock events over HTTP", self.0.watchers.len() as u64)?;
        out.gauge(
            "last_fencing_token",
            "The latest fencing token",
            (engine.next_token() - 1).unsigned_abs(),
        )?;
        let totals = stats.totals();
        for (name, help, total) in [
            ("grants", "Locks granted to an owner that did not hold them", totals.grants),
            ("repeats", "Locks granted again to the owner that held them", totals.repeats),
            ("refusals", "Requests that were not granted and did not wait", totals.refusals),
            ("renewals", "Renewals, also those that left the deadline as it was", totals.renewals),
            ("releases", "Leases released by their owner or deleted by a client", totals.releases),
            ("session_ends", "Leases ended with their session", totals.session_ends),
            ("expiries", "Leases that reached their deadline", totals.expiries),
            ("forced_ends", "Leases ended by an operator", totals.forced),
            ("replaced_ends", "Leases ended by a SET of another owner", totals.replaced),
            ("waits", "Requests that queued", totals.waits),
            ("wait_timeouts", "Requests whose WAIT time ended", totals.wait_timeouts),
        ] {
            out.counter(name, help, total)?;
        }
        out.times("wait", "Time that granted requests had waited", &stats.waiting_times)?;
        out.times("hold", "Time for which ended leases were held", &stats.hold_times)?;
        let late = [("release", &stats.late_releases), ("renew", &stats.late_renewals)];
        let help = "How long after the end of its lease an owner came back to release or renew it";
        // Also without observations: an alert on an increase must not miss the first one.
        let late = late.into_iter().map(|(wanted, times)| (wanted, times.read()));
        out.labelled_times("late_owner", help, "wanted", late)
    }

    fn requests(&self, out: &mut Out<'_>) -> fmt::Result {
        let server = &self.0.server_metrics;
        let help = "Time from reading a command to its durable answer; without waiting for a lock";
        out.labelled_times("command", help, "command", observed(server.commands.times()))?;
        let help = "Commands answered with an error";
        out.labelled_counters("command_errors", help, "command", server.commands.errors())?;
        let failed = [("redis", &server.failed_logins), ("http", &self.0.users.failed_logins)];
        let failed = failed.into_iter().map(|(protocol, failed)| (protocol, failed.read()));
        let help = "Wrong passwords, tokens and keys that clients gave";
        out.labelled_counters("failed_logins", help, "protocol", failed)?;
        let http = &self.0.metrics.endpoints;
        let all = || Endpoint::ALL.into_iter().map(|endpoint| (endpoint.as_str(), &http[endpoint as usize]));
        let help = "Time from reading an HTTP request to its answer";
        let times = observed(all().map(|(name, metrics)| (name, &metrics.times)));
        out.labelled_times("http_request", help, "endpoint", times)?;
        let errors = all().map(|(name, seen)| (name, seen.errors.load(Ordering::Relaxed)));
        out.labelled_counters(
            "http_request_errors",
            "HTTP requests answered with an error",
            "endpoint",
            errors,
        )?;
        let sides = [("redis", &server.redis), ("http", &server.http)];
        let mut metric =
            out.0.encode_descriptor("connections", "Connections open", None, MetricType::Gauge)?;
        for (name, connections) in sides {
            let open = i64::try_from(connections.open_now()).unwrap_or(i64::MAX);
            metric.encode_family(&[("protocol", name)])?.encode_gauge(&open)?;
        }
        let opened = sides.into_iter().map(|(name, connections)| (name, connections.opened()));
        out.labelled_counters("connections_accepted", "Connections accepted", "protocol", opened)?;
        let refused = sides.into_iter().map(|(name, connections)| (name, connections.refused()));
        out.labelled_counters(
            "connections_refused",
            "Connections refused at the limit",
            "protocol",
            refused,
        )?;
        let failed = sides.into_iter().map(|(name, connections)| (name, connections.failed_handshakes()));
        let help = "TLS handshakes that were not completed";
        out.labelled_counters("tls_handshakes_failed", help, "protocol", failed)?;
        let Some(expiry) = server.certificate_expiry() else { return Ok(()) };
        let help = "When the server's certificate expires, in seconds since 1970";
        out.gauge("tls_certificate_expiry_timestamp_seconds", help, expiry)
    }

    fn process(&self, out: &mut Out<'_>) -> fmt::Result {
        let help = "Version of the server";
        let mut metric = out.0.encode_descriptor("build_info", help, None, MetricType::Gauge)?;
        metric.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1_i64)?;
        let is_leader = u64::from(!self.0.membership.is_standby);
        out.gauge("leader", "1: this server serves locks. 0: it stands by for another one", is_leader)?;
        out.gauge("uptime_seconds", "Seconds since the start", self.0.uptime_seconds())?;
        out.gauge("resident_memory_bytes", "Resident memory", resident_bytes().unwrap_or(0))
    }

    fn journal(&self, out: &mut Out<'_>) -> fmt::Result {
        let engine = &self.0.engine;
        let is_up = u64::from(engine.journal_down().is_none());
        out.gauge("journal_up", "1: commits work. 0: nothing can be changed", is_up)?;
        let commits = engine.commit_metrics();
        out.times("commit", "Time that commits took", &commits.times)?;
        let seen = commits.sizes.read();
        let help = "Records in one commit";
        let mut metric = out.0.encode_descriptor("commit_records", help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(seen.sum as f64, seen.count, &bounds(&seen, 1.0), None)
    }
}

impl All {
    fn cluster(&self, out: &mut Out<'_>, metrics: &ClusterMetrics) -> fmt::Result {
        let membership = &self.0.membership;
        let topology = membership.topology.read();
        let has_leader = u64::from(topology.leader.is_some());
        out.gauge("cluster_has_leader", "1: this server knows a leader", has_leader)?;
        out.gauge(
            "cluster_servers",
            "Servers that are registered in the store",
            topology.nodes.len() as u64,
        )?;
        let help = "1: this server is registered in the store, and could lead";
        out.gauge("cluster_registered", help, u64::from(topology.is_eligible))?;
        let help = "Leaders that this server has seen, itself included";
        out.counter("cluster_leaders", help, metrics.leaders.read())?;
        let help = "Connections that this server has passed on to the leader";
        out.counter("cluster_connections_forwarded", help, metrics.forwarded.read())?;
        if membership.is_standby {
            return Ok(());
        }
        let (store, load) = (&metrics.store, |number: &AtomicU64| number.load(Ordering::Relaxed));
        let batches = load(&store.log_batches);
        out.gauge("store_database_bytes", "The size of etcd's database", load(&store.database_bytes))?;
        out.gauge("store_log_batches", "Commits that are not folded into rows", batches)?;
        out.gauge("store_log_bytes", "Bytes of them", load(&store.log_bytes))?;
        let now = self.0.engine.clock().wall_millis() / 1000;
        let age = if batches == 0 { 0 } else { now.saturating_sub(load(&store.folded_at)) };
        out.gauge(
            "store_fold_age_seconds",
            "Seconds since commits were last folded, while there are any",
            age,
        )
    }
}

/// The contract's JSON.
#[derive(Serialize)]
pub(super) struct MetricsView {
    uptime_seconds: u64,
    total_requests: u64,
    requests_per_second: f64,
    active_locks: u64,
    total_users: usize,
    memory_bytes: u64,
    endpoints: EndpointViews,
    lock_store: LockStoreView,
}

#[derive(Serialize)]
struct EndpointViews {
    acquire: EndpointView,
    release: EndpointView,
    renew: EndpointView,
    status: EndpointView,
    list: EndpointView,
    auth: EndpointView,
    election: EndpointView,
}

#[derive(Serialize)]
struct EndpointView {
    count: u64,
    errors: u64,
    min_ms: u64,
    max_ms: u64,
    avg_ms: String,
    p50_ms: String,
    p95_ms: String,
    p99_ms: String,
}

#[derive(Serialize)]
struct LockStoreView {
    total_acquires: u64,
    total_releases: u64,
    total_expirations: u64,
    cache_hits: u64,
    cache_misses: u64,
}

impl EndpointView {
    fn of(metrics: &EndpointMetrics) -> EndpointView {
        const NANOS: u64 = 1_000_000;
        let seen = metrics.times.read();
        let in_ms = |nanos: f64| format!("{:.1}", nanos / NANOS as f64);
        EndpointView {
            count: seen.count,
            errors: metrics.errors.load(Ordering::Relaxed),
            min_ms: seen.least / NANOS,
            max_ms: seen.most / NANOS,
            avg_ms: in_ms(seen.sum as f64 / seen.count.max(1) as f64),
            p50_ms: in_ms(seen.percentile(50) as f64),
            p95_ms: in_ms(seen.percentile(95) as f64),
            p99_ms: in_ms(seen.percentile(99) as f64),
        }
    }
}

/// The contract's JSON. Every look-up is in memory and counts as a cache hit.
pub(super) fn as_json(state: &HttpState) -> MetricsView {
    let of = |endpoint: Endpoint| EndpointView::of(&state.metrics.endpoints[endpoint as usize]);
    let none = || EndpointView::of(&EndpointMetrics::default());
    let stats = state.engine.lock_stats();
    let lock_routes =
        [Endpoint::Acquire, Endpoint::Release, Endpoint::Renew, Endpoint::Status, Endpoint::List];
    let looked_up =
        lock_routes.into_iter().map(|route| state.metrics.endpoints[route as usize].times.read().count).sum();
    let (requests, uptime) = (state.metrics.requests(), state.uptime_seconds());
    MetricsView {
        uptime_seconds: uptime,
        total_requests: requests,
        requests_per_second: requests as f64 / uptime.max(1) as f64,
        active_locks: stats.leases(),
        total_users: state.users.all().len(),
        memory_bytes: resident_bytes().unwrap_or(0),
        endpoints: EndpointViews {
            acquire: of(Endpoint::Acquire),
            release: of(Endpoint::Release),
            renew: of(Endpoint::Renew),
            status: of(Endpoint::Status),
            list: of(Endpoint::List),
            auth: none(),
            election: none(),
        },
        lock_store: LockStoreView {
            total_acquires: state.acquires(),
            total_releases: stats.totals().releases,
            total_expirations: stats.totals().expiries,
            cache_hits: looked_up,
            cache_misses: 0,
        },
    }
}
