//! Storage in etcd: a simulated one whose responses are lost or late, and a real one that is killed,
//! stopped and cut off.

mod real;
mod simulated;

use octostore::engine::EngineConfig;
use octostore::entropy::Entropy;
use octostore::journal::Durability;

/// The settings of an engine on a machine that was booted under this name.
fn config(boot: &str) -> EngineConfig {
    EngineConfig {
        durability: Durability::Always,
        locks_max: 1000,
        sessions_max: 1000,
        waiters_per_lock_max: 1000,
        values_bytes_max: 1 << 30,
        value_elements_max: 1 << 24,
        leases_per_account_max: 1000,
        token_floor: 0,
        boot: Some(boot.to_owned()),
        entropy: Entropy::system(),
    }
}
