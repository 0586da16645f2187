//! The kept inputs of a target.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::Target;

/// The folder of a target's kept inputs.
#[must_use]
pub fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// A target's kept inputs, in the order of their names.
///
/// # Errors
/// Where the folder or a file of it can't be read.
pub fn read(target: &Target) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = folder(target);
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    let with_bytes = files.into_iter().map(|file| {
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok((file, bytes))
    });
    with_bytes.collect()
}

/// The words of these inputs, as they stand in JSON, TOML and headers: what a change most likely has to put somewhere
/// to get any further.
#[must_use]
pub fn words(inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut words = BTreeSet::new();
    for input in inputs {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        for word in input.split(|byte| !is_part(byte)) {
            if (2..=40).contains(&word.len()) {
                words.insert(word.to_vec());
            }
        }
    }
    words.into_iter().collect()
}
