//! The connection of elections to etcd.
//!
//! It speaks to one etcd server at a time. After a failure, it goes to the first one that answers: a
//! server that is stopped or cut off accepts requests as well as the others, and answers none.
//!
//! Guarantees: every request ends within [`REQUEST_TIME`] and the time of connecting. Not here: what is
//! asked.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use etcd_client::{Client, Error};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::journal::etcd::connect;
use crate::journal::{JournalError, StoreAddress};

/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_millis(1500);

/// Pause after a failed request.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A request that failed, for the log.
pub(super) type Failed = String;

/// The connection.
pub struct Store {
    address: StoreAddress,
    link: Mutex<Link>,
}

struct Link {
    /// Number of connections that were given up.
    given_up: usize,
    client: Option<Client>,
    /// When the latest request was made that was answered.
    reached: Instant,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Store {
    /// Connects to a server of the store.
    ///
    /// # Errors
    ///
    /// If none answers, or the password is refused.
    pub async fn connect(address: &StoreAddress) -> Result<Store, JournalError> {
        let link = Link { given_up: 0, client: None, reached: Instant::now() };
        let store = Store { address: address.clone(), link: Mutex::new(link) };
        store.client().await.map(|_| store)
    }

    /// The address.
    pub(super) fn address(&self) -> &StoreAddress {
        &self.address
    }

    /// The key of this name below the prefix.
    pub(super) fn key(&self, name: &str) -> String {
        self.address.key(name)
    }

    /// Which connection is used: another number after each failure.
    pub(super) fn connection(&self) -> usize {
        self.link.lock().given_up
    }

    /// How long ago the latest request was made that was answered.
    pub(super) fn silence(&self) -> Duration {
        self.link.lock().reached.elapsed()
    }

    /// Makes a request.
    ///
    /// # Errors
    ///
    /// If it is not answered in time, or with an error. The next one makes another connection.
    pub(super) async fn request<R, F>(&self, request: impl FnOnce(Client) -> F) -> Result<R, Failed>
    where
        F: Future<Output = Result<R, Error>>,
    {
        let (connection, began) = (self.connection(), Instant::now());
        let result = match self.client().await {
            Err(error) => Err(error.to_string()),
            Ok(client) => match timeout(REQUEST_TIME, request(client)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("no response".to_owned()),
            },
        };
        match &result {
            Ok(_) => {
                let mut link = self.link.lock();
                link.reached = link.reached.max(began);
            }
            Err(_) => self.give_up(connection),
        }
        result
    }

    async fn client(&self) -> Result<Client, JournalError> {
        let given_up = {
            let link = self.link.lock();
            if let Some(client) = &link.client {
                return Ok(client.clone());
            }
            link.given_up
        };
        let client = connect(&self.address).await?;
        let mut link = self.link.lock();
        if link.given_up == given_up {
            link.client = Some(client.clone());
        }
        Ok(client)
    }

    /// Closes the connection, unless another request has done so.
    fn give_up(&self, given_up: usize) {
        let mut link = self.link.lock();
        if link.given_up == given_up {
            link.given_up += 1;
            link.client = None;
        }
    }
}
