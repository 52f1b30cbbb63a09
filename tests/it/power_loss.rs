//! A power failure while the database is written: each sector that was not synced may be old or
//! new.
//!
//! Checks: a finished commit is recovered; a commit in progress is recovered as a whole or not at
//! all. The test mixes the sectors of real SQLite files from before and after each commit and each
//! maintenance step.

use std::path::{Path, PathBuf};

use octostore::domain::{FencingToken, LockName, Owner, SessionId, Timestamp, Ttl};
use octostore::journal::{
    Backend, MemoryBackend, Record, Renewal, SessionRecord, SqliteBackend, StoredLease, StoredValue,
};
use octostore::lock::{Delay, Lease, LeaseExtra, Request};
use octostore::value::Kind;

use crate::support::random::{Random, setting};

const SECTOR: usize = 512;
const COMMITS: u64 = 60;

struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
}

fn log_of(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

impl Files {
    fn read(path: &Path) -> Files {
        // A missing log counts as an empty one.
        let mut log = std::fs::read(log_of(path)).unwrap_or_default();
        // It is made longer than it is used, to save work later.
        let used = log.chunks_exact(SECTOR).rposition(|sector| *sector != [0; SECTOR]);
        log.truncate(used.map_or(0, |last| (last + 1) * SECTOR));
        Files { database: std::fs::read(path).expect("a database"), log }
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, &self.database).expect("a file");
        std::fs::write(log_of(path), &self.log).expect("a file");
    }

    /// Whether the log was begun anew since: SQLite does that once all of it is in the database,
    /// and synced there.
    fn has_begun_anew_since(&self, before: &Files) -> bool {
        const SALT: std::ops::Range<usize> = 16..24;
        self.log.get(SALT) != before.log.get(SALT)
    }
}

fn tear(before: &[u8], after: &[u8], random: &mut Random) -> Vec<u8> {
    let mut torn = after.to_vec();
    let written = random.below(1001);
    for (index, sector) in torn.chunks_mut(SECTOR).enumerate() {
        let old = before.get(index * SECTOR..).unwrap_or_default();
        let old = &old[..old.len().min(sector.len())];
        if sector[..old.len()] == *old && old.len() == sector.len() {
            continue;
        }
        if !random.permille(written) {
            // A file that grew has zeros where nothing was written.
            sector.fill(0);
            sector[..old.len()].copy_from_slice(old);
        }
    }
    torn
}

/// The log in the middle of a commit. Begun anew, its header is synced before anything is written
/// behind it: or else the first frames of the old log could be read once more, on top of a newer
/// database.
fn tear_log(before: &Files, after: &Files, random: &mut Random) -> Vec<u8> {
    const HEADER: std::ops::Range<usize> = 0..32;
    let mut torn = tear(&before.log, &after.log, random);
    if after.has_begun_anew_since(before) {
        if random.permille(100) {
            return before.log.clone();
        }
        torn[HEADER].copy_from_slice(&after.log[HEADER]);
    }
    torn
}

/// The state that a backend recovers.
fn found(backend: &mut dyn Backend) -> (Vec<Record>, i64) {
    let mut records = Vec::new();
    let mut each = |record: Record| records.push(record);
    let loaded =
        backend.load(Some("boot"), Timestamp::default(), &mut each).expect("a database that can be read");
    records.sort_by_cached_key(|record| match record {
        Record::Session(session) => (0, session.id.0, None),
        Record::Granted(stored) => (1, u128::from(stored.lease.token.get().unsigned_abs()), None),
        Record::DelayStarted(name, _) => (2, 0, Some(name.clone())),
        Record::ScriptPut { .. } => (3, 0, None),
        Record::ValuePut(stored) => (4, u128::from(stored.id.get().unsigned_abs()), None),
        Record::Element { id, .. } => (4, u128::from(id.get().unsigned_abs()), None),
        other => panic!("not a state: {other:?}"),
    });
    (records, loaded.tokens_reserved)
}

/// Describes the difference of two states.
fn differences(found: &(Vec<Record>, i64), expected: &(Vec<Record>, i64)) -> String {
    let only_in = |these: &(Vec<Record>, i64), those: &(Vec<Record>, i64)| {
        let own = these.0.iter().filter(|record| !those.0.contains(record));
        own.map(|record| format!("{record:?}").replace("xx", "")).collect::<Vec<_>>()
    };
    let tokens = (found.1, expected.1);
    format!(
        "found {:#?}, expected {:#?}, tokens {tokens:?}",
        only_in(found, expected),
        only_in(expected, found)
    )
}

/// What a batch may be about.
#[derive(Default)]
struct Live {
    held: Vec<FencingToken>,
    values: Vec<FencingToken>,
    last_token: i64,
}

impl Live {
    fn take_token(&mut self) -> FencingToken {
        self.last_token += 1;
        FencingToken::new(self.last_token).expect("a token")
    }
}

