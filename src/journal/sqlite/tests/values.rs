//! Values in the change log and in their tables.

use super::*;
use crate::journal::sqlite::commit::SWEEP_MIN;
use crate::journal::sqlite::load::load;
use crate::journal::sqlite::*;
use crate::journal::{MemoryBackend, StoredValue};
use crate::value::Kind;

fn id(number: i64) -> FencingToken {
    FencingToken::new(number).unwrap()
}

fn put(number: i64, millis: u64) -> Record {
    let name = LockName::new(1, format!("value {number}").as_bytes()).unwrap();
    let ttl = Ttl::from_millis(millis).ok();
    let deadline = Timestamp::default().after(ttl);
    let stored = StoredValue { id: id(number), token: id(number), name, kind: Kind::Hash, ttl, deadline };
    Record::ValuePut(Box::new(stored))
}

fn element(number: i64, field: &[u8], value: Option<&[u8]>) -> Record {
    Record::Element { id: id(number), field: field.into(), value: value.map(Into::into) }
}

/// A value with one element.
pub(super) fn value(number: i64, field: &[u8]) -> [Record; 2] {
    [put(number, 1), element(number, field, Some(b"x"))]
}

fn open(path: &Path) -> SqliteBackend {
    let mut backend = SqliteBackend::open(path).unwrap();
    backend.load(Some("b"), Timestamp::default(), &mut |_| {}).unwrap();
    backend
}

/// What a restart would find. The index of the change log stays as it is.
fn stored(backend: &mut SqliteBackend) -> Vec<Record> {
    let mut found = Vec::new();
    load(&mut backend.db, Some("b"), Timestamp::default(), &mut |record| found.push(record)).unwrap();
    found
}

fn count(backend: &SqliteBackend, table: &str) -> i64 {
    backend.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn a_restart_finds_the_same_values_at_every_stage_of_compaction() {
    let dir = in_memory();
    let path = dir.path().join("db");
    let mut random = 1u64;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) as usize % bound
    };
    let mut expected = MemoryBackend::default();
    let mut backend = open(&path);
    let (mut live, mut next, mut stages) = (Vec::new(), 1, [0; 3]);
    for step in 0..1_500 {
        backend.log_changes_max = 20;
        let mut batch = Vec::new();
        for _ in 0..below(12) {
            let known = live.get(below(live.len().max(1))).copied();
            match (below(12), known) {
                (0, Some(number)) => {
                    live.retain(|other| *other != number);
                    batch.push(Record::ValueGone(id(number)));
                }
                (1, Some(number)) => batch.push(put(number, 1 + below(1_000) as u64)),
                (2, _) => batch.push(Record::Granted(lease(next + 1, 7))),
                (3, _) => batch.push(Record::Ended(id(1 + below(next as usize) as i64))),
                (4..6, _) | (_, None) if live.len() < 12 => {
                    batch.push(put(next, 1));
                    live.push(next);
                }
                (what, known) => {
                    let Some(number) = known else { continue };
                    let field = [below(9) as u8];
                    batch.push(element(number, &field, (what < 10).then_some(&[step as u8])));
                }
            }
            next += 2;
        }
        backend.commit(&batch).unwrap();
        expected.commit(&batch).unwrap();
        match below(60) {
            0..4 => drop(backend.maintain().unwrap()),
            4 => while backend.maintain().unwrap() {},
            5 | 6 => {
                drop(backend);
                backend = open(&path);
            }
            _ => {}
        }
        let mut all = Vec::new();
        expected.load(Some("b"), Timestamp::default(), &mut |record| all.push(record)).unwrap();
        assert_eq!(stored(&mut backend), all, "step {step}");
        stages[0] += usize::from(count(&backend, "elements") > 0 && !backend.log.is_empty());
        stages[1] += usize::from(!backend.leftovers.is_empty());
        stages[2] += usize::from(rows::position(&backend.db).unwrap().changes > 0);
    }
    assert!(stages.into_iter().all(|steps| steps > 100), "{stages:?}");
    while backend.maintain().unwrap() {}
    assert_eq!((backend.log.changes(), backend.log.bytes()), (0, 0));
    assert_eq!(count(&backend, "keyed_values"), live.len() as i64);
}

