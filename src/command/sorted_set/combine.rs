//! Unions, intersections and differences of sorted sets. A set counts as a sorted set whose members
//! all have score 1.

use std::collections::BTreeMap;

use super::{read, score_reply, write};
use crate::command::options::{self, OptionSpec, flag, value};
use crate::command::values;
use crate::command::{
    Args, Command, CommandError, Context, Flags, KeyAccess, KeySpec, KeyVisitor, name_or_none,
};
use crate::engine::KeyKind;
use crate::reply::{Reply, double};
use crate::value::{Score, SortedSet, Value};

pub(super) const ZUNION: Command = read("zunion", -3, zunion, Flags::NONE)
    .keys(KeySpec::Counted { count: 1, access: KeyAccess::Read })
    .syntax("numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]")
    .summary("Returns the members that any of the sorted sets has.")
    .example("ZUNION 2 urgent queue WITHSCORES");

pub(super) const ZUNIONSTORE: Command =
    write("zunionstore", -4, zunionstore, Flags::DENYOOM | Flags::LOOKS_UP)
        .keys(KeySpec::Custom(store_keys))
        .syntax(
            "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
        )
        .summary("Stores the members that any of the sorted sets has. Returns their number.")
        .example("ZUNIONSTORE all 2 urgent queue WEIGHTS 2 1");

pub(super) const ZINTER: Command = read("zinter", -3, zinter, Flags::NONE)
    .keys(KeySpec::Counted { count: 1, access: KeyAccess::Read })
    .syntax("numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]")
    .summary("Returns the members that all sorted sets have.")
    .example("ZINTER 2 urgent queue");

pub(super) const ZINTERCARD: Command = read("zintercard", -3, zintercard, Flags::NONE)
    .keys(KeySpec::Counted { count: 1, access: KeyAccess::Read })
    .syntax("numkeys key [key ...] [LIMIT limit]")
    .summary("Returns the number of members that all sorted sets have.")
    .example("ZINTERCARD 2 urgent queue LIMIT 10");

pub(super) const ZINTERSTORE: Command =
    write("zinterstore", -4, zinterstore, Flags::DENYOOM | Flags::LOOKS_UP)
        .keys(KeySpec::Custom(store_keys))
        .syntax(
            "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
        )
        .summary("Stores the members that all sorted sets have. Returns their number.")
        .example("ZINTERSTORE both 2 urgent queue AGGREGATE MAX");

pub(super) const ZDIFF: Command = read("zdiff", -3, zdiff, Flags::NONE)
    .keys(KeySpec::Counted { count: 1, access: KeyAccess::Read })
    .syntax("numkeys key [key ...] [WITHSCORES]")
    .summary("Returns the members of the first sorted set that no other has.")
    .example("ZDIFF 2 queue urgent");

pub(super) const ZDIFFSTORE: Command = write("zdiffstore", -4, zdiffstore, Flags::DENYOOM | Flags::LOOKS_UP)
    .keys(KeySpec::Custom(store_keys))
    .syntax("destination numkeys key [key ...]")
    .summary("Stores the members of the first sorted set that no other has. Returns their number.")
    .example("ZDIFFSTORE rest 2 queue urgent");

/// The keys of a command that stores what it computes: `destination numkeys key [key ...]`.
fn store_keys<'a>(args: Args<'a>, visit: KeyVisitor<'_, 'a>) -> Result<(), CommandError> {
    let count = options::integer(args.at(2))?;
    let count = usize::try_from(count).ok().filter(|count| *count <= args.len().saturating_sub(3));
    let count = count.ok_or(CommandError::KEY_COUNT)?;
    visit(args.at(1), KeyAccess::Write);
    args.from(3).take(count).for_each(|key| visit(key, KeyAccess::Read));
    Ok(())
}

/// What the members of the result are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// How the scores of one member become one.
#[derive(Debug, Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            Aggregate::Sum => number_or_zero(one + other),
            Aggregate::Min => one.min(other),
            Aggregate::Max => one.max(other),
        }
    }
}

/// As in Redis, the sum of infinities of different signs is 0, and so is infinity times 0.
fn number_or_zero(number: f64) -> f64 {
    if number.is_nan() { 0.0 } else { number }
}

/// What to compute from which keys.
struct Request<'a> {
    operation: Operation,
    keys: Vec<&'a [u8]>,
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

fn check_aggregate(arg: &[u8]) -> Result<(), CommandError> {
    let is_known = ["sum", "min", "max"].iter().any(|name| options::is(arg, name));
    if is_known { Ok(()) } else { Err(CommandError::SYNTAX) }
}

fn parse_weight(arg: &[u8]) -> Result<f64, CommandError> {
    double::parse(arg).ok_or(CommandError::fixed("ERR weight value is not a float"))
}

/// The keys after a count at argument `at`, and the number of the argument after them.
fn counted_keys<'a>(args: Args<'a>, at: usize, name: &str) -> Result<(Vec<&'a [u8]>, usize), CommandError> {
    if options::integer(args.at(at))? < 1 {
        return Err(CommandError::new(format!("ERR at least 1 input key is needed for '{name}' command")));
    }
    values::counted_keys(args, at, CommandError::SYNTAX)
}

