//! The transport over the network.
//!
//! It has a thread with a runtime of its own: the thread that commits may block, within a runtime or
//! without; connections are kept alive between commits; and a busy runtime of the server does not
//! delay commits. It speaks to one etcd server at a time. At first and after a failure, it asks all of
//! them and takes the first one that answers: one that is stopped or cut off from the others accepts
//! connections, too.
//!
//! Guarantees: every request ends within [`REQUEST_TIMEOUT`], and so does connecting before it; user
//! and password are in no error. Not here: what a missing response means.

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, Identity, TlsOptions,
    TxnOp, TxnOpResponse,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::layout::{Layout, Schema, VERSION, from_json};
use super::transport::{Compare, KeyValue, Range, Transport, TransportError, Txn, TxnResult, Write};
use crate::journal::{JournalError, StoreAddress};

/// After this time without a response, the outcome of a request is unknown. An election among the
/// etcd servers takes one to two seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before another attempt at a server that has failed, while others have not.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// etcd closes connections that are probed more often than every five seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(6);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to one etcd server, which has answered.
#[derive(Clone)]
struct Connected {
    client: Client,
    /// The place of the server in the address of the store.
    server: usize,
    /// The key `schema`, which it was asked for.
    schema: Option<KeyValue>,
}

/// Connects to a server of a store that answers for the majority of them.
///
/// # Errors
///
/// If the password is refused, a certificate cannot be read, or no server answers.
pub async fn connect(address: &StoreAddress) -> Result<Client, JournalError> {
    first_to_answer(address).await.map(|connected| connected.client)
}

/// Asks all servers of a store. Fails when each has failed, or [`REQUEST_TIMEOUT`] has passed.
async fn first_to_answer(address: &StoreAddress) -> Result<Connected, JournalError> {
    let mut attempts = JoinSet::new();
    for server in 0..address.endpoints.len() {
        attempts.spawn(try_server(address.clone(), server, Duration::ZERO));
    }
    let mut has_failed = vec![false; address.endpoints.len()];
    let answered = async {
        while let Some(attempt) = attempts.join_next().await {
            let (server, result) = attempt.map_err(|error| JournalError::Io { what: error.to_string() })?;
            match result {
                Err(error) if error.is_retryable() => {
                    has_failed[server] = true;
                    if has_failed.iter().all(|has_failed| *has_failed) {
                        return Err(error);
                    }
                    // While the servers elect a leader, those that answer fail.
                    attempts.spawn(try_server(address.clone(), server, RETRY_PAUSE));
                }
                result => return result,
            }
        }
        Err(unreachable(&address.endpoints, "there is no server"))
    };
    let answered = timeout(REQUEST_TIMEOUT, answered).await;
    answered.unwrap_or_else(|_| Err(unreachable(&address.endpoints, "no response")))
}

/// Connects to a server after a pause, and asks it for something that only a majority knows.
async fn try_server(
    address: StoreAddress,
    server: usize,
    pause: Duration,
) -> (usize, Result<Connected, JournalError>) {
    sleep(pause).await;
    let endpoints = &address.endpoints[server..=server];
    let answered = async {
        let mut client = connect_to(&address, endpoints).await?;
        let key = Layout::below(&address.prefix).schema;
        let found = client.get(key, None).await.map_err(|error| unusable(endpoints, &error))?;
        Ok(Connected { client, server, schema: found.kvs().first().map(key_value) })
    };
    (server, answered.await)
}

async fn connect_to(address: &StoreAddress, endpoints: &[String]) -> Result<Client, JournalError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true);
    if let Some((user, password)) = &address.credentials {
        options = options.with_user(user, password);
    }
    if let Some(tls) = &address.tls {
        let mut with = TlsOptions::new();
        with = match &tls.ca {
            Some(file) => with.ca_certificate(Certificate::from_pem(read(file)?)),
            None => with.with_native_roots(),
        };
        if let Some((certificate, key)) = &tls.identity {
            with = with.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        options = options.with_tls(with);
    }
    Client::connect(endpoints, Some(options)).await.map_err(|error| unusable(endpoints, &error))
}

