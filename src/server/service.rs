//! What serves requests: an engine, and the state of both protocols over it.
//!
//! Guarantees: it exists only once recovery is done; closing it commits what was decided. Not here:
//! sockets, roles.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::sockets::{Sockets, joined};
use super::{StartError, certificate};
use crate::auth::{DenialLog, Users};
use crate::clock::{self, Clock};
use crate::command::{
    self, Clients, Delivery, DeliveryTurn, LiveSettings, Lookups, Monitors, Pauses, PubSub, ScriptEngine,
    ServerInfo, ServerState, ServerStats, SlowLog, Tracking,
};
use crate::config::Config;
use crate::domain::Membership;
use crate::engine::{Engine, EngineConfig, Event, Expiry, Heard};
use crate::entropy::Entropy;
use crate::http::{HttpState, Storage};
use crate::journal::{Backend, Durability, JournalError};
use crate::metrics::{ClusterMetrics, Count, ServerMetrics};

/// Lock events that are passed on before their readers get a turn: fewer than an HTTP reader may be
/// behind.
const EVENTS_PER_TURN: usize = 32;

/// What stays the same from the start of the process to its end, whatever it serves.
pub(super) struct Process {
    pub(super) clock: Clock,
    /// 40 random hexadecimal digits.
    pub(super) run_id: String,
    /// Where the data is, for display.
    pub(super) data: String,
    port: u16,
    addresses: String,
    has_http: bool,
    pub(super) metrics: Arc<ServerMetrics>,
}

impl Process {
    /// `cluster`: set if the server is one of a cluster.
    pub(super) fn new(
        sockets: &Sockets,
        data: String,
        clock: Clock,
        cluster: Option<ClusterMetrics>,
    ) -> Process {
        let metrics = Arc::new(ServerMetrics { cluster, ..ServerMetrics::of(command::names()) });
        if let Some(tls) = &sockets.tls {
            certificate::record(tls, &metrics, &clock);
        }
        Process {
            clock,
            run_id: run_id(),
            data,
            port: sockets.redis_address().port(),
            addresses: joined(sockets.redis.addresses().iter().map(SocketAddr::ip), " "),
            has_http: sockets.http.is_some(),
            metrics,
        }
    }

    /// Loads the certificate again whenever it changes, as long as the returned value exists. Needs
    /// a runtime.
    pub(super) fn follow_certificate(&self, sockets: &Sockets) -> Option<Task> {
        let (tls, metrics) = (sockets.tls.clone()?, Arc::clone(&self.metrics));
        Some(Task(tokio::spawn(certificate::follow(tls, metrics, self.clock.clone()))))
    }

    /// The settings of CONFIG GET.
    fn settings(&self, config: &Config) -> LiveSettings {
        let connections_max = config.listener.connections_max.to_string();
        let mut settings = config.settings.clone();
        settings.retain(|(name, _)| *name != "connections-max");
        settings.extend([
            ("connections-max", connections_max.clone()),
            ("maxclients", connections_max),
            ("bind", self.addresses.clone()),
            ("port", self.port.to_string()),
        ]);
        LiveSettings::new(settings)
    }
}

