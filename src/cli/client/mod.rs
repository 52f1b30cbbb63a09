//! The server of a subcommand: how it is named, and how to connect to it.
//!
//! Guarantees: a password never appears in a message; no wait is longer than its caller allows.
//! Not here: requests.

mod connection;

use std::time::Duration;

use clap::{Arg, ArgMatches};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, ProtocolVersion, RedisError, TlsCertificates,
};

pub(super) use connection::Connection;
/// A reply of the server.
pub(super) use redis::Value as Reply;

use crate::domain::HostPort;

/// The server of a subcommand without `--url`.
const URL_DEFAULT: &str = "redis://127.0.0.1:7379";
/// The port of a URL without one.
const PORT_DEFAULT: u16 = 7379;
/// The name of a cluster, as by default on its servers.
const CLUSTER_DEFAULT: &str = "octostore";
/// A peer that has vanished is noticed after about 20 seconds of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// A server of another protocol.
const NOT_REDIS: &str = "does not answer as a Redis server; is it the port for HTTP?";
/// Errors of TLS, and what to do.
const TLS_HINTS: [(&str, &str); 5] = [
    ("CertificateRequired", "the server wants a certificate, see --cert"),
    ("CaUsedAsEndEntity", "it is the certificate of an authority (CA:TRUE), not of a server"),
    ("UnknownIssuer", "give the certificate of its authority with --cacert"),
    ("UnknownCA", "the server does not know the authority of --cert"),
    ("InvalidContentType", "the port may be one without TLS, see redis://"),
];

/// Why a request has no reply.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection, or one that ended or timed out before the reply.
    Unavailable(String),
    /// An error reply.
    Refused(String),
}

impl Failure {
    /// The same, with the server that it comes from.
    pub(super) fn at(self, server: &str) -> Failure {
        match self {
            Failure::Unavailable(reason) => Failure::Unavailable(format!("{server}: {reason}")),
            Failure::Refused(reason) => Failure::Refused(format!("{server}: {reason}")),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Unavailable(reason) | Failure::Refused(reason) => f.write_str(reason),
        }
    }
}

/// The arguments that name the server.
pub(super) fn arguments() -> [Arg; 4] {
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("FILE").help_heading("Server").help(help)
    };
    [
        url("url").env("OCTOSTORE_URL").hide_env_values(true).default_value(URL_DEFAULT).help(
            "redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, \
             redis-sentinel://[USER:PASSWORD@]HOST[:PORT],…[/DB][#NAME] for the leader of a cluster, or rediss-sentinel://",
        ),
        file("cacert", "Root certificates in PEM format, in place of those of the system"),
        file("cert", "The client's certificate in PEM format").requires("key-file"),
        Arg::new("key-file")
            .long("key")
            .value_name("FILE")
            .help_heading("Server")
            .requires("cert")
            .help("The private key of the client's certificate in PEM format"),
    ]
}

/// An argument for the URL of a server.
pub(super) fn url(name: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("URL").help_heading("Server")
}

/// A server, or the servers of a cluster.
pub(super) struct Target {
    source: Source,
    name: String,
}

enum Source {
    Server(Box<Login>),
    Cluster(Cluster),
}

/// A server, and how to log in there and at the other servers of its cluster.
#[derive(Clone)]
struct Login {
    info: ConnectionInfo,
    certificates: TlsCertificates,
}

/// Servers that know which of them leads. They answer as sentinels, and all have the same users.
struct Cluster {
    name: String,
    servers: Vec<Login>,
}

impl Target {
    /// The server that the arguments name.
    pub(super) fn from_arguments(matches: &ArgMatches) -> Result<Target, String> {
        Target::from_argument(matches, "url")
    }

    /// The server that the argument of this name names; see [`url`].
    pub(super) fn from_argument(matches: &ArgMatches, name: &str) -> Result<Target, String> {
        let url = matches.get_one::<String>(name).map_or(URL_DEFAULT, String::as_str);
        Target::new(url, &certificates(matches)?)
    }

