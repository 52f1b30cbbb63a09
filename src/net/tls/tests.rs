//! Tests of certificates, and of streams under TLS.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::BytesMut;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::*;
use crate::net::Stream;

/// An authority and the certificates that it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    fn new() -> Authority {
        let mut params = params("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for this name, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params(name).signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A server's files.
struct Files {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Files {
        let files = Files { dir: tempfile::tempdir().unwrap(), authority: Authority::new() };
        let (certificate, key) = files.authority.issue("server");
        files.write("cert", &certificate);
        files.write("key", &key);
        files.write("ca", &files.authority.pem);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), private).unwrap();
    }

    fn names(&self, auth: Option<ClientAuth>) -> TlsFiles {
        let client_roots = auth.map(|auth| (self.path("ca"), auth));
        TlsFiles { certificate: self.path("cert"), key: self.path("key"), client_roots, server_roots: None }
    }

    /// A client that trusts the authority and shows the certificate, if there is one.
    fn client(&self, own: Option<(String, String)>, alpn: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

type Client = StreamOwned<ClientConnection, std::net::TcpStream>;

/// Connects; the handshake is made with the first byte.
fn connect(config: ClientConfig, address: std::net::SocketAddr) -> Client {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(session, std::net::TcpStream::connect(address).unwrap())
}

/// Accepts one connection; the client runs on a thread of its own.
async fn accept<R: Send + 'static>(
    tls: &Tls,
    config: ClientConfig,
    protocol: TlsProtocol,
    client: impl FnOnce(Client) -> R + Send + 'static,
) -> (io::Result<Socket>, tokio::task::JoinHandle<R>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = tokio::task::spawn_blocking(move || client(connect(config, address)));
    let (tcp, _) = listener.accept().await.unwrap();
    (tls.accept(tcp, protocol).await, client)
}

