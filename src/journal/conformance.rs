//! What every backend must do, checked with each of them.

use super::*;
use crate::domain::{FencingToken, KEY_BYTES_MAX, LockName, Owner, SessionId, TTL_MS_MAX, Timestamp, Ttl};
use crate::lock::{Delay, Lease, LeaseExtra, Mode, Origin};
use crate::value::Kind;

const BOOT: Option<&str> = Some("boot-1");

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

fn name(key: &str) -> LockName {
    LockName::new(3, key.as_bytes()).unwrap()
}

fn ttl(millis: u64) -> Option<Ttl> {
    Some(Ttl::from_millis(millis).unwrap())
}

fn lease(key: &str, token: i64) -> StoredLease {
    let lease = Lease {
        owner: Owner::new(b"\0binary\xff").unwrap(),
        token: FencingToken::new(token).unwrap(),
        mode: Mode::Exclusive,
        ttl: ttl(30_000),
        deadline: ms(31_000),
        effective_ttl: ttl(30_000),
        granted_at: ms(1_000),
        renewals: 0,
        origin: None,
        is_unacknowledged: false,
        extra: None,
    };
    StoredLease { name: name(key), lease }
}

fn full_lease(token: i64) -> StoredLease {
    let mut stored = lease("full", token);
    stored.lease.mode = Mode::limit(7).unwrap();
    stored.lease.renewals = 4;
    stored.lease.origin =
        Some(std::sync::Arc::new(Origin { addr: "127.0.0.1:9".into(), client_name: "worker".into() }));
    stored.lease.extra = Some(Box::new(LeaseExtra {
        max_hold: ttl(20_000),
        delay: ttl(5),
        delays_after_release: true,
        session: Some(SessionId(u128::MAX - 1)),
        counted_by: Some(SessionId(3)),
        account: Some("alice".into()),
        meta: Some("nightly job".into()),
    }));
    stored
}

fn session(id: u128) -> SessionRecord {
    let account = (id % 2 == 1).then(|| "alice".into());
    SessionRecord { id: SessionId(id), name: "w".into(), account, ttl: ttl(10_000), deadline: ms(9_000) }
}

fn token(number: i64) -> FencingToken {
    FencingToken::new(number).unwrap()
}

fn value(id: i64, kind: Kind, millis: Option<u64>) -> Box<StoredValue> {
    let ttl = millis.map(|millis| Ttl::from_millis(millis).unwrap());
    let name = LockName::new(2, format!("value {id}\0\u{fffd}").as_bytes()).unwrap();
    Box::new(StoredValue { id: token(id), token: token(id), name, kind, ttl, deadline: ms(1_000).after(ttl) })
}

fn element(id: i64, field: impl AsRef<[u8]>, value: Option<&[u8]>) -> Record {
    Record::Element { id: token(id), field: field.as_ref().into(), value: value.map(Into::into) }
}

/// One value of each kind, each followed by its elements.
fn values() -> Vec<Record> {
    let all: Vec<u8> = (0..=255).collect();
    vec![
        Record::ValuePut(value(11, Kind::Hash, None)),
        element(11, "z", Some(b"1")),
        element(11, "a", Some(&all)),
        element(11, &all, Some(b"")),
        element(11, "", Some(b"\"\\")),
        Record::ValuePut(value(12, Kind::Set, Some(5_000))),
        element(12, "member", Some(b"")),
        Record::ValuePut(value(13, Kind::SortedSet, Some(7_000))),
        element(13, b"\0", Some(&1.5f64.to_bits().to_be_bytes())),
        Record::ValuePut(value(14, Kind::List, None)),
        element(14, (1u64 << 63).to_be_bytes(), Some(b"item")),
    ]
}

fn script(number: u8, body: &str) -> Record {
    Record::ScriptPut { sha: [number; 20], body: body.as_bytes().into() }
}

