//! The view `leases` shows what a restart finds.

use std::collections::BTreeMap;

use super::*;
use crate::domain::TTL_MS_MAX;
use crate::journal::sqlite::*;

/// Keys and owners as the view has them, by token.
fn names(path: &Path) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
    let db = Connection::open(path).unwrap();
    let mut rows = db.prepare("SELECT token, key, owner FROM leases ORDER BY token").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_view_shows_binary_keys_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    run_sql(&path, include_str!("../../../../tests/it/data/binary_keys_0.1.0.sql"));
    assert_eq!(names(&path)[1].1, b"[255,254]", "as that version showed it");
    let mut backend = SqliteBackend::open(&path).unwrap();
    let expected = vec![
        (1, b"plain".to_vec(), b"worker".to_vec()),
        (2, vec![0xff, 0xfe], b"\0\x01\x80owner".to_vec()),
        (3, (0..=255).collect(), b"worker".to_vec()),
    ];
    let load = |backend: &mut SqliteBackend| {
        let mut found = Vec::new();
        let mut each = |record| {
            let Record::Granted(stored) = record else { panic!("not a lease: {record:?}") };
            let (key, owner) = (stored.name.key().to_vec(), stored.lease.owner.as_bytes().to_vec());
            found.push((stored.lease.token.get(), key, owner));
        };
        let boot = "2f9d9e6b-0d8c-4b6e-8f43-1f5a8f0c7a11";
        backend.load(Some(boot), Timestamp::default(), &mut each).unwrap();
        found
    };
    assert_eq!(names(&path), expected, "after the migration");
    assert_eq!(load(&mut backend), expected);
    let other = StoredLease { name: LockName::new(0, b"\0\xfe").unwrap(), lease: lease(9, 7).lease };
    backend.commit(&[Record::Granted(other)]).unwrap();
    let other = (9, b"\0\xfe".to_vec(), b"\0\xff".to_vec());
    assert_eq!(names(&path)[3], other, "in the log");
    while backend.maintain().unwrap() {}
    assert_eq!(names(&path)[3], other, "in the table");
}

#[test]
fn the_view_shows_the_deadline_of_the_longest_ttl() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    let mut stored = lease(1, 7);
    stored.lease.ttl = Ttl::from_millis(TTL_MS_MAX).ok();
    stored.lease.effective_ttl = stored.lease.ttl;
    stored.lease.restart(Timestamp::from_nanos(1_000_000));
    let expected = Shown::of(&stored.lease);
    backend.commit(&[Record::Granted(stored)]).unwrap();
    assert_eq!(view(&path), [expected]);
}

/// A row of the view.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    token: i64,
    deadline: i64,
    granted: i64,
    ttl: Option<i64>,
    effective_ttl: Option<i64>,
    renewals: u32,
    addr: Option<String>,
}

impl Shown {
    fn of(lease: &Lease) -> Shown {
        Shown {
            token: lease.token.get(),
            deadline: lease.deadline.to_stored().unwrap(),
            granted: lease.granted_at.to_stored().unwrap(),
            ttl: lease.ttl.map(Ttl::to_stored),
            effective_ttl: lease.effective_ttl.map(Ttl::to_stored),
            renewals: lease.renewals,
            addr: lease.origin.as_ref().map(|origin| origin.addr.clone()),
        }
    }
}

/// All rows of the view.
pub(super) fn view(path: &Path) -> Vec<Shown> {
    let db = Connection::open(path).unwrap();
    let mut rows = db
        .prepare("SELECT token, deadline_ns, granted_ns, ttl_ms, lasts_ms, renewals, addr FROM leases ORDER BY token")
        .unwrap();
    let rows = rows.query_map([], |row| {
        Ok(Shown {
            token: row.get(0)?,
            deadline: row.get(1)?,
            granted: row.get(2)?,
            ttl: row.get(3)?,
            effective_ttl: row.get(4)?,
            renewals: row.get(5)?,
            addr: row.get(6)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_view_and_a_restart_agree_at_every_stage_of_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut random = 1u64;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) as usize % bound
    };
    let mut expected: BTreeMap<i64, StoredLease> = BTreeMap::new();
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    backend.log_changes_max = 20;
    let mut next = 8;
    for step in 0..400 {
        let mut batch = Vec::new();
        for _ in 0..below(8) {
            let known = expected.keys().nth(below(expected.len().max(1))).copied();
            match (below(3), known) {
                (1, Some(token)) => {
                    let stored = expected.get_mut(&token).unwrap();
                    let renewal = Renewal {
                        token: stored.lease.token,
                        deadline: Timestamp::from_nanos(step),
                        effective_ttl: Ttl::from_millis(step + 1).ok(),
                        renewals: stored.lease.renewals + 1,
                    };
                    batch.push(Record::Renewed(renewal));
                    renewal.apply_to(&mut stored.lease);
                }
                (2, Some(token)) => {
                    batch.push(Record::Ended(FencingToken::new(token).unwrap()));
                    expected.remove(&token);
                }
                _ => {
                    // Requests that run at the same time may be recorded in another order than that
                    // of their tokens.
                    let token = next ^ 7;
                    let stored = lease(token, step);
                    batch.push(Record::Granted(stored.clone()));
                    expected.insert(token, stored);
                    next += 1;
                }
            }
        }
        backend.commit(&batch).unwrap();
        assert!(backend.log.changes() <= 200);
        match below(40) {
            0 => {
                backend.maintain().unwrap();
            }
            1 => {
                drop(backend);
                backend = SqliteBackend::open(&path).unwrap();
                let mut found = Vec::new();
                backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
                let all: Vec<_> = expected.values().cloned().map(Record::Granted).collect();
                assert_eq!(found, all, "step {step}");
                backend.log_changes_max = 20;
            }
            _ => {}
        }
        let shown: Vec<_> = expected.values().map(|stored| Shown::of(&stored.lease)).collect();
        assert_eq!(view(&path), shown, "step {step}");
    }
    while backend.maintain().unwrap() {}
    assert_eq!((backend.log.changes(), backend.log.bytes()), (0, 0));
}
