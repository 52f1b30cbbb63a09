//! Replaces a leader that does not answer, before its lease ends.
//!
//! A standby holds a connection to the leader and sends a byte now and then. When the connection is
//! broken, or the leader is silent for too long, the standby deletes the key of the leader. That is
//! safe at any time, because a leader whose key is gone cannot commit; it only has to be rare.
//!
//! Guarantees: a standby that does not reach etcd replaces no leader; one that never reaches the
//! leader replaces it ever more rarely, because the fault may be on its side. Not here: who
//! follows.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::election::Election;
use super::observer::Seen;
use super::proxy::connect;
use super::proxy_header::Header;
use crate::domain::{HostPort, Leader};
use crate::net::Tls;

/// Pings in the time after which a leader counts as silent.
const PINGS_PER_SILENCE: u32 = 4;
/// Pause before a leader is replaced that was never reached from here; doubles up to
/// [`BACK_OFF_MAX`].
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(64);
/// Pause between two attempts, while etcd or the leader's address is unknown.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Watches the current leader, on behalf of the server `own`, until the future is dropped. Connects
/// with `tls` if there is one.
pub async fn watch_leader(election: &Election, own: &str, tls: Option<&Tls>, silent: Duration) {
    let mut seen = election.seen();
    let mut back_off = BACK_OFF_MIN;
    // A leader that was not reached is tried once more.
    let mut was_tried = false;
    loop {
        let now = seen.borrow_and_update().clone();
        let Some(leader) = now.leader.clone().filter(|leader| leader.id != own) else {
            if seen.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut watch = Watch { own, tls, silent, was_reached: false };
        let failure = tokio::select! {
            failure = watch.ping(&now, &leader) => failure,
            () = replaced(&mut seen, &leader) => {
                was_tried = false;
                continue;
            }
        };
        if watch.was_reached {
            back_off = BACK_OFF_MIN;
        } else if !std::mem::replace(&mut was_tried, true) {
            let pause = back_off;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
            tokio::select! {
                () = sleep(pause) => {}
                () = replaced(&mut seen, &leader) => was_tried = false,
            }
            continue;
        }
        was_tried = false;
        match election.depose(leader.epoch).await {
            Ok(true) => tracing::warn!(leader = %leader.id, %failure, "the leader is replaced"),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the leader does not answer, and neither does the store"),
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Completes when this leader does not lead any more.
async fn replaced(seen: &mut tokio::sync::watch::Receiver<Seen>, leader: &Leader) {
    // The sender lives as long as the election.
    let _ = seen.wait_for(|seen| seen.leader.as_ref() != Some(leader)).await;
}

struct Watch<'a> {
    own: &'a str,
    tls: Option<&'a Tls>,
    silent: Duration,
    /// The leader has answered.
    was_reached: bool,
}

impl Watch<'_> {
    /// Pings a leader until it does not answer. Returns why.
    async fn ping(&mut self, seen: &Seen, leader: &Leader) -> io::Error {
        let address = seen.nodes.iter().find(|node| node.id == leader.id).and_then(|node| node.redis.clone());
        let Some(address) = address else {
            // Its lease has ended, so its key disappears, too.
            sleep(self.silent).await;
            return io::Error::other("it is not registered");
        };
        match self.ping_at(&address, &seen.key).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn ping_at(&mut self, address: &HostPort, key: &[u8; 32]) -> io::Result<std::convert::Infallible> {
        let silent = self.silent;
        let silence = |_| io::Error::new(io::ErrorKind::TimedOut, "it is silent");
        let header = Header { node: self.own.to_owned(), addresses: None, client: Vec::new() };
        let mut stream =
            timeout(silent, connect(address, self.tls, &header, key)).await.map_err(silence)??;
        loop {
            let began = Instant::now();
            let answer = async {
                stream.write_all(b"p").await?;
                stream.flush().await?;
                stream.read_exact(&mut [0]).await
            };
            timeout(silent, answer).await.map_err(silence)??;
            self.was_reached = true;
            let pause = (silent / PINGS_PER_SILENCE).saturating_sub(began.elapsed());
            match timeout(pause, stream.read(&mut [0])).await {
                // The usual case: nothing happens.
                Err(_) => {}
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(_)) => return Err(io::Error::other("it sends more than answers")),
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}
