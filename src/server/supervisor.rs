//! What a supervisor that speaks systemd's notification protocol learns: ready, reloading,
//! stopping. Without `NOTIFY_SOCKET`, nothing is sent.

use std::io;

use sd_notify::NotifyState;

/// The server has recovered and listens, or a reload is over.
pub fn notify_ready() {
    report(sd_notify::notify(&[NotifyState::Ready]));
}

/// A reload has begun. The time tells systemd which `READY` ends it.
pub(super) fn notify_reloading() {
    let now = NotifyState::monotonic_usec_now();
    report(now.and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])));
}

/// The server drains its connections and will exit.
pub(super) fn notify_stopping() {
    report(sd_notify::notify(&[NotifyState::Stopping]));
}

fn report(sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot notify the supervisor (NOTIFY_SOCKET)");
    }
}
