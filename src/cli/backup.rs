//! `octostore backup`: copies a database, once or again and again.
//!
//! Guarantees: a failed copy does not end the loop, and removes no earlier copy.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use time::OffsetDateTime;

use super::duration::duration;
use super::{approve, data, fail, path, print, summary};
use crate::clock::Clock;
use crate::journal::{JournalError, back_up};

/// Copies that a loop keeps by default.
const KEEP: &str = "24";
/// The length of the time behind the name of a copy.
const STAMP_LEN: usize = "20260101T000000Z".len();

pub(super) fn command() -> Command {
    Command::new("backup")
        .about("Copies the database to FILE, also while a server uses it, and checks the copy")
        .arg(Arg::new("file").value_name("FILE").required(true).help("The copy; replaced if it exists"))
        .arg(data())
        .arg(
            Arg::new("every")
                .long("every")
                .value_name("TIME")
                .value_parser(interval)
                .help("Repeat at this interval (30s, 15m, 1h, 1d), to files named FILE.<time>"),
        )
        .arg(
            Arg::new("keep")
                .long("keep")
                .value_name("N")
                .requires("every")
                .default_value(KEEP)
                .value_parser(clap::value_parser!(u16).range(1..))
                .help("With --every, the number of copies to keep"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    // A server beside it comes first. Without this, the copy is only less polite.
    let _ = rustix::process::nice(10);
    let (database, file) = (path(matches, "data"), path(matches, "file"));
    let clock = Clock::system();
    let Some(every) = matches.get_one::<Duration>("every") else {
        return match copy(&database, &file, &clock) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, format!("no backup was made: {error}")),
        };
    };
    let keep = usize::from(matches.get_one::<u16>("keep").copied().unwrap_or(u16::MAX));
    loop {
        let began = clock.now();
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{}", stamp(&clock)));
        match copy(&database, Path::new(&name), &clock) {
            Ok(()) => remove_oldest(&file, keep),
            Err(error) => {
                fail(1, format!("no backup was made: {error}; the next one is due in {every:?}"));
            }
        }
        let took = Duration::from_nanos(clock.now().nanos_since(began));
        std::thread::sleep(every.saturating_sub(took));
    }
}

fn copy(database: &Path, file: &Path, clock: &Clock) -> Result<(), JournalError> {
    let mut examined = None;
    back_up(database, file, clock, &mut |state| approve(state, &mut examined))?;
    if let Some(examined) = examined {
        print(format!("{}: {}", file.display(), summary(&examined)));
    }
    Ok(())
}

/// The time as the end of a name. The order of names is that of time.
fn stamp(clock: &Clock) -> String {
    let seconds = i64::try_from(clock.wall_millis() / 1000).unwrap_or(0);
    let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (now.date(), now.time());
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// Removes all copies of this name but the newest.
fn remove_oldest(file: &Path, keep: usize) {
    let mut copies = copies(file);
    copies.sort();
    let surplus = copies.len().saturating_sub(keep);
    for copy in &copies[..surplus] {
        if let Err(error) = std::fs::remove_file(copy) {
            fail(1, format!("cannot remove {}: {error}", copy.display()));
        }
    }
}

/// The copies that a loop has made.
fn copies(file: &Path) -> Vec<PathBuf> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Ok(entries) = std::fs::read_dir(folder.unwrap_or(Path::new("."))) else { return Vec::new() };
    let prefix = format!("{}.", file.file_name().unwrap_or_default().to_string_lossy());
    let is_copy = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let stamp = name.strip_prefix(&prefix);
        let is_stamp = |stamp: &str| {
            stamp.len() == STAMP_LEN
                && stamp.bytes().enumerate().all(|(at, byte)| match at {
                    8 => byte == b'T',
                    15 => byte == b'Z',
                    _ => byte.is_ascii_digit(),
                })
        };
        stamp.is_some_and(is_stamp)
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_copy).collect()
}

/// The time between copies. Their names have seconds.
fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short.subsec_millis() > 0 => Err("whole seconds are expected, as in 30s".to_owned()),
        interval => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_whole_seconds() {
        assert_eq!(interval("90s"), Ok(Duration::from_secs(90)));
        assert!(interval("1ms").is_err() && interval("1500ms").is_err());
    }

    #[test]
    fn only_old_copies_of_the_same_name_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("db");
        let names =
            ["db.20260101T000000Z", "db.20260102T000000Z", "db.20260103T000000Z", "db.notes", "db", "dbx"];
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        remove_oldest(&file, 2);
        let is_there = |name: &&str| dir.path().join(name).exists();
        assert_eq!(names.iter().filter(|name| is_there(name)).count(), names.len() - 1);
        assert!(!is_there(&names[0]));
    }
}
