//! States that no server could have written are refused.

use super::*;
use crate::journal::sqlite::*;

#[test]
fn contradictory_rows_are_refused_as_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let plain = r#"[1,1,"k","me",5,7]"#;
    for (row, held, first, second, boot) in [
        (0, false, plain, "[]", "b"),
        (1_i64 << 38, false, plain, "[]", "b"),
        (1, false, plain, plain, "b"),
        (1, false, "1", plain, "b"),
        (1, false, "[2,1,9,9,1]", "[]", "b"),
        (1, false, "[2,1,9,9,1]", "[]", "another"),
        (1, true, r#"[1,1,"other","me",5,7]"#, "[]", "b"),
        (1, true, r#"[1,1,"other","me",5,7]"#, "[]", "another"),
        (1, true, "1", "[2,1,9,9,1]", "b"),
    ] {
        let _ = std::fs::remove_file(&path);
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
        if held {
            backend.commit(&[Record::Granted(lease(1, 7))]).unwrap();
            while backend.maintain().unwrap() {}
        }
        drop(backend);
        let second = if second == "[]" { String::new() } else { format!(",({row} + 1, '[{second}]')") };
        run_sql(&path, &format!("INSERT INTO changes VALUES ({row}, '[{first}]'){second}"));
        let mut backend = SqliteBackend::open(&path).unwrap();
        let loaded = backend.load(Some(boot), Timestamp::default(), &mut |_| {});
        assert!(matches!(loaded, Err(JournalError::Corrupt { .. })), "{row} {held} {first} {second} {boot}");
    }
}

#[test]
fn contradictory_changes_of_values_are_refused_as_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let put = r#"[3,9,9,0,"k","hash",null,null]"#;
    for (name, sql) in [
        ("an element without a value", r#"INSERT INTO changes VALUES (1, '[[5,9,"f","v"]]')"#.to_owned()),
        ("a change after the end", format!(r#"INSERT INTO changes VALUES (1, '[{put},[4,9],[6,9,"f"]]')"#)),
        ("an unknown type", r#"INSERT INTO changes VALUES (1, '[[3,9,9,0,"k","blob",null,null]]')"#.into()),
        ("no field", r#"INSERT INTO changes VALUES (1, '[[5,9]]')"#.into()),
        ("too much", r#"INSERT INTO changes VALUES (1, '[[4,9,9]]')"#.into()),
        ("no id", r#"INSERT INTO changes VALUES (1, '[[4,0]]')"#.into()),
        (
            "elements before their value",
            format!(
                "INSERT INTO elements VALUES (9, 1, x'00', x''); INSERT INTO changes VALUES (1, '[{put}]')"
            ),
        ),
        (
            "a type in the table",
            "INSERT INTO keyed_values VALUES (9, 9, 0, x'00', 'blob', NULL, NULL)".into(),
        ),
        ("a position behind the log", "UPDATE octostore SET moved_row = 1".into()),
        ("a place out of range", "UPDATE octostore SET last_place = 9223372036854775807".into()),
        ("a negative number", "UPDATE octostore SET moved_changes = -1".into()),
        ("a script's hash", "INSERT INTO scripts VALUES (1, 'zz', x'00')".into()),
    ] {
        for boot in ["b", "another"] {
            let _ = std::fs::remove_file(&path);
            let mut backend = SqliteBackend::open(&path).unwrap();
            backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
            drop(backend);
            run_sql(&path, &sql);
            let mut backend = SqliteBackend::open(&path).unwrap();
            let loaded = backend.load(Some(boot), Timestamp::default(), &mut |_| {});
            assert!(matches!(loaded, Err(JournalError::Corrupt { .. })), "{name}: {loaded:?}");
        }
    }
}

#[test]
fn a_table_out_of_order_is_refused_as_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    backend.commit(&granted(1..6)).unwrap();
    while backend.maintain().unwrap() {}
    let root: u32 = backend
        .db
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'held'", [], |row| row.get(0))
        .unwrap();
    drop(backend);
    run_sql(&path, "INSERT INTO changes VALUES (1, '[3]'); PRAGMA wal_checkpoint(TRUNCATE)");
    let mut bytes = std::fs::read(&path).unwrap();
    let page = (root as usize - 1) * 4096;
    // A leaf: from byte 8 on it has the places of its cells, each the length of its row and then
    // the token.
    assert_eq!(bytes[page], 13);
    let token = |cell: usize| {
        let place = page + 8 + 2 * cell;
        page + usize::from(u16::from_be_bytes([bytes[place], bytes[place + 1]])) + 1
    };
    let (second, fifth) = (token(1), token(4));
    assert_eq!((bytes[second], bytes[fifth]), (2, 5));
    bytes.swap(second, fifth);
    std::fs::write(&path, bytes).unwrap();
    let mut backend = SqliteBackend::open(&path).unwrap();
    let loaded = backend.load(Some("b"), Timestamp::default(), &mut |_| {});
    assert!(matches!(loaded, Err(JournalError::Corrupt { .. })), "{loaded:?}");
}
