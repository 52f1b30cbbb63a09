//! Sorted sets: members ordered by score.

mod combine;
mod range;

use super::options::{self, OptionSpec, flag};
use super::parts::Join;
use super::values::{self, Choice, Random, positive_count};
use super::{Args, Command, CommandError, Context, Flags, Group, Handler, KeyAccess, KeySpec};
use crate::reply::{Reply, double};
use crate::value::{Score, SetScore, SortedSet, SortedSetEdit};

pub(in crate::command) const COMMANDS: &[Command] = &[
    write("zadd", -4, zadd, Flags::DENYOOM | Flags::FAST)
        .in_parts(first_score, 2, Join::Sum)
        .syntax("key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]")
        .summary("Sets the scores of members. Returns the number of members that are new.")
        .example("ZADD queue 1 a 2 b"),
    write("zincrby", 4, zincrby, Flags::DENYOOM | Flags::FAST)
        .event("zincr")
        .keys(KeySpec::first(KeyAccess::ReadWrite))
        .syntax("key increment member")
        .summary("Adds to the score of a member, 0 if there is none. Returns the sum.")
        .example("ZINCRBY queue 5 a"),
    write("zrem", -3, zrem, Flags::FAST)
        .in_parts(|_| 2, 1, Join::Sum)
        .syntax("key member [member ...]")
        .summary("Removes members. Returns the number of removed members.")
        .example("ZREM queue a"),
    read("zcard", 2, zcard, Flags::FAST)
        .syntax("key")
        .summary("Returns the number of members.")
        .example("ZCARD queue"),
    read("zscore", 3, zscore, Flags::FAST)
        .syntax("key member")
        .summary("Returns the score of a member, or Null.")
        .example("ZSCORE queue a"),
    read("zmscore", -3, zmscore, Flags::FAST)
        .in_parts(|_| 2, 1, Join::Append)
        .syntax("key member [member ...]")
        .summary("Returns the scores of members, each Null if the member does not exist.")
        .example("ZMSCORE queue a b"),
    read("zrank", -3, zrank, Flags::FAST)
        .syntax("key member [WITHSCORE]")
        .summary("Returns the number of members with a lower rank, or Null; with WITHSCORE, the score, too.")
        .example("ZRANK queue a"),
    read("zrevrank", -3, zrevrank, Flags::FAST)
        .syntax("key member [WITHSCORE]")
        .summary("Returns the number of members with a higher rank, or Null; with WITHSCORE, the score, too.")
        .example("ZREVRANK queue a"),
    write("zpopmin", -2, zpopmin, Flags::FAST)
        .keys(KeySpec::first(KeyAccess::ReadWrite))
        .syntax("key [count]")
        .summary("Removes the members with the lowest scores and returns them.")
        .example("ZPOPMIN queue"),
    write("zpopmax", -2, zpopmax, Flags::FAST)
        .keys(KeySpec::first(KeyAccess::ReadWrite))
        .syntax("key [count]")
        .summary("Removes the members with the highest scores and returns them.")
        .example("ZPOPMAX queue"),
    write("zmpop", -4, zmpop, Flags::NONE)
        .keys(KeySpec::Counted { count: 1, access: KeyAccess::ReadWrite })
        .syntax("numkeys key [key ...] <MIN | MAX> [COUNT count]")
        .summary("Removes members from the first sorted set that has any, and returns them.")
        .example("ZMPOP 2 urgent queue MIN COUNT 10"),
    read("zrandmember", -2, zrandmember, Flags::NONE)
        .syntax("key [count [WITHSCORES]]")
        .summary("Returns random members; for a negative count, the same may occur again.")
        .example("ZRANDMEMBER queue 2 WITHSCORES"),
    read("zscan", -3, zscan, Flags::NONE)
        .syntax("key cursor [MATCH pattern] [COUNT count]")
        .summary("Iterates over the members and scores of a sorted set.")
        .example("ZSCAN queue 0 COUNT 100"),
    range::ZRANGE,
    range::ZREVRANGE,
    range::ZRANGEBYSCORE,
    range::ZREVRANGEBYSCORE,
    range::ZRANGEBYLEX,
    range::ZREVRANGEBYLEX,
    range::ZRANGESTORE,
    range::ZCOUNT,
    range::ZLEXCOUNT,
    range::ZREMRANGEBYRANK,
    range::ZREMRANGEBYSCORE,
    range::ZREMRANGEBYLEX,
    combine::ZUNION,
    combine::ZUNIONSTORE,
    combine::ZINTER,
    combine::ZINTERCARD,
    combine::ZINTERSTORE,
    combine::ZDIFF,
    combine::ZDIFFSTORE,
];

