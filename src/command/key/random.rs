//! `RANDOMKEY`

use crate::command::scan;
use crate::command::{Args, Command, CommandError, Context, Flags, Group, Progress, Steps};
use crate::engine::Scan;
use crate::reply::Reply;

pub(super) const RANDOMKEY: Command = Command::new("randomkey", 1, randomkey)
    .group(Group::Generic)
    .flags(Flags::READONLY)
    .summary("Returns a random key of the current database, or Null if it is empty.")
    .example("RANDOMKEY");

fn randomkey(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    if context.txn.key_count(context.database)? == 0 {
        return Ok(Reply::Null);
    }
    let scan = context.txn.random_scan(context.database);
    context.in_turns(Searching { scan, has_wrapped: false })
}

/// A search for the first key at or after a random place in the table.
struct Searching {
    scan: Scan,
    /// The search goes on at the start of the table.
    has_wrapped: bool,
}

/// Table entries to visit at once.
const ENTRIES: usize = 16;

impl Steps for Searching {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        loop {
            let mut key = None;
            let user = &context.client.user;
            let scanned = context.txn.scan(&mut self.scan, ENTRIES, |found| {
                if key.is_none() && scan::may_list(user, found.key()) {
                    key = Some(Reply::bulk(found.key()));
                }
            })?;
            scan::spend(context, &scanned);
            if let Some(key) = key {
                return Ok(Progress::Done(key));
            }
            if scanned.is_done {
                if self.has_wrapped {
                    return Ok(Progress::Done(Reply::Null));
                }
                (self.scan, self.has_wrapped) = (Scan::new(context.database, 0, ENTRIES), true);
            }
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
    }
}
