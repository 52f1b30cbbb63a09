//! Long work with large values, without the guard of their keys.
//!
//! Guarantees: a long edit works on a copy of the value. It is one change of the value that it
//! began with: if the key holds another one at its end, it was not made, and the request is
//! executed again. Readers of the key see the value as it was meanwhile. While long work holds a
//! value, other edits are put off, so it is rarely done in vain; they go first when it ends. A copy
//! counts toward the limit of all values. An exclusive transaction edits in place: it has the table
//! alone. Not here: what is recorded, the order of those who were put off.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::draft::edited;
use super::{KeyWork, Making};
use crate::domain::LockName;
use crate::engine::keyspace::{Content, Entry, KeyedValue};
use crate::engine::{Core, ELEMENTS_AT_ONCE_MAX, SharedTxn, Txn, Unavailable, run_long};
use crate::value::{Edit, Kind, Value};

/// Elements that may be copied for each one that an edit visits.
const COPIED_PER_VISIT_MAX: usize = 64;

/// A value that long work uses. Until it is dropped, other edits of the value are put off.
pub struct HeldValue<'a> {
    /// Shows others that the value is held: [`is_held`].
    _mark: Weak<Value>,
    value: Arc<Value>,
    /// Dropped last.
    _release: Release<'a>,
}

/// Lets those go on who were put off.
struct Release<'a>(&'a Core);

/// The values that are held.
#[derive(Debug, Default)]
pub(in crate::engine) struct Holds {
    /// Keys whose elements could not be given to those who wait for them.
    unserved: Mutex<HashSet<LockName>>,
}

/// How far an edit came under the guard of the key.
pub(super) enum Progress<'a, R, F> {
    /// It is done.
    Done(R),
    /// It takes long, and has not begun.
    Apart(HeldValue<'a>, F),
}

/// Whether long work uses the value.
fn is_held(keyed: &KeyedValue) -> bool {
    Arc::weak_count(&keyed.value) > 0
}

/// Whether an edit would first copy a large value, for those who read it as it is now.
fn is_costly_to_edit(keyed: &KeyedValue) -> bool {
    keyed.value.len() > ELEMENTS_AT_ONCE_MAX && Arc::strong_count(&keyed.value) > 1
}

/// Whether [`Txn::prepare_edit`] has nothing to do.
pub(in crate::engine) fn is_ready_for_edits(entry: &Entry) -> bool {
    entry.value().is_none_or(|keyed| !is_held(keyed) && !is_costly_to_edit(keyed))
}

impl Holds {
    /// Notes that a key is to be served when a value is released. It need not be the key that the
    /// value had when it was held.
    pub(in crate::engine) fn serve_later(&self, name: &LockName) {
        self.unserved.lock().insert(name.clone());
    }
}

impl Deref for HeldValue<'_> {
    type Target = Arc<Value>;
    fn deref(&self) -> &Arc<Value> {
        &self.value
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        let Core { holds, pops, line, .. } = self.0;
        let unserved = std::mem::take(&mut *holds.unserved.lock());
        for name in &unserved {
            pops.signal(name, Kind::List);
            pops.signal(name, Kind::SortedSet);
        }
        line.advance();
    }
}

impl<'a> Txn<'a> {
    /// Puts the request off while long work uses the value. Call it under the guard of the key.
    fn check_free(&self, keyed: &KeyedValue) -> Result<(), Unavailable> {
        if is_held(keyed) { self.wait_in_line(false, || !is_held(keyed)) } else { Ok(()) }
    }

