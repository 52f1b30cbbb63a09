//! Files that are locked, removed or replaced while the server has them open.

use super::view::view;
use super::*;
use crate::journal::sqlite::open::log_path;
use crate::journal::sqlite::*;

#[test]
fn an_attempt_on_a_locked_database_would_block_and_is_committed_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    backend.log_changes_max = 20;
    let other = Connection::open(&path).unwrap();
    let mut expected = 0;
    // One statement, several, and with changes on their way.
    let batches = [granted(1..3), vec![Record::TokensReserved(90)], granted(3..40), granted(40..60)];
    for batch in batches {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..2 {
            assert_eq!(backend.try_commit(&batch), Ok(Attempt::WouldBlock));
        }
        assert_eq!(view(&path).len(), expected);
        other.execute_batch("ROLLBACK").unwrap();
        backend.commit(&batch).unwrap();
        expected += batch.iter().filter(|record| record.is_of_a_lease()).count();
        assert_eq!(view(&path).len(), expected);
    }
    assert_eq!(backend.try_commit(&granted(60..61)), Ok(Attempt::Committed));
    let mut found = Vec::new();
    backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
    assert_eq!(found, granted(1..61));
}

#[test]
fn a_replaced_database_fails_commits_and_is_not_written() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("db");
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    backend.commit(&granted(1..3)).unwrap();
    let files = ["db", "db-wal", "db-shm", "db.lock"];
    let move_all = |from: &Path, to: &Path| {
        files.iter().for_each(|file| std::fs::rename(from.join(file), to.join(file)).unwrap());
    };
    let is_replaced =
        |result: &Result<(), JournalError>| matches!(result, Err(JournalError::Replaced { .. }));
    for file in ["db", "db-wal"] {
        std::fs::rename(dir.path().join(file), elsewhere.path().join(file)).unwrap();
        assert!(is_replaced(&backend.verify()), "{file}");
        let loaded = backend.load(Some("b"), Timestamp::default(), &mut |_| {}).map(drop);
        assert!(is_replaced(&loaded), "{file}");
        std::fs::rename(elsewhere.path().join(file), dir.path().join(file)).unwrap();
        assert_eq!(backend.verify(), Ok(()), "{file} is back");
    }
    move_all(dir.path(), elsewhere.path());
    backend.checkpoints.demand_verification();
    assert!(is_replaced(&backend.commit(&granted(3..4))));
    let mut other = SqliteBackend::open(&path).unwrap();
    other.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    other.commit(&granted(7..8)).unwrap();
    assert!(is_replaced(&backend.verify()));
    drop(backend);
    other.commit(&granted(8..9)).unwrap();
    drop(other);
    for (path, expected) in [(path, 7..9), (elsewhere.path().join("db"), 1..3)] {
        let mut backend = SqliteBackend::open(&path).unwrap();
        let mut found = Vec::new();
        backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
        assert_eq!(found, granted(expected));
    }
}

#[test]
fn a_removed_wal_fails_verification_and_its_commits_survive_the_close() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    backend.commit(&granted(1..9)).unwrap();
    std::fs::remove_file(log_path(&path)).unwrap();
    assert!(matches!(backend.verify(), Err(JournalError::Replaced { .. })));
    drop(backend);
    let mut backend = SqliteBackend::open(&path).unwrap();
    let mut found = Vec::new();
    backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
    assert_eq!(found, granted(1..9));
}

#[test]
fn a_removed_lock_file_is_restored_while_the_database_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let (path, lock_file) = (dir.path().join("db"), dir.path().join("db.lock"));
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    backend.commit(&[Record::TokensReserved(4096)]).unwrap();
    std::fs::remove_file(&lock_file).unwrap();
    if cfg!(not(target_os = "linux")) {
        return assert!(matches!(backend.verify(), Err(JournalError::Replaced { .. })));
    }
    // What a second server leaves that finds the database locked.
    assert!(matches!(SqliteBackend::open(&path), Err(JournalError::InUse { .. })));
    assert_eq!(backend.verify(), Ok(()));
    assert!(std::fs::read_to_string(&lock_file).unwrap().contains(" 4096\n"));
    let process = Some(std::process::id());
    assert_eq!(SqliteBackend::open(&path).unwrap_err(), JournalError::InUse { process });
    std::fs::write(&lock_file, "").unwrap();
    std::fs::remove_file(&lock_file).unwrap();
    std::fs::write(&lock_file, "other notes").unwrap();
    assert!(matches!(backend.verify(), Err(JournalError::Path { .. })));
    assert_eq!(std::fs::read_to_string(&lock_file).unwrap(), "other notes");
}

#[test]
fn only_commits_of_callers_do_not_wait_for_a_locked_database() {
    let dir = in_memory();
    let mut backend = SqliteBackend::open(&dir.path().join("db")).unwrap();
    let load = |backend: &mut SqliteBackend| {
        backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    };
    let may_wait = |backend: &SqliteBackend| {
        let timeout = backend.db.query_row("PRAGMA busy_timeout", [], |row| row.get::<_, i64>(0));
        timeout.unwrap() > 0
    };
    load(&mut backend);
    let waiting_work: [fn(&mut SqliteBackend); 2] =
        [|backend| backend.commit(&granted(2..3)).unwrap(), |backend| assert!(backend.maintain().is_ok())];
    for work in waiting_work {
        assert_eq!(backend.try_commit(&[Record::TokensReserved(9)]), Ok(Attempt::Committed));
        assert!(!may_wait(&backend));
        work(&mut backend);
        assert!(may_wait(&backend));
    }
    backend.try_commit(&[Record::TokensReserved(9)]).unwrap();
    load(&mut backend);
    assert!(may_wait(&backend));
}
