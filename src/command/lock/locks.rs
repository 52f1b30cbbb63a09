//! `LOCKS cursor [MATCH glob] [COUNT n]`: the locks that are held, as SCAN lists keys.

use crate::command::{Command, Flags, Group, Run, scan};

pub(in crate::command) const LOCKS: Command = Command {
    name: "locks",
    syntax: "cursor [MATCH pattern] [COUNT count]",
    summary: "Iterates over the locks that are held, as SCAN does.",
    group: Group::Lock,
    arity: -2,
    flags: Flags::READONLY,
    keys: (0, 0, 0),
    run: Run::Handler(|context, args| scan::run(context, args, false)),
};
