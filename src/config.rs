//! What was typed (flags, `OCTOSTORE_*` variables, a TOML file) becomes what is meant: a checked [`Config`].
//!
//! Guarantees: one table, [`OPTIONS`], gives flags, variables, file keys, help, `CONFIG GET` and the
//! README's table. A flag wins over a variable, a variable over the file. Every error names the
//! setting, where it came from and what to do. A setting that does not exist, or that is empty, is an
//! error wherever it stands. Not here: secrets in any output.

mod hints;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use self::hints::Form;
use crate::command::{Limits, Password};
use crate::domain::{KEY_BYTES_MAX, OWNER_BYTES_MAX, TOKEN_MAX, TTL_MS_MAX};
use crate::http::{HttpConfig, Secret, UserConfig, UsersConfig};
use crate::journal::{DamagedLog, Durability};
use crate::net::ListenAddress;
use crate::resp::{ListenerLimits, ScanLimits};

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
        "Threads that serve requests; 0: one less than there are processors, which is left to commits, and at least 1",
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
    opt(LIMIT, "ttl-ms-max", "MS", "2592000000", "Longest TTL, MAXHOLD or DELAY; at most 30 days"),
    opt(LIMIT, "waiters-per-lock-max", "N", "100000", "Requests that queue for one lock"),
    opt(LIMIT, "connections-max", "N", "10000", "Connections at once"),
    opt(LIMIT, "key-bytes-max", "BYTES", "1024", "Longest key"),
    opt(LIMIT, "owner-bytes-max", "BYTES", "4096", "Longest owner"),
    opt(LIMIT, "meta-bytes-max", "BYTES", "1024", "Longest META text"),
    opt(LIMIT, "words-max", "N", "16384", "Words of one request"),
    opt(LIMIT, "word-bytes-max", "BYTES", "1048576", "Longest word of a request"),
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

/// What is meant.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where Redis clients connect.
    pub listen: Vec<ListenAddress>,
    /// What they must know.
    pub password: Option<Password>,
    /// Listening beyond loopback without a password is meant.
    pub allows_no_password: bool,
    /// Where HTTP clients connect; empty: nowhere.
    pub http: Vec<ListenAddress>,
    /// What they may do.
    pub http_adapter: HttpConfig,
    /// The database file.
    pub data: PathBuf,
    /// Whether commits that damage in its log hides may be lost.
    pub damaged_log: DamagedLog,
    /// When replies may leave.
    pub durability: Durability,
    /// Tokens start above this.
    pub token_floor: i64,
    /// Leases held at once.
    pub locks_max: u64,
    /// Sessions open at once.
    pub sessions_max: usize,
    /// Requests that queue for one lock.
    pub waiters_per_lock_max: usize,
    /// What connections may do.
    pub listener: ListenerLimits,
    /// What requests may ask for.
    pub limits: Limits,
    /// Threads that serve requests.
    pub threads: usize,
    /// What is logged.
    pub log: tracing::Level,
    /// Every setting as text, for `CONFIG GET`. No secrets.
    pub settings: Vec<(&'static str, String)>,
}

