//! Checkpoints: pages move from the write-ahead log into the database file, beside the commits.
//!
//! Promise: the log has its working length from the start and is written over, never cut and seldom lengthened, because a sync
//! of overwritten blocks is much cheaper than one of new blocks. Absent: what the pages hold.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;

use super::fault::fault;
use super::file_identity::FileIdentity;
use super::open::log_path;
use crate::journal::JournalError;

/// Pages in the write-ahead log at which a checkpoint is due (4 MiB).
const CHECKPOINT_PAGES: usize = 1024;
/// The files are verified at least this often while there are commits.
const VERIFY_EVERY: Duration = Duration::from_secs(1);
/// The log is this long from the start.
const LOG_BYTES: u64 = 8 << 20;

/// Fills the log with zeros, which SQLite takes for the end of what is valid, up to its working length.
pub(super) fn lengthen_log(database: &Path) -> io::Result<()> {
    let mut log = OpenOptions::new().append(true).create(true).open(log_path(database))?;
    let missing = LOG_BYTES.saturating_sub(log.metadata()?.len());
    io::copy(&mut io::repeat(0).take(missing), &mut log)?;
    log.sync_all()
}

/// Moves pages from the log into the database file, beside the commits.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Pages in the log after the last commit.
    pages: Arc<AtomicUsize>,
    /// Asks the thread for a checkpoint; dropped to end it.
    ask: Option<SyncSender<()>>,
    /// The thread has moved most pages; the few that came meanwhile are for the next commit to move.
    is_moved: Arc<AtomicBool>,
    /// Time has passed, or a checkpoint, since the files were verified last.
    is_verification_due: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// `file` is the one at `database`, which is where pages belong.
    pub(super) fn start(
        database: &Path,
        file: &FileIdentity,
        db: &mut Connection,
    ) -> Result<Checkpoints, JournalError> {
        let pages = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&pages);
        // Also turns SQLite's own checkpoints, which would run inside a commit, off.
        db.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            seen.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
        .map_err(|error| fault("watch the write-ahead log", &error))?;
        let own = Connection::open(database).map_err(|error| fault("open the database", &error))?;
        let (ask, asked) = sync_channel(1);
        let is_moved = Arc::new(AtomicBool::new(false));
        let moved = Arc::clone(&is_moved);
        let is_verification_due = Arc::new(AtomicBool::new(false));
        let due = Arc::clone(&is_verification_due);
        let file = file.clone();
        let thread = std::thread::Builder::new()
            .name("octostore-ckpt".into())
            .spawn(move || {
                loop {
                    match asked.recv_timeout(VERIFY_EVERY) {
                        Ok(()) => {
                            // What fails here is tried again at the next commit, which then says so.
                            let _ = checkpoint(&own);
                            moved.store(true, Ordering::Release);
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                    due.store(true, Ordering::Release);
                }
                if file.verify().is_err() {
                    // This is the last connection. It would remove the log by its path, which is that of another
                    // database now.
                    let _ = own.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
                }
            })
            .map_err(|error| JournalError::Io { what: format!("cannot start a thread: {error}") })?;
        Ok(Checkpoints { pages, ask: Some(ask), is_moved, is_verification_due, thread: Some(thread) })
    }

    /// Whether the files are to be verified. At most once for each second and each checkpoint.
    pub(super) fn take_verification(&self) -> bool {
        self.is_verification_due.load(Ordering::Relaxed)
            && self.is_verification_due.swap(false, Ordering::AcqRel)
    }

    /// The next commit verifies the files.
    #[cfg(test)]
    pub(super) fn demand_verification(&self) {
        self.is_verification_due.store(true, Ordering::Release);
    }

    /// Call after each commit.
    pub(super) fn after_commit(&self, db: &Connection) {
        if self.is_moved.swap(false, Ordering::AcqRel) {
            // The rest is small. Once all pages are moved the log is written from its start again. A failure loses
            // nothing: the pages stay in the log.
            let _ = checkpoint(db);
        } else if self.pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES
            && let Some(ask) = &self.ask
        {
            // Full: it has been asked already.
            let _ = ask.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

fn checkpoint(db: &Connection) -> rusqlite::Result<()> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