/// Refuses a key of another type before a wrong option, as Redis does. The keys start after a count at
/// argument `at`.
fn type_first<R>(
    context: &Context<'_>,
    args: Args<'_>,
    at: usize,
    name: &str,
    request: Result<R, CommandError>,
) -> Result<R, CommandError> {
    if request.is_err() {
        for key in counted_keys(args, at, name)?.0 {
            read_scores(context, key, |_| ())?;
        }
    }
    request
}

impl<'a> Request<'a> {
    /// Parses a request whose keys start after a count at argument `at`.
    fn parse(
        operation: Operation,
        args: Args<'a>,
        at: usize,
        name: &str,
    ) -> Result<Request<'a>, CommandError> {
        let (keys, next) = counted_keys(args, at, name)?;
        let specs: [OptionSpec; 3] = [
            options::values("WEIGHTS", keys.len()).check(|weight| parse_weight(weight).map(drop)),
            value("AGGREGATE").check(check_aggregate),
            flag("WITHSCORES"),
        ];
        let [weights, aggregate, with_scores] = args.options(next, &specs)?;
        let stores = at > 1;
        let is_difference = operation == Operation::Difference;
        if (is_difference && (weights.is_given() || aggregate.is_given()))
            || (stores && with_scores.is_given())
        {
            return Err(CommandError::SYNTAX);
        }
        let weights = match weights.values() {
            None => vec![1.0; keys.len()],
            Some(weights) => weights.from(0).map(parse_weight).collect::<Result<_, _>>()?,
        };
        let aggregate = match aggregate.value() {
            Some(name) if options::is(name, "min") => Aggregate::Min,
            Some(name) if options::is(name, "max") => Aggregate::Max,
            _ => Aggregate::Sum,
        };
        Ok(Request { operation, keys, weights, aggregate, with_scores: with_scores.is_given() })
    }

    /// The members of the result, in its order.
    fn compute(&self, context: &mut Context<'_>) -> Result<Vec<(Vec<u8>, Score)>, CommandError> {
        let mut found = match self.operation {
            Operation::Union => self.union(context)?,
            Operation::Intersection => self.intersection(context)?,
            Operation::Difference => self.difference(context)?,
        };
        context.spend_elements(2 * found.len());
        // The members are in order already.
        let mut members: Vec<(Vec<u8>, Score)> = Vec::with_capacity(found.len());
        while let Some((member, score)) = found.pop_first() {
            members.extend(Score::new(score).map(|score| (member, score)));
        }
        members.sort_by_key(|(_, score)| *score);
        Ok(members)
    }

    fn union(&self, context: &mut Context<'_>) -> Result<Scores, CommandError> {
        let mut union = Scores::new();
        for (key, weight) in self.keys.iter().zip(&self.weights) {
            for (member, score) in scores(context, key)? {
                let score = number_or_zero(score * weight);
                let sum = union.entry(member).and_modify(|sum| *sum = self.aggregate.of(*sum, score));
                sum.or_insert(score);
            }
        }
        Ok(union)
    }

    fn intersection(&self, context: &mut Context<'_>) -> Result<Scores, CommandError> {
        // The smallest first, as in Redis: the order of additions changes sums of doubles.
        let mut order = Vec::with_capacity(self.keys.len());
        for (key, weight) in self.keys.iter().zip(&self.weights) {
            order.push((read_scores(context, key, |source| source.len())?, *key, *weight));
        }
        order.sort_by_key(|(len, ..)| *len);
        let smallest = order.first().map_or(0, |(len, ..)| *len);
        if smallest == 0 {
            return Ok(Scores::new());
        }
        values::leave_thread_for(smallest);
        let mut common: Option<Scores> = None;
        for (_, key, weight) in order {
            let Some(common) = &mut common else {
                let weighted = |(member, score)| (member, number_or_zero(score * weight));
                let scores = inspect_scores(context, key, |source| source.scores())?;
                context.spend_elements(2 * scores.len());
                common = Some(scores.into_iter().map(weighted).collect());
                continue;
            };
            context.spend_elements(common.len());
            inspect_scores(context, key, |source| {
                common.retain(|member, sum| match source.score(member) {
                    Some(score) => {
                        *sum = self.aggregate.of(*sum, number_or_zero(score * weight));
                        true
                    }
                    None => false,
                });
            })?;
        }
        Ok(common.unwrap_or_default())
    }

    fn difference(&self, context: &mut Context<'_>) -> Result<Scores, CommandError> {
        let Some((first, others)) = self.keys.split_first() else { return Ok(Scores::new()) };
        let mut left: Scores = scores(context, first)?.into_iter().collect();
        for key in others {
            context.spend_elements(left.len());
            read_scores(context, key, |source| left.retain(|member, _| source.score(member).is_none()))?;
        }
        Ok(left)
    }
}

/// Members with their scores.
type Scores = BTreeMap<Vec<u8>, f64>;

/// A value whose members have scores, or none.
enum Source<'a> {
    Missing,
    Value(&'a Value),
}