#[test]
fn files_that_do_not_fit_are_named() {
    let files = Files::new();
    let problem =
        |auth| Tls::load(files.names(auth)).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(problem(Some(ClientAuth::Required)), "");
    let (_, other_key) = files.authority.issue("other");
    let key = std::fs::read_to_string(files.path("key")).unwrap();
    files.write("key", &other_key);
    assert!(problem(None).contains("cannot be used with the key in"), "{}", problem(None));
    files.write("key", "s3cret");
    assert!(problem(None).contains("no private key in PEM format"), "{}", problem(None));
    assert!(!problem(None).contains("s3cret"));
    files.write("key", &key);
    std::fs::set_permissions(files.path("key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(problem(None).contains("every user may access the key (mode 644)"), "{}", problem(None));
    files.write("key", &key);
    files.write("ca", "");
    assert!(problem(Some(ClientAuth::Optional)).contains("no certificate in PEM format"));
    std::fs::remove_file(files.path("cert")).unwrap();
    assert!(problem(None).contains("cert: No such file"), "{}", problem(None));
}

#[test]
fn a_change_is_seen_once_the_files_are_settled() {
    let files = Files::new();
    let tls = Tls::load(files.names(None)).unwrap();
    assert!(!tls.has_changed());
    let (certificate, key) = files.authority.issue("renewed");
    files.write("cert", &certificate);
    assert!(!tls.has_changed(), "the key may be written next");
    files.write("key", &key);
    assert!(!tls.has_changed());
    assert!(tls.has_changed());
    tls.reload().unwrap();
    assert!(!tls.has_changed());
    files.write("key", "broken");
    assert!(!tls.has_changed() && tls.has_changed());
    assert!(tls.reload().is_err());
    assert!(!tls.has_changed(), "one failure is reported once");
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let files = Files::new();
    for (auth, has_certificate, expected) in [
        (ClientAuth::Required, true, Ok(Some("worker-1".to_owned()))),
        (ClientAuth::Required, false, Err(())),
        (ClientAuth::Optional, true, Ok(Some("worker-1".to_owned()))),
        (ClientAuth::Optional, false, Ok(None)),
    ] {
        let tls = Tls::load(files.names(Some(auth))).unwrap();
        let own = has_certificate.then(|| files.authority.issue("worker-1"));
        let config = files.client(own, &[]);
        let say = |mut client: Client| drop(client.write_all(b"x").and_then(|()| client.flush()));
        let (socket, client) = accept(&tls, config, TlsProtocol::Redis, say).await;
        assert_eq!(socket.map(|socket| socket.client_name()).map_err(drop), expected, "{auth:?}");
        client.await.unwrap();
    }
    let tls = Tls::load(files.names(Some(ClientAuth::Optional))).unwrap();
    let stranger = Authority::new().issue("worker-1");
    let config = files.client(Some(stranger), &[]);
    let say = |mut client: Client| drop(client.write_all(b"x"));
    let (socket, client) = accept(&tls, config, TlsProtocol::Redis, say).await;
    assert!(socket.is_err(), "signed by another authority");
    client.await.unwrap();
}

#[tokio::test]
async fn http_is_offered_as_http_1_1_only() {
    let files = Files::new();
    let tls = Tls::load(files.names(None)).unwrap();
    for (alpn, is_accepted) in [(vec![], true), (vec!["h2", "http/1.1"], true), (vec!["h2"], false)] {
        let config = files.client(None, &alpn);
        let ask = |mut client: Client| {
            let _ = client.write_all(b"x");
            client.conn.alpn_protocol().map(<[u8]>::to_vec)
        };
        let (socket, client) = accept(&tls, config, TlsProtocol::Http, ask).await;
        assert_eq!(socket.is_ok(), is_accepted, "{alpn:?}");
        let agreed = if alpn.len() == 2 { Some(b"http/1.1".to_vec()) } else { None };
        assert_eq!(client.await.unwrap(), agreed);
    }
}

/// Reads only as much as the test allows, so that the server has to wait for it.
#[tokio::test]
async fn output_larger_than_any_buffer_arrives_in_order_and_ends() {
    const BYTES: usize = 3 << 20;
    let files = Files::new();
    let tls = Tls::load(files.names(None)).unwrap();
    let read = |mut client: Client| {
        client.write_all(b"go").unwrap();
        let mut found = Vec::new();
        // Fails if the end of the output is not marked.
        client.read_to_end(&mut found).map(|_| found)
    };
    let (socket, client) = accept(&tls, files.client(None, &[]), TlsProtocol::Redis, read).await;
    let mut stream = Stream::new(socket.unwrap(), Duration::from_secs(60));
    let mut input = BytesMut::new();
    while input.len() < 2 {
        stream.readable().await.unwrap();
        match stream.try_read_buf(&mut input) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => assert_ne!(read.unwrap(), 0),
        }
    }
    assert_eq!(&input[..], b"go");
    let sent: Vec<u8> = (0..BYTES).map(|at| (at / 7) as u8).collect();
    let mut output = BytesMut::from(&sent[..]);
    stream.begin_output();
    while !stream.try_send(&mut output).unwrap() {
        stream.writable().await.unwrap();
    }
    drop(stream);
    let found = client.await.unwrap().unwrap();
    assert!(found == sent, "{} of {BYTES} bytes", found.len());
}

#[tokio::test]
async fn garbage_fails_the_handshake_and_the_alert_is_sent() {
    let files = Files::new();
    let tls = Tls::load(files.names(None)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = tokio::task::spawn_blocking(move || {
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        tcp.write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
        let mut answer = Vec::new();
        // The server may reset the connection behind the alert.
        let _ = tcp.read_to_end(&mut answer);
        answer
    });
    let (tcp, _) = listener.accept().await.unwrap();
    assert!(tls.accept(tcp, TlsProtocol::Redis).await.is_err());
    let answer = client.await.unwrap();
    assert!(answer.is_empty() || answer[0] == 21, "an alert: {answer:?}");
}
