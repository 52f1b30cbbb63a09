//! Waiting for input, for a time, and for other futures.
//!
//! Not here: what a connection does meanwhile.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;

use crate::metrics::Count;
use crate::net::Stream;

/// What is read at least.
pub(super) const READ_BYTES_MIN: usize = 4 << 10;
/// How often a waiter with a full input buffer is checked for a disconnect.
const FULL_INPUT_CHECK: Duration = Duration::from_millis(50);

/// Completes with a future's output, and with whether the future yielded before that.
pub(super) async fn observing_waits<F: Future>(future: F) -> (F::Output, bool) {
    let mut future = pin!(future);
    let mut has_waited = false;
    let output = poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        has_waited |= poll.is_pending();
        poll
    });
    (output.await, has_waited)
}

pub(super) async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Completes when input was read. Fails when the client has disconnected.
pub(super) async fn receive(
    stream: &Stream,
    input: &mut BytesMut,
    is_full: bool,
    received: &Count,
) -> io::Result<()> {
    if is_full {
        tokio::time::sleep(FULL_INPUT_CHECK).await;
        return if stream.is_read_closed().await? {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        };
    }
    stream.readable().await?;
    input.reserve(READ_BYTES_MIN);
    match stream.try_read_buf(input) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(bytes) => {
            received.add(bytes as u64);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}
