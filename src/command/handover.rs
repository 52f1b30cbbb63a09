//! Connections that go on with another service: that of another server, or of this one when it begins
//! or ceases to lead.
//!
//! Guarantees: the user, the name, the database and the protocol of a connection stay. Not here:
//! sockets, and when a connection goes on elsewhere.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pubsub::Subscribed;
use super::{Client, ServerState};
use crate::domain::DATABASES;

/// What a connection takes along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientState {
    /// The client's address.
    pub addr: String,
    /// The user; `None`: not authenticated.
    pub user: Option<String>,
    /// The name in the client's certificate, if it names the user.
    pub certificate: Option<String>,
    /// The name of the connection.
    pub name: String,
    /// The name of the client library.
    pub lib_name: String,
    /// The version of the client library.
    pub lib_version: String,
    /// The database.
    pub database: u8,
    /// The RESP version.
    pub protocol: u8,
    /// The subscriptions. A connection that has some goes on at the same server.
    #[serde(skip)]
    pub subscribed: Subscribed,
}

impl Client {
    /// Registers a connection that another service has served so far.
    pub fn resume(server: &Arc<ServerState>, state: &ClientState, local_addr: String) -> Client {
        let mut client = Client::new(server, state.addr.clone(), local_addr);
        if let Some(name) = &state.certificate {
            client.accept_certificate(name);
        }
        // A user that does not exist here has to authenticate again.
        let user = state.user.as_deref().and_then(|user| server.users.find(user.as_bytes()));
        let is_known = user.is_some() || state.user.is_none();
        if let Some(user) = user {
            client.set_user(user, true);
        }
        client.set_name(&state.name);
        client.select(state.database.min(DATABASES - 1));
        client.set_protocol(state.protocol);
        let info = Arc::clone(client.info());
        info.update(|details| {
            details.lib_name.clone_from(&state.lib_name);
            details.lib_version.clone_from(&state.lib_version);
        });
        if is_known {
            client.subscriptions.restore(server, &info, &state.subscribed);
        }
        client
    }

    /// What [`Client::resume`] needs. Transactions and sessions are not part of it.
    pub fn state(&self) -> ClientState {
        let user = self.is_authenticated.then(|| self.user.name().to_string());
        let subscribed = self.subscriptions.of_sentinel().unwrap_or_default();
        self.info().read(|details| ClientState {
            addr: self.info().addr.clone(),
            user,
            certificate: self.certificate_name.as_deref().map(str::to_owned),
            name: details.name.clone(),
            lib_name: details.lib_name.clone(),
            lib_version: details.lib_version.clone(),
            database: self.database(),
            protocol: self.protocol(),
            subscribed,
        })
    }

    /// Whether the client only wants to hear which server leads, so that its connection can stay when
    /// this one ceases to lead.
    pub fn follows_leaders(&self) -> bool {
        let is_idle = self.transaction.is_none() && self.watch.is_none() && self.tracking.is_none();
        is_idle
            && self.is_answered()
            && !self.is_monitor
            && self.connection_session.is_none()
            && self.subscriptions.of_sentinel().is_some()
    }
}
