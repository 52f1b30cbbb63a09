//! The settings of a cluster: how clients and other servers reach this one.
//!
//! Not here: the store, which makes servers a cluster.

use std::time::Duration;

use super::ConfigError;
use super::sources::Settings;
use crate::domain::HostPort;

/// The settings of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The name by which Sentinel clients ask for the leader.
    pub name: String,
    /// Where clients and other servers reach this one; `None`: where it listens.
    pub advertise: Option<HostPort>,
    /// The same for HTTP clients.
    pub advertise_http: Option<HostPort>,
    /// A leader that does not answer for this time is replaced.
    pub leader_silent: Duration,
}

pub(super) fn cluster(settings: &Settings) -> Result<ClusterConfig, ConfigError> {
    let is_given = |name| settings.text(name).is_some_and(|text| !text.is_empty());
    let has_store = is_given("store");
    let name = settings.text("cluster-name").unwrap_or("octostore");
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        return Err(settings.fault("cluster-name", "is not made of letters, digits and -._"));
    }
    let address = |name: &'static str| match settings.text(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(_) if !has_store => Err(settings.fault(name, "is of no use without --store")),
        Some(text) => HostPort::parse(text).map(Some).ok_or_else(|| {
            settings.fault(name, format!("{text:?} is not a host and a port, as in 10.0.0.7:7379"))
        }),
    };
    let advertise = address("advertise")?;
    let advertise_http = address("advertise-http")?;
    if has_store {
        check_advertised(settings, "listen", "advertise", advertise.is_some())?;
        check_advertised(
            settings,
            "http",
            "advertise-http",
            advertise_http.is_some() || advertise.is_some(),
        )?;
    }
    let leader_silent = Duration::from_millis(settings.number("leader-silent-ms", 100, 60_000)?);
    Ok(ClusterConfig { name: name.to_owned(), advertise, advertise_http, leader_silent })
}

/// All addresses of a machine are not an address at which others reach it.
fn check_advertised(
    settings: &Settings,
    listens: &'static str,
    advertises: &'static str,
    is_given: bool,
) -> Result<(), ConfigError> {
    let is_any =
        settings.text(listens).is_some_and(|text| text.contains("0.0.0.0") || text.contains("[::]:"));
    if is_any && !is_given {
        let problem = format!(
            "is needed: --{listens} names all addresses of this machine, not the one that others use"
        );
        return Err(settings.fault(advertises, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};

    #[test]
    fn the_name_of_a_cluster_is_one_word() {
        let config = Config::with(&["--cluster-name", "jobs-1"]).unwrap();
        assert_eq!(config.cluster.name, "jobs-1");
        let refused = |flags: &[&str]| match Config::with(flags) {
            Err(ConfigError::Setting(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(refused(&["--cluster-name", "a b"]).contains("letters"));
        assert!(refused(&["--advertise", "h:1"]).contains("of no use without --store"));
    }

    #[test]
    #[cfg(feature = "etcd")]
    fn a_server_that_listens_everywhere_says_where_others_reach_it() {
        let flags = ["--store", "etcd://h1/a", "--listen", "0.0.0.0:7379", "--allow-no-password"];
        let Err(ConfigError::Setting(text)) = Config::with(&flags) else { panic!() };
        assert!(text.contains("--advertise") && text.contains("is needed"), "{text}");
        let config = Config::with(&[&flags[..], &["--advertise", "10.0.0.7:7379"]].concat()).unwrap();
        assert_eq!(config.cluster.advertise.unwrap().to_string(), "10.0.0.7:7379");
    }
}
