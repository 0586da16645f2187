//! Funnel definitions: the built-in one, and those of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use throughline_core::Funnel;
use throughline_core::sync::{FunnelEntry, Funnels};

/// The funnel that is there without any folder, as its file.
pub const DEFAULT_FUNNEL: &str = include_str!("../../core/funnels/default.toml");

/// All funnel definitions that this server knows, by id and version.
#[derive(Debug, Clone)]
pub struct FunnelLibrary {
    funnels: BTreeMap<String, BTreeMap<u32, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    funnel: Funnel,
    hash: String,
}

/// Why a funnel definition can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FunnelError {
    /// The folder or file can't be read.
    #[error("{path} can't be read; check the path and its permissions")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no funnel definition.
    #[error("{path} is no funnel definition: {message}")]
    Form {
        /// Which file.
        path: PathBuf,
        /// Where, and what is wrong.
        message: String,
    },
    /// The definition does not make sense.
    #[error("{path} can't be used:{}", problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Unsound {
        /// Which file.
        path: PathBuf,
        /// All that is wrong with it, each with its step.
        problems: Vec<String>,
    },
    /// Two files define the same version of the same funnel.
    #[error(
        "{path} defines version {version} of the funnel {id}, which another file defines differently; \
             give a changed funnel a new version"
    )]
    Twice {
        /// The second file.
        path: PathBuf,
        /// The funnel.
        id: String,
        /// The version.
        version: u32,
    },
    /// The folder has no definition in it.
    #[error("{path} holds no .toml or .json file; leave the option out to use the built-in funnel")]
    Empty {
        /// Which folder.
        path: PathBuf,
    },
}

impl FunnelLibrary {
    /// The built-in funnel, and those of `folder`, which may hold another version of it.
    ///
    /// # Errors
    /// See [`FunnelError`]; one unusable file is enough.
    pub fn load(folder: Option<&Path>) -> Result<Self, FunnelError> {
        let mut library = Self { funnels: BTreeMap::new() };
        library.add(read_text(Path::new("default.toml"), DEFAULT_FUNNEL)?, Path::new("default.toml"))?;
        let Some(folder) = folder else { return Ok(library) };
        let unreadable = |source| FunnelError::Unreadable { path: folder.to_owned(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if matches!(path.extension().and_then(|extension| extension.to_str()), Some("toml" | "json")) {
                files.push(path);
            }
        }
        if files.is_empty() {
            return Err(FunnelError::Empty { path: folder.to_owned() });
        }
        files.sort();
        for file in files {
            library.add(read_file(&file)?, &file)?;
        }
        Ok(library)
    }

    fn add(&mut self, funnel: Funnel, path: &Path) -> Result<(), FunnelError> {
        let hash = hash(&funnel);
        let versions = self.funnels.entry(funnel.id.to_string()).or_default();
        if let Some(known) = versions.get(&funnel.version)
            && known.hash != hash
        {
            let (id, version) = (funnel.id.to_string(), funnel.version);
            return Err(FunnelError::Twice { path: path.to_owned(), id, version });
        }
        versions.insert(funnel.version, Known { funnel, hash });
        Ok(())
    }
}

impl Funnels for FunnelLibrary {
    fn find(&self, id: &str, version: Option<u32>) -> Option<FunnelEntry<'_>> {
        let versions = self.funnels.get(id)?;
        let known = match version {
            Some(version) => versions.get(&version)?,
            None => versions.values().next_back()?,
        };
        Some(FunnelEntry { funnel: &known.funnel, hash: &known.hash })
    }
}

/// Reads and checks one definition, TOML or JSON by the file's ending.
///
/// # Errors
/// See [`FunnelError`].
pub fn read_file(path: &Path) -> Result<Funnel, FunnelError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| FunnelError::Unreadable { path: path.to_owned(), source })?;
    read_text(path, &text)
}

/// Reads and checks the text of one definition; `path` says which form it has, and is named in errors.
///
/// # Errors
/// See [`FunnelError`].
pub fn read_text(path: &Path, text: &str) -> Result<Funnel, FunnelError> {
    let form = |message: String| FunnelError::Form { path: path.to_owned(), message };
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let funnel: Funnel = if is_json {
        serde_json::from_str(text).map_err(|error| form(error.to_string()))?
    } else {
        toml::from_str(text).map_err(|error| form(error.to_string()))?
    };
    let problems: Vec<String> = funnel.problems().iter().map(ToString::to_string).collect();
    if problems.is_empty() { Ok(funnel) } else { Err(FunnelError::Unsound { path: path.to_owned(), problems }) }
}

/// By what clients know whether they have this definition: the start of the SHA-256 of its JSON.
fn hash(funnel: &Funnel) -> String {
    // Every field of a funnel can be written; were it not so, clients would fetch it each time.
    let json = serde_json::to_vec(funnel).unwrap_or_default();
    Sha256::digest(&json)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_built_in_funnel_is_sound() {
        let library = FunnelLibrary::load(None).unwrap();
        let entry = library.find("default", None).unwrap();
        assert_eq!(entry.funnel.steps.len(), 5);
        assert_eq!(entry.hash.len(), 32);
    }

    #[test]
    fn a_newer_version_is_found_beside_the_older_one() {
        let newer = DEFAULT_FUNNEL.replace("version = 1", "version = 2");
        let library = FunnelLibrary::load(Some(folder(&[("d2.toml", &newer)]).path())).unwrap();
        assert_eq!(library.find("default", None).unwrap().funnel.version, 2);
        assert_eq!(library.find("default", Some(1)).unwrap().funnel.version, 1);
        assert!(library.find("default", Some(3)).is_none());
    }

    #[test]
    fn errors_name_file_step_and_reason() {
        let broken = DEFAULT_FUNNEL.replace("next = [\"upsell-2\"]", "next = [\"upsell-9\"]");
        let error = FunnelLibrary::load(Some(folder(&[("broken.toml", &broken)]).path())).unwrap_err().to_string();
        assert!(error.contains("broken.toml") && error.contains("step upsell-1: leads to upsell-9"), "{error}");

        let unknown = DEFAULT_FUNNEL.replace("\"customer.lastName\"", "\"customer.shoeSize\"");
        let error = FunnelLibrary::load(Some(folder(&[("guard.toml", &unknown)]).path())).unwrap_err().to_string();
        assert!(error.contains("guard.toml") && error.contains("'customer.shoeSize'"), "{error}");
    }

    #[test]
    fn a_changed_funnel_under_an_old_version_is_refused() {
        let changed = DEFAULT_FUNNEL.replace("price = 7900", "price = 1");
        let error = FunnelLibrary::load(Some(folder(&[("d.toml", &changed)]).path())).unwrap_err();
        assert!(matches!(error, FunnelError::Twice { version: 1, .. }), "{error}");
    }

    #[test]
    fn a_folder_without_definitions_is_refused() {
        assert!(matches!(FunnelLibrary::load(Some(folder(&[]).path())), Err(FunnelError::Empty { .. })));
        assert!(matches!(FunnelLibrary::load(Some(Path::new("/nowhere"))), Err(FunnelError::Unreadable { .. })));
    }
}
