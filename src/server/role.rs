//! A server of a cluster: leader or standby.
//!
//! The sockets stay open all the time. A new connection goes to the leader's service if this process
//! leads, otherwise to the standby's service. The standby's service answers the requests that any
//! server can answer; at the first one that needs the leader, the connection is passed on to it
//! (`cluster/proxy.rs`).
//!
//! Guarantees: a leader that was replaced closes its clients' connections and goes on as a standby.
//! No request waits for a leader. Not here: elections, what a service does.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::reload::Reloadable;
use super::service::{Process, Service, complete};
use super::sockets::Sockets;
use super::{Reloader, StartError, dropped, supervisor};
use crate::clock::Clock;
use crate::cluster::{Election, Seen, Store, divide, follow_shards, watch_leader};
use crate::command::{Delivery, DeliveryTurn};
use crate::config::Config;
use crate::domain::{HostPort, Leader, Membership, Node, Shard, Shards, SharedTopology, Topology};
use crate::http::{self, Http};
use crate::journal::etcd::{self, EtcdBackend};
use crate::journal::{Backend, Durability, JournalError, MemoryBackend, StoreAddress};
use crate::metrics::ClusterMetrics;
use crate::net::{self, AcceptLimits, Listeners, Tls};
use crate::resp::{self, Resp};

mod doors;

use doors::{HttpDoor, RedisDoor};

/// Time between two attempts to reach the store at the start.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// Pause before another attempt to lead, after one that failed.
const CAMPAIGN_PAUSE: Duration = Duration::from_millis(500);
/// How long connections take to end at most, when this process ceases to lead.
const HANDOVER_TIME: Duration = Duration::from_secs(1);
/// For this time, a leader that was replaced leaves it to the others to lead: they may not reach it.
const GIVE_WAY: Duration = Duration::from_secs(1);

/// A server of a cluster.
pub struct Member {
    state: Arc<State>,
    sockets: Sockets,
    standby: Service,
    running: Arc<Reloadable>,
}

/// What connections and the role share.
struct State {
    process: Process,
    election: Arc<Election>,
    /// For connections to other servers; `None`: they are in plain text.
    tls: Option<Arc<Tls>>,
    topology: Arc<SharedTopology>,
    /// The shards, if this server has only one of them.
    shards: Option<Arc<Shards>>,
    /// The current leader, wherever it is.
    leader: watch::Sender<Option<Leader>>,
    /// Where the latest leader is or was.
    last_address: Mutex<Option<HostPort>>,
    /// The protocols over the standby's service.
    standby: Doors,
    /// The protocols over the service of the leader, while that is in this process.
    term: watch::Sender<Option<Arc<Term>>>,
    /// Ends the service of the last term.
    closing: Mutex<Option<JoinHandle<()>>>,
    /// Changed when the process is to end.
    stop: watch::Sender<bool>,
}

/// Both protocols over one service.
struct Doors {
    resp: Resp,
    http: Option<Http>,
}

impl Doors {
    fn of(service: &Service, config: &Config) -> Doors {
        Doors {
            resp: Resp::new(Arc::clone(&service.server), config.listener.clone()),
            http: service.http.as_ref().map(Http::new),
        }
    }
}

/// The time during which this process leads.
struct Term {
    doors: Doors,
    /// Has a receiver for each connection.
    has_ended: watch::Sender<bool>,
}

/// Completes when a term has ended.
async fn ended(has_ended: &mut watch::Receiver<bool>) {
    // A term that is gone has ended, too.
    let _ = has_ended.wait_for(|has_ended| *has_ended).await;
}

impl Term {
    /// Ends the connections of clients. The standby's service goes on with those that only want to hear
    /// of the next leader: when this completes, they have subscribed there.
    async fn end(&self) {
        self.doors.resp.hand_over();
        self.has_ended.send_replace(true);
        if timeout(HANDOVER_TIME, self.has_ended.closed()).await.is_err() {
            tracing::debug!("connections of the last term have not ended yet");
        }
    }
}

/// Why this process leads no more.
enum TermEnd {
    /// Another server may lead.
    Replaced,
    /// A client has asked the server to stop.
    Shutdown,
}

