//! What certificates say besides their keys.
//!
//! Guarantees: a certificate that cannot be read says nothing; it is no panic. Not here: whether a
//! certificate is to be trusted.

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::DirectoryString;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// When the certificate expires, in seconds since 1970.
pub(super) fn expires_at(certificate: &CertificateDer<'_>) -> Option<u64> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
}

/// The common name of the certificate's subject, if it has exactly one.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let attributes = certificate.tbs_certificate.subject.0.iter().flat_map(|name| name.0.iter());
    let mut names = attributes.filter(|attribute| attribute.oid == COMMON_NAME);
    let (name, None) = (names.next()?, names.next()) else { return None };
    match DirectoryString::from_der(&name.value.to_der().ok()?).ok()? {
        DirectoryString::PrintableString(text) => Some(text.to_string()),
        DirectoryString::TeletexString(text) => Some(text.to_string()),
        DirectoryString::Utf8String(text) => Some(text),
    }
}