const fn write(name: &'static str, arity: i8, handler: Handler, flags: u16) -> Command {
    Command::new(name, arity, handler)
        .group(Group::SortedSet)
        .flags(Flags::WRITE | flags)
        .event(name)
        .keys(KeySpec::first(KeyAccess::Write))
}

const fn read(name: &'static str, arity: i8, handler: Handler, flags: u16) -> Command {
    Command::new(name, arity, handler)
        .group(Group::SortedSet)
        .flags(Flags::READONLY | flags)
        .keys(KeySpec::first(KeyAccess::Read))
}

fn parse_score(arg: &[u8]) -> Result<Score, CommandError> {
    let score = double::parse(arg).and_then(Score::new);
    score.ok_or(CommandError::fixed("ERR value is not a valid float"))
}

fn score_reply(score: Score) -> Reply {
    Reply::Double(score.get())
}

fn pair((member, score): (&[u8], Score)) -> (Reply, Reply) {
    (Reply::bulk(member), score_reply(score))
}

/// What ZADD may change, and how.
#[derive(Debug, Clone, Copy, Default)]
struct Rules {
    only_new: bool,
    only_existing: bool,
    only_greater: bool,
    only_less: bool,
    increments: bool,
}

impl Rules {
    /// Sets one score. Returns what that did and the score, or `None` if the rules forbid it.
    fn apply(
        self,
        sorted: &mut SortedSetEdit<'_>,
        member: &[u8],
        score: Score,
    ) -> Result<Option<(SetScore, Score)>, CommandError> {
        const NAN: CommandError = CommandError::fixed("ERR resulting score is not a number (NaN)");
        let old = sorted.score(member);
        if if old.is_some() { self.only_new } else { self.only_existing } {
            return Ok(None);
        }
        let score = match old {
            Some(old) if self.increments => old.checked_add(score).ok_or(NAN)?,
            _ => score,
        };
        let is_forbidden = |old| (self.only_greater && score <= old) || (self.only_less && score >= old);
        if old.is_some_and(is_forbidden) {
            return Ok(None);
        }
        Ok(Some((sorted.insert(member, score), score)))
    }
}

const ZADD_OPTIONS: [OptionSpec; 6] =
    [flag("NX"), flag("XX"), flag("GT"), flag("LT"), flag("CH"), flag("INCR")];

/// The position of the first score of a ZADD.
fn first_score(args: Args<'_>) -> usize {
    args.leading_options(2, &ZADD_OPTIONS).map_or(2, |(_, first)| first)
}

