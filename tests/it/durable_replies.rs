//! No reply leaves before the state that it reports is durable.
//!
//! Guarantees: every command of the command table has a row here, and every command that writes has
//! a request that changes something. The commit that a reply depends on is held and then fails: a
//! reply that is not an error was sent too early. Not here: what the replies say.

use std::collections::BTreeSet;
use std::sync::Arc;

use octostore::command::{Command, Flags, commands_and_subcommands};
use octostore::journal::{Faults, JournalError};

use crate::support::client::Client;
use crate::support::server::TestServer;
use crate::support::until;

/// How the replies of one command depend on the journal.
struct Row {
    command: &'static str,
    /// Requests that change something. `ID` stands for an open session.
    changes: &'static [&'static str],
    /// A change, and a request of this command whose reply depends on that change.
    observes: &'static [(&'static str, &'static str)],
}

const fn row(
    command: &'static str,
    changes: &'static [&'static str],
    observes: &'static [(&'static str, &'static str)],
) -> Row {
    Row { command, changes, observes }
}

const LOCK_NEW: &str = "LOCK new me";
const UNLOCK_HELD: &str = "UNLOCK held me";
const HSET_NEW: &str = "HSET new f 1";
const SADD_NEW: &str = "SADD new 1";
const ZADD_NEW: &str = "ZADD new 1 m";
const RPUSH_NEW: &str = "RPUSH new a";
const LOAD: &str = "SCRIPT LOAD return(1)";
const CLOSE: &str = "SESSION CLOSE ID";

