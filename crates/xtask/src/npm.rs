//! The npm package `throughline`: bundled, typed, packed and weighed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::declarations;
use crate::process::{announce, output, program, run};
use crate::sizes::{self, Weight};
use crate::wasm;
use crate::workspace::{self, NpmProject, VERSION};

/// The unpacked package: what the tarball holds, and what the demo shop is linked to.
const STAGE: &str = "target/npm/throughline";

/// What can be imported beside the package itself: `throughline/react`, from `src/react.ts`.
const ENTRIES_BESIDE: [&str; 3] = ["react", "legacy", "devtools"];

/// Builds the package, packs it and holds it to its size.
///
/// # Errors
/// Where a step fails, or the package weighs more than [`sizes::BUDGET_BYTES`].
pub fn pack(options: &wasm::Options) -> Result<()> {
    sizes::check_budget(&assemble(options)?)
}

/// Builds the package and packs it, whatever it weighs; prints and gives the weights.
pub fn assemble(options: &wasm::Options) -> Result<Vec<Weight>> {
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

    bundle(&dist)?;
    bundle_beside(&dist)?;
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

    let weights = weigh(&dist, &["throughline_bg.wasm", "index.js"])?;
    println!("{}", sizes::table(&weights));
    println!("loaded only by pages that need localStorage:");
    println!("{}", sizes::table(&weigh(&dist, &["local_storage_bg.wasm", "local-storage-core.js"])?));
    println!("loaded only by who imports it:");
    println!("{}", sizes::table(&weigh(&dist, &ENTRIES_BESIDE.map(|entry| [entry, ".js"].concat()))?));
    Ok(weights)
}

fn bundle(dist: &Path) -> Result<()> {
    run(program(NpmProject::Package.program("esbuild"))
        .args(["src/index.ts", "--bundle", "--minify", "--format=esm", "--target=es2022", "--sourcemap"])
        .args(["--log-level=warning", "--legal-comments=none"])
        .arg(format!("--define:PACKAGE_VERSION=\"{VERSION}\""))
        // What is imported when it is needed becomes a file of its own.
        .args(["--splitting", "--chunk-names=[name]"])
        .arg(format!("--outdir={}", dist.display()))
        .current_dir(NpmProject::Package.path()))
}

/// The entries beside the package's own. They are given sessions, or import `index.js` as it is: no class exists twice.
fn bundle_beside(dist: &Path) -> Result<()> {
    run(program(NpmProject::Package.program("esbuild"))
        .args(ENTRIES_BESIDE.map(|entry| format!("src/{entry}.ts")))
        .args(["--bundle", "--minify", "--format=esm", "--target=es2022", "--sourcemap"])
        .args(["--log-level=warning", "--legal-comments=none", "--external:./index.js", "--external:react"])
        .arg(format!("--outdir={}", dist.display()))
        .current_dir(NpmProject::Package.path()))
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
    declarations::publish(&emitted, dist, &[&["index"], ENTRIES_BESIDE.as_slice()].concat())
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

fn weigh(dist: &Path, names: &[impl AsRef<str>]) -> Result<Vec<Weight>> {
    names.iter().map(AsRef::as_ref).map(|name| Weight::of(name, &fs::read(dist.join(name))?)).collect()
}
