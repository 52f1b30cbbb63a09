//! Reads from a client whose request waits.
//!
//! Guarantees: a disconnect is noticed even if there is no room for input. Not here: how much room
//! there is.

use std::io;
use std::time::Duration;

use bytes::BytesMut;

use super::end::End;
use crate::metrics::Count;
use crate::net::Stream;

pub(super) const READ_BYTES_MIN: usize = 4 << 10;
/// How often a waiter with a full input buffer is checked for a disconnect.
const FULL_INPUT_CHECK: Duration = Duration::from_millis(50);

/// Completes when input was read. Fails when the client has disconnected.
pub(super) async fn receive(
    stream: &mut Stream,
    input: &mut BytesMut,
    is_full: bool,
    received: &Count,
) -> Result<(), End> {
    if is_full {
        tokio::time::sleep(FULL_INPUT_CHECK).await;
        return if stream.is_read_closed().await? { Err(End::Closed) } else { Ok(()) };
    }
    stream.readable().await?;
    input.reserve(READ_BYTES_MIN);
    match stream.try_read_buf(input) {
        Ok(0) => Err(End::Closed),
        Ok(bytes) => {
            received.add(bytes as u64);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    }
}