/// Why there is no [`Config`].
#[derive(Debug)]
pub enum ConfigError {
    /// The help or the version was asked for, or the flags make no sense. It prints itself, and knows its exit code.
    Usage(clap::Error),
    /// A setting makes no sense.
    Setting(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Usage(error) => error.fmt(f),
            ConfigError::Setting(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ConfigError {}

fn wrong(text: impl Into<String>) -> ConfigError {
    ConfigError::Setting(text.into())
}

impl Opt {
    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("OCTOSTORE_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    fn is_secret(&self) -> bool {
        ["requirepass", "http-token", "http-admin-key"].contains(&self.name)
    }

    /// Whether it takes several values, with commas between them or as an array in the file. If the
    /// flag is given several times, the last one counts, as with every flag.
    fn is_list(&self) -> bool {
        ["listen", "http", "http-allow-origin"].contains(&self.name)
    }

    /// Whether a running server can take over a change: it says who may do what.
    pub fn is_reloadable(&self) -> bool {
        self.is_secret() || ["requirepass-file", "http-tokens", "http-admin-key-file"].contains(&self.name)
    }
}

/// The command line.
fn command() -> clap::Command {
    let arg = |option: &'static Opt| {
        let mut help = option.help.to_owned();
        if !option.default.is_empty() {
            help.push_str(&format!(" [default: {}]", option.default));
        }
        let arg = clap::Arg::new(option.name)
            .long(option.name)
            .env(option.variable())
            .hide_env_values(true)
            .help(help)
            .help_heading(option.heading);
        match option.value {
            "" => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_name("BOOL")
                .hide_possible_values(true),
            value => arg.value_name(value).allow_hyphen_values(true),
        }
    };
    let config = clap::Arg::new("config")
        .long("config")
        .env("OCTOSTORE_CONFIG")
        .value_name("FILE")
        .help("A TOML file with any of these settings, by the names of the flags");
    clap::Command::new("octostore")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A durable lock server that speaks the Redis protocol")
        .after_help(
            "Every flag can also be a variable or a line of the file; a flag wins over a variable, a variable over the \
             file.\nTry it: redis-cli -p 7379 LOCK demo me EX 30",
        )
        .max_term_width(110)
        .args_override_self(true)
        .arg(config)
        .args(OPTIONS.iter().map(arg))
}

/// Where a value came from that was not given.
const DEFAULT: &str = "its default";

/// A value, and where it came from.
struct Said {
    text: String,
    from: String,
}

struct Settings(BTreeMap<&'static str, Said>);

impl Settings {
    fn text(&self, name: &'static str) -> Option<&str> {
        self.0.get(name).map(|said| said.text.as_str()).filter(|text| !text.is_empty())
    }

    fn is_default(&self, name: &'static str) -> bool {
        self.0.get(name).is_none_or(|said| said.from == DEFAULT)
    }

    fn fault(&self, name: &'static str, problem: impl fmt::Display) -> ConfigError {
        let from = self.0.get(name).map_or(DEFAULT, |said| said.from.as_str());
        wrong(format!("--{name} (from {from}): {problem}"))
    }

    fn number(&self, name: &'static str, least: u64, most: u64) -> Result<u64, ConfigError> {
        let text = self.text(name).unwrap_or("");
        let number = text.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| self.fault(name, format!("{text:?} is not a number from {least} to {most}")))
    }

    fn size(&self, name: &'static str, least: u64, most: u64) -> Result<usize, ConfigError> {
        self.number(name, least, most).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    }

    fn switch(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name) {
            None | Some("false" | "no" | "0") => Ok(false),
            Some("true" | "yes" | "1") => Ok(true),
            Some(other) => Err(self.fault(name, format!("{other:?} is neither true nor false"))),
        }
    }
}

impl Config {
    /// Reads flags (the program's name first), variables and the file.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Config, ConfigError> {
        let config = Config::parse(arguments);
        // A wrong flag, or a call for help, comes first; what follows from a mistyped variable, after it.
        if !matches!(config, Err(ConfigError::Usage(_))) {
            refuse_unknown_variables(std::env::vars_os())?;
        }
        config
    }

    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Config, ConfigError> {
        let matches = command().try_get_matches_from(arguments).map_err(usage)?;
        let mut said = BTreeMap::new();
        for option in OPTIONS {
            let (text, from) = (option.default.to_owned(), DEFAULT.to_owned());
            said.insert(option.name, Said { text, from });
        }
        if let Some(path) = matches.get_one::<String>("config") {
            read_file(path, &mut said)?;
        }
        for option in OPTIONS {
            if let Some(text) = matches.get_one::<String>(option.name) {
                let from = match matches.value_source(option.name) {
                    Some(clap::parser::ValueSource::EnvVariable) => option.variable(),
                    _ => "the command line".to_owned(),
                };
                said.insert(option.name, Said { text: text.clone(), from });
            }
        }
        let said = Settings(said);
        // A variable or a template that expanded to nothing: the server would run with less than was meant.
        for option in OPTIONS {
            if said.text(option.name).is_none() && !said.is_default(option.name) {
                return Err(said.fault(option.name, "is empty; give it a value, or leave it out"));
            }
        }
        Config::check(&said)
    }