    /// What messages call it: an address, or a cluster and its servers.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn new(url: &str, certificates: &TlsCertificates) -> Result<Target, String> {
        let plain = url.strip_prefix("redis-sentinel://").map(|rest| ("redis://", rest));
        let tls = || url.strip_prefix("rediss-sentinel://").map(|rest| ("rediss://", rest));
        if let Some((scheme, rest)) = plain.or_else(tls) {
            return Target::of_cluster(scheme, rest, certificates);
        }
        let login = Login::new(url, certificates)?;
        let name = login.info.addr().to_string();
        login.open().map_err(unusable)?;
        Ok(Target { source: Source::Server(Box::new(login)), name })
    }

    /// `rest` is what follows the scheme: `USER:PASSWORD@HOST:PORT,HOST:PORT/DB#NAME`.
    fn of_cluster(scheme: &str, rest: &str, certificates: &TlsCertificates) -> Result<Target, String> {
        let (rest, name) = rest.split_once('#').unwrap_or((rest, CLUSTER_DEFAULT));
        let (user, rest) = rest.rfind('@').map_or(("", rest), |at| rest.split_at(at + 1));
        let (hosts, db) = rest.split_once('/').unwrap_or((rest, ""));
        let server = |host: &str| Login::new(&format!("{scheme}{user}{host}/{db}"), certificates);
        let servers = hosts.split(',').map(server).collect::<Result<_, _>>()?;
        let cluster = Cluster { name: name.to_owned(), servers };
        Ok(Target { source: Source::Cluster(cluster), name: format!("{name} at {hosts}") })
    }

    /// Connects within this time.
    pub(super) async fn connect(&self, timeout: Duration) -> Result<Connection, Failure> {
        let connecting = async {
            match &self.source {
                Source::Server(login) => Ok((Login::clone(login), login.connect(timeout).await?)),
                Source::Cluster(cluster) => cluster.connect(timeout).await,
            }
        };
        let (login, connection) = within(&self.name, timeout, connecting).await?;
        Ok(Connection::new(login, connection, timeout))
    }
}

/// Waits for an answer, but not longer than `timeout`.
pub(super) async fn answer_within<T>(
    timeout: Duration,
    answering: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let answer = tokio::time::timeout(timeout, answering).await;
    answer.unwrap_or_else(|_| Err(Failure::Unavailable(no_answer(timeout))))
}

fn no_answer(timeout: Duration) -> String {
    format!("no answer within {} ms", timeout.as_millis())
}

/// Waits for a connection to the server of this name.
async fn within<T>(
    name: &str,
    timeout: Duration,
    connecting: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(timeout, connecting).await {
        Ok(Ok(connected)) => Ok(connected),
        // Errors of the handshake: the server is there, and wants another password.
        Ok(Err(error)) => Err(Failure::Unavailable(format!("{name}: {}", describe(&error)))),
        Err(_) => Err(Failure::Unavailable(format!("{name}: {}", no_answer(timeout)))),
    }
}

impl Login {
    fn new(url: &str, certificates: &TlsCertificates) -> Result<Login, String> {
        let info = with_port(url).into_connection_info().map_err(unusable)?;
        Ok(Login { info: prepared(info), certificates: certificates.clone() })
    }

    /// The same at another address.
    fn at(&self, HostPort { host, port }: HostPort) -> Login {
        let address = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Login { info: self.info.clone().set_addr(address), certificates: self.certificates.clone() }
    }

    fn open(&self) -> Result<Client, RedisError> {
        match self.info.addr() {
            ConnectionAddr::TcpTls { .. } => {
                Client::build_with_tls(self.info.clone(), self.certificates.clone())
            }
            _ => Client::open(self.info.clone()),
        }
    }

    /// A new connection, whose requests may take as long as their callers allow.
    async fn connect(&self, timeout: Duration) -> Result<MultiplexedConnection, RedisError> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(None);
        self.open()?.get_multiplexed_async_connection_with_config(&config).await
    }
}

impl Cluster {
    /// Connects to the leader that the first server knows which answers.
    async fn connect(&self, timeout: Duration) -> Result<(Login, MultiplexedConnection), RedisError> {
        let each = timeout / u32::try_from(self.servers.len() + 1).unwrap_or(u32::MAX);
        let mut last = RedisError::from((ErrorKind::Io, "no server answers"));
        for server in &self.servers {
            match tokio::time::timeout(each, self.leader(server, each)).await {
                Ok(Ok(leader)) => {
                    let connection = leader.connect(timeout).await?;
                    return Ok((leader, connection));
                }
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }

    /// Asks this server for the leader.
    async fn leader(&self, server: &Login, timeout: Duration) -> Result<Login, RedisError> {
        let mut asked = server.connect(timeout).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let Some((host, port)) = question.query_async::<Option<(String, u16)>>(&mut asked).await? else {
            return Err((ErrorKind::MasterNameNotFoundBySentinel, "no cluster has this name").into());
        };
        Ok(server.at(HostPort { host, port }))
    }
}

/// The value of a field in a map.
pub(super) fn field<'r>(map: &'r Reply, name: &str) -> Option<&'r Reply> {
    let mut pairs = map.as_map_iter()?;
    pairs.find(|(key, _)| text(key) == name).map(|(_, value)| value)
}

