//! The server's program, built so that anybody who builds the same commit gets the same bytes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::demo;
use crate::process::{announce, cargo, output, program, run};
use crate::workspace;

/// Where the sources, and cargo's, seem to be for what is in the program: not where this machine has them.
const SOURCES: &str = "/throughline";
const DEPENDENCIES: &str = "/cargo";

/// Builds it and prints its digest with what that depends on.
///
/// # Errors
/// Where the checkout has changes, or the build fails.
pub fn build() -> Result<()> {
    let changes = output(program("git").args(["status", "--porcelain", "--untracked-files=no"]))?;
    if !changes.is_empty() {
        bail!("this checkout has changes; a release is built from a commit:\n{changes}");
    }
    let commit = output(program("git").args(["rev-parse", "HEAD"]))?;
    let committed_at = output(program("git").args(["log", "-1", "--format=%ct"]))?;
    let compiler = output(program("rustc").arg("--version"))?;
    let host = output(program("rustc").args(["--print", "host-tuple"]))?;
    let target = workspace::target_folder()?;
    // A target folder may be elsewhere, and what build scripts write is compiled from there.
    let places =
        [(target.as_path(), "/throughline/target"), (workspace::root(), SOURCES), (&cargo_home()?, DEPENDENCIES)];
    // Of two that fit, rustc takes the one that is named last: the target folder lies in the root most often.
    let rust: Vec<String> =
        places.iter().rev().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect();
    let c: Vec<String> =
        places.iter().rev().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display())).collect();

    demo::build_embedded()?;
    announce("building the release of the server");
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "throughline-server", "--target", &host]);
    build.args(["--features", "web-demo"]);
    build.env("SOURCE_DATE_EPOCH", &committed_at).env("CARGO_INCREMENTAL", "0");
    build.env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}")).env_remove("RUSTFLAGS");
    // SQLite and the allocator are C.
    build.env("CFLAGS", c.join(" "));
    run(&mut build)?;

    let binary = target.join(host).join("release/throughline");
    let bytes = fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
    let leaked = places.iter().map(|(from, _)| from.display().to_string()).find(|from| holds(&bytes, from.as_bytes()));
    if let Some(path) = leaked {
        bail!("the program names {path}: built elsewhere it would be another one");
    }
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{digest}  throughline");
    println!("commit {commit}\n{compiler}\n{} bytes in {}", bytes.len(), binary.display());
    Ok(())
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> Result<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let by_default = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    set.or_else(by_default).context("neither CARGO_HOME nor HOME is set: cargo's folder is not known")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_program_is_found_wherever_it_is() {
        assert!(holds(b"\x7fELF\0/home/ada/src/lib.rs\0", b"/home/ada"));
        assert!(!holds(b"\x7fELF\0/throughline/src/lib.rs\0", b"/home/ada"));
        assert!(!holds(b"short", b"longer than that"));
    }
}