    /// The defaults, with these flags.
    pub fn with(flags: &[&str]) -> Result<Config, ConfigError> {
        Config::parse(std::iter::once("octostore").chain(flags.iter().copied()).map(Into::into))
    }

    fn check(said: &Settings) -> Result<Config, ConfigError> {
        let password = password(said)?;
        let allows_no_password = said.switch("allow-no-password")?;
        let listen = addresses(said, "listen")?;
        if let (None, Some(exposed)) = (&password, exposed(&listen).filter(|_| !allows_no_password)) {
            return Err(said.fault(
                "listen",
                format!(
                    "{exposed} can be reached from other machines, and there is no password; set \
                     --requirepass-file, or --allow-no-password if everyone who can connect may take every lock"
                ),
            ));
        }
        let http = http_addresses(said, allows_no_password)?;
        let interval = Duration::from_millis(said.number("commit-interval-ms", 1, 60_000)?);
        let durability = match said.text("durability") {
            Some("always") => Durability::Always,
            Some("interval") => Durability::Interval(interval),
            Some("memory") => Durability::Memory,
            other => {
                let other = other.unwrap_or("");
                return Err(said.fault("durability", format!("{other:?} is not always, interval or memory")));
            }
        };
        let log = said
            .text("log")
            .and_then(|level| level.parse().ok())
            .ok_or_else(|| said.fault("log", "the levels are error, warn, info, debug and trace"))?;
        let threads = match said.size("threads", 0, 1024)? {
            0 => std::thread::available_parallelism().map_or(1, |processors| processors.get() - 1).max(1),
            threads => threads,
        };
        let request_bytes_max = said.size("request-bytes-max", 16 << 10, 1 << 30)?;
        let scan = ScanLimits {
            words_max: said.size("words-max", 16, 1 << 20)?,
            word_bytes_max: said.size("word-bytes-max", 8 << 10, 512 << 20)?,
            request_bytes_max,
            ..ScanLimits::default()
        };
        if scan.word_bytes_max > request_bytes_max {
            let problem = format!("is more than --request-bytes-max ({request_bytes_max}); raise that, too");
            return Err(said.fault("word-bytes-max", problem));
        }
        let idle = said.number("idle-timeout-s", 0, 365 * 24 * 3600)?;
        let listener = ListenerLimits {
            connections_max: said.size("connections-max", 1, 1 << 20)?,
            idle_timeout: (idle > 0).then(|| Duration::from_secs(idle)),
            output_stall: Duration::from_millis(said.number("output-stall-ms", 10, 3_600_000)?),
            scan,
        };
        let ttl_ms_max = said.number("ttl-ms-max", 1, u64::from(TTL_MS_MAX))?;
        let ttl_ms_default = said.number("ttl-ms-default", 1, ttl_ms_max)?;
        let limits = Limits {
            ttl_ms_max: u32::try_from(ttl_ms_max).unwrap_or(TTL_MS_MAX),
            ttl_ms_default: u32::try_from(ttl_ms_default).unwrap_or(TTL_MS_MAX),
            key_bytes_max: said.size("key-bytes-max", 1, KEY_BYTES_MAX as u64)?,
            owner_bytes_max: said.size("owner-bytes-max", 1, OWNER_BYTES_MAX as u64)?,
            meta_bytes_max: said.size("meta-bytes-max", 0, 1 << 20)?,
            multi_bytes_max: said.size("multi-bytes-max", 1024, 1 << 30)?,
            subscriber_bytes_max: said.size("subscriber-bytes-max", 1024, 1 << 30)?,
            subscriptions_max: said.size("subscriptions-max", 1, 1 << 20)?,
            subscriptions_bytes_max: said.size("subscriptions-bytes-max", 1024, 1 << 30)?,
        };
        let http_adapter = HttpConfig {
            users: users(said)?,
            origins: origins(said)?,
            locks_per_user_max: said.number("http-locks-per-user-max", 1, u64::from(u32::MAX))?,
            connections_max: listener.connections_max,
            output_stall: listener.output_stall,
        };
        let damaged_log = match said.switch("accept-damaged-log")? {
            true => DamagedLog::Discard,
            false => DamagedLog::Refuse,
        };
        Ok(Config {
            listen,
            password,
            allows_no_password,
            http,
            http_adapter,
            data: PathBuf::from(said.text("data").unwrap_or("./octostore.db")),
            damaged_log,
            durability,
            token_floor: i64::try_from(said.number("token-floor", 0, (TOKEN_MAX / 2) as u64)?).unwrap_or(0),
            locks_max: said.number("locks-max", 1, u64::from(u32::MAX))?,
            sessions_max: said.size("sessions-max", 1, u64::from(u32::MAX))?,
            waiters_per_lock_max: said.size("waiters-per-lock-max", 1, 1 << 30)?,
            listener,
            limits,
            threads,
            log,
            settings: settings(said),
        })
    }

