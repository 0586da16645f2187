//! Type checks of the TypeScript projects.

use anyhow::{Result, bail};

use crate::process::{announce, program, status};
use crate::workspace::NpmProject;
use crate::{npm, provision, wasm};

/// Checks every project, so that one run shows all that is wrong.
pub fn typescript() -> Result<()> {
    // The demo shop and the browser tests are written against the package as users get it.
    npm::assemble(&wasm::Options::default())?;
    let mut wrong = Vec::new();
    for project in NpmProject::TYPESCRIPT {
        provision::npm(project)?;
        announce(&format!("tsc in {}", project.folder()));
        let mut tsc = program(project.program("tsc"));
        if !status(tsc.arg("--noEmit").current_dir(project.path()))?.success() {
            wrong.push(project.folder());
        }
    }
    if !wrong.is_empty() {
        bail!("type errors in {}", wrong.join(", "));
    }
    Ok(())
}
