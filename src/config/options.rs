//! The table of settings.
//!
//! Guarantees: flags, variables, file keys, the help, `CONFIG GET` and the table in the docs come from
//! it. Not here: how values are read and checked.

/// A setting.
#[derive(Debug)]
pub struct Opt {
    /// Its flag without the dashes, and its key in the file; the variable is `OCTOSTORE_` and this
    /// in capitals.
    pub name: &'static str,
    /// The name of its value in the help; empty for a switch.
    pub value: &'static str,
    /// The default.
    pub default: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// The section of the help that lists it.
    pub heading: &'static str,
}

const fn opt(
    heading: &'static str,
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Opt {
    Opt { name, value, default, help, heading }
}

const SERVE: &str = "Serving";
const HTTP: &str = "HTTP";
const TLS: &str = "TLS";
const KEEP: &str = "Keeping";
const CLUSTER: &str = "Cluster";
const LIMIT: &str = "Limits";

/// All settings.
pub static OPTIONS: &[Opt] = &[
    opt(
        SERVE,
        "listen",
        "ADDR:PORT",
        "127.0.0.1:7379,[::1]:7379",
        "Addresses for Redis clients, comma-separated, or off",
    ),
    opt(
        SERVE,
        "requirepass",
        "PASSWORD",
        "",
        "Password that clients must present; prefer --requirepass-file",
    ),
    opt(SERVE, "requirepass-file", "FILE", "", "File whose first line is the password"),
    opt(SERVE, "users", "FILE", "", "File of users and their permissions, in the format of Redis' ACL files"),
    opt(
        SERVE,
        "auth-timeout-ms",
        "MS",
        "10000",
        "Close connections that have not authenticated after this time",
    ),
    opt(SERVE, "allow-no-password", "", "", "Allow listening beyond loopback without a password"),
    opt(SERVE, "allow-flush", "", "", "Allow FLUSHDB and FLUSHALL, which release every lock"),
    opt(SERVE, "idle-timeout-s", "S", "0", "Close connections that are idle for this time (0 = never)"),
    opt(
        SERVE,
        "output-stall-ms",
        "MS",
        "30000",
        "Close connections that read less than 1 MiB of a pending reply in this time",
    ),
    opt(
        SERVE,
        "slowlog-log-slower-than",
        "MICROS",
        "10000",
        "Put commands that take longer into SLOWLOG (0 = all, -1 = none)",
    ),
    opt(SERVE, "slowlog-max-len", "N", "128", "Commands that SLOWLOG keeps"),
    opt(
        SERVE,
        "notify-keyspace-events",
        "CLASSES",
        "",
        "Classes of keyspace notifications to publish, as in Redis (KEA = all)",
    ),
    opt(SERVE, "threads", "N", "0", "Worker threads (0 = CPUs − 1, at least 1)"),
    opt(SERVE, "log", "LEVEL", "info", "Log level on stderr: error, warn, info, debug or trace"),
    opt(
        HTTP,
        "http",
        "ADDR:PORT",
        "127.0.0.1:7380,[::1]:7380",
        "Addresses for HTTP clients, comma-separated, or off",
    ),
    opt(
        HTTP,
        "http-tokens",
        "FILE",
        "",
        "Deprecated, see --users: file of HTTP users, one per line: user:token, optionally followed by a namespace that its lock names must start with",
    ),
    opt(HTTP, "http-token", "USER:TOKEN", "", "Deprecated, see --users: a single HTTP user"),
    opt(HTTP, "http-admin-key", "KEY", "", "Key that operators must present; prefer --http-admin-key-file"),
    opt(HTTP, "http-admin-key-file", "FILE", "", "File whose first line is the operators' key"),
    opt(HTTP, "metrics-open", "", "", "Serve /metrics without credentials"),
    opt(
        HTTP,
        "http-allow-origin",
        "ORIGINS",
        "",
        "Origins of web pages whose scripts may read responses, comma-separated",
    ),
    opt(HTTP, "http-locks-per-user-max", "N", "100", "Maximum number of locks held by one HTTP user"),
    opt(TLS, "tls-listen", "ADDR:PORT", "", "Addresses for Redis clients with TLS, comma-separated"),
    opt(TLS, "https", "ADDR:PORT", "", "Addresses for HTTP clients with TLS, comma-separated"),
    opt(
        TLS,
        "tls-cert",
        "FILE",
        "",
        "The server's certificate in PEM format, followed by those between it and a root",
    ),
    opt(TLS, "tls-key", "FILE", "", "The private key of the certificate in PEM format"),
    opt(TLS, "tls-client-ca", "FILE", "", "Root certificates of clients in PEM format"),
    opt(
        TLS,
        "tls-client-auth",
        "MODE",
        "required",
        "With --tls-client-ca, whether clients must present a certificate: optional or required",
    ),
    opt(
        TLS,
        "tls-user-from",
        "cn",
        "",
        "cn: the common name in a client's certificate is its user, without a password",
    ),
    opt(KEEP, "data", "FILE", "./octostore.db", "Database file"),
    opt(
        KEEP,
        "store",
        "URL",
        "",
        "Store in etcd instead of a file: etcd://[USER:PASSWORD@]HOST:PORT,HOST:PORT/PREFIX, or etcds://. All servers with the same store are one cluster",
    ),
    opt(
        KEEP,
        "store-ca",
        "FILE",
        "",
        "Authorities that the certificates of --store are checked against (default: those of the system)",
    ),
    opt(KEEP, "store-cert", "FILE", "", "Certificate that this server presents to --store"),
    opt(KEEP, "store-key", "FILE", "", "Key of --store-cert"),
    opt(
        KEEP,
        "accept-damaged-log",
        "",
        "",
        "Start despite write-ahead log damage that hides commits, and discard those commits",
    ),
    opt(
        KEEP,
        "durability",
        "MODE",
        "always",
        "always: reply after fsync; interval: reply at once, commit periodically; memory: no file",
    ),
    opt(KEEP, "commit-interval-ms", "MS", "100", "Maximum time between commits with --durability interval"),
    opt(
        KEEP,
        "token-floor",
        "N",
        "0",
        "Issue fencing tokens above this value, for a database restored from a backup",
    ),
    opt(
        CLUSTER,
        "advertise",
        "HOST:PORT",
        "",
        "Where clients and other servers of the cluster reach this one (default: the address of --listen)",
    ),
    opt(
        CLUSTER,
        "advertise-http",
        "HOST:PORT",
        "",
        "The same for HTTP (default: the host of --advertise and the port of --http)",
    ),
    opt(
        CLUSTER,
        "cluster-ca",
        "FILE",
        "",
        "The servers of a cluster connect to each other with TLS; root certificates that theirs are checked against, in PEM format",
    ),
    opt(
        CLUSTER,
        "shard",
        "I/N",
        "",
        "Serve the I-th of N shards, such as 1/3: the keys are divided as in Redis Cluster (default: all keys)",
    ),
    opt(
        CLUSTER,
        "shard-stores",
        "URLS",
        "",
        "The stores of all shards in their order, with spaces between them, if they are not all in --store",
    ),
    opt(CLUSTER, "cluster-name", "NAME", "octostore", "Name by which Sentinel clients ask for the leader"),
    opt(
        CLUSTER,
        "sentinel-listen",
        "ADDR:PORT",
        "",
        "Addresses at which the server answers as Redis Sentinel and as nothing else, comma-separated",
    ),
    opt(CLUSTER, "sentinel-tls-listen", "ADDR:PORT", "", "The same with TLS"),
    opt(
        CLUSTER,
        "leader-silent-ms",
        "MS",
        "1000",
        "Replace a leader that does not answer the other servers for this time",
    ),
    opt(
        LIMIT,
        "ttl-ms-default",
        "MS",
        "30000",
        "Default TTL of LOCK and SESSION OPEN; HTTP has its own, 60 s",
    ),
    opt(
        LIMIT,
        "locks-max",
        "N",
        "10000000",
        "Maximum number of leases and running lock delays; at the limit only requests that are already queued are granted",
    ),
    opt(
        LIMIT,
        "sessions-max",
        "N",
        "100000",
        "Maximum number of open sessions, including one per connection that uses CONN",
    ),
    opt(
        LIMIT,
        "ttl-ms-max",
        "MS",
        "2592000000",
        "Maximum TTL, MAXHOLD and DELAY, also over HTTP; at most 30 days",
    ),
    opt(LIMIT, "waiters-per-lock-max", "N", "100000", "Maximum number of requests queued for one lock"),
    opt(
        LIMIT,
        "values-bytes-max",
        "BYTES",
        "1073741824",
        "Maximum memory of all hashes, sets, sorted sets and lists; at the limit nothing is added to any",
    ),
    opt(LIMIT, "value-elements-max", "N", "16777216", "Maximum number of elements of one value"),
    opt(LIMIT, "connections-max", "N", "10000", "Maximum number of connections"),
    opt(LIMIT, "key-bytes-max", "BYTES", "16384", "Maximum length of a key"),
    opt(
        LIMIT,
        "lock-key-bytes-max",
        "BYTES",
        "1024",
        "Maximum length of a key in LOCK, UNLOCK and RENEW, and over HTTP",
    ),
    opt(LIMIT, "owner-bytes-max", "BYTES", "4096", "Maximum length of an owner in LOCK, UNLOCK and RENEW"),
    opt(LIMIT, "value-bytes-max", "BYTES", "1048576", "Maximum length of the value of a string"),
    opt(
        LIMIT,
        "meta-bytes-max",
        "BYTES",
        "1024",
        "Maximum length of a META text; over HTTP, this number of characters",
    ),
    opt(LIMIT, "args-max", "N", "1048576", "Maximum number of arguments in a request"),
    opt(LIMIT, "arg-bytes-max", "BYTES", "1048576", "Maximum length of an argument"),
    opt(LIMIT, "request-bytes-max", "BYTES", "33554432", "Maximum length of a request"),
    opt(LIMIT, "multi-bytes-max", "BYTES", "1048576", "Maximum size of the commands queued by one MULTI"),
    opt(LIMIT, "script-bytes-max", "BYTES", "67108864", "Maximum memory of a running script"),
    opt(LIMIT, "script-ms-max", "MS", "1000", "Maximum time that a script may run before it is stopped"),
    opt(
        LIMIT,
        "subscriber-bytes-max",
        "BYTES",
        "1048576",
        "Maximum size of the messages queued for a slow subscriber",
    ),
    opt(LIMIT, "subscriptions-max", "N", "10000", "Maximum number of channels and patterns of a connection"),
    opt(
        LIMIT,
        "subscriptions-bytes-max",
        "BYTES",
        "4194304",
        "Maximum size of the channels and patterns of a connection: names plus 192 bytes each",
    ),
];

impl Opt {
    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("OCTOSTORE_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    pub(super) fn is_secret(&self) -> bool {
        ["requirepass", "http-token", "http-admin-key"].contains(&self.name)
    }

    /// Whether it takes several values, with commas between them or as an array in the file. If the
    /// flag is given several times, the last one counts, as with every flag.
    pub(super) fn is_list(&self) -> bool {
        [
            "listen",
            "http",
            "tls-listen",
            "https",
            "sentinel-listen",
            "sentinel-tls-listen",
            "http-allow-origin",
        ]
        .contains(&self.name)
    }

    /// Whether a running server can apply a change: only credentials.
    pub fn is_reloadable(&self) -> bool {
        self.is_secret()
            || ["requirepass-file", "http-tokens", "http-admin-key-file", "metrics-open"].contains(&self.name)
    }
}
