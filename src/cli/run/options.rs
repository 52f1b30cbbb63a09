//! The arguments of `octostore run`.
//!
//! Guarantees: each key is taken once, and no two runs have the same owner: the server would take
//! them for one holder, and the end of one would release the lock of the other.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::schedule::{OnLost, TTL_MIN};
use crate::cli::{client, duration::duration};
use crate::entropy::Entropy;

/// Exit codes, from sysexits.h where it has one.
const NOT_ACQUIRED: &str = "75";
const LOST: &str = "76";
const NO_SERVER: &str = "69";

/// How long to wait for the locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Try,
    For(Duration),
    Forever,
}

/// The exit codes of this program itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codes {
    pub(super) not_acquired: u8,
    pub(super) lost: u8,
    pub(super) no_server: u8,
}

/// What to run, under which locks.
#[derive(Debug)]
pub(super) struct Options {
    /// In the order in which they are taken, each once.
    pub(super) keys: Vec<Vec<u8>>,
    /// As on the command line: positions in `keys`.
    pub(super) as_given: Vec<usize>,
    pub(super) owner: Vec<u8>,
    pub(super) ttl: Duration,
    pub(super) wait: Wait,
    /// The arguments of LOCK that say with whom the lock is shared.
    pub(super) mode: Vec<Vec<u8>>,
    pub(super) on_lost: OnLost,
    pub(super) grace: Duration,
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) codes: Codes,
}

pub(in crate::cli) fn command() -> Command {
    let code = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("CODE")
            .default_value(default)
            .value_parser(value_parser!(u8))
            .help_heading("Exit codes")
            .help(help)
    };
    let time = |name: &'static str| Arg::new(name).long(name).value_name("TIME").value_parser(duration);
    Command::new("run")
        .about("Runs a command while it holds a lock")
        .override_usage("octostore run [OPTIONS] KEY... -- COMMAND [ARG...]")
        .arg(
            Arg::new("key")
                .value_name("KEY")
                .required(true)
                .num_args(1..)
                .value_parser(value_parser!(OsString))
                .help("The locks; several are taken in the order of their bytes"),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .required(true)
                .num_args(1..)
                .last(true)
                .value_parser(value_parser!(OsString))
                .help("The command and its arguments, behind --"),
        )
        .arg(time("ttl").default_value("30s").help("The TTL of the lease, at least 1s"))
        .arg(time("wait").conflicts_with("try").help("Give up after this time; without it, wait on"))
        .arg(flag("try").help("Do not wait"))
        .arg(flag("shared").conflicts_with("limit").help("Hold the lock together with others that share it"))
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..))
                .help("Hold the lock together with up to N - 1 others"),
        )
        .arg(Arg::new("owner").long("owner").value_name("OWNER").value_parser(value_parser!(OsString)).help(
            "The first part of the lease's owner, by default the name of the host; the rest is unique to each run",
        ))
        .arg(
            Arg::new("on-lost")
                .long("on-lost")
                .value_name("ACTION")
                .default_value("kill")
                .value_parser(["kill", "term", "ignore"])
                .help("If the lease cannot be renewed: SIGTERM and SIGKILL in time, only SIGTERM, or nothing"),
        )
        .arg(
            time("grace")
                .default_value("5s")
                .help("The time between SIGTERM and SIGKILL, at most a third of the TTL"),
        )
        .arg(flag("shell").help("Run the command as a line of /bin/sh"))
        .arg(code("not-acquired-code", NOT_ACQUIRED, "Another owner holds the lock"))
        .arg(code("lost-code", LOST, "The lease was lost"))
        .arg(code("no-server-code", NO_SERVER, "The server cannot be reached, or refuses the request"))
        .args(client::arguments())
        .after_help(
            "The command finds OCTOSTORE_TOKEN, OCTOSTORE_KEY and OCTOSTORE_OWNER in its environment; with several \
             keys, also OCTOSTORE_TOKEN_2, OCTOSTORE_KEY_2 and so on. The exit code is that of the command.",
        )
}

fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

impl Options {
    pub(super) fn from_arguments(matches: &ArgMatches) -> Result<Options, String> {
        let time = |name: &str| matches.get_one::<Duration>(name).copied();
        let words = |name: &str| matches.get_many::<OsString>(name).unwrap_or_default().cloned();
        let code = |name: &str| matches.get_one::<u8>(name).copied().unwrap_or_default();
        let given: Vec<Vec<u8>> = words("key").map(|key| key.as_bytes().to_vec()).collect();
        let mut keys = given.clone();
        keys.sort();
        keys.dedup();
        let as_given = given.iter().filter_map(|key| keys.binary_search(key).ok()).collect();
        let ttl = time("ttl").unwrap_or(TTL_MIN);
        if ttl < TTL_MIN {
            return Err(format!("--ttl must be at least {TTL_MIN:?}"));
        }
        let name = matches.get_one::<OsString>("owner");
        let owner = new_owner(name.map(|name| name.as_bytes())).map_err(|error| error.to_string())?;
        let mode = match matches.get_one::<u32>("limit") {
            Some(limit) => vec![b"LIMIT".to_vec(), limit.to_string().into_bytes()],
            None if matches.get_flag("shared") => vec![b"SHARED".to_vec()],
            None => Vec::new(),
        };
        let mut command = words("command");
        let (program, arguments) = match matches.get_flag("shell") {
            true => {
                let line = command.collect::<Vec<_>>().join(" ".as_ref());
                ("/bin/sh".into(), vec!["-c".into(), line])
            }
            false => (command.next().unwrap_or_default(), command.collect()),
        };
        Ok(Options {
            keys,
            as_given,
            owner,
            ttl,
            wait: match time("wait") {
                Some(time) => Wait::For(time),
                None if matches.get_flag("try") => Wait::Try,
                None => Wait::Forever,
            },
            mode,
            on_lost: match matches.get_one::<String>("on-lost").map(String::as_str) {
                Some("term") => OnLost::Term,
                Some("ignore") => OnLost::Ignore,
                _ => OnLost::Kill,
            },
            grace: time("grace").unwrap_or_default(),
            program,
            arguments,
            codes: Codes {
                not_acquired: code("not-acquired-code"),
                lost: code("lost-code"),
                no_server: code("no-server-code"),
            },
        })
    }
}

/// An owner that no other run has. Its name says whose it is, by default where it runs.
fn new_owner(name: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let mut unique = [0; 8];
    Entropy::system().fill(&mut unique)?;
    let unique = u64::from_be_bytes(unique);
    let system = rustix::system::uname();
    let mut owner = name.unwrap_or(system.nodename().to_bytes()).to_vec();
    owner.extend_from_slice(format!(":{}:{unique:016x}", std::process::id()).as_bytes());
    Ok(owner)
}
