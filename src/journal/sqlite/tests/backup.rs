//! Tests of copies.

use super::*;
use crate::clock::Clock;
use crate::journal::{FloorOrigin, Restored, back_up, restore};

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
    let restored = restore(&copy, &other, None, &Clock::system(), &mut |_| Ok(())).unwrap();
    assert_eq!(restored.origin, FloorOrigin::Clock);
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
    restore(&copy, &other, None, &Clock::system(), &mut |_| Err("two leases".into())).unwrap_err();
    assert_eq!(files(), ["copy"], "a newer copy replaces an older one, and a restore leaves nothing behind");
}

/// Restores a copy on a disk of its own, without a lock file.
fn restore_elsewhere(copy: &Path, floor: Option<i64>, clock: &Clock) -> (tempfile::TempDir, Restored) {
    let dir = in_memory();
    let restored = restore(copy, &dir.path().join("db"), floor, clock, &mut |_| Ok(())).unwrap();
    (dir, restored)
}

#[test]
fn tokens_of_a_later_restore_are_higher_whichever_copy_it_is_of() {
    let clock = Clock::manual();
    // The middle of 2026.
    let began = 1_782_864_000_000;
    clock.step_wall_to(began);
    let dir = in_memory();
    let path = database(&dir);
    let [older, same, newer] = ["older", "same", "newer"].map(|name| dir.path().join(name));
    back_up(&path, &older, &clock, &mut |_| Ok(())).unwrap();
    std::fs::copy(&older, &same).unwrap();
    SqliteBackend::open(&path).unwrap().commit(&[Record::TokensReserved(2000)]).unwrap();
    back_up(&path, &newer, &clock, &mut |_| Ok(())).unwrap();
    let mut highest = 2000;
    for (millis, copy) in [&newer, &older, &older, &same].into_iter().enumerate() {
        clock.step_wall_to(began + millis as u64);
        let (disk, restored) = restore_elsewhere(copy, None, &clock);
        assert!(restored.tokens_above > highest && restored.origin == FloorOrigin::Clock, "{restored:?}");
        // It issues a thousand in this millisecond, and is copied.
        highest = restored.tokens_above + 1000;
        let path = disk.path().join("db");
        SqliteBackend::open(&path).unwrap().commit(&[Record::TokensReserved(highest)]).unwrap();
        back_up(&path, &newer, &clock, &mut |_| Ok(())).unwrap();
    }
    // The clock is behind: the copy shows that, and an operator may know better.
    clock.step_wall_to(began - 1000);
    let disk = in_memory();
    let refused = restore(&newer, &disk.path().join("db"), None, &clock, &mut |_| Ok(())).unwrap_err();
    assert!(refused.to_string().contains("it may be behind"), "{refused}");
    assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0, "nothing is left behind");
    let (_, restored) = restore_elsewhere(&newer, Some(highest + 5), &clock);
    assert_eq!((restored.tokens_above, restored.origin), (highest + 5, FloorOrigin::Operator));
}

#[test]
fn the_first_token_is_above_those_of_the_copy_the_lock_file_and_the_operator() {
    let dir = in_memory();
    let path = database(&dir);
    let copy = dir.path().join("copy");
    let clock = Clock::manual();
    back_up(&path, &copy, &clock, &mut |_| Ok(())).unwrap();
    let (_, restored) = restore_elsewhere(&copy, Some(500), &clock);
    assert_eq!((restored.tokens_above, restored.origin), (500, FloorOrigin::Operator));
    let other = dir.path().join("other");
    let refused = |floor| restore(&copy, &other, floor, &clock, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(refused(Some(99)).contains("tokens up to 100 may have been issued"), "of the copy");
    assert!(refused(None).contains("it may be behind"), "a clock that is not set");
    LockFile::acquire(&other).unwrap().reserve(1 << 40).unwrap();
    std::fs::remove_file(&other).unwrap();
    assert!(refused(Some(500)).contains("tokens up to 1099511627776"), "of the lock file");
    let restored = restore(&copy, &other, Some(1 << 41), &clock, &mut |_| Ok(())).unwrap();
    assert_eq!(restored.tokens_above, 1 << 41);
}
