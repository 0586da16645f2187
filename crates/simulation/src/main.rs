//! Lives, one after the other, until one breaks a promise: `cargo xtask sim`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde::Serialize;
use throughline_simulation::{Life, Plant, live, live_recreated};

/// Let fleets of browsers and servers live through every failure, and check that no promise was broken.
#[derive(Parser)]
#[command(
    name = "cargo xtask sim",
    after_help = "Examples:\n  cargo xtask sim --seeds 20000 --json sim.json\n  cargo xtask sim --seed 4711 --recreated"
)]
struct Options {
    /// How many lives, with the seeds 0, 1, 2 and so on.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Only this life, twice: both have to have the same trace.
    #[arg(long)]
    seed: Option<u64>,
    /// Only lives in which the session is deleted and created anew.
    #[arg(long)]
    recreated: bool,
    /// Only the usual lives.
    #[arg(long, conflicts_with = "recreated")]
    usual: bool,
    /// Write the result to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What all lives came to.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Report {
    lives: u64,
    acknowledged: usize,
    forks: usize,
    /// The traces of all lives in one number: the same lives give the same.
    trace: String,
    seconds: f64,
    broken: Vec<Broken>,
}

#[derive(Serialize)]
struct Broken {
    seed: u64,
    recreated: bool,
    problem: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let began = Instant::now();
    let seeds = options.seed.map_or(0..options.seeds, |seed| seed..seed + 1);
    let kinds: &[bool] = match (options.usual, options.recreated) {
        (true, _) => &[false],
        (_, true) => &[true],
        _ => &[false, true],
    };
    let lived = |recreated: bool, seed: u64| -> Life {
        if recreated { live_recreated(seed, Plant::Nothing) } else { live(seed, Plant::Nothing) }
    };
    let mut report = Report::default();
    let mut trace: u64 = 0;
    let (first, last) = (seeds.start, seeds.end);
    for seed in seeds {
        for recreated in kinds {
            let life = lived(*recreated, seed);
            report.lives += 1;
            report.acknowledged += life.acknowledged;
            report.forks += life.forks;
            trace = (trace ^ life.trace).wrapping_mul(0x100_0000_01b3);
            if options.seed.is_some() && lived(*recreated, seed) != life {
                let problem = "living it again went otherwise".to_owned();
                report.broken.push(Broken { seed, recreated: *recreated, problem });
            }
            if let Some(problem) = life.broken {
                println!("seed {seed}{}: {problem}", if *recreated { ", recreated" } else { "" });
                report.broken.push(Broken { seed, recreated: *recreated, problem });
            }
        }
        if (seed - first) % 1000 == 999 && seed + 1 != last {
            println!("{} lives, {:.1} s", report.lives, began.elapsed().as_secs_f64());
        }
    }
    report.trace = format!("{trace:016x}");
    report.seconds = began.elapsed().as_secs_f64();
    println!(
        "lives {}, acknowledged {}, forks {}, broken {}, trace {}, {:.1} s",
        report.lives,
        report.acknowledged,
        report.forks,
        report.broken.len(),
        report.trace,
        report.seconds
    );
    if let Some(file) = options.json {
        let written = serde_json::to_string_pretty(&report).map_err(|error| error.to_string());
        if let Err(error) = written.and_then(|text| fs::write(&file, text + "\n").map_err(|error| error.to_string())) {
            eprintln!("error: {} can't be written: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    if report.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
