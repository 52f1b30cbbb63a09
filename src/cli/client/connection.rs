//! A connection to a server, and to those that it names for the keys of other shards.
//!
//! Guarantees: a request about a key reaches the server that has it (`MOVED`), as long as servers
//! agree on which one that is. Not here: retries, and what requests mean.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError};
use tokio::task::JoinSet;

use super::{Failure, Login, Reply, answer_within, failure, field, integer, items, text, within};
use crate::domain::{HostPort, SLOTS, slot_of};

/// How often a request is sent on to another server before its error counts.
const REDIRECTS_MAX: u32 = 3;

/// An address as servers write it: a host and a port.
type Address = String;

/// A connection. It closes once it is dropped.
pub(in crate::cli) struct Connection {
    login: Arc<Login>,
    /// How long another server may take until it is connected.
    timeout: Duration,
    home: MultiplexedConnection,
    others: HashMap<Address, MultiplexedConnection>,
    /// Where the keys of a slot are, if they are known to be elsewhere.
    routes: HashMap<u16, Address>,
}

/// Requests by their positions, and to which server each is sent.
type Batches = BTreeMap<Option<Address>, Vec<usize>>;
/// A batch that was sent: its server, its requests, and their replies.
type Sent = (Option<Address>, MultiplexedConnection, Vec<(usize, Reply)>);

impl Connection {
    pub(super) fn new(login: Login, home: MultiplexedConnection, timeout: Duration) -> Connection {
        let (others, routes) = (HashMap::new(), HashMap::new());
        Connection { login: Arc::new(login), timeout, home, others, routes }
    }

    /// Sends a request and waits for its reply.
    pub(in crate::cli) async fn call(&mut self, request: &[&[u8]]) -> Result<Reply, Failure> {
        let mut command = Cmd::new();
        request.iter().for_each(|argument| {
            command.arg(*argument);
        });
        let mut address = self.route(request);
        for _ in 0..REDIRECTS_MAX {
            match self.send(address.as_ref(), &command).await? {
                Ok(reply) => return Ok(reply),
                Err(error) => match self.learn(&error) {
                    Some(moved_to) => address = Some(moved_to),
                    None => return Err(failure(error)),
                },
            }
        }
        self.send(address.as_ref(), &command).await?.map_err(failure)
    }

    /// [`Connection::call`], but waits not longer than `timeout`.
    pub(in crate::cli) async fn call_within(
        &mut self,
        timeout: Duration,
        request: &[&[u8]],
    ) -> Result<Reply, Failure> {
        answer_within(timeout, self.call(request)).await
    }

    /// Sends requests, in one write to each server, and waits for their replies. Those to other
    /// servers are sent also if a server does not answer.
    pub(in crate::cli) async fn call_all(
        &mut self,
        requests: &[Vec<Vec<u8>>],
    ) -> Result<Vec<Result<Reply, Failure>>, Failure> {
        let mut replies: BTreeMap<usize, Result<Reply, Failure>> = BTreeMap::new();
        let mut batches = Batches::new();
        for (position, request) in requests.iter().enumerate() {
            batches.entry(self.route(request)).or_default().push(position);
        }
        for redirects in 0.. {
            let mut moved = Batches::new();
            for (position, reply) in self.send_all(requests, batches).await? {
                let error = match reply.extract_error() {
                    Ok(reply) => {
                        replies.insert(position, Ok(reply));
                        continue;
                    }
                    Err(error) => error,
                };
                match self.learn(&error).filter(|_| redirects < REDIRECTS_MAX) {
                    Some(moved_to) => moved.entry(Some(moved_to)).or_default().push(position),
                    None => drop(replies.insert(position, Err(failure(error)))),
                }
            }
            if moved.is_empty() {
                break;
            }
            batches = moved;
        }
        Ok(replies.into_values().collect())
    }

    /// [`Connection::call_all`], but waits not longer than `timeout`.
    pub(in crate::cli) async fn call_all_within(
        &mut self,
        timeout: Duration,
        requests: &[Vec<Vec<u8>>],
    ) -> Result<Vec<Result<Reply, Failure>>, Failure> {
        answer_within(timeout, self.call_all(requests)).await
    }

