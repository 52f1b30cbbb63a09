//! Any bytes from a Redis client: the scanner, every command on a real lock manager, and the
//! encoder.
//!
//! Checks: nothing panics or breaks an invariant of a lock; the requests do not depend on how the
//! bytes are cut into reads; the decoder of another project reads every reply as one reply; and a
//! client that disconnects leaves nothing waiting.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use octostore::auth::{DenialLog, Users};
use octostore::clock::Clock;
use octostore::command::{
    self, AfterReply, Client, ClientLimits, Clients, Execution, LiveSettings, Lookups, Pauses, PubSub,
    ScriptEngine, ScriptLimits, ServerInfo, ServerState, ServerStats, SlowLog,
};
use octostore::domain::{Limits, SharedTopology, Timestamp, Topology};
use octostore::engine::{Engine, EngineConfig};
use octostore::entropy::Entropy;
use octostore::journal::{Durability, MemoryBackend};
use octostore::metrics::{Count, ServerMetrics};
use octostore::resp::parts::{ScanLimits, Scanner, encode};
use redis_protocol::{resp2, resp3};

/// A server without sockets, in memory.
pub(crate) fn server(locks_max: u64, multi_bytes_max: usize) -> Arc<ServerState> {
    let config = EngineConfig {
        durability: Durability::Memory,
        locks_max,
        sessions_max: 4,
        waiters_per_lock_max: 4,
        values_bytes_max: 1 << 30,
        value_elements_max: 1 << 24,
        leases_per_account_max: 4,
        token_floor: 0,
        boot: None,
        entropy: Entropy::seeded(0),
    };
    let backend = Box::new(MemoryBackend::default());
    Arc::new(ServerState {
        engine: Engine::start(backend, Clock::manual(), config).expect("nothing to recover"),
        limits: Limits::default(),
        client_limits: ClientLimits { multi_bytes_max, subscriptions_max: 8, ..ClientLimits::default() },
        users: Arc::new(Users::open(octostore::command::catalog())),
        denials: DenialLog::default(),
        clients: Clients::default(),
        pauses: Pauses::default(),
        allows_flush: true,
        scripts: ScriptEngine::new(ScriptLimits::default()),
        pubsub: PubSub::default(),
        tracking: Default::default(),
        monitors: Default::default(),
        settings: LiveSettings::new(vec![("port", "0".into())]),
        info: ServerInfo {
            port: 0,
            data: "memory".into(),
            durability: "memory",
            run_id: String::new(),
            started: Timestamp::default(),
        },
        metrics: Arc::new(ServerMetrics::of(command::names())),
        commands_run: Count::default(),
        lookups: Lookups::default(),
        stats: ServerStats::default(),
        slow_log: SlowLog::default(),
        shutdown: tokio::sync::Notify::new(),
        topology: Arc::new(SharedTopology::new(Topology::of_one("octostore", ""))),
        shards: None,
        is_standby: false,
    })
}

/// The length of the first request in `input`, read as a whole and in two parts.
fn first_request(scanner: &mut Scanner, limits: &ScanLimits, input: &[u8]) -> Option<usize> {
    let whole = scanner.scan(input);
    let mut parts = Scanner::new(limits.clone());
    let cut = input.len() / 2;
    let found = match parts.scan(&input[..cut]) {
        Ok(None) => parts.scan(input),
        early => early,
    };
    assert_eq!(whole, found, "cut at {cut}");
    whole.ok().flatten()
}

/// The number of replies in these bytes; `None` if they are anything else.
fn replies(protocol: u8, mut bytes: Bytes) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        let length = match protocol {
            2 => resp2::decode::decode_bytes(&bytes).ok()?.map(|(_, length)| length)?,
            _ => resp3::decode::complete::decode_bytes(&bytes).ok()?.map(|(_, length)| length)?,
        };
        bytes.advance(length);
        count += 1;
    }
    Some(count)
}

/// The first byte is the time that passes between two requests.
pub(crate) fn run(input: &[u8]) {
    let Some((pace, mut input)) = input.split_first() else { return };
    let server = server(16, 1 << 10);
    let limits = ScanLimits {
        args_max: 64,
        arg_bytes_max: 8 << 10,
        request_bytes_max: 16 << 10,
        ..ScanLimits::default()
    };
    let mut scanner = Scanner::new(limits.clone());
    let mut client = Client::new(&server, "a".into(), "b".into());
    while let Some(length) = first_request(&mut scanner, &limits, input) {
        let args = scanner.args(&input[..length]);
        input = &input[length..];
        if args.is_empty() {
            continue;
        }
        server.engine.clock().advance_millis(u64::from(*pace));
        let mut execution = loop {
            let execution = client.execute(&server, args);
            if !matches!(execution.next, AfterReply::Again) {
                break execution;
            }
        };
        if let AfterReply::Steps(mut request) = execution.next {
            let is_answered = execution.reply.is_some();
            execution = loop {
                if let Some(execution) = client.advance(&server, &mut request) {
                    break execution;
                }
            };
            execution.reply = execution.reply.filter(|_| is_answered);
        }
        let Execution { reply, next, command, .. } = execution;
        if let Some(reply) = reply {
            let mut out = BytesMut::new();
            encode(&reply, client.protocol(), &mut out);
            let found = replies(client.protocol(), out.clone().freeze());
            // These answer once for each channel.
            let answers_often = command.ends_with("subscribe");
            let is_answered = found == Some(1) || (answers_often && found > Some(1));
            assert!(is_answered || command == "shutdown", "{out:?}");
        }
        match next {
            AfterReply::Request | AfterReply::Again | AfterReply::Paused | AfterReply::Steps(_) => {}
            // As if the client had disconnected while it waited.
            AfterReply::Wait(parked) => drop(parked),
            AfterReply::Close => break,
            AfterReply::LeaveToLeader => unreachable!("this server leads"),
        }
        server.engine.expire_due();
    }
    drop(client);
    assert_eq!(server.engine.lock_stats().waiting(), 0);
}
