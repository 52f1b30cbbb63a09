//! Helpers that several modules of tests share.

pub(crate) mod certificates;
pub(crate) mod client;
#[cfg(feature = "etcd")]
pub(crate) mod etcd;
pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod random;
#[cfg(feature = "etcd")]
pub(crate) mod relay;
pub(crate) mod server;
pub(crate) mod transcript;
pub(crate) mod values;

/// Yields to other threads until `holds` is true; panics after a minute.
#[allow(clippy::disallowed_methods)]
pub(crate) fn until(holds: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "waited in vain");
        std::thread::yield_now();
    }
}