    /// A connection to the leader of every shard; this one if the server has all keys.
    pub(in crate::cli) async fn into_shards(mut self) -> Result<Vec<Connection>, Failure> {
        let timeout = self.timeout;
        let hello = self.call_within(timeout, &[b"HELLO"]).await?;
        if field(&hello, "mode").map(text).as_deref() != Some("cluster") {
            return Ok(vec![self]);
        }
        let ranges = self.call_within(timeout, &[b"CLUSTER", b"SLOTS"]).await?;
        let (mut shards, mut slots) = (Vec::new(), 0);
        for range in items(Some(&ranges)) {
            // The first server leads; while there is none, it says so itself.
            let [first, last, leader, ..] = items(Some(range)) else { continue };
            let [host, port, ..] = items(Some(leader)) else { continue };
            let number = |reply| integer(Some(reply)).unwrap_or(0);
            slots += number(last) - number(first) + 1;
            let address = format!("{}:{}", text(host), number(port));
            let (login, connection) = connect(&self.login, &address, timeout).await?;
            shards.push(Connection::new(login, connection, timeout));
        }
        match slots == i64::from(SLOTS) {
            true => Ok(shards),
            false => Err(Failure::Unavailable("the servers of some shards are not known".to_owned())),
        }
    }

    /// Where to send a request; `None`: to the server that was named.
    fn route(&self, request: &[impl AsRef<[u8]>]) -> Option<Address> {
        if self.routes.is_empty() {
            return None;
        }
        self.routes.get(&slot_of(key_of(request)?)).cloned()
    }

    /// The address that an error names for its request. The next requests about keys of the same
    /// slot are sent there at once.
    fn learn(&mut self, error: &RedisError) -> Option<Address> {
        let (address, slot) = error.redirect_node()?;
        self.routes.insert(slot, address.to_owned());
        Some(address.to_owned())
    }

    async fn send(
        &mut self,
        address: Option<&Address>,
        command: &Cmd,
    ) -> Result<Result<Reply, RedisError>, Failure> {
        let link = match address {
            None => &mut self.home,
            Some(address) => match self.others.entry(address.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let (_, link) = connect(&self.login, address, self.timeout).await?;
                    place.insert(link)
                }
            },
        };
        Ok(link.send_packed_command(command).await.and_then(Reply::extract_error))
    }

    /// Sends batches of requests to their servers at the same time.
    async fn send_all(
        &mut self,
        requests: &[Vec<Vec<u8>>],
        batches: Batches,
    ) -> Result<Vec<(usize, Reply)>, Failure> {
        let mut sending: JoinSet<Result<Sent, Failure>> = JoinSet::new();
        for (address, positions) in batches {
            let mut pipeline = Pipeline::with_capacity(positions.len());
            for position in &positions {
                let mut command = Cmd::new();
                command.arg(&requests[*position]);
                pipeline.add_command(command);
            }
            let (login, timeout) = (Arc::clone(&self.login), self.timeout);
            let known = match &address {
                None => Some(&self.home),
                Some(address) => self.others.get(address),
            };
            let known = known.cloned();
            sending.spawn(async move {
                let mut link = match known {
                    Some(link) => link,
                    None => connect(&login, address.as_deref().unwrap_or_default(), timeout).await?.1,
                };
                let replies =
                    link.send_packed_commands(&pipeline, 0, positions.len()).await.map_err(failure)?;
                Ok((address, link, positions.into_iter().zip(replies).collect()))
            });
        }
        let (mut all, mut problem) = (Vec::new(), None);
        while let Some(joined) = sending.join_next().await {
            match joined {
                Ok(Ok((address, link, replies))) => {
                    all.extend(replies);
                    self.others.extend(address.map(|address| (address, link)));
                }
                Ok(Err(failure)) => problem = Some(failure),
                Err(error) => problem = Some(Failure::Unavailable(error.to_string())),
            }
        }
        problem.map_or(Ok(all), Err)
    }
}

/// The key of a request; `None` if it has none that decides where it is sent.
fn key_of(request: &[impl AsRef<[u8]>]) -> Option<&[u8]> {
    let position = match request.first()?.as_ref() {
        b"LOCK" | b"UNLOCK" | b"RENEW" | b"LOCKINFO" | b"FORCEUNLOCK" | b"SET" => 1,
        b"EVALSHA" => 3,
        _ => return None,
    };
    request.get(position).map(AsRef::as_ref)
}

/// Connects to another server of the same cluster.
async fn connect(
    login: &Login,
    address: &str,
    timeout: Duration,
) -> Result<(Login, MultiplexedConnection), Failure> {
    let parsed = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let Some((host, port)) = parsed else {
        return Err(Failure::Refused(format!("the server names {address}, which is no address")));
    };
    let login = login.at(HostPort { host: host.to_owned(), port });
    let connection = within(address, timeout, login.connect(timeout)).await?;
    Ok((login, connection))
}
