//! A connection: reading, writing at a minimum pace, and closing.
//!
//! Guarantees: a peer that takes its output too slowly is disconnected, even if it takes a byte now
//! and then. Whether the peer has closed is asked of the system, whose answer is newer than the
//! runtime's.
//! Not here: protocols, authentication.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::socket::Socket;

/// Why output was not sent.
#[derive(Debug)]
pub enum WriteError {
    /// The peer takes it too slowly.
    Stalled,
    /// The connection is broken.
    Failed(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        WriteError::Failed(error)
    }
}

/// A connection.
///
/// Output is sent in units that [`Stream::begin_output`] or a flush separates; the pace is measured
/// within one.
pub struct Stream {
    socket: Socket,
    stall: Duration,
    pace: Pace,
    /// Runs while `poll_write` waits for the peer.
    stall_timer: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// A peer that takes no output for `stall`, or on average less than a mebibyte in that time,
    /// is given up.
    pub fn new(socket: impl Into<Socket>, stall: Duration) -> Stream {
        Stream { socket: socket.into(), stall, pace: Pace::default(), stall_timer: None }
    }

    /// The common name in the certificate that the client has presented.
    pub fn client_name(&self) -> Option<String> {
        self.socket.client_name()
    }

    /// Waits for input in plain text and copies it, without taking it. Returns its length; 0 means
    /// that the peer has closed. `None`: it is not in plain text.
    pub async fn peek(&self, input: &mut [u8]) -> Option<io::Result<usize>> {
        match self.socket.is_encrypted() {
            true => None,
            false => Some(self.socket.tcp().peek(input).await),
        }
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.tcp().peer_addr()
    }

