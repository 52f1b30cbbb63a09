//! `KEYS pattern` and `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`

use crate::command::{Args, Categories, Command, CommandError, Context, Flags, Group, Progress, Steps, scan};
use crate::engine::Scan;
use crate::glob::Glob;
use crate::reply::{Bulks, Reply};

pub(super) const KEYS: Command = Command::new("keys", 2, keys)
    .group(Group::Generic)
    .own_categories(Categories::KEYSPACE.and(Categories::DANGEROUS))
    .flags(Flags::READONLY)
    .syntax("pattern")
    .summary(
        "Returns all keys of the current database that match a pattern. Prefer LOCKS or SCAN \
         on large databases.",
    )
    .example("KEYS jobs:*");

pub(super) const SCAN: Command =
    Command::new("scan", -2, |context, args| scan::run(context, args, scan::Listed::All))
        .group(Group::Generic)
        .flags(Flags::READONLY)
        .syntax("cursor [MATCH pattern] [COUNT count] [TYPE type]")
        .summary("Iterates over the keys of the current database.")
        .example("SCAN 0 MATCH jobs:* COUNT 100");

fn keys(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let pattern = Glob::new(args.at(1))?;
    let scan = Scan::new(context.database, 0, usize::MAX);
    context.in_turns(Listing { scan, pattern, found: Bulks::default() })
}

/// Maximum size of the reply of KEYS, in bytes.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// A KEYS in progress.
struct Listing {
    scan: Scan,
    pattern: Glob,
    found: Bulks,
}

impl Steps for Listing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let entries = scan::entries_per_look(Some(&self.pattern));
        loop {
            let mut keys = Bulks::default();
            let user = &context.client.user;
            let scanned = context.txn.scan(&mut self.scan, entries, |found| {
                if scan::may_list(user, found.key()) {
                    keys.push(found.key());
                }
            })?;
            if scanned.is_restarted {
                self.found = Bulks::default();
            }
            scan::spend(context, &scanned);
            scan::push_matching(context, Some(&self.pattern), &keys, &mut self.found);
            if self.found.size() > REPLY_BYTES_MAX {
                return Err(CommandError::new(format!(
                    "ERR reply exceeds {REPLY_BYTES_MAX} bytes; use SCAN or LOCKS"
                )));
            }
            if scanned.is_done {
                return Ok(Progress::Done(Reply::Bulks(std::mem::take(&mut self.found))));
            }
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
    }
}
