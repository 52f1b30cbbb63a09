//! Fencing tokens of 15 and 16 digits: exact wherever numbers are doubles, or text is made of them.

use crate::support::client::Client;
use crate::support::http::exchange;
use crate::support::server::TestServer;

/// What a server issues next: the first has more digits than `tostring` of Lua writes, and the last is
/// near the highest floor.
const TOKENS: [i64; 3] = [100_000_000_000_001, 999_999_999_999_999, 4_503_599_627_000_001];

fn serve(token: i64) -> (TestServer, Client) {
    let server = TestServer::manual(&["--token-floor", &(token - 1).to_string()]);
    let client = server.connect();
    (server, client)
}

#[test]
fn scripts_do_not_round_tokens() {
    for token in TOKENS {
        let (_server, mut client) = serve(token);
        assert_eq!(client.line("LOCK k me"), format!(":{token}"));
        let fence = "local token = redis.call('FENCE', KEYS[1]) ";
        let mut eval = |script: &str, more: &[&str]| {
            client.call(&[&["EVAL", &format!("{fence}{script}"), "1", "k"], more].concat())
        };
        let text = format!("\"{token}\"");
        let given = token.to_string();
        for (script, expected) in [
            ("return token", format!(":{token}")),
            ("return {token}", format!("*1\n  :{token}")),
            ("return redis.call('LOCK', KEYS[1], 'me')", format!(":{token}")),
            ("return redis.call('FENCE', KEYS[1], token)", ":1".to_owned()),
            ("return redis.call('FENCE', KEYS[1], token - 1)", ":0".to_owned()),
            ("return redis.call('FENCE', KEYS[1], ARGV[1])", ":1".to_owned()),
            ("return token == tonumber(ARGV[1]) and 1 or 0", ":1".to_owned()),
            ("return token == tonumber(ARGV[1]) + 1 and 1 or 0", ":0".to_owned()),
            ("return string.format('%d', token)", text.clone()),
            ("return string.format('%.0f', token)", text.clone()),
            ("redis.call('HSET', 'h', 'f', token) return redis.call('HGET', 'h', 'f')", text.clone()),
            ("redis.call('ZADD', 'z', token, 'm') return redis.call('ZSCORE', 'z', 'm')", text.clone()),
            ("redis.call('PUBLISH', 'c', token) return redis.call('ECHO', token)", text.clone()),
            ("return cjson.encode(token)", text.clone()),
            ("return cjson.encode({token})", format!("\"[{token}]\"")),
            ("return cjson.decode(ARGV[1])", format!(":{token}")),
            ("return cjson.decode(cjson.encode(token)) - token", ":0".to_owned()),
            ("return cmsgpack.unpack(cmsgpack.pack(token)) - token", ":0".to_owned()),
            ("return struct.unpack('>l', struct.pack('>l', token)) - token", ":0".to_owned()),
            ("return redis.call('UNLOCK', KEYS[1], 'me', 'TOKEN', token)", ":1".to_owned()),
        ] {
            let reply = eval(script, &[&given]);
            assert_eq!(reply, expected, "{script}");
        }
    }
}

/// JavaScript reads numbers in JSON as doubles.
#[test]
fn doubles_of_other_languages_are_exact() {
    for token in TOKENS {
        assert_eq!(token as f64 as i64, token);
        let (server, mut client) = serve(token);
        let request = "POST /locks/k/acquire HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: \
                       application/json\r\ncontent-length: 2\r\n\r\n{}";
        let answer = exchange(server.http.expect("HTTP"), request.as_bytes()).expect("an answer");
        let shown = &answer.json()["fencing_token"];
        assert_eq!(shown.as_i64(), Some(token));
        assert_eq!(shown.as_f64().map(|double| double as i64), Some(token));
        assert_eq!(client.line("FENCE k"), format!(":{token}"));
        // As other numbers of RESP3 are written.
        assert!(client.line("HELLO 3").starts_with('%'));
        let script = "redis.setresp(3) return {double = redis.call('FENCE', 'k')}";
        assert_eq!(client.call(&["EVAL", script, "0"]), format!(",{token}"));
    }
}