const ROWS: &[Row] = &[
    row(
        "lock",
        &["LOCK new me PX 1000", "LOCK new me CONN", "LOCK new me SESSION ID", "LOCK held me PX 90000"],
        &[(LOCK_NEW, LOCK_NEW), (LOCK_NEW, "LOCK new you"), (CLOSE, "LOCK new me SESSION ID")],
    ),
    row("unlock", &[UNLOCK_HELD, "UNLOCK held me TOKEN 1"], &[(UNLOCK_HELD, UNLOCK_HELD)]),
    row("renew", &["RENEW held me PX 90000"], &[(UNLOCK_HELD, "RENEW held me")]),
    row(
        "fence",
        &[],
        &[
            (LOCK_NEW, "FENCE new"),
            (LOCK_NEW, "FENCE new 7"),
            (UNLOCK_HELD, "FENCE held 1"),
            (CLOSE, "FENCE in-session 2"),
        ],
    ),
    row("lockinfo", &[], &[(LOCK_NEW, "LOCKINFO new")]),
    row("locks", &[], &[(LOCK_NEW, "LOCKS 0")]),
    row("forceunlock", &["FORCEUNLOCK held"], &[]),
    row("session|open", &["SESSION OPEN EX 60"], &[]),
    row("session|keepalive", &["SESSION KEEPALIVE ID"], &[(CLOSE, "SESSION KEEPALIVE ID")]),
    row("session|close", &[CLOSE], &[(CLOSE, CLOSE)]),
    row("session|info", &[], &[(CLOSE, "SESSION INFO ID")]),
    row(
        "set",
        &["SET new me NX PX 1000", "SET held me PX 90000", "SET held you GET"],
        &[(LOCK_NEW, "SET new you NX")],
    ),
    row("setnx", &["SETNX new me"], &[(LOCK_NEW, "SETNX new you")]),
    row("setex", &["SETEX new 10 me"], &[]),
    row("psetex", &["PSETEX new 1000 me"], &[]),
    row("getset", &["GETSET held you"], &[(LOCK_NEW, "GETSET new me")]),
    row("get", &[], &[(LOCK_NEW, "GET new")]),
    row("getdel", &["GETDEL held"], &[("DEL held", "GETDEL held")]),
    row("getex", &["GETEX held PX 90000"], &[(LOCK_NEW, "GETEX new"), (LOCK_NEW, "GETEX new PX 90000")]),
    row("strlen", &[], &[(LOCK_NEW, "STRLEN new")]),
    row("mget", &[], &[(LOCK_NEW, "MGET new other")]),
    row("mset", &["MSET held me new me"], &[]),
    row("msetnx", &["MSETNX new me other me"], &[(LOCK_NEW, "MSETNX new me other me")]),
    row("getrange", &[], &[(LOCK_NEW, "GETRANGE new 0 1")]),
    row("substr", &[], &[(LOCK_NEW, "SUBSTR new 0 1")]),
    row("setrange", &["SETRANGE held 1 x"], &[(LOCK_NEW, "SETRANGE new 0 \"\"")]),
    row("append", &["APPEND held x", "APPEND new x"], &[]),
    row("incr", &["INCR new"], &[(LOCK_NEW, "INCR new")]),
    row("decr", &["DECR new"], &[(LOCK_NEW, "DECR new")]),
    row("incrby", &["INCRBY new 2"], &[(LOCK_NEW, "INCRBY new 2")]),
    row("decrby", &["DECRBY new 2"], &[(LOCK_NEW, "DECRBY new 2")]),
    row("incrbyfloat", &["INCRBYFLOAT new 0.5"], &[(LOCK_NEW, "INCRBYFLOAT new 0.5")]),
    row("digest", &[], &[(LOCK_NEW, "DIGEST new")]),
    row("del", &["DEL held"], &[("DEL held", "DEL held")]),
    row("unlink", &["UNLINK held"], &[("DEL held", "UNLINK held")]),
    row("delex", &["DELEX held IFEQ me"], &[("DEL held", "DELEX held IFEQ me")]),
    row("delifeq", &["DELIFEQ held me"], &[("DEL held", "DELIFEQ held me")]),
    row("exists", &[], &[(LOCK_NEW, "EXISTS new")]),
    row("touch", &[], &[(LOCK_NEW, "TOUCH new")]),
    row("copy", &["COPY held new"], &[(LOCK_NEW, "COPY held new"), ("DEL held", "COPY held new")]),
    row("object|encoding", &[], &[(LOCK_NEW, "OBJECT ENCODING new")]),
    row("object|freq", &[], &[("DEL held", "OBJECT FREQ held")]),
    row("object|idletime", &[], &[("DEL held", "object idletime held")]),
    row("object|refcount", &[], &[(LOCK_NEW, "OBJECT REFCOUNT new")]),
    row("memory|usage", &[], &[(LOCK_NEW, "MEMORY USAGE new")]),
    row("randomkey", &[], &[(LOCK_NEW, "RANDOMKEY")]),
    row("flushdb", &["FLUSHDB"], &[(LOCK_NEW, "FLUSHDB")]),
    row("flushall", &["FLUSHALL"], &[(LOCK_NEW, "FLUSHALL")]),
    row("save", &[], &[(LOCK_NEW, "SAVE")]),
    row("bgsave", &[], &[(LOCK_NEW, "BGSAVE")]),
    row("bgrewriteaof", &[], &[(LOCK_NEW, "BGREWRITEAOF")]),
    row("type", &[], &[(LOCK_NEW, "TYPE new")]),
    row("ttl", &[], &[(LOCK_NEW, "TTL new")]),
    row("pttl", &[], &[(LOCK_NEW, "PTTL new")]),
    row("expire", &["EXPIRE held 90"], &[("DEL held", "EXPIRE held 90")]),
    row("pexpire", &["PEXPIRE held 90000"], &[("DEL held", "PEXPIRE held 90000")]),
    row("expireat", &["EXPIREAT held 4102444800"], &[("DEL held", "EXPIREAT held 4102444800")]),
    row("pexpireat", &["PEXPIREAT held 4102444800000"], &[("DEL held", "PEXPIREAT held 4102444800000")]),
    row("expiretime", &[], &[(LOCK_NEW, "EXPIRETIME new")]),
    row("pexpiretime", &[], &[(LOCK_NEW, "PEXPIRETIME new")]),
    row("persist", &["PERSIST held"], &[("DEL held", "PERSIST held")]),
    row("rename", &["RENAME held new"], &[("DEL held", "RENAME held new")]),
    row("renamenx", &["RENAMENX held new"], &[(LOCK_NEW, "RENAMENX held new")]),
    row("scan", &[], &[(LOCK_NEW, "SCAN 0")]),
    row("keys", &[], &[(LOCK_NEW, "KEYS *")]),
    row("dbsize", &[], &[(LOCK_NEW, "DBSIZE")]),
    row("hset", &["HSET new f 1", "HSET h f 2"], &[]),
    row("hsetnx", &["HSETNX new f 1"], &[]),
    row("hmset", &["HMSET new f 1"], &[]),
    row("hdel", &["HDEL h f"], &[]),
    row("hincrby", &["HINCRBY h f 1"], &[]),
    row("hincrbyfloat", &["HINCRBYFLOAT h f 0.5"], &[]),
    row("hget", &[], &[(HSET_NEW, "HGET new f")]),
    row("hmget", &[], &[(HSET_NEW, "HMGET new f")]),
    row("hgetall", &[], &[(HSET_NEW, "HGETALL new")]),
    row("hexists", &[], &[(HSET_NEW, "HEXISTS new f")]),
    row("hlen", &[], &[(HSET_NEW, "HLEN new")]),
    row("hstrlen", &[], &[(HSET_NEW, "HSTRLEN new f")]),
    row("hkeys", &[], &[(HSET_NEW, "HKEYS new")]),
    row("hvals", &[], &[(HSET_NEW, "HVALS new")]),
    row("hrandfield", &[], &[(HSET_NEW, "HRANDFIELD new")]),
    row("hscan", &[], &[(HSET_NEW, "HSCAN new 0")]),
    row("sadd", &["SADD new 1", "SADD t 2"], &[]),
    row("srem", &["SREM t 1"], &[]),
    row("spop", &["SPOP t", "SPOP t 1"], &[]),
    row("smove", &["SMOVE t new 1"], &[]),
    row("sinterstore", &["SINTERSTORE new t"], &[]),
    row("sunionstore", &["SUNIONSTORE new t"], &[]),
    row("sdiffstore", &["SDIFFSTORE new t"], &[]),
    row("sismember", &[], &[(SADD_NEW, "SISMEMBER new 1")]),
    row("smismember", &[], &[(SADD_NEW, "SMISMEMBER new 1")]),
    row("scard", &[], &[(SADD_NEW, "SCARD new")]),
    row("smembers", &[], &[(SADD_NEW, "SMEMBERS new")]),
    row("srandmember", &[], &[(SADD_NEW, "SRANDMEMBER new")]),
    row("sscan", &[], &[(SADD_NEW, "SSCAN new 0")]),
    row("sinter", &[], &[(SADD_NEW, "SINTER t new")]),
    row("sintercard", &[], &[(SADD_NEW, "SINTERCARD 2 t new")]),
    row("sunion", &[], &[(SADD_NEW, "SUNION t new")]),
    row("sdiff", &[], &[(SADD_NEW, "SDIFF t new")]),
    row("zadd", &["ZADD new 1 m", "ZADD z XX 2 m", "ZADD z INCR 1 m"], &[]),
    row("zincrby", &["ZINCRBY z 1 m"], &[]),
    row("zrem", &["ZREM z m"], &[]),
    row("zpopmin", &["ZPOPMIN z"], &[]),
    row("zpopmax", &["ZPOPMAX z 1"], &[]),
    row("zmpop", &["ZMPOP 2 new z MIN"], &[]),
    row("zrangestore", &["ZRANGESTORE new z 0 -1"], &[]),
    row("zremrangebyrank", &["ZREMRANGEBYRANK z 0 -1"], &[]),
    row("zremrangebyscore", &["ZREMRANGEBYSCORE z -inf +inf"], &[]),
    row("zremrangebylex", &["ZREMRANGEBYLEX z - +"], &[]),
    row("zunionstore", &["ZUNIONSTORE new 2 z t"], &[]),
    row("zinterstore", &["ZINTERSTORE new 1 z"], &[]),
    row("zdiffstore", &["ZDIFFSTORE new 1 z"], &[]),
    row("zcard", &[], &[(ZADD_NEW, "ZCARD new")]),
    row("zscore", &[], &[(ZADD_NEW, "ZSCORE new m")]),
    row("zmscore", &[], &[(ZADD_NEW, "ZMSCORE new m")]),
    row("zrank", &[], &[(ZADD_NEW, "ZRANK new m")]),
    row("zrevrank", &[], &[(ZADD_NEW, "ZREVRANK new m")]),
    row("zrandmember", &[], &[(ZADD_NEW, "ZRANDMEMBER new")]),
    row("zscan", &[], &[(ZADD_NEW, "ZSCAN new 0")]),
    row("zrange", &[], &[(ZADD_NEW, "ZRANGE new 0 -1")]),
    row("zrevrange", &[], &[(ZADD_NEW, "ZREVRANGE new 0 -1")]),
    row("zrangebyscore", &[], &[(ZADD_NEW, "ZRANGEBYSCORE new -inf +inf")]),
    row("zrevrangebyscore", &[], &[(ZADD_NEW, "ZREVRANGEBYSCORE new +inf -inf")]),
    row("zrangebylex", &[], &[(ZADD_NEW, "ZRANGEBYLEX new - +")]),
    row("zrevrangebylex", &[], &[(ZADD_NEW, "ZREVRANGEBYLEX new + -")]),
    row("zcount", &[], &[(ZADD_NEW, "ZCOUNT new -inf +inf")]),
    row("zlexcount", &[], &[(ZADD_NEW, "ZLEXCOUNT new - +")]),
    row("zunion", &[], &[(ZADD_NEW, "ZUNION 2 z new")]),
    row("zinter", &[], &[(ZADD_NEW, "ZINTER 2 z new")]),
    row("zintercard", &[], &[(ZADD_NEW, "ZINTERCARD 2 z new")]),
    row("zdiff", &[], &[(ZADD_NEW, "ZDIFF 2 z new")]),
    row("lpush", &["LPUSH new a", "LPUSH l b"], &[]),
    row("rpush", &["RPUSH new a"], &[]),
    row("lpushx", &["LPUSHX l b"], &[]),
    row("rpushx", &["RPUSHX l b"], &[]),
    row("lpop", &["LPOP l"], &[]),
    row("rpop", &["RPOP l 1"], &[]),
    row("lset", &["LSET l 0 b"], &[]),
    row("linsert", &["LINSERT l BEFORE a b"], &[]),
    row("lrem", &["LREM l 0 a"], &[]),
    row("ltrim", &["LTRIM l 1 0"], &[]),
    row("lmove", &["LMOVE l new LEFT LEFT"], &[]),
    row("rpoplpush", &["RPOPLPUSH l new"], &[]),
    row("lmpop", &["LMPOP 2 new l LEFT"], &[]),
    row("blpop", &["BLPOP new l 0"], &[("LPOP l", "BLPOP l 0.01")]),
    row("brpop", &["BRPOP l 0"], &[(RPUSH_NEW, "BRPOP new 0.01")]),
    row("blmove", &["BLMOVE l new LEFT LEFT 0"], &[("LPOP l", "BLMOVE l new LEFT LEFT 0.01")]),
    row("brpoplpush", &["BRPOPLPUSH l new 0"], &[(RPUSH_NEW, "BRPOPLPUSH new l 0.01")]),
    row("blmpop", &["BLMPOP 0 2 new l LEFT"], &[(RPUSH_NEW, "BLMPOP 0.01 1 new LEFT COUNT 9")]),
    row("bzpopmin", &["BZPOPMIN new z 0"], &[("ZPOPMIN z", "BZPOPMIN z 0.01")]),
    row("bzpopmax", &["BZPOPMAX z 0"], &[(ZADD_NEW, "BZPOPMAX new 0.01")]),
    row("bzmpop", &["BZMPOP 0 2 new z MIN"], &[(ZADD_NEW, "BZMPOP 0.01 1 new MAX COUNT 9")]),
    row("llen", &[], &[(RPUSH_NEW, "LLEN new")]),
    row("lrange", &[], &[(RPUSH_NEW, "LRANGE new 0 -1")]),
    row("lindex", &[], &[(RPUSH_NEW, "LINDEX new 0")]),
    row("lpos", &[], &[(RPUSH_NEW, "LPOS new a")]),
    row(
        "eval",
        &["EVAL return(redis.call('SET','new','me')) 0", "EVAL return(1) 0"],
        &[(LOCK_NEW, "EVAL return(redis.call('GET','new')) 0"), (LOAD, "EVAL return(1) 0")],
    ),
    row("eval_ro", &[], &[(LOCK_NEW, "EVAL_RO return(redis.call('GET','new')) 0")]),
    row("evalsha", &[], &[(LOAD, "EVALSHA 930269f31393d0be681588b6ab08dccee7d6bb67 0")]),
    row("evalsha_ro", &[], &[(LOAD, "EVALSHA_RO 930269f31393d0be681588b6ab08dccee7d6bb67 0")]),
    row("script|load", &[LOAD], &[(LOAD, LOAD)]),
    row("script|exists", &[], &[(LOAD, "SCRIPT EXISTS 930269f31393d0be681588b6ab08dccee7d6bb67")]),
    row("script|flush", &[], &[(LOAD, "SCRIPT FLUSH")]),
];

