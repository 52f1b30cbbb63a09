//! Tests of the backend, on an etcd in memory and on a real one.

use super::*;
use crate::journal::{Backend, JournalError, StoreAddress};

#[path = "../../../tests/it/support/port.rs"]
mod port;
#[path = "../../../tests/it/support/etcd.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod server;

type Check<'a> = &'a dyn Fn(&mut Box<dyn Backend>, &dyn Fn(Box<dyn Backend>) -> Box<dyn Backend>);

/// Runs a check of the conformance suite on the etcd in memory, with and without eager folding, and
/// on a real one if there is one.
pub(in crate::journal) fn every_store(check: Check<'_>) {
    for fold_batches in [1, usize::MAX] {
        let etcd = SimulatedEtcd::default();
        let epoch = etcd.elect("/locks");
        let open = || boxed(EtcdBackend::over(Box::new(etcd.clone()), "/locks", epoch), fold_batches);
        check(&mut open(), &|backend| {
            drop(backend);
            open()
        });
    }
    let Some(etcd) = server::Etcd::start() else { return };
    let address = StoreAddress::parse(&etcd.store("locks")).unwrap();
    let epoch = elect(&address);
    let open = || boxed(EtcdBackend::open(&address, epoch), 1);
    check(&mut open(), &|backend| {
        drop(backend);
        open()
    });
}

fn boxed(backend: Result<EtcdBackend, JournalError>, fold_batches: usize) -> Box<dyn Backend> {
    let mut backend = backend.unwrap();
    backend.fold_at(fold_batches);
    Box::new(backend)
}

/// Makes a leader in a real etcd. Returns its epoch.
fn elect(address: &StoreAddress) -> i64 {
    let mut transport = EtcdTransport::start(address).unwrap();
    let key = address.key("leader");
    let gone = Write::Delete(key.clone(), format!("{key}\0"));
    let writes = |writes| Txn { writes, ..Txn::default() };
    transport.txn(writes(vec![gone])).unwrap();
    transport.txn(writes(vec![Write::Put(key, b"{}".to_vec())])).unwrap().revision
}