fn state(backend: &mut dyn Backend, boot: Option<&str>, now: Timestamp) -> (Vec<Record>, Loaded) {
    let mut records = Vec::new();
    let loaded = backend.load(boot, now, &mut |record| records.push(record)).unwrap();
    (records, loaded)
}

/// Runs `check` with every backend; its second argument restarts the backend.
fn every_backend(check: impl Fn(&mut Box<dyn Backend>, &dyn Fn(Box<dyn Backend>) -> Box<dyn Backend>)) {
    let mut memory: Box<dyn Backend> = Box::new(MemoryBackend::default());
    check(&mut memory, &|backend| backend);
    let mut faulty: Box<dyn Backend> =
        Box::new(FaultyBackend::new(MemoryBackend::default(), Default::default()));
    check(&mut faulty, &|backend| backend);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("octostore.db");
    let open = || -> Box<dyn Backend> { Box::new(SqliteBackend::open(&path).unwrap()) };
    check(&mut open(), &|backend| {
        drop(backend);
        open()
    });
    #[cfg(feature = "etcd")]
    etcd::tests::every_store(&check);
}

#[test]
fn load_returns_every_field_of_committed_records() {
    every_backend(|backend, reopen| {
        let delay = Delay { until: ms(77), length: Ttl::from_millis(50).unwrap() };
        let mut all = vec![
            Record::Session(session(5)),
            Record::DelayStarted(name("resting"), delay),
            Record::Granted(lease("plain", 1)),
            Record::Granted(full_lease(2)),
            script(0xf0, "return \0"),
            script(0x0f, ""),
        ];
        all.extend(values());
        let secret = state(backend.as_mut(), BOOT, ms(0)).1.secret;
        assert_ne!(secret, [0; 32]);
        backend.commit(&all).unwrap();
        backend.commit(&[Record::TokensReserved(4096)]).unwrap();
        backend.maintain().unwrap();
        let taken = std::mem::replace(backend, Box::new(MemoryBackend::default()));
        *backend = reopen(taken);
        let expected = (all, Loaded { tokens_reserved: 4096, rebooted: false, secret });
        assert_eq!(state(backend.as_mut(), BOOT, ms(500)), expected);
        assert_eq!(state(backend.as_mut(), BOOT, ms(600)), expected, "a second load finds the same");
    });
}

#[test]
fn an_empty_commit_succeeds_and_changes_nothing() {
    every_backend(|backend, _| {
        state(backend.as_mut(), BOOT, ms(0));
        backend.commit(&[Record::Granted(lease("k", 1)), Record::TokensReserved(5)]).unwrap();
        let before = state(backend.as_mut(), BOOT, ms(0));
        backend.commit(&[]).unwrap();
        assert_eq!(backend.try_commit(&[]), Ok(Attempt::Committed));
        let after = state(backend.as_mut(), BOOT, ms(0));
        assert_eq!(after.0, before.0);
        assert_eq!(after.1.tokens_reserved, 5);
    });
}

#[test]
fn traits_are_constant() {
    every_backend(|backend, _| {
        let traits = backend.traits();
        state(backend.as_mut(), BOOT, ms(0));
        backend.commit(&[Record::Granted(lease("k", 1))]).unwrap();
        assert_eq!(backend.traits(), traits);
    });
}

#[test]
fn the_last_state_wins_within_and_across_batches() {
    every_backend(|backend, _| {
        let renewed = |token, deadline, renewals| {
            let token = FencingToken::new(token).unwrap();
            Record::Renewed(Renewal { token, deadline: ms(deadline), effective_ttl: ttl(deadline), renewals })
        };
        let ended = |token| Record::Ended(FencingToken::new(token).unwrap());
        state(backend.as_mut(), BOOT, ms(0));
        backend
            .commit(&[
                Record::Granted(lease("k", 1)),
                Record::Granted(lease("k", 2)),
                renewed(2, 40_000, 1),
                ended(1),
                Record::Granted(lease("k", 3)),
                Record::Session(session(1)),
                Record::SessionEnded(SessionId(1)),
                Record::TokensReserved(20),
                Record::TokensReserved(10),
            ])
            .unwrap();
        backend.commit(&[ended(3), ended(9), renewed(2, 50_000, 2)]).unwrap();
        let (records, loaded) = state(backend.as_mut(), BOOT, ms(0));
        let mut second = lease("k", 2);
        (second.lease.deadline, second.lease.effective_ttl, second.lease.renewals) =
            (ms(50_000), ttl(50_000), 2);
        assert_eq!(records, vec![Record::Granted(second)]);
        assert_eq!(loaded.tokens_reserved, 20, "the mark never goes back");
    });
}