#[test]
fn a_value_that_is_gone_before_it_has_moved_never_reaches_its_tables() {
    let dir = in_memory();
    let mut backend = open(&dir.path().join("db"));
    let gone = || Record::ValueGone(id(1));
    backend.commit(&[value(1, b"f").to_vec(), vec![gone()]].concat()).unwrap();
    assert!(backend.log.is_empty(), "created and gone within a batch");
    backend.commit(&value(1, b"f")).unwrap();
    backend.commit(&[element(1, b"g", Some(b"y")), put(1, 9)]).unwrap();
    backend.commit(&[gone()]).unwrap();
    while backend.maintain().unwrap() {}
    assert!(backend.log.is_empty() && backend.leftovers.is_empty());
    assert_eq!(rows::position(&backend.db).unwrap(), Default::default(), "nothing was inserted");
    assert_eq!(stored(&mut backend), []);
}

#[test]
fn elements_that_a_batch_overwrites_are_stored_once_in_their_order() {
    let dir = in_memory();
    let mut backend = open(&dir.path().join("db"));
    backend.commit(&value(1, b"f")).unwrap();
    let before = backend.log.changes();
    let mut batch = vec![element(1, b"g", Some(b"0")), element(1, b"h", Some(b"0"))];
    batch.extend((1..=100).map(|number| element(1, b"g", Some(&[number]))));
    batch.extend([element(1, b"f", None), element(1, b"f", Some(b"1")), element(1, b"f", Some(b"2"))]);
    backend.commit(&batch).unwrap();
    assert_eq!(backend.log.changes() - before, 4, "g, h, the end of f, and the new f");
    let elements: Vec<Record> = stored(&mut backend).split_off(1);
    let last = [(&b"g"[..], &[100][..]), (b"h", b"0"), (b"f", b"2")];
    assert_eq!(elements, last.map(|(field, value)| element(1, field, Some(value))));
}

#[test]
fn a_large_value_is_removed_in_steps_and_never_found_again() {
    let dir = in_memory();
    let path = dir.path().join("db");
    let mut backend = open(&path);
    let elements = 3 * STEP.changes as u32;
    let mut batch = value(1, b"first").to_vec();
    batch.extend((1..elements).map(|number| element(1, &number.to_be_bytes(), Some(b"x"))));
    backend.commit(&batch).unwrap();
    while backend.maintain().unwrap() {}
    let kept = value(2, b"kept");
    backend.commit(&kept).unwrap();
    backend.commit(&[Record::ValueGone(id(1))]).unwrap();
    let mut left = i64::from(elements);
    let check = |backend: &mut SqliteBackend, step_max: usize, left: &mut i64| {
        let now = count(backend, "elements") - 1;
        assert!(*left - now <= step_max as i64, "{left} and then {now} elements");
        *left = now;
        assert_eq!(stored(backend), kept);
    };
    backend.maintain().unwrap();
    check(&mut backend, 0, &mut left);
    backend.maintain().unwrap();
    check(&mut backend, STEP.changes, &mut left);
    for token in 10..13 {
        let before = left;
        backend.commit(&[Record::Granted(lease(token, 7))]).unwrap();
        backend.commit(&[Record::Ended(id(token))]).unwrap();
        check(&mut backend, 2 * (SWEEP_MIN.changes + 1), &mut left);
        assert!(left < before, "commits do a part");
    }
    drop(backend);
    let mut backend = open(&path);
    while backend.maintain().unwrap() {
        check(&mut backend, STEP.changes, &mut left);
    }
    assert_eq!(count(&backend, "elements"), 1);
    assert!(backend.leftovers.is_empty());
}

#[test]
fn a_step_moves_large_elements_up_to_its_budget() {
    let dir = in_memory();
    let mut backend = open(&dir.path().join("db"));
    let large = vec![b'x'; STEP.bytes / 3];
    let mut batch = vec![put(1, 1)];
    batch.extend((0..9u8).map(|field| element(1, &[field], Some(&large))));
    backend.commit(&batch).unwrap();
    let mut steps = Vec::new();
    while backend.maintain().unwrap() {
        steps.push(count(&backend, "elements"));
    }
    assert_eq!(steps, [3, 6]);
    backend.commit(&[Record::ValueGone(id(1))]).unwrap();
    steps.clear();
    while backend.maintain().unwrap() {
        steps.push(count(&backend, "elements"));
    }
    assert_eq!(steps, [9, 6, 3, 0]);
}
