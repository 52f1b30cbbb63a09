//! `octostore locks`, `info` and `force-unlock`: who holds what, and ending it.
//!
//! Guarantees: names and owners are printed without control characters; a lock is taken from its
//! holders only after a confirmation where a person can give one.

use std::ffi::OsString;
use std::io::{IsTerminal, Write, stdin, stdout};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value as Json};

use super::client::{self, Connection, Failure, Reply, Target, bytes, field, integer, items, text};
use super::output::{has_colours, printable, table};
use super::{block_on, duration, fail, fail_for, print};

/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two tables of `--watch`.
const REFRESH: Duration = Duration::from_secs(1);
/// Locks that are asked for at once.
const PAGE: &[u8] = b"500";
/// Clears the screen, and moves to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";
const HEADER: [&str; 7] = ["KEY", "STATE", "OWNER", "TOKEN", "ENDS IN", "HELD FOR", "WAITING"];

pub(super) fn locks_command() -> Command {
    Command::new("locks")
        .about("Lists the locks that are held: by whom, for how long, and how many wait")
        .arg(
            Arg::new("prefix")
                .value_name("PREFIX")
                .value_parser(value_parser!(OsString))
                .help("Only keys that begin with this"),
        )
        .arg(
            Arg::new("watch")
                .long("watch")
                .action(ArgAction::SetTrue)
                .help("Repeat every second, until Ctrl-C"),
        )
        .arg(json_flag("One JSON object per lock and line"))
        .args(client::arguments())
}

pub(super) fn info_command() -> Command {
    Command::new("info")
        .about("Shows the holders and waiters of a lock")
        .arg(key())
        .arg(json_flag("One JSON object"))
        .args(client::arguments())
}

pub(super) fn force_unlock_command() -> Command {
    Command::new("force-unlock")
        .about("Takes a lock from its holders; exit code 1 if there is none")
        .arg(key())
        .arg(
            Arg::new("yes")
                .long("yes")
                .short('y')
                .action(ArgAction::SetTrue)
                .help("Do not ask, as without a terminal"),
        )
        .args(client::arguments())
}

fn key() -> Arg {
    Arg::new("key").value_name("KEY").required(true).value_parser(value_parser!(OsString)).help("The lock")
}

fn json_flag(help: &'static str) -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help(help)
}

/// Connects, and runs `work` with the connection.
fn with_connection(
    matches: &ArgMatches,
    work: impl AsyncFnOnce(Connection) -> Result<ExitCode, Failure>,
) -> ExitCode {
    let target = match Target::from_arguments(matches) {
        Ok(target) => target,
        Err(reason) => return fail(2, reason),
    };
    block_on(async {
        let worked = match target.connect(ANSWER_MAX).await {
            Ok(connection) => work(connection).await,
            Err(failure) => Err(failure),
        };
        worked.unwrap_or_else(fail_for)
    })
}

/// A key or a part of one, which may be any bytes.
fn argument<'m>(matches: &'m ArgMatches, name: &str) -> &'m [u8] {
    matches.get_one::<OsString>(name).map_or(b"", |text| text.as_bytes())
}

pub(super) fn locks(matches: &ArgMatches) -> ExitCode {
    let pattern = pattern_of(argument(matches, "prefix"));
    let (is_json, is_watch) = (matches.get_flag("json"), matches.get_flag("watch"));
    with_connection(matches, async |connection| {
        let mut shards = connection.into_shards().await?;
        loop {
            let mut text = String::new();
            let found = list_all(&mut shards, &pattern).await?;
            if is_json {
                found.iter().for_each(|(key, info)| text.push_str(&format!("{}\n", to_json(key, info))));
            } else {
                let rows: Vec<Vec<String>> = found.iter().flat_map(|(key, info)| rows(key, info)).collect();
                text = table(&HEADER, &rows, has_colours());
            }
            if is_watch && !is_json && stdout().is_terminal() {
                text.insert_str(0, CLEAR);
            }
            let is_written = stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()).is_ok();
            if !is_watch || !is_written {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(REFRESH).await;
        }
    })
}

/// A key, and what LOCKINFO says about it.
type Described = (Vec<u8>, Reply);

/// The locks of all shards whose keys match, in the order of their keys.
async fn list_all(shards: &mut [Connection], pattern: &[u8]) -> Result<Vec<Described>, Failure> {
    let mut found = Vec::new();
    for shard in shards {
        found.extend(list(shard, pattern).await?);
    }
    // Released in between, or found twice.
    found.retain(|(_, info)| !items(field(info, "holders")).is_empty());
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found.dedup_by(|(one, _), (other, _)| one == other);
    Ok(found)
}

/// The locks of one shard.
async fn list(connection: &mut Connection, pattern: &[u8]) -> Result<Vec<Described>, Failure> {
    let (mut found, mut cursor) = (Vec::new(), b"0".to_vec());
    loop {
        let request: [&[u8]; 6] = [b"LOCKS", &cursor, b"MATCH", pattern, b"COUNT", PAGE];
        let page = connection.call_within(ANSWER_MAX, &request).await?;
        let [next, keys] = items(Some(&page)) else { break };
        let keys: Vec<Vec<u8>> = items(Some(keys)).iter().map(|key| bytes(key).to_vec()).collect();
        let requests: Vec<_> = keys.iter().map(|key| vec![b"LOCKINFO".to_vec(), key.clone()]).collect();
        for (key, info) in keys.into_iter().zip(connection.call_all_within(ANSWER_MAX, &requests).await?) {
            found.push((key, info?));
        }
        cursor = bytes(next).to_vec();
        if cursor == b"0" {
            break;
        }
    }
    Ok(found)
}

