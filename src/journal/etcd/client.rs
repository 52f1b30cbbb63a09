//! The transport over the network.
//!
//! It has a thread with a runtime of its own: the thread that commits may block, within a runtime or
//! without; connections are kept alive between commits; and a busy runtime of the server does not
//! delay commits. It speaks to one etcd server at a time, and goes to the next one after a failure.
//!
//! Guarantees: every request ends within [`REQUEST_TIMEOUT`]; user and password are in no error. Not
//! here: what a missing response means.

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, Identity, TlsOptions,
    TxnOp, TxnOpResponse,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::layout::{Layout, Schema, VERSION, from_json};
use super::transport::{Compare, KeyValue, Range, Transport, TransportError, Txn, TxnResult, Write};
use crate::journal::{JournalError, StoreAddress};

/// After this time without a response, the outcome of a request is unknown. An election among the
/// etcd servers takes one to two seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// etcd closes connections that are probed more often than every five seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(6);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Connects to all servers of a store, in turn. Does not wait until one answers, unless there is a
/// password.
///
/// # Errors
///
/// If the password is refused, a certificate cannot be read, or no server answers.
pub async fn connect(address: &StoreAddress) -> Result<Client, JournalError> {
    connect_to(address, &address.endpoints).await
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
    let connected = timeout(REQUEST_TIMEOUT, Client::connect(endpoints, Some(options))).await;
    connected.map_err(|_| unreachable(endpoints, "no response"))?.map_err(|error| match classify(&error) {
        TransportError::Refused(what) => JournalError::Store { what },
        _ => unreachable(endpoints, &describe(&error)),
    })
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
    let layout = Layout::below(&address.prefix);
    let mut client = connect(address).await?;
    let get = client.get(layout.schema.as_str(), None);
    let found =
        timeout(REQUEST_TIMEOUT, get).await.map_err(|_| unreachable(&address.endpoints, "no response"))?;
    let found = found.map_err(|error| match classify(&error) {
        TransportError::Refused(what) => JournalError::Store { what },
        _ => unreachable(&address.endpoints, &describe(&error)),
    })?;
    let Some(found) = found.kvs().first() else { return Ok(()) };
    match from_json::<Schema>(&key_value(found))?.octostore {
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
        let connection = Connection { address: address.clone(), next: 0, client: None };
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
    /// The server to be connected to next.
    next: usize,
    client: Option<Client>,
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
        let client = self.connected().await?;
        let outcome = match timeout(REQUEST_TIMEOUT, request(client)).await {
            Ok(outcome) => outcome.map_err(|error| classify(&error)),
            Err(_) => Err(TransportError::Unknown(format!("no response within {REQUEST_TIMEOUT:?}"))),
        };
        outcome.map_err(|error| match error {
            TransportError::Unknown(why) => {
                self.client = None;
                let server = &self.address.endpoints[self.next];
                self.next = (self.next + 1) % self.address.endpoints.len();
                TransportError::Unknown(format!("{server}: {why}"))
            }
            certain => certain,
        })
    }

    async fn connected(&mut self) -> Result<Client, TransportError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let server = &self.address.endpoints[self.next..=self.next];
        match connect_to(&self.address, server).await {
            Ok(client) => Ok(self.client.insert(client).clone()),
            Err(JournalError::Store { what }) => Err(TransportError::Refused(what)),
            Err(error) => {
                self.next = (self.next + 1) % self.address.endpoints.len();
                Err(TransportError::Unknown(error.to_string()))
            }
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
