//! Where the key ring comes from: a variable, a file, or the output of a command. Never a flag, which everybody on the
//! machine can read, nor the configuration file, which gets committed.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::ring_text::{RingText, RingTextError, VARIABLE};

/// How long the command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// How much of a file or an output is read: far more than a ring can hold.
const MAX_BYTES: u64 = 64 * 1024;

/// Where the ring is read from, and read again.
#[derive(Clone)]
pub enum KeySource {
    /// The variable `THROUGHLINE_KEYS`. What it holds can't change while the process runs.
    Variable(Zeroizing<String>),
    /// A file.
    File(PathBuf),
    /// What a command prints, run by `sh -c`: for keys that a secret store hands out.
    Command(String),
}

/// Why no ring could be read. No variant holds a key or a part of one.
#[derive(Debug, thiserror::Error)]
pub enum KeySourceError {
    /// More than one source.
    #[error("{one} and {other} are both set; keep the one that is meant")]
    Ambiguous {
        /// One of them.
        one: &'static str,
        /// The other one.
        other: &'static str,
    },
    /// The file can't be read.
    #[error("the key file {file:?} can't be read; check the path and its permissions")]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file can't be written.
    #[error("the key file {file:?} can't be written; look at it before anything else is done about keys")]
    Unwritable {
        /// Which file.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The command can't be run.
    #[error("the command of `keys_command` can't be run")]
    NotRun(#[source] io::Error),
    /// The command failed.
    #[error("the command of `keys_command` ended with {status}; run it by hand to see why")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// The command takes too long.
    #[error("the command of `keys_command` took more than {} s and was ended", COMMAND_LIMIT.as_secs())]
    TooSlow,
    /// What was read is no ring.
    #[error("what {origin} holds is no key ring")]
    Text {
        /// Where it was read.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: RingTextError,
    },
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.origin())
    }
}

impl KeySource {
    /// The one source that is set, if any is.
    ///
    /// # Errors
    /// When several are.
    pub fn choose(
        variable: Option<String>,
        file: Option<&Path>,
        command: Option<&str>,
    ) -> Result<Option<Self>, KeySourceError> {
        let variable = variable.map(Zeroizing::new).filter(|text| !text.trim().is_empty());
        let ambiguous = |one, other| Err(KeySourceError::Ambiguous { one, other });
        match (variable, file, command) {
            (None, None, None) => Ok(None),
            (Some(text), None, None) => Ok(Some(Self::Variable(text))),
            (None, Some(file), None) => Ok(Some(Self::File(file.to_owned()))),
            (None, None, Some(command)) => Ok(Some(Self::Command(command.to_owned()))),
            (Some(_), Some(_), _) => ambiguous(VARIABLE, "--keys-file"),
            (Some(_), None, Some(_)) => ambiguous(VARIABLE, "--keys-command"),
            (None, Some(_), Some(_)) => ambiguous("--keys-file", "--keys-command"),
        }
    }

    /// Reads the ring. Blocks for as long as a command may take.
    ///
    /// # Errors
    /// See [`KeySourceError`].
    pub fn read(&self) -> Result<RingText, KeySourceError> {
        let text = match self {
            Self::Variable(text) => text.clone(),
            Self::File(file) => {
                let unreadable = |source| KeySourceError::Unreadable { file: file.clone(), source };
                limited(&mut std::fs::File::open(file).map_err(unreadable)?).map_err(unreadable)?
            }
            Self::Command(command) => output_of(command)?,
        };
        RingText::parse(&text).map_err(|source| KeySourceError::Text { origin: self.origin(), source })
    }

    /// Whether what it holds can change while the process runs.
    #[must_use]
    pub fn can_change(&self) -> bool {
        !matches!(self, Self::Variable(_))
    }

    fn origin(&self) -> String {
        match self {
            Self::Variable(_) => VARIABLE.to_owned(),
            Self::File(file) => file.display().to_string(),
            Self::Command(_) => "the output of `keys_command`".to_owned(),
        }
    }
}

