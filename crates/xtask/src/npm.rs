//! The npm package `throughline`: bundled, typed, packed, checked and weighed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bundle::Bundle;
use crate::declarations;
use crate::process::{announce, output, program, run};
use crate::sizes::{self, Weight};
use crate::wasm;
use crate::workspace::{self, NpmProject, VERSION};

/// The unpacked package: what the tarball holds, and what the demo shop is linked to.
const STAGE: &str = "target/npm/throughline";

/// What can be imported from the package: `src/<name>.ts` becomes `dist/<name>.js`. The manifest says under which name.
///
/// An entry that goes with the package itself, and does not take its place, imports what it needs of it from `./index.js`. That is
/// left as it is: imported from the modules behind, those would move to a chunk of their own, and every page would load one more.
const ENTRIES: [Entry; 11] = [
    Entry { name: "index", types: Types::Own },
    Entry { name: "slim", types: Types::Own },
    Entry { name: "node", types: Types::OfIndex },
    Entry { name: "workerd", types: Types::OfIndex },
    Entry { name: "edge-light", types: Types::OfIndex },
    Entry { name: "react", types: Types::Own },
    Entry { name: "legacy", types: Types::Own },
    Entry { name: "legacy-server", types: Types::Own },
    Entry { name: "devtools", types: Types::Own },
    Entry { name: "server", types: Types::Own },
    Entry { name: "express-session", types: Types::Own },
];

/// The part of the core that few pages need, and the script that loads it.
const LOCAL_STORAGE: [&str; 2] = ["local_storage_bg.wasm", "local-storage-core"];

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    name: &'static str,
    types: Types,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Types {
    /// `dist/<name>.d.ts`, and what that leads to.
    Own,
    /// It is what `index` is elsewhere, in a runtime of its own.
    OfIndex,
}

/// The package as it was packed.
pub struct Packed {
    tarball: PathBuf,
    /// What a page loads that imports the package itself.
    weights: Vec<Weight>,
}

/// Builds the package, packs it, checks it and holds it to its size.
///
/// # Errors
/// Where a step fails, others could not use it, or a page loads more than [`sizes::BUDGET_BYTES`].
pub fn pack(options: &wasm::Options) -> Result<()> {
    let packed = assemble(options)?;
    check(&packed.tarball)?;
    sizes::check_budget(&packed.weights)
}

/// Builds the package and packs it, whatever it weighs; prints the weights.
pub fn assemble(options: &wasm::Options) -> Result<Packed> {
    let modules = wasm::build(options)?;
    announce("bundling the package");
    let stage = workspace::path(STAGE);
    // The folder itself stays: the demo shop's node_modules links to it.
    for entry in fs::read_dir(&stage).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }?;
    }
    let dist = stage.join("dist");
    fs::create_dir_all(&dist)?;

    let bundle = bundle(&dist)?;
    declare_types(&dist)?;
    for module in &modules {
        fs::copy(module, dist.join(module.file_name().unwrap_or_default()))?;
    }
    copy_documents(&stage)?;
    write_manifest(&stage)?;

    let folder = workspace::path("target/npm");
    let name = output(
        program("npm")
            .args(["pack", "--silent", "--ignore-scripts", "--pack-destination"])
            .arg(&folder)
            .current_dir(&stage),
    )?;
    let tarball = folder.join(name.lines().last().unwrap_or_default());
    announce(&format!("packed {}", tarball.strip_prefix(workspace::root()).unwrap_or(&tarball).display()));
    let weights = weigh_all(&dist, &bundle)?;
    Ok(Packed { tarball, weights })
}

/// Bundles all entries at once: what they share is in files of its own, so that no class exists twice.
fn bundle(dist: &Path) -> Result<Bundle> {
    let package = NpmProject::Package.path();
    // Beside the sources first, so that the source maps name them as `../src/open.ts`.
    let bundled = package.join("dist");
    if bundled.exists() {
        fs::remove_dir_all(&bundled)?;
    }
    let metafile = workspace::path("target/npm/metafile.json");
    run(program(NpmProject::Package.program("esbuild"))
        .args(ENTRIES.map(|entry| format!("src/{}.ts", entry.name)))
        .args(["--bundle", "--minify", "--format=esm", "--target=es2022"])
        .args(["--sourcemap", "--sources-content=true"])
        .args(["--log-level=warning", "--legal-comments=none"])
        // What the bindings print tells a buyer nothing, and nothing else here prints.
        .arg("--drop:console")
        // What is used by several entries, or imported when it is needed, becomes a file of its own.
        .args(["--splitting", "--chunk-names=[name]-[hash]", "--outdir=dist"])
        // Node.js' modules, and those that the page brings along; and what runtimes at the edge compile themselves.
        .args(["--packages=external", "--external:*.wasm", "--external:*.wasm?module", "--external:./index.js"])
        .arg(format!("--metafile={}", metafile.display()))
        .current_dir(&package))?;
    for file in fs::read_dir(&bundled)? {
        let file = file?;
        fs::copy(file.path(), dist.join(file.file_name()))?;
    }
    Bundle::read(&metafile)
}

