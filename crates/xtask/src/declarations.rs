//! The package's type declarations: those that its users can reach, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where the sources keep what is derived from the Rust types; in the package it lies beside the rest.
const GENERATED: &str = "generated/";

/// Copies the declarations that those of `entries` (`index`: `src/index.d.ts`) lead to from `emitted` to `dist`.
///
/// # Errors
/// Where a public declaration names a module that is not published: its users would silently get `any`.
pub fn publish(emitted: &Path, dist: &Path, entries: &[&str]) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<PathBuf> = entries.iter().map(|entry| PathBuf::from(format!("src/{entry}.d.ts"))).collect();
    while let Some(file) = open.pop() {
        if !seen.insert(file.clone()) {
            continue;
        }
        let mut text = fs::read_to_string(emitted.join(&file))
            .with_context(|| format!("the package's types lead to {}, which is not published", file.display()))?;
        for specifier in relative_modules(&text) {
            let folder = file.parent().unwrap_or(Path::new(""));
            open.push(declaration_of(folder, &specifier)?);
            text = text.replace(&format!("'{specifier}'"), &format!("'{}'", within_package(&specifier)));
        }
        let target = dist.join(file.components().skip(1).collect::<PathBuf>());
        fs::create_dir_all(target.parent().context("a file lies in a folder")?)?;
        fs::write(&target, text).with_context(|| format!("writing {}", target.display()))?;
    }
    Ok(())
}

/// The modules of this package that a declaration names, in `from '…'` or `import('…')`.
fn relative_modules(declaration: &str) -> BTreeSet<String> {
    let uniform = declaration.replace('"', "'");
    let starts = ["from '", "import('", "import '"];
    let found = starts.into_iter().flat_map(|start| {
        uniform.split(start).skip(1).filter_map(|rest| rest.split('\'').next().map(str::to_owned)).collect::<Vec<_>>()
    });
    found.filter(|specifier| specifier.starts_with('.')).collect()
}

/// The declaration file that a specifier in a file of `folder` means.
fn declaration_of(folder: &Path, specifier: &str) -> Result<PathBuf> {
    let Some(stem) = specifier.strip_suffix(".js") else {
        bail!("{specifier} has to end with .js, or Node.js can't find it");
    };
    let mut path = PathBuf::new();
    for component in folder.join(format!("{stem}.d.ts")).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    Ok(path)
}

/// `../generated/types.js` as `./types.js`.
fn within_package(specifier: &str) -> String {
    let moved = specifier.replace(&format!("../{GENERATED}"), "");
    if moved.starts_with('.') { moved } else { format!("./{moved}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("throughline-declarations-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("src/storage")).unwrap();
        fs::create_dir_all(folder.join("generated")).unwrap();
        folder
    }

    #[test]
    fn what_the_index_leads_to_is_published_and_nothing_else() {
        let emitted = folder("reachable");
        let write = |name: &str, text: &str| fs::write(emitted.join(name), text).unwrap();
        write("src/index.d.ts", "export { open } from './open.js';\nexport type * from '../generated/types.js';\n");
        write("src/open.d.ts", "import type { Store } from './storage/store.js';\n");
        write("src/storage/store.d.ts", "import type { Session } from '../../generated/types.js';\n");
        write("src/engine.d.ts", "import { Client } from '../generated/throughline.js';\n");
        write("generated/types.d.ts", "export interface Session {}\n");

        let dist = emitted.join("dist");
        publish(&emitted, &dist, &["index"]).unwrap();
        let index = fs::read_to_string(dist.join("index.d.ts")).unwrap();
        assert_eq!(index, "export { open } from './open.js';\nexport type * from './types.js';\n");
        let store = fs::read_to_string(dist.join("storage/store.d.ts")).unwrap();
        assert_eq!(store, "import type { Session } from '../types.js';\n");
        assert!(dist.join("types.d.ts").exists());
        assert!(!dist.join("engine.d.ts").exists());
        fs::remove_dir_all(emitted).unwrap();
    }

    #[test]
    fn a_public_type_that_is_not_published_is_an_error() {
        let emitted = folder("missing");
        fs::write(emitted.join("src/index.d.ts"), "export { Client } from '../generated/throughline.js';\n").unwrap();
        let error = publish(&emitted, &emitted.join("dist"), &["index"]).unwrap_err();
        assert!(error.to_string().contains("generated/throughline.d.ts"), "{error}");
        fs::remove_dir_all(emitted).unwrap();
    }
}
