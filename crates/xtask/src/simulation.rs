//! Fleets with everything failing, in one thread and from one number: `cargo xtask sim`.

use anyhow::Result;

use crate::process::{cargo, run as run_program};

#[derive(clap::Args, Debug)]
pub struct Options {
    /// What the simulation is asked for, such as `--seeds 20000 --json sim.json`; `-- --help` lists it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the simulation for speed, and lets it run.
pub fn run(options: &Options) -> Result<()> {
    run_program(
        cargo().args(["run", "--release", "--package", "throughline-simulation", "--"]).args(&options.arguments),
    )
}
