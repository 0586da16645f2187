//! A disk that can be filled.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk, until it is dropped. In memory.
#[derive(Debug)]
pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// One of so many bytes at `place`, which is created, for `owner` (user and group) or for us.
    ///
    /// # Errors
    /// [`io::ErrorKind::PermissionDenied`] where we may not mount anything.
    pub fn mount(place: PathBuf, bytes: u64, owner: Option<(u32, u32)>) -> io::Result<Self> {
        std::fs::create_dir(&place)?;
        let (user, group) = owner.unwrap_or_default();
        let options = format!("size={bytes},mode=0700,uid={user},gid={group}");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&place).output()?;
        if output.status.success() {
            return Ok(Self { place });
        }
        let text = format!("nothing can be mounted here: {}", String::from_utf8_lossy(&output.stderr).trim());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Takes all the place that is left.
    ///
    /// # Errors
    /// When something else than that is wrong.
    pub fn fill(&self) -> io::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast())?;
        let piece = [0xa5; 64 * 1024];
        loop {
            match ballast.write_all(&piece) {
                Ok(()) => {}
                // The last piece was written as far as it fitted.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free(&self) -> io::Result<()> {
        std::fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.place.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that ends just now may still have something open. There is nobody to tell what failed here.
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}
