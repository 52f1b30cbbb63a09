//! Where values come from: flags, `OCTOSTORE_*` variables, a TOML file.
//!
//! Guarantees: a flag wins over a variable, a variable over the file. A name that is no setting,
//! and a value that is empty, is an error wherever it stands. Not here: what values mean.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

use super::hints::{self, Form};
use super::options::Opt;
use super::{ConfigError, OPTIONS, wrong};
use crate::auth;

/// The origin of a default value.
const DEFAULT: &str = "its default";

/// A value and its origin.
struct Setting {
    text: String,
    from: String,
}

pub(super) struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    pub(super) fn text(&self, name: &'static str) -> Option<&str> {
        self.0.get(name).map(|settings| settings.text.as_str()).filter(|text| !text.is_empty())
    }

    pub(super) fn is_default(&self, name: &'static str) -> bool {
        self.0.get(name).is_none_or(|settings| settings.from == DEFAULT)
    }

    pub(super) fn fault(&self, name: &'static str, problem: impl fmt::Display) -> ConfigError {
        match self.0.get(name) {
            Some(Setting { text, from }) if !text.is_empty() || from != DEFAULT => {
                wrong(format!("--{name} (from {from}): {problem}"))
            }
            _ => wrong(format!("--{name}: {problem}")),
        }
    }

    pub(super) fn number(&self, name: &'static str, min: u64, max: u64) -> Result<u64, ConfigError> {
        let text = self.text(name).unwrap_or("");
        let number = text.parse::<u64>().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| self.fault(name, format!("{text:?} is not a number from {min} to {max}")))
    }

    pub(super) fn size(&self, name: &'static str, min: u64, max: u64) -> Result<usize, ConfigError> {
        self.number(name, min, max).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    }

    pub(super) fn switch(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name) {
            None | Some("false" | "no" | "0") => Ok(false),
            Some("true" | "yes" | "1") => Ok(true),
            Some(other) => Err(self.fault(name, format!("{other:?} is not true or false"))),
        }
    }
}

/// Reads defaults, the file, variables and flags, each over those before it.
pub(super) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Settings, ConfigError> {
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
    // A variable or a template that expanded to nothing: the server would run with less than was
    // meant.
    for option in OPTIONS {
        if settings.text(option.name).is_none() && !settings.is_default(option.name) {
            return Err(settings.fault(option.name, "is empty; set a value or omit it"));
        }
    }
    Ok(settings)
}

/// What the program does besides serving: the names and summaries of its subcommands.
pub(crate) const SUBCOMMANDS: [(&str, &str); 11] = [
    ("run", "Runs a command while it holds a lock"),
    ("locks", "Lists the locks that are held: by whom, for how long, and how many wait"),
    ("info", "Shows the holders and waiters of a lock"),
    ("force-unlock", "Takes a lock from its holders; exit code 1 if there is none"),
    ("bench", "Measures how many locks a server grants, and how long requests take"),
    ("health", "Asks a server whether it can grant locks: GET /health"),
    ("backup", "Copies the database to FILE, also while a server uses it, and checks the copy"),
    ("restore", "Makes the copy in FILE the database, if there is none and no server runs"),
    ("check", "Verifies a database that no server uses; exit code 1 if there is a finding"),
    ("completions", "Prints the completions for a shell: bash, elvish, fish, powershell or zsh"),
    ("man", "Prints the manual page of the server, or of a subcommand"),
];

/// The end of the help.
pub(crate) const NOTES: &str = "Every flag can also be a variable or a line of the file; a flag wins over a variable, \
                                a variable over the file, the last of repeated flags over the others.\nTry it: redis-cli -p 7379 LOCK demo me EX 30";

/// The subcommands as the help lists them.
fn subcommands_help() -> String {
    let row = |(name, summary): &(&str, &str)| format!("  {name:<14}{summary}\n");
    let rows: String = SUBCOMMANDS.iter().map(row).collect();
    format!("Subcommands (octostore SUBCOMMAND --help has their options):\n{rows}")
}

/// The command line.
pub(crate) fn command() -> clap::Command {
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
        .help("TOML file with any of these settings, named like the flags");
    clap::Command::new("octostore")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A durable lock server that speaks the Redis protocol")
        .override_usage("octostore [OPTIONS]\n       octostore SUBCOMMAND …, see below")
        .after_help(format!("{}\n{NOTES}", subcommands_help()))
        .max_term_width(110)
        .args_override_self(true)
        .arg(config)
        .args(OPTIONS.iter().map(arg))
}