fn zadd(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (given, first) = args.leading_options(2, &ZADD_OPTIONS)?;
    let [only_new, only_existing, only_greater, only_less, counts_changed, increments] =
        given.map(|option| option.is_given());
    let rules = Rules { only_new, only_existing, only_greater, only_less, increments };
    let pairs = args.len() - first;
    if pairs == 0 || pairs % 2 == 1 {
        return Err(CommandError::SYNTAX);
    }
    if only_new && only_existing {
        return Err(CommandError::fixed("ERR XX and NX options at the same time are not compatible"));
    }
    if (only_greater && only_less) || (only_new && (only_greater || only_less)) {
        return Err(CommandError::fixed("ERR GT, LT, and/or NX options at the same time are not compatible"));
    }
    if increments && pairs > 2 {
        return Err(CommandError::fixed("ERR INCR option supports a single increment-element pair"));
    }
    let scores: Vec<Score> =
        args.from(first).step_by(2).map(parse_score).collect::<Result<_, CommandError>>()?;
    let members = args.from(first + 1).step_by(2);
    context.spend_elements(pairs);
    if increments {
        context.txn.set_event("zincr");
    }
    let (mut added, mut updated, mut last) = (0, 0, None);
    let apply = |mut sorted: SortedSetEdit<'_>| -> Result<(), CommandError> {
        for (score, member) in scores.into_iter().zip(members) {
            let done = rules.apply(&mut sorted, member, score)?;
            added += usize::from(matches!(done, Some((SetScore::Added, _))));
            updated += usize::from(matches!(done, Some((SetScore::Updated, _))));
            last = done.map(|(_, score)| score);
        }
        Ok(())
    };
    if only_existing {
        values::edit_existing::<SortedSet, _>(context, args.at(1), apply)?.unwrap_or(Ok(()))?;
    } else {
        values::edit::<SortedSet, _>(context, args.at(1), apply)??;
    }
    Ok(match increments {
        true => last.map_or(Reply::Null, score_reply),
        false => Reply::count(if counts_changed { added + updated } else { added }),
    })
}

fn zincrby(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    // To Redis, this is ZADD, whose options come before the score.
    if args.leading_options(2, &ZADD_OPTIONS)?.1 > 2 {
        return Err(CommandError::SYNTAX);
    }
    let increment = parse_score(args.at(2))?;
    let rules = Rules { increments: true, ..Rules::default() };
    let done = values::edit::<SortedSet, _>(context, args.at(1), |mut sorted| {
        rules.apply(&mut sorted, args.at(3), increment)
    })??;
    Ok(done.map_or(Reply::Null, |(_, score)| score_reply(score)))
}

fn zrem(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.spend_elements(args.len());
    let removed = values::edit_existing::<SortedSet, _>(context, args.at(1), |mut sorted| {
        args.from(2).filter(|member| sorted.remove(member)).count()
    })?;
    Ok(Reply::count(removed.unwrap_or(0)))
}

fn zcard(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::read(context, args.at(1), |sorted: &SortedSet| Reply::count(sorted.len()))
}

fn zscore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::read(context, args.at(1), |sorted: &SortedSet| {
        sorted.score(args.at(2)).map_or(Reply::Null, score_reply)
    })
}

fn zmscore(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    context.spend_elements(args.len());
    values::read(context, args.at(1), |sorted: &SortedSet| {
        let scores = args.from(2).map(|member| sorted.score(member));
        Reply::Array(scores.map(|score| score.map_or(Reply::Null, score_reply)).collect())
    })
}

fn zrank(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    rank_from(End::Lowest, "zrank", context, args)
}

fn zrevrank(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    rank_from(End::Highest, "zrevrank", context, args)
}

fn rank_from(
    end: End,
    command: &str,
    context: &mut Context<'_>,
    args: Args<'_>,
) -> Result<Reply, CommandError> {
    if args.len() > 4 {
        return Err(CommandError::arity(command));
    }
    let [with_score] = args.options(3, &[flag("WITHSCORE")])?;
    values::read(context, args.at(1), |sorted: &SortedSet| {
        let Some((rank, score)) = sorted.rank(args.at(2)).zip(sorted.score(args.at(2))) else {
            return if with_score.is_given() { Reply::NullArray } else { Reply::Null };
        };
        let rank = Reply::count(match end {
            End::Lowest => rank,
            End::Highest => sorted.len() - 1 - rank,
        });
        if with_score.is_given() { Reply::Array(vec![rank, score_reply(score)]) } else { rank }
    })
}

/// An end of a sorted set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Lowest,
    Highest,
}

