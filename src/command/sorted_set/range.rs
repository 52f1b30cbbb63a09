//! The range commands of sorted sets: by rank, by score, and by the bytes of members.

use std::ops::{Bound, Range};

use super::{pair, read, write};
use crate::command::options::{self, OptionSpec, flag};
use crate::command::sources::{Source, Stored, of_type};
use crate::command::values;
use crate::command::{Args, Command, CommandError, Context, Flags, KeyAccess, KeySpec};
use crate::reply::{Reply, double};
use crate::value::{Kind, LexBound, Score, SortedSet, SortedSetEdit};

pub(super) const ZRANGE: Command = read("zrange", -4, zrange, Flags::NONE)
    .syntax("key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]")
    .summary("Returns the members in a range of ranks, scores or names.")
    .example("ZRANGE queue 0 -1 WITHSCORES");

pub(super) const ZREVRANGE: Command = read("zrevrange", -4, zrevrange, Flags::NONE)
    .syntax("key start stop [WITHSCORES]")
    .summary("Returns the members in a range of ranks, the highest first.")
    .example("ZREVRANGE queue 0 9");

pub(super) const ZRANGEBYSCORE: Command = read("zrangebyscore", -4, zrangebyscore, Flags::NONE)
    .syntax("key min max [WITHSCORES] [LIMIT offset count]")
    .summary("Returns the members in a range of scores.")
    .example("ZRANGEBYSCORE queue -inf (5 LIMIT 0 10");

pub(super) const ZREVRANGEBYSCORE: Command = read("zrevrangebyscore", -4, zrevrangebyscore, Flags::NONE)
    .syntax("key max min [WITHSCORES] [LIMIT offset count]")
    .summary("Returns the members in a range of scores, the highest first.")
    .example("ZREVRANGEBYSCORE queue +inf 5");

pub(super) const ZRANGEBYLEX: Command = read("zrangebylex", -4, zrangebylex, Flags::NONE)
    .syntax("key min max [LIMIT offset count]")
    .summary("Returns the members in a range of names, if all have the same score.")
    .example("ZRANGEBYLEX names [a (b");

pub(super) const ZREVRANGEBYLEX: Command = read("zrevrangebylex", -4, zrevrangebylex, Flags::NONE)
    .syntax("key max min [LIMIT offset count]")
    .summary("Returns the members in a range of names, the last first.")
    .example("ZREVRANGEBYLEX names + [b");

pub(super) const ZRANGESTORE: Command =
    write("zrangestore", -5, zrangestore, Flags::DENYOOM | Flags::LOOKS_UP)
        .keys(KeySpec::Two(KeyAccess::Write, KeyAccess::Read))
        .syntax("destination source start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count]")
        .summary("Stores the members in a range of a sorted set. Returns their number.")
        .example("ZRANGESTORE due queue -inf 100 BYSCORE");

pub(super) const ZCOUNT: Command = read("zcount", 4, zcount, Flags::FAST)
    .syntax("key min max")
    .summary("Returns the number of members in a range of scores.")
    .example("ZCOUNT queue 1 (5");

pub(super) const ZLEXCOUNT: Command = read("zlexcount", 4, zlexcount, Flags::FAST)
    .syntax("key min max")
    .summary("Returns the number of members in a range of names.")
    .example("ZLEXCOUNT names [a (b");

pub(super) const ZREMRANGEBYRANK: Command = write("zremrangebyrank", 4, zremrangebyrank, Flags::NONE)
    .syntax("key start stop")
    .summary("Removes the members in a range of ranks. Returns their number.")
    .example("ZREMRANGEBYRANK queue 0 9");

pub(super) const ZREMRANGEBYSCORE: Command = write("zremrangebyscore", 4, zremrangebyscore, Flags::NONE)
    .syntax("key min max")
    .summary("Removes the members in a range of scores. Returns their number.")
    .example("ZREMRANGEBYSCORE queue -inf 100");

pub(super) const ZREMRANGEBYLEX: Command = write("zremrangebylex", 4, zremrangebylex, Flags::NONE)
    .syntax("key min max")
    .summary("Removes the members in a range of names. Returns their number.")
    .example("ZREMRANGEBYLEX names [a (b");

/// What the ends of a range are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// A range of members.
#[derive(Debug, Clone, Copy)]
enum Selection<'a> {
    /// From the start, or from the end if the order is descending.
    Ranks(i64, i64),
    Scores(Bound<Score>, Bound<Score>),
    Names(LexBound<'a>, LexBound<'a>),
}

