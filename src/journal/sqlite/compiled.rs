//! The compile-time flags of SQLite.
//!
//! They are set in `.cargo/config.toml`, which applies only to builds started inside this project.
//! They make commits faster and change nothing else, so a build without them works, and reports at
//! its start which flags it lacks.

use rusqlite::Connection;

/// Syncs data without the file's times. SQLite does not report this flag.
const FDATASYNC: &str = "-DHAVE_FDATASYNC=1";
/// Disables a global counter of allocations.
const NO_MEMSTATUS: &str = "-DSQLITE_DEFAULT_MEMSTATUS=0";

/// The variable as the builds of SQLite and of this crate saw it.
const FLAGS: Option<&str> = option_env!("LIBSQLITE3_FLAGS");

/// The flags that SQLite was compiled without.
pub(super) fn missing_flags(db: &Connection) -> rusqlite::Result<Vec<&'static str>> {
    let mut options = db.prepare("PRAGMA compile_options")?;
    let options: Vec<String> = options.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(missing(FLAGS.unwrap_or(""), &options))
}

fn missing(flags: &str, options: &[String]) -> Vec<&'static str> {
    let has_fdatasync = flags.split_whitespace().any(|flag| flag == FDATASYNC);
    let has_no_memstatus = options.iter().any(|option| option == "DEFAULT_MEMSTATUS=0");
    let all = [(FDATASYNC, has_fdatasync), (NO_MEMSTATUS, has_no_memstatus)];
    all.into_iter().filter(|(_, is_there)| !is_there).map(|(flag, _)| flag).collect()
}

/// Logs which flags are missing, if any.
pub(super) fn report(db: &Connection) {
    match missing_flags(db) {
        Ok(missing) if missing.is_empty() => {}
        Ok(missing) => tracing::info!(
            "SQLite was compiled without {}: commits take longer; build octostore inside its own folder, or with \
             LIBSQLITE3_FLAGS=\"{FDATASYNC} {NO_MEMSTATUS}\"",
            missing.join(" ")
        ),
        Err(error) => tracing::debug!(%error, "SQLite does not say how it was compiled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_flags_are_those_of_the_cargo_config() {
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/.cargo/config.toml");
        let config: toml::Table = std::fs::read_to_string(config).unwrap().parse().unwrap();
        let flags = config["env"]["LIBSQLITE3_FLAGS"].as_str().unwrap();
        assert_eq!(flags, format!("{FDATASYNC} {NO_MEMSTATUS}"));
        let options = vec!["COMPILER=gcc".to_owned(), "DEFAULT_MEMSTATUS=0".to_owned()];
        assert_eq!(missing(flags, &options), Vec::<&str>::new());
        assert_eq!(missing("-DOTHER", &options), [FDATASYNC]);
        assert_eq!(missing("", &[]), [FDATASYNC, NO_MEMSTATUS]);
    }

    #[test]
    fn missing_flags_match_the_build() {
        let missing = missing_flags(&Connection::open_in_memory().unwrap()).unwrap();
        let flags = FLAGS.unwrap_or("");
        assert_eq!(missing.contains(&NO_MEMSTATUS), !flags.contains(NO_MEMSTATUS), "{flags:?}: {missing:?}");
        assert_eq!(missing.contains(&FDATASYNC), !flags.contains(FDATASYNC), "{flags:?}: {missing:?}");
    }
}
