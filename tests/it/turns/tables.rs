//! The worst cases: the arguments of each command, the requests of each route, the cause of each
//! event.

use octostore::engine::EventKind;

/// The worst arguments of each command. `;` separates requests; [`World::expand`] knows the words
/// with `$`.
pub(super) const WORST: &[(&str, &[&str])] = &[
    (
        "lock",
        &[
            "LOCK limited holder0 LIMIT 1000000",
            "LOCK limited other$n LIMIT 1000000 PX 50",
            "LOCK shared other$n SHARED PX 50",
            "LOCK queued other WAIT 1",
            "LOCK $key $owner META $kilo MAXHOLD 86400000 DELAY 1 SESSION $session",
            "LOCK gone$n me PX 1 DELAY 1 CONN",
        ],
    ),
    ("unlock", &["UNLOCK limited other", "UNLOCK shared other", "UNLOCK queued other TOKEN 1"]),
    ("renew", &["RENEW limited holder1 EX 86400", "RENEW shared holder1", "RENEW queued me EX 86400"]),
    ("fence", &["FENCE limited 1", "FENCE shared", "FENCE queued"]),
    ("lockinfo", &["LOCKINFO queued", "LOCKINFO limited", "LOCKINFO shared"]),
    (
        "locks",
        &[
            "LOCKS 0 MATCH $glob COUNT 1000",
            "LOCKS 0 MATCH $glob COUNT 1000000000",
            "LOCKS 0 COUNT 1000000000",
        ],
    ),
    ("forceunlock", &["FORCEUNLOCK $crowded", "FORCEUNLOCK lock:00000000000"]),
    ("session", &["SESSION HELP", "SESSION $kilo"]),
    ("session|open", &["SESSION OPEN PX 50 NAME $kilo"]),
    ("session|keepalive", &["SESSION KEEPALIVE $session"]),
    ("session|close", &["SESSION CLOSE $loaded"]),
    ("session|info", &["SESSION INFO $session"]),
    (
        "set",
        &[
            "SET $crowded other",
            "SET limited other NX GET",
            "SET $key $owner KEEPTTL GET",
            "SET lock:00000000001 $n",
        ],
    ),
    ("setnx", &["SETNX shared other"]),
    ("get", &["GET limited", "GET queued"]),
    ("del", &["DEL $held", "DEL $crowded"]),
    ("unlink", &["UNLINK $held", "UNLINK $crowded"]),
    ("delex", &["DELEX limited", "DELEX limited IFEQ $owner"]),
    ("delifeq", &["DELIFEQ limited $owner"]),
    ("exists", &["EXISTS $many"]),
    ("touch", &["TOUCH $many"]),
    ("copy", &["COPY limited other", "COPY lock:00000000001 copy REPLACE"]),
    ("object", &["OBJECT HELP", "OBJECT $kilo"]),
    ("object|encoding", &["OBJECT ENCODING limited"]),
    ("object|freq", &["OBJECT FREQ limited"]),
    ("object|idletime", &["OBJECT IDLETIME limited"]),
    ("object|refcount", &["OBJECT REFCOUNT limited"]),
    ("memory", &["MEMORY HELP", "MEMORY $kilo"]),
    ("memory|usage", &["MEMORY USAGE limited", "MEMORY USAGE queued SAMPLES 0"]),
    ("memory|doctor", &["MEMORY DOCTOR"]),
    ("memory|malloc-stats", &["MEMORY MALLOC-STATS"]),
    ("memory|purge", &["MEMORY PURGE"]),
    ("memory|stats", &["MEMORY STATS"]),
    ("randomkey", &["RANDOMKEY", "SELECT 15; RANDOMKEY; SELECT 0", "LOCK $key me; SELECT 0; RANDOMKEY"]),
    ("flushdb", &["SELECT 15; FLUSHDB; SELECT 0"]),
    ("flushall", &["MULTI; FLUSHALL; EXEC"]),
    ("save", &["SAVE"]),
    ("bgsave", &["BGSAVE"]),
    ("bgrewriteaof", &["BGREWRITEAOF"]),
    ("lastsave", &["LASTSAVE"]),
    ("shutdown", &["SHUTDOWN ABORT", "SHUTDOWN $mega"]),
    ("slowlog", &["SLOWLOG HELP", "SLOWLOG $kilo"]),
    (
        "slowlog|get",
        &["CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 10000; DEL $many; SLOWLOG GET -1"],
    ),
    ("slowlog|len", &["SLOWLOG LEN"]),
    ("slowlog|reset", &["SLOWLOG RESET; CONFIG SET slowlog-log-slower-than 10000"]),
    ("latency", &["LATENCY HELP", "LATENCY $kilo"]),
    ("latency|latest", &["LATENCY LATEST"]),
    ("latency|history", &["LATENCY HISTORY $mega"]),
    ("latency|reset", &["LATENCY RESET $many"]),
    ("latency|graph", &["LATENCY GRAPH $mega"]),
    ("latency|doctor", &["LATENCY DOCTOR"]),
    ("latency|histogram", &["LATENCY HISTOGRAM", "LATENCY HISTOGRAM $many"]),
    ("role", &["ROLE"]),
    ("replicaof", &["REPLICAOF NO ONE", "REPLICAOF $mega 1"]),
    ("slaveof", &["SLAVEOF NO ONE"]),
    ("failover", &["FAILOVER"]),
    ("waitaof", &["WAITAOF 0 0 0"]),
    ("debug", &["DEBUG SLEEP 10"]),
    ("module", &["MODULE HELP", "MODULE $kilo"]),
    ("module|list", &["MODULE LIST"]),
    ("module|load", &["MODULE LOAD $mega"]),
    ("module|unload", &["MODULE UNLOAD $mega"]),
    ("swapdb", &["SWAPDB 0 15"]),
    ("type", &["TYPE limited"]),
    ("ttl", &["TTL limited", "TTL shared"]),
    ("pttl", &["PTTL limited"]),
    ("expire", &["EXPIRE limited 86400", "EXPIRE shared 86400 NX"]),
    ("pexpire", &["PEXPIRE limited 86400000 GT"]),
    ("persist", &["PERSIST limited; EXPIRE limited 86400"]),
    ("rename", &["RENAME lock:00000000001 renamed; RENAME renamed lock:00000000001"]),
    ("renamenx", &["RENAMENX limited shared"]),
    (
        "scan",
        &[
            "SCAN 0 MATCH $glob COUNT 1000",
            "SCAN 0 MATCH $glob COUNT 1000000000 TYPE string",
            "SCAN 0 COUNT 1000000000 TYPE lock",
        ],
    ),
    ("keys", &["KEYS *", "KEYS $glob", "KEYS none", "SELECT 15; KEYS *; SELECT 0"]),
    ("dbsize", &["DBSIZE"]),
    ("multi", &["MULTI"]),
    ("exec", &["EXEC", "WATCH $many; MULTI; EXEC"]),
    ("discard", &["DISCARD", "WATCH $many; MULTI; DISCARD"]),
    ("watch", &["WATCH $many", "WATCH lock:$n"]),
    ("unwatch", &["WATCH $many; UNWATCH"]),
    ("eval", &["EVAL return(1) 0", "EVAL return(redis.call('GET',KEYS[1])) 1 $key", "EVAL $mega 0"]),
    ("evalsha", &["EVALSHA $key 0"]),
    ("eval_ro", &["EVAL_RO return(redis.call('GET',KEYS[1])) 1 $key"]),
    ("evalsha_ro", &["EVALSHA_RO $key 0"]),
    ("script", &["SCRIPT HELP"]),
    ("script|load", &["SCRIPT LOAD return(1)", "SCRIPT LOAD $mega"]),
    ("script|exists", &["SCRIPT EXISTS $many"]),
    ("script|flush", &["SCRIPT LOAD return(1); SCRIPT FLUSH"]),
    ("script|kill", &["SCRIPT KILL"]),
    ("script|debug", &["SCRIPT DEBUG NO"]),
    ("function", &["FUNCTION HELP"]),
    ("function|list", &["FUNCTION LIST"]),
    ("function|flush", &["FUNCTION FLUSH"]),
    ("subscribe", &["SUBSCRIBE $channels", "SUBSCRIBE $mega$n"]),
    ("psubscribe", &["PSUBSCRIBE $patterns", "PSUBSCRIBE $mega$n*"]),
    ("unsubscribe", &["SUBSCRIBE $channels; UNSUBSCRIBE", "UNSUBSCRIBE $channels"]),
    ("punsubscribe", &["PSUBSCRIBE $patterns; PUNSUBSCRIBE", "PUNSUBSCRIBE $patterns"]),
    ("publish", &["PUBLISH $key $mega", "PSUBSCRIBE $patterns; PUBLISH $key text"]),
    ("hello", &["HELLO 3", "HELLO 2 SETNAME $owner", "HELLO 3 AUTH default wrong"]),
    ("auth", &["AUTH wrong", "AUTH default $mega"]),
    ("ping", &["PING $mega"]),
    ("echo", &["ECHO $mega"]),
    ("select", &["SELECT 15; SELECT 0"]),
    ("reset", &["WATCH $many; SUBSCRIBE $channels; RESET; $auth; HELLO 3"]),
    ("quit", &["QUIT"]),
    ("client", &["CLIENT HELP", "CLIENT $mega"]),
    ("client|id", &["CLIENT ID"]),
    ("client|setname", &["CLIENT SETNAME $owner"]),
    ("client|getname", &["CLIENT GETNAME"]),
    ("client|setinfo", &["CLIENT SETINFO LIB-NAME $owner"]),
    ("client|info", &["CLIENT INFO"]),
    ("client|list", &["CLIENT LIST", "CLIENT LIST ID $numbers", "CLIENT LIST TYPE pubsub"]),
    ("client|kill", &["CLIENT KILL ADDR 1.2.3.4:5", "CLIENT KILL MAXAGE 1000000", "CLIENT KILL TYPE pubsub"]),
    ("client|unblock", &["CLIENT UNBLOCK 1 ERROR", "CLIENT UNBLOCK 1000000"]),
    ("client|pause", &["CLIENT PAUSE 0", "CLIENT PAUSE 1 WRITE; SET lock:00000000001 $n"]),
    ("client|unpause", &["CLIENT UNPAUSE"]),
    ("client|no-evict", &["CLIENT NO-EVICT ON"]),
    ("client|no-touch", &["CLIENT NO-TOUCH ON"]),
    ("client|reply", &["CLIENT REPLY OFF; KEYS *; CLIENT REPLY ON", "CLIENT REPLY SKIP; KEYS *"]),
    ("command", &["COMMAND", "COMMAND HELP", "COMMAND $mega"]),
    ("command|count", &["COMMAND COUNT"]),
    ("command|info", &["COMMAND INFO", "COMMAND INFO $lock_words"]),
    ("command|docs", &["COMMAND DOCS", "COMMAND DOCS $lock_words"]),
    ("command|list", &["COMMAND LIST", "COMMAND LIST FILTERBY PATTERN $glob"]),
    ("command|getkeys", &["COMMAND GETKEYS DEL $lock_words"]),
    ("command|getkeysandflags", &["COMMAND GETKEYSANDFLAGS DEL $lock_words"]),
    ("config", &["CONFIG HELP", "CONFIG $mega"]),
    ("config|get", &["CONFIG GET *", "CONFIG GET $patterns", "CONFIG GET $mega"]),
    (
        "config|set",
        &["CONFIG SET timeout 0 slowlog-max-len 128", "CONFIG SET $many", "CONFIG SET timeout $mega"],
    ),
    ("config|resetstat", &["CONFIG RESETSTAT"]),
    ("config|rewrite", &["CONFIG REWRITE"]),
    ("info", &["INFO", "INFO everything", "INFO $lock_words"]),
    ("time", &["TIME"]),
    ("wait", &["WAIT 0 0"]),
];

