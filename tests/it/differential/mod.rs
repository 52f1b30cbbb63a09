//! Scripts to which octostore must reply as Redis 7 does, run by octostore and, if it is installed,
//! by a real redis-server. `UPDATE_SCRIPTS=1 cargo test differential` records the replies of Redis.

mod redis;

use self::redis::Redis;
use crate::support::client::Client;
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
