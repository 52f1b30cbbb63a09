//! The servers that serve the same locks, and which of them leads.
//!
//! Guarantees: a reader sees one consistent state. Not here: how the servers agree on it.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Shard, Shards};

/// Where clients connect: a host name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The name or the address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Parses `host:port`, with brackets around an IPv6 address.
    pub fn parse(text: &str) -> Option<HostPort> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let unbracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_valid = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let host = match unbracketed {
            Some(host)
                if host.contains(':') && host.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c)) =>
            {
                host
            }
            None if !host.is_empty() && host.chars().all(is_valid) => host,
            _ => return None,
        };
        Some(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// 40 hexadecimal digits, others at each start.
    pub id: String,
    /// Where Redis clients connect; `None`: the address at which the client has connected.
    pub redis: Option<HostPort>,
    /// Where HTTP clients connect, if they can.
    pub http: Option<HostPort>,
    /// Where clients of Sentinel connect; `None`: where Redis clients do.
    pub sentinel: Option<HostPort>,
}

/// The leader among servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The id of its node.
    pub id: String,
    /// Larger than that of every earlier leader.
    pub epoch: i64,
}

/// The servers that serve the same locks, as one of them sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The name by which clients ask for the leader.
    pub name: String,
    /// The id of this server.
    pub own: String,
    /// All servers, this one included, and the one that serves requests about locks.
    pub shard: Shard,
    /// Whether this server could lead: it reaches the store.
    pub is_eligible: bool,
}

impl Topology {
    /// One server that has the locks for itself.
    pub fn of_one(name: &str, id: &str) -> Topology {
        let nodes = vec![Node { id: id.to_owned(), redis: None, http: None, sentinel: None }];
        let leader = Some(Leader { id: id.to_owned(), epoch: 1 });
        Topology {
            name: name.to_owned(),
            own: id.to_owned(),
            shard: Shard { leader, nodes },
            is_eligible: true,
        }
    }
}

impl Deref for Topology {
    type Target = Shard;
    fn deref(&self) -> &Shard {
        &self.shard
    }
}

/// The current topology, shared by all that shows it.
#[derive(Debug)]
pub struct SharedTopology(RwLock<Arc<Topology>>);

impl SharedTopology {
    /// Starts with this one.
    pub fn new(topology: Topology) -> SharedTopology {
        SharedTopology(RwLock::new(Arc::new(topology)))
    }

    /// The topology at this moment.
    pub fn read(&self) -> Arc<Topology> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the topology. Returns the one before.
    pub fn replace(&self, topology: Topology) -> Arc<Topology> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, Arc::new(topology))
    }
}

/// The place of what serves requests among the servers of a cluster.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The servers.
    pub topology: Arc<SharedTopology>,
    /// The shards, if these servers have only one of them.
    pub shards: Option<Arc<Shards>>,
    /// Whether it serves while another server leads.
    pub is_standby: bool,
}

impl Membership {
    /// A server without others.
    pub fn of_one(name: &str, id: &str) -> Membership {
        let topology = Arc::new(SharedTopology::new(Topology::of_one(name, id)));
        Membership { topology, shards: None, is_standby: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_is_a_host_and_a_port() {
        for text in ["10.0.0.7:7379", "node-1.example:1", "[::1]:7379"] {
            assert_eq!(HostPort::parse(text).map(|parsed| parsed.to_string()).as_deref(), Some(text));
        }
        for text in ["", "h", ":1", "h:", "h:0", "h:65536", "::1:7379", "[h]:1", "a b:1", "[::1:7379"] {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_server_of_its_own_leads() {
        let topology = Topology::of_one("octostore", "a");
        assert_eq!(topology.leader.as_ref().map(|leader| &leader.id), Some(&topology.own));
        assert!(topology.standbys().next().is_none());
        assert_eq!(topology.leading_node().map(|node| node.id.as_str()), Some("a"));
    }
}