#[test]
fn a_reboot_gives_every_deadline_its_full_length_again_and_only_once() {
    every_backend(|backend, _| {
        let mut endless = lease("endless", 3);
        (endless.lease.ttl, endless.lease.effective_ttl, endless.lease.deadline) =
            (None, None, Timestamp::NEVER);
        // What was granted for 30 s and then renewed for 90 s, or without an end, and the reverse.
        let renewed = |token, effective_ttl: Option<Ttl>| {
            let token = FencingToken::new(token).unwrap();
            let deadline = ms(2_000).after(effective_ttl);
            Record::Renewed(Renewal { token, deadline, effective_ttl, renewals: 1 })
        };
        let mut ended = endless.clone();
        ended.lease.token = FencingToken::new(6).unwrap();
        let delay = Delay { until: ms(900_000), length: Ttl::from_millis(50).unwrap() };
        state(backend.as_mut(), BOOT, ms(0));
        backend
            .commit(&[
                Record::Session(session(5)),
                Record::DelayStarted(name("resting"), delay),
                Record::Granted(lease("plain", 1)),
                Record::Granted(full_lease(2)),
                Record::Granted(endless),
                Record::Granted(lease("longer", 4)),
                Record::Granted(lease("for ever", 5)),
                Record::Granted(ended),
            ])
            .unwrap();
        backend.commit(&[renewed(4, ttl(90_000)), renewed(5, None), renewed(6, ttl(70_000))]).unwrap();
        for (now, rebooted) in [(10, true), (20, false)] {
            let (records, loaded) = state(backend.as_mut(), Some("boot-2"), ms(now));
            assert_eq!(loaded.rebooted, rebooted);
            let deadlines: Vec<_> = records
                .iter()
                .map(|record| match record {
                    Record::Session(session) => session.deadline,
                    Record::DelayStarted(_, delay) => delay.until,
                    Record::Granted(stored) => stored.lease.deadline,
                    other => panic!("not a state: {other:?}"),
                })
                .collect();
            let never = Timestamp::NEVER;
            let granted = [ms(30_010), ms(20_010), never, ms(90_010), never, ms(70_010)];
            assert_eq!(deadlines[..2], [ms(10_010), ms(60)]);
            assert_eq!(deadlines[2..], granted);
        }
        assert!(state(backend.as_mut(), None, ms(0)).1.rebooted, "an unknown boot is another boot");
    });
}

/// Puts values and elements, overwrites, removes and renames them: in one batch if `batch_max` is
/// large enough, else in several.
fn change_values(backend: &mut dyn Backend, batch_max: usize, between: impl Fn(&mut dyn Backend)) {
    let mut renamed = value(11, Kind::Hash, Some(9_000));
    (renamed.token, renamed.name) = (token(21), name("renamed"));
    let mut changes = values();
    changes.extend([
        element(11, "b", Some(b"2")),
        element(11, "z", Some(b"overwritten")),
        element(11, "a", None),
        Record::ValuePut(renamed),
        element(11, "c", Some(b"3")),
        element(11, "a", Some(b"again")),
        Record::ValueGone(token(12)),
        element(13, b"\0", None),
        element(13, b"\0", None),
        element(13, b"other", Some(b"score")),
        Record::ValuePut(value(15, Kind::Set, None)),
        element(15, "m", Some(b"")),
        Record::ValueGone(token(15)),
        Record::ValueGone(token(16)),
        script(1, "one"),
        script(2, "two"),
        script(3, "three"),
        script(1, "one"),
        Record::ScriptGone { sha: [2; 20] },
        Record::ScriptGone { sha: [9; 20] },
    ]);
    for batch in changes.chunks(batch_max) {
        backend.commit(batch).unwrap();
        between(backend);
    }
}

