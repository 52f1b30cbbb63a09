//! Compaction loses nothing, whether it fails or is interrupted.

use super::view::view;
use super::*;
use crate::journal::sqlite::*;

#[test]
fn failed_compaction_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    let all = granted(1..6000);
    for batch in all.chunks(1000) {
        backend.commit(batch).unwrap();
    }
    // The file cannot grow, as on a full disk.
    let pages: i64 = backend.db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    backend.db.pragma_update(None, "max_page_count", pages).unwrap();
    let mut steps = 0;
    let failure = loop {
        match backend.maintain() {
            Ok(true) => steps += 1,
            end => break end,
        }
    };
    assert_eq!(failure, Err(JournalError::Full), "after {steps} steps");
    backend.db.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    while backend.maintain().unwrap() {}
    drop(backend);
    let mut found = Vec::new();
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
    assert!(found == all, "{} of {}", found.len(), all.len());
}

#[test]
fn loading_writes_nothing_and_needs_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    for first in [1, 4000] {
        backend.commit(&granted(first..first + 3000)).unwrap();
        backend.maintain().unwrap();
    }
    drop(backend);
    let mut backend = SqliteBackend::open(&path).unwrap();
    let (mut found, before) = (0, backend.db.total_changes());
    backend.load(Some("b"), Timestamp::default(), &mut |_| found += 1).unwrap();
    assert_eq!((found, backend.db.total_changes()), (6000, before));
    assert!(!backend.log.is_empty(), "the log was not empty");
    while backend.maintain().unwrap() {}
    assert_eq!(view(&path).len(), 6000);
}

#[test]
fn an_ended_lease_stays_ended_while_its_grant_is_still_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut backend = SqliteBackend::open(&path).unwrap();
    let load = |backend: &mut SqliteBackend| {
        let mut tokens = Vec::new();
        let mut each = |record| {
            if let Record::Granted(stored) = record {
                tokens.push(stored.lease.token.get());
            }
        };
        backend.load(Some("b"), Timestamp::default(), &mut each).unwrap();
        tokens
    };
    load(&mut backend);
    let last = STEP.changes as i64 + 2;
    backend.commit(&granted(1..last + 1)).unwrap();
    // All but the last two are in `held`, and the row stays for those.
    assert_eq!(backend.maintain(), Ok(true));
    backend.commit(&[Record::Ended(FencingToken::new(1).unwrap())]).unwrap();
    for _ in 0..2 {
        drop(backend);
        backend = SqliteBackend::open(&path).unwrap();
        assert!(load(&mut backend) == (2..=last).collect::<Vec<_>>());
    }
    while backend.maintain().unwrap() {}
    assert!(load(&mut backend) == (2..=last).collect::<Vec<_>>());
}

#[test]
fn a_reboot_applies_the_ttl_of_a_renewal_that_is_still_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut backend = SqliteBackend::open(&dir.path().join("db")).unwrap();
    let load = |backend: &mut SqliteBackend, boot, now| {
        let mut found = Vec::new();
        backend.load(Some(boot), Timestamp::from_nanos(now), &mut |record| found.push(record)).unwrap();
        found
    };
    load(&mut backend, "first", 0);
    backend.commit(&[Record::Granted(lease(2, 4))]).unwrap();
    while backend.maintain().unwrap() {}
    let mut renewed = lease(2, 4);
    let effective_ttl = Ttl::from_millis(9).ok();
    let renewal = Renewal {
        deadline: Timestamp::from_nanos(6),
        effective_ttl,
        renewals: 1,
        token: renewed.lease.token,
    };
    backend.commit(&[Record::Renewed(renewal)]).unwrap();
    renewal.apply_to(&mut renewed.lease);
    renewed.lease.restart(Timestamp::from_nanos(1_000));
    assert_eq!(load(&mut backend, "second", 1_000), [Record::Granted(renewed)]);
    assert!(backend.log.is_empty());
}

#[test]
fn short_leases_leave_few_rows_in_the_log() {
    let dir = in_memory();
    let path = dir.path().join("db");
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    let rows = |backend: &SqliteBackend| -> i64 {
        backend.db.query_row("SELECT count(*) FROM changes", [], |row| row.get(0)).unwrap()
    };
    let mut most = 0;
    for token in 1..200 {
        backend.commit(&granted(token..token + 1)).unwrap();
        backend.commit(&[Record::Ended(FencingToken::new(token).unwrap())]).unwrap();
        most = most.max(rows(&backend));
    }
    assert!((32..=64).contains(&most), "{most} rows: several are removed at once");
    assert!(view(&path).is_empty());
}