fn run_id() -> String {
    let mut bytes = [0; 20];
    // Without random numbers, the engine does not start either.
    let _ = Entropy::system().fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An engine, and the state of both protocols over it.
pub(super) struct Service {
    pub(super) engine: Arc<Engine>,
    pub(super) server: Arc<ServerState>,
    /// `None`: HTTP is off.
    pub(super) http: Option<Arc<HttpState>>,
    expiry: Expiry,
    /// Delivers lock events.
    events: Option<Task>,
}

impl Service {
    /// Loads the data.
    pub(super) fn open(
        config: &Config,
        process: &Process,
        membership: Membership,
        durability: Durability,
        open: impl FnOnce() -> Result<Box<dyn Backend>, JournalError>,
    ) -> Result<Service, StartError> {
        let journal = |error| StartError::Journal(process.data.clone(), error);
        let backend = open().map_err(journal)?;
        let (clock, started) = (process.clock.clone(), process.clock.now());
        let engine = Engine::start(backend, clock, engine_config(config, durability)).map_err(journal)?;
        let expiry = Expiry::start(&engine).map_err(StartError::Thread)?;
        let info = ServerInfo {
            port: process.port,
            data: process.data.clone(),
            durability: config.durability_name(),
            run_id: process.run_id.clone(),
            started,
        };
        let users = Arc::new(Users::new(command::catalog(), engine.secret(), &config.users));
        let http = process.has_http.then(|| {
            let storage = match (&config.store, durability) {
                (Some(_), _) => Storage::Etcd,
                (None, Durability::Memory) => Storage::Memory,
                (None, _) => Storage::File(config.data.clone()),
            };
            let (http_config, limits) = (config.http_config.clone(), config.limits);
            let membership = membership.clone();
            HttpState::new(&engine, &users, http_config, limits, &process.metrics, storage, membership)
        });
        let server = Arc::new(ServerState {
            engine: Arc::clone(&engine),
            limits: config.limits,
            client_limits: config.client_limits,
            users,
            denials: DenialLog::default(),
            clients: Clients::default(),
            pauses: Pauses::default(),
            allows_flush: config.allows_flush,
            scripts: ScriptEngine::new(config.scripts.clone()),
            pubsub: PubSub::default(),
            tracking: Tracking::default(),
            monitors: Monitors::default(),
            settings: process.settings(config),
            info,
            metrics: Arc::clone(&process.metrics),
            commands_run: Count::default(),
            lookups: Lookups::default(),
            stats: ServerStats::default(),
            slow_log: SlowLog::default(),
            shutdown: Notify::new(),
            topology: membership.topology,
            shards: membership.shards,
            is_standby: membership.is_standby,
        });
        engine.notify_of(server.settings.keyspace_events());
        Ok(Service { engine, server, http, expiry, events: None })
    }

    /// Delivers lock events from now on. Needs a runtime.
    pub(super) fn deliver_events(&mut self) {
        let (server, http) = (Arc::clone(&self.server), self.http.clone());
        self.events = Some(Task(tokio::spawn(async move {
            loop {
                let heard = server.engine.next_events(EVENTS_PER_TURN).await;
                deliver(heard, &server, http.as_ref()).await;
                tokio::task::yield_now().await;
            }
        })));
    }

    /// Commits what was decided, and ends. Connections must have ended.
    pub(super) async fn close(self) {
        drop((self.events, self.expiry));
        let engine = self.engine;
        if let Err(error) = tokio::task::spawn_blocking(move || engine.close()).await {
            tracing::error!(%error, "the database was not closed cleanly; the next start recovers it");
        }
    }
}

/// A task that ends with this value.
pub(super) struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn deliver(heard: Heard, server: &ServerState, http: Option<&Arc<HttpState>>) {
    let mut turn = DeliveryTurn::default();
    match heard {
        Heard::Events(events) => {
            for event in &events {
                for delivery in Delivery::of(event, &server.engine) {
                    complete(delivery, server, &mut turn).await;
                }
                if let (Event::Lease(event), Some(http)) = (event, http) {
                    http.notify(event).await;
                }
            }
        }
        Heard::Lost(events) => {
            let redis = server.pubsub.cut_off_listeners();
            complete(Delivery::after_loss(), server, &mut turn).await;
            let http = http.map_or(0, |http| http.cut_off_watchers());
            tracing::warn!(
                events,
                redis,
                http,
                "lock events were lost: they came faster than they could be sent; closing all their streams and subscriptions"
            );
        }
    }
}

/// Completes a delivery; other tasks run between two turns.
pub(super) async fn complete(mut delivery: Delivery, server: &ServerState, turn: &mut DeliveryTurn) {
    while !delivery.advance(server, turn) {
        tokio::task::yield_now().await;
        *turn = DeliveryTurn::default();
    }
}

fn engine_config(config: &Config, durability: Durability) -> EngineConfig {
    EngineConfig {
        durability,
        locks_max: config.locks_max,
        sessions_max: config.sessions_max,
        waiters_per_lock_max: config.waiters_per_lock_max,
        values_bytes_max: config.values_bytes_max,
        value_elements_max: config.value_elements_max,
        leases_per_account_max: config.http_config.locks_per_user_max,
        token_floor: config.token_floor,
        boot: clock::boot_id(),
        entropy: Entropy::system(),
    }
}
