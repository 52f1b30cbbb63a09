//! What clients do in a case.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{TICK, WINDOW};

/// What one connection does in a case.
pub(super) struct Sender {
    pub(super) addr: SocketAddr,
    pub(super) bytes: Vec<u8>,
    /// What its replies end with; empty: only the end of the connection.
    pub(super) ends_with: Vec<u8>,
    pub(super) reads: bool,
}

/// What happens in one attempt of a case.
#[derive(Default)]
pub(super) struct Abuse {
    pub(super) senders: Vec<Sender>,
    /// Connections that last as long as the attempt.
    pub(super) kept: Vec<TcpStream>,
    /// Connections that close when it begins.
    pub(super) closing: Vec<TcpStream>,
    /// How long it is watched, whenever the senders are done.
    pub(super) at_least: Duration,
    /// How long the senders have, if that is more than [`WINDOW`].
    pub(super) at_most: Duration,
}

/// Sends and reads until all is answered or the time is over.
pub(super) fn send(sender: &Sender, until: Instant) {
    let Ok(stream) = TcpStream::connect(sender.addr) else { return };
    stream.set_read_timeout(Some(TICK)).expect("a socket option");
    stream.set_write_timeout(Some(WINDOW)).expect("a socket option");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The server may close the connection, or not read on.
            let _ = (&stream).write_all(&sender.bytes);
        });
        let mut some = vec![0; 256 << 10];
        let mut tail = Vec::new();
        while Instant::now() < until {
            if !sender.reads {
                std::thread::park_timeout(TICK);
                continue;
            }
            match (&stream).read(&mut some) {
                Ok(0) => break,
                Ok(length) => {
                    let end = &some[length.saturating_sub(sender.ends_with.len())..length];
                    tail.extend_from_slice(end);
                    tail.drain(..tail.len().saturating_sub(sender.ends_with.len()));
                    if !tail.is_empty() && tail == sender.ends_with {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        // Ends the writer, too.
        let _ = stream.shutdown(Shutdown::Both);
    });
}