/// One row per holder.
fn rows(key: &[u8], info: &Reply) -> Vec<Vec<String>> {
    let string = |map: &Reply, name: &str| field(map, name).map(text).unwrap_or_default();
    let millis = |map: &Reply, name: &str| integer(field(map, name)).and_then(|ms| u64::try_from(ms).ok());
    let waiting = integer(field(info, "waiters_total")).unwrap_or(0).to_string();
    let row = |holder: &Reply| {
        vec![
            printable(&String::from_utf8_lossy(key)),
            string(info, "state"),
            printable(&string(holder, "owner")),
            integer(field(holder, "token")).unwrap_or(0).to_string(),
            millis(holder, "ttl_ms").map_or("-".to_owned(), duration::format),
            millis(holder, "held_ms").map_or("-".to_owned(), duration::format),
            waiting.clone(),
        ]
    };
    items(field(info, "holders")).iter().map(row).collect()
}

fn to_json(key: &[u8], info: &Reply) -> Json {
    let mut object = Map::new();
    object.insert("key".to_owned(), String::from_utf8_lossy(key).into());
    if let Json::Object(fields) = json(info) {
        object.extend(fields);
    }
    Json::Object(object)
}

fn json(reply: &Reply) -> Json {
    match reply {
        Reply::Int(number) => (*number).into(),
        Reply::Map(pairs) => {
            Json::Object(pairs.iter().map(|(name, value)| (text(name), json(value))).collect())
        }
        Reply::Array(items) => Json::Array(items.iter().map(json).collect()),
        Reply::BulkString(_) | Reply::SimpleString(_) => text(reply).into(),
        _ => Json::Null,
    }
}

pub(super) fn info(matches: &ArgMatches) -> ExitCode {
    let (key, is_json) = (argument(matches, "key"), matches.get_flag("json"));
    with_connection(matches, async |mut connection| {
        let info = connection.call_within(ANSWER_MAX, &[b"LOCKINFO", key]).await?;
        match is_json {
            true => print(to_json(key, &info)),
            false => print(details(key, &info).trim_end()),
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A lock in lines, for people.
fn details(key: &[u8], info: &Reply) -> String {
    let value = |map: &Reply, name: &str| match field(map, name) {
        Some(Reply::Int(number)) => number.to_string(),
        Some(other) if !bytes(other).is_empty() => printable(&text(other)),
        _ => "-".to_owned(),
    };
    let time = |map: &Reply, name: &str| {
        let millis = integer(field(map, name)).and_then(|millis| u64::try_from(millis).ok());
        millis.map_or("-".to_owned(), duration::format)
    };
    let key = printable(&String::from_utf8_lossy(key));
    let mut shown = format!("key      {key}\nstate    {}\n", value(info, "state"));
    shown.push_str(&format!(
        "holders  {}\nwaiters  {}\n",
        value(info, "holders_total"),
        value(info, "waiters_total")
    ));
    let holders = items(field(info, "holders"));
    let rows: Vec<Vec<String>> = holders
        .iter()
        .map(|holder| {
            let (left, held) = (time(holder, "ttl_ms"), time(holder, "held_ms"));
            let [owner, token, renewals, addr, name, meta] =
                ["owner", "token", "renewals", "addr", "client_name", "meta"].map(|name| value(holder, name));
            vec![owner, token, left, held, renewals, addr, name, meta]
        })
        .collect();
    if !rows.is_empty() {
        let header = ["HOLDER", "TOKEN", "ENDS IN", "HELD FOR", "RENEWALS", "ADDRESS", "NAME", "META"];
        shown.push_str(&format!("\n{}", table(&header, &rows, has_colours())));
    }
    let rows: Vec<Vec<String>> = items(field(info, "waiters"))
        .iter()
        .map(|waiter| vec![value(waiter, "owner"), value(waiter, "mode"), time(waiter, "waited_ms")])
        .collect();
    if !rows.is_empty() {
        shown.push_str(&format!("\n{}", table(&["WAITER", "MODE", "WAITS FOR"], &rows, has_colours())));
    }
    shown
}

pub(super) fn force_unlock(matches: &ArgMatches) -> ExitCode {
    let key = argument(matches, "key");
    let asks = !matches.get_flag("yes") && stdin().is_terminal();
    with_connection(matches, async |mut connection| {
        if asks {
            let info = connection.call_within(ANSWER_MAX, &[b"LOCKINFO", key]).await?;
            print(details(key, &info).trim_end());
            if !is_confirmed() {
                return Ok(fail(1, "nothing was changed"));
            }
        }
        let removed = connection.call_within(ANSWER_MAX, &[b"FORCEUNLOCK", key]).await?;
        let removed = integer(Some(&removed)).unwrap_or(0);
        print(format_args!("holders removed: {removed}"));
        Ok(if removed > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
    })
}

fn is_confirmed() -> bool {
    let mut stdout = stdout();
    let _ = stdout.write_all(b"Its holders may still be working. Take the lock from them? [y/N] ");
    let _ = stdout.flush();
    let mut answer = String::new();
    stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// The pattern that matches what begins with this.
fn pattern_of(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if b"*?[]\\^".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}