impl Member {
    /// Connects to the store, and binds. While the store cannot be reached, this tries again.
    ///
    /// # Errors
    ///
    /// If the store refuses this server or has data of another version, or a socket cannot be
    /// bound.
    pub async fn start(config: &Config, store: &StoreAddress) -> Result<Member, StartError> {
        let reached = reach(config, store).await;
        let reached = reached.map_err(|error| StartError::Journal(store.to_string(), error))?;
        // Until now, clients are refused, and ask another server.
        let sockets = Sockets::bind(config)?;
        let process =
            Process::new(&sockets, store.to_string(), Clock::system(), Some(ClusterMetrics::default()));
        let election = Arc::new(Election::new(reached, own_node(config, &sockets, &process)));
        let topology = Topology {
            name: config.cluster.name.clone(),
            own: process.run_id.clone(),
            shard: Shard::default(),
            is_eligible: true,
        };
        let topology = Arc::new(SharedTopology::new(topology));
        let shards = config.cluster.shard.as_ref().map(|shard| Arc::new(Shards::new(shard.id)));
        let membership =
            Membership { topology: Arc::clone(&topology), shards: shards.clone(), is_standby: true };
        let open = || -> Result<Box<dyn Backend>, JournalError> { Ok(Box::new(MemoryBackend::default())) };
        let standby = Service::open(config, &process, membership, Durability::Memory, open)?;
        sockets.warn_of_exposure(config);
        let state = Arc::new(State {
            process,
            election,
            tls: sockets.tls.clone().filter(|_| is_encrypted(config)),
            topology,
            shards,
            leader: watch::Sender::new(None),
            last_address: Mutex::new(None),
            standby: Doors::of(&standby, config),
            term: watch::Sender::new(None),
            closing: Mutex::new(None),
            stop: watch::Sender::new(false),
        });
        let running = Arc::new(Reloadable::new(&standby, config));
        Ok(Member { state, sockets, standby, running })
    }

    /// A handle that replaces the password and the users while the server runs.
    pub fn reloader(&self) -> Reloader {
        Reloader::new(&self.sockets, Arc::clone(&self.running))
    }

    /// The lines printed at start.
    pub fn banner(&self) -> String {
        let kept = format!("{} (standby until elected)", self.state.process.data);
        self.sockets.banner(&kept, &self.standby.server.users.default_user())
    }

    /// Serves until `shutdown`, then finishes what was received, commits it, and lets another
    /// server lead.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        self.standby.deliver_events();
        let _certificate = self.state.process.follow_certificate(&self.sockets);
        let (stop, stopped) = watch::channel(());
        let standby = &self.standby;
        let redis = net::serve(
            self.sockets.redis,
            RedisDoor(Arc::clone(&self.state)),
            resp::accept_limits(&standby.server),
            Arc::clone(&standby.server.metrics.redis),
            dropped(stopped.clone()),
        );
        let sentinel = async {
            let Some(sockets) = self.sockets.sentinel else { return };
            let protocol = Resp::sentinel(Arc::clone(&standby.server), self.running.config().listener);
            let limits = AcceptLimits { protocol: "sentinel", ..resp::accept_limits(&standby.server) };
            let metrics = Arc::clone(&standby.server.metrics.redis);
            net::serve(sockets, protocol, limits, metrics, dropped(stopped.clone())).await;
        };
        let http = async {
            let (Some(sockets), Some(http)) = (self.sockets.http, &standby.http) else { return };
            let (limits, metrics) = (http::accept_limits(http), Arc::clone(&standby.server.metrics.http));
            net::serve(sockets, HttpDoor(Arc::clone(&self.state)), limits, metrics, dropped(stopped.clone()))
                .await;
        };
        let leading = Mutex::new(None);
        let role = async {
            tokio::select! {
                () = shutdown => {}
                () = standby.server.shutdown.notified() => tracing::info!("shutting down: draining connections"),
                () = play(&self.state, standby, &self.running, &leading) => {
                    tracing::info!("shutting down: draining connections");
                }
            }
            supervisor::notify_stopping();
            drop(stop);
        };
        let registered = async {
            let election = &self.state.election;
            let cluster = self.running.config().cluster;
            let shards = async {
                if let (Some(shards), Some(config)) = (self.state.shards.clone(), cluster.shard) {
                    follow_shards(shards, config.others()).await;
                }
            };
            let (own, tls) = (&self.state.process.run_id, self.state.tls.as_deref());
            let watched = watch_leader(election, own, tls, cluster.leader_silent);
            tokio::join!(election.run(), watched, shards);
        };
        tokio::select! {
            _ = async { tokio::join!(redis, sentinel, http, role) } => {}
            () = registered => {}
        }
        // Commits the rest before another server leads.
        if let Some(service) = leading.into_inner() {
            service.close().await;
        }
        self.state.election.leave().await;
        tracing::info!("stopped");
    }
}

