//! Values against naive models: the same random changes, the same content, and the same again after
//! a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Stored = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// A value, and its elements as a backend stores them.
struct Kept {
    value: Value,
    stored: Stored,
}

impl Kept {
    fn new(kind: Kind) -> Kept {
        Kept { value: Value::new(kind), stored: Stored::new() }
    }

    fn edit<R>(&mut self, work: impl FnOnce(&mut Edit<'_>) -> R) -> R {
        let mut edit = Edit::new(&mut self.value);
        let result = work(&mut edit);
        for Element { field, value } in edit.into_changes().unwrap_or_default() {
            match value {
                Some(value) => drop(self.stored.insert(field, value)),
                None => assert!(self.stored.remove(&field).is_some(), "what is gone was there"),
            }
        }
        assert_eq!(self.stored.len(), self.value.len(), "every element is stored once");
        result
    }

    fn hash<R>(&mut self, work: impl FnOnce(HashEdit<'_>) -> R) -> R {
        self.edit(|edit| work(edit.hash().expect("a hash")))
    }

    fn set<R>(&mut self, work: impl FnOnce(SetEdit<'_>) -> R) -> R {
        self.edit(|edit| work(edit.set().expect("a set")))
    }

    fn sorted<R>(&mut self, work: impl FnOnce(SortedSetEdit<'_>) -> R) -> R {
        self.edit(|edit| work(edit.sorted_set().expect("a sorted set")))
    }

    fn list<R>(&mut self, work: impl FnOnce(ListEdit<'_>) -> R) -> R {
        self.edit(|edit| work(edit.list().expect("a list")))
    }

    /// The value after a restart, which may be compact again, and has about the memory of before:
    /// vectors have at most twice the room that they need.
    fn restored(&self) -> Value {
        let restored = Value::restore(self.value.kind(), self.stored.clone()).expect("well-formed elements");
        let is_compact = restored.encoding() != self.value.encoding();
        let (before, after) = (self.value.bytes(), restored.bytes());
        assert!(is_compact || after <= 2 * before + 2048, "{before} {after}");
        restored
    }
}

fn hash(value: &Value) -> &Hash {
    let Value::Hash(hash) = value else { panic!("{value:?}") };
    hash
}

fn set(value: &Value) -> &Set {
    let Value::Set(set) = value else { panic!("{value:?}") };
    set
}

fn sorted(value: &Value) -> &SortedSet {
    let Value::SortedSet(sorted) = value else { panic!("{value:?}") };
    sorted
}

fn list(value: &Value) -> &List {
    let Value::List(list) = value else { panic!("{value:?}") };
    list
}

fn score(number: f64) -> Score {
    Score::new(number).expect("a number")
}

fn name(n: u16) -> Vec<u8> {
    n.to_string().into_bytes()
}

/// Runs an iteration to its end, with `between` after each step.
fn scan_all(mut step: impl FnMut(u64) -> (u64, Vec<Vec<u8>>), mut between: impl FnMut()) -> Vec<Vec<u8>> {
    let (mut cursor, mut found) = (0, Vec::new());
    loop {
        let (next, names) = step(cursor);
        found.extend(names);
        if next == 0 {
            return found;
        }
        cursor = next;
        between();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn hashes_do_what_a_list_of_pairs_does(
        changes in vec((0u16..300, 0u8..3, 0usize..90), 0..700),
        // In half of the cases all are short, and only their number makes a table of them.
        len_max in 40usize..90,
    ) {
        let (mut kept, mut model) = (Kept::new(Kind::Hash), Vec::<(Vec<u8>, Vec<u8>)>::new());
        let mut is_compact = true;
        for (n, choice, len) in changes {
            let (field, value) = (name(n), vec![b'v'; len.min(len_max)]);
            let at = model.iter().position(|(other, _)| *other == field);
            if choice == 0 {
                at.map(|at| model.remove(at));
                prop_assert_eq!(kept.hash(|mut hash| hash.remove(&field)), at.is_some());
            } else {
                is_compact &= value.len() <= 64;
                prop_assert_eq!(kept.hash(|mut hash| hash.insert(&field, &value)), at.is_none());
                match at {
                    Some(at) => model[at].1 = value,
                    None => model.push((field, value)),
                }
            }
        }
        let expected = || model.iter().map(|(field, value)| (&**field, &**value));
        prop_assert!(hash(&kept.value).iter().eq(expected()), "in insertion order");
        prop_assert!((0..=model.len()).map_while(|n| hash(&kept.value).get_index(n)).eq(expected()));
        prop_assert!(expected().all(|(field, value)| hash(&kept.value).get(field) == Some(value)));
        prop_assert_eq!(kept.value.encoding(), if is_compact { "listpack" } else { "hashtable" });
        let restored = kept.restored();
        prop_assert!(expected().all(|(field, value)| hash(&restored).get(field) == Some(value)));
    }

    #[test]
    fn sets_do_what_a_list_of_members_does(changes in vec((0u16..300, any::<bool>()), 0..700)) {
        let (mut kept, mut model) = (Kept::new(Kind::Set), Vec::<Vec<u8>>::new());
        let mut are_integers = true;
        for (n, adds) in changes {
            // Few are no integers.
            let member = if n % 64 == 0 { [b"m", &*name(n)].concat() } else { name(n) };
            are_integers &= !adds || member[0] != b'm';
            let at = model.iter().position(|other| *other == member);
            if adds {
                prop_assert_eq!(kept.set(|mut set| set.insert(&member)), at.is_none());
                at.is_none().then(|| model.push(member));
            } else {
                prop_assert_eq!(kept.set(|mut set| set.remove(&member)), at.is_some());
                at.map(|at| model.remove(at));
            }
        }
        prop_assert!(set(&kept.value).iter().eq(&model), "in insertion order");
        prop_assert!((0..=model.len()).map_while(|n| set(&kept.value).get_index(n)).eq(&model));
        prop_assert_eq!(kept.value.encoding(), if are_integers { "intset" } else { "hashtable" });
        let restored = kept.restored();
        prop_assert!(model.iter().all(|member| set(&restored).contains(member)));
    }

    #[test]
    fn sorted_sets_do_what_a_sorted_list_does(
        changes in vec((0u16..300, 0u8..8, -5i8..5), 0..700),
        ranks in (0usize..300, 0usize..300),
        bounds in (-6i8..6, -6i8..6),
    ) {
        let (mut kept, mut model) = (Kept::new(Kind::SortedSet), BTreeMap::<Vec<u8>, f64>::new());
        let in_order = |model: &BTreeMap<Vec<u8>, f64>| {
            let mut order: Vec<(f64, Vec<u8>)> = model.iter().map(|(member, score)| (*score, member.clone())).collect();
            order.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
            order
        };
        for (n, choice, number) in changes {
            let (member, number) = (name(n), f64::from(number));
            match choice {
                0 => {
                    let existed = model.remove(&member).is_some();
                    prop_assert_eq!(kept.sorted(|mut sorted| sorted.remove(&member)), existed);
                }
                1 => {
                    let ranks = usize::from(n)..usize::from(n) + 3;
                    let expected: Vec<_> = in_order(&model).into_iter().skip(ranks.start).take(3).collect();
                    model.retain(|member, _| expected.iter().all(|(_, other)| other != member));
                    let removed = kept.sorted(|mut sorted| sorted.remove_range(ranks));
                    let removed = removed.iter().map(|(member, score)| (score.get(), member.to_vec()));
                    prop_assert!(removed.eq(expected));
                }
                _ => {
                    let expected = match model.insert(member.clone(), number) {
                        None => SetScore::Added,
                        Some(old) if old == number => SetScore::Unchanged,
                        Some(_) => SetScore::Updated,
                    };
                    prop_assert_eq!(kept.sorted(|mut sorted| sorted.insert(&member, score(number))), expected);
                }
            }
        }
        let restored = kept.restored();
        let order = in_order(&model);
        for value in [&kept.value, &restored] {
            check_order(sorted(value), &order, ranks.0..ranks.1, bounds);
        }
    }

    #[test]
    fn lists_do_what_a_vector_does(
        first in 0u16..300,
        changes in vec((0u8..9, 0u8..4, 0usize..300, any::<bool>()), 0..200),
        len_max in 0usize..100,
    ) {
        let mut kept = Kept::new(Kind::List);
        let mut model: Vec<Vec<u8>> = (0..first).map(name).collect();
        kept.list(|mut list| model.iter().for_each(|item| list.push_back(item)));
        for (choice, n, at, flag) in changes {
            // In some cases there are items that are too long to be packed.
            let item = vec![n; if n == 3 { len_max } else { usize::from(n) }];
            kept.list(|mut list| match choice {
                0 | 1 => {
                    list.push_front(&item);
                    model.insert(0, item);
                }
                2 | 3 => {
                    list.push_back(&item);
                    model.push(item);
                }
                4 => {
                    let expected = if model.is_empty() { None } else { Some(model.remove(0)) };
                    assert_eq!(list.pop_front().map(Vec::from), expected);
                    assert_eq!(list.pop_back().map(Vec::from), model.pop());
                }
                5 => {
                    assert_eq!(list.set(at, &item), at < model.len());
                    if let Some(old) = model.get_mut(at) {
                        *old = item;
                    }
                }
                6 => {
                    list.insert(at, &item);
                    model.insert(at.min(model.len()), item);
                }
                7 => assert_eq!(list.remove_equal(&item, at, flag), remove_equal(&mut model, &item, at, flag)),
                _ => {
                    let indexes = usize::from(n)..at;
                    list.keep(indexes.clone());
                    let is_kept = |(index, item)| indexes.contains(&index).then_some(item);
                    model = std::mem::take(&mut model).into_iter().enumerate().filter_map(is_kept).collect();
                }
            });
            prop_assert!(list(&kept.value).range(0..usize::MAX).eq(&model));
        }
        prop_assert!((0..=model.len()).map_while(|n| list(&kept.value).get(n)).eq(&model));
        prop_assert!(list(&kept.restored()).range(0..usize::MAX).eq(&model));
    }

    #[test]
    fn a_scan_returns_every_element_that_stays(
        changes in vec((0u16..2000, any::<bool>()), 0..200),
        count in 1usize..300,
        first in 500u16..1500,
    ) {
        let mut kept = Kept::new(Kind::Set);
        kept.set(|mut set| (0..first).for_each(|n| assert!(set.insert(&[b"m", &*name(n)].concat()))));
        let mut staying: BTreeSet<Vec<u8>> = set(&kept.value).iter().map(<[u8]>::to_vec).collect();
        let kept = std::cell::RefCell::new(kept);
        let mut changes = changes.chunks(20).cycle().take(1000);
        let step = |cursor| {
            let kept = kept.borrow();
            let (next, members) = set(&kept.value).scan(cursor, count);
            let members: Vec<Vec<u8>> = members.map(<[u8]>::to_vec).collect();
            assert!(members.len() <= count);
            (next, members)
        };
        let found = scan_all(step, || {
            for (n, adds) in changes.next().into_iter().flatten() {
                let member = [b"m", &*name(*n)].concat();
                kept.borrow_mut().set(|mut set| if *adds { set.insert(&member) } else { set.remove(&member) });
                adds.then_some(()).or_else(|| { staying.remove(&member); None });
            }
        });
        let found: BTreeSet<Vec<u8>> = found.into_iter().collect();
        prop_assert!(staying.is_subset(&found), "{:?}", staying.difference(&found).next());
    }

    #[test]
    fn elements_of_any_bytes_are_restored_or_refused(
        elements in vec((vec(any::<u8>(), 0..9), vec(any::<u8>(), 0..9)), 0..4),
    ) {
        for kind in Kind::ALL {
            let elements = elements.iter().map(|(field, value)| (field[..].into(), value[..].into()));
            let restored = Value::restore(kind, elements.clone());
            prop_assert!(restored.is_err() || restored.is_ok_and(|value| value.len() == elements.len()));
        }
    }
}

/// Compares all look-ups of a sorted set with those of its members in order.
fn check_order(sorted: &SortedSet, order: &[(f64, Vec<u8>)], ranks: Range<usize>, bounds: (i8, i8)) {
    let pair = |(number, member): &(f64, Vec<u8>)| (member.clone(), *number);
    let owned = |(member, score): (&[u8], Score)| (member.to_vec(), score.get());
    let expected = || order.iter().take(ranks.end).skip(ranks.start).map(pair);
    assert!(sorted.range(0..usize::MAX).map(owned).eq(order.iter().map(pair)));
    assert!(sorted.range(ranks.clone()).map(owned).eq(expected()));
    let descending = sorted.range_descending(ranks.clone()).map(owned).collect::<Vec<_>>();
    assert!(descending.into_iter().rev().eq(expected()));
    for (rank, (number, member)) in order.iter().enumerate() {
        assert_eq!((sorted.rank(member), sorted.score(member)), (Some(rank), Score::new(*number)));
    }
    let (min, max) = (f64::from(bounds.0), f64::from(bounds.1));
    for range in [
        (Bound::Included(min), Bound::Included(max)),
        (Bound::Excluded(min), Bound::Excluded(max)),
        (Bound::Unbounded, Bound::Excluded(max)),
        (Bound::Excluded(min), Bound::Unbounded),
    ] {
        let ranks = sorted.ranks_by_score((range.0.map(score), range.1.map(score)));
        assert!(ranks.start <= ranks.end && ranks.end <= order.len());
        let is_inside = |(number, _): &&(f64, Vec<u8>)| {
            let above = match range.0 {
                Bound::Included(min) => *number >= min,
                Bound::Excluded(min) => *number > min,
                Bound::Unbounded => true,
            };
            above
                && match range.1 {
                    Bound::Included(max) => *number <= max,
                    Bound::Excluded(max) => *number < max,
                    Bound::Unbounded => true,
                }
        };
        assert!(sorted.range(ranks).map(owned).eq(order.iter().filter(is_inside).map(pair)), "{range:?}");
    }
}

fn remove_equal(model: &mut Vec<Vec<u8>>, item: &[u8], max: usize, from_back: bool) -> usize {
    let mut removed = 0;
    while removed < max {
        let at = if from_back {
            model.iter().rposition(|other| other == item)
        } else {
            model.iter().position(|other| other == item)
        };
        let Some(at) = at else { break };
        model.remove(at);
        removed += 1;
    }
    removed
}

#[test]
fn ranks_by_lex_are_those_of_redis() {
    let mut kept = Kept::new(Kind::SortedSet);
    kept.sorted(|mut sorted| ["a", "b", "c"].map(|member| sorted.insert(member.as_bytes(), score(0.0))));
    use LexBound::{Excluded, Highest, Included, Lowest};
    for (min, max, expected) in [
        (Lowest, Highest, 0..3),
        (Included(&b"b"[..]), Highest, 1..3),
        (Excluded(b"b"), Highest, 2..3),
        (Excluded(b"aa"), Included(b"bb"), 1..2),
        (Lowest, Included(b"b"), 0..2),
        (Lowest, Excluded(b"b"), 0..1),
        (Included(b"c"), Included(b"a"), 2..2),
        (Highest, Highest, 3..3),
        (Lowest, Lowest, 0..0),
        (Highest, Lowest, 3..3),
    ] {
        assert_eq!(sorted(&kept.value).ranks_by_lex(min, max), expected, "{min:?} {max:?}");
    }
}

#[test]
fn minus_zero_is_zero() {
    assert!(score(-0.0).get().is_sign_positive());
    let mut kept = Kept::new(Kind::SortedSet);
    assert_eq!(kept.sorted(|mut sorted| sorted.insert(b"m", score(-0.0))), SetScore::Added);
    assert_eq!(kept.sorted(|mut sorted| sorted.insert(b"m", score(0.0))), SetScore::Unchanged);
    assert_eq!(sorted(&kept.value).ranks_by_score(score(0.0)..), 0..1);
}

#[test]
fn no_score_is_nan() {
    let infinite = score(f64::INFINITY);
    assert_eq!(Score::new(f64::NAN), None);
    assert_eq!(infinite.checked_add(score(f64::NEG_INFINITY)), None);
    assert_eq!(infinite.checked_add(score(1.0)), Some(infinite));
    let nan = f64::NAN.to_bits().to_be_bytes();
    assert!(Value::restore(Kind::SortedSet, [(b"m"[..].into(), nan[..].into())]).is_err());
}

#[test]
fn encodings_change_one_past_the_limits_of_redis() {
    let filled = |kind, elements: u16, prefix: &str, len: usize| {
        let mut kept = Kept::new(kind);
        for n in 0..elements {
            let text = format!("{prefix}{n}").into_bytes();
            kept.edit(|edit| match kind {
                Kind::Hash => drop(edit.hash().map(|mut hash| hash.insert(&text, &vec![b'v'; len]))),
                Kind::Set => drop(edit.set().map(|mut set| set.insert(&text))),
                Kind::SortedSet => drop(edit.sorted_set().map(|mut sorted| {
                    sorted.insert(&[text, vec![b'm'; len - 3]].concat(), score(f64::from(n)))
                })),
                Kind::List => drop(edit.list().map(|mut list| list.push_back(&text))),
            });
        }
        kept.value.encoding()
    };
    for (kind, elements, prefix, len, expected) in [
        (Kind::Hash, 512, "", 64, "listpack"),
        (Kind::Hash, 513, "", 64, "hashtable"),
        (Kind::Hash, 1, "", 65, "hashtable"),
        (Kind::Set, 512, "", 0, "intset"),
        (Kind::Set, 513, "", 0, "hashtable"),
        (Kind::Set, 1, "m", 0, "hashtable"),
        (Kind::SortedSet, 128, "", 61, "listpack"),
        (Kind::SortedSet, 129, "", 61, "skiplist"),
        (Kind::SortedSet, 1, "", 66, "listpack"),
        (Kind::SortedSet, 1, "", 67, "skiplist"),
        (Kind::List, 1, "", 0, "quicklist"),
    ] {
        assert_eq!(filled(kind, elements, prefix, len), expected, "{kind:?} {elements} {prefix:?} {len}");
    }
}

#[test]
fn a_change_at_an_end_of_a_list_records_one_element() {
    let mut kept = Kept::new(Kind::List);
    kept.list(|mut list| (0..1000).for_each(|n| list.push_back(&name(n))));
    let changes = |kept: &mut Kept, work: &dyn Fn(ListEdit<'_>)| {
        let mut edit = Edit::new(&mut kept.value);
        work(edit.list().expect("a list"));
        edit.into_changes().map_or(0, |elements| elements.len())
    };
    assert_eq!(changes(&mut kept, &|mut list| list.push_front(b"x")), 1);
    assert_eq!(changes(&mut kept, &|mut list| list.push_back(b"x")), 1);
    assert_eq!(changes(&mut kept, &|mut list| drop(list.pop_front())), 1);
    assert_eq!(changes(&mut kept, &|mut list| drop(list.pop_back())), 1);
    assert_eq!(changes(&mut kept, &|mut list| list.insert(2, b"x")), 3, "the shorter side moves");
    assert_eq!(changes(&mut kept, &|mut list| list.insert(list.len() - 2, b"x")), 3);
    assert_eq!(changes(&mut kept, &|mut list| assert_eq!(list.remove_equal(b"x", 1, false), 1)), 3);
    assert_eq!(changes(&mut kept, &|mut list| assert_eq!(list.remove_equal(b"x", 1, false), 1)), 3);
}

#[test]
fn a_value_that_has_shrunk_gives_its_memory_back() {
    let mut kept = Kept::new(Kind::Set);
    let empty = kept.value.bytes();
    kept.set(|mut set| {
        (0..20_000).for_each(|n| assert!(set.insert(&name(n))));
        (1..20_000).for_each(|n| assert!(set.remove(&name(n))));
    });
    assert!(kept.value.bytes() < empty + 4096, "{}", kept.value.bytes());
    assert!(set(&kept.value).iter().eq([b"0"]));
}
