//! `/server`: the state of the server in numbers, and how they were in the last hour.
//!
//! Guarantees: memory is bounded; shown only to users who may run INFO. Not here: names of keys,
//! owners and clients.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use parking_lot::Mutex;
use serde::Serialize;

use super::HttpState;
use super::error::ApiError;
use super::live::{self, Frame};
use super::users::{Caller, User};
use crate::domain::{Membership, Shard};

/// Seconds between two samples.
pub(super) const SAMPLE_S: u64 = 5;
/// Number of samples that are kept: those of an hour.
const SAMPLES_MAX: usize = 3600 / SAMPLE_S as usize;
/// The command whose permission is needed.
const COMMAND: &str = "info";

/// The numbers of one interval of [`SAMPLE_S`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sample {
    unix_s: u64,
    grants: u64,
    commits: u64,
    commit_nanos: u64,
    waiting: u64,
    locks: u64,
}

/// The samples of the last hour.
#[derive(Default)]
pub(super) struct Hour(Mutex<Samples>);

#[derive(Default)]
struct Samples {
    /// The totals at the last sample.
    totals: Sample,
    /// Number of samples since the start.
    count: u64,
    kept: VecDeque<Sample>,
}

impl Samples {
    fn push(&mut self, totals: Sample) {
        let sample = Sample {
            grants: totals.grants.saturating_sub(self.totals.grants),
            commits: totals.commits.saturating_sub(self.totals.commits),
            commit_nanos: totals.commit_nanos.saturating_sub(self.totals.commit_nanos),
            ..totals
        };
        if self.kept.len() == SAMPLES_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(sample);
        self.totals = totals;
        self.count += 1;
    }
}

impl Sample {
    fn commit_ms(&self) -> Option<f64> {
        (self.commits > 0).then(|| self.commit_nanos as f64 / self.commits as f64 / 1e6)
    }
}

/// The servers of the cluster.
#[derive(Serialize, PartialEq)]
struct ClusterView {
    name: String,
    /// That of the leader of this server's shard; `null` without one.
    epoch: Option<i64>,
    /// Those of all shards, in the order of the shards.
    nodes: Vec<NodeView>,
}

#[derive(Serialize, PartialEq)]
struct NodeView {
    id: String,
    /// The number of its shard; `null` without shards.
    shard: Option<u16>,
    role: &'static str,
    /// Whether it has answered this request.
    is_own: bool,
    /// Where Redis clients connect, if that is known, and HTTP clients.
    redis: Option<String>,
    http: Option<String>,
}

impl ClusterView {
    fn of(Membership { topology, shards, .. }: &Membership) -> ClusterView {
        let topology = topology.read();
        let mut nodes = Vec::new();
        match shards {
            None => show_nodes(&mut nodes, None, &topology.shard, &topology.own),
            Some(shards) => shards.all().iter().for_each(|(id, shard)| {
                show_nodes(&mut nodes, Some(id.number()), shard, &topology.own);
            }),
        }
        let epoch = topology.leader.as_ref().map(|leader| leader.epoch);
        ClusterView { name: topology.name.clone(), epoch, nodes }
    }
}

fn show_nodes(shown: &mut Vec<NodeView>, number: Option<u16>, shard: &Shard, own: &str) {
    let leader = shard.leader.as_ref().map(|leader| leader.id.as_str());
    shown.extend(shard.nodes.iter().map(|node| NodeView {
        id: node.id.clone(),
        shard: number,
        role: if leader == Some(node.id.as_str()) { "leader" } else { "standby" },
        is_own: node.id == own,
        redis: node.redis.as_ref().map(ToString::to_string),
        http: node.http.as_ref().map(ToString::to_string),
    }));
}

/// The numbers now.
#[derive(Serialize, PartialEq)]
struct Numbers {
    status: &'static str,
    version: &'static str,
    storage: &'static str,
    locks: u64,
    values: u64,
    waiting: u64,
    sessions: usize,
    connections: usize,
    /// Of the last interval.
    grants_per_second: f64,
    /// The mean of the last interval; `null` without a commit.
    commit_ms: Option<f64>,
    cluster: ClusterView,
}