fn declare_types(dist: &Path) -> Result<()> {
    let emitted = workspace::path("target/npm/types");
    if emitted.exists() {
        fs::remove_dir_all(&emitted)?;
    }
    run(program(NpmProject::Package.program("tsc"))
        .args(["--project", "tsconfig.build.json", "--outDir"])
        .arg(&emitted)
        .current_dir(NpmProject::Package.path()))?;
    let entries: Vec<&str> = with_own_types().map(|entry| entry.name).collect();
    declarations::publish(&emitted, dist, &entries)
}

fn with_own_types() -> impl Iterator<Item = Entry> {
    ENTRIES.into_iter().filter(|entry| entry.types == Types::Own)
}

/// What others would stumble over who install the tarball: files and types that the manifest promises. They are shown only
/// where something is wrong.
fn check(tarball: &Path) -> Result<()> {
    announce("publint");
    output(program(NpmProject::Package.program("publint")).args(["run", "--strict"]).arg(tarball))?;
    announce("attw");
    output(
        program(NpmProject::Package.program("attw"))
            // Node.js `require`s modules since 20.19.
            .args(["--profile", "esm-only", "--format", "ascii", "--no-emoji", "--no-color"])
            // Wasm files have no types of their own.
            .args(["--exclude-entrypoints", "throughline_bg.wasm", "local_storage_bg.wasm", "--"])
            .arg(tarball),
    )?;
    Ok(())
}

/// Prints what everybody loads and what some do; the former is the answer.
fn weigh_all(dist: &Path, bundle: &Bundle) -> Result<Vec<Weight>> {
    let loaded_by_all = bundle.loaded_with("index.js")?;
    let beside = |name: &str| -> Result<Vec<String>> {
        Ok(bundle.loaded_with(name)?.difference(&loaded_by_all).cloned().collect())
    };
    let weights = weigh(dist, ["throughline_bg.wasm".to_owned()].into_iter().chain(loaded_by_all.clone()))?;
    println!("{}", sizes::table(&weights));
    println!("loaded only by pages that need localStorage:");
    let [module, script] = LOCAL_STORAGE;
    let script = beside(bundle.chunk_of(script)?)?;
    println!("{}", sizes::table(&weigh(dist, [module.to_owned()].into_iter().chain(script))?));
    println!("loaded only by who imports it:");
    let mut others = BTreeSet::new();
    for entry in with_own_types() {
        others.extend(beside(&format!("{}.js", entry.name))?);
    }
    println!("{}", sizes::table(&weigh(dist, others)?));
    Ok(weights)
}

/// The package carries its own README where it has one, else the repository's; and the licences where they exist.
fn copy_documents(stage: &Path) -> Result<()> {
    let own = NpmProject::Package.path();
    for name in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        let source = [own.join(name), workspace::path(name)].into_iter().find(|file| file.is_file());
        if let Some(source) = source {
            fs::copy(source, stage.join(name)).with_context(|| format!("copying {name}"))?;
        }
    }
    Ok(())
}

/// The published manifest: cargo's version, and nothing that only the sources need.
fn write_manifest(stage: &Path) -> Result<()> {
    fs::copy(NpmProject::Package.path().join("package.json"), stage.join("package.json"))?;
    // npm keeps the order of the fields, which means something within `exports`.
    let version = format!("version={VERSION}");
    run(program("npm").args(["pkg", "set", &version]).current_dir(stage))?;
    run(program("npm").args(["pkg", "delete", "devDependencies", "scripts"]).current_dir(stage))
}

fn weigh(dist: &Path, names: impl IntoIterator<Item = String>) -> Result<Vec<Weight>> {
    names.into_iter().map(|name| Weight::of(&name, &fs::read(dist.join(&name))?)).collect()
}