/// The error for a command line that cannot be parsed. A flag that does not exist gets a hint.
fn usage(error: clap::Error) -> ConfigError {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(unknown))) => unknown.clone(),
        _ => return ConfigError::Usage(error),
    };
    if !unknown.starts_with('-') {
        return wrong(match hints::nearest(&unknown, SUBCOMMANDS.iter().map(|(name, _)| *name)) {
            Some(name) if name == unknown => format!("the subcommand comes first: octostore {name}"),
            Some(name) => format!("unknown subcommand {unknown:?}: did you mean octostore {name}?"),
            None => format!(
                "{unknown:?} is not an option; settings are flags such as --listen ADDR:PORT, or lines of the TOML \
                 file given by --config (redis.conf is not supported). octostore --help lists the subcommands"
            ),
        });
    }
    // Without the value, which may be a secret.
    let flag = unknown.split('=').next().unwrap_or("");
    wrong(format!("unknown option {flag}: {}", hints::hint(flag.trim_start_matches('-'), &Form::Flag)))
}

/// Variables of clients, and of commands that `octostore run` has started. The latter may have a
/// number at their end.
const FOREIGN_VARIABLES: [&str; 4] = ["OCTOSTORE_URL", "OCTOSTORE_TOKEN", "OCTOSTORE_KEY", "OCTOSTORE_OWNER"];

fn is_foreign(name: &str) -> bool {
    let digits_removed = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let base = if digits_removed == name { name } else { digits_removed.trim_end_matches('_') };
    FOREIGN_VARIABLES.contains(&base)
}

/// A mistyped variable must not leave a setting at its default, above all not the password.
pub(super) fn refuse_unknown_variables(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix("OCTOSTORE_") else { continue };
        let is_known = rest == "CONFIG"
            || OPTIONS.iter().any(|option| option.variable() == name)
            || is_foreign(name)
            || is_of_kubernetes(rest, &value);
        if !is_known {
            let hint = hints::hint(rest, &Form::Variable);
            return Err(wrong(format!("unknown variable {name}: {hint}")));
        }
    }
    Ok(())
}

/// Whether Kubernetes sets this variable for a service called octostore or octostore-….
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

fn read_file(path: &str, settings: &mut BTreeMap<&'static str, Setting>) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map(auth::without_mark)
        .map_err(|error| wrong(format!("--config: cannot read {path}: {error}")))?;
    let table: toml::Table = text.parse().map_err(|error| not_toml(path, &text, &error))?;
    for (key, value) in table {
        let Some(option) = OPTIONS.iter().find(|option| option.name == key) else {
            let hint = hints::hint(&key, &Form::Key);
            return Err(wrong(format!("--config: {path}: unknown setting {key:?}: {hint}")));
        };
        let has_credentials = key == "store" && value.as_str().is_some_and(|url| url.contains('@'));
        if option.is_secret() || has_credentials {
            auth::check_private(path).map_err(|problem| wrong(format!("--config: with {key}, {problem}")))?;
        }
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(is_set) => is_set.to_string(),
            toml::Value::Array(items) if option.is_list() => texts(&items).ok_or_else(|| {
                wrong(format!("--config: {path}: the array {key} must contain only strings"))
            })?,
            other => {
                let kind = other.type_str();
                return Err(wrong(format!(
                    "--config: {path}: {key} must be a string or a number, not {kind}"
                )));
            }
        };
        settings.insert(option.name, Setting { text, from: path.to_owned() });
    }
    Ok(())
}

/// The error for a file that is not TOML. It does not repeat the line, which may have a secret.
fn not_toml(path: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().and_then(|span| text.get(..span.start));
    let line = at.map_or(String::new(), |before| format!(" in line {}", before.matches('\n').count() + 1));
    wrong(format!(
        "--config: {path} is not TOML{line}: {}; a setting is written as locks-max = 1000 or listen = \
         \"127.0.0.1:7379\" (redis.conf is not supported)",
        error.message().replace('\n', ", ")
    ))
}

/// Joins texts with commas.
fn texts(items: &[toml::Value]) -> Option<String> {
    let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
    texts.map(|texts| texts.join(","))
}