fn changed_values() -> Vec<Record> {
    let all: Vec<u8> = (0..=255).collect();
    let mut renamed = value(11, Kind::Hash, Some(9_000));
    (renamed.token, renamed.name) = (token(21), name("renamed"));
    vec![
        script(3, "three"),
        script(1, "one"),
        Record::ValuePut(renamed),
        element(11, "z", Some(b"overwritten")),
        element(11, &all, Some(b"")),
        element(11, "", Some(b"\"\\")),
        element(11, "b", Some(b"2")),
        element(11, "c", Some(b"3")),
        element(11, "a", Some(b"again")),
        Record::ValuePut(value(13, Kind::SortedSet, Some(7_000))),
        element(13, b"other", Some(b"score")),
        Record::ValuePut(value(14, Kind::List, None)),
        element(14, (1u64 << 63).to_be_bytes(), Some(b"item")),
    ]
}

#[test]
fn values_keep_their_elements_in_the_order_in_which_they_were_added() {
    for (batch_max, is_maintained) in
        [(1, false), (1, true), (3, false), (3, true), (100, false), (100, true)]
    {
        every_backend(|backend, reopen| {
            state(backend.as_mut(), BOOT, ms(0));
            change_values(backend.as_mut(), batch_max, |backend| {
                if is_maintained {
                    backend.maintain().unwrap();
                }
            });
            for _ in 0..2 {
                assert_eq!(
                    state(backend.as_mut(), BOOT, ms(0)).0,
                    changed_values(),
                    "{batch_max} {is_maintained}"
                );
                let taken = std::mem::replace(backend, Box::new(MemoryBackend::default()));
                *backend = reopen(taken);
            }
            // Applied twice, the last batch has the effect of one.
            state(backend.as_mut(), BOOT, ms(0));
            backend.commit(&[element(11, "a", Some(b"again")), Record::ValueGone(token(12))]).unwrap();
            assert_eq!(state(backend.as_mut(), BOOT, ms(0)).0, changed_values());
        });
    }
}

#[test]
fn a_reboot_gives_values_their_full_ttl_again() {
    for is_maintained in [false, true] {
        every_backend(|backend, _| {
            state(backend.as_mut(), BOOT, ms(0));
            change_values(backend.as_mut(), 4, |_| {});
            while is_maintained && backend.maintain().unwrap() {}
            let expected: Vec<_> = changed_values()
                .into_iter()
                .map(|mut record| {
                    if let Record::ValuePut(stored) = &mut record {
                        stored.deadline = ms(50).after(stored.ttl);
                    }
                    record
                })
                .collect();
            for now in [50, 60] {
                assert_eq!(state(backend.as_mut(), Some("boot-2"), ms(now)).0, expected);
            }
        });
    }
}