    /// The durability mode's name.
    pub fn durability_name(&self) -> &'static str {
        match self.durability {
            Durability::Always => "always",
            Durability::Interval(_) => "interval",
            Durability::Memory => "memory",
        }
    }
}

/// The message for a flag that does not exist, if it is one that users of Redis expect.
fn usage(error: clap::Error) -> ConfigError {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(unknown))) => unknown.clone(),
        _ => return ConfigError::Usage(error),
    };
    if !unknown.starts_with('-') {
        return wrong(format!(
            "{unknown:?} is no option; settings are flags like --listen ADDR:PORT, or lines of a TOML file that \
             --config names (a redis.conf is none)"
        ));
    }
    let name = unknown.split('=').next().unwrap_or("").trim_start_matches('-');
    match hints::redis_hint(name, &Form::Flag) {
        Some(hint) => wrong(format!("there is no option {unknown}: {hint}; see octostore --help")),
        None => ConfigError::Usage(error),
    }
}

/// Variables that are meant for others: clients take a server's address from the first.
const FOREIGN_VARIABLES: [&str; 1] = ["OCTOSTORE_URL"];

/// A mistyped variable must not leave a setting at its default, above all not the password.
fn refuse_unknown_variables(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix("OCTOSTORE_") else { continue };
        let is_known = rest == "CONFIG"
            || OPTIONS.iter().any(|option| option.variable() == name)
            || FOREIGN_VARIABLES.contains(&name)
            || is_of_kubernetes(rest, &value);
        if !is_known {
            let hint = hints::hint(rest, &Form::Variable);
            return Err(wrong(format!("the variable {name} is no setting: {hint}")));
        }
    }
    Ok(())
}

/// Whether Kubernetes sets this variable beside a service called octostore or octostore-….
fn is_of_kubernetes(rest: &str, value: &OsStr) -> bool {
    let is_port = |text: &str| {
        let mut parts = text.split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    let is_link = || value.to_str().is_some_and(|value| value.contains("://"));
    let of_service = |name: &str| rest == name || rest.ends_with(&format!("_{name}"));
    of_service("SERVICE_HOST")
        || rest.starts_with("SERVICE_PORT")
        || rest.contains("_SERVICE_PORT")
        || (of_service("PORT") && is_link())
        || rest.split_once("PORT_").is_some_and(|(_, port)| is_port(port))
}

/// Addresses with commas between. A host name stands for all of its addresses.
fn addresses(said: &Settings, name: &'static str) -> Result<Vec<ListenAddress>, ConfigError> {
    let mut found: Vec<ListenAddress> = Vec::new();
    for text in said.text(name).unwrap_or("").split(',').map(str::trim) {
        let resolved = text.to_socket_addrs().map_err(|error| {
            let example = "as in 127.0.0.1:7379 or [::1]:7379, with commas between several";
            said.fault(name, format!("{text:?} is not an address and port, {example} ({error})"))
        })?;
        let before = found.len();
        let is_required = !said.is_default(name) && text.parse::<SocketAddr>().is_ok();
        for address in resolved {
            if found.iter().all(|known| known.address != address) {
                found.push(ListenAddress { address, is_required });
            } else if found[..before].iter().any(|known| known.address == address) {
                return Err(said.fault(name, format!("{address} is named twice")));
            }
        }
        if found.len() == before {
            return Err(said.fault(name, format!("{text:?} has no address")));
        }
    }
    Ok(found)
}

/// An address that other machines can reach.
fn exposed(addresses: &[ListenAddress]) -> Option<SocketAddr> {
    addresses.iter().map(|listen| listen.address).find(|address| !address.ip().is_loopback())
}

/// A secret given as such, or as a file with it in the first line.
fn secret(said: &Settings, name: &'static str, file: &'static str) -> Result<Option<String>, ConfigError> {
    let direct = said.text(name).map(str::to_owned);
    let Some(path) = said.text(file) else { return Ok(direct) };
    if direct.is_some() {
        return Err(said.fault(file, format!("--{name} is set, too; choose one")));
    }
    let text = read_private(path).map_err(|problem| said.fault(file, problem))?;
    match text.lines().next().unwrap_or("").trim_end() {
        "" => Err(said.fault(file, format!("the first line of {path} is empty"))),
        line => Ok(Some(line.to_owned())),
    }
}

/// Reads a file that holds a secret. Refuses one that is open to others.
fn read_private(path: &str) -> Result<String, String> {
    let unreadable = |error| format!("cannot read {path}: {error}");
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "others may read or change {path} (its mode is {:o}); run chmod 600 on it",
            mode & 0o777
        ));
    }
    std::fs::read_to_string(path).map(without_mark).map_err(unreadable)
}