/// Commands whose replies report nothing that a commit makes durable. EXEC is tested by the
/// commands in its transaction; what INFO counts may be ahead of the journal.
const INDEPENDENT: &[&str] = &[
    "session",
    "multi",
    "exec",
    "discard",
    "watch",
    "unwatch",
    "script",
    "script|kill",
    "script|debug",
    "function",
    "function|list",
    "function|flush",
    "subscribe",
    "psubscribe",
    "unsubscribe",
    "punsubscribe",
    "publish",
    "ssubscribe",
    "sunsubscribe",
    "spublish",
    "pubsub",
    "pubsub|channels",
    "pubsub|numsub",
    "pubsub|numpat",
    "pubsub|shardchannels",
    "pubsub|shardnumsub",
    "monitor",
    "hello",
    "auth",
    "ping",
    "echo",
    "select",
    "reset",
    "quit",
    "client",
    "client|id",
    "client|setname",
    "client|getname",
    "client|setinfo",
    "client|info",
    "client|list",
    "client|kill",
    "client|unblock",
    "client|pause",
    "client|unpause",
    "client|tracking",
    "client|caching",
    "client|trackinginfo",
    "client|getredir",
    "client|no-evict",
    "client|no-touch",
    "client|reply",
    "command",
    "command|count",
    "command|info",
    "command|docs",
    "command|list",
    "command|getkeys",
    "command|getkeysandflags",
    "config",
    "config|get",
    "config|set",
    "config|resetstat",
    "config|rewrite",
    "info",
    "time",
    "wait",
    "waitaof",
    "role",
    "sentinel",
    "sentinel|get-master-addr-by-name",
    "sentinel|masters",
    "sentinel|master",
    "sentinel|replicas",
    "sentinel|slaves",
    "sentinel|sentinels",
    "sentinel|ckquorum",
    "sentinel|myid",
    "cluster",
    "cluster|countkeysinslot",
    "cluster|info",
    "cluster|keyslot",
    "cluster|myid",
    "cluster|nodes",
    "cluster|shards",
    "cluster|slots",
    "readonly",
    "readwrite",
    "asking",
    "replicaof",
    "slaveof",
    "failover",
    "sync",
    "psync",
    "replconf",
    "lastsave",
    "shutdown",
    "acl",
    "acl|whoami",
    "acl|list",
    "acl|users",
    "acl|getuser",
    "acl|setuser",
    "acl|deluser",
    "acl|cat",
    "acl|genpass",
    "acl|log",
    "acl|dryrun",
    "acl|load",
    "acl|save",
    "slowlog",
    "slowlog|get",
    "slowlog|len",
    "slowlog|reset",
    "object",
    "memory",
    "memory|doctor",
    "memory|malloc-stats",
    "memory|purge",
    "memory|stats",
    "latency",
    "latency|latest",
    "latency|history",
    "latency|reset",
    "latency|graph",
    "latency|doctor",
    "latency|histogram",
    "debug",
    "module",
    "module|list",
    "module|load",
    "module|unload",
    "swapdb",
];