    /// Holds a value, or puts the request off until its turn. Call it under the guard of the key.
    fn hold(&self, keyed: &KeyedValue) -> Result<HeldValue<'a>, Unavailable> {
        self.wait_in_line(true, || !is_held(keyed))?;
        Ok(self.hold_now(keyed))
    }

    /// Holds a value that is not held.
    fn hold_now(&self, keyed: &KeyedValue) -> HeldValue<'a> {
        let core: &'a Core = &self.engine().core;
        HeldValue {
            _mark: Arc::downgrade(&keyed.value),
            value: Arc::clone(&keyed.value),
            _release: Release(core),
        }
    }

    /// Counts a value of about this many bytes toward the limit while it is made. Fails at the limit.
    pub fn make_value(&self, bytes: usize) -> Result<Making<'a>, Unavailable> {
        self.engine().check_room(None).map_err(|why| self.refuse(why))?;
        Ok(self.engine().core.value_stats.making(bytes as u64))
    }

    /// Edits the value of a key under its guard, unless that takes long. `visits` returns how many
    /// elements the edit visits.
    pub(super) fn begin_edit<R, F: FnOnce(&mut Edit<'_>) -> R>(
        &self,
        key: &mut KeyWork<'_, '_>,
        kind: Kind,
        visits: impl FnOnce(&Value) -> usize,
        edit: F,
    ) -> Result<Progress<'a, R, F>, Unavailable> {
        if let Content::Value(keyed) = key.content()
            && keyed.value.kind() == kind
        {
            let elements = keyed.value.len();
            // A copy must not cost very much more than the edit itself.
            let visits_min = ELEMENTS_AT_ONCE_MAX.max(elements / COPIED_PER_VISIT_MAX);
            let is_long = elements > ELEMENTS_AT_ONCE_MAX && visits(&keyed.value) > visits_min;
            if self.is_exclusive() {
                if is_long {
                    return run_long(|| key.edit(kind, edit)).map(Progress::Done);
                }
            } else {
                self.check_free(keyed)?;
                if is_long {
                    self.begin_long_work()?;
                }
                // There are not more copies for readers than there are readers who work long.
                if is_long || is_costly_to_edit(keyed) {
                    return Ok(Progress::Apart(self.hold(keyed)?, edit));
                }
            }
        }
        key.edit(kind, edit).map(Progress::Done)
    }

    /// Goes on with an edit that takes long.
    pub(super) fn finish_edit<R, F: FnOnce(&mut Edit<'_>) -> R>(
        &self,
        name: &LockName,
        progress: Progress<'_, R, F>,
    ) -> Result<R, Unavailable> {
        let (original, edit) = match progress {
            Progress::Done(result) => return Ok(result),
            Progress::Apart(original, edit) => (original, edit),
        };
        // What adds nothing is not refused at the limit, but what adds is, as long as this takes.
        let _making = self.engine().core.value_stats.making(original.bytes() as u64);
        run_long(move || {
            let mut copy = Value::clone(&original);
            let (result, elements) = edited(&mut copy, edit);
            // All that takes long to free outlives the guard.
            let mut copy = Some((copy, elements));
            let replaced = self.work_on_key(name, |key| key.replace_edited(&original, &mut copy));
            if replaced == Err(Unavailable::Unsettled) {
                self.worked_in_vain();
            }
            replaced.map(|()| result)
        })
    }

    /// Makes sure that an edit of a large value does not copy it under the guard because others
    /// read it: gives the key a copy. Reads may begin at any time, so this is no promise.
    ///
    /// For a request of which this is no part. Fails with [`Unavailable::Unsettled`] while other
    /// long work holds the value.
    pub(in crate::engine) fn prepare_edit(&self, name: &LockName) -> Result<(), Unavailable> {
        let is_costly = |keyed: &KeyedValue| is_costly_to_edit(keyed) && !self.must_work_alone();
        self.before_request(|| {
            self.prepare(name, |keyed| {
                self.check_free(keyed)?;
                if is_costly(keyed) { self.hold(keyed).map(Some) } else { Ok(None) }
            })
        })
    }

    /// [`Txn::prepare_edit`] for those who wait for elements, and not in line. Returns whether the
    /// value can be edited.
    pub(in crate::engine) fn prepare_serving(&self, name: &LockName) -> Result<bool, Unavailable> {
        let mut is_free = true;
        self.before_request(|| {
            self.prepare(name, |keyed| {
                is_free = !is_held(keyed);
                Ok((is_free && is_costly_to_edit(keyed)).then(|| self.hold_now(keyed)))
            })
        })?;
        Ok(is_free)
    }

    /// Gives the key a copy of the value that `hold` holds.
    fn prepare(
        &self,
        name: &LockName,
        mut hold: impl FnMut(&KeyedValue) -> Result<Option<HeldValue<'a>>, Unavailable>,
    ) -> Result<(), Unavailable> {
        let mut held = Ok(None);
        self.peek(name, |entry| {
            if let Some(keyed) = entry.and_then(Entry::value) {
                held = hold(keyed);
            }
        })?;
        match held? {
            Some(original) => self.finish_edit(name, Progress::Apart(original, |_: &mut Edit<'_>| ())),
            None => Ok(()),
        }
    }
}

impl<'a> SharedTxn<'a> {
    /// The value of a key, to prepare a request of which this is no part: `None` for all that is no
    /// value, and no miss is announced.
    pub fn share_before(&self, name: &LockName) -> Result<Option<Arc<Value>>, Unavailable> {
        let share = |key: &mut KeyWork<'_, '_>| Ok(key.content().shared_value().map(Arc::clone));
        self.before_request(|| self.work_on_key(name, share))
    }

    /// Whether a key exists, to prepare a request of which this is no part.
    pub(super) fn exists_before(&self, name: &LockName) -> Result<bool, Unavailable> {
        self.before_request(|| self.work_on_key(name, |key| Ok(key.content().exists())))
    }

    /// [`SharedTxn::share_before`] for long work, whose result is used if the key still holds the
    /// value then. Fails with [`Unavailable::Unsettled`] while other long work holds it.
    pub fn hold_value(&self, name: &LockName) -> Result<Option<HeldValue<'a>>, Unavailable> {
        self.work_on_key(name, |key| match key.content() {
            Content::Value(keyed) => {
                self.begin_long_work()?;
                self.hold(keyed).map(Some)
            }
            Content::Lock(_) => Ok(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::super::tests::{memory, memory_of, name, on_disk};
    use super::*;
    use crate::clock::Clock;
    use crate::domain::Timestamp;
    use crate::engine::line::tests::is_next;
    use crate::engine::{Engine, PopAction, PopRequest, Popping, PutOff, Renamed, SharedTxn};
    use crate::lock::Op;
    use crate::value::End;

    const ITEMS: usize = ELEMENTS_AT_ONCE_MAX + 100;

    /// The item that is taken out.
    type Taken = Option<Box<[u8]>>;

    fn fill(txn: &Txn<'_>) {
        let push_all = |edit: &mut Edit<'_>| {
            let mut list = edit.list().unwrap();
            (0..ITEMS).for_each(|n| list.push_back(n.to_string().as_bytes()));
        };
        txn.value(&name("k"), Kind::List, push_all).unwrap();
    }

    fn pop(edit: &mut Edit<'_>) -> Taken {
        edit.list().unwrap().pop_front()
    }

    /// An edit that visits all items.
    fn long_edit(
        txn: &Txn<'_>,
        edit: impl FnOnce(&mut Edit<'_>) -> Taken,
    ) -> Result<Option<Taken>, Unavailable> {
        txn.existing_value_of_many(&name("k"), Kind::List, Value::len, edit)
    }

    fn len(txn: &Txn<'_>) -> usize {
        txn.read_value(&name("k"), Kind::List, |value| value.map_or(0, Value::len)).unwrap()
    }

    /// Runs `work` on another thread, which must not have to wait for this one.
    fn beside<R: Send + 'static>(
        engine: &Arc<Engine>,
        work: impl FnOnce(&SharedTxn<'_>) -> R + Send + 'static,
    ) -> R {
        let (engine, (done, is_done)) = (Arc::clone(engine), mpsc::channel());
        let thread = thread::spawn(move || done.send(work(&engine.txn())));
        let result = is_done.recv_timeout(Duration::from_secs(60)).expect("nothing to wait for");
        thread.join().unwrap().unwrap();
        result
    }

    #[test]
    fn a_long_edit_holds_up_no_reader_and_puts_off_other_edits() {
        let dir = tempfile::tempdir().unwrap();
        let (path, clock) = (dir.path().join("data.db"), Clock::manual());
        let engine = on_disk(&path, &clock);
        fill(&engine.txn());
        let taken = long_edit(&engine.txn(), |edit| {
            let taken = pop(edit);
            assert_eq!(beside(&engine, |txn| len(txn)), ITEMS);
            let other_edit = |txn: &SharedTxn<'_>| txn.existing_value(&name("k"), Kind::List, pop);
            assert_eq!(beside(&engine, other_edit), Err(Unavailable::Unsettled));
            taken
        });
        assert_eq!(taken, Ok(Some(Some(b"0".as_slice().into()))));
        assert_eq!(len(&engine.txn()), ITEMS - 1);
        let taken = engine.txn().existing_value(&name("k"), Kind::List, pop);
        assert_eq!(taken, Ok(Some(Some(b"1".as_slice().into()))));
        drop(engine);
        let engine = on_disk(&path, &clock);
        let first = |value: Option<&Value>| match value {
            Some(Value::List(list)) => (list.len(), list.get(0).map(<[u8]>::to_vec)),
            _ => (0, None),
        };
        let found = engine.txn().read_value(&name("k"), Kind::List, first);
        assert_eq!(found, Ok((ITEMS - 2, Some(b"2".to_vec()))));
    }

    #[test]
    fn a_long_edit_of_a_value_that_is_gone_at_its_end_was_not_made() {
        let engine = memory(&Clock::manual());
        fill(&engine.txn());
        let edited = long_edit(&engine.txn(), |edit| {
            beside(&engine, |txn| txn.submit(&name("k"), &Op::Delete { if_owner: None })).unwrap();
            fill(&engine.txn());
            pop(edit)
        });
        assert_eq!(edited, Err(Unavailable::Unsettled));
        assert_eq!(len(&engine.txn()), ITEMS);
        assert_eq!(long_edit(&engine.txn(), pop), Ok(Some(Some(b"0".as_slice().into()))));
    }

    #[test]
    fn a_change_of_a_large_value_that_others_read_does_not_copy_it_under_the_guard() {
        let engine = memory(&Clock::manual());
        fill(&engine.txn());
        let txn = engine.txn();
        let read = txn.share_value(&name("k")).unwrap().unwrap();
        let edited = txn.existing_value(&name("k"), Kind::List, |edit| {
            assert_eq!(beside(&engine, |txn| len(txn)), ITEMS);
            pop(edit)
        });
        assert!(edited.is_ok());
        let changed = txn.share_value(&name("k")).unwrap().unwrap();
        assert_eq!((read.len(), changed.len()), (ITEMS, ITEMS - 1));
        // An exclusive transaction gets a value of its own before it begins.
        let edited = txn.exclusively_editing(&[name("k")], |exclusive| {
            let own = exclusive.share_value(&name("k")).unwrap().unwrap();
            assert!(!Arc::ptr_eq(&own, &changed) && own.len() == ITEMS - 1);
            drop(own);
            exclusive.existing_value(&name("k"), Kind::List, pop)
        });
        assert_eq!(edited, Ok(Ok(Some(Some(b"1".as_slice().into())))));
        assert_eq!((changed.len(), len(&txn)), (ITEMS - 1, ITEMS - 2));
    }

    #[test]
    fn requests_that_wait_for_elements_are_served_once_the_value_is_not_held() {
        let engine = memory(&Clock::manual());
        let request = PopRequest::new(vec![name("k")], PopAction::Items { from: End::Front, count: 1 });
        let waiting = engine.txn().pop_or_wait(request.clone(), Timestamp::NEVER).unwrap();
        assert!(matches!(waiting, Popping::Blocked(_)));
        let txn = engine.txn();
        fill(&txn);
        let held = txn.hold_value(&name("k")).unwrap();
        assert!(held.is_some());
        assert!(matches!(txn.hold_value(&name("k")), Err(Unavailable::Unsettled)));
        drop(txn);
        assert_eq!(len(&engine.txn()), ITEMS);
        assert_eq!(engine.txn().pop_or_wait(request, Timestamp::NEVER).err(), Some(Unavailable::Unsettled));
        drop(held);
        drop(engine.txn());
        assert_eq!(len(&engine.txn()), ITEMS - 1);
    }

    #[test]
    fn a_held_value_that_gets_another_name_is_served_under_that() {
        let engine = memory(&Clock::manual());
        let request = PopRequest::new(vec![name("new")], PopAction::Items { from: End::Front, count: 1 });
        let waiting = engine.txn().pop_or_wait(request, Timestamp::NEVER).unwrap();
        assert!(matches!(waiting, Popping::Blocked(_)));
        let txn = engine.txn();
        fill(&txn);
        let held = txn.hold_value(&name("k")).unwrap();
        let renamed =
            txn.exclusively(&[name("k"), name("new")], |txn| txn.rename(&name("k"), &name("new"), true));
        assert_eq!(renamed.unwrap().unwrap(), Renamed::Done);
        drop(txn);
        let new_len =
            || engine.txn().read_value(&name("new"), Kind::List, |value| value.map_or(0, Value::len));
        assert_eq!(new_len(), Ok(ITEMS));
        drop(held);
        drop(engine.txn());
        assert_eq!(new_len(), Ok(ITEMS - 1));
    }

    #[test]
    fn edits_that_were_put_off_go_before_younger_ones_in_order() {
        let engine = memory(&Clock::manual());
        fill(&engine.txn());
        let [small, first, second] = [(); 3].map(|()| engine.txn());
        let taken = long_edit(&engine.txn(), |edit| {
            let put_off = Err(Unavailable::Unsettled);
            assert_eq!(small.existing_value(&name("k"), Kind::List, pop), put_off);
            assert_eq!([&first, &second].map(|txn| long_edit(txn, pop)), [put_off.clone(), put_off]);
            pop(edit)
        });
        assert!(taken.is_ok());
        let wait = |txn: &Txn<'_>| Box::pin(engine.next_attempt(txn.put_off().unwrap()));
        let [small, first, second] =
            [small, first, second].map(|txn| is_next(&mut wait(&txn)).expect("the value is free"));
        // A client that edits again and again has to wait, however quick it is.
        let quick = engine.txn();
        assert_eq!(long_edit(&quick, pop), Err(Unavailable::Unsettled));
        let mut quick = wait(&quick);
        assert!(is_next(&mut quick).is_none());
        let again = |put_off, edit: fn(&Txn<'_>) -> Result<Option<Taken>, Unavailable>| {
            let txn = engine.txn();
            txn.resume(put_off);
            edit(&txn).map_err(|_| wait(&txn))
        };
        let long = |txn: &Txn<'_>| long_edit(txn, pop);
        let mut second = again(second, long).err().unwrap();
        assert!(is_next(&mut second).is_none());
        let item = |n: &str| -> Option<Taken> { Some(Some(n.as_bytes().into())) };
        let made = |edited: Result<Option<Taken>, _>| edited.ok().expect("its turn");
        let small = again(small, |txn| txn.existing_value(&name("k"), Kind::List, pop));
        assert_eq!(made(small), item("1"));
        assert_eq!(made(again(first, long)), item("2"));
        let mut quick = again(is_next(&mut quick).unwrap(), long).err().unwrap();
        assert_eq!(made(again(is_next(&mut second).unwrap(), long)), item("3"));
        assert_eq!(made(again(is_next(&mut quick).unwrap(), long)), item("4"));
    }

    #[test]
    fn a_request_that_was_put_off_waits_until_the_value_is_free_or_its_elder_is_gone() {
        let engine = memory(&Clock::manual());
        fill(&engine.txn());
        // Edits would copy it, because others read it.
        let read = engine.txn().share_value(&name("k")).unwrap();
        let holder = engine.txn();
        let held = holder.hold_value(&name("k")).unwrap();
        let prepare = |put_off: Option<Box<PutOff>>| {
            let txn = engine.txn();
            if let Some(put_off) = put_off {
                txn.resume(put_off);
            }
            let prepared = txn.prepare_edit(&name("k"));
            prepared.map_err(|_| Box::pin(engine.next_attempt(txn.put_off().unwrap())))
        };
        let [mut elder, mut younger] = [(); 2].map(|()| prepare(None).err().unwrap());
        assert!(is_next(&mut elder).is_none() && is_next(&mut younger).is_none());
        drop(held);
        let elder = is_next(&mut elder).unwrap();
        let mut younger = prepare(is_next(&mut younger)).err().unwrap();
        assert!(is_next(&mut younger).is_none());
        // Its client has disconnected.
        drop(elder);
        assert!(prepare(is_next(&mut younger)).is_ok());
        assert!(!Arc::ptr_eq(&engine.txn().share_value(&name("k")).unwrap().unwrap(), &read.unwrap()));
    }

    #[test]
    fn a_copy_counts_toward_the_limit_while_it_is_made() {
        let fill_and_measure = |engine: &Arc<Engine>| {
            fill(&engine.txn());
            engine.value_stats().bytes()
        };
        let bytes = fill_and_measure(&memory(&Clock::manual()));
        let engine = memory_of(bytes * 3 / 2);
        fill_and_measure(&engine);
        let add = |txn: &Txn<'_>| {
            txn.value(&name("other"), Kind::List, |edit| edit.list().unwrap().push_back(b"x"))
        };
        assert_eq!(add(&engine.txn()), Ok(()));
        let taken = long_edit(&engine.txn(), |edit| {
            assert_eq!(add(&engine.txn()), Err(Unavailable::ValuesBytesMax));
            pop(edit)
        });
        assert!(taken.is_ok());
        assert_eq!(add(&engine.txn()), Ok(()));
        let txn = engine.txn();
        let making = txn.make_value(bytes as usize).unwrap();
        assert_eq!(add(&txn), Err(Unavailable::ValuesBytesMax));
        assert!(txn.make_value(1).is_err());
        assert!(txn.copy(&name("k"), &name("copy"), false).is_err());
        // What makes room is not refused.
        assert!(long_edit(&txn, pop).is_ok());
        drop(making);
        assert_eq!(txn.copy(&name("k"), &name("copy"), false), Ok(true));
    }
}
