//! `MEMORY USAGE | DOCTOR | MALLOC-STATS | PURGE | STATS`

use crate::command::options::{OptionSpec, value};
use crate::command::{
    Args, Command, CommandError, Context, Flags, KeyAccess, KeySpec, name_or_none, options,
};
use crate::domain::DATABASES;
use crate::metrics::{peak_resident_bytes, resident_bytes};
use crate::reply::Reply;

pub(super) const MEMORY: Command = Command::container(
    "memory",
    -2,
    &[
        Command::new("memory|usage", -3, usage)
            .flags(Flags::READONLY)
            .keys(KeySpec::Range { first: 2, last: 2, step: 1, access: KeyAccess::Read })
            .syntax("key [SAMPLES count]")
            .summary("Returns about how many bytes of memory a key takes, or Null. Nothing is sampled.")
            .example("MEMORY USAGE jobs:import"),
        Command::new("memory|doctor", 2, doctor)
            .summary("Returns where the use of memory can be seen.")
            .example("MEMORY DOCTOR"),
        Command::new("memory|malloc-stats", 2, malloc_stats)
            .summary("Returns that the allocator has no statistics.")
            .example("MEMORY MALLOC-STATS"),
        Command::new("memory|purge", 2, |_, _| Ok(Reply::OK))
            .summary("Returns OK. The allocator returns unused memory by itself.")
            .example("MEMORY PURGE"),
        Command::new("memory|stats", 2, stats)
            .summary("Returns the memory of the process and of values, and the number of keys.")
            .example("MEMORY STATS"),
    ],
)
.summary("A container for memory diagnostics commands.");

const OPTIONS: [OptionSpec; 1] = [value("SAMPLES").check(is_not_negative)];

fn is_not_negative(count: &[u8]) -> Result<(), CommandError> {
    if options::integer(count)? < 0 { Err(CommandError::SYNTAX) } else { Ok(()) }
}

fn usage(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let [_] = args.options(3, &OPTIONS)?;
    let Some(name) = name_or_none(context, args.at(2))? else { return Ok(Reply::Null) };
    let bytes = context.txn.read_key(&name, |content, _| content.bytes(&name))?;
    Ok(bytes.map_or(Reply::Null, Reply::unsigned))
}

fn doctor(_: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let advice = "INFO memory has the memory of the process, INFO values that of hashes, sets, sorted sets and \
                  lists, and MEMORY USAGE that of a key.\n";
    Ok(Reply::Verbatim(*b"txt", advice.as_bytes().to_vec()))
}

fn malloc_stats(_: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::Verbatim(*b"txt", b"Stats not supported for the current allocator".to_vec()))
}

/// Units of work to read the memory in use from the system.
const STATS_WORK: usize = 100;

fn stats(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    context.spend(STATS_WORK);
    let engine = context.txn.engine();
    let resident = resident_bytes().unwrap_or(0);
    let keys: u64 = (0..DATABASES).map(|database| engine.lock_stats().keys(database)).sum();
    let fields = [
        ("peak.allocated", peak_resident_bytes().unwrap_or(0)),
        ("total.allocated", resident),
        ("keys.count", keys),
        ("keys.bytes-per-key", resident.checked_div(keys).unwrap_or(0)),
        ("values.bytes", engine.value_stats().bytes()),
    ];
    Ok(Reply::Map(fields.into_iter().map(|(name, n)| (Reply::bulk(name), Reply::unsigned(n))).collect()))
}