impl<'a> Selection<'a> {
    fn parse(by: By, start: &'a [u8], stop: &'a [u8]) -> Result<Selection<'a>, CommandError> {
        Ok(match by {
            By::Rank => Selection::Ranks(options::integer(start)?, options::integer(stop)?),
            By::Score => Selection::Scores(score_bound(start)?, score_bound(stop)?),
            By::Lex => Selection::Names(lex_bound(start)?, lex_bound(stop)?),
        })
    }

    /// The ranks of the members, counted from the start.
    fn ranks(self, sorted: &SortedSet, descending: bool) -> Range<usize> {
        match self {
            Selection::Ranks(start, stop) => {
                let Range { start, end } = values::index_range(start, stop, sorted.len());
                if descending { sorted.len() - end..sorted.len() - start } else { start..end }
            }
            Selection::Scores(min, max) => sorted.ranks_by_score((min, max)),
            Selection::Names(min, max) => sorted.ranks_by_lex(min, max),
        }
    }
}

fn score_bound(arg: &[u8]) -> Result<Bound<Score>, CommandError> {
    // C's `strtod` reads up to a NUL, and nothing as 0.
    let score = |text: &[u8]| {
        let text = options::up_to_nul(text);
        let number = if text.is_empty() { Some(0.0) } else { double::parse_rounded(text.trim_ascii_start()) };
        let score = number.and_then(Score::new);
        score.ok_or(CommandError::fixed("ERR min or max is not a float"))
    };
    match arg.strip_prefix(b"(") {
        Some(excluded) => score(excluded).map(Bound::Excluded),
        None => score(arg).map(Bound::Included),
    }
}

fn lex_bound(arg: &[u8]) -> Result<LexBound<'_>, CommandError> {
    match arg {
        b"-" => Ok(LexBound::Lowest),
        b"+" => Ok(LexBound::Highest),
        [b'[', name @ ..] => Ok(LexBound::Included(name)),
        [b'(', name @ ..] => Ok(LexBound::Excluded(name)),
        _ => Err(CommandError::fixed("ERR min or max not valid string range item")),
    }
}

/// A request for the members in a range.
#[derive(Debug, Clone, Copy)]
struct Request<'a> {
    selection: Selection<'a>,
    descending: bool,
    /// Members to leave out at the start of the result, and how many to return.
    limit: (usize, usize),
    with_scores: bool,
}

impl Request<'_> {
    /// The number of members that are read.
    fn count(&self, sorted: &SortedSet) -> usize {
        let ranks = self.selection.ranks(sorted, self.descending);
        ranks.len().saturating_sub(self.limit.0).min(self.limit.1)
    }

    /// The members in the order of the result.
    fn members<'s>(&self, sorted: &'s SortedSet) -> impl Iterator<Item = (&'s [u8], Score)> + use<'s> {
        let ranks = self.selection.ranks(sorted, self.descending);
        let (offset, count) = (self.limit.0.min(ranks.len()), self.limit.1);
        let count = count.min(ranks.len() - offset);
        let (ascending, descending) = if self.descending {
            let end = ranks.end - offset;
            (None, Some(sorted.range_descending(end - count..end)))
        } else {
            let start = ranks.start + offset;
            (Some(sorted.range(start..start + count)), None)
        };
        ascending.into_iter().flatten().chain(descending.into_iter().flatten())
    }
}

/// What a command leaves to its options: nothing, or the kind of range and the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Fixed { by: By, descending: bool },
    Free { stores: bool },
}

const BY: u8 = 1;
const OPTIONS: [OptionSpec; 5] = [
    flag("WITHSCORES"),
    options::values("LIMIT", 2).integer(),
    flag("BYSCORE").group(BY).once(),
    flag("BYLEX").group(BY).once(),
    flag("REV").once(),
];

