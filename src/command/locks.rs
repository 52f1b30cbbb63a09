//! `LOCKS cursor [MATCH glob] [COUNT n]`, and SCAN, which is the same with Redis' TYPE.
//!
//! The next cursor and keys that are held. Every key held through the whole scan is returned.

use super::glob::Glob;
use super::steps::TURN_WORK;
use super::{Args, Command, CommandError, Context, Flags, Group, Progress, Run, Steps, args, keys};
use crate::domain::KEY_BYTES_MAX;
use crate::engine::{Scan, Scanned};
use crate::reply::{Bulks, Reply};

pub(super) const LOCKS: Command = Command {
    name: "locks",
    syntax: "cursor [MATCH pattern] [COUNT count]",
    summary: "Goes through the locks that are held, as SCAN does.",
    group: Group::Lock,
    arity: -2,
    flags: Flags::READONLY,
    keys: (0, 0, 0),
    run: Run::Handler(|context, words| run(context, words, false)),
};

pub(super) const SCAN: Command = Command {
    name: "scan",
    syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    summary: "Goes through the keys of this database.",
    group: Group::Generic,
    arity: -2,
    flags: Flags::READONLY,
    keys: (0, 0, 0),
    run: Run::Handler(|context, words| run(context, words, true)),
};

/// Keys looked at for one call, whatever COUNT says.
const COUNT_MAX: i64 = 1_000;
const COUNT_DEFAULT: usize = 10;
/// Entries looked at for one call, those of other databases included: a database with few keys beside a large
/// one is scanned in several calls.
const LOOKED_MAX: usize = 10_000;

fn run(context: &mut Context<'_>, words: Args<'_>, has_type: bool) -> Result<Reply, CommandError> {
    let cursor = std::str::from_utf8(words.word(1)).ok().and_then(|text| text.parse::<i128>().ok());
    let cursor = cursor.ok_or(CommandError::fixed("ERR invalid cursor"))?;
    // No scan answers a larger cursor, or a negative one: nothing is behind them.
    let cursor = u64::try_from(cursor).unwrap_or(u64::MAX).min((1 << 48) - 1);
    let (mut pattern, mut count, mut kind) = (None, COUNT_DEFAULT, None);
    let mut options = words.options(2);
    while let Some(word) = options.next_word() {
        if args::is(word, "match") {
            pattern = Some(Glob::new(options.value()?)?);
        } else if args::is(word, "count") {
            let wanted = options.integer()?;
            if wanted < 1 {
                return Err(CommandError::SYNTAX);
            }
            count = wanted.min(COUNT_MAX) as usize;
        } else if args::is(word, "type") && has_type {
            kind = Some(options.value()?);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    let scan = Scan::new(context.client.database(), cursor, count);
    let kind = kind.map(<[u8]>::to_vec);
    context.in_turns(Scanning { scan, pattern, count, kind, keys: 0, looked: 0, found: Bulks::default() })
}

/// One call of SCAN or LOCKS.
struct Scanning {
    scan: Scan,
    pattern: Option<Glob>,
    kind: Option<Vec<u8>>,
    /// Keys to look at.
    count: usize,
    /// Keys of this database that were looked at.
    keys: usize,
    /// Entries of the table that were looked at.
    looked: usize,
    found: Bulks,
}

impl Steps for Scanning {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        loop {
            let mut keys = Bulks::default();
            let entries = (self.count - self.keys).min(entries_per_look(self.pattern.as_ref()));
            let (kind, counted) = (self.kind.as_deref(), &mut 0);
            let scanned = context.access.scan(&mut self.scan, entries, |held| {
                *counted += 1;
                if kind.is_none_or(|kind| args::is(kind, keys::kind(held.mode()))) {
                    keys.push(held.key());
                }
            })?;
            if scanned.is_restarted {
                (self.keys, self.looked, self.found) = (0, 0, Bulks::default());
            }
            self.keys += *counted;
            self.looked += scanned.looked;
            spend(context, &scanned);
            push_matching(context, self.pattern.as_ref(), &keys, &mut self.found);
            if scanned.is_done || self.keys >= self.count || self.looked >= LOOKED_MAX {
                let cursor = Reply::bulk(self.scan.cursor().to_string());
                context.seq = context.seq.max(self.scan.seq());
                return Ok(Progress::Done(Reply::Array(vec![
                    cursor,
                    Reply::Bulks(std::mem::take(&mut self.found)),
                ])));
            }
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
    }
}

/// Entries of the table to look at in one go, such that to match them all takes about a turn at most.
pub(super) fn entries_per_look(pattern: Option<&Glob>) -> usize {
    const ENTRIES_MAX: usize = 256;
    let work = pattern.map_or(0, |pattern| pattern.work(KEY_BYTES_MAX));
    (TURN_WORK / (1 + work)).clamp(1, ENTRIES_MAX)
}

/// Counts what a look at the table took.
pub(super) fn spend(context: &mut Context<'_>, scanned: &Scanned) {
    context.spend(1 + scanned.looked + scanned.passed / PASSED_PER_UNIT);
}

/// Entries of the table that are passed over in one unit of work.
const PASSED_PER_UNIT: usize = 16;

/// Adds those of some keys that match.
pub(super) fn push_matching(
    context: &mut Context<'_>,
    pattern: Option<&Glob>,
    keys: &Bulks,
    found: &mut Bulks,
) {
    for key in keys.iter() {
        let matches = pattern.is_none_or(|pattern| {
            context.spend(pattern.work(key.len()));
            pattern.matches(key)
        });
        if matches {
            found.push(key);
        }
    }
}
