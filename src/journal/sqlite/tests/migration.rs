//! A database that an earlier release has left is opened by this one.

use super::*;
use crate::domain::{SessionId, Timestamp};
use crate::journal::sqlite::*;
use crate::lock::Delay;

/// As octostore 0.1.0 left it when it was killed: tokens 1 to 7 in the table `held`, of which the
/// log renews 6 and ends 7; 9 to 13 in the log, of which 9 is renewed there and 12 is over; a
/// session, and a delay.
const VERSION_1: &str = include_str!("../../../../tests/it/data/version_1.sql");
const BOOT: Option<&str> = Some("f5a48cec-4893-4700-86ed-e0d20d51d10e");

fn database(sql: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = in_memory();
    let path = dir.path().join("db");
    run_sql(&path, sql);
    (dir, path)
}

/// The columns of the view, and the values of each row as SQL literals.
fn shown(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let db = Connection::open(path).unwrap();
    let columns: Vec<String> =
        db.prepare("SELECT * FROM leases").unwrap().column_names().map(str::to_owned).collect();
    let quoted: Vec<_> = columns.iter().map(|name| format!("quote({name})")).collect();
    let mut rows = db.prepare(&format!("SELECT {} FROM leases ORDER BY token", quoted.join(","))).unwrap();
    let rows = rows.query_map([], |row| (0..columns.len()).map(|column| row.get(column)).collect());
    let rows = rows.unwrap().map(Result::unwrap).collect();
    (columns, rows)
}

