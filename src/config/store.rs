//! The settings of the store of a cluster.
//!
//! Not here: connections to it.

use std::path::PathBuf;

use super::ConfigError;
use super::sources::Settings;
use crate::journal::{StoreAddress, StoreTls};

/// The address of the store; `None`: the data is in a file.
pub(super) fn store(settings: &Settings) -> Result<Option<StoreAddress>, ConfigError> {
    let file = |name| settings.text(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let Some(text) = settings.text("store").filter(|text| !text.is_empty()) else {
        return match ["store-ca", "store-cert", "store-key"].into_iter().find(|name| file(name).is_some()) {
            Some(name) => Err(settings.fault(name, "is of no use without --store")),
            None => Ok(None),
        };
    };
    if cfg!(not(feature = "etcd")) {
        let problem = "this octostore was built without etcd; build it with --features etcd";
        return Err(settings.fault("store", problem));
    }
    if !settings.is_default("data") {
        return Err(settings.fault("data", "--store replaces the database file; leave one of them out"));
    }
    if settings.text("durability") != Some("always") {
        let problem =
            "--store needs --durability always: without a commit, no reply is known to be still true";
        return Err(settings.fault("durability", problem));
    }
    parse(settings, "store", text).map(Some)
}

/// Reads an address of the setting `name`, with the certificates of all stores.
pub(super) fn parse(
    settings: &Settings,
    name: &'static str,
    text: &str,
) -> Result<StoreAddress, ConfigError> {
    let file = |name| settings.text(name).map(PathBuf::from);
    let mut address = StoreAddress::parse(text).map_err(|problem| settings.fault(name, problem))?;
    let identity = match (file("store-cert"), file("store-key")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(settings.fault("store-cert", "needs --store-key")),
        (None, Some(_)) => return Err(settings.fault("store-key", "needs --store-cert")),
    };
    let tls = StoreTls { ca: file("store-ca"), identity };
    match &mut address.tls {
        Some(default) => *default = tls,
        None if tls == StoreTls::default() => {}
        None => return Err(settings.fault(name, "certificates need etcds://")),
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};

    #[test]
    #[cfg(feature = "etcd")]
    fn the_store_excludes_the_file_and_its_password_is_shown_nowhere() {
        let config = Config::with(&["--store", "etcds://me:hush@h1/locks", "--store-ca", "ca.pem"]).unwrap();
        assert_eq!(config.store.as_ref().unwrap().credentials, Some(("me".into(), "hush".into())));
        assert!(!format!("{config:?}").contains("hush"));
        assert!(config.settings.contains(&("store", "etcds://h1:2379/locks".into())));
        for (flags, problem) in [
            (&["--store", "etcd://h1/a", "--data", "x.db"][..], "leave one of them out"),
            (&["--store", "etcd://h1/a", "--durability", "interval"], "needs --durability always"),
            (&["--store", "etcd://h1/a", "--store-ca", "x"], "certificates need etcds://"),
            (&["--store", "etcds://h1/a", "--store-cert", "x"], "needs --store-key"),
            (&["--store", "etcds://h1/a", "--store-key", "x"], "needs --store-cert"),
            (&["--store", "etcd://me:hush@h1"], "no prefix"),
            (&["--store-ca", "x"], "of no use without --store"),
        ] {
            let Err(ConfigError::Setting(text)) = Config::with(flags) else { panic!("{flags:?}") };
            assert!(text.contains(problem) && !text.contains("hush"), "{text}");
        }
    }

    #[test]
    #[cfg(not(feature = "etcd"))]
    fn a_build_without_etcd_says_so() {
        let Err(ConfigError::Setting(text)) = Config::with(&["--store", "etcd://h1/a"]) else { panic!() };
        assert!(text.contains("--features etcd"), "{text}");
    }
}
