//! Reading the whole state: the tables, and the change log on top of them.
//!
//! Guarantees: nothing is written, so a full disk does not prevent it. Only after a reboot all
//! deadlines are moved first, in one transaction. The [`ChangeLog`] that is returned knows what is
//! still to be compacted. Not here: what the state means.

use rusqlite::{Connection, Row};

use super::fault::fault;
use super::{rows, values};
use crate::domain::Timestamp;
use crate::journal::log::columns::ttl_from;
use crate::journal::log::compaction::{ChangeLog, Position};
use crate::journal::log::entry;
use crate::journal::log::replay::Replay;
use crate::journal::{JournalError, Loaded, Record, StoredLease};
use crate::lock::Delay;

/// Moves every deadline to the end of the TTL by which it was last set, counted from ?1; what has
/// no deadline gets none.
fn restart_deadlines() -> [String; 4] {
    // The latest deadline that fits, if the TTL is longer. NULL without a TTL.
    let after = |ttl| format!("?1 + min(1000000 * min({ttl}, 9223372036854), 9223372036854775807 - ?1)");
    let lease =
        "min(coalesce(lasts_ms, extra ->> 'max_hold_ms'), coalesce(extra ->> 'max_hold_ms', lasts_ms))";
    [
        format!("UPDATE held SET granted_ns = ?1, deadline_ns = {}", after(lease)),
        format!("UPDATE delays SET until_ns = {}", after("length_ms")),
        format!("UPDATE sessions SET deadline_ns = {}", after("ttl_ms")),
        format!("UPDATE keyed_values SET deadline_ns = {}", after("ttl_ms")),
    ]
}

/// What [`load`] finds besides the records that it passes on.
pub(super) struct Found {
    pub(super) loaded: Loaded,
    pub(super) log: ChangeLog,
    /// The ids of values that are gone and have elements left over.
    pub(super) leftovers: Vec<i64>,
}

/// Passes the whole state to `each`. See [`crate::journal::Backend::load`].
pub(super) fn load(
    db: &mut Connection,
    boot: Option<&str>,
    now: Timestamp,
    each: &mut dyn FnMut(Record),
) -> Result<Found, JournalError> {
    let check = |error| fault("read the database", &error);
    let reading = db.transaction().map_err(check)?;
    let (mut loaded, stored_boot) = read_head(&reading)?;
    loaded.rebooted = boot.is_none() || stored_boot.as_deref() != boot;
    if loaded.rebooted {
        move_all(&reading, read_log(&reading)?, now, boot)?;
    }
    let (log, leftovers) = read_all(&reading, each)?;
    reading.commit().map_err(check)?;
    Ok(Found { loaded, log, leftovers })
}

/// Passes the whole state to `each`, with the deadlines that are stored. Writes nothing.
pub(super) fn read(db: &mut Connection, each: &mut dyn FnMut(Record)) -> Result<Loaded, JournalError> {
    let reading = db.transaction().map_err(|error| fault("read the database", &error))?;
    let (loaded, _) = read_head(&reading)?;
    read_all(&reading, each)?;
    Ok(loaded)
}

/// What there is besides the records, and the stored boot.
fn read_head(db: &Connection) -> Result<(Loaded, Option<String>), JournalError> {
    db.query_row("SELECT tokens_reserved, boot_id, secret FROM octostore", [], |row| {
        Ok((Loaded { tokens_reserved: row.get(0)?, rebooted: false, secret: row.get(2)? }, row.get(1)?))
    })
    .map_err(|error| fault("read the database", &error))
}

fn read_all(db: &Connection, each: &mut dyn FnMut(Record)) -> Result<(ChangeLog, Vec<i64>), JournalError> {
    let mut replay = read_log(db)?;
    read_sessions_and_delays(db, each)?;
    read_held(db, &mut replay, &mut |stored| {
        each(Record::Granted(*stored));
        Ok(())
    })?;
    values::read_scripts(db, each)?;
    values::read_values(db, &mut replay, each)?;
    let log = replay.into_log()?;
    let leftovers = find_leftovers(db, &log)?;
    Ok((log, leftovers))
}

/// The ids of values that are gone and have elements left over.
fn find_leftovers(db: &Connection, log: &ChangeLog) -> Result<Vec<i64>, JournalError> {
    let leftovers = values::leftover_ids(db).map_err(|error| fault("read the database", &error))?;
    match leftovers.iter().find(|id| log.has_value(**id)) {
        Some(id) => {
            Err(JournalError::corrupt(format!("elements of the value {id} are older than the value")))
        }
        None => Ok(leftovers),
    }
}

