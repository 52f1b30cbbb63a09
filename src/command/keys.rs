//! `EXISTS key ...`, `TYPE key`, `KEYS pattern`, `DBSIZE`

use super::glob::Glob;
use super::steps::KEY_WORK;
use super::{Args, Command, CommandError, Context, Flags, Group, Progress, Run, Steps, locks, name_or_none};
use crate::engine::Scan;
use crate::lock::{Mode, Slot};
use crate::reply::{Bulks, Reply};

pub(super) const EXISTS: Command = Command {
    name: "exists",
    syntax: "key [key ...]",
    summary: "Answers how many of the keys are held.",
    group: Group::Generic,
    arity: -2,
    flags: Flags::READONLY | Flags::FAST,
    keys: (1, -1, 1),
    run: Run::Handler(exists),
};

pub(super) const TYPE: Command = Command {
    name: "type",
    syntax: "key",
    summary: "Answers string for a key with one owner, lock for a shared or limited one, none for a free one.",
    group: Group::Generic,
    arity: 2,
    flags: Flags::READONLY | Flags::FAST,
    keys: (1, 1, 1),
    run: Run::Handler(kind_of),
};

pub(super) const KEYS: Command = Command {
    name: "keys",
    syntax: "pattern",
    summary: "Answers all keys of this database that match. Use LOCKS or SCAN where there are many.",
    group: Group::Generic,
    arity: 2,
    flags: Flags::READONLY,
    keys: (0, 0, 0),
    run: Run::Handler(keys),
};

pub(super) const DBSIZE: Command = Command {
    name: "dbsize",
    syntax: "",
    summary: "Answers how many keys of this database are held.",
    group: Group::Server,
    arity: 1,
    flags: Flags::READONLY | Flags::FAST,
    keys: (0, 0, 0),
    run: Run::Handler(|context, _| {
        let held = context.access.keys_held(context.client.database());
        context.look(held).map(Reply::unsigned)
    }),
};

/// What Redis would call a key that is held in this mode.
pub(super) fn kind(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "string",
        Mode::Shared | Mode::Limit(_) => "lock",
    }
}

fn kind_of(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let Some(name) = name_or_none(context, words.word(1))? else { return Ok(Reply::Simple("none")) };
    let kind = |slot: &Slot, _| slot.newest().map_or("none", |lease| kind(lease.mode));
    context.look(context.access.read(&name, kind)).map(Reply::Simple)
}

fn exists(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    // What can be done before others are kept out is done before.
    let mut names = Vec::with_capacity(words.len() - 1);
    for key in words.from(1) {
        names.extend(name_or_none(context, key)?);
    }
    context.spend(KEY_WORK * names.len());
    let count = |context: &mut Context<'_>| {
        let mut held = 0;
        for name in &names {
            held += usize::from(context.look(context.access.is_held(name))?);
        }
        Ok(Reply::count(held))
    };
    if names.len() < 2 { count(context) } else { context.atomically(count) }
}

fn keys(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let pattern = Glob::new(words.word(1))?;
    let scan = Scan::new(context.client.database(), 0, usize::MAX);
    context.in_turns(Listing { scan, pattern, found: Bulks::default() })
}

/// Bytes that a KEYS may collect.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// A KEYS that has not seen all keys yet.
struct Listing {
    scan: Scan,
    pattern: Glob,
    found: Bulks,
}

impl Steps for Listing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let entries = locks::entries_per_look(Some(&self.pattern));
        loop {
            let mut keys = Bulks::default();
            let scanned = context.access.scan(&mut self.scan, entries, |held| keys.push(held.key()))?;
            if scanned.is_restarted {
                self.found = Bulks::default();
            }
            locks::spend(context, &scanned);
            locks::push_matching(context, Some(&self.pattern), &keys, &mut self.found);
            if self.found.size() > REPLY_BYTES_MAX {
                return Err(CommandError::new(format!(
                    "ERR the reply has more than {REPLY_BYTES_MAX} bytes; use SCAN or LOCKS"
                )));
            }
            if scanned.is_done {
                context.seq = context.seq.max(self.scan.seq());
                return Ok(Progress::Done(Reply::Bulks(std::mem::take(&mut self.found))));
            }
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
    }
}
