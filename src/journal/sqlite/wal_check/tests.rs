//! Tests of the check of the write-ahead log.

use std::path::PathBuf;

use super::*;
use crate::domain::Timestamp;
use crate::journal::sqlite::tests::{granted, in_memory};
use crate::journal::sqlite::{DamagedLog, SqliteBackend};
use crate::journal::{Backend, JournalError, Record};

const COMMITS: i64 = 300;
/// Of the default page size.
const FRAME_BYTES: usize = FRAME_HEADER_BYTES + PAGE_BYTES_DEFAULT;

/// A database as `kill -9` leaves it.
struct Killed {
    database: Vec<u8>,
    log: Vec<u8>,
}

impl Killed {
    /// After these commits.
    fn after<'a>(
        start: Option<&Killed>,
        path: &Path,
        batches: impl IntoIterator<Item = &'a [Record]>,
    ) -> Killed {
        if let Some(start) = start {
            start.write(path);
        }
        let mut backend = SqliteBackend::open(path).unwrap();
        load(&mut backend);
        batches.into_iter().for_each(|batch| backend.commit(batch).unwrap());
        let mut log = std::fs::read(log_path(path)).unwrap();
        let used = log.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        log.truncate((used - HEADER_BYTES).next_multiple_of(FRAME_BYTES) + HEADER_BYTES);
        Killed { database: std::fs::read(path).unwrap(), log }
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, &self.database).unwrap();
        std::fs::write(log_path(path), &self.log).unwrap();
    }

    fn frames(&self) -> usize {
        (self.log.len() - HEADER_BYTES) / FRAME_BYTES
    }

    /// Where commits end, in frames.
    fn commits(&self) -> Vec<usize> {
        let ends_commit = |frame: &usize| {
            let frame = Frame::parse(&self.log[HEADER_BYTES + frame * FRAME_BYTES..][..FRAME_BYTES]);
            frame.database_pages != 0
        };
        (0..self.frames()).filter(ends_commit).map(|frame| frame + 1).collect()
    }
}

fn load(backend: &mut SqliteBackend) -> Vec<Record> {
    let mut found = Vec::new();
    backend.load(Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
    found
}

fn batches(records: &[Record]) -> impl Iterator<Item = &[Record]> {
    records.chunks(1)
}

fn paths() -> (tempfile::TempDir, PathBuf) {
    let dir = in_memory();
    let path = dir.path().join("db");
    (dir, path)
}

#[test]
fn a_byte_that_flips_anywhere_in_the_log_loses_nothing_silently() {
    let (dir, path) = paths();
    let all = granted(1..COMMITS + 1);
    let killed = Killed::after(None, &dir.path().join("original"), batches(&all));
    let commits = killed.commits();
    // What the start writes before anything is granted are commits, too.
    assert!(commits.len() as i64 > COMMITS);
    // Damage in the last commit cannot be told from one that was interrupted.
    let last = HEADER_BYTES + commits[commits.len() - 2] * FRAME_BYTES;
    let mut random = 1u64;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) as usize % bound
    };
    // All of the header, headers of frames, among them those of the last commits, and any bytes.
    let mut places: Vec<usize> = (0..HEADER_BYTES).collect();
    for frame in [0, 1, 2, killed.frames() / 2, commits[commits.len() - 2] - 1] {
        places.extend((0..=FRAME_HEADER_BYTES).map(|byte| HEADER_BYTES + frame * FRAME_BYTES + byte));
    }
    places.extend((0..100).map(|_| below(last)));
    let (mut refusals, mut serves) = (0, 0);
    for place in places {
        let mut copy = Killed { database: killed.database.clone(), log: killed.log.clone() };
        copy.log[place] ^= 0xff;
        copy.write(&path);
        match SqliteBackend::open(&path) {
            Ok(mut backend) => {
                assert_eq!(load(&mut backend).len(), all.len(), "byte {place}");
                serves += 1;
            }
            Err(JournalError::DamagedLog { commits, .. }) => {
                // What was flipped may be a mark.
                let max = killed.commits().len() as u64 + 1;
                assert!((1..=max).contains(&commits), "byte {place}: {commits}");
                assert_eq!(std::fs::read(log_path(&path)).unwrap(), copy.log, "the log stays as it is");
                refusals += 1;
            }
            Err(error) => panic!("byte {place}: {error}"),
        }
        std::fs::remove_file(&path).unwrap();
    }
    assert!(refusals > 200, "{refusals} refused, {serves} served");
}

