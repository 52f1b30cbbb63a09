//! Comparisons with a real redis-server of what commands say about keys, lookups and clients.

use super::redis::Redis;
use crate::support::client::Client;
use crate::support::server::TestServer;

/// Requests of every command that names keys.
const REQUESTS_WITH_KEYS: &str = "append k v|blmove a b left right 0|blmpop 0 1 k left|blpop a b 0|brpop k 0
    brpoplpush a b 0|bzmpop 0 1 k min|bzpopmax k 0|bzpopmin k 0|copy a b|decr k|decrby k 1|del a b
    eval s 1 k|eval_ro s 1 k|evalsha s 1 k|exists a b|expire k 1|expireat k 1|expiretime k|get k|getdel k
    getex k|getrange k 0 1|getset k v|hdel k f|hexists k f|hget k f|hgetall k|hincrby k f 1
    hincrbyfloat k f 1|hkeys k|hlen k|hmget k f|hmset k f v|hrandfield k|hscan k 0|hset k f v|hsetnx k f v
    hstrlen k f|hvals k|incr k|incrby k 1|incrbyfloat k 1|lindex k 0|linsert k before a b|llen k
    lmove a b left right|lmpop 1 k left|lpop k|lpos k a|lpush k a|lpushx k a|lrange k 0 1|lrem k 0 a
    lset k 0 a|ltrim k 0 1|memory usage k|mget a b|mset a 1 b 2|msetnx a 1 b 2|object encoding k
    object idletime k|persist k|pexpire k 1|pexpireat k 1|pexpiretime k|psetex k 1 v|pttl k|rename a b
    renamenx a b|rpop k|rpoplpush a b|rpush k a|rpushx k a|sadd k a|scard k|sdiff a b|sdiffstore d a b
    set k v|set k v get|set k v ex 10 get|set get get|setex k 1 v|setnx k v|setrange k 0 v|sinter a b
    sintercard 2 a b|sinterstore d a b|sismember k a|smembers k|smismember k a|smove a b m|spop k
    srandmember k|srem k a|sscan k 0|strlen k|substr k 0 1|sunion a b|sunionstore d a b|touch k|ttl k|type k
    unlink k|watch k|zadd k 1 a|zcard k|zcount k 0 1|zdiff 2 a b|zdiffstore d 2 a b|zincrby k 1 a
    zinter 2 a b|zintercard 2 a b|zinterstore d 2 a b|zlexcount k - +|zmpop 1 k min|zmscore k a|zpopmax k
    zpopmin k|zrandmember k|zrange k 0 1|zrangebylex k - +|zrangebyscore k 0 1|zrangestore d s 0 1|zrank k a
    zrem k a|zremrangebylex k - +|zremrangebyrank k 0 1|zremrangebyscore k 0 1|zrevrange k 0 1
    zrevrangebylex k + -|zrevrangebyscore k 1 0|zrevrank k a|zscan k 0|zscore k a|zunion 2 a b
    zunionstore d 2 a b";

#[test]
fn keys_have_the_flags_of_redis() {
    if Redis::is_missing() {
        return;
    }
    let (redis, octostore) = (Redis::start(&[]), TestServer::manual(&[]));
    let (mut redis, mut octostore) = (redis.control(), octostore.connect());
    for request in REQUESTS_WITH_KEYS.split(['|', '\n']).map(str::trim) {
        let request = format!("COMMAND GETKEYSANDFLAGS {request}");
        assert_eq!(octostore.line(&request), redis.line(&request), "{request}");
    }
}

