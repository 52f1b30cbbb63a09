//! What the commands of hashes, sets, sorted sets and lists share.
//!
//! Guarantees: a key that does not exist reads as an empty value; one of another type is an error.
//! Not here: the commands, the values themselves.

use std::slice;
use std::sync::Arc;

use super::options::{self, Given, flag, value};
use super::scan::cursor;
use super::{Args, CommandError, Context, name_or_none};
use crate::domain::LockName;
use crate::engine::{AnyTxn, Draft, ELEMENTS_AT_ONCE_MAX, Txn, Unavailable, run_long};
use crate::glob::Glob;
use crate::reply::Reply;
use crate::value::{
    Edit, Hash, HashEdit, Kind, List, ListEdit, Set, SetEdit, SortedSet, SortedSetEdit, Value,
};

/// A type of values as the commands of this type see it.
pub(super) trait Typed: Default + 'static {
    const KIND: Kind;
    type Edit<'e>;
    fn of(value: &Value) -> Option<&Self>;
    fn edit<'e>(edit: &'e mut Edit<'_>) -> Option<Self::Edit<'e>>;
}

impl Typed for Hash {
    const KIND: Kind = Kind::Hash;
    type Edit<'e> = HashEdit<'e>;
    fn of(value: &Value) -> Option<&Hash> {
        if let Value::Hash(hash) = value { Some(hash) } else { None }
    }
    fn edit<'e>(edit: &'e mut Edit<'_>) -> Option<HashEdit<'e>> {
        edit.hash()
    }
}

impl Typed for Set {
    const KIND: Kind = Kind::Set;
    type Edit<'e> = SetEdit<'e>;
    fn of(value: &Value) -> Option<&Set> {
        if let Value::Set(set) = value { Some(set) } else { None }
    }
    fn edit<'e>(edit: &'e mut Edit<'_>) -> Option<SetEdit<'e>> {
        edit.set()
    }
}

impl Typed for SortedSet {
    const KIND: Kind = Kind::SortedSet;
    type Edit<'e> = SortedSetEdit<'e>;
    fn of(value: &Value) -> Option<&SortedSet> {
        if let Value::SortedSet(sorted) = value { Some(sorted) } else { None }
    }
    fn edit<'e>(edit: &'e mut Edit<'_>) -> Option<SortedSetEdit<'e>> {
        edit.sorted_set()
    }
}

impl Typed for List {
    const KIND: Kind = Kind::List;
    type Edit<'e> = ListEdit<'e>;
    fn of(value: &Value) -> Option<&List> {
        if let Value::List(list) = value { Some(list) } else { None }
    }
    fn edit<'e>(edit: &'e mut Edit<'_>) -> Option<ListEdit<'e>> {
        edit.list()
    }
}

/// Reads the value of a key for a command that only reads, which counts as a lookup. `read` runs
/// under the guard of the key.
pub(super) fn read<T: Typed, R>(
    context: &Context<'_>,
    key: &[u8],
    read: impl FnOnce(&T) -> R,
) -> Result<R, CommandError> {
    let mut exists = false;
    let result = inspect_or_none(context, key, |value: Option<&T>| {
        exists = value.is_some();
        match value {
            Some(value) => read(value),
            None => read(&T::default()),
        }
    });
    count_lookup(context, exists, &result);
    result
}

fn count_lookup<R>(context: &Context<'_>, exists: bool, result: &Result<R, CommandError>) {
    match result {
        Ok(_) => context.count_lookup(exists),
        Err(error) if *error == CommandError::WRONG_TYPE => context.count_lookup(true),
        Err(_) => {}
    }
}

