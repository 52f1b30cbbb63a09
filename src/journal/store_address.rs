//! Where the store of a cluster is: `etcd://[user[:password]@]host:port,…/prefix`.
//!
//! Guarantees: the password is in no output. Not here: connections.

use std::fmt;
use std::path::PathBuf;

/// The certificates for connections to the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreTls {
    /// The authorities that the servers' certificates are checked against; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The certificate that this server presents, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The address of a store.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreAddress {
    /// The etcd servers, as `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// What all keys start with, without a slash at the end.
    pub prefix: String,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// Set for `etcds://`.
    pub tls: Option<StoreTls>,
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreAddress").field("address", &self.to_string()).field("tls", &self.tls).finish()
    }
}

/// Without the credentials.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "etcds" } else { "etcd" };
        let hosts = self.endpoints.iter().filter_map(|endpoint| endpoint.split_once("://"));
        let hosts = hosts.map(|(_, host)| host).collect::<Vec<_>>().join(",");
        write!(f, "{scheme}://{hosts}{}", self.prefix)
    }
}

const PORT: u16 = 2379;

impl StoreAddress {
    /// Reads an address. The error says what is wrong, and repeats nothing of a password.
    pub fn parse(text: &str) -> Result<StoreAddress, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| expected("it has no scheme"))?;
        let (http, tls) = match scheme {
            "etcd" => ("http", None),
            "etcds" => ("https", Some(StoreTls::default())),
            _ => return Err(expected("the scheme is neither etcd nor etcds")),
        };
        let (authority, prefix) = rest.split_once('/').ok_or_else(|| expected("it has no prefix"))?;
        let prefix = prefix.trim_matches('/');
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if prefix.is_empty() || !prefix.chars().all(is_plain) {
            return Err(expected("the prefix is not made of letters, digits and -_./"));
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(parse_credentials(credentials)?), hosts),
            None => (None, authority),
        };
        let endpoint = |host: &str| endpoint(host).map(|host| format!("{http}://{host}"));
        let endpoints = hosts.split(',').map(endpoint).collect::<Result<_, _>>()?;
        Ok(StoreAddress { endpoints, prefix: format!("/{prefix}"), credentials, tls })
    }

    /// The key of this name below the prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }
}

fn expected(problem: &str) -> String {
    format!("{problem}; expected is etcd://HOST:PORT,HOST:PORT/PREFIX")
}

fn parse_credentials(text: &str) -> Result<(String, String), String> {
    let decoded = |part: &str| {
        let part = percent_encoding::percent_decode_str(part).decode_utf8();
        part.map(String::from).map_err(|_| expected("user or password is not UTF-8"))
    };
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    match user {
        "" => Err(expected("the user has no name")),
        user => Ok((decoded(user)?, decoded(password)?)),
    }
}

/// The host with its port; with that of etcd if it has none.
fn endpoint(text: &str) -> Result<String, String> {
    let is_host = |host: &str| {
        let is_v6 = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        let is_name =
            !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        is_v6 || is_name
    };
    if is_host(text) {
        return Ok(format!("{text}:{PORT}"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(text.to_owned())
        }
        _ => Err(expected("one of its servers is not HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_the_password() {
        let address = StoreAddress::parse("etcd://h1:2379,h2,[::1]:4000/a/locks/").unwrap();
        assert_eq!(address.endpoints, ["http://h1:2379", "http://h2:2379", "http://[::1]:4000"]);
        assert_eq!((address.prefix.as_str(), &address.credentials, &address.tls), ("/a/locks", &None, &None));
        assert_eq!(address.key("log/1"), "/a/locks/log/1");
        assert_eq!(address.to_string(), "etcd://h1:2379,h2:2379,[::1]:4000/a/locks");
        let address = StoreAddress::parse("etcds://me:s%40cret@h1/locks").unwrap();
        assert_eq!(address.credentials, Some(("me".into(), "s@cret".into())));
        assert_eq!(address.tls, Some(StoreTls::default()));
        assert!(!format!("{address} {address:?}").contains("cret"));
    }

    #[test]
    fn wrong_addresses_are_refused_without_repeating_them() {
        for text in [
            "h1:2379/locks",
            "redis://h1/locks",
            "etcd://h1",
            "etcd://h1/",
            "etcd://h1/spa ce",
            "etcd:///locks",
            "etcd://h1:x/locks",
            "etcd://h1:0/locks",
            "etcd://h1,,h2/locks",
            "etcd://[::1/locks",
            "etcd://:secret@h1/locks",
            "etcd://me:%ff@h1/locks",
        ] {
            let error = StoreAddress::parse(text).unwrap_err();
            assert!(error.contains("expected is") && !error.contains("secret"), "{text}: {error}");
        }
    }
}
