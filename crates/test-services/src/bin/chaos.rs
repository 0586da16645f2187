//! `cargo xtask chaos`: everything fails, for as long as wanted.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use throughline_test_services::chaos::{ChaosOptions, run};

/// Lets servers, Redis, PostgreSQL and the links between them fail at random, and checks what became of each change.
#[derive(Parser)]
struct Options {
    /// The server to start
    #[arg(long)]
    binary: PathBuf,
    /// For how many minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Which faults: the same seed gives the same ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many servers
    #[arg(long, default_value_t = 3)]
    servers: usize,
    /// How many sessions at a time, each with two clients
    #[arg(long, default_value_t = 6)]
    sessions: usize,
    /// A file for the summary, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { binary, minutes, seed, servers, sessions, json } = Options::parse();
    let Ok(duration) = Duration::try_from_secs_f64(minutes * 60.0) else {
        eprintln!("error: {minutes} minutes are no time");
        return ExitCode::FAILURE;
    };
    let options = ChaosOptions { binary, duration, seed, servers: servers.max(1), sessions: sessions.max(1) };
    println!(
        "chaos for {} with seed {seed}: {servers} servers, {sessions} sessions",
        humantime::format_duration(duration)
    );
    let summary = match run(&options, |line| println!("{line}")).await {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(file) = json {
        let text = format!("{:#}\n", summary.to_json(seed, duration.as_secs()));
        if let Err(error) = std::fs::write(&file, text) {
            eprintln!("error: {} can't be written: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{summary}");
    if summary.is_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
