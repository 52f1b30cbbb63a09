//! Reading the whole state: the table `held`, and what `changes` says since.
//!
//! Promise: nothing is written, so it works on a disk that is full; only after a reboot all deadlines are moved first, in one
//! transaction. The backlog that comes out knows what is still to be moved. Absent: what the state means.

use rusqlite::Connection;

use super::fault::fault;
use super::rows;
use crate::journal::log::compaction::Backlog;
use crate::journal::log::entry;
use crate::journal::log::replay::Recovered;
use crate::journal::{JournalError, Loaded, Record, StoredLease};
use crate::lock::{Delay, Timestamp};

/// Moves every deadline to the full TTL by which it was last set, from ?1; without one it stays without an end.
const REBASE: &str = "
UPDATE held SET granted_ns = ?1, deadline_ns = CASE
    WHEN lasts_ms IS NULL AND max_hold_ms IS NULL THEN NULL
    ELSE ?1 + 1000000 * min(coalesce(lasts_ms, max_hold_ms), coalesce(max_hold_ms, lasts_ms)) END;
UPDATE delays SET until_ns = ?1 + 1000000 * length_ms;
UPDATE sessions SET deadline_ns = ?1 + 1000000 * ttl_ms;
";

/// Passes all there is to `each`. See [`crate::journal::Backend::load`].
pub(super) fn load(
    db: &mut Connection,
    boot: Option<&str>,
    now: Timestamp,
    each: &mut dyn FnMut(Record),
) -> Result<(Loaded, Backlog), JournalError> {
    let check = |error| fault("read the database", &error);
    let reading = db.transaction().map_err(check)?;
    let (tokens_reserved, stored_boot, secret): (i64, Option<String>, [u8; 32]) = reading
        .query_row("SELECT tokens_reserved, boot_id, secret FROM octostore", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .map_err(check)?;
    let rebooted = boot.is_none() || stored_boot.as_deref() != boot;
    let mut recovered = Recovered::default();
    read_changes(&reading, |number, text| recovered.row(number, text.len(), entry::read(text)?))?;
    if rebooted {
        move_all(&reading, recovered, now, boot)?;
        recovered = Recovered::default();
    }
    read_sessions_and_delays(&reading, each)?;
    read_leases(&reading, &mut recovered, &mut |stored| each(Record::Granted(stored)))?;
    reading.commit().map_err(check)?;
    Ok((Loaded { tokens_reserved, rebooted, secret }, recovered.into_backlog()))
}

/// Passes every row of `changes` to `each`, in their order.
fn read_changes(
    db: &Connection,
    mut each: impl FnMut(i64, &str) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let check = |error| fault("read the database", &error);
    let mut rows = db.prepare("SELECT row, leases FROM changes ORDER BY row").map_err(check)?;
    let mut rows = rows.query([]).map_err(check)?;
    while let Some(row) = rows.next().map_err(check)? {
        each(rows::column(row, 0)?, &rows::column::<String>(row, 1)?)?;
    }
    Ok(())
}

/// After a reboot: all there is moves into `held`, and all deadlines to their full length from `now`.
fn move_all(
    db: &Connection,
    mut recovered: Recovered,
    now: Timestamp,
    boot: Option<&str>,
) -> Result<(), JournalError> {
    let check = |error| fault("move the database's deadlines", &error);
    // Refuses what it refuses without a reboot, too.
    read_leases(db, &mut recovered, &mut |_| {})?;
    let mut held = rows::Held::of(db).map_err(check)?;
    read_changes(db, |_, text| {
        entry::read(text)?.iter().try_for_each(|(token, change)| held.write(*token, change)).map_err(check)
    })?;
    db.execute("DELETE FROM changes", []).map_err(check)?;
    for statement in REBASE.split_inclusive(';').filter(|text| !text.trim().is_empty()) {
        db.execute(statement, [now.to_stored()]).map_err(check)?;
    }
    db.execute("UPDATE octostore SET boot_id = ?1", [boot]).map_err(check)?;
    Ok(())
}

fn read_sessions_and_delays(db: &Connection, each: &mut dyn FnMut(Record)) -> Result<(), JournalError> {
    let check = |error| fault("read the database", &error);
    let mut rows = db.prepare("SELECT * FROM sessions").map_err(check)?;
    let mut rows = rows.query([]).map_err(check)?;
    while let Some(row) = rows.next().map_err(check)? {
        each(Record::SessionOpened(rows::session_from(row)?));
    }
    let mut rows = db.prepare("SELECT db, key, until_ns, length_ms FROM delays").map_err(check)?;
    let mut rows = rows.query([]).map_err(check)?;
    while let Some(row) = rows.next().map_err(check)? {
        let length = rows::ttl_from(rows::column(row, 3)?)?
            .ok_or_else(|| rows::damaged("a delay without a length"))?;
        let until = Timestamp::from_stored(Some(rows::column(row, 2)?));
        each(Record::DelayStarted(rows::name_from(row, 0, 1)?, Delay { until, length }));
    }
    Ok(())
}

/// In the order of tokens.
fn read_leases(
    db: &Connection,
    recovered: &mut Recovered,
    each: &mut dyn FnMut(Box<StoredLease>),
) -> Result<(), JournalError> {
    let check = |error| fault("read the database", &error);
    let mut rows = db.prepare("SELECT * FROM held ORDER BY token").map_err(check)?;
    let mut rows = rows.query([]).map_err(check)?;
    let mut next = i64::MIN;
    while let Some(row) = rows.next().map_err(check)? {
        let stored = rows::lease_from_row(row)?;
        let token = stored.lease.token.get();
        if token < next {
            return Err(rows::damaged(format!("token {token} is held twice, or out of order")));
        }
        recovered.not_in_held(next..token, &mut *each)?;
        next = token + 1;
        if let Some(stored) = recovered.in_held(Box::new(stored))? {
            each(stored);
        }
    }
    recovered.not_in_held(next..i64::MAX, each)
}