impl End {
    /// Takes at most `count` members out, starting at this end.
    fn pop(self, mut sorted: SortedSetEdit<'_>, count: usize) -> Vec<(Reply, Reply)> {
        let len = sorted.len();
        let mut popped = match self {
            End::Lowest => sorted.remove_range(0..count.min(len)),
            End::Highest => sorted.remove_range(len.saturating_sub(count)..len),
        };
        if self == End::Highest {
            popped.reverse();
        }
        popped.iter().map(|(member, score)| pair((member, *score))).collect()
    }
}

fn pop(context: &mut Context<'_>, args: Args<'_>, end: End) -> Result<Reply, CommandError> {
    let count = match args.len() {
        2 => None,
        3 => Some(positive_count(args.at(2))?),
        _ => return Err(CommandError::SYNTAX),
    };
    let wanted = count.unwrap_or(1);
    let visits = |sorted: &SortedSet| wanted.min(sorted.len());
    let popped = values::edit_existing_many(context, args.at(1), visits, |sorted| end.pop(sorted, wanted))?;
    let popped = popped.unwrap_or_default();
    context.spend_elements(2 * popped.len());
    Ok(match count {
        Some(_) => Reply::Pairs(popped),
        None => Reply::Array(popped.into_iter().flat_map(|(member, score)| [member, score]).collect()),
    })
}

fn zpopmin(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop(context, args, End::Lowest)
}

fn zpopmax(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop(context, args, End::Highest)
}

fn zmpop(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (keys, next) = values::counted_keys(args, 1, CommandError::SYNTAX)?;
    let end = match args.at(next) {
        arg if options::is(arg, "min") => End::Lowest,
        arg if options::is(arg, "max") => End::Highest,
        _ => return Err(CommandError::SYNTAX),
    };
    let count = values::pop_count(args, next + 1)?;
    context.txn.set_event(if end == End::Lowest { "zpopmin" } else { "zpopmax" });
    values::edit_keys(context, args, &keys, |context| {
        for key in &keys {
            let visits = |sorted: &SortedSet| count.min(sorted.len());
            let popped = values::edit_existing_many(context, key, visits, |sorted| end.pop(sorted, count))?;
            if let Some(members) = popped {
                context.spend_elements(2 * members.len());
                let members = members.into_iter().map(|(member, score)| Reply::Array(vec![member, score]));
                return Ok(Reply::Array(vec![Reply::bulk(key), Reply::Array(members.collect())]));
            }
        }
        Ok(Reply::NullArray)
    })
}

fn zrandmember(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let choice = if args.len() > 2 { Some(Choice::parse(args.at(2))?) } else { None };
    let with_scores = match args.len() {
        ..=3 => false,
        4 if options::is(args.at(3), "withscores") => true,
        _ => return Err(CommandError::SYNTAX),
    };
    let mut random = Random::new(context);
    let (len, reply) = values::read_many(
        context,
        args.at(1),
        |sorted: &SortedSet| Choice::amount(choice, sorted.len()),
        |sorted: &SortedSet| {
            let ranks = choice.unwrap_or(Choice::Distinct(1)).indexes(sorted.len(), &mut random);
            let mut chosen = ranks.iter().filter_map(|rank| sorted.range(*rank..*rank + 1).next());
            let reply = match choice {
                None => values::bulk_or_null(chosen.next().map(|(member, _)| member)),
                Some(_) if with_scores => Reply::Pairs(chosen.map(pair).collect()),
                Some(_) => values::bulks(chosen.map(|(member, _)| member)),
            };
            (ranks.len(), reply)
        },
    )?;
    context.spend_elements(len);
    Ok(reply)
}

fn zscan(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    values::scan(context, args, |sorted: &SortedSet, cursor, count| {
        let (next, members) = sorted.scan(cursor, count);
        let digits = |score: Score| double::format(score.get(), SCORE_DIGITS).into_bytes();
        (next, members.map(|(member, score)| (member.to_vec(), Some(digits(score)))).collect())
    })
}

/// Digits of a score as text, as of `Reply::Double` in RESP2.
const SCORE_DIGITS: usize = 17;
