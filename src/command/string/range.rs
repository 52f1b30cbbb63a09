//! `GETRANGE`, `SUBSTR`, `SETRANGE`, `APPEND`

use super::{
    Args, Command, CommandError, Context, Edited, Expiry, Flags, KeyAccess, Owner, Reply, command, edit,
    name_or_none, options, read,
};

pub(super) const GETRANGE: Command = command("getrange", 4, getrange, KeyAccess::Read)
    .syntax("key start end")
    .summary("Returns the bytes of a string value from start to end, counted from the end if negative.")
    .example("GETRANGE jobs:import 0 5");

pub(super) const SUBSTR: Command = Command { name: "substr", ..GETRANGE }
    .summary("The old name of GETRANGE.")
    .example("SUBSTR jobs:import 0 5");

pub(super) const SETRANGE: Command = command("setrange", 4, setrange, KeyAccess::Write)
    .event("setrange")
    .flags(Flags::WRITE | Flags::DENYOOM)
    .syntax("key offset value")
    .summary(
        "Overwrites a part of a string value from an offset on, padded with zero bytes. Returns its length.",
    )
    .example("SETRANGE jobs:import 6 worker-2");

pub(super) const APPEND: Command = command("append", 3, append, KeyAccess::Write)
    .event("append")
    .flags(Flags::WRITE | Flags::DENYOOM | Flags::FAST)
    .syntax("key value")
    .summary("Appends to a string value, creating the key if it does not exist. Returns its length.")
    .example("APPEND jobs:import :step-2");

/// The positions of a string of `length` bytes that `start..=end` selects; negative ones count from
/// the end.
fn selected(length: usize, start: i64, end: i64) -> std::ops::Range<usize> {
    let length = length as i64;
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let from_start = |n: i64| if n < 0 { (n + length).max(0) } else { n };
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    if start > end { 0..0 } else { start as usize..end as usize + 1 }
}

fn getrange(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (start, end) = (options::integer(args.at(2))?, options::integer(args.at(3))?);
    let value = match name_or_none(context, args.at(1))? {
        Some(name) => read(context, &name)?,
        None => None,
    };
    let value = value.as_ref().map_or(&b""[..], Owner::as_bytes);
    Ok(Reply::bulk(&value[selected(value.len(), start, end)]))
}

fn setrange(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (offset, patch) = (options::integer(args.at(2))?, args.at(3));
    let Ok(offset) = usize::try_from(offset) else {
        return Err(CommandError::fixed("ERR offset is out of range"));
    };
    let name = context.key(args.at(1))?;
    let bytes_max = context.value_bytes_max();
    context.check_transaction_budget()?;
    edit(context, &name, Expiry::Keep, |before| {
        let before = before.unwrap_or_default();
        if patch.is_empty() {
            return Ok((Edited::Keep, Reply::count(before.len())));
        }
        let end = offset.checked_add(patch.len()).filter(|end| *end <= bytes_max);
        let end = end.ok_or(CommandError::VALUE_TOO_LONG)?;
        let mut value = before.to_vec();
        value.resize(before.len().max(end), 0);
        value[offset..end].copy_from_slice(patch);
        Ok((Edited::Set(Owner::new(&value)?), Reply::count(value.len())))
    })
}

fn append(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let name = context.key(args.at(1))?;
    let bytes_max = context.value_bytes_max();
    context.check_transaction_budget()?;
    edit(context, &name, Expiry::Keep, |before| {
        let value = [before.unwrap_or_default(), args.at(2)].concat();
        if value.len() > bytes_max {
            return Err(CommandError::VALUE_TOO_LONG);
        }
        Ok((Edited::Set(Owner::new(&value)?), Reply::count(value.len())))
    })
}

#[cfg(test)]
mod tests {
    use super::selected;

    #[test]
    fn ranges_select_what_redis_selects() {
        for (start, end, expected) in [
            (0, -1, 0..4),
            (0, 3, 0..4),
            (0, 100, 0..4),
            (-3, -2, 1..3),
            (-100, 1, 0..2),
            (1, 0, 0..0),
            (-1, -2, 0..0),
            (4, 5, 0..0),
            (i64::MIN, i64::MAX, 0..4),
            (i64::MAX, i64::MIN, 0..0),
            (-5, -5, 0..1),
        ] {
            assert_eq!(selected(4, start, end), expected, "{start} {end}");
            assert_eq!(selected(0, start, end), 0..0, "{start} {end}");
        }
    }
}
