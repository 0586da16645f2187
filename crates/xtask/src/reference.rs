//! Documents that the server writes about itself: `cargo xtask docs`.

use anyhow::{Result, bail};

use crate::process::{announce, output, program};
use crate::workspace;

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Change nothing, and fail where a document is out of date.
    #[arg(long)]
    check: bool,
}

/// Each document, and the command of the server that prints it.
const DOCUMENTS: [(&str, [&str; 2]); 4] = [
    ("docs/cli.md", ["config", "cli"]),
    ("docs/configuration.md", ["config", "reference"]),
    ("docs/operations/metrics.md", ["config", "metrics"]),
    ("docs/openapi.json", ["config", "openapi"]),
];

/// Writes the documents, or compares them.
pub fn documents(options: &Options) -> Result<()> {
    announce("building the server");
    workspace::build_programs(&["throughline"])?;
    let server = workspace::built_program("debug", "throughline")?;
    let mut outdated = Vec::new();
    for (file, command) in DOCUMENTS {
        announce(&format!("throughline {}", command.join(" ")));
        // The end of the last line is not part of what a command is asked for.
        let text = output(program(&server).args(command))? + "\n";
        let path = workspace::path(file);
        if std::fs::read_to_string(&path).is_ok_and(|committed| committed == text) {
            continue;
        }
        if options.check {
            outdated.push(file);
        } else {
            std::fs::write(path, text)?;
        }
    }
    if !outdated.is_empty() {
        bail!("out of date: {}; write them with `cargo xtask docs`", outdated.join(", "));
    }
    Ok(())
}