/// The items of an array; none if it is something else.
pub(super) fn items(reply: Option<&Reply>) -> &[Reply] {
    reply.and_then(Reply::as_sequence).unwrap_or_default()
}

/// A number; `None` for Null and everything else.
pub(super) fn integer(reply: Option<&Reply>) -> Option<i64> {
    match reply? {
        Reply::Int(number) => Some(*number),
        _ => None,
    }
}

/// The bytes of a string.
pub(super) fn bytes(reply: &Reply) -> &[u8] {
    match reply {
        Reply::BulkString(bytes) => bytes,
        Reply::SimpleString(text) => text.as_bytes(),
        _ => &[],
    }
}

/// A string as text; empty for everything else.
pub(super) fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(bytes(reply)).into_owned()
}

fn failure(error: RedisError) -> Failure {
    match error.code() {
        Some(_) => Failure::Refused(describe(&error)),
        None => Failure::Unavailable(describe(&error)),
    }
}

/// The error as the server has sent it, or what happened to the connection.
fn describe(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        // A URL may have a password; these errors do not repeat it, but their details may.
        (None, _) if error.kind() == ErrorKind::InvalidClientConfig => error.category().to_owned(),
        (None, _) if error.kind() == ErrorKind::Parse => NOT_REDIS.to_owned(),
        (None, _) => with_hint(error.to_string()),
    }
}

/// Adds what to do about a certificate that one of the two sides refuses.
fn with_hint(error: String) -> String {
    match TLS_HINTS.iter().find(|(part, _)| error.contains(part)) {
        Some((_, hint)) => format!("{error}: {hint}"),
        None => error,
    }
}

/// What is wrong with a URL, without its password.
fn unusable(error: RedisError) -> String {
    format!("the URL cannot be used: {}; redis://HOST:PORT is one, --help has the others", describe(&error))
}

fn certificates(matches: &ArgMatches) -> Result<TlsCertificates, String> {
    let read = |name: &str| {
        let path = matches.get_one::<String>(name);
        path.map(|path| std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}")))
            .transpose()
    };
    let client_tls = match (read("cert")?, read("key-file")?) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        _ => None,
    };
    Ok(TlsCertificates { client_tls, root_cert: read("cacert")? })
}

fn socket_options() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_IDLE)
        .with_retries(KEEPALIVE_PROBES);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
}

/// With socket options, and the protocol that has maps.
fn prepared(info: ConnectionInfo) -> ConnectionInfo {
    let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    info.set_tcp_settings(socket_options()).set_redis_settings(login)
}

/// The same URL with a port: the client library would take that of Redis.
fn with_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    if !matches!(scheme, "redis" | "rediss" | "valkey" | "valkeys") {
        return url.to_owned();
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match has_port(host) {
        true => url.to_owned(),
        false => format!("{scheme}://{authority}:{PORT_DEFAULT}{path}"),
    }
}

fn has_port(host: &str) -> bool {
    // Colons inside brackets are those of an IPv6 address.
    host.rsplit(']').next().is_some_and(|behind| behind.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_port_means_the_default_port() {
        for (given, expected) in [
            ("redis://host", "redis://host:7379"),
            ("redis://host:1/2", "redis://host:1/2"),
            ("rediss://u:p%40@host/2", "rediss://u:p%40@host:7379/2"),
            ("redis://[::1]", "redis://[::1]:7379"),
            ("redis://:secret@[::1]:6379", "redis://:secret@[::1]:6379"),
            ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ] {
            assert_eq!(with_port(given), expected);
        }
    }

    #[test]
    fn no_message_has_the_password() {
        let none = TlsCertificates { client_tls: None, root_cert: None };
        for url in [
            "redis://u:s3cret@",
            "redis://u:s3cret@host:port",
            "http://u:s3cret@host",
            "s3cret",
            "redis-sentinel://u:s3cret@a,b/0",
            "redis-sentinel://u:s3cret@a,b:x/0#main",
        ] {
            let message = Target::new(url, &none).err().unwrap_or_default();
            assert!(!message.contains("s3cret"), "{url}: {message}");
        }
        let target = Target::new("redis-sentinel://u:s3cret@a,b:1/2#main", &none).expect("a target");
        assert_eq!(target.name, "main at a,b:1");
    }
}