fn batch(random: &mut Random, live: &mut Live) -> Vec<Record> {
    let mut records = Vec::new();
    for _ in 0..1 + random.below(12) {
        let name = LockName::new(0, format!("key {}", random.below(50)).as_bytes()).expect("a name");
        let millis = Ttl::from_millis(1 + random.below(1_000_000)).expect("a TTL");
        let deadline = Timestamp::default().after(Some(millis));
        match random.below(20) {
            0..3 => {
                let token = live.take_token();
                let meta = "x".repeat(random.below(60_000) as usize);
                let owner = Owner::new(b"owner").expect("an owner");
                let extra = LeaseExtra { meta: Some(meta.into()), ..LeaseExtra::default() };
                let request = Request::exclusive(owner, Some(millis)).with(extra);
                let lease = Lease::grant(&request, token, Timestamp::default());
                records.push(Record::Granted(StoredLease { name, lease }));
                live.held.push(token);
            }
            3..5 if !live.held.is_empty() => {
                let token = random.of(&live.held);
                records.push(Record::Renewed(Renewal {
                    token,
                    deadline,
                    effective_ttl: Some(millis),
                    renewals: 1,
                }));
            }
            5..8 if !live.held.is_empty() => {
                let token = live.held.swap_remove(random.below(live.held.len() as u64) as usize);
                records.push(Record::Ended(token));
            }
            8 => records.push(Record::DelayStarted(name, Delay { until: deadline, length: millis })),
            9 => {
                let id = SessionId(u128::from(random.below(5)));
                let (name, account) = ("a session".to_owned(), None);
                let session = SessionRecord { id, name, account, ttl: Some(millis), deadline };
                records.push(Record::Session(session));
            }
            10 => records.push(Record::TokensReserved(live.last_token + 100)),
            _ => records.extend(value_changes(random, live, name)),
        }
    }
    records
}

/// Changes of one value, or a script.
fn value_changes(random: &mut Random, live: &mut Live, name: LockName) -> Vec<Record> {
    let bytes = |random: &mut Random, max| vec![random.below(256) as u8; random.below(max) as usize].into();
    // New, or renamed with another TTL.
    let put = |random: &mut Random, id: FencingToken, token| {
        let ttl = Ttl::from_millis(random.below(1_000_000)).ok();
        let kinds = [Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List];
        let kind = kinds[id.get().unsigned_abs() as usize % kinds.len()];
        let deadline = Timestamp::default().after(ttl);
        vec![Record::ValuePut(Box::new(StoredValue { id, token, name, kind, ttl, deadline }))]
    };
    match random.below(10) {
        0 => {
            let body = bytes(random, 3_000);
            vec![Record::ScriptPut { sha: [random.below(4) as u8; 20], body }]
        }
        1 => vec![Record::ScriptGone { sha: [random.below(4) as u8; 20] }],
        2 if !live.values.is_empty() => {
            let id = live.values.swap_remove(random.below(live.values.len() as u64) as usize);
            vec![Record::ValueGone(id)]
        }
        3 if !live.values.is_empty() => {
            let id = random.of(&live.values);
            put(random, id, live.take_token())
        }
        4.. if !live.values.is_empty() => {
            let id = random.of(&live.values);
            let field = |random: &mut Random| Box::new([random.below(20) as u8]);
            let change = |random: &mut Random| Record::Element {
                id,
                field: field(random),
                value: random.permille(700).then(|| bytes(random, 6_000)),
            };
            (0..1 + random.below(6)).map(|_| change(random)).collect()
        }
        _ => {
            let id = live.take_token();
            live.values.push(id);
            put(random, id, id)
        }
    }
}

#[test]
fn a_torn_write_loses_nothing_that_was_committed() {
    let seed = setting("OCTOSTORE_TEST_SEED").unwrap_or(1);
    let commits = setting("OCTOSTORE_TEST_COMMITS").unwrap_or(COMMITS);
    let mut random = Random::new(seed);
    let memory = Path::new("/dev/shm");
    let dir =
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
    let path = dir.path().join("octostore.db");
    let mut backend = SqliteBackend::open(&path).expect("a database");
    let mut expected = MemoryBackend::default();
    found(&mut backend);
    let (mut live, mut kept_early, mut kept_late) = (Live::default(), 0, 0);
    let mut synced_last = Files::read(&path).database;
    for commit in 0..commits {
        let before = Files::read(&path);
        let state_before = found(&mut expected);
        // Maintenance does not change what is recovered.
        let is_housekeeping = random.permille(200);
        if is_housekeeping {
            backend.maintain().expect("housekeeping");
        } else {
            let batch = batch(&mut random, &mut live);
            expected.commit(&batch).expect("memory");
            backend.commit(&batch).expect("a commit");
        }
        let after = Files::read(&path);
        // The database is written by a thread of its own, at any time; until the log is begun anew
        // none of that is synced.
        let synced = if after.has_begun_anew_since(&before) { after.database.clone() } else { synced_last };
        let written = if after.has_begun_anew_since(&before) { &after.database } else { &before.database };
        let state_after = found(&mut expected);
        for copy_number in 0..3 {
            let copy = tempfile::tempdir_in(dir.path()).expect("a folder");
            let copied = copy.path().join("octostore.db");
            let database = tear(&synced, written, &mut random);
            Files { database, log: tear_log(&before, &after, &mut random) }.write(&copied);
            let state = found(&mut SqliteBackend::open(&copied).expect("a database that can be opened"));
            let is_whole = state == state_after || state == state_before;
            assert!(
                is_whole,
                "seed {seed}, commit {commit}, copy {copy_number}\nagainst the state before: {}\nand after: {}",
                differences(&state, &state_before),
                differences(&state, &state_after)
            );
            kept_early += u32::from(state == state_before);
            kept_late += u32::from(state == state_after);
        }
        synced_last = synced;
    }
    println!(
        "{commits} commits torn, seed {seed}: {kept_early} copies without the last one, {kept_late} with it"
    );
    assert!(kept_early > 0 && kept_late > 0, "both must happen: {kept_early}, {kept_late}");
}
