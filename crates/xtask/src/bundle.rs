//! What esbuild made of the package's sources: which file loads which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The files of a bundle by their names, as esbuild's metafile tells them.
#[derive(Debug)]
pub struct Bundle(BTreeMap<String, Vec<Import>>);

#[derive(Debug, Deserialize)]
struct Metafile {
    outputs: BTreeMap<String, Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    imports: Vec<Import>,
}

#[derive(Debug, Deserialize)]
struct Import {
    path: String,
    kind: String,
    /// Not part of the bundle.
    #[serde(default)]
    external: bool,
}

impl Bundle {
    /// Reads a metafile; the folder of the files does not matter.
    pub fn read(metafile: &Path) -> Result<Self> {
        let text = fs::read_to_string(metafile).with_context(|| format!("reading {}", metafile.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no metafile of esbuild", metafile.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let Metafile { outputs } = serde_json::from_str(text)?;
        let by_name = outputs.into_iter().map(|(path, output)| (file_name(&path), output.imports));
        Ok(Self(by_name.collect()))
    }

    /// What is loaded with this file before any of its code runs: itself, what it imports, and so on.
    pub fn loaded_with(&self, name: &str) -> Result<BTreeSet<String>> {
        let mut seen = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            let imports = self.0.get(&name).with_context(|| format!("the bundle has no file {name}"))?;
            let at_once = imports.iter().filter(|import| !import.external && import.kind == "import-statement");
            open.extend(at_once.map(|import| file_name(&import.path)).filter(|name| !seen.contains(name)));
            seen.insert(name);
        }
        Ok(seen)
    }

    /// The file that holds this module, which is only loaded when it is needed.
    pub fn chunk_of(&self, module: &str) -> Result<&str> {
        let start = format!("{module}-");
        let found = self.0.keys().find(|name| name.starts_with(&start) && name.ends_with(".js"));
        found.map(String::as_str).with_context(|| format!("the bundle has no chunk of {module}"))
    }
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METAFILE: &str = r#"{
        "inputs": {},
        "outputs": {
            "dist/index.js": { "imports": [
                { "path": "dist/chunk-A.js", "kind": "import-statement" },
                { "path": "node:fs", "kind": "import-statement", "external": true }
            ] },
            "dist/chunk-A.js": { "imports": [
                { "path": "dist/chunk-B.js", "kind": "import-statement" },
                { "path": "dist/rare-C.js", "kind": "dynamic-import" }
            ] },
            "dist/chunk-B.js": { "imports": [{ "path": "dist/chunk-A.js", "kind": "import-statement" }] },
            "dist/rare-C.js": { "imports": [{ "path": "dist/chunk-B.js", "kind": "import-statement" }] },
            "dist/rare-C.js.map": { "imports": [] }
        }
    }"#;

    #[test]
    fn what_is_imported_counts_and_what_is_loaded_later_does_not() {
        let bundle = Bundle::parse(METAFILE).unwrap();
        let loaded = bundle.loaded_with("index.js").unwrap();
        assert_eq!(loaded.into_iter().collect::<Vec<_>>(), ["chunk-A.js", "chunk-B.js", "index.js"]);
        assert_eq!(bundle.chunk_of("rare").unwrap(), "rare-C.js");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let bundle = Bundle::parse(METAFILE).unwrap();
        assert!(bundle.loaded_with("slim.js").is_err());
        assert!(bundle.chunk_of("frequent").is_err());
    }
}
