//! How far an import has come, so that one that was interrupted goes on there.
//!
//! It only saves time: what is brought in twice changes nothing.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entries::Position;
use super::report::Totals;

/// The file.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
    of: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    /// From where to where.
    of: String,
    position: Position,
    totals: Totals,
}

/// How far it has come can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("{file}, in which it stands how far the import has come, can't be read or written")]
    File {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{file} can't be read as what an import has written; begin again with --restart")]
    Content {
        file: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "{file} is of another import ({of}); finish that one, begin again with --restart, or name another --report"
    )]
    Other { file: PathBuf, of: String },
}

impl Checkpoint {
    /// That of the import `of` (from where to where), beside its report; and what was reached, where it was interrupted.
    pub(crate) fn beside(
        report: &Path,
        of: String,
        restart: bool,
    ) -> Result<(Self, Option<(Position, Totals)>), CheckpointError> {
        let mut path = report.as_os_str().to_owned();
        path.push(".checkpoint");
        let path = PathBuf::from(path);
        let text = match std::fs::read(&path) {
            Ok(text) if !restart => Some(text),
            Ok(_) => None,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(CheckpointError::File { file: path, source }),
        };
        let reached = match text {
            None => None,
            Some(text) => {
                let content: Content = serde_json::from_slice(&text)
                    .map_err(|source| CheckpointError::Content { file: path.clone(), source })?;
                if content.of != of {
                    return Err(CheckpointError::Other { file: path, of: content.of });
                }
                Some((content.position, content.totals))
            }
        };
        Ok((Self { path, of }, reached))
    }

    /// Writes down how far it has come; the file has the old content or the new one.
    pub(crate) fn reach(&mut self, position: Position, totals: &Totals) -> Result<(), CheckpointError> {
        let content = Content { of: self.of.clone(), position, totals: totals.clone() };
        let mut beside = self.path.as_os_str().to_owned();
        beside.push(".new");
        let write = || {
            let mut file = std::fs::File::create(&beside)?;
            file.write_all(&serde_json::to_vec(&content)?)?;
            file.sync_data()?;
            std::fs::rename(&beside, &self.path)
        };
        write().map_err(|source| CheckpointError::File { file: self.path.clone(), source })
    }

    /// The import is done.
    pub(crate) fn remove(self) -> Result<(), CheckpointError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CheckpointError::File { file: self.path, source: error })
            }
            _ => Ok(()),
        }
    }
}