    /// The server's own address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.tcp().local_addr()
    }

    /// Starts to measure the pace anew.
    pub fn begin_output(&mut self) {
        self.pace = Pace::default();
    }

    /// Sends from `output` what the socket takes without waiting. Returns whether that was all.
    pub fn try_send(&mut self, output: &mut BytesMut) -> io::Result<bool> {
        while !output.is_empty() {
            match self.socket.try_write(output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    output.advance(sent);
                    self.pace.sent += sent as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.socket.try_flush()
    }

    /// Completes when the socket takes more output.
    pub async fn writable(&mut self) -> Result<(), WriteError> {
        let left = self.pace.left(Instant::now(), self.stall).ok_or(WriteError::Stalled)?;
        timeout(left, self.socket.tcp().writable())
            .await
            .map_err(|_| WriteError::Stalled)?
            .map_err(Into::into)
    }

    /// Completes when there is input, or the peer has closed.
    pub async fn readable(&self) -> io::Result<()> {
        match self.socket.has_input() {
            true => Ok(()),
            false => self.socket.tcp().readable().await,
        }
    }

    /// Appends the input that is there, without waiting. Returns the number of bytes; 0 means that
    /// the peer has closed. Fails with `WouldBlock` if there is none.
    pub fn try_read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        self.socket.try_read_buf(input)
    }

    /// Waits until there is input or the peer has closed. Returns whether it has closed as far as
    /// the runtime knows, however much input there is to be read first.
    pub async fn is_read_closed(&self) -> io::Result<bool> {
        if self.socket.has_input() {
            return Ok(self.peer_has_closed());
        }
        Ok(self.socket.tcp().ready(Interest::READABLE).await?.is_read_closed())
    }

    /// Whether the peer has closed the connection, as the system knows at this moment.
    pub fn peer_has_closed(&self) -> bool {
        #[cfg(target_os = "linux")]
        const CLOSED: PollFlags = PollFlags::RDHUP;
        #[cfg(not(target_os = "linux"))]
        const CLOSED: PollFlags = PollFlags::empty();
        let mut polled = [PollFd::new(self.socket.tcp(), CLOSED)];
        // If the system does not answer, the next write fails.
        poll(&mut polled, Some(&Timespec::default())).is_ok() && !polled[0].revents().is_empty()
    }

    /// Ends the output, and discards input until the peer closes, too, or a limit is reached:
    /// closing a socket with unread input resets it, and the peer could not read the last reply.
    pub async fn linger(&mut self, time_max: Duration, bytes_max: usize) {
        let discarded = async {
            poll_fn(|context| self.socket.poll_shutdown(context)).await?;
            let (mut bytes, mut buffer) = (0, [0; 4096]);
            while bytes < bytes_max {
                self.socket.tcp().readable().await?;
                match self.socket.tcp().try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => bytes += read,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok::<_, io::Error>(())
        };
        // The connection ends in any case.
        let _ = timeout(time_max, discarded).await;
    }

    /// Counts a write, or fails with `TimedOut` if it has to wait for too long.
    fn poll_pace(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = written {
            self.stall_timer = None;
            self.pace.sent += result.as_ref().map_or(0, |sent| *sent as u64);
            return Poll::Ready(result);
        }
        if self.stall_timer.is_none() {
            let left = self.pace.left(Instant::now(), self.stall).ok_or(io::ErrorKind::TimedOut)?;
            self.stall_timer = Some(Box::pin(sleep(left)));
        }
        if let Some(timer) = &mut self.stall_timer {
            ready!(timer.as_mut().poll(context));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket.poll_read(context, buffer)
    }
}

/// Writes fail with `TimedOut` when the peer is too slow.
impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket.poll_write(context, bytes);
        self.poll_pace(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket.poll_write_vectored(context, parts);
        self.poll_pace(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.socket.poll_flush(context).map_ok(|()| 0);
        ready!(self.poll_pace(context, flushed))?;
        self.begin_output();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_shutdown(context)
    }
}

/// How fast a peer takes its output, so that a byte now and then does not keep a reply in memory.
#[derive(Default)]
struct Pace {
    /// When the peer first had to be waited for.
    since: Option<Instant>,
    /// Bytes that it has taken.
    sent: u64,
}

/// Output for which a peer may take the time of one stall.
const STALL_BYTES: u64 = 1 << 20;

impl Pace {
    /// How long the peer may still be waited for; `None`: no longer.
    fn left(&mut self, now: Instant, stall: Duration) -> Option<Duration> {
        let waited = now.saturating_duration_since(*self.since.get_or_insert(now));
        let earned = stall.mul_f64(self.sent as f64 / STALL_BYTES as f64);
        // A peer that takes nothing at all is given up after one stall, whatever it took before.
        (stall + earned).checked_sub(waited).filter(|left| !left.is_zero()).map(|left| left.min(stall))
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::*;

    const STALL: Duration = Duration::from_secs(30);

    #[test]
    fn the_time_left_grows_with_the_bytes_taken() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pace.left(start, STALL), Some(STALL));
        pace.sent += 1;
        assert!(pace.left(after(29), STALL).is_some_and(|left| left < Duration::from_millis(1001)));
        pace.sent += 1;
        assert_eq!(pace.left(after(31), STALL), None);
        pace.sent += STALL_BYTES;
        assert!(pace.left(after(31), STALL).is_some_and(|left| left < STALL));
        pace.sent += 100 * STALL_BYTES;
        assert_eq!(pace.left(after(31), STALL), Some(STALL));
    }

    /// A stream and its peer, with small socket buffers.
    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let peer = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        sockopt::set_socket_send_buffer_size(&stream, 64 << 10).unwrap();
        (Stream::new(stream, STALL), peer)
    }

    /// Reads `bytes` every ten seconds; returns the stream's error, if it did not send everything,
    /// and the time that passed.
    async fn send_to_slow_peer(bytes: usize) -> (Option<io::ErrorKind>, Duration) {
        let (mut stream, mut peer) = pair().await;
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; bytes];
            while peer.read_exact(&mut buffer).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        });
        let start = Instant::now();
        let sent = stream.write_all(&vec![b'x'; 8 << 20]).await;
        reader.abort();
        (sent.err().map(|error| error.kind()), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_too_slowly_is_disconnected() {
        let (error, took) = send_to_slow_peer(64 << 10).await;
        assert_eq!(error, Some(io::ErrorKind::TimedOut));
        assert!(took >= STALL && took < 3 * STALL, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_that_keeps_the_pace_gets_everything() {
        let (error, took) = send_to_slow_peer(1 << 20).await;
        assert_eq!(error, None);
        assert!(took > STALL, "{took:?}");
    }

    #[tokio::test]
    async fn disconnect_is_seen_before_epoll_reports_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = Stream::new(listener.accept().await.unwrap().0, STALL);
        assert!(!stream.peer_has_closed());
        std::io::Write::write_all(&mut &client, b"PING\r\n").unwrap();
        assert!(!stream.peer_has_closed(), "input is not the end");
        drop(client);
        assert!(stream.peer_has_closed(), "although there is input to read first");
    }
}
