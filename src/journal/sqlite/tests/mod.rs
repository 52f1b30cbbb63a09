//! Tests of the SQLite backend, and what they share.

mod backup;
mod compaction;
mod damage;
mod files;
mod migration;
mod values;
mod view;

use std::sync::Arc;

use super::*;
use crate::domain::{FencingToken, LockName, Owner, Ttl};
use crate::journal::{Renewal, StoredLease};
use crate::lock::{Lease, Mode, Origin};

/// A folder in memory, if the system has one.
pub(super) fn in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

pub(super) fn granted(tokens: std::ops::Range<i64>) -> Vec<Record> {
    tokens.map(|token| Record::Granted(lease(token, 7))).collect()
}

/// A lease; those with even tokens have a TTL and an origin, as is common.
fn lease(token: i64, deadline: u64) -> StoredLease {
    let mut lease = Lease {
        owner: Owner::new(if token % 3 == 0 { b"\0\xff" } else { "w\"\u{1F512}".as_bytes() }).unwrap(),
        token: FencingToken::new(token).unwrap(),
        mode: Mode::Exclusive,
        ttl: None,
        effective_ttl: None,
        is_unacknowledged: false,
        deadline: Timestamp::from_nanos(deadline),
        granted_at: Timestamp::from_nanos(1),
        renewals: 0,
        origin: None,
        extra: None,
    };
    if token % 2 == 0 {
        lease.ttl = Ttl::from_millis(deadline + 1).ok();
        lease.effective_ttl = lease.ttl;
        lease.restart(Timestamp::from_nanos(deadline));
        lease.origin = Some(Arc::new(Origin { addr: "127.0.0.1:1".into(), client_name: "c".into() }));
    }
    StoredLease { name: LockName::new(0, token.to_string().as_bytes()).unwrap(), lease }
}
