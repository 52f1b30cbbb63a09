//! Any bytes as a database file, and as the write-ahead log beside it.
//!
//! Checks: the server starts or reports why not; if it starts, it grants locks and recovers them.

use octostore::clock::Clock;
use octostore::domain::{LockName, Owner, Ttl};
use octostore::engine::{Engine, EngineConfig};
use octostore::entropy::Entropy;
use octostore::journal::{Durability, SqliteBackend};
use octostore::lock::{Op, Outcome, Request};

fn config() -> EngineConfig {
    EngineConfig {
        durability: Durability::Always,
        locks_max: 1_000_000,
        sessions_max: 1000,
        waiters_per_lock_max: 1000,
        values_bytes_max: 1 << 30,
        value_elements_max: 1 << 24,
        leases_per_account_max: 1000,
        token_floor: 0,
        boot: Some("boot".into()),
        entropy: Entropy::seeded(0),
    }
}

/// Between the database and its log.
const THEN_THE_LOG: &[u8] = b"\n-- wal --\n";

pub(crate) fn run(input: &[u8]) {
    let cut = input.windows(THEN_THE_LOG.len()).position(|window| window == THEN_THE_LOG);
    let (database, log) = match cut {
        Some(cut) => (&input[..cut], Some(&input[cut + THEN_THE_LOG.len()..])),
        None => (input, None),
    };
    // A file system in memory, if there is one: the disk is not under test.
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.expect("a directory");
    let path = dir.path().join("octostore.db");
    std::fs::write(&path, database).expect("a file");
    if let Some(log) = log {
        std::fs::write(dir.path().join("octostore.db-wal"), log).expect("a file");
    }
    let clock = Clock::manual();
    let start = || -> Option<std::sync::Arc<Engine>> {
        let backend = SqliteBackend::open(&path).ok()?;
        Engine::start(Box::new(backend), clock.clone(), config()).ok()
    };
    let Some(engine) = start() else { return };
    let name = LockName::new(0, b"a lock that no corpus has").expect("within limits");
    let owner = Owner::new(b"me").expect("within limits");
    let request = Request::exclusive(owner.clone(), Ttl::from_millis(1000).ok());
    let txn = engine.txn();
    let granted = txn.submit(&name, &Op::Acquire { request, wait: None });
    // Damage that shows only when it is written to is an error, too.
    let Ok(Outcome::Granted { token, .. }) = granted else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let is_durable = runtime.block_on(engine.barrier(txn.finish())).is_ok();
    drop(engine);
    if is_durable && let Some(engine) = start() {
        let found = engine.txn().read(&name, |slot, _| slot.lease(token).map(|lease| lease.owner.clone()));
        assert_eq!(found.expect("it has started"), Some(owner));
    }
}