/// Requests whose replies are large: sent by clients that read none of them.
pub(super) const UNREAD: &[&str] = &[
    "LOCKINFO queued",
    "LOCKINFO limited",
    "KEYS *",
    "CLIENT LIST",
    "COMMAND DOCS",
    "INFO everything",
    "ECHO $mega",
];

/// What a user sends to a route: the path with its parameters, and a body.
pub(super) const ROUTES: &[(&str, &[(&str, &str)])] = &[
    (
        "post /locks/{name}/acquire",
        &[
            ("/locks/web/$n/acquire", r#"{"ttl_seconds":1,"lock_delay_seconds":1,"metadata":"$kilo"}"#),
            ("/locks/web/acquire", r#"{"ttl_seconds":60}"#),
            ("/locks/web/acquire", "$brackets"),
            ("/locks/web/acquire", r#"{"metadata":"$mega"}"#),
            ("/locks/limited/acquire", "{}"),
        ],
    ),
    (
        "post /locks/{name}/renew",
        &[("/locks/limited/renew", r#"{"lease_id":"$uuid"}"#), ("/locks/web/renew", "$brackets")],
    ),
    (
        "post /locks/{name}/release",
        &[("/locks/limited/release", r#"{"lease_id":"$uuid"}"#), ("/locks/web/release", "$brackets")],
    ),
    ("get /locks/{name}/watch", &[("/locks/limited/watch", ""), ("/locks/web/$n/watch", "")]),
    ("get /locks/{name}", &[("/locks/limited", ""), ("/locks/queued", ""), ("/locks/shared", "")]),
    ("get /locks", &[("/locks", ""), ("/locks?prefix=lock%3A000000", ""), ("/locks?prefix=none", "")]),
    ("post /sessions", &[("/sessions", r#"{"ttl_seconds":10}"#), ("/sessions", "$brackets")]),
    ("post /sessions/{id}/keepalive", &[("/sessions/$uuid/keepalive", "{}")]),
    ("get /sessions/{id}", &[("/sessions/$uuid", "")]),
    ("delete /sessions/{id}", &[("/sessions/$uuid", "")]),
    ("get /health", &[("/health", "")]),
    ("get /status", &[("/status", "")]),
    ("get /metrics", &[("/metrics", "")]),
    ("get /admin/status", &[("/admin/status", "")]),
    ("get /admin/metrics/timeseries", &[("/admin/metrics/timeseries?minutes=10080", "")]),
    ("get /openapi.yaml", &[("/openapi.yaml", "")]),
    ("get /docs", &[("/docs", "")]),
    ("get /", &[("/", "")]),
];

/// All kinds of lock events, each with what makes one. A kind that is missing does not compile.
pub(super) fn events() -> Vec<(EventKind, &'static str)> {
    let after = |kind: Option<EventKind>| match kind {
        None => Some((EventKind::Acquired, "LOCK $event me; UNLOCK $event me")),
        Some(EventKind::Acquired) => Some((EventKind::Renewed, "LOCK $event me EX 60; RENEW $event me")),
        Some(EventKind::Renewed) => Some((EventKind::Released, "LOCK $event me; DEL $event")),
        Some(EventKind::Released) => Some((EventKind::Expired, "LOCK $event:$n me PX 1")),
        Some(EventKind::Expired) => Some((EventKind::Forced, "LOCK $event me; FORCEUNLOCK $event")),
        Some(EventKind::Forced) => Some((EventKind::Replaced, "SET $event $n")),
        Some(EventKind::Replaced) => None,
    };
    let mut all: Vec<(EventKind, &'static str)> = Vec::new();
    while let Some(next) = after(all.last().map(|(kind, _)| *kind)) {
        all.push(next);
    }
    all
}

/// Who listens while events happen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listeners {
    /// One connection with as many patterns as it may have, each slow to match.
    SlowPatterns,
    /// Many connections with one pattern that matches everything.
    AnyPattern,
    /// Many connections on the lock's own channel.
    Channel,
    /// Many readers of the lock's stream over HTTP.
    Watchers,
}