/// [`read()`] of `count` elements, which may be very many. Then it runs without the guard of the
/// key, and other connections have another thread.
pub(super) fn read_many<T: Typed, R>(
    context: &Context<'_>,
    key: &[u8],
    count: impl FnOnce(&T) -> usize,
    read: impl FnOnce(&T) -> R,
) -> Result<R, CommandError> {
    enum Found<R, F> {
        Read(R),
        Large(Arc<Value>, F),
    }
    let Some(name) = name_or_none(context, key)? else {
        context.count_lookup(false);
        return Ok(read(&T::default()));
    };
    let mut exists = false;
    let found = context.txn.read_shared_value(&name, T::KIND, |shared| {
        exists = shared.is_some();
        match shared.and_then(|shared| T::of(shared).map(|value| (shared, value))) {
            Some((shared, value)) if count(value) > ELEMENTS_AT_ONCE_MAX => {
                Found::Large(Arc::clone(shared), read)
            }
            Some((_, value)) => Found::Read(read(value)),
            None => Found::Read(read(&T::default())),
        }
    });
    let found = found.map_err(CommandError::from);
    if let Ok(Found::Large(..)) = found {
        context.txn.begin_long_work()?;
    }
    count_lookup(context, exists, &found);
    match found? {
        Found::Read(result) => Ok(result),
        // Freeing the value may take long, too.
        Found::Large(shared, read) => {
            run_long(move || T::of(&shared).map(read)).ok_or(CommandError::WRONG_TYPE)
        }
    }
}

/// [`read()`] without counting, for commands that change values or have read this one already.
pub(super) fn inspect<T: Typed, R>(
    context: &Context<'_>,
    key: &[u8],
    read: impl FnOnce(&T) -> R,
) -> Result<R, CommandError> {
    inspect_or_none(context, key, |value: Option<&T>| match value {
        Some(value) => read(value),
        None => read(&T::default()),
    })
}

fn inspect_or_none<T: Typed, R>(
    context: &Context<'_>,
    key: &[u8],
    read: impl FnOnce(Option<&T>) -> R,
) -> Result<R, CommandError> {
    let Some(name) = name_or_none(context, key)? else { return Ok(read(None)) };
    Ok(context.txn.read_value(&name, T::KIND, |value| read(value.and_then(T::of)))?)
}