/// Whether servers connect to each other with TLS.
fn is_encrypted(config: &Config) -> bool {
    config.tls.as_ref().is_some_and(|tls| tls.files.server_roots.is_some())
}

/// How others reach this server.
fn own_node(config: &Config, sockets: &Sockets, process: &Process) -> Node {
    let first = |listeners: &Listeners| {
        let encrypted = listeners.encrypted_addresses().first().filter(|_| is_encrypted(config));
        encrypted.or(listeners.addresses().first()).copied()
    };
    let here = |address: SocketAddr| HostPort { host: address.ip().to_string(), port: address.port() };
    let redis = config
        .cluster
        .advertise
        .clone()
        .unwrap_or_else(|| here(first(&sockets.redis).unwrap_or_else(|| sockets.redis_address())));
    let http = config.cluster.advertise_http.clone().or_else(|| {
        let port = first(sockets.http.as_ref()?)?.port();
        Some(HostPort { host: redis.host.clone(), port })
    });
    let sentinel = sockets.sentinel.as_ref().and_then(first);
    let sentinel = sentinel.map(|address| HostPort { host: redis.host.clone(), port: address.port() });
    Node { id: process.run_id.clone(), redis: Some(redis), http, sentinel }
}

/// Connects to the store and checks that it can be used. Tries again while it cannot be reached.
async fn reach(config: &Config, store: &StoreAddress) -> Result<Store, JournalError> {
    loop {
        let reached = async {
            etcd::check(store).await?;
            match &config.cluster.shard {
                Some(shard) => divide(&shard.stores[shard.id.index()], shard.id.count()).await?,
                None => divide(store, 0).await?,
            }
            Store::connect(store).await
        };
        match reached.await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(%store, %error, "cannot reach the store; trying again every few seconds");
                sleep(STORE_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Follows the election, and leads when elected. Completes when a client asks the server to stop.
async fn play(state: &Arc<State>, standby: &Service, running: &Reloadable, leading: &Mutex<Option<Service>>) {
    let mut seen = state.election.seen();
    let mut gives_way_until = Instant::now();
    loop {
        let now = seen.borrow_and_update().clone();
        state.publish(&now, standby).await;
        let gives_way = Instant::now() < gives_way_until && now.nodes.len() > 1;
        let epoch = match &now.leader {
            // The last commits of the last time may still be under way.
            _ if state.is_closing() => None,
            // The outcome of a campaign that got no response.
            Some(leader) if leader.id == state.process.run_id && state.election.is_registered() => {
                Some(leader.epoch)
            }
            Some(_) => None,
            None if now.nodes.is_empty() || gives_way => None,
            None => state.election.campaign().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "cannot campaign");
                None
            }),
        };
        if let Some(epoch) = epoch {
            match lead(state, standby, running, leading, epoch).await {
                Ok(TermEnd::Replaced) => gives_way_until = Instant::now() + GIVE_WAY,
                Ok(TermEnd::Shutdown) => return,
                Err(error) => {
                    tracing::error!(%error, "elected, but cannot lead");
                    // Another server may be able to.
                    let _ = state.election.depose(epoch).await;
                    sleep(CAMPAIGN_PAUSE).await;
                }
            }
            continue;
        }
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { return pending().await },
            // A campaign that failed leaves nothing to be seen.
            () = sleep(CAMPAIGN_PAUSE) => {}
        }
    }
}

