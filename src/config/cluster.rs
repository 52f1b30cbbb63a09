//! The settings of a cluster: how clients and other servers reach this one, and its shard.
//!
//! Guarantees: the stores of a shard are as many as there are shards. Not here: the store, which makes servers a cluster.

use std::net::IpAddr;
use std::time::Duration;

use super::sources::Settings;
use super::store;
use super::{ConfigError, addresses};
use crate::domain::{HostPort, SHARDS_MAX, ShardId};
use crate::journal::StoreAddress;
use crate::net::ListenAddress;

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
    /// What this server has of the keys; `None`: all.
    pub shard: Option<ShardConfig>,
}

/// The settings of a server that has one of several shards.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// The shard.
    pub id: ShardId,
    /// The stores of all shards, in their order. Each shard has a part of its store for itself:
    /// [`ShardConfig::store_of`].
    pub stores: Vec<StoreAddress>,
}

impl ShardConfig {
    /// The other shards, and where their data is.
    pub fn others(&self) -> Vec<(ShardId, StoreAddress)> {
        let others = ShardId::all(self.id.count()).filter(|shard| *shard != self.id);
        others.filter_map(|shard| Some((shard, self.store_of(shard)?))).collect()
    }

    /// Where the data of a shard is.
    pub fn store_of(&self, shard: ShardId) -> Option<StoreAddress> {
        let store = self.stores.get(shard.index())?;
        let prefix = store.key(&format!("shards/{}", shard.number()));
        Some(StoreAddress { prefix, ..store.clone() })
    }
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
        Some(text) => match HostPort::parse(text) {
            Some(address) if is_any(&address) => {
                let problem =
                    format!("{text} is not an address that others reach: it stands for all of a machine");
                Err(settings.fault(name, problem))
            }
            Some(address) => Ok(Some(address)),
            None => {
                let problem = format!("{text:?} is not a host and a port, as in 10.0.0.7:7379");
                Err(settings.fault(name, problem))
            }
        },
    };
    let advertise = address("advertise")?;
    let advertise_http = address("advertise-http")?;
    check_encrypted(settings, has_store)?;
    for name in ["sentinel-listen", "sentinel-tls-listen"] {
        if !has_store && is_given(name) {
            return Err(settings.fault(name, "is of no use without --store"));
        }
    }
    if has_store && advertise.is_none() {
        let mut own = ["listen", "tls-listen"];
        if is_given("cluster-ca") {
            own.reverse();
        }
        check_advertised(settings, "advertise", own, ["sentinel-listen", "sentinel-tls-listen"])?;
        if advertise_http.is_none() {
            check_advertised(settings, "advertise-http", own, ["http", "https"])?;
        }
    }
    let leader_silent = Duration::from_millis(settings.number("leader-silent-ms", 100, 60_000)?);
    let shard = shard(settings)?;
    Ok(ClusterConfig { name: name.to_owned(), advertise, advertise_http, leader_silent, shard })
}

fn shard(settings: &Settings) -> Result<Option<ShardConfig>, ConfigError> {
    let own = store::store(settings)?;
    let Some(text) = settings.text("shard") else {
        return match settings.text("shard-stores") {
            Some(_) => Err(settings.fault("shard-stores", "is of no use without --shard")),
            None => Ok(None),
        };
    };
    let id = ShardId::parse(text).ok_or_else(|| {
        settings.fault("shard", format!("{text:?} is not a shard, as in 1/3; there are at most {SHARDS_MAX}"))
    })?;
    let own = own.ok_or_else(|| settings.fault("shard", "needs --store"))?;
    let Some(urls) = settings.text("shard-stores") else {
        let stores = vec![own; id.count().into()];
        return Ok(Some(ShardConfig { id, stores }));
    };
    let parse = |url| store::parse(settings, "shard-stores", url);
    let stores = urls.split_whitespace().map(parse).collect::<Result<Vec<_>, _>>()?;
    if stores.len() != usize::from(id.count()) {
        let problem = format!("names {} stores for {} shards", stores.len(), id.count());
        return Err(settings.fault("shard-stores", problem));
    }
    if stores[id.index()] != own {
        let problem = format!("the store of shard {id} is not that of --store");
        return Err(settings.fault("shard-stores", problem));
    }
    Ok(Some(ShardConfig { id, stores }))
}