/// The last hour, as arrays of equal length, oldest first.
#[derive(Serialize, Default)]
struct Series {
    interval_seconds: u64,
    timestamps: Vec<u64>,
    grants: Vec<u64>,
    commit_ms: Vec<Option<f64>>,
    waiting: Vec<u64>,
    locks: Vec<u64>,
}

#[derive(Serialize)]
struct ServerView {
    uptime_seconds: u64,
    #[serde(flatten)]
    numbers: Numbers,
    series: Series,
}

impl HttpState {
    /// Records a sample.
    pub(super) fn record_sample(&self) {
        let (stats, commits) = (self.engine.lock_stats(), self.engine.commit_metrics().times.read());
        self.hour.0.lock().push(Sample {
            unix_s: self.engine.clock().wall_millis() / 1000,
            grants: stats.totals().grants,
            commits: commits.count,
            commit_nanos: commits.sum,
            waiting: stats.waiting(),
            locks: stats.leases(),
        });
    }

    fn numbers_now(&self) -> Numbers {
        let stats = self.engine.lock_stats();
        let last = self.hour.0.lock().kept.back().copied().unwrap_or_default();
        let open = self.server_metrics.redis.open_now() + self.server_metrics.http.open_now();
        Numbers {
            status: if self.engine.journal_down().is_none() { "ok" } else { "down" },
            version: env!("CARGO_PKG_VERSION"),
            storage: self.storage.name(),
            locks: stats.leases(),
            values: self.engine.value_stats().values(),
            waiting: stats.waiting(),
            sessions: self.engine.sessions(),
            connections: open as usize,
            grants_per_second: last.grants as f64 / SAMPLE_S as f64,
            commit_ms: last.commit_ms(),
            cluster: ClusterView::of(&self.membership),
        }
    }

    fn last_hour(&self) -> (u64, Series) {
        let samples = self.hour.0.lock();
        let mut series = Series { interval_seconds: SAMPLE_S, ..Series::default() };
        for sample in &samples.kept {
            series.timestamps.push(sample.unix_s);
            series.grants.push(sample.grants);
            series.commit_ms.push(sample.commit_ms());
            series.waiting.push(sample.waiting);
            series.locks.push(sample.locks);
        }
        (samples.count, series)
    }
}

/// What a stream has shown of the server.
#[derive(Default)]
pub(super) struct Overview {
    numbers: Option<Numbers>,
    samples: Option<u64>,
}

impl Overview {
    /// Adds what has changed.
    pub(super) fn advance(&mut self, state: &HttpState, user: &User, frame: &mut Frame) {
        if !user.may_run(COMMAND) {
            return;
        }
        let numbers = state.numbers_now();
        if self.numbers.as_ref() != Some(&numbers) {
            frame.push("server", &numbers);
            self.numbers = Some(numbers);
        }
        if self.samples != Some(state.hour.0.lock().count) {
            let (count, series) = state.last_hour();
            frame.push("series", &series);
            self.samples = Some(count);
        }
    }
}

pub(super) async fn server(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    state.users.authenticate(Caller::of_request(&request))?.check(COMMAND)?;
    Ok(live::json(&ServerView {
        uptime_seconds: state.uptime_seconds(),
        numbers: state.numbers_now(),
        series: state.last_hour().1,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_differences_and_only_those_of_an_hour_are_kept() {
        let mut samples = Samples::default();
        for n in 1..=SAMPLES_MAX as u64 + 5 {
            samples.push(Sample {
                grants: n * n,
                commits: n,
                commit_nanos: n * 2_000_000,
                ..Sample::default()
            });
        }
        let end = SAMPLES_MAX as u64 + 5;
        let last = samples.kept.back().expect("a sample");
        assert_eq!((samples.kept.len(), samples.count), (SAMPLES_MAX, end));
        assert_eq!((last.grants, last.commit_ms()), (2 * end - 1, Some(2.0)));
        assert_eq!(Sample::default().commit_ms(), None);
    }
}