/// Some editors put a byte order mark in front of a text. It is no part of it.
fn without_mark(text: String) -> String {
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

fn password(said: &Settings) -> Result<Option<Password>, ConfigError> {
    Ok(secret(said, "requirepass", "requirepass-file")?.as_deref().and_then(Password::new))
}

/// Where to serve HTTP. Beyond loopback only with credentials.
fn http_addresses(said: &Settings, allows_no_password: bool) -> Result<Vec<ListenAddress>, ConfigError> {
    if said.text("http") == Some("off") {
        return Ok(Vec::new());
    }
    let addresses = addresses(said, "http")?;
    let is_protected = ["http-tokens", "http-token", "requirepass", "requirepass-file"]
        .into_iter()
        .any(|name| said.text(name).is_some());
    match exposed(&addresses).filter(|_| !is_protected && !allows_no_password) {
        Some(exposed) => Err(said.fault(
            "http",
            format!(
                "{exposed} can be reached from other machines, and nobody has a token; set --http-tokens, or \
                 --allow-no-password if everyone who can connect may take every lock"
            ),
        )),
        None => Ok(addresses),
    }
}

/// Who may use HTTP. Without users, whoever knows the password that Redis clients must give, if there is one.
fn users(said: &Settings) -> Result<UsersConfig, ConfigError> {
    let mut users = Vec::new();
    if let Some(line) = said.text("http-token") {
        let user = UserConfig::parse(line);
        users.push(user.map_err(|problem| said.fault("http-token", format!("what was given {problem}")))?);
    }
    if let Some(path) = said.text("http-tokens") {
        let fault = |problem: String| said.fault("http-tokens", problem);
        let text = read_private(path).map_err(fault)?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let user = UserConfig::parse(line);
            users.push(user.map_err(|problem| fault(format!("line {} of {path} {problem}", number + 1)))?);
        }
        if users.is_empty() {
            return Err(fault(format!("{path} has no user")));
        }
    }
    if let Some(twice) = users.iter().enumerate().find_map(|(n, user)| {
        users[..n].iter().find(|other| {
            other.token == user.token || (other.name == user.name && other.namespace != user.namespace)
        })
    }) {
        let name = &twice.name;
        let problem = format!("the token of {name} is given twice, or {name} has two namespaces");
        return Err(said.fault("http-tokens", problem));
    }
    let local_token = match users.as_slice() {
        [] => secret(said, "requirepass", "requirepass-file")?.as_deref().and_then(Secret::new),
        _ => None,
    };
    let admin_key = secret(said, "http-admin-key", "http-admin-key-file")?.as_deref().and_then(Secret::new);
    Ok(UsersConfig { users, local_token, admin_key })
}