/// Whether an address stands for all of a machine, so that others do not reach it.
fn is_any(address: &HostPort) -> bool {
    address.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_unspecified())
}

/// Servers that connect to each other with TLS must listen with TLS, and others in plain text.
fn check_encrypted(settings: &Settings, has_store: bool) -> Result<(), ConfigError> {
    const NAME: &str = "cluster-ca";
    let is_off = |name| settings.text(name).is_none_or(|text| text.is_empty() || text == "off");
    if !has_store && !is_off(NAME) {
        return Err(settings.fault(NAME, "is of no use without --store"));
    }
    for (plain, encrypted) in [("listen", "tls-listen"), ("http", "https")].into_iter().filter(|_| has_store)
    {
        let problem = match (is_off(NAME), is_off(plain), is_off(encrypted)) {
            (false, false, true) => {
                format!("needs --{encrypted}: the servers connect to each other there")
            }
            (true, true, false) => {
                format!("is needed: without it, the servers connect to each other at --{plain}, which is off")
            }
            _ => continue,
        };
        return Err(settings.fault(NAME, problem));
    }
    Ok(())
}

/// Checks that clients and other servers can reach the address that they are given. Without an
/// advertised address, this is the first of the addresses that serve Redis clients.
fn check_advertised(
    settings: &Settings,
    advertises: &'static str,
    own: [&'static str; 2],
    others: [&'static str; 2],
) -> Result<(), ConfigError> {
    let mut told = None;
    for name in own.into_iter().chain(others) {
        for ListenAddress { address, .. } in addresses(settings, name)? {
            let told = *told.get_or_insert(address.ip().to_canonical());
            if told.is_unspecified() || told.is_loopback() && !address.ip().is_loopback() {
                let problem = format!(
                    "is needed: others reach --{name} {address}, and would be told that this server is at {told}"
                );
                return Err(settings.fault(advertises, problem));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};
    #[cfg(feature = "etcd")]
    use crate::domain::ShardId;

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
        assert!(refused(&["--cluster-ca", "ca.pem"]).contains("of no use without --store"));
        assert!(refused(&["--sentinel-listen", "127.0.0.1:1"]).contains("of no use without --store"));
    }

    #[test]
    #[cfg(feature = "etcd")]
    fn a_shard_has_a_part_of_its_store_for_itself() {
        let config = |more: &[&str]| Config::with(&[&["--store", "etcd://h1/a"], more].concat());
        let shard = config(&["--shard", "2/3"]).unwrap().cluster.shard.unwrap();
        let stores = ShardId::all(3).map(|id| shard.store_of(id).unwrap().to_string());
        let expected = [1, 2, 3].map(|number| format!("etcd://h1:2379/a/shards/{number}"));
        assert_eq!(stores.collect::<Vec<_>>(), expected);

        let urls = "etcd://h2/b etcd://me:hush@h1/a";
        let flags = ["--store", "etcd://me:hush@h1/a", "--shard", "2/2", "--shard-stores", urls];
        let config_of_two = Config::with(&flags).unwrap();
        let shard = config_of_two.cluster.shard.clone().unwrap();
        assert_eq!(shard.store_of(ShardId::of_slot(0, 2)).unwrap().to_string(), "etcd://h2:2379/b/shards/1");
        assert!(!format!("{:?}", config_of_two.settings).contains("hush"));

        for (flags, problem) in [
            (&["--shard", "4/3"][..], "is not a shard"),
            (&["--shard-stores", "etcd://h1/a"], "of no use without --shard"),
            (&["--shard", "1/2", "--shard-stores", "etcd://h1/a"], "names 1 stores for 2 shards"),
            (&["--shard", "1/2", "--shard-stores", "etcd://h2/b etcd://h1/a"], "is not that of --store"),
            (&["--shard", "1/2", "--shard-stores", "h2 etcd://h1/a"], "no scheme"),
        ] {
            let Err(ConfigError::Setting(text)) = config(flags) else { panic!("{flags:?}") };
            assert!(text.contains(problem), "{text}");
        }
        let Err(ConfigError::Setting(text)) = Config::with(&["--shard", "1/2"]) else { panic!() };
        assert!(text.contains("needs --store"), "{text}");
    }

    #[test]
    #[cfg(feature = "etcd")]
    fn servers_that_connect_with_tls_listen_with_tls() {
        let tls = ["--tls-cert", "a.pem", "--tls-key", "a.key", "--tls-client-ca", "ca.pem"];
        let config = |more: &[&str]| {
            Config::with(&[&["--store", "etcd://h1/a", "--cluster-ca", "ca.pem"], more].concat())
        };
        for (flags, problem) in [
            (&["--tls-listen", "127.0.0.1:1"][..], "needs --https"),
            (&[], "needs --tls-listen"),
            (&["--tls-listen", "0.0.0.0:1", "--http", "off"], "others reach --tls-listen 0.0.0.0:1"),
        ] {
            let tls: &[&str] = if flags.is_empty() { &[] } else { &tls };
            let Err(ConfigError::Setting(text)) = config(&[flags, tls].concat()) else { panic!("{flags:?}") };
            assert!(text.contains(problem), "{text}");
        }
        for (flags, problem) in [
            (
                ["--listen", "off", "--tls-listen", "127.0.0.1:1"],
                "connect to each other at --listen, which is off",
            ),
            (["--http", "off", "--https", "127.0.0.1:1"], "connect to each other at --http, which is off"),
        ] {
            let flags = [&["--store", "etcd://h1/a"][..], &flags, &tls].concat();
            let Err(ConfigError::Setting(text)) = Config::with(&flags) else { panic!("{flags:?}") };
            assert!(text.starts_with("--cluster-ca") && text.contains(problem), "{text}");
        }
        let flags = [&["--tls-listen", "127.0.0.1:1", "--http", "off"][..], &tls[..]].concat();
        let files = config(&flags).unwrap().tls.unwrap().files;
        assert_eq!(files.server_roots, Some("ca.pem".into()));
    }

    #[test]
    #[cfg(feature = "etcd")]
    fn a_server_that_listens_everywhere_says_where_others_reach_it() {
        let exposed = ["--store", "etcd://h1/a", "--sentinel-listen", "10.0.0.7:26379"];
        let Err(ConfigError::Setting(text)) = Config::with(&exposed) else { panic!() };
        assert!(text.contains("--sentinel-listen") && text.contains("no password is set"), "{text}");
        let advertised = "--advertise=10.0.0.7:7379";
        let config = |flags: &[&str]| {
            Config::with(&[&["--store", "etcd://h1/a", "--allow-no-password"], flags].concat())
        };
        for (flags, setting) in [
            (&["--listen", "0.0.0.0:7379"][..], "advertise"),
            (&["--listen", "[::]:7379"], "advertise"),
            (&["--listen", "[0:0::0]:7379"], "advertise"),
            (&["--listen", "127.0.0.1:7379,10.0.0.7:7379"], "advertise"),
            (&["--sentinel-listen", "0.0.0.0:26379"], "advertise"),
            (&["--sentinel-listen", "10.0.0.7:26379"], "advertise"),
            (&["--http", "0.0.0.0:7380"], "advertise-http"),
            (&["--http", "10.0.0.7:7380"], "advertise-http"),
        ] {
            let Err(ConfigError::Setting(text)) = config(flags) else { panic!("{flags:?}") };
            let begin = format!("--{setting}: is needed");
            assert!(text.starts_with(&begin), "{flags:?}: {text}");
            let config = config(&[flags, &[advertised]].concat()).unwrap();
            assert_eq!(config.cluster.advertise.unwrap().to_string(), "10.0.0.7:7379");
        }
        assert!(config(&["--http", "0.0.0.0:7380", "--advertise-http", "10.0.0.7:7380"]).is_ok());
        assert!(config(&["--listen", "10.0.0.0:7379,127.0.0.1:7379"]).is_ok());
    }

    #[test]
    #[cfg(feature = "etcd")]
    fn an_advertised_address_is_one_that_others_reach() {
        for (name, address) in [
            ("advertise", "0.0.0.0:7379"),
            ("advertise", "[::]:7379"),
            ("advertise-http", "[::ffff:0.0.0.0]:1"),
        ] {
            let name_flag = format!("--{name}");
            let flags = ["--store", "etcd://h1/a", name_flag.as_str(), address];
            let Err(ConfigError::Setting(text)) = Config::with(&flags) else { panic!("{address}") };
            assert!(
                text.starts_with(&format!("--{name} (from ")) && text.contains("stands for all"),
                "{text}"
            );
        }
    }
}
