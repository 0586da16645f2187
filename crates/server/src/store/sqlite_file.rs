//! The database's file, as the file system has it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::StoreFault;

/// Below so much room, in bytes, whether writing works has to be found out before it is promised.
const LITTLE: u64 = 1024 * 1024;

/// The file that was opened. SQLite goes on with it when somebody removes or replaces it, and what is written then is gone
/// with the process.
#[derive(Debug, Clone)]
pub(super) struct SqliteFile {
    path: PathBuf,
    /// Its device and number.
    identity: (u64, u64),
}

/// Why the file at the path is not the one that is open.
#[derive(Debug, thiserror::Error)]
enum Replaced {
    #[error(
        "the file was removed or can't be looked at: put it back, or restart the server to begin with an empty one"
    )]
    Removed(#[source] std::io::Error),
    #[error(
        "the file was replaced or emptied by somebody else: put the old one back, or restart the server to use the new one"
    )]
    Other,
}

impl SqliteFile {
    /// The file at `path`, which was just opened.
    pub(super) fn at(path: &Path) -> std::io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), identity: (found.dev(), found.ino()) })
    }

    /// Checks that it is still there. Takes some microseconds: it is looked up, not read.
    pub(super) fn check(&self) -> Result<(), StoreFault> {
        const DURING: &str = "looking for the database's file";
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.identity && found.len() > 0 => Ok(()),
            Ok(_) => Err(StoreFault::new(DURING, Replaced::Other)),
            Err(error) => Err(StoreFault::new(DURING, Replaced::Removed(error))),
        }
    }

    /// Whether its disk is almost full, as far as that can be said.
    pub(super) fn has_little_room(&self) -> bool {
        rustix::fs::statvfs(&self.path).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < LITTLE)
    }
}