fn origins(said: &Settings) -> Result<Vec<String>, ConfigError> {
    let text = said.text("http-allow-origin").unwrap_or("");
    let origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
    origins
        .map(|origin| match origin.split_once("://") {
            Some((_, host)) if !host.is_empty() && !host.contains('/') => Ok(origin.to_owned()),
            _ => Err(said.fault("http-allow-origin", format!("{origin:?} is not scheme://host[:port]"))),
        })
        .collect()
}

fn read_file(path: &str, said: &mut BTreeMap<&'static str, Said>) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map(without_mark)
        .map_err(|error| wrong(format!("--config: cannot read {path}: {error}")))?;
    let table: toml::Table =
        text.parse().map_err(|error| wrong(format!("--config: {path} is not TOML: {error}")))?;
    for (key, value) in table {
        let Some(option) = OPTIONS.iter().find(|option| option.name == key) else {
            let hint = hints::hint(&key, &Form::Key);
            return Err(wrong(format!("--config: {path}: there is no setting {key:?}: {hint}")));
        };
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(is_set) => is_set.to_string(),
            toml::Value::Array(items) if option.is_list() => texts(&items).ok_or_else(|| {
                wrong(format!("--config: {path}: not everything in the array {key} is a text"))
            })?,
            other => {
                let kind = other.type_str();
                return Err(wrong(format!("--config: {path}: {key} is {kind}, not a text or a number")));
            }
        };
        said.insert(option.name, Said { text, from: path.to_owned() });
    }
    Ok(())
}

/// Texts with commas between.
fn texts(items: &[toml::Value]) -> Option<String> {
    let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
    texts.map(|texts| texts.join(","))
}