/// A lock with an owner, a session with a lock, and a value of each type. Returns the session's id, too.
fn prepared() -> (TestServer, Arc<Faults>, String) {
    let faults = Arc::new(Faults::default());
    let server = TestServer::on(Arc::clone(&faults));
    let mut client = server.connect();
    assert_eq!(client.line("LOCK held me PX 60000"), ":1");
    let id = client.line("SESSION OPEN EX 60").trim_matches('"').to_owned();
    assert_eq!(client.line(&format!("LOCK in-session me SESSION {id}")), ":2");
    for line in ["HSET h f 1", "SADD t 1", "ZADD z 1 m", "RPUSH l a"] {
        assert_eq!(client.line(line), ":1");
    }
    (server, faults, id)
}

fn send(client: &mut Client, line: &str, id: &str) {
    client.send(&line.replace("ID", id).split(' ').collect::<Vec<_>>());
}

#[test]
fn every_command_has_a_row() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.command).collect();
    let independent: BTreeSet<&str> = INDEPENDENT.iter().copied().collect();
    let all: Vec<&Command> = commands_and_subcommands().collect();
    for command in &all {
        let name = command.name;
        assert!(rows.contains(name) != independent.contains(name), "{name}: needs one row");
        let changes = ROWS.iter().any(|row| row.command == name && !row.changes.is_empty());
        let is_write = command.flags & Flags::WRITE != 0;
        assert!(!is_write || changes, "{name} writes: a request that changes something is missing");
    }
    let known = |name: &&str| all.iter().any(|command| command.name == *name);
    assert!(rows.iter().chain(&independent).all(known), "a row names no command");
    let is_named =
        |row: &&Row, line: &str| line.to_ascii_lowercase().replace(' ', "|").starts_with(row.command);
    for row in ROWS {
        let own = row.changes.iter().chain(row.observes.iter().map(|(_, request)| request));
        own.for_each(|line| assert!(is_named(&row, line), "{line} is in the row of {}", row.command));
    }
}