/// Reads the change log.
fn read_log(db: &Connection) -> Result<Replay, JournalError> {
    let check = |error| fault("read the database", &error);
    let position = rows::position(db)?;
    let mut replay = Replay::beside(values::stored_ids(db).map_err(check)?, position);
    read_changes(db, LOG, |number, text| replay.row(number, text.len(), entry::read(text)?))?;
    Ok(replay)
}

/// The rows of the change log in their order.
const LOG: &str = "SELECT row, entries FROM changes ORDER BY row";

/// Passes every row of the change log that `select` finds to `each`.
pub(super) fn read_changes(
    db: &Connection,
    select: &str,
    mut each: impl FnMut(i64, &str) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let check = |error| fault("read the database", &error);
    let mut rows = db.prepare(select).map_err(check)?;
    let mut rows = rows.query([]).map_err(check)?;
    while let Some(row) = rows.next().map_err(check)? {
        each(rows::column(row, 0)?, &rows::column::<String>(row, 1)?)?;
    }
    Ok(())
}

/// After a reboot: compacts the whole log, and moves all deadlines to their full length from `now`.
fn move_all(
    db: &Connection,
    mut replay: Replay,
    now: Timestamp,
    boot: Option<&str>,
) -> Result<(), JournalError> {
    let check = |error| fault("move the database's deadlines", &error);
    // Refuses what it refuses without a reboot, too.
    read_held(db, &mut replay, &mut |_| Ok(()))?;
    values::read_values(db, &mut replay, &mut |_| {})?;
    find_leftovers(db, &replay.into_log()?)?;
    let position = rows::position(db)?;
    let mut place = position.place;
    let mut held = rows::Held::of(db).map_err(check)?;
    let mut values = values::ValueTables::of(db).map_err(check)?;
    read_changes(db, LOG, |number, text| {
        let content = entry::read(text)?;
        content.leases.iter().try_for_each(|(token, change)| held.write(*token, change)).map_err(check)?;
        let moved = position.moved_of(number).unwrap_or(content.values.len());
        let mut changes = content.values.iter().skip(moved);
        changes.try_for_each(|change| values.write(change, &mut place)).map_err(check)
    })?;
    db.execute("DELETE FROM changes", []).map_err(check)?;
    rows::put_position(db, Position { place, ..Position::default() }).map_err(check)?;
    for statement in restart_deadlines() {
        db.execute(&statement, [now.to_stored()]).map_err(check)?;
    }
    db.execute("UPDATE octostore SET boot_id = ?1", [boot]).map_err(check)?;
    Ok(())
}

fn read_sessions_and_delays(db: &Connection, each: &mut dyn FnMut(Record)) -> Result<(), JournalError> {
    let check = |error| fault("read the database", &error);
    let mut rows = db.prepare("SELECT * FROM sessions").map_err(check)?;
    let mut rows = rows.query([]).map_err(check)?;
    while let Some(row) = rows.next().map_err(check)? {
        each(Record::Session(rows::session_from(row)?));
    }
    let mut rows = db.prepare("SELECT db, key, until_ns, length_ms FROM delays").map_err(check)?;
    let mut rows = rows.query([]).map_err(check)?;
    while let Some(row) = rows.next().map_err(check)? {
        let length = ttl_from(rows::column(row, 3)?)?
            .ok_or_else(|| JournalError::corrupt("a delay without a length"))?;
        let until = Timestamp::from_stored(Some(rows::column(row, 2)?));
        each(Record::DelayStarted(rows::name_from(row, 0, 1)?, Delay { until, length }));
    }
    Ok(())
}

fn read_held(
    db: &Connection,
    replay: &mut Replay,
    each: &mut dyn FnMut(Box<StoredLease>) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    read_leases(db, "SELECT * FROM held ORDER BY token", rows::lease_from, replay, each)
}

/// Passes every lease to `each`, in the order of tokens: what `select` finds, read by `decode`,
/// with the change log applied.
pub(super) fn read_leases(
    db: &Connection,
    select: &str,
    decode: impl Fn(&Row<'_>) -> Result<StoredLease, JournalError>,
    replay: &mut Replay,
    each: &mut dyn FnMut(Box<StoredLease>) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let check = |error| fault("read the database", &error);
    let mut rows = db.prepare(select).map_err(check)?;
    let mut rows = rows.query([]).map_err(check)?;
    let mut next = i64::MIN;
    while let Some(row) = rows.next().map_err(check)? {
        let stored = decode(row)?;
        let token = stored.lease.token.get();
        if token < next {
            let what = format!("token {token} is held twice, or out of order");
            return Err(JournalError::corrupt(what));
        }
        replay.not_in_held(next..token, &mut *each)?;
        next = token + 1;
        if let Some(stored) = replay.in_held(Box::new(stored))? {
            each(stored)?;
        }
    }
    replay.not_in_held(next..i64::MAX, each)
}
