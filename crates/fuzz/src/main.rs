//! Shows the targets, and runs one over files.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use throughline_fuzz::{Target, corpus, find, targets};

/// Readers of input from outside, to be given that in every spoiled form.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the names of the targets.
    List,
    /// Print a target's dictionary, as libFuzzer reads it.
    Dictionary {
        /// Which target.
        target: String,
    },
    /// Run a target over files, for example over one that made it fail.
    Replay {
        /// Which target.
        target: String,
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match command {
        Command::List => {
            for target in targets::ALL {
                writeln!(stdout, "{}\t{}", target.name, target.about)?;
            }
        }
        Command::Dictionary { target } => {
            let inputs: Vec<Vec<u8>> = corpus::read(named(target)?)?.into_iter().map(|(_, bytes)| bytes).collect();
            for word in corpus::words(&inputs) {
                writeln!(stdout, "\"{}\"", String::from_utf8_lossy(&word))?;
            }
        }
        Command::Replay { target, files } => {
            let target = named(target)?;
            for file in files {
                let input = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
                let outcome = (target.run)(&input);
                writeln!(stdout, "{}: {outcome:?}", file.display())?;
            }
        }
    }
    Ok(())
}

fn named(name: &str) -> Result<&'static Target> {
    find(name).with_context(|| format!("there is no target {name}; `throughline-fuzz list` shows them"))
}