/// Parses a request whose range starts at argument `first`.
fn parse(args: Args<'_>, first: usize, form: Form) -> Result<Request<'_>, CommandError> {
    let [with_scores, limit, by_score, by_lex, rev] = args.options(first + 2, &OPTIONS)?;
    let has_free_option = [by_score, by_lex, rev].iter().any(|option| option.is_given());
    let (by, descending) = match form {
        Form::Fixed { .. } if has_free_option => return Err(CommandError::SYNTAX),
        Form::Free { stores: true } if with_scores.is_given() => return Err(CommandError::SYNTAX),
        Form::Fixed { by, descending } => (by, descending),
        Form::Free { .. } if by_score.is_given() => (By::Score, rev.is_given()),
        Form::Free { .. } if by_lex.is_given() => (By::Lex, rev.is_given()),
        Form::Free { .. } => (By::Rank, rev.is_given()),
    };
    // Redis does not notice a limit of -1, which is none.
    let is_limited = limit.values().is_some_and(|limit| limit.at(1) != b"-1");
    if is_limited && by == By::Rank {
        return Err(CommandError::fixed(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    if with_scores.is_given() && by == By::Lex {
        return Err(CommandError::fixed(
            "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
        ));
    }
    let limit = match limit.values() {
        None => (0, usize::MAX),
        Some(_) if by == By::Rank => (0, usize::MAX),
        // A negative offset is beyond every member; a negative count is no limit.
        Some(limit) => (
            usize::try_from(options::integer(limit.at(0))?).unwrap_or(usize::MAX),
            usize::try_from(options::integer(limit.at(1))?).unwrap_or(usize::MAX),
        ),
    };
    let (start, stop) = (args.at(first), args.at(first + 1));
    let (start, stop) = if descending && by != By::Rank { (stop, start) } else { (start, stop) };
    let selection = Selection::parse(by, start, stop)?;
    Ok(Request { selection, descending, limit, with_scores: with_scores.is_given() })
}

fn range(context: &mut Context<'_>, args: Args<'_>, form: Form) -> Result<Reply, CommandError> {
    let request = parse(args, 2, form)?;
    let count = |sorted: &SortedSet| request.count(sorted);
    let (len, reply) = values::read_many(context, args.at(1), count, |sorted| {
        let members = request.members(sorted);
        if request.with_scores {
            let pairs: Vec<_> = members.map(pair).collect();
            (2 * pairs.len(), Reply::Pairs(pairs))
        } else {
            let names: Vec<_> = members.map(|(member, _)| Reply::bulk(member)).collect();
            (names.len(), Reply::Array(names))
        }
    })?;
    context.spend_elements(len);
    Ok(reply)
}

fn zrange(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    range(context, args, Form::Free { stores: false })
}

fn zrevrange(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    range(context, args, Form::Fixed { by: By::Rank, descending: true })
}

fn zrangebyscore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    range(context, args, Form::Fixed { by: By::Score, descending: false })
}

fn zrevrangebyscore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    range(context, args, Form::Fixed { by: By::Score, descending: true })
}

fn zrangebylex(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    range(context, args, Form::Fixed { by: By::Lex, descending: false })
}

fn zrevrangebylex(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    range(context, args, Form::Fixed { by: By::Lex, descending: true })
}

fn source_of(sources: &[Source]) -> Option<&SortedSet> {
    sources.first().and_then(of_type)
}

fn zrangestore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let request = parse(args, 3, Form::Free { stores: true })?;
    let visits = |sources: &[Source]| source_of(sources).map_or(0, |sorted| request.count(sorted));
    let compute = |sources: &[Source]| {
        let members = source_of(sources).into_iter().flat_map(|sorted| request.members(sorted));
        super::combine::draft_of(members)
    };
    let (keys, kinds) = ([args.at(2)], &[Kind::SortedSet]);
    Stored { destination: args.at(1), keys: &keys, kinds, visits, compute }.store(context, args)
}

fn count(context: &mut Context<'_>, args: Args<'_>, by: By) -> Result<Reply, CommandError> {
    let selection = Selection::parse(by, args.at(2), args.at(3))?;
    values::read(context, args.at(1), |sorted: &SortedSet| Reply::count(selection.ranks(sorted, false).len()))
}

fn zcount(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    count(context, args, By::Score)
}

fn zlexcount(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    count(context, args, By::Lex)
}

fn remove(context: &mut Context<'_>, args: Args<'_>, by: By) -> Result<Reply, CommandError> {
    let selection = Selection::parse(by, args.at(2), args.at(3))?;
    let visits = |sorted: &SortedSet| selection.ranks(sorted, false).len();
    let removed =
        values::edit_existing_many(context, args.at(1), visits, |mut sorted: SortedSetEdit<'_>| {
            let ranks = selection.ranks(&sorted, false);
            sorted.remove_range(ranks).len()
        })?;
    let removed = removed.unwrap_or(0);
    context.spend_elements(removed);
    Ok(Reply::count(removed))
}

fn zremrangebyrank(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    remove(context, args, By::Rank)
}

fn zremrangebyscore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    remove(context, args, By::Score)
}

fn zremrangebylex(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    remove(context, args, By::Lex)
}
