//! Checkpoints: a thread moves pages from the write-ahead log into the database file, beside the
//! commits.
//!
//! Guarantees: the log has its working length from the start. It is overwritten, never cut and
//! seldom lengthened, because a sync of overwritten blocks is much cheaper than a sync of new
//! blocks. Not here: the content of pages.

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
/// How often the files are verified while there are commits.
const VERIFY_EVERY: Duration = Duration::from_secs(1);
/// The working length of the log.
const LOG_BYTES: u64 = 8 << 20;

/// Fills the log with zeros up to its working length. SQLite takes zeros for the end of the valid
/// frames.
pub(super) fn lengthen_log(database: &Path) -> io::Result<()> {
    let mut log = OpenOptions::new().append(true).create(true).open(log_path(database))?;
    let missing = LOG_BYTES.saturating_sub(log.metadata()?.len());
    io::copy(&mut io::repeat(0).take(missing), &mut log)?;
    log.sync_all()
}

/// A handle to the checkpoint thread.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Pages in the log after the last commit.
    pages: Arc<AtomicUsize>,
    /// Asks the thread for a checkpoint. Dropping it ends the thread.
    ask: Option<SyncSender<()>>,
    /// The thread has moved most pages. The next commit moves the few that were written meanwhile.
    is_moved: Arc<AtomicBool>,
    /// A checkpoint or [`VERIFY_EVERY`] has passed since the files were last verified.
    is_verification_due: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread. `file` is the identity of the file at `database`.
    pub(super) fn start(
        database: &Path,
        file: &FileIdentity,
        db: &mut Connection,
    ) -> Result<Checkpoints, JournalError> {
        let pages = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&pages);
        // This also disables SQLite's own checkpoints, which run inside a commit.
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
                            // After a failure the next commit tries again and reports the error.
                            let _ = checkpoint(&own);
                            moved.store(true, Ordering::Release);
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                    due.store(true, Ordering::Release);
                }
                if file.verify().is_err() {
                    // This is the last connection. It would remove the log by its path, where the
                    // log of another database is now.
                    let _ = own.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
                }
            })
            .map_err(|error| JournalError::Io { what: format!("cannot start a thread: {error}") })?;
        Ok(Checkpoints { pages, ask: Some(ask), is_moved, is_verification_due, thread: Some(thread) })
    }

    /// Whether the files must be verified; resets it.
    pub(super) fn take_verification(&self) -> bool {
        self.is_verification_due.load(Ordering::Relaxed)
            && self.is_verification_due.swap(false, Ordering::AcqRel)
    }

    /// Makes the next commit verify the files.
    #[cfg(test)]
    pub(super) fn demand_verification(&self) {
        self.is_verification_due.store(true, Ordering::Release);
    }

    /// Advances checkpoints; call it after each commit.
    pub(super) fn after_commit(&self, db: &Connection) {
        if self.is_moved.swap(false, Ordering::AcqRel) {
            // The rest is small. Once all pages are moved, SQLite writes the log from its start
            // again. A failure loses nothing: the pages stay in the log.
            let _ = checkpoint(db);
        } else if self.pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES
            && let Some(ask) = &self.ask
        {
            // If the channel is full, a request is pending already.
            let _ = ask.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been printed.
            let _ = thread.join();
        }
    }
}

fn checkpoint(db: &Connection) -> rusqlite::Result<()> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