#[test]
fn a_change_is_acknowledged_after_its_commit() {
    for request in ROWS.iter().flat_map(|row| row.changes) {
        let (server, faults, id) = prepared();
        let mut client = server.connect();
        faults.hold_commits();
        send(&mut client, request, &id);
        faults.wait_until_held();
        faults.fail_with(Some(JournalError::Full));
        faults.release_commits();
        let reply = client.reply();
        assert!(reply.starts_with("-UNKNOWN"), "{request}: {reply}");
        faults.fail_with(None);
    }
}

#[test]
fn a_reply_that_reports_a_change_waits_for_the_commit_of_that_change() {
    for (change, request) in ROWS.iter().flat_map(|row| row.observes) {
        let (server, faults, id) = prepared();
        let (mut first, mut second, mut third) = (server.connect(), server.connect(), server.connect());
        let before = server.engine.last();
        let no_commit = server.engine.one_commit();
        send(&mut first, change, &id);
        until(|| server.engine.last() > before);
        send(&mut second, request, &id);
        // The server usually runs the request meanwhile; otherwise it refuses it below.
        (0..20).for_each(|_| assert_eq!(third.line("PING"), "+PONG"));
        faults.fail_with(Some(JournalError::Full));
        drop(no_commit);
        let reply = second.reply();
        assert!(
            reply.starts_with("-UNKNOWN") || reply.starts_with("-MISCONF"),
            "{request} after {change}: {reply}"
        );
        faults.fail_with(None);
    }
}
