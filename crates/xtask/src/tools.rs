//! Programs of others that cargo builds, at a version that is written down here: in `target/tools`, never in the user's folders.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{announce, cargo, output, program, run};
use crate::workspace;

const FOLDER: &str = "target/tools";

/// A program that `cargo install` builds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tool {
    /// Its name, and its crate's.
    pub name: &'static str,
    version: &'static str,
}

/// Licences, sources, doubled and banned crates, known weaknesses.
pub const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
/// Dependencies that nothing uses.
pub const MACHETE: Tool = Tool { name: "cargo-machete", version: "0.9.2" };

impl Tool {
    /// A call of it, after building it where this version is not there yet.
    pub fn command(self) -> Result<Command> {
        self.install()?;
        let mut command = program(self.path());
        // What it asks of cargo it asks the one that runs this.
        if let Some(cargo) = std::env::var_os("CARGO") {
            command.env("CARGO", cargo);
        }
        Ok(command)
    }

    fn path(self) -> PathBuf {
        workspace::path(FOLDER).join("bin").join(self.name)
    }

    fn install(self) -> Result<()> {
        let Self { name, version } = self;
        if self.path().is_file() {
            let installed = output(cargo().args(["install", "--list", "--root"]).arg(workspace::path(FOLDER)))?;
            if installed.lines().any(|line| line == format!("{name} v{version}:")) {
                return Ok(());
            }
        }
        announce(&format!("building {name} {version} into {FOLDER}"));
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", "--force", name, "--version", version, "--root"]);
        install.arg(workspace::path(FOLDER));
        // Built quickly rather than to be quick: it runs for seconds.
        install
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_TARGET_DIR", workspace::path(FOLDER).join("build"));
        run(&mut install).with_context(|| format!("{name} {version} could not be built; is the registry reachable?"))
    }
}