fn unusable(endpoints: &[String], error: &Error) -> JournalError {
    match classify(error) {
        TransportError::Refused(what) => JournalError::Store { what },
        _ => unreachable(endpoints, &describe(error)),
    }
}

fn unreachable(endpoints: &[String], why: &str) -> JournalError {
    JournalError::Unreachable { what: format!("{}: {why}", endpoints.join(", ")) }
}

fn read(file: &Path) -> Result<Vec<u8>, JournalError> {
    let failed = |error| JournalError::Store { what: format!("cannot read {}: {error}", file.display()) };
    std::fs::read(file).map_err(failed)
}

/// Checks that the store can be reached and used: the password, and the version of its data.
///
/// # Errors
///
/// [`JournalError::is_retryable`] ones, while it cannot be reached.
pub async fn check(address: &StoreAddress) -> Result<(), JournalError> {
    let Some(schema) = first_to_answer(address).await?.schema else { return Ok(()) };
    match from_json::<Schema>(&schema)?.octostore {
        VERSION => Ok(()),
        found => Err(JournalError::Newer { found, known: VERSION }),
    }
}

/// What an error says, with its causes.
fn describe(error: &Error) -> String {
    if let Error::GRpcStatus(status) = error {
        return status.message().to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What an error means. Only what etcd says without having written is certain.
fn classify(error: &Error) -> TransportError {
    let text = describe(error);
    let is_refused = [
        "authentication failed",
        "permission denied",
        "user name is empty",
        "authentication is not enabled",
        "request is too large",
        "duplicate key",
        "too many operations",
    ];
    match error {
        Error::GRpcStatus(_) if text.contains("database space exceeded") => TransportError::NoSpace,
        Error::GRpcStatus(_) if is_refused.iter().any(|refusal| text.contains(refusal)) => {
            TransportError::Refused(format!("etcd refuses: {text}"))
        }
        _ => TransportError::Unknown(text),
    }
}

fn key_value(found: &etcd_client::KeyValue) -> KeyValue {
    KeyValue {
        key: String::from_utf8_lossy(found.key()).into_owned(),
        value: found.value().to_vec(),
        create_revision: found.create_revision(),
        mod_revision: found.mod_revision(),
    }
}

/// A request to the thread, and where its result goes.
enum Request {
    Txn(Txn, SyncSender<Result<TxnResult, TransportError>>),
    Range(Range, SyncSender<Result<Vec<KeyValue>, TransportError>>),
    Size(SyncSender<Result<u64, TransportError>>),
}

/// A store that is reached over the network.
pub struct EtcdTransport {
    /// `None`: the thread is to end.
    requests: Option<mpsc::UnboundedSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl EtcdTransport {
    /// Starts the thread. Connects with the first request.
    ///
    /// # Errors
    ///
    /// If the system refuses a thread.
    pub fn start(address: &StoreAddress) -> Result<EtcdTransport, JournalError> {
        let failed =
            |error: std::io::Error| JournalError::Io { what: format!("cannot start a thread: {error}") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (requests, received) = mpsc::unbounded_channel();
        let connection = Connection { address: address.clone(), connected: None };
        let serve = move || runtime.block_on(connection.serve(received));
        let thread =
            std::thread::Builder::new().name("octostore-etcd".into()).spawn(serve).map_err(failed)?;
        Ok(EtcdTransport { requests: Some(requests), thread: Some(thread) })
    }

    fn ask<R>(
        &self,
        request: impl FnOnce(SyncSender<Result<R, TransportError>>) -> Request,
    ) -> Result<R, TransportError> {
        let (sender, result) = sync_channel(1);
        let gone = || TransportError::Unknown("the connection to etcd is closed".into());
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(request(sender)).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }
}

impl Drop for EtcdTransport {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

impl Transport for EtcdTransport {
    fn txn(&mut self, txn: Txn) -> Result<TxnResult, TransportError> {
        self.ask(|result| Request::Txn(txn, result))
    }

    fn range(&mut self, range: Range) -> Result<Vec<KeyValue>, TransportError> {
        self.ask(|result| Request::Range(range, result))
    }

    fn database_bytes(&mut self) -> Result<u64, TransportError> {
        self.ask(Request::Size)
    }
}

/// The connection to one of the servers.
struct Connection {
    address: StoreAddress,
    connected: Option<Connected>,
}

impl Connection {
    async fn serve(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        while let Some(request) = requests.recv().await {
            // The receiver waits for the result, unless it has panicked.
            match request {
                Request::Txn(request, result) => {
                    drop(result.send(self.run(|client| txn(client, request)).await))
                }
                Request::Range(request, result) => {
                    drop(result.send(self.run(|client| range(client, request)).await));
                }
                Request::Size(result) => drop(result.send(self.run(size).await)),
            }
        }
    }

    /// Makes a request; gives the connection up if its outcome is unknown.
    async fn run<R, F>(&mut self, request: impl FnOnce(Client) -> F) -> Result<R, TransportError>
    where
        F: Future<Output = Result<R, Error>>,
    {
        let Connected { client, server, .. } = self.connected().await?;
        let outcome = match timeout(REQUEST_TIMEOUT, request(client)).await {
            Ok(outcome) => outcome.map_err(|error| classify(&error)),
            Err(_) => Err(TransportError::Unknown(format!("no response within {REQUEST_TIMEOUT:?}"))),
        };
        outcome.map_err(|error| match error {
            TransportError::Unknown(why) => {
                self.connected = None;
                TransportError::Unknown(format!("{}: {why}", self.address.endpoints[server]))
            }
            certain => certain,
        })
    }

    async fn connected(&mut self) -> Result<Connected, TransportError> {
        if let Some(connected) = &self.connected {
            return Ok(connected.clone());
        }
        match first_to_answer(&self.address).await {
            Ok(connected) => Ok(self.connected.insert(connected).clone()),
            Err(JournalError::Store { what }) => Err(TransportError::Refused(what)),
            Err(error) => Err(TransportError::Unknown(error.to_string())),
        }
    }
}

async fn txn(mut client: Client, Txn { compares, writes, reads }: Txn) -> Result<TxnResult, Error> {
    let compares: Vec<_> = compares
        .into_iter()
        .map(|compare| match compare {
            Compare::Created(key, revision) => {
                etcd_client::Compare::create_revision(key, CompareOp::Equal, revision)
            }
            Compare::Modified(key, revision) => {
                etcd_client::Compare::mod_revision(key, CompareOp::Equal, revision)
            }
        })
        .collect();
    let read: Vec<_> = reads.into_iter().map(|key| TxnOp::get(key, None)).collect();
    let write = writes.into_iter().map(|write| match write {
        Write::Put(key, value) => TxnOp::put(key, value, None),
        Write::Delete(from, to) => TxnOp::delete(from, Some(DeleteOptions::new().with_range(to))),
    });
    let then: Vec<_> = write.chain(read.iter().cloned()).collect();
    let response = client.txn(etcd_client::Txn::new().when(compares).and_then(then).or_else(read)).await?;
    let found = response.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(found) => found.kvs().first().map(key_value),
        _ => None,
    });
    Ok(TxnResult {
        succeeded: response.succeeded(),
        revision: response.header().map_or(0, etcd_client::ResponseHeader::revision),
        found: found.collect(),
    })
}

async fn range(client: Client, Range { from, to, revision, limit }: Range) -> Result<Vec<KeyValue>, Error> {
    let options = GetOptions::new()
        .with_range(to)
        .with_revision(revision)
        .with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
    // A page may have many large values.
    let mut client = client.kv_client().max_decoding_message_size(usize::MAX);
    Ok(client.get(from, Some(options)).await?.kvs().iter().map(key_value).collect())
}

async fn size(mut client: Client) -> Result<u64, Error> {
    Ok(u64::try_from(client.status().await?.db_size()).unwrap_or(0))
}