#[test]
fn discarded_commits_are_counted_and_stay_discarded() {
    let (dir, path) = paths();
    let all = granted(1..COMMITS + 1);
    let mut killed = Killed::after(None, &dir.path().join("original"), batches(&all));
    let commits = killed.commits();
    let kept = commits.len() - 101;
    // In a page of the commit after them.
    killed.log[HEADER_BYTES + commits[kept] * FRAME_BYTES - 100] ^= 1;
    killed.write(&path);
    match SqliteBackend::open(&path) {
        Err(JournalError::DamagedLog { commits: 101, what }) => {
            assert!(what.contains("write-ahead log"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    let mut backend = SqliteBackend::open_with(&path, DamagedLog::Discard).unwrap();
    let found = load(&mut backend);
    assert_eq!(found, all[..all.len() - 101]);
    backend.commit(&granted(1000..1001)).unwrap();
    // As after `kill -9`.
    let copy = dir.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(log_path(&path), log_path(&copy)).unwrap();
    let again = load(&mut SqliteBackend::open(&copy).unwrap());
    assert_eq!((&again[..found.len()], again.len()), (&found[..], found.len() + 1));
}

#[test]
fn a_log_without_its_header_or_its_database_is_damage() {
    let (dir, path) = paths();
    let mut killed = Killed::after(None, &dir.path().join("original"), batches(&granted(1..4)));
    let commits = killed.commits().len() as u64;
    let database = std::mem::take(&mut killed.database);
    killed.write(&path);
    assert_eq!(find_damage(&path).unwrap().map(|damage| damage.commits), Some(commits));
    assert!(load(&mut SqliteBackend::open_with(&path, DamagedLog::Discard).unwrap()).is_empty());
    killed.database = database;
    killed.log[..HEADER_BYTES].fill(0);
    killed.write(&path);
    assert_eq!(find_damage(&path).unwrap().map(|damage| damage.commits), Some(commits));
    let _ = load(&mut SqliteBackend::open_with(&path, DamagedLog::Discard).unwrap());
    assert_eq!(find_damage(&path).unwrap(), None, "it was emptied");
}

#[test]
fn remains_of_failed_commits_behind_a_shorter_one_are_no_damage() {
    let (dir, path) = paths();
    let start = Killed::after(None, &dir.path().join("original"), batches(&granted(1..6)));
    let after = |name: &str, leases: i64| {
        let records = granted(10..10 + leases);
        Killed::after(Some(&start), &dir.path().join(name), [&records[..]])
    };
    // Two commits of which none came through, the longer one first, and then one that did.
    let (long, short, done) = (after("long", 3000), after("short", 1000), after("done", 1));
    assert!(long.frames() > short.frames() && short.frames() > done.frames());
    let mut log = long.log;
    log[..short.log.len()].copy_from_slice(&short.log);
    log[..done.log.len()].copy_from_slice(&done.log);
    Killed { database: start.database.clone(), log: log.clone() }.write(&path);
    assert_eq!(find_damage(&path).unwrap(), None);
    assert_eq!(load(&mut SqliteBackend::open(&path).unwrap()).len(), 6);
    // The same, were it not for a byte of what came through before.
    log[HEADER_BYTES + FRAME_BYTES - 1] ^= 1;
    Killed { database: start.database, log }.write(&path);
    assert!(find_damage(&path).unwrap().is_some());
}

#[test]
fn a_torn_frame_with_a_mark_of_an_earlier_generation_is_no_damage() {
    let (dir, path) = paths();
    let killed = Killed::after(None, &dir.path().join("original"), [&granted(1..4)[..], &granted(4..6000)]);
    let last = killed.commits()[killed.commits().len() - 2];
    let straddling = |frame: &usize| (HEADER_BYTES + frame * FRAME_BYTES + 8).is_multiple_of(SECTOR_BYTES);
    let frame = (last + 1..killed.frames() - 1).find(straddling).unwrap();
    let at = HEADER_BYTES + frame * FRAME_BYTES;
    // Its mark is the end of a sector that was not written.
    let mut log = killed.log;
    log[at..at + 8].copy_from_slice(&[0, 0, 0, 7, 0, 0, 0, 9]);
    Killed { database: killed.database, log }.write(&path);
    assert_eq!(find_damage(&path).unwrap(), None);
}

#[test]
fn the_end_of_a_log_may_be_cut_or_torn_anywhere_in_the_last_commit() {
    let (dir, path) = paths();
    let killed = Killed::after(None, &dir.path().join("original"), [&granted(1..4)[..], &granted(4..900)]);
    let commits = killed.commits();
    let last = HEADER_BYTES + commits[commits.len() - 2] * FRAME_BYTES;
    for place in (last..killed.log.len()).step_by(509) {
        let (mut cut, mut torn) = (killed.log.clone(), killed.log.clone());
        cut.truncate(place);
        let end = torn.len().min(place + 512);
        torn[place..end].fill(0);
        for log in [cut, torn] {
            Killed { database: killed.database.clone(), log }.write(&path);
            assert_eq!(find_damage(&path).unwrap(), None, "byte {place}");
        }
    }
    assert!(killed.frames() > commits[commits.len() - 2] + 3);
}