/// Loads the data and serves it until another server may lead.
async fn lead(
    state: &Arc<State>,
    standby: &Service,
    running: &Reloadable,
    leading: &Mutex<Option<Service>>,
    epoch: i64,
) -> Result<TermEnd, StartError> {
    tracing::info!(epoch, "elected: loading");
    let config = running.config();
    let mut service = load(state, config.clone(), epoch).await?;
    service.deliver_events();
    running.add(&service);
    let (engine, server, http) = (service.engine.clone(), service.server.clone(), service.http.clone());
    let term = Arc::new(Term { doors: Doors::of(&service, &config), has_ended: watch::Sender::new(false) });
    *leading.lock() = Some(service);
    state.term.send_replace(Some(Arc::clone(&term)));
    tracing::info!(epoch, "leading");
    let own = Leader { id: state.process.run_id.clone(), epoch };
    let history = async {
        match &http {
            Some(http) => http::record_history(http).await,
            None => pending().await,
        }
    };
    let end = tokio::select! {
        () = engine.fenced() => TermEnd::Replaced,
        () = replaced(&own, state, standby) => TermEnd::Replaced,
        () = state.election.expired() => TermEnd::Replaced,
        () = server.shutdown.notified() => TermEnd::Shutdown,
        () = history => TermEnd::Replaced,
    };
    if let TermEnd::Replaced = end {
        drop((engine, server, http));
        let without_leader = Seen { leader: None, ..state.election.seen().borrow().clone() };
        state.publish(&without_leader, standby).await;
        state.term.send_replace(None);
        term.end().await;
        drop(term);
        let service = leading.lock().take();
        if let Some(service) = service {
            running.remove(&service);
            // The store may not answer.
            *state.closing.lock() = Some(tokio::spawn(service.close()));
        }
        tracing::warn!(epoch, "another server may lead: connections of clients closed, standing by");
    }
    Ok(end)
}

async fn load(state: &Arc<State>, config: Config, epoch: i64) -> Result<Service, StartError> {
    let state = Arc::clone(state);
    let loaded = tokio::task::spawn_blocking(move || {
        let process = &state.process;
        let store = process.metrics.cluster.as_ref().map(|cluster| Arc::clone(&cluster.store));
        let open = || -> Result<Box<dyn Backend>, JournalError> {
            let backend = EtcdBackend::open(state.election.store(), epoch)?;
            Ok(Box::new(backend.measured(store.unwrap_or_default(), process.clock.clone())))
        };
        let (topology, shards) = (Arc::clone(&state.topology), state.shards.clone());
        let membership = Membership { topology, shards, is_standby: false };
        Service::open(&config, process, membership, Durability::Always, open)
    });
    loaded.await.map_err(|error| StartError::Thread(error.into()))?
}

/// Completes when the store names another leader, or none. Meanwhile, clients are shown the servers
/// that come and go.
async fn replaced(own: &Leader, state: &State, standby: &Service) {
    let mut seen = state.election.seen();
    loop {
        let now = seen.borrow_and_update().clone();
        if now.leader.as_ref() != Some(own) {
            return;
        }
        state.publish(&now, standby).await;
        if seen.changed().await.is_err() {
            return;
        }
    }
}

impl State {
    /// Whether the service of the last term has not ended.
    fn is_closing(&self) -> bool {
        self.closing.lock().as_ref().is_some_and(|closing| !closing.is_finished())
    }

    /// Shows clients which server leads, and tells those that asked for it of a new one.
    async fn publish(&self, seen: &Seen, standby: &Service) {
        // While this server loads, requests cannot be served yet.
        let is_open = |leader: &Leader| leader.id != self.process.run_id || self.term.borrow().is_some();
        let leader = seen.leader.clone().filter(is_open);
        let shard = Shard { leader: leader.clone(), nodes: seen.nodes.clone() };
        if let Some(shards) = &self.shards {
            shards.replace(shards.own(), shard.clone());
        }
        let topology = Topology {
            name: self.topology.read().name.clone(),
            own: self.process.run_id.clone(),
            shard,
            is_eligible: self.election.is_registered(),
        };
        let address = topology.leading_node().and_then(|node| node.redis.clone());
        let name = topology.name.clone();
        self.topology.replace(topology);
        self.leader.send_if_modified(|before| {
            let is_new = *before != leader;
            if let (true, Some(_), Some(metrics)) = (is_new, &leader, &self.process.metrics.cluster) {
                metrics.leaders.add(1);
            }
            *before = leader;
            is_new
        });
        let Some(address) = address else { return };
        let before = self.last_address.lock().replace(address.clone());
        if let Some(before) = before.filter(|before| *before != address) {
            let payload = format!("{name} {} {} {} {}", before.host, before.port, address.host, address.port);
            let (message, mut turn) =
                (Delivery::message("+switch-master", &payload), DeliveryTurn::default());
            complete(message, &standby.server, &mut turn).await;
        }
    }
}
