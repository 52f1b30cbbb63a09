//! Comparisons with a real redis-server 7, if it is installed: scripts to which both must reply the
//! same, and random commands. `UPDATE_SCRIPTS=1 cargo test differential` records the replies of
//! Redis to the scripts.

mod commands;
pub(crate) mod intended;
mod introspection;
mod plan;
pub(crate) mod redis;
mod reply;
mod run;
mod users;
mod words;

use octostore::command::{Group, commands_and_subcommands};

use self::commands::{CALLS, SUBSCRIPTIONS, UNCALLED};
use self::redis::Redis;
use self::run::{Pair, run_one, run_random};
use crate::support::random::setting;
use crate::support::server::TestServer;
use crate::support::transcript::check;
use crate::support::transcript::resp::RespSession;

const SCRIPTS: &str = "tests/it/redis";
/// What lock libraries send.
const LIBRARIES: &str = "tests/it/redis/libraries";

#[test]
fn octostore_answers_as_redis_does() {
    let start = |flags: &[&str]| {
        let server = TestServer::manual(&[flags, &["--allow-flush"]].concat());
        // Times of today, as Redis has them.
        server.clock.step_wall_to(1_700_000_000_000);
        RespSession::new(server)
    };
    if std::env::var_os("UPDATE_SCRIPTS").is_none() {
        for folder in [SCRIPTS, LIBRARIES] {
            assert!(check(folder, start) >= 5, "the scripts are there");
        }
    }
}

#[test]
fn redis_itself_answers_as_written() {
    if !Redis::is_missing() {
        for folder in [SCRIPTS, LIBRARIES] {
            check(folder, |flags| RespSession::new(Redis::start(flags)));
        }
    }
}

/// A short run by default; `OCTOSTORE_TEST_STEPS` asks for a longer one, `OCTOSTORE_TEST_SEED` for a
/// sequence that failed.
#[test]
fn random_commands_are_answered_as_redis_does() {
    if Redis::is_missing() {
        return;
    }
    let (octostore, redis) = (TestServer::real(&["--allow-flush"]), Redis::start(&[]));
    let pair = Pair { ours: octostore.addr, theirs: redis.addr };
    match setting("OCTOSTORE_TEST_SEED") {
        Some(seed) => run_one(pair, seed),
        None => run_random(pair, 1, setting("OCTOSTORE_TEST_STEPS").unwrap_or(2000)),
    }
}

#[test]
fn every_command_of_these_groups_is_called() {
    let groups = [
        Group::String,
        Group::Generic,
        Group::Hash,
        Group::Set,
        Group::SortedSet,
        Group::List,
        Group::Scripting,
        Group::Transactions,
        Group::PubSub,
    ];
    let called = CALLS.iter().chain(SUBSCRIPTIONS).map(|row| row.0);
    let mut known: Vec<_> = called.chain(UNCALLED.iter().map(|(name, _)| *name)).collect();
    known.sort_unstable();
    let commands = commands_and_subcommands().filter(|command| command.subcommands().is_empty());
    // Commands of the group Server for keys, in Redis, too.
    let others = ["dbsize", "flushdb", "flushall"];
    let commands =
        commands.filter(|command| groups.contains(&command.group) || others.contains(&command.name));
    let mut expected: Vec<_> = commands.map(|command| command.name).collect();
    expected.sort_unstable();
    assert_eq!(known, expected);
}
