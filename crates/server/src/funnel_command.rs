//! `throughline funnel`: checking and drawing funnel definitions.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::funnel_graph;
use crate::funnels::{self, FunnelError};

const CHECK_EXAMPLES: &str = "\
Examples:
  throughline funnel check funnels/default.toml
  throughline funnel check funnels/*.toml";

const GRAPH_EXAMPLES: &str = "\
Examples:
  throughline funnel graph funnels/default.toml                  Mermaid, for a Markdown file
  throughline funnel graph --format svg default.toml > funnel.svg";

/// What to do with funnel definitions.
#[derive(Debug, Subcommand)]
pub enum FunnelCommand {
    /// Check definitions: every step reachable, every name known, every amount sound
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Draw a definition
    #[command(after_help = GRAPH_EXAMPLES)]
    Graph(Graph),
}

/// Which definitions to check.
#[derive(Debug, Args)]
pub struct Check {
    /// The files, TOML or JSON
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON, one object in each line
    #[arg(long)]
    json: bool,
}

/// Which definition to draw, and how.
#[derive(Debug, Args)]
pub struct Graph {
    /// The file, TOML or JSON
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// As what
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Text that many documents draw by themselves
    Mermaid,
    /// A picture
    Svg,
}

impl FunnelCommand {
    /// Does it; the answer is what to print.
    ///
    /// # Errors
    /// See [`FunnelError`]: the first file that can't be used.
    pub fn run(&self) -> Result<String, FunnelError> {
        match self {
            Self::Check(Check { files, json }) => files
                .iter()
                .map(|file| {
                    let funnel = funnels::read_file(file)?;
                    let (steps, offers) = (funnel.steps.len(), funnel.offers.len());
                    let (id, version) = (&funnel.id, funnel.version);
                    if *json {
                        let told =
                            json!({ "file": file, "id": id, "version": version, "steps": steps, "offers": offers });
                        return Ok(format!("{told}\n"));
                    }
                    Ok(format!(
                        "{}: funnel {id}, version {version}: {steps} steps, {offers} offers, no problem\n",
                        file.display()
                    ))
                })
                .collect(),
            Self::Graph(Graph { file, format }) => {
                let funnel = funnels::read_file(file)?;
                Ok(match format {
                    Format::Mermaid => funnel_graph::mermaid(&funnel),
                    Format::Svg => funnel_graph::svg(&funnel),
                })
            }
        }
    }
}
