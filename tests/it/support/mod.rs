//! Helpers that several modules of tests share.

pub(crate) mod certificates;
pub(crate) mod client;
#[cfg(feature = "etcd")]
pub(crate) mod etcd;
pub(crate) mod http;
pub(crate) mod peers;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod random;
#[cfg(feature = "etcd")]
pub(crate) mod relay;
pub(crate) mod server;
pub(crate) mod transcript;
pub(crate) mod values;

use octostore::engine::EngineConfig;
use octostore::entropy::Entropy;
use octostore::journal::Durability;

/// The configuration of an engine on a machine whose boot has this name.
pub(crate) fn engine_config(boot: impl Into<String>, entropy: Entropy) -> EngineConfig {
    EngineConfig {
        durability: Durability::Always,
        locks_max: 1000,
        sessions_max: 1000,
        waiters_per_lock_max: 1000,
        values_bytes_max: 1 << 30,
        value_elements_max: 1 << 24,
        leases_per_account_max: 1000,
        token_floor: 0,
        boot: Some(boot.into()),
        entropy,
    }
}

/// Yields to other threads until `holds` is true; panics after a minute.
#[allow(clippy::disallowed_methods)]
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "waited in vain");
        std::thread::yield_now();
    }
}