fn number(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_database_of_version_1_keeps_every_lease_session_delay_and_token() {
    let (_dir, path) = database(VERSION_1);
    let before = shown(&path);
    for _ in 0..2 {
        let mut backend = SqliteBackend::open(&path).unwrap();
        let mut found = Vec::new();
        let loaded = backend.load(BOOT, Timestamp::default(), &mut |record| found.push(record)).unwrap();
        assert_eq!((loaded.tokens_reserved, loaded.rebooted), (32_768, false));
        let session = session_of(&found);
        let mut leases = Vec::new();
        for record in found {
            match record {
                Record::Granted(stored) => leases.push(stored),
                Record::Session(found) => {
                    assert_eq!((found.id, found.name.as_str()), (session, "nightly batch"));
                }
                Record::DelayStarted(name, Delay { length, .. }) => {
                    assert_eq!((name.key(), length.as_millis()), (&b"delayed"[..], 600_000));
                }
                other => panic!("not a state: {other:?}"),
            }
        }
        let tokens: Vec<_> = leases.iter().map(|stored| stored.lease.token.get()).collect();
        assert_eq!(tokens, [1, 2, 3, 4, 5, 6, 9, 10, 11, 13]);
        let of = |token| {
            let stored = leases.iter().find(|stored| stored.lease.token.get() == token).unwrap();
            (&stored.name, &stored.lease)
        };
        let all: Vec<u8> = (0..=255).collect();
        let reversed: Vec<u8> = (0..=255).rev().collect();
        assert_eq!((of(10).0.key(), of(10).1.owner.as_bytes()), (&all[..], &reversed[..]));
        assert_eq!((of(5).0.key(), of(5).1.owner.as_bytes()), (&b"compacted:\xff\0"[..], &b"\0\x01\x80"[..]));
        assert_eq!((of(6).1.renewals, of(9).1.renewals, of(13).1.mode), (1, 1, Mode::Shared));
        assert_eq!((of(2).1.meta(), of(11).1.meta()), (Some("caf\u{e9} \"x\""), Some("late")));
        assert_eq!((of(5).1.session(), of(11).1.session()), (Some(session), Some(session)));
        assert_eq!((of(5).1.mode, of(11).1.mode), (Mode::limit(3).unwrap(), Mode::limit(9).unwrap()));
        let origin = of(1).1.origin.as_ref().unwrap();
        assert_eq!(origin.client_name, "worker-7");

        let after = shown(&path);
        assert_eq!(after.0, before.0, "people find the same columns");
        for (after, before) in after.1.iter().zip(&before.1) {
            // Version 1 showed binary keys as their text in the log.
            let skipped = if before[0] == "10" { 4 } else { 0 };
            assert_eq!(after[skipped..], before[skipped..]);
        }
        assert_eq!(after.1.len(), before.1.len());
        assert_eq!(number(&path, "PRAGMA user_version"), 3);
        assert_eq!(number(&path, "SELECT schema_version FROM octostore"), 3, "version 1 refuses it by name");
        backend.commit(&granted(40_000..40_001)).unwrap();
        backend.commit(&[Record::Ended(FencingToken::new(40_000).unwrap())]).unwrap();
    }
}

fn session_of(found: &[Record]) -> SessionId {
    let id = found.iter().find_map(|record| match record {
        Record::Session(session) => Some(session.id),
        _ => None,
    });
    id.expect("a session")
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let (_dir, path) = database(VERSION_1);
    let before = shown(&path);
    run_sql(&path, "INSERT INTO changes VALUES (10, '[[99, 5, 5, 1]]')");
    let opened = SqliteBackend::open(&path);
    assert!(matches!(opened, Err(JournalError::Corrupt { .. })), "{opened:?}");
    run_sql(&path, "DELETE FROM changes WHERE row = 10");
    assert_eq!(number(&path, "PRAGMA user_version"), 0);
    assert_eq!(shown(&path), before);
    assert!(SqliteBackend::open(&path).is_ok());
}

#[test]
fn a_newer_version_is_refused_and_left_as_it_is() {
    for version in [4, 99] {
        let dir = in_memory();
        let path = dir.path().join("db");
        drop(SqliteBackend::open(&path).unwrap());
        run_sql(&path, &format!("PRAGMA user_version = {version}; DROP TABLE held"));
        let error = SqliteBackend::open(&path).unwrap_err();
        assert_eq!(error, JournalError::Newer { found: version, known: 3 });
        let text = format!("the database has schema version {version}, this server knows 3");
        assert!(error.to_string().starts_with(&text), "{error}");
        assert_eq!(number(&path, "PRAGMA user_version"), version);
    }
}

/// As the last release with schema version 2 left it when it was killed: tokens 1 to 4 in the table
/// `held`, of which the log renews 2 and ends 3; 5 and 6 in the log, of which 6 is renewed there.
const VERSION_2: &str = include_str!("../../../../tests/it/data/version_2.sql");

#[test]
fn a_database_of_version_2_keeps_every_lease_and_takes_values() {
    let (_dir, path) = database(VERSION_2);
    let before = shown(&path);
    let boot: String = Connection::open(&path)
        .unwrap()
        .query_row("SELECT boot_id FROM octostore", [], |row| row.get(0))
        .unwrap();
    let load = |backend: &mut SqliteBackend| {
        let mut found = Vec::new();
        let loaded = backend.load(Some(&boot), Timestamp::default(), &mut |record| found.push(record));
        assert!(!loaded.unwrap().rebooted);
        found
    };
    let mut backend = SqliteBackend::open(&path).unwrap();
    assert_eq!(number(&path, "PRAGMA user_version"), 3);
    assert_eq!(number(&path, "SELECT schema_version FROM octostore"), 3);
    assert_eq!(shown(&path), before);
    let leases = load(&mut backend);
    let renewals: Vec<_> = leases
        .iter()
        .map(|record| match record {
            Record::Granted(stored) => (stored.lease.token.get(), stored.lease.renewals),
            other => panic!("not a lease: {other:?}"),
        })
        .collect();
    assert_eq!(renewals, [(1, 0), (2, 1), (4, 0), (5, 0), (6, 1)]);
    let value = super::values::value(9, b"element");
    backend.commit(&value).unwrap();
    drop(backend);
    let mut backend = SqliteBackend::open(&path).unwrap();
    for _ in 0..2 {
        assert_eq!(load(&mut backend), [leases.clone(), value.to_vec()].concat());
        while backend.maintain().unwrap() {}
    }
}

#[test]
fn a_migrated_database_has_the_tables_of_a_new_one() {
    let tables = |path: &Path| -> Vec<(String, String)> {
        let db = Connection::open(path).unwrap();
        let sql = "SELECT m.name, c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || c.pk
            FROM sqlite_schema m, pragma_table_xinfo(m.name) c ORDER BY m.name, c.cid";
        let mut rows = db.prepare(sql).unwrap();
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let (_new, new) = database("");
    std::fs::remove_file(&new).unwrap();
    drop(SqliteBackend::open(&new).unwrap());
    for old in [VERSION_1, VERSION_2] {
        let (_dir, path) = database(old);
        drop(SqliteBackend::open(&path).unwrap());
        assert_eq!(tables(&path), tables(&new));
    }
}
