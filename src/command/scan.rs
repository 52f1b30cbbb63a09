//! Iteration over keys, shared by SCAN, LOCKS and KEYS.
//!
//! Guarantees: a key that exists during the whole iteration is returned.

use super::options::{self, OptionSpec, value};
use super::steps::{TURN_WORK, work_of_changes};
use super::{Args, CommandError, Context, Progress, Steps, key};
use crate::auth::User;
use crate::domain::KEY_BYTES_MAX;
use crate::engine::{KeyKind, Scan, Scanned};
use crate::glob::Glob;
use crate::reply::{Bulks, Reply};

/// Keys visited by one call, regardless of COUNT.
const COUNT_MAX: i64 = 1_000;
const COUNT_DEFAULT: usize = 10;
/// Entries visited by one call, including those of other databases. A small database beside a large
/// one takes several calls.
const LOOKED_MAX: usize = 10_000;

const OPTIONS: [OptionSpec; 3] = [value("MATCH"), value("COUNT").check(is_positive), value("TYPE")];

fn is_positive(count: &[u8]) -> Result<(), CommandError> {
    if options::integer(count)? < 1 { Err(CommandError::SYNTAX) } else { Ok(()) }
}

/// Reads a cursor as Redis does with C's `strtoul`: up to a NUL, an empty one as 0, a negative one
/// wrapped around.
pub(super) fn cursor(arg: &[u8]) -> Result<u64, CommandError> {
    let arg = options::up_to_nul(arg);
    let (is_negative, digits) = match arg {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if arg.is_empty() {
        return Ok(0);
    }
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let number =
        std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|text| text.parse::<u64>().ok());
    let number = number.ok_or(CommandError::fixed("ERR invalid cursor"))?;
    Ok(if is_negative { number.wrapping_neg() } else { number })
}

/// The keys that a call returns.
pub(super) enum Listed {
    All,
    Locks,
    OfType(Vec<u8>),
}

impl Listed {
    fn contains(&self, kind: KeyKind) -> bool {
        match self {
            Listed::All => true,
            Listed::Locks => matches!(kind, KeyKind::Lock(_)),
            Listed::OfType(name) => options::is(name, key::type_name(kind)),
        }
    }
}

/// Executes one call of SCAN, or of LOCKS, which has no TYPE option.
pub(super) fn run(
    context: &mut Context<'_>,
    args: Args<'_>,
    mut listed: Listed,
) -> Result<Reply, CommandError> {
    let has_type = matches!(listed, Listed::All);
    // SCAN never returns a larger cursor, so none has keys behind it.
    let cursor = cursor(args.at(1))?.min((1 << 48) - 1);
    let [pattern, count, type_name] = args.options(2, &OPTIONS)?;
    if type_name.is_given() && !has_type {
        return Err(CommandError::SYNTAX);
    }
    let pattern = pattern.value().map(Glob::new).transpose()?;
    let count = count.integer()?.map_or(COUNT_DEFAULT, |count| count.min(COUNT_MAX) as usize);
    let scan = Scan::new(context.database, cursor, count);
    if let Some(name) = type_name.value() {
        listed = Listed::OfType(name.to_vec());
    }
    context.in_turns(Scanning { scan, pattern, count, listed, keys: 0, looked: 0, found: Bulks::default() })
}

/// One call of SCAN or LOCKS.
struct Scanning {
    scan: Scan,
    pattern: Option<Glob>,
    listed: Listed,
    /// Keys to visit.
    count: usize,
    /// Keys of this database visited so far.
    keys: usize,
    /// Table entries visited so far.
    looked: usize,
    found: Bulks,
}

impl Steps for Scanning {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        loop {
            let mut keys = Bulks::default();
            let entries = (self.count - self.keys).min(entries_per_look(self.pattern.as_ref()));
            let (listed, counted, user) = (&self.listed, &mut 0, &context.client.user);
            let scanned = context.txn.scan(&mut self.scan, entries, |found| {
                *counted += 1;
                if listed.contains(found.kind()) && may_list(user, found.key()) {
                    keys.push(found.key());
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

/// Table entries to visit at once, so that matching all of them takes at most about one turn.
pub(super) fn entries_per_look(pattern: Option<&Glob>) -> usize {
    const ENTRIES_MAX: usize = 256;
    let work = pattern.map_or(0, |pattern| pattern.work(KEY_BYTES_MAX));
    (TURN_WORK / (1 + work)).clamp(1, ENTRIES_MAX)
}

/// Whether a list of keys shows this one.
pub(super) fn may_list(user: &User, key: &[u8]) -> bool {
    user.allows_everything() || user.may_read(key)
}

/// Adds the cost of a table scan to the turn.
pub(super) fn spend(context: &mut Context<'_>, scanned: &Scanned) {
    let ended = work_of_changes(scanned.ended);
    context.spend(1 + scanned.looked + scanned.passed / PASSED_PER_UNIT + ended);
}

/// Table entries skipped in one unit of work.
const PASSED_PER_UNIT: usize = 16;

/// Appends the keys that match to `found`.
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
