//! Certificates of tests, made on the spot.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// An authority, and a folder with its certificate and those that it has signed.
pub(crate) struct Certificates {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str) -> CertificateParams {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Certificates {
    /// With one for the server.
    pub(crate) fn new() -> Certificates {
        let mut authority = params("authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = authority.self_signed(&key).expect("a certificate").pem();
        let dir = tempfile::tempdir().expect("a folder");
        let certificates = Certificates { dir, issuer: Issuer::new(authority, key) };
        certificates.write("ca.pem", &root);
        certificates.issue("server");
        certificates
    }

    /// Makes `<name>.pem` and `<name>.key`, or replaces them.
    pub(crate) fn issue(&self, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(name).signed_by(&key, &self.issuer).expect("a certificate");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.dir.path().join(file), text).expect("a file");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.dir.path().join(file), private).expect("a file");
    }

    pub(crate) fn path(&self, file: &str) -> String {
        let path: PathBuf = self.dir.path().join(file);
        path.to_str().expect("text").to_owned()
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).expect("a file")
    }

    /// The flags of a server with TLS on both ports, and these.
    pub(crate) fn flags(&self, more: &[&str]) -> Vec<String> {
        let (certificate, key) = (self.path("server.pem"), self.path("server.key"));
        let own = ["--tls-listen", "127.0.0.1:0", "--https", "127.0.0.1:0", "--tls-cert", &certificate];
        own.iter().chain(&["--tls-key", &key]).chain(more).map(|flag| (*flag).to_owned()).collect()
    }

    /// A client that trusts the authority and presents the certificate of this name, if any.
    pub(crate) fn client(&self, own: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.read("ca.pem")).expect("a root")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let certificate = self.read(&format!("{name}.pem"));
                let key = self.read(&format!("{name}.key"));
                builder
                    .with_client_auth_cert(
                        vec![CertificateDer::from_pem_slice(&certificate).expect("a certificate")],
                        PrivateKeyDer::from_pem_slice(&key).expect("a key"),
                    )
                    .expect("a pair")
            }
        })
    }
}
