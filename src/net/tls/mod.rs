//! Certificates of the server, and the rules for those of its clients.
//!
//! Guarantees: a pair of certificate and key that cannot be used never replaces one that can;
//! connections keep the certificate of their handshake. Not here: sockets that listen, limits.

mod certificate;
mod session;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;

pub(super) use self::session::Session;
use super::Socket;

/// Whether clients must present a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Those without one are served, too.
    Optional,
    /// Those without one are refused.
    Required,
}

/// The files of a server with TLS, in PEM format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by those between it and a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The roots of clients' certificates; `None`: clients have none.
    pub client_roots: Option<(PathBuf, ClientAuth)>,
    /// The roots of the certificates of the servers to which this one connects; `None`: it connects
    /// to none with TLS.
    pub server_roots: Option<PathBuf>,
}

/// Why the files cannot be used.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// What a client is offered after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsProtocol {
    /// RESP, which has no name in TLS.
    Redis,
    /// HTTP/1.1.
    Http,
}

/// The certificate of a server, which can be replaced while the server runs.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Material>,
    /// The files as they were when they were last loaded or found to be unusable, and as they were
    /// last seen.
    seen: Mutex<(Vec<FileState>, Vec<FileState>)>,
}

struct Material {
    redis: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    /// For connections to other servers.
    client: Option<Arc<ClientConfig>>,
    expires_at: u64,
}

/// Tells whether a file has changed. Absent files have one, too.
type FileState = Option<(u64, u64, i64, i64, u64)>;

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read, or they do not belong together.
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        let state = files.state();
        let current = RwLock::new(Material::load(&files)?);
        Ok(Tls { files, current, seen: Mutex::new((state.clone(), state)) })
    }

    /// The files that it reads.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Reads the files again. Handshakes from now on use what they contain.
    ///
    /// # Errors
    ///
    /// As [`Tls::load`]; the certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let state = self.files.state();
        *self.seen.lock() = (state.clone(), state);
        let loaded = Material::load(&self.files)?;
        *self.current.write() = loaded;
        Ok(())
    }

    /// Whether the files have changed since they were last read, and were the same at the last two
    /// calls: they are written one after the other.
    pub fn has_changed(&self) -> bool {
        let state = self.files.state();
        let (loaded, last) = &mut *self.seen.lock();
        let is_settled = *last == state;
        *last = state;
        is_settled && *loaded != *last
    }

    /// When the first certificate of the chain expires, in seconds since 1970.
    pub fn expires_at(&self) -> u64 {
        self.current.read().expires_at
    }

    /// Makes a handshake.
    pub(super) async fn accept(&self, tcp: TcpStream, protocol: TlsProtocol) -> io::Result<Socket> {
        let config = {
            let current = self.current.read();
            Arc::clone(match protocol {
                TlsProtocol::Redis => &current.redis,
                TlsProtocol::Http => &current.http,
            })
        };
        let session = Session::accept(&tcp, config).await?;
        Ok(Socket::encrypted(tcp, session))
    }

    /// Makes a handshake with the server at this host, if there are roots for its certificate, and
    /// presents the certificate of this one if asked for it.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or the certificate is not that of this host.
    pub async fn connect(&self, tcp: TcpStream, host: &str) -> io::Result<Socket> {
        let Some(config) = self.current.read().client.clone() else { return Ok(Socket::from(tcp)) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let session = Session::connect(&tcp, name, config).await?;
        Ok(Socket::encrypted(tcp, session))
    }
}

/// Whether a handshake has failed because one side refuses what the other one presents.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented};
    let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(reason, Some(InvalidCertificate(_) | NoCertificatesPresented | AlertReceived(_)))
}

impl TlsFiles {
    fn state(&self) -> Vec<FileState> {
        let roots = self.client_roots.as_ref().map(|(path, _)| path).into_iter().chain(&self.server_roots);
        let state = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
        };
        [&self.certificate, &self.key].into_iter().chain(roots).map(state).collect()
    }
}

impl TlsFiles {
    /// How this server connects to others.
    fn client_config(
        &self,
        chain: &[CertificateDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Option<Arc<ClientConfig>>, TlsError> {
        let Some(path) = &self.server_roots else { return Ok(None) };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| fault(path, error))?
            .with_root_certificates(roots(path)?)
            .with_client_auth_cert(chain.to_vec(), private_key(&self.key)?)
            .map_err(|error| fault(&self.certificate, error))?;
        Ok(Some(Arc::new(config)))
    }
}

impl Material {
    fn load(files: &TlsFiles) -> Result<Material, TlsError> {
        let path = files.certificate.as_path();
        let chain = certificates(path)?;
        let expiries: Option<Vec<u64>> = chain.iter().map(certificate::expires_at).collect();
        let expires_at = expiries.and_then(|all| all.into_iter().min());
        let expires_at = expires_at.ok_or_else(|| fault(path, "a certificate cannot be read"))?;
        let provider = Arc::new(ring::default_provider());
        let client = files.client_config(&chain, Arc::clone(&provider))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| fault(path, error))?;
        let builder = match &files.client_roots {
            None => builder.with_no_client_auth(),
            Some((roots, auth)) => builder.with_client_cert_verifier(verifier(roots, *auth, provider)?),
        };
        let key = private_key(&files.key)?;
        let redis = builder.with_single_cert(chain, key).map_err(|error| {
            let key = files.key.display();
            fault(path, format!("it cannot be used with the key in {key}: {error}"))
        })?;
        let mut http = redis.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Material { redis: Arc::new(redis), http: Arc::new(http), client, expires_at })
    }
}

fn fault(path: &Path, problem: impl fmt::Display) -> TlsError {
    TlsError(format!("{}: {problem}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let items = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, &error))?;
    let found: Vec<_> = items.collect::<Result<_, _>>().map_err(|error| unreadable(path, &error))?;
    if found.is_empty() { Err(fault(path, "there is no certificate in PEM format")) } else { Ok(found) }
}

/// Reads the key. Refuses a file that every user of the machine may access: a group may be meant
/// to.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let mode = std::fs::metadata(path).map_err(|error| fault(path, error))?.permissions().mode();
    if mode & 0o007 != 0 {
        let problem = format!("every user may access the key (mode {:o}); run chmod 600 on it", mode & 0o777);
        return Err(fault(path, problem));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => fault(path, "there is no private key in PEM format"),
        error => unreadable(path, &error),
    })
}

/// Without the content, which may be a secret.
fn unreadable(path: &Path, error: &pem::Error) -> TlsError {
    match error {
        pem::Error::Io(error) => fault(path, error),
        _ => fault(path, "it is not in PEM format"),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(path)? {
        roots.add(root).map_err(|error| fault(path, error))?;
    }
    Ok(roots)
}

fn verifier(
    path: &Path,
    auth: ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider);
    let builder = match auth {
        ClientAuth::Optional => builder.allow_unauthenticated(),
        ClientAuth::Required => builder,
    };
    builder.build().map_err(|error| fault(path, error))
}
