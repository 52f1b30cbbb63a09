//! `LOCKS cursor [MATCH glob] [COUNT n]`: iterates over the locks that are held.

use crate::command::{Command, Flags, Group, scan};

pub(super) const LOCKS: Command =
    Command::new("locks", -2, |context, args| scan::run(context, args, scan::Listed::Locks))
        .group(Group::Lock)
        .flags(Flags::READONLY)
        .syntax("cursor [MATCH pattern] [COUNT count]")
        .summary("Iterates over the locks that are held, as SCAN does.")
        .example("LOCKS 0 MATCH jobs:* COUNT 100");
