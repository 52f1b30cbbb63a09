//! The table of settings.
//!
//! Guarantees: flags, variables, file keys, the help, `CONFIG GET` and the README's table come from it. Not here: how
//! values are read and checked.

/// One setting.
#[derive(Debug)]
pub struct Opt {
    /// Its flag without the dashes, and its key in the file; the variable is `OCTOSTORE_` and this in capitals.
    pub name: &'static str,
    /// What its value is called in the help; empty for a switch.
    pub value: &'static str,
    /// What it is if nobody says.
    pub default: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// The part of the help it stands in.
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
const KEEP: &str = "Keeping";
const LIMIT: &str = "Limits";

/// All settings.
pub static OPTIONS: &[Opt] = &[
    opt(
        SERVE,
        "listen",
        "ADDR:PORT",
        "127.0.0.1:7379,[::1]:7379",
        "Where Redis clients connect; several addresses with commas between",
    ),
    opt(
        SERVE,
        "requirepass",
        "PASSWORD",
        "",
        "The password that clients must give; better put it into a file",
    ),
    opt(SERVE, "requirepass-file", "FILE", "", "A file whose first line is the password"),
    opt(SERVE, "allow-no-password", "", "", "Listen beyond loopback without a password"),
    opt(SERVE, "idle-timeout-s", "S", "0", "Close connections that send nothing for so long; 0: never"),
    opt(
        SERVE,
        "output-stall-ms",
        "MS",
        "30000",
        "Close connections that take less than a mebibyte of a reply in so long",
    ),
    opt(
        SERVE,
        "threads",
        "N",
        "0",
        "Threads that serve requests; 0: one less than there are processors, which is left to commits, and at min 1",
    ),
    opt(SERVE, "log", "LEVEL", "info", "What is logged to stderr: error, warn, info, debug or trace"),
    opt(
        HTTP,
        "http",
        "ADDR:PORT",
        "127.0.0.1:7380,[::1]:7380",
        "Where HTTP clients connect; several addresses with commas between; off: nowhere",
    ),
    opt(
        HTTP,
        "http-tokens",
        "FILE",
        "",
        "Users, a line each: user:token, or user:token and a namespace for the names of its locks",
    ),
    opt(HTTP, "http-token", "USER:TOKEN", "", "One user; better put it into a variable or a file"),
    opt(HTTP, "http-admin-key", "KEY", "", "What operators must give; better put it into a file"),
    opt(HTTP, "http-admin-key-file", "FILE", "", "A file whose first line is the operators' key"),
    opt(
        HTTP,
        "http-allow-origin",
        "ORIGINS",
        "",
        "Origins of web pages whose scripts may read answers, with commas between",
    ),
    opt(HTTP, "http-locks-per-user-max", "N", "100", "Locks that one user holds at once"),
    opt(KEEP, "data", "FILE", "./octostore.db", "The database file"),
    opt(
        KEEP,
        "accept-damaged-log",
        "",
        "",
        "Start although damage in the write-ahead log hides commits, and go on without them",
    ),
    opt(
        KEEP,
        "durability",
        "MODE",
        "always",
        "always: reply after the sync; interval: reply at once, commit soon; memory: no file",
    ),
    opt(KEEP, "commit-interval-ms", "MS", "100", "With interval: the longest time until a commit"),
    opt(
        KEEP,
        "token-floor",
        "N",
        "0",
        "Fencing tokens start above this; for a database restored from a backup",
    ),
    opt(LIMIT, "ttl-ms-default", "MS", "30000", "TTL of a LOCK or SESSION OPEN that names none"),
    opt(
        LIMIT,
        "locks-max",
        "N",
        "10000000",
        "Leases held and lock-delays running at once; beyond it only who waits already is granted a lock",
    ),
    opt(
        LIMIT,
        "sessions-max",
        "N",
        "100000",
        "Sessions open at once, one for each connection that uses CONN included",
    ),
    opt(LIMIT, "ttl-ms-max", "MS", "2592000000", "Longest TTL, MAXHOLD or DELAY; at max 30 days"),
    opt(LIMIT, "waiters-per-lock-max", "N", "100000", "Requests that queue for one lock"),
    opt(LIMIT, "connections-max", "N", "10000", "Connections at once"),
    opt(LIMIT, "key-bytes-max", "BYTES", "1024", "Longest key"),
    opt(LIMIT, "owner-bytes-max", "BYTES", "4096", "Longest owner"),
    opt(LIMIT, "meta-bytes-max", "BYTES", "1024", "Longest META text"),
    opt(LIMIT, "args-max", "N", "16384", "Arguments of one request"),
    opt(LIMIT, "arg-bytes-max", "BYTES", "1048576", "Longest argument of a request"),
    opt(LIMIT, "request-bytes-max", "BYTES", "2097152", "Longest request"),
    opt(LIMIT, "multi-bytes-max", "BYTES", "1048576", "Commands that one MULTI queues"),
    opt(
        LIMIT,
        "subscriber-bytes-max",
        "BYTES",
        "1048576",
        "Messages kept for a subscriber that does not read",
    ),
    opt(LIMIT, "subscriptions-max", "N", "10000", "Channels and patterns of one connection"),
    opt(
        LIMIT,
        "subscriptions-bytes-max",
        "BYTES",
        "4194304",
        "The same in bytes: of the names, and 192 for each",
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
        ["listen", "http", "http-allow-origin"].contains(&self.name)
    }

    /// Whether a running server can take over a change: it says who may do what.
    pub fn is_reloadable(&self) -> bool {
        self.is_secret() || ["requirepass-file", "http-tokens", "http-admin-key-file"].contains(&self.name)
    }
}