/// Changes the value of a key, which is created if it does not exist. `work` runs under the guard of
/// the key.
pub(super) fn edit<T: Typed, R>(
    context: &Context<'_>,
    key: &[u8],
    work: impl FnOnce(T::Edit<'_>) -> R,
) -> Result<R, CommandError> {
    edit_many(context, key, |_: &T| 1, work)
}

/// [`edit()`] that visits `visits` elements, which may be very many. Then it runs without the guard
/// of the key, and other connections have another thread.
pub(super) fn edit_many<T: Typed, R>(
    context: &Context<'_>,
    key: &[u8],
    visits: impl FnOnce(&T) -> usize,
    work: impl FnOnce(T::Edit<'_>) -> R,
) -> Result<R, CommandError> {
    let name = context.key(key)?;
    let (visits, work) = (visits_typed(visits), edit_typed::<T, R>(work));
    let edited = edit_once(context, &name, |txn| txn.value_of_many(&name, T::KIND, visits, work))?;
    edited.ok_or(CommandError::WRONG_TYPE)
}

/// [`edit()`] for commands that add nothing; `None` if the key does not exist.
pub(super) fn edit_existing<T: Typed, R>(
    context: &Context<'_>,
    key: &[u8],
    work: impl FnOnce(T::Edit<'_>) -> R,
) -> Result<Option<R>, CommandError> {
    edit_existing_many(context, key, |_: &T| 1, work)
}

/// [`edit_existing()`] that visits many elements, as [`edit_many()`] does.
pub(super) fn edit_existing_many<T: Typed, R>(
    context: &Context<'_>,
    key: &[u8],
    visits: impl FnOnce(&T) -> usize,
    work: impl FnOnce(T::Edit<'_>) -> R,
) -> Result<Option<R>, CommandError> {
    let Some(name) = name_or_none(context, key)? else { return Ok(None) };
    let (visits, work) = (visits_typed(visits), edit_typed::<T, R>(work));
    let edit = |txn: &Txn<'_>| txn.existing_value_of_many(&name, T::KIND, visits, work);
    Ok(edit_once(context, &name, edit)?.flatten())
}

/// Runs `edit`, which edits the value of a key. It keeps all others out if they have replaced that
/// value again and again while `edit` worked on a copy.
fn edit_once<R>(
    context: &Context<'_>,
    name: &LockName,
    edit: impl FnOnce(&Txn<'_>) -> Result<R, Unavailable>,
) -> Result<R, Unavailable> {
    match context.txn {
        AnyTxn::Shared(txn) if txn.must_work_alone() => {
            txn.exclusively_editing(slice::from_ref(name), |txn| edit(txn))?
        }
        txn => edit(&txn),
    }
}

/// A new value that `work` fills.
pub(super) fn draft<T: Typed>(work: impl FnOnce(T::Edit<'_>)) -> Draft {
    Draft::new(T::KIND, edit_typed::<T, ()>(work)).0
}

fn visits_typed<T: Typed>(visits: impl FnOnce(&T) -> usize) -> impl FnOnce(&Value) -> usize {
    |value| T::of(value).map_or(0, visits)
}

fn edit_typed<T: Typed, R>(work: impl FnOnce(T::Edit<'_>) -> R) -> impl FnOnce(&mut Edit<'_>) -> Option<R> {
    |edit| T::edit(edit).map(work)
}

/// Fails if a key exists and is of another type.
pub(super) fn check_type<T: Typed>(context: &Context<'_>, key: &[u8]) -> Result<(), CommandError> {
    inspect(context, key, |_: &T| ())
}

/// Runs `work`, which edits their values, as one with all keys of a request. For one key, `work`
/// must be one operation anyway, and needs no transaction.
pub(super) fn edit_keys<R>(
    context: &mut Context<'_>,
    args: Args<'_>,
    keys: &[&[u8]],
    work: impl FnOnce(&mut Context<'_>) -> Result<R, CommandError>,
) -> Result<R, CommandError> {
    if keys.len() == 1 { work(context) } else { context.edit_atomically_on_keys(args, work) }
}

impl Context<'_> {
    /// Adds the cost of copying or comparing elements of values to the turn.
    pub(super) fn spend_elements(&mut self, elements: usize) {
        self.spend(elements);
    }
}

/// Copies of byte strings as a reply.
pub(super) fn bulks<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Reply {
    Reply::Array(items.into_iter().map(Reply::bulk).collect())
}

/// A byte string, or Null.
pub(super) fn bulk_or_null(item: Option<&[u8]>) -> Reply {
    item.map_or(Reply::Null, Reply::bulk)
}

/// Names with their values, flat, as the SCAN commands return them.
type Row = (Vec<u8>, Option<Vec<u8>>);

/// Elements that one call of a SCAN command returns, regardless of COUNT.
const SCAN_COUNT_MAX: i64 = 1_000;
const SCAN_COUNT_DEFAULT: i64 = 10;

/// Executes HSCAN, SSCAN or ZSCAN. `page` makes one step from a cursor, with a number of elements.
pub(super) fn scan<T: Typed>(
    context: &mut Context<'_>,
    args: Args<'_>,
    page: impl FnOnce(&T, u64, usize) -> (u64, Vec<Row>),
) -> Result<Reply, CommandError> {
    let cursor = cursor(args.at(2))?;
    let options = scan_options(args, T::KIND);
    let (next, rows, options) = read(context, args.at(1), |value: &T| {
        let (next, rows) = match &options {
            Ok(options) => page(value, cursor, options.count),
            Err(_) => page(value, 0, 1),
        };
        // Redis reads the options only if there is something to return.
        match options {
            Err(_) if rows.is_empty() => Ok((0, rows, ScanOptions::default())),
            options => options.map(|options| (next, rows, options)),
        }
    })??;
    let mut found = Vec::with_capacity(2 * rows.len());
    for (name, value) in rows {
        let matches = options.pattern.as_ref().is_none_or(|pattern| {
            context.spend(pattern.work(name.len()));
            pattern.matches(&name)
        });
        if matches {
            found.push(Reply::Bulk(name));
            found.extend(value.filter(|_| !options.is_without_values).map(Reply::Bulk));
        }
    }
    Ok(Reply::Array(vec![Reply::bulk(next.to_string()), Reply::Array(found)]))
}

#[derive(Default)]
struct ScanOptions {
    pattern: Option<Glob>,
    count: usize,
    is_without_values: bool,
}

fn scan_options(args: Args<'_>, kind: Kind) -> Result<ScanOptions, CommandError> {
    let specs = [value("MATCH"), value("COUNT").integer(), flag("NOVALUES")];
    let [pattern, count, no_values] = args.options(3, &specs)?;
    let count = count.integer()?.unwrap_or(SCAN_COUNT_DEFAULT);
    if count < 1 {
        return Err(CommandError::SYNTAX);
    }
    if no_values.is_given() && kind != Kind::Hash {
        return Err(CommandError::fixed("ERR NOVALUES option can only be used in HSCAN"));
    }
    let (pattern, count) = (pattern.value().map(Glob::new).transpose()?, count.min(SCAN_COUNT_MAX) as usize);
    Ok(ScanOptions { pattern, count, is_without_values: no_values.is_given() })
}

/// Indexes from `start` to `stop`, both inclusive and counted from the end if negative, of `len`
/// elements, as the range commands take them.
pub(super) fn index_range(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    let from_start = |index: i64| if index < 0 { index.saturating_add(len as i64) } else { index };
    let start = from_start(start).max(0);
    let stop = from_start(stop).min(len as i64 - 1);
    if start > stop { 0..0 } else { start as usize..stop as usize + 1 }
}

/// The index of one element, counted from the end if negative; `None` if it is out of range.
pub(super) fn index(at: i64, len: usize) -> Option<usize> {
    let at = if at < 0 { at.checked_add(len as i64)? } else { at };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// A number of elements to take, which must not be negative.
pub(super) fn positive_count(arg: &[u8]) -> Result<usize, CommandError> {
    let count = options::integer(arg).ok().and_then(|count| usize::try_from(count).ok());
    count.ok_or(CommandError::fixed("ERR value is out of range, must be positive"))
}

/// Checks the value of the LIMIT option of a command that counts common members.
pub(super) fn check_limit(arg: &[u8]) -> Result<(), CommandError> {
    match options::integer(arg) {
        Ok(0..) => Ok(()),
        _ => Err(CommandError::fixed("ERR LIMIT can't be negative")),
    }
}

/// The largest number to count to; 0 and no option mean no limit.
pub(super) fn limit_of(limit: Given<'_>) -> Result<usize, CommandError> {
    let limit = limit.integer()?.and_then(|limit| usize::try_from(limit).ok());
    Ok(limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX))
}

/// The keys after a count at argument `at`, and the number of the argument after them.
pub(super) fn counted_keys<'a>(
    args: Args<'a>,
    at: usize,
    too_many: CommandError,
) -> Result<(Vec<&'a [u8]>, usize), CommandError> {
    let count = options::integer(args.at(at)).ok().filter(|count| *count > 0);
    let count = count.ok_or(CommandError::fixed("ERR numkeys should be greater than 0"))?;
    let left = args.len() - at - 1;
    let count = usize::try_from(count).ok().filter(|count| *count <= left).ok_or(too_many)?;
    Ok((args.from(at + 1).take(count).collect(), at + 1 + count))
}

/// The COUNT option of LMPOP and ZMPOP, from argument `first` on.
pub(super) fn pop_count(args: Args<'_>, first: usize) -> Result<usize, CommandError> {
    let check = |arg: &[u8]| match options::integer(arg) {
        Ok(1..) => Ok(()),
        _ => Err(CommandError::fixed("ERR count should be greater than 0")),
    };
    let [count] = args.options(first, &[value("COUNT").once().check(check)])?;
    Ok(count.integer()?.map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX)))
}

/// The number of elements that a command returns at random.
#[derive(Debug, Clone, Copy)]
pub(super) enum Choice {
    /// At most this many, all different.
    Distinct(usize),
    /// This many, each chosen independently.
    Repeated(usize),
}

/// Maximum of [`Choice::Repeated`]. Redis has no limit, and runs out of memory.
const REPEATED_MAX: u64 = 1 << 16;

impl Choice {
    /// Parses a count: positive for distinct elements, negative for repeated ones.
    pub(super) fn parse(arg: &[u8]) -> Result<Choice, CommandError> {
        let count = options::integer(arg)?;
        if count == i64::MIN {
            return Err(CommandError::fixed(
                "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
            ));
        }
        let amount = count.unsigned_abs();
        match count {
            0.. => Ok(Choice::Distinct(usize::try_from(amount).unwrap_or(usize::MAX))),
            _ if amount <= REPEATED_MAX => Ok(Choice::Repeated(amount as usize)),
            _ => Err(CommandError::fixed("ERR value is out of range")),
        }
    }

    /// The number of elements of `len` that are chosen; one without a choice.
    pub(super) fn amount(choice: Option<Choice>, len: usize) -> usize {
        match choice {
            None => 1,
            Some(Choice::Distinct(count)) => count.min(len),
            Some(Choice::Repeated(count)) => count,
        }
    }

    /// Chooses indexes below `len`. Distinct ones are in ascending order.
    pub(super) fn indexes(self, len: usize, random: &mut Random) -> Vec<usize> {
        match self {
            _ if len == 0 => Vec::new(),
            Choice::Repeated(count) => (0..count).map(|_| random.below(len)).collect(),
            Choice::Distinct(count) if count >= len => (0..len).collect(),
            Choice::Distinct(count) => random.distinct(count, len),
        }
    }
}

/// Random numbers from a seed (SplitMix64). Not secret: clients see what they choose.
pub(super) struct Random(u64);

impl Random {
    /// Numbers from a new random seed.
    pub(super) fn new(context: &Context<'_>) -> Random {
        Random(context.txn.engine().random_number())
    }

    /// A number below `limit`, which must not be 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The high half of the product is as evenly distributed as the numbers are.
        ((u128::from(mixed) * limit as u128) >> 64) as usize
    }

    /// `count` different numbers below `limit`, ascending: Floyd's sampling.
    fn distinct(&mut self, count: usize, limit: usize) -> Vec<usize> {
        let mut chosen = std::collections::BTreeSet::new();
        for last in limit - count..limit {
            let number = self.below(last + 1);
            if !chosen.insert(number) {
                chosen.insert(last);
            }
        }
        chosen.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_indexes_are_those_of_redis() {
        for (start, stop, expected) in [
            (0, -1, 0..5),
            (1, 2, 1..3),
            (-2, -1, 3..5),
            (-100, 100, 0..5),
            (4, 4, 4..5),
            (5, 9, 0..0),
            (3, 2, 0..0),
            (i64::MIN, i64::MAX, 0..5),
            (i64::MAX, i64::MIN, 0..0),
        ] {
            assert_eq!(index_range(start, stop, 5), expected, "{start} {stop}");
        }
        assert_eq!(index_range(0, -1, 0), 0..0);
        let indexes = [0, 4, 5, -1, -5, -6, i64::MIN, i64::MAX].map(|at| index(at, 5));
        assert_eq!(indexes, [Some(0), Some(4), None, Some(4), Some(0), None, None, None]);
    }

    #[test]
    fn repeated_choices_are_limited() {
        assert!(matches!(Choice::parse(b"-65536"), Ok(Choice::Repeated(65536))));
        for arg in [&b"-65537"[..], b"-9223372036854775808"] {
            assert!(
                Choice::parse(arg).is_err_and(|error| error.text().starts_with("ERR value is out of range"))
            );
        }
        assert!(matches!(Choice::parse(b"9223372036854775807"), Ok(Choice::Distinct(_))));
    }

    #[test]
    fn every_element_can_be_chosen_and_distinct_ones_are_distinct() {
        let mut random = Random(1);
        let mut counts = [0; 7];
        for _ in 0..7000 {
            let chosen = Choice::Distinct(3).indexes(7, &mut random);
            assert!(chosen.len() == 3 && chosen.is_sorted_by(|before, after| before < after));
            chosen.iter().for_each(|index| counts[*index] += 1);
        }
        assert!(counts.iter().all(|count| (2700..3300).contains(count)), "{counts:?}");
        assert_eq!(Choice::Distinct(9).indexes(3, &mut random), [0, 1, 2]);
        assert_eq!(Choice::Repeated(9).indexes(3, &mut random).len(), 9);
        assert!(Choice::Repeated(9).indexes(0, &mut random).is_empty());
    }
}