#[test]
fn the_longest_ttls_and_the_longest_and_shortest_texts_are_stored() {
    let longest = Ttl::from_millis(TTL_MS_MAX).ok();
    let binary: Vec<u8> = (0..=255).cycle().take(1 << 17).collect();
    let mut stored = lease("", 1);
    stored.lease.owner = Owner::new(&binary).unwrap();
    (stored.lease.ttl, stored.lease.effective_ttl) = (longest, longest);
    stored.lease.restart(ms(2_000));
    let mut empty = lease("long", 2);
    empty.name = LockName::new(15, &vec![0xff; KEY_BYTES_MAX]).unwrap();
    empty.lease.owner = Owner::new(b"").unwrap();
    let mut value = value(3, Kind::Hash, Some(TTL_MS_MAX));
    value.name = LockName::new(0, b"").unwrap();
    let mut all = vec![
        Record::Session(SessionRecord { ttl: longest, deadline: Timestamp::LAST, ..session(1) }),
        Record::DelayStarted(name(""), Delay { until: Timestamp::LAST, length: longest.unwrap() }),
        Record::Granted(stored),
        Record::Granted(empty),
        Record::ValuePut(value),
        element(3, &binary, Some(&binary)),
    ];
    every_backend(|backend, reopen| {
        state(backend.as_mut(), BOOT, ms(0));
        backend.commit(&all).unwrap();
        for _ in 0..2 {
            let taken = std::mem::replace(backend, Box::new(MemoryBackend::default()));
            *backend = reopen(taken);
            assert!(state(backend.as_mut(), BOOT, ms(0)).0 == all);
            while backend.maintain().unwrap() {}
        }
    });
    for record in &mut all {
        if let Record::Granted(stored) = record {
            stored.lease.restart(ms(5_000));
        }
    }
    every_backend(|backend, _| {
        state(backend.as_mut(), BOOT, ms(0));
        backend.commit(&all).unwrap();
        assert!(state(backend.as_mut(), Some("boot-2"), ms(5_000)).0 == all, "as long as before");
    });
}

#[test]
fn foreign_damaged_and_newer_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    std::fs::write(&path, b"this is not a database, but it is long enough to look at closely").unwrap();
    assert_eq!(SqliteBackend::open(&path).unwrap_err(), JournalError::Foreign);

    let other = dir.path().join("other");
    sqlite::run_sql(&other, "CREATE TABLE someone_elses (x)");
    assert_eq!(SqliteBackend::open(&other).unwrap_err(), JournalError::Foreign);

    let newer = dir.path().join("newer");
    drop(SqliteBackend::open(&newer).unwrap());
    sqlite::run_sql(&newer, "PRAGMA user_version = 99");
    assert_eq!(SqliteBackend::open(&newer).unwrap_err(), JournalError::Newer { found: 99, known: 3 });

    let missing = dir.path().join("no/such/dir/db");
    assert!(matches!(SqliteBackend::open(&missing), Err(JournalError::Path { .. })));
}

#[test]
fn invalid_rows_are_corruption_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    for (column, value) in [
        ("token", "-1"),
        ("db", "99"),
        ("holders_max", "0"),
        ("ttl_ms", "-5"),
        ("extra", "'7'"),
        ("extra", "'{\"max_hold_ms\":0}'"),
        ("extra", "'{\"unknown\":1}'"),
    ] {
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(BOOT, ms(0), &mut |_| {}).unwrap();
        backend.commit(&[Record::Granted(lease("k", 1))]).unwrap();
        while backend.maintain().unwrap() {}
        sqlite::run_sql(&path, &format!("UPDATE held SET {column} = {value}"));
        let result = backend.load(BOOT, ms(0), &mut |_| {});
        assert!(matches!(result, Err(JournalError::Corrupt { .. })), "{column}: {result:?}");
        sqlite::run_sql(&path, "DELETE FROM held");
    }
    for text in [
        "",
        "nonsense",
        "{}",
        "[[1]]",
        "[null]",
        "[[1,1,[300],\"me\",5,7]]",
        "[-1.5]",
        "[-1]",
        "[[9,1]]",
        "[[2,1,9,9]]",
        "[[2,1,9,9,1,1]]",
    ] {
        let mut backend = SqliteBackend::open(&path).unwrap();
        backend.load(BOOT, ms(0), &mut |_| {}).unwrap();
        sqlite::run_sql(&path, &format!("INSERT INTO changes VALUES (1, '{text}')"));
        let result = backend.load(BOOT, ms(0), &mut |_| {});
        assert!(matches!(result, Err(JournalError::Corrupt { .. })), "{text}: {result:?}");
        sqlite::run_sql(&path, "DELETE FROM changes");
    }
}
