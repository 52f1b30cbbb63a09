//! Detects that a path leads to another file than before.
//!
//! Guarantees: a file that was removed, replaced or moved away is detected; a file that is put back
//! is accepted again. The file must be kept open meanwhile, or its inode could be reused. Not here:
//! when to check, and the consequences.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::journal::JournalError;

/// A path and the file that it leads to.
#[derive(Debug, Clone)]
pub(super) struct FileIdentity {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Remembers the file that is at `path` now.
    pub(super) fn of(path: &Path) -> io::Result<FileIdentity> {
        let found = std::fs::metadata(path)?;
        Ok(FileIdentity { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Fails with [`JournalError::Replaced`] if the path now leads to another file, or to none.
    pub(super) fn verify(&self) -> Result<(), JournalError> {
        let path = self.path.display();
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => Ok(()),
            Ok(_) => Err(JournalError::Replaced { what: format!("{path} was replaced by another file") }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(JournalError::Replaced { what: format!("{path} was removed") })
            }
            Err(error) => Err(JournalError::Io { what: format!("cannot look at {path}: {error}") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_file_is_detected_and_accepted_once_it_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("file"), dir.path().join("aside"));
        std::fs::write(&path, "one").unwrap();
        let file = FileIdentity::of(&path).unwrap();
        assert_eq!(file.verify(), Ok(()));
        std::fs::rename(&path, &aside).unwrap();
        assert!(matches!(file.verify(), Err(JournalError::Replaced { .. })));
        std::fs::write(&path, "one").unwrap();
        assert!(matches!(file.verify(), Err(JournalError::Replaced { .. })));
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(file.verify(), Ok(()));
        assert!(FileIdentity::of(&aside).is_err());
    }
}