/// Requests in order, by a client that has no keys before.
const LOOKUPS: &str = "set s v|get s|get none|mget s none h s|strlen s|strlen none|getrange s 0 1|getdel none
    set s v|getdel s|set s v|getset s w|incr n|append s x|exists s none s|touch s none|type s|type none|ttl s
    pttl none|expiretime s|pexpire s 100000|persist s|rename s t|set s v get|set s v nx|getex s|getex none
    object encoding s|object encoding none|hset h f v|hget h f|hget h none|hget none f|hgetall h|hmget h f g
    hlen none|hexists h f|hincrby h n 1|hdel h n|hscan h 0|sadd a x y|sadd b y z|smembers a|sismember a x
    sinter a b|sinter a none|sunion a b none|sdiff a b|sintercard 2 a b|sinterstore d a b|smove a b x
    scard none|srandmember a|zadd z 1 x 2 y|zscore z x|zrank z x|zrange z 0 -1|zcard none|zunion 2 z a
    zinter 2 z a|zdiff 2 z none|zcount z 0 1|zincrby z 1 x|zpopmin none|rpush l x y|lrange l 0 -1
    lindex l 0|llen none|lpos l x|lpop l|lmove l m left right|blpop m 1|get h|hget s f|zscore s x|scan 0|keys *
    dbsize|eval \"return redis.call('get','none')\" 0";

#[test]
fn lookups_are_counted_as_redis_does() {
    if Redis::is_missing() {
        return;
    }
    let (redis, octostore) = (Redis::start(&[]), TestServer::manual(&[]));
    let (mut redis, mut octostore) = (redis.control(), octostore.connect());
    let lookups = |client: &mut Client| {
        let stats = client.line("INFO stats");
        let field = |name: &str| {
            let (_, rest) = stats.split_once(name).expect("a field");
            rest.split('\\').next().expect("its value").parse::<i64>().expect("a number")
        };
        (field("keyspace_hits:"), field("keyspace_misses:"))
    };
    let mut differing = Vec::new();
    for request in LOOKUPS.split(['|', '\n']).map(str::trim) {
        let [expected, found] = [&mut redis, &mut octostore].map(|client| {
            let (hits, misses) = lookups(client);
            client.send_bytes(format!("{request}\r\n").as_bytes());
            client.reply();
            let (hits_after, misses_after) = lookups(client);
            (hits_after - hits, misses_after - misses)
        });
        if found != expected {
            differing.push(format!("{request}: expected {expected:?}, got {found:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn info_counts_bytes_and_scripts() {
    let server = TestServer::manual(&[]);
    let mut client = server.connect();
    let field = |client: &mut Client, name: &str| {
        let info = client.line("INFO");
        let (_, rest) = info.split_once(name).expect("a field");
        rest.split('\\').next().expect("its value").parse::<u64>().expect("a number")
    };
    let bytes = ["total_net_input_bytes:", "total_net_output_bytes:"];
    let [received, sent] = bytes.map(|name| field(&mut client, name));
    let text = "x".repeat(10_000);
    assert_eq!(client.call(&["ECHO", &text]).len(), text.len() + 2);
    let [received_after, sent_after] = bytes.map(|name| field(&mut client, name));
    assert!(received_after - received > 10_000 && sent_after - sent > 10_000);
    client.call(&["SCRIPT", "LOAD", "return 1"]);
    assert_eq!(field(&mut client, "number_of_cached_scripts:"), 1);
    assert_eq!(field(&mut client, "used_memory_scripts:"), 8);
}

/// The fields of a line of CLIENT LIST in Redis 7.4, in order.
const CLIENT_FIELDS: &str = "id addr laddr fd name age idle flags db sub psub ssub multi watch qbuf qbuf-free argv-mem multi-mem rbs \
                             rbp obl oll omem tot-mem events cmd user redir resp lib-name lib-ver";

fn check_client_lines(client: &mut Client) {
    for (request, command) in [("CLIENT LIST", "client|list"), ("client info", "client|info")] {
        let lines = client.line(request);
        // The connection that prepared the server may not have ended yet.
        let line = lines.trim_matches('"').trim_end_matches("\\n").rsplit("\\n").next().expect("a line");
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
    if !Redis::is_missing() {
        check_client_lines(&mut Redis::start(&[]).control());
    }
}

#[test]
fn the_end_of_a_key_is_the_one_that_was_set() {
    let server = TestServer::real(&[]);
    let mut client = server.connect();
    // Each at another fraction of a millisecond.
    for n in 0..100 {
        let end = format!("{}", 4_102_444_800_000_u64 + n);
        client.call(&["SET", "k", "v"]);
        client.call(&["PEXPIREAT", "k", &end]);
        assert_eq!(client.call(&["PEXPIRETIME", "k"]), format!(":{end}"));
    }
}