impl Source<'_> {
    fn len(&self) -> usize {
        match self {
            Source::Missing => 0,
            Source::Value(value) => value.len(),
        }
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Source::Value(Value::SortedSet(sorted)) => sorted.score(member).map(Score::get),
            Source::Value(Value::Set(set)) => set.contains(member).then_some(1.0),
            _ => None,
        }
    }

    fn scores(&self) -> Vec<(Vec<u8>, f64)> {
        match self {
            Source::Value(Value::SortedSet(sorted)) => {
                let members = sorted.range(0..sorted.len());
                members.map(|(member, score)| (member.to_vec(), score.get())).collect()
            }
            Source::Value(Value::Set(set)) => set.iter().map(|member| (member.to_vec(), 1.0)).collect(),
            _ => Vec::new(),
        }
    }
}

/// Reads a sorted set or a set, which counts as a lookup. `read` runs under the guard of the key.
fn read_scores<R>(
    context: &Context<'_>,
    key: &[u8],
    read: impl FnOnce(&Source<'_>) -> R,
) -> Result<R, CommandError> {
    let (exists, result) =
        inspect_scores(context, key, |source| (!matches!(source, Source::Missing), read(source)))?;
    context.count_lookup(exists);
    Ok(result)
}

/// [`read_scores()`] without counting, for a key that has been read already.
fn inspect_scores<R>(
    context: &Context<'_>,
    key: &[u8],
    read: impl FnOnce(&Source<'_>) -> R,
) -> Result<R, CommandError> {
    let Some(name) = name_or_none(context, key)? else { return Ok(read(&Source::Missing)) };
    context.txn.read_key(&name, |content, _| match (content.kind(), content.value()) {
        (None, _) => Ok(read(&Source::Missing)),
        (Some(KeyKind::Value(_)), Some(value @ (Value::Set(_) | Value::SortedSet(_)))) => {
            Ok(read(&Source::Value(value)))
        }
        _ => Err(CommandError::WRONG_TYPE),
    })?
}

fn scores(context: &mut Context<'_>, key: &[u8]) -> Result<Vec<(Vec<u8>, f64)>, CommandError> {
    // In an exclusive transaction, the guard of the key delays no other client.
    let scores = read_scores(context, key, |source| {
        values::leave_thread_for(source.len());
        source.scores()
    })?;
    context.spend_elements(2 * scores.len());
    Ok(scores)
}

/// Replaces what a key holds by a sorted set of these members. Returns their number.
pub(super) fn store(
    context: &mut Context<'_>,
    destination: &[u8],
    members: &[(Vec<u8>, Score)],
) -> Result<Reply, CommandError> {
    context.spend_elements(2 * members.len());
    values::replace::<SortedSet, _>(context, destination, |mut sorted| {
        for (member, score) in members {
            sorted.insert(member, *score);
        }
    })?;
    Ok(Reply::count(members.len()))
}

fn combine(
    context: &mut Context<'_>,
    args: Args<'_>,
    operation: Operation,
    name: &str,
) -> Result<Reply, CommandError> {
    let request = type_first(context, args, 1, name, Request::parse(operation, args, 1, name))?;
    let members = context.atomically_on_keys(args, |context| request.compute(context))?;
    let members = members.into_iter();
    Ok(match request.with_scores {
        true => Reply::Pairs(members.map(|(name, score)| (Reply::Bulk(name), score_reply(score))).collect()),
        false => Reply::Array(members.map(|(name, _)| Reply::Bulk(name)).collect()),
    })
}

fn combine_and_store(
    context: &mut Context<'_>,
    args: Args<'_>,
    operation: Operation,
    name: &str,
) -> Result<Reply, CommandError> {
    let request = type_first(context, args, 2, name, Request::parse(operation, args, 2, name))?;
    context.check_transaction_budget()?;
    context.atomically_on_keys(args, |context| {
        let members = request.compute(context)?;
        store(context, args.at(1), &members)
    })
}

fn zunion(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine(context, args, Operation::Union, "zunion")
}

fn zunionstore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine_and_store(context, args, Operation::Union, "zunionstore")
}

fn zinter(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine(context, args, Operation::Intersection, "zinter")
}

fn zinterstore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine_and_store(context, args, Operation::Intersection, "zinterstore")
}

fn zdiff(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine(context, args, Operation::Difference, "zdiff")
}

fn zdiffstore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    combine_and_store(context, args, Operation::Difference, "zdiffstore")
}

fn zintercard(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (keys, next) = counted_keys(args, 1, "zintercard")?;
    let options = args.options(next, &[value("LIMIT").check(values::check_limit)]);
    let limit = options.and_then(|[limit]| values::limit_of(limit));
    let limit = type_first(context, args, 1, "zintercard", limit)?;
    let weights = vec![1.0; keys.len()];
    let (operation, aggregate) = (Operation::Intersection, Aggregate::Sum);
    let request = Request { operation, keys, weights, aggregate, with_scores: false };
    let common = context.atomically_on_keys(args, |context| request.intersection(context))?;
    Ok(Reply::count(common.len().min(limit)))
}