/// Waits until nobody else changes the rings in a file's folder; they wait for as long as the answer is kept. Whoever reads a
/// ring to write it changed holds this from before it reads: of two that don't, one key is lost.
///
/// # Errors
/// When the operating system does not let it.
pub fn lock_file(file: &Path) -> Result<std::fs::File, KeySourceError> {
    let lock = || {
        // The file itself is replaced by what is written, and a lock on it with it.
        let folder = std::fs::File::open(folder_of(&std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())))?;
        folder.lock()?;
        Ok(folder)
    };
    lock().map_err(|source| KeySourceError::Unwritable { file: file.to_owned(), source })
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a ring into a file that only its owner can read, or whoever could read it before. The file has the old content or
/// the new one, never a part of it.
///
/// # Errors
/// When the operating system does not let it.
pub fn write_file(file: &Path, ring: &RingText) -> Result<(), KeySourceError> {
    let write = || {
        // What a link names is replaced, not the link.
        let file = &std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let before = std::fs::metadata(file).ok();
        let mut beside = file.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        // One that a crash has left behind may be readable by others.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        if let Some(before) = before {
            fchown(&new, Some(before.uid()), Some(before.gid()))?;
            new.set_permissions(std::fs::Permissions::from_mode(before.permissions().mode() & 0o640))?;
        }
        new.write_all(ring.lines().as_bytes())?;
        new.sync_all()?;
        std::fs::rename(&beside, file)?;
        // The new name is on the disk when the folder is.
        std::fs::File::open(folder_of(file))?.sync_all()
    };
    write().map_err(|source| KeySourceError::Unwritable { file: file.to_owned(), source })
}

fn limited(from: &mut impl io::Read) -> io::Result<Zeroizing<String>> {
    // With all its room from the beginning: what outgrows a buffer leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_BYTES).unwrap_or(usize::MAX)));
    from.take(MAX_BYTES).read_to_string(&mut text)?;
    if text.len() as u64 >= MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than any key ring"));
    }
    Ok(text)
}

fn output_of(command: &str) -> Result<Zeroizing<String>, KeySourceError> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // With whatever it starts, so that all of it can be ended.
        .process_group(0)
        .spawn()
        .map_err(KeySourceError::NotRun)?;
    let (tell, told) = mpsc::channel();
    if let Some(mut stdout) = child.stdout.take() {
        // Ends with the command, which is ended if it takes too long.
        std::thread::spawn(move || tell.send(limited(&mut stdout)));
    }
    let deadline = Instant::now() + COMMAND_LIMIT;
    let outcome = told.recv_timeout(COMMAND_LIMIT);
    // It may have closed its output and go on all the same.
    let mut ended = child.try_wait().map_err(KeySourceError::NotRun)?;
    while ended.is_none() && outcome.is_ok() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        ended = child.try_wait().map_err(KeySourceError::NotRun)?;
    }
    let Some(status) = ended else {
        if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself meanwhile.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        child.wait().map_err(KeySourceError::NotRun)?;
        return Err(KeySourceError::TooSlow);
    };
    let text = outcome.map_err(|_| KeySourceError::TooSlow)?.map_err(KeySourceError::NotRun)?;
    if status.success() { Ok(text) } else { Err(KeySourceError::Failed { status }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::RootKey;

    fn ring() -> RingText {
        RingText { keys: vec![RootKey::generate(None).unwrap()], retired: Vec::new() }
    }

    #[test]
    fn exactly_one_source_may_be_set() {
        let file = Path::new("/run/secrets/keys");
        let choose =
            |variable: Option<&str>, file, command| KeySource::choose(variable.map(str::to_owned), file, command);
        assert!(choose(Some(" "), None, None).unwrap().is_none());
        assert!(matches!(choose(None, Some(file), None), Ok(Some(KeySource::File(_)))));
        assert!(matches!(choose(None, None, Some("true")), Ok(Some(KeySource::Command(_)))));
        assert!(choose(Some("tlr_"), Some(file), None).is_err());
        assert!(choose(Some("tlr_"), None, Some("true")).is_err());
        assert!(choose(None, Some(file), Some("true")).is_err());
    }

    #[test]
    fn a_file_is_written_for_its_owner_alone_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let ring = ring();
        write_file(&file, &ring).unwrap();
        let source = KeySource::File(file.clone());
        assert_eq!(source.read().unwrap().keys[0].id(), ring.keys[0].id());
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        write_file(&file, &ring).unwrap();
        assert_eq!(mode(), 0o640, "whoever could read it still can");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_command_prints_the_ring() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let ring = ring();
        write_file(&file, &ring).unwrap();
        let read = KeySource::Command(format!("cat '{}'", file.display())).read().unwrap();
        assert_eq!(read.keys[0].id(), ring.keys[0].id());
    }

    #[test]
    fn a_command_that_fails_or_prints_something_else_is_an_error_without_what_it_printed() {
        let failed = KeySource::Command("echo hunter2; exit 3".to_owned()).read().unwrap_err();
        assert!(matches!(&failed, KeySourceError::Failed { status } if status.code() == Some(3)));
        let other = KeySource::Command("echo hunter2".to_owned()).read().unwrap_err();
        assert!(matches!(other, KeySourceError::Text { .. }));
        for error in [failed, other] {
            assert!(!crate::problem::chain(&error).contains("hunter2"));
        }
    }
}
