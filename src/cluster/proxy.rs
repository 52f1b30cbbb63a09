//! Connections between servers: those of clients that are passed on to the leader, and those by
//! which standbys see that the leader lives.
//!
//! Guarantees: a client's connection is passed on as a whole or not at all. A connection that
//! claims to come from another server of the cluster has proved it. Not here: which server leads.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::proxy_header::{FIXED_BYTES, Header, SIGNATURE};
use crate::domain::HostPort;
use crate::net::{Socket, Stream, Tls, set_options};

/// How long a new connection is looked at for a header. Servers send it at once.
const HEADER_TIME: Duration = Duration::from_secs(1);
/// Time between two looks at a connection whose first bytes could be those of a header.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// How long the leader may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(1);

/// A server that takes no output for this time is given up.
const STALL_MAX: Duration = Duration::from_secs(30);

/// What a new connection is.
pub enum Knock {
    /// That of a client, and what has been read from it.
    Client(Stream, BytesMut),
    /// That of a client of another server, which passes it on, with its header.
    Forwarded(Stream, Header),
    /// Another server wants to see that this one lives.
    Pings(Stream),
    /// That of a client that passes itself off as a server.
    Refused(&'static str),
}

/// Finds out what a new connection is.
///
/// # Errors
///
/// If the connection breaks.
pub async fn receive(mut stream: Stream, key: &[u8; 32]) -> io::Result<Knock> {
    // A client may be silent for long before its first request.
    let mut begin = BytesMut::new();
    let signature = begins_with_signature(&mut stream, &mut begin);
    if !timeout(HEADER_TIME, signature).await.unwrap_or(Ok(false))? {
        return Ok(Knock::Client(stream, begin));
    }
    let mut bytes = begin.to_vec();
    let read = async {
        let begun = bytes.len();
        bytes.resize(FIXED_BYTES, 0);
        stream.read_exact(&mut bytes[begun..]).await?;
        let fixed: &[u8; FIXED_BYTES] = bytes.first_chunk().unwrap_or(&[0; FIXED_BYTES]);
        bytes.resize(FIXED_BYTES + Header::rest_bytes(fixed), 0);
        stream.read_exact(&mut bytes[FIXED_BYTES..]).await
    };
    timeout(HEADER_TIME, read).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(match Header::decode(&bytes, key) {
        Ok(header) if header.addresses.is_none() => Knock::Pings(stream),
        Ok(header) => Knock::Forwarded(stream, header),
        Err(reason) => Knock::Refused(reason),
    })
}

/// Looks at the first bytes of a connection. Those in plain text stay there; what is decrypted is
/// added to `begin`.
async fn begins_with_signature(stream: &mut Stream, begin: &mut BytesMut) -> io::Result<bool> {
    let mut seen = [0; SIGNATURE.len()];
    loop {
        let (length, is_closed) = match stream.peek(&mut seen).await.transpose()? {
            Some(length) => (length, length == 0),
            None => {
                let room = SIGNATURE.len() - begin.len();
                let is_closed = (&mut *stream).take(room as u64).read_buf(begin).await? == 0;
                seen[..begin.len()].copy_from_slice(begin);
                (begin.len(), is_closed)
            }
        };
        if is_closed || seen[..length] != SIGNATURE[..length] {
            return Ok(false);
        }
        if length == SIGNATURE.len() {
            return Ok(true);
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// Answers each byte with the same byte while this server `is_able` to lead, until the connection
/// ends.
pub async fn answer_pings(mut stream: Stream, is_able: impl Fn() -> bool) {
    let mut bytes = [0; 16];
    while let Ok(length @ 1..) = stream.read(&mut bytes).await {
        if !is_able() {
            continue;
        }
        stream.begin_output();
        if stream.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Connects to another server, with `tls` if there is one, and introduces the connection.
pub(super) async fn connect(
    to: &HostPort,
    tls: Option<&Tls>,
    header: &Header,
    key: &[u8; 32],
) -> io::Result<Stream> {
    let connect = async {
        let tcp = TcpStream::connect((to.host.as_str(), to.port)).await?;
        set_options(&tcp);
        match tls {
            Some(tls) => tls.connect(tcp, &to.host).await,
            None => Ok(Socket::from(tcp)),
        }
    };
    let socket = timeout(CONNECT_TIME, connect).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let mut stream = Stream::new(socket, STALL_MAX);
    stream.write_all(&header.encode(key)).await?;
    stream.flush().await?;
    Ok(stream)
}

/// Passes a client's connection on to the leader until one of them closes it, or `until` completes.
/// `input` has been read from it already.
///
/// # Errors
///
/// Gives the connection back if the leader cannot be reached.
pub async fn forward(
    mut client: Stream,
    input: &[u8],
    leader: &HostPort,
    tls: Option<&Tls>,
    header: &Header,
    key: &[u8; 32],
    until: impl Future<Output = ()>,
) -> Result<(), Stream> {
    let mut upstream = match connect(leader, tls, header, key).await {
        Ok(upstream) => upstream,
        Err(error) => {
            tracing::debug!(%leader, %error, "cannot reach the leader");
            return Err(client);
        }
    };
    let copy = async {
        upstream.write_all(input).await?;
        copy_bidirectional(&mut client, &mut upstream).await
    };
    tokio::select! {
        // Either end has closed, or broken the connection.
        _ = copy => {}
        () = until => {}
    }
    Ok(())
}
