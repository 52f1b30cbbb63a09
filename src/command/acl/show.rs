//! `ACL WHOAMI | LIST | USERS | GETUSER | CAT | GENPASS | LOG | DRYRUN`

use crate::auth::{Denial, SelectorRules};
use crate::command::dispatch::find;
use crate::command::permissions::denial_text;
use crate::command::{Args, Categories, CommandError, Context, commands_and_subcommands, options};
use crate::domain::Timestamp;
use crate::reply::Reply;

pub(super) fn who_am_i(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::bulk(context.client.user.name().as_bytes()))
}

pub(super) fn list(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let users = context.server.users.all();
    Ok(Reply::Array(users.iter().map(|user| Reply::bulk(user.line())).collect()))
}

pub(super) fn users(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let users = context.server.users.all();
    Ok(Reply::Array(users.iter().map(|user| Reply::bulk(user.name().as_bytes())).collect()))
}

pub(super) fn get_user(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(user) = context.server.users.find(args.at(2)) else { return Ok(Reply::Null) };
    let mut rules = user.rules();
    let mut fields = vec![
        (Reply::bulk("flags"), Reply::Set(user.flags().map(Reply::bulk).collect())),
        (Reply::bulk("passwords"), Reply::Array(user.hashes().map(Reply::bulk).collect())),
    ];
    fields.extend(rules.next().into_iter().flat_map(selector));
    let others = rules.map(|rules| Reply::Map(selector(rules))).collect();
    fields.push((Reply::bulk("selectors"), Reply::Array(others)));
    Ok(Reply::Map(fields))
}

fn selector(rules: SelectorRules) -> Vec<(Reply, Reply)> {
    vec![
        (Reply::bulk("commands"), Reply::bulk(rules.commands)),
        (Reply::bulk("keys"), Reply::bulk(rules.keys)),
        (Reply::bulk("channels"), Reply::bulk(rules.channels)),
    ]
}

pub(super) fn cat(_: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let names: Vec<&str> = match args.len() {
        2 => Categories::all_names().map(|name| &name[1..]).collect(),
        3 => {
            let category = Categories::find(args.at(2)).ok_or_else(|| {
                CommandError::new(format!("ERR Unknown category '{}'", args.at(2).escape_ascii()))
            })?;
            let commands = commands_and_subcommands();
            commands
                .filter(|command| command.categories().contains(category))
                .map(|command| command.name)
                .collect()
        }
        _ => return Err(CommandError::subcommand_arity(args)),
    };
    Ok(Reply::Array(names.into_iter().map(Reply::bulk).collect()))
}

/// Bits of a password without an argument, and at most.
const PASSWORD_BITS: i64 = 256;
const PASSWORD_BITS_MAX: i64 = 4096;

pub(super) fn gen_pass(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let bits = match args.len() {
        2 => PASSWORD_BITS,
        3 => options::integer(args.at(2))?,
        _ => return Err(CommandError::subcommand_arity(args)),
    };
    if !(1..=PASSWORD_BITS_MAX).contains(&bits) {
        return Err(CommandError::new(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to \
             {PASSWORD_BITS_MAX}"
        )));
    }
    let digits = bits.unsigned_abs().div_ceil(4) as usize;
    let mut bytes = vec![0; digits.div_ceil(2)];
    let filled = context.txn.engine().fill_random(&mut bytes);
    filled.map_err(|error| CommandError::new(format!("ERR {error}")))?;
    let mut password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    password.truncate(digits);
    Ok(Reply::bulk(password))
}

/// Entries of ACL LOG without an argument.
const LOG_ENTRIES: usize = 10;

pub(super) fn log(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let count = match args.len() {
        2 => LOG_ENTRIES,
        3 if options::is(args.at(2), "reset") => {
            context.server.denials.reset();
            return Ok(Reply::OK);
        }
        3 => usize::try_from(options::integer(args.at(2))?).unwrap_or(0),
        _ => return Err(CommandError::subcommand_arity(args)),
    };
    let now = context.txn.now();
    let entries = context.server.denials.newest(count);
    Ok(Reply::Array(entries.into_iter().map(|entry| log_entry(entry, now)).collect()))
}

fn log_entry(entry: Denial, now: Timestamp) -> Reply {
    Reply::Map(vec![
        (Reply::bulk("count"), Reply::unsigned(entry.count)),
        (Reply::bulk("reason"), Reply::bulk(entry.reason.as_str())),
        (Reply::bulk("context"), Reply::bulk(entry.context.as_str())),
        (Reply::bulk("object"), Reply::bulk(entry.object)),
        (Reply::bulk("username"), Reply::bulk(entry.user.as_bytes())),
        (Reply::bulk("age-seconds"), Reply::Double(now.millis_since(entry.at) as f64 / 1000.0)),
        (Reply::bulk("client-info"), Reply::bulk(entry.client)),
    ])
}

pub(super) fn dry_run(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (name, request) = (args.at(2), args.skip(3));
    let user = context
        .server
        .users
        .find(name)
        .ok_or_else(|| CommandError::new(format!("ERR User '{}' not found", name.escape_ascii())))?;
    let found = find(request).map_err(|mismatch| mismatch.error_in_dry_run(request))?;
    match found.check(&user, request) {
        Ok(()) => Ok(Reply::OK),
        Err(Ok(denied)) => Ok(Reply::bulk(denial_text(user.name(), found.command.name, &denied, true))),
        Err(Err(invalid)) => Err(invalid),
    }
}