/// What `CONFIG GET` shows: our settings, and those of Redis that clients ask for. The running
/// server adds its addresses and its limit of connections.
fn settings(said: &Settings) -> Vec<(&'static str, String)> {
    let own = OPTIONS.iter().filter(|option| !option.is_secret());
    let mut all: Vec<(&str, String)> =
        own.map(|option| (option.name, said.text(option.name).unwrap_or("").to_owned())).collect();
    let of = |name: &'static str| said.text(name).unwrap_or("").to_owned();
    let is_kept = said.text("durability") != Some("memory");
    all.extend([
        ("timeout", of("idle-timeout-s")),
        ("databases", crate::domain::DATABASES.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("save", String::new()),
        ("appendonly", if is_kept { "yes" } else { "no" }.to_owned()),
        (
            "appendfsync",
            if said.text("durability") == Some("always") { "always" } else { "everysec" }.to_owned(),
        ),
        ("replica-read-only", "yes".to_owned()),
        ("slave-read-only", "yes".to_owned()),
        ("proto-max-bulk-len", of("word-bytes-max")),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(flags: &[&str]) -> String {
        Config::with(flags).expect_err("refused").to_string()
    }

    #[test]
    fn the_defaults_are_sound_and_the_table_makes_a_command_line() {
        command().debug_assert();
        let config = Config::with(&[]).unwrap();
        let listen: Vec<String> = config.listen.iter().map(|listen| listen.address.to_string()).collect();
        assert_eq!(listen, ["127.0.0.1:7379", "[::1]:7379"]);
        assert!(config.listen.iter().chain(&config.http).all(|listen| !listen.is_required));
        assert_eq!(config.durability, Durability::Always);
        assert_eq!(config.data, PathBuf::from("./octostore.db"));
        assert!(config.password.is_none());
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("octostore.toml");
        std::fs::write(&path, "locks-max = 5\nttl-ms-default = 7\nallow-no-password = true\n").unwrap();
        let path = path.to_str().unwrap();
        let config = Config::with(&["--config", path, "--locks-max", "6", "--listen", "0.0.0.0:1"]).unwrap();
        assert_eq!((config.locks_max, config.limits.ttl_ms_default), (6, 7));
    }

    #[test]
    fn wrong_settings_are_named_with_their_source() {
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = dir.path().join(format!("{}.toml", text.len()));
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        for (flags, part) in [
            (
                vec!["--locks-max", "0"],
                "--locks-max (from the command line): \"0\" is not a number from 1 to",
            ),
            (vec!["--locks-max", "many"], "\"many\" is not a number"),
            (vec!["--durability", "perhaps"], "is not always, interval or memory"),
            (vec!["--listen", "nonsense"], "is not an address and port"),
            (vec!["--listen", "0.0.0.0:7379"], "there is no password"),
            (vec!["--word-bytes-max", "1000000", "--request-bytes-max", "999999"], "--request-bytes-max"),
            (vec!["--requirepass-file", "/nonexistent/file"], "cannot read /nonexistent/file"),
            (vec!["--requirepass-file", "x", "--requirepass", "y"], "choose one"),
            (vec!["--log", "loud"], "the levels are"),
            (vec!["--config", "/nonexistent/file"], "cannot read"),
            (vec!["--config", &file("locks_max = 1")], "did you mean locks-max?"),
            (vec!["--config", &file("colour = 1")], "there is no setting \"colour\""),
            (vec!["--config", &file("locks-max = [1]")], "locks-max is array"),
            (vec!["--config", &file("= 1")], "is not TOML"),
        ] {
            let text = refusal(&flags);
            assert!(text.contains(part), "{flags:?}: {text}");
        }
    }

    #[test]
    fn a_setting_that_is_given_and_empty_is_refused() {
        for option in OPTIONS {
            let text = refusal(&[&format!("--{}=", option.name)]);
            let expected = format!("--{} (from the command line): is empty; give it a value", option.name);
            assert!(text.contains(&expected), "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("octostore.toml");
        std::fs::write(&path, "requirepass = \"\"\n").unwrap();
        let path = path.to_str().unwrap();
        assert!(refusal(&["--config", path]).contains("is empty"));
    }

    #[test]
    fn several_addresses_are_listened_on() {
        let listen = |text: &str| Config::with(&["--listen", text]).map(|config| config.listen);
        let required = |text: &str| ListenAddress { address: text.parse().unwrap(), is_required: true };
        let both = listen("127.0.0.1:1, [::1]:2").unwrap();
        assert_eq!(both, [required("127.0.0.1:1"), required("[::1]:2")]);
        let repeated = Config::with(&["--listen", "127.0.0.1:1", "--listen=[::1]:2"]).unwrap();
        assert_eq!(repeated.listen, [required("[::1]:2")], "the last flag counts");
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = dir.path().join("octostore.toml");
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let array = file("listen = [\"127.0.0.1:1\", \"[::1]:2\"]\n");
        assert_eq!(Config::with(&["--config", &array]).unwrap().listen, both);
        assert!(
            refusal(&["--config", &file("listen = [1]\n")]).contains("not everything in the array listen")
        );
        assert!(refusal(&["--config", &file("listen = []\n")]).contains("is empty"));
        let named = listen("localhost:1").unwrap();
        assert!(!named.is_empty() && named.iter().all(|listen| !listen.is_required), "{named:?}");
        for (text, part) in [
            ("127.0.0.1:1,127.0.0.1:1", "127.0.0.1:1 is named twice"),
            ("127.0.0.1:1,", "\"\" is not an address and port"),
            ("127.0.0.1:1 [::1]:1", "is not an address and port"),
            ("127.0.0.1:1,192.0.2.1:1", "192.0.2.1:1 can be reached from other machines"),
        ] {
            let refused = listen(text).unwrap_err().to_string();
            assert!(refused.contains(part), "{text}: {refused}");
        }
        assert!(refusal(&["--http", "127.0.0.1:1,0.0.0.0:1"]).contains("0.0.0.0:1 can be reached"));
        assert!(Config::with(&["--http", "off"]).unwrap().http.is_empty());
    }

    #[test]
    fn options_of_redis_lead_to_those_of_octostore() {
        for (flags, part) in [
            (vec!["--port", "6379"], "there is no option --port: octostore has --listen ADDR:PORT"),
            (vec!["--port=6379"], "octostore has --listen ADDR:PORT"),
            (vec!["-p", "6379"], "octostore has --listen ADDR:PORT"),
            (vec!["--bind", "127.0.0.1"], "octostore has --listen ADDR:PORT"),
            (vec!["--dir", "/data"], "octostore has --data FILE"),
            (vec!["--appendonly", "yes"], "octostore has --durability MODE"),
            (vec!["--protected-mode", "no"], "octostore has --allow-no-password;"),
            (vec!["--databases", "4"], "there are always 16 databases"),
            (vec!["--daemonize", "yes"], "it runs in the foreground"),
            (vec!["/etc/redis/redis.conf"], "is no option; settings are flags"),
            (vec!["--listne", "127.0.0.1:1"], "'--listen'"),
        ] {
            let text = refusal(&flags);
            assert!(text.contains(part), "{flags:?}: {text}");
        }
        // What is the value of another flag is no option.
        let config = Config::with(&["--requirepass", "--port"]).unwrap();
        assert_eq!(config.password, Password::new("--port"));
    }

    #[test]
    fn a_variable_that_is_no_setting_is_refused_unless_it_is_meant_for_others() {
        let check = |name: &str, value: &str| {
            refuse_unknown_variables([(name.into(), value.into())].into_iter())
                .map_err(|error| error.to_string())
        };
        for (name, part) in [
            ("OCTOSTORE_REQUIREPAS", "did you mean OCTOSTORE_REQUIREPASS?"),
            ("OCTOSTORE_PASSWORD", "octostore has OCTOSTORE_REQUIREPASS_FILE FILE"),
            ("OCTOSTORE_CONFG", "did you mean OCTOSTORE_CONFIG?"),
            ("OCTOSTORE_locks_max", "did you mean OCTOSTORE_LOCKS_MAX?"),
            ("OCTOSTORE_PORT", "octostore has OCTOSTORE_LISTEN ADDR:PORT"),
            ("OCTOSTORE_COLOUR", "see octostore --help"),
            ("OCTOSTORE_", "see octostore --help"),
        ] {
            let refused = check(name, "6379").unwrap_err();
            assert!(refused.contains(name) && refused.contains(part), "{refused}");
            assert!(!refused.contains("6379"), "a value may be a secret: {refused}");
        }
        for (name, value) in [
            ("OCTOSTORE_LOCKS_MAX", "1"),
            ("OCTOSTORE_CONFIG", "file"),
            ("OCTOSTORE_URL", "redis://localhost:7379"),
            ("PATH", "/bin"),
            ("MY_OCTOSTORE_LOCK", "1"),
            // Kubernetes beside services called octostore and octostore-http.
            ("OCTOSTORE_SERVICE_HOST", "10.0.0.1"),
            ("OCTOSTORE_SERVICE_PORT_REDIS", "7379"),
            ("OCTOSTORE_PORT", "tcp://10.0.0.1:7379"),
            ("OCTOSTORE_PORT_7379_TCP_ADDR", "10.0.0.1"),
            ("OCTOSTORE_HTTP_SERVICE_PORT", "7380"),
            ("OCTOSTORE_HTTP_PORT_7380_TCP", "tcp://10.0.0.1:7380"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (password, key) = (file("password", "swordfish\n"), file("key", "opensesame"));
        let (tokens, toml) = (file("tokens", "alice:token\n"), file("toml", "locks-max = 5\n"));
        let config = Config::with(&[
            "--config",
            &toml,
            "--requirepass-file",
            &password,
            "--http-admin-key-file",
            &key,
            "--http-tokens",
            &tokens,
        ])
        .unwrap();
        assert_eq!((config.locks_max, config.password), (5, Password::new("swordfish")));
        let users = config.http_adapter.users;
        assert_eq!((users.users[0].name.as_str(), users.admin_key), ("alice", Secret::new("opensesame")));
        assert!(refusal(&["--requirepass-file", &file("empty", "\n")]).contains("is empty"));
    }

    #[test]
    fn limits_hold_at_the_boundary_and_one_past_it() {
        assert!(Config::with(&["--key-bytes-max", "1024"]).is_ok());
        assert!(Config::with(&["--key-bytes-max", "1025"]).is_err());
        assert!(Config::with(&["--ttl-ms-default", &TTL_MS_MAX.to_string()]).is_ok());
        assert!(Config::with(&["--ttl-ms-default", &(TTL_MS_MAX + 1).to_string()]).is_err());
    }

    #[test]
    fn no_secret_is_shown() {
        let config = Config::with(&["--requirepass", "swordfish"]).unwrap();
        assert!(!format!("{config:?}").contains("swordfish"));
    }
}
