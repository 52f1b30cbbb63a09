//! Connections between servers: those of clients that are passed on to the leader, and those by
//! which standbys see that the leader lives.
//!
//! Guarantees: a client's connection is passed on as a whole or not at all. A connection that
//! claims to come from another server of the cluster has proved it. Not here: which server leads.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::proxy_header::{FIXED_BYTES, Header, SIGNATURE};
use crate::domain::HostPort;
use crate::net::{Stream, set_options};

/// How long a new connection is looked at for a header. Servers send it at once.
const HEADER_TIME: Duration = Duration::from_secs(1);
/// Time between two looks at a connection whose first bytes could be those of a header.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// How long the leader may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(1);

/// What a new connection is.
pub enum Knock {
    /// That of a client.
    Client(Stream),
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
    if !timeout(HEADER_TIME, begins_with_signature(&stream)).await.unwrap_or(Ok(false))? {
        return Ok(Knock::Client(stream));
    }
    let mut bytes = vec![0; FIXED_BYTES];
    let read = async {
        stream.read_exact(&mut bytes).await?;
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

async fn begins_with_signature(stream: &Stream) -> io::Result<bool> {
    let mut seen = [0; SIGNATURE.len()];
    loop {
        // Servers connect in plain text.
        let Some(length) = stream.peek(&mut seen).await.transpose()? else { return Ok(false) };
        if length == 0 || seen[..length] != SIGNATURE[..length] {
            return Ok(false);
        }
        if length == SIGNATURE.len() {
            return Ok(true);
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// Answers each byte with the same byte, until the connection ends.
pub async fn answer_pings(mut stream: Stream) {
    let mut bytes = [0; 16];
    while let Ok(length @ 1..) = stream.read(&mut bytes).await {
        stream.begin_output();
        if stream.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Connects to another server, and introduces the connection.
pub(super) async fn connect(to: &HostPort, header: &Header, key: &[u8; 32]) -> io::Result<TcpStream> {
    let connect = TcpStream::connect((to.host.as_str(), to.port));
    let mut stream = timeout(CONNECT_TIME, connect).await.map_err(|_| io::ErrorKind::TimedOut)??;
    set_options(&stream);
    stream.write_all(&header.encode(key)).await?;
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
    header: &Header,
    key: &[u8; 32],
    until: impl Future<Output = ()>,
) -> Result<(), Stream> {
    let mut upstream = match connect(leader, header, key).await {
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
