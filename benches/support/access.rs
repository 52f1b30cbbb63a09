//! How clients of benches get in: without credentials, as a user, or over TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Peer, encode};

/// What a client does before its first request.
#[derive(Clone, Default)]
pub struct Access {
    /// A request for authentication.
    pub login: Option<Vec<u8>>,
    pub tls: Option<Arc<ClientConfig>>,
}

/// Makes `server.pem` and `server.key`, which is private. Returns what a client needs to trust them.
pub fn certificate(dir: &Path) -> Arc<ClientConfig> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "octostore of a bench");
    let certificate = params.self_signed(&key).unwrap();
    private_file(&dir.join("server.pem"), &certificate.pem());
    private_file(&dir.join("server.key"), &key.serialize_pem());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.unwrap().with_root_certificates(roots).with_no_client_auth())
}

/// Flags of a server with the certificate in `dir`.
pub fn tls_flags(dir: &Path) -> Vec<String> {
    let path = |file: &str| dir.join(file).to_str().unwrap().to_owned();
    let flags = ["--tls-listen", "127.0.0.1:0", "--tls-cert", &path("server.pem"), "--tls-key"];
    flags.iter().map(|flag| (*flag).to_owned()).chain([path("server.key")]).collect()
}

pub fn private_file(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// The client's side of a session that has not begun.
pub fn tls_session(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), server_name()).unwrap()
}

impl Peer {
    /// octostore, for a client that is one of its users.
    pub fn octostore_with_users(flags: &[&str]) -> Peer {
        let dir = tempfile::tempdir().unwrap();
        let users = dir.path().join("users");
        let rules = "~lock:* &__lock__:lock:* +@lock +@connection -@dangerous";
        private_file(&users, &format!("user default off\nuser bench on >bench {rules}\n"));
        let flags = [flags, &["--users", users.to_str().unwrap()]].concat();
        let mut peer = Peer::octostore_in(dir, &flags);
        peer.access.login = Some(encode(&["AUTH", "bench", "bench"]));
        peer
    }

    /// octostore, for a client over TLS.
    pub fn octostore_with_tls(flags: &[&str]) -> Peer {
        let dir = tempfile::tempdir().unwrap();
        let tls = certificate(dir.path());
        let own = tls_flags(dir.path());
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let mut peer = Peer::octostore_in(dir, &[flags, &["--listen", "off"], &own].concat());
        peer.access.tls = Some(tls);
        peer
    }
}

/// A connection of a load.
pub enum Stream {
    Plain(tokio::net::TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>),
}

impl Access {
    pub async fn connect(&self, addr: SocketAddr) -> Stream {
        let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let mut stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                Stream::Tls(Box::new(connector.connect(server_name(), tcp).await.unwrap()))
            }
        };
        match (&mut stream, &self.login) {
            (_, None) => {}
            (Stream::Plain(stream), Some(login)) => log_in(stream, login).await,
            (Stream::Tls(stream), Some(login)) => log_in(stream, login).await,
        }
        stream
    }
}

async fn log_in(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), login: &[u8]) {
    stream.write_all(login).await.unwrap();
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"+OK\r\n");
}
