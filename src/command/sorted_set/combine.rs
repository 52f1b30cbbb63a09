//! Unions, intersections and differences of sorted sets. A set counts as a sorted set whose members
//! all have score 1.

use std::collections::BTreeMap;

use super::{read, score_reply, write};
use crate::command::options::{self, OptionSpec, flag, value};
use crate::command::sources::{self, Operation, Source, Stored, sources};
use crate::command::values;
use crate::command::{Args, Command, CommandError, Context, Flags, KeyAccess, KeySpec, KeyVisitor};
use crate::engine::Draft;
use crate::reply::{Reply, double};
use crate::value::{Kind, Score, SortedSet, Value};

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
            sources::check_type(context, key, KINDS)?;
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
    fn members(&self, sources: &[Source]) -> Vec<(Vec<u8>, Score)> {
        let mut found = match self.operation {
            Operation::Union => self.union(sources),
            Operation::Intersection => self.intersection(sources),
            Operation::Difference => difference(sources),
        };
        // The members are in order already.
        let mut members: Vec<(Vec<u8>, Score)> = Vec::with_capacity(found.len());
        while let Some((member, score)) = found.pop_first() {
            members.extend(Score::new(score).map(|score| (member, score)));
        }
        members.sort_by_key(|(_, score)| *score);
        members
    }

    fn union(&self, sources: &[Source]) -> Scores {
        let mut union = Scores::new();
        for (source, weight) in sources.iter().zip(&self.weights) {
            for (member, score) in scores(source) {
                let score = number_or_zero(score * weight);
                let sum = union.entry(member).and_modify(|sum| *sum = self.aggregate.of(*sum, score));
                sum.or_insert(score);
            }
        }
        union
    }

    fn intersection(&self, sources: &[Source]) -> Scores {
        // The smallest first, as in Redis: the order of additions changes sums of doubles.
        let mut order: Vec<(&Source, f64)> = sources.iter().zip(self.weights.iter().copied()).collect();
        order.sort_by_key(|(source, _)| sources::len(source));
        let Some(((smallest, weight), others)) = order.split_first() else { return Scores::new() };
        let weighted = |(member, score)| (member, number_or_zero(score * weight));
        let mut common: Scores = scores(smallest).into_iter().map(weighted).collect();
        for (source, weight) in others {
            common.retain(|member, sum| match score_in(source, member) {
                Some(score) => {
                    *sum = self.aggregate.of(*sum, number_or_zero(score * weight));
                    true
                }
                None => false,
            });
        }
        common
    }
}

fn difference(sources: &[Source]) -> Scores {
    let Some((first, others)) = sources.split_first() else { return Scores::new() };
    let is_left = |member: &[u8]| others.iter().all(|other| score_in(other, member).is_none());
    scores(first).into_iter().filter(|(member, _)| is_left(member)).collect()
}

/// Members with their scores.
type Scores = BTreeMap<Vec<u8>, f64>;

const KINDS: &[Kind] = &[Kind::SortedSet, Kind::Set];

/// The score of a member of a sorted set or a set.
fn score_in(source: &Source, member: &[u8]) -> Option<f64> {
    match source.as_deref()? {
        Value::SortedSet(sorted) => sorted.score(member).map(Score::get),
        Value::Set(set) => set.contains(member).then_some(1.0),
        _ => None,
    }
}

fn scores(source: &Source) -> Vec<(Vec<u8>, f64)> {
    match source.as_deref() {
        Some(Value::SortedSet(sorted)) => {
            let members = sorted.range(0..sorted.len());
            members.map(|(member, score)| (member.to_vec(), score.get())).collect()
        }
        Some(Value::Set(set)) => set.iter().map(|member| (member.to_vec(), 1.0)).collect(),
        _ => Vec::new(),
    }
}

/// A sorted set of these members.
pub(super) fn draft_of<M: AsRef<[u8]>>(members: impl IntoIterator<Item = (M, Score)>) -> Draft {
    values::draft::<SortedSet>(|mut sorted| {
        for (member, score) in members {
            sorted.insert(member.as_ref(), score);
        }
    })
}

fn combine(
    context: &mut Context<'_>,
    args: Args<'_>,
    operation: Operation,
    name: &str,
) -> Result<Reply, CommandError> {
    let request = type_first(context, args, 1, name, Request::parse(operation, args, 1, name))?;
    let visits = |sources: &[Source]| 2 * operation.visits(sources);
    let sources = sources(context, args, &request.keys, KINDS, visits)?;
    Ok(context.compute(visits(&sources), move || {
        let members = request.members(&sources).into_iter();
        match request.with_scores {
            true => {
                let pairs = members.map(|(name, score)| (Reply::Bulk(name), score_reply(score)));
                Reply::Pairs(pairs.collect())
            }
            false => Reply::Array(members.map(|(name, _)| Reply::Bulk(name)).collect()),
        }
    }))
}

fn combine_and_store(
    context: &mut Context<'_>,
    args: Args<'_>,
    operation: Operation,
    name: &str,
) -> Result<Reply, CommandError> {
    let request = type_first(context, args, 2, name, Request::parse(operation, args, 2, name))?;
    let visits = |sources: &[Source]| 2 * operation.visits(sources);
    let compute = |sources: &[Source]| draft_of(request.members(sources));
    Stored { destination: args.at(1), keys: &request.keys, kinds: KINDS, visits, compute }
        .store(context, args)
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
    let visits = |sources: &[Source]| 2 * operation.visits(sources);
    let sources = sources(context, args, &request.keys, KINDS, visits)?;
    Ok(context
        .compute(visits(&sources), move || Reply::count(request.intersection(&sources).len().min(limit))))
}
