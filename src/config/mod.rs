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
use crate::http::{HttpConfig, Secret, UserConfig, UsersConfig};
use crate::journal::{DamagedLog, Durability};
use crate::lock::{KEY_BYTES_MAX, OWNER_BYTES_MAX, TOKEN_MAX, TTL_MS_MAX};
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
    pub http_config: HttpConfig,
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
struct Setting {
    text: String,
    from: String,
}

struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    fn text(&self, name: &'static str) -> Option<&str> {
        self.0.get(name).map(|settings| settings.text.as_str()).filter(|text| !text.is_empty())
    }

    fn is_default(&self, name: &'static str) -> bool {
        self.0.get(name).is_none_or(|settings| settings.from == DEFAULT)
    }

    fn fault(&self, name: &'static str, problem: impl fmt::Display) -> ConfigError {
        let from = self.0.get(name).map_or(DEFAULT, |settings| settings.from.as_str());
        wrong(format!("--{name} (from {from}): {problem}"))
    }

    fn number(&self, name: &'static str, min: u64, max: u64) -> Result<u64, ConfigError> {
        let text = self.text(name).unwrap_or("");
        let number = text.parse::<u64>().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| self.fault(name, format!("{text:?} is not a number from {min} to {max}")))
    }

    fn size(&self, name: &'static str, min: u64, max: u64) -> Result<usize, ConfigError> {
        self.number(name, min, max).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
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
        let mut settings = BTreeMap::new();
        for option in OPTIONS {
            let (text, from) = (option.default.to_owned(), DEFAULT.to_owned());
            settings.insert(option.name, Setting { text, from });
        }
        if let Some(path) = matches.get_one::<String>("config") {
            read_file(path, &mut settings)?;
        }
        for option in OPTIONS {
            if let Some(text) = matches.get_one::<String>(option.name) {
                let from = match matches.value_source(option.name) {
                    Some(clap::parser::ValueSource::EnvVariable) => option.variable(),
                    _ => "the command line".to_owned(),
                };
                settings.insert(option.name, Setting { text: text.clone(), from });
            }
        }
        let settings = Settings(settings);
        // A variable or a template that expanded to nothing: the server would run with less than was meant.
        for option in OPTIONS {
            if settings.text(option.name).is_none() && !settings.is_default(option.name) {
                return Err(settings.fault(option.name, "is empty; give it a value, or leave it out"));
            }
        }
        Config::check(&settings)
    }

    /// The defaults, with these flags.
    pub fn with(flags: &[&str]) -> Result<Config, ConfigError> {
        Config::parse(std::iter::once("octostore").chain(flags.iter().copied()).map(Into::into))
    }

    fn check(settings: &Settings) -> Result<Config, ConfigError> {
        let password = password(settings)?;
        let allows_no_password = settings.switch("allow-no-password")?;
        let listen = addresses(settings, "listen")?;
        if let (None, Some(exposed)) = (&password, exposed(&listen).filter(|_| !allows_no_password)) {
            return Err(settings.fault(
                "listen",
                format!(
                    "{exposed} can be reached from other machines, and there is no password; set \
                     --requirepass-file, or --allow-no-password if everyone who can connect may take every lock"
                ),
            ));
        }
        let http = http_addresses(settings, allows_no_password)?;
        let interval = Duration::from_millis(settings.number("commit-interval-ms", 1, 60_000)?);
        let durability = match settings.text("durability") {
            Some("always") => Durability::Always,
            Some("interval") => Durability::Interval(interval),
            Some("memory") => Durability::Memory,
            other => {
                let other = other.unwrap_or("");
                return Err(
                    settings.fault("durability", format!("{other:?} is not always, interval or memory"))
                );
            }
        };
        let log = settings
            .text("log")
            .and_then(|level| level.parse().ok())
            .ok_or_else(|| settings.fault("log", "the levels are error, warn, info, debug and trace"))?;
        let threads = match settings.size("threads", 0, 1024)? {
            0 => std::thread::available_parallelism().map_or(1, |processors| processors.get() - 1).max(1),
            threads => threads,
        };
        let request_bytes_max = settings.size("request-bytes-max", 16 << 10, 1 << 30)?;
        let scan = ScanLimits {
            args_max: settings.size("args-max", 16, 1 << 20)?,
            arg_bytes_max: settings.size("arg-bytes-max", 8 << 10, 512 << 20)?,
            request_bytes_max,
            ..ScanLimits::default()
        };
        if scan.arg_bytes_max > request_bytes_max {
            let problem = format!("is more than --request-bytes-max ({request_bytes_max}); raise that, too");
            return Err(settings.fault("arg-bytes-max", problem));
        }
        let idle = settings.number("idle-timeout-s", 0, 365 * 24 * 3600)?;
        let listener = ListenerLimits {
            connections_max: settings.size("connections-max", 1, 1 << 20)?,
            idle_timeout: (idle > 0).then(|| Duration::from_secs(idle)),
            output_stall: Duration::from_millis(settings.number("output-stall-ms", 10, 3_600_000)?),
            scan,
        };
        let ttl_ms_max = settings.number("ttl-ms-max", 1, u64::from(TTL_MS_MAX))?;
        let ttl_ms_default = settings.number("ttl-ms-default", 1, ttl_ms_max)?;
        let limits = Limits {
            ttl_ms_max: u32::try_from(ttl_ms_max).unwrap_or(TTL_MS_MAX),
            ttl_ms_default: u32::try_from(ttl_ms_default).unwrap_or(TTL_MS_MAX),
            key_bytes_max: settings.size("key-bytes-max", 1, KEY_BYTES_MAX as u64)?,
            owner_bytes_max: settings.size("owner-bytes-max", 1, OWNER_BYTES_MAX as u64)?,
            meta_bytes_max: settings.size("meta-bytes-max", 0, 1 << 20)?,
            multi_bytes_max: settings.size("multi-bytes-max", 1024, 1 << 30)?,
            subscriber_bytes_max: settings.size("subscriber-bytes-max", 1024, 1 << 30)?,
            subscriptions_max: settings.size("subscriptions-max", 1, 1 << 20)?,
            subscriptions_bytes_max: settings.size("subscriptions-bytes-max", 1024, 1 << 30)?,
        };
        let http_config = HttpConfig {
            users: users(settings)?,
            origins: origins(settings)?,
            locks_per_user_max: settings.number("http-locks-per-user-max", 1, u64::from(u32::MAX))?,
            connections_max: listener.connections_max,
            output_stall: listener.output_stall,
        };
        let damaged_log = match settings.switch("accept-damaged-log")? {
            true => DamagedLog::Discard,
            false => DamagedLog::Refuse,
        };
        Ok(Config {
            listen,
            password,
            allows_no_password,
            http,
            http_config,
            data: PathBuf::from(settings.text("data").unwrap_or("./octostore.db")),
            damaged_log,
            durability,
            token_floor: i64::try_from(settings.number("token-floor", 0, (TOKEN_MAX / 2) as u64)?)
                .unwrap_or(0),
            locks_max: settings.number("locks-max", 1, u64::from(u32::MAX))?,
            sessions_max: settings.size("sessions-max", 1, u64::from(u32::MAX))?,
            waiters_per_lock_max: settings.size("waiters-per-lock-max", 1, 1 << 30)?,
            listener,
            limits,
            threads,
            log,
            settings: shown_settings(settings),
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
fn addresses(settings: &Settings, name: &'static str) -> Result<Vec<ListenAddress>, ConfigError> {
    let mut found: Vec<ListenAddress> = Vec::new();
    for text in settings.text(name).unwrap_or("").split(',').map(str::trim) {
        let resolved = text.to_socket_addrs().map_err(|error| {
            let example = "as in 127.0.0.1:7379 or [::1]:7379, with commas between several";
            settings.fault(name, format!("{text:?} is not an address and port, {example} ({error})"))
        })?;
        let before = found.len();
        let is_required = !settings.is_default(name) && text.parse::<SocketAddr>().is_ok();
        for address in resolved {
            if found.iter().all(|known| known.address != address) {
                found.push(ListenAddress { address, is_required });
            } else if found[..before].iter().any(|known| known.address == address) {
                return Err(settings.fault(name, format!("{address} is named twice")));
            }
        }
        if found.len() == before {
            return Err(settings.fault(name, format!("{text:?} has no address")));
        }
    }
    Ok(found)
}

/// An address that other machines can reach.
fn exposed(addresses: &[ListenAddress]) -> Option<SocketAddr> {
    addresses.iter().map(|listen| listen.address).find(|address| !address.ip().is_loopback())
}

/// A secret given as such, or as a file with it in the first line.
fn secret(
    settings: &Settings,
    name: &'static str,
    file: &'static str,
) -> Result<Option<String>, ConfigError> {
    let direct = settings.text(name).map(str::to_owned);
    let Some(path) = settings.text(file) else { return Ok(direct) };
    if direct.is_some() {
        return Err(settings.fault(file, format!("--{name} is set, too; choose one")));
    }
    let text = read_private(path).map_err(|problem| settings.fault(file, problem))?;
    match text.lines().next().unwrap_or("").trim_end() {
        "" => Err(settings.fault(file, format!("the first line of {path} is empty"))),
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

fn password(settings: &Settings) -> Result<Option<Password>, ConfigError> {
    Ok(secret(settings, "requirepass", "requirepass-file")?.as_deref().and_then(Password::new))
}

/// Where to serve HTTP. Beyond loopback only with credentials.
fn http_addresses(settings: &Settings, allows_no_password: bool) -> Result<Vec<ListenAddress>, ConfigError> {
    if settings.text("http") == Some("off") {
        return Ok(Vec::new());
    }
    let addresses = addresses(settings, "http")?;
    let is_protected = ["http-tokens", "http-token", "requirepass", "requirepass-file"]
        .into_iter()
        .any(|name| settings.text(name).is_some());
    match exposed(&addresses).filter(|_| !is_protected && !allows_no_password) {
        Some(exposed) => Err(settings.fault(
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
fn users(settings: &Settings) -> Result<UsersConfig, ConfigError> {
    let mut users = Vec::new();
    if let Some(line) = settings.text("http-token") {
        let user = UserConfig::parse(line);
        users
            .push(user.map_err(|problem| settings.fault("http-token", format!("what was given {problem}")))?);
    }
    if let Some(path) = settings.text("http-tokens") {
        let fault = |problem: String| settings.fault("http-tokens", problem);
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
        return Err(settings.fault("http-tokens", problem));
    }
    let local_token = match users.as_slice() {
        [] => secret(settings, "requirepass", "requirepass-file")?.as_deref().and_then(Secret::new),
        _ => None,
    };
    let admin_key =
        secret(settings, "http-admin-key", "http-admin-key-file")?.as_deref().and_then(Secret::new);
    Ok(UsersConfig { users, local_token, admin_key })
}

fn origins(settings: &Settings) -> Result<Vec<String>, ConfigError> {
    let text = settings.text("http-allow-origin").unwrap_or("");
    let origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
    origins
        .map(|origin| match origin.split_once("://") {
            Some((_, host)) if !host.is_empty() && !host.contains('/') => Ok(origin.to_owned()),
            _ => Err(settings.fault("http-allow-origin", format!("{origin:?} is not scheme://host[:port]"))),
        })
        .collect()
}

fn read_file(path: &str, settings: &mut BTreeMap<&'static str, Setting>) -> Result<(), ConfigError> {
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
        settings.insert(option.name, Setting { text, from: path.to_owned() });
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
fn shown_settings(settings: &Settings) -> Vec<(&'static str, String)> {
    let own = OPTIONS.iter().filter(|option| !option.is_secret());
    let mut all: Vec<(&str, String)> =
        own.map(|option| (option.name, settings.text(option.name).unwrap_or("").to_owned())).collect();
    let of = |name: &'static str| settings.text(name).unwrap_or("").to_owned();
    let is_kept = settings.text("durability") != Some("memory");
    all.extend([
        ("timeout", of("idle-timeout-s")),
        ("databases", crate::lock::DATABASES.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("save", String::new()),
        ("appendonly", if is_kept { "yes" } else { "no" }.to_owned()),
        (
            "appendfsync",
            if settings.text("durability") == Some("always") { "always" } else { "everysec" }.to_owned(),
        ),
        ("replica-read-only", "yes".to_owned()),
        ("slave-read-only", "yes".to_owned()),
        ("proto-max-bulk-len", of("arg-bytes-max")),
    ]);
    all
}

#[cfg(test)]
mod tests;
