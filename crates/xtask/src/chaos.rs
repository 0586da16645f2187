//! Everything fails, for as long as wanted: `cargo xtask chaos`.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{announce, program, run as run_program};
use crate::provision::{self, SystemPackage};
use crate::workspace;

#[derive(clap::Args, Debug)]
pub struct Options {
    /// For how many minutes.
    #[arg(long, default_value = "5")]
    minutes: String,
    /// Which faults: the same seed gives the same ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A file for the summary, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Builds the server, and lets it and its services fail on this machine.
pub fn run(options: &Options) -> Result<()> {
    provision::system(&[SystemPackage::Redis, SystemPackage::Postgres])?;
    announce("building the server");
    workspace::build_programs(&["throughline", "chaos"])?;
    let mut chaos = program(workspace::built_program("debug", "chaos")?);
    chaos.arg("--binary").arg(workspace::built_program("debug", "throughline")?);
    chaos.args(["--minutes", &options.minutes, "--seed", &options.seed.to_string()]);
    if let Some(file) = &options.json {
        chaos.arg("--json").arg(file);
    }
    run_program(&mut chaos)
}
