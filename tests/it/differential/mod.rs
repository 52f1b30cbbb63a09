//! Comparisons with a real redis-server 7, if it is installed: scripts to which both must reply the
//! same, and random commands. `UPDATE_SCRIPTS=1 cargo test differential` records the replies of
//! Redis to the scripts.

mod commands;
pub(crate) mod intended;
mod plan;
mod redis;
mod reply;
mod run;
mod words;

use octostore::command::{Group, commands_and_subcommands};

use self::commands::{CALLS, SUBSCRIPTIONS, UNCALLED};
use self::redis::Redis;
use self::run::{Pair, run_one, run_random};
use crate::support::client::Client;
use crate::support::random::setting;
use crate::support::server::TestServer;
use crate::support::transcript::check;
use crate::support::transcript::resp::RespSession;

const SCRIPTS: &str = "tests/it/redis";

#[test]
fn octostore_answers_as_redis_does() {
    let start = |flags: &[&str]| {
        let server = TestServer::manual(&[flags, &["--allow-flush"]].concat());
        // Times of today, as Redis has them.
        server.clock.step_wall_to(1_700_000_000_000);
        RespSession::new(server)
    };
    if std::env::var_os("UPDATE_SCRIPTS").is_none() {
        assert!(check(SCRIPTS, start) >= 5, "the scripts are there");
    }
}

#[test]
fn redis_itself_answers_as_written() {
    if !Redis::is_missing() {
        check(SCRIPTS, |flags| RespSession::new(Redis::start(flags)));
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

/// The fields of a line of CLIENT LIST in Redis 7.4, in order.
const CLIENT_FIELDS: &str = "id addr laddr fd name age idle flags db sub psub ssub multi watch qbuf qbuf-free argv-mem multi-mem rbs \
                             rbp obl oll omem tot-mem events cmd user redir resp lib-name lib-ver";

fn check_client_lines(client: &mut Client) {
    for (request, command) in [("CLIENT LIST", "client|list"), ("client info", "client|info")] {
        let line = client.line(request);
        let line = line.trim_matches('"').trim_end_matches("\\n");
        let mut known = CLIENT_FIELDS.split_whitespace();
        let mut fields = line.split(' ').map(|field| field.split_once('=').expect("a field"));
        assert!(fields.clone().all(|(name, _)| known.any(|known| known == name)), "in another order: {line}");
        assert_eq!(fields.find(|(name, _)| *name == "cmd"), Some(("cmd", command)), "{line}");
    }
    assert_eq!(client.line("MULTI"), "+OK");
    assert_eq!(client.line("CLIENT INFO"), "+QUEUED");
    assert!(client.line("EXEC").contains(" cmd=exec "));
}

#[test]
fn client_list_has_the_fields_of_redis_in_order() {
    check_client_lines(&mut TestServer::manual(&[]).connect());
    if Redis::version().is_some_and(|version| version.starts_with("7.")) {
        check_client_lines(&mut Redis::start(&[]).control());
    }
}
