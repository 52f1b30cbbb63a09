//! Tests of copies.

use super::*;
use crate::clock::Clock;
use crate::journal::{back_up, restore};

/// A database with two leases; the second one has a TTL.
fn database(dir: &tempfile::TempDir) -> std::path::PathBuf {
    let path = dir.path().join("db");
    let mut backend = SqliteBackend::open(&path).unwrap();
    backend.commit(&[Record::TokensReserved(100)]).unwrap();
    backend.commit(&granted(1..3)).unwrap();
    path
}

#[test]
fn a_restored_database_gives_every_lease_its_full_ttl() {
    let dir = in_memory();
    let path = database(&dir);
    // The boot is known from the first load on.
    let now = Timestamp::from_nanos(5);
    let loaded = SqliteBackend::open(&path).unwrap().load(Some("boot"), now, &mut |_| {}).unwrap();
    assert!(loaded.rebooted);
    let (copy, other) = (dir.path().join("copy"), dir.path().join("other"));
    back_up(&path, &copy, &Clock::system(), &mut |state| {
        assert_eq!((state.records.len(), state.loaded.tokens_reserved), (2, 100));
        Ok(())
    })
    .unwrap();
    let restored = restore(&copy, &other, None, &mut |_| Ok(())).unwrap();
    assert!(restored.has_jumped && restored.tokens_above > 1 << 36);
    let mut deadlines = Vec::new();
    let now = Timestamp::from_nanos(7_000_000_000);
    let loaded = SqliteBackend::open(&other)
        .unwrap()
        .load(Some("boot"), now, &mut |record| {
            if let Record::Granted(stored) = record {
                deadlines.push(stored.lease.deadline);
            }
        })
        .unwrap();
    assert!(loaded.rebooted, "on the same boot of the same machine");
    assert_eq!(loaded.tokens_reserved, restored.tokens_above);
    assert_eq!(deadlines, [Timestamp::NEVER, now.after(Ttl::from_millis(8).ok())]);
}

#[test]
fn a_copy_that_is_not_approved_does_not_get_its_name() {
    let dir = in_memory();
    let path = database(&dir);
    let (copy, other) = (dir.path().join("copy"), dir.path().join("other"));
    let files = || {
        let entries = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.filter(|name| !name.to_string_lossy().starts_with("db")).collect();
        names.sort();
        names
    };
    let refused = back_up(&path, &copy, &Clock::system(), &mut |_| Err("two leases".into())).unwrap_err();
    assert_eq!(refused, JournalError::corrupt("two leases"));
    assert_eq!(files(), Vec::<std::ffi::OsString>::new());
    back_up(&path, &copy, &Clock::system(), &mut |_| Ok(())).unwrap();
    back_up(&path, &copy, &Clock::system(), &mut |_| Ok(())).unwrap();
    restore(&copy, &other, None, &mut |_| Err("two leases".into())).unwrap_err();
    assert_eq!(files(), ["copy"], "a newer copy replaces an older one, and a restore leaves nothing behind");
}

#[test]
fn a_lock_file_of_another_database_is_not_trusted() {
    let dir = in_memory();
    let path = database(&dir);
    let (copy, other) = (dir.path().join("copy"), dir.path().join("other"));
    back_up(&path, &copy, &Clock::system(), &mut |_| Ok(())).unwrap();
    let mut lock_file = LockFile::acquire(&other).unwrap();
    lock_file.reserve(99).unwrap();
    drop(lock_file);
    std::fs::remove_file(&other).unwrap();
    let restored = restore(&copy, &other, None, &mut |_| Ok(())).unwrap();
    assert!(restored.has_jumped, "it has fewer tokens than the copy");
    std::fs::remove_file(&other).unwrap();
    let again = restore(&copy, &other, None, &mut |_| Ok(())).unwrap();
    assert_eq!((again.tokens_above, again.has_jumped), (restored.tokens_above, false));
}
