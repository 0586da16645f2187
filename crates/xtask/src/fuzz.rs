//! Long runs of the fuzz targets, led by the code that an input reaches: `cargo xtask fuzz`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{announce, cargo, find, output, program, run as run_program, status};
use crate::workspace;

const PACKAGE: &str = "throughline-fuzz";

/// What libFuzzer needs to be told by the program: which places it passes, and what it compares. All of it are options of
/// LLVM, which the stable compiler hands on.
const INSTRUMENTATION: &[&str] = &[
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

#[derive(clap::Args, Debug)]
pub struct Options {
    /// For how many minutes, all targets together.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Only this target; all of them, one after the other, unless given.
    #[arg(long)]
    target: Option<String>,
    /// Which changes are tried first: the same seed begins with the same ones.
    #[arg(long, default_value_t = 1)]
    seed: u32,
}

/// Builds the targets with their instrumentation, and runs them. New inputs that reach something new are kept in
/// `target/fuzz/corpus`, and are where the next run begins.
///
/// # Errors
/// Where a target failed; the message says how to see it again.
pub fn run(options: &Options) -> Result<()> {
    let minutes = options.minutes;
    if !(minutes.is_finite() && minutes > 0.0) {
        bail!("--minutes has to be more than nothing");
    }
    let targets = targets(options.target.as_deref())?;
    let fuzzer = build()?;
    let seconds = ((minutes * 60.0 / targets.len() as f64).round() as u64).max(1);
    let mut failed = Vec::new();
    for target in &targets {
        announce(&format!("{target}, for {seconds} s"));
        if let Some(input) = fuzz(&fuzzer, target, seconds, options.seed)? {
            failed.push(format!("{target}: cargo run --package {PACKAGE} -- replay {target} {}", input.display()));
        }
    }
    if !failed.is_empty() {
        bail!("targets failed; see it again with\n  {}\nand keep the input in crates/fuzz/corpus", failed.join("\n  "));
    }
    Ok(())
}

fn targets(wanted: Option<&str>) -> Result<Vec<String>> {
    let list = output(cargo().args(["run", "--quiet", "--package", PACKAGE, "--bin", PACKAGE, "--", "list"]))?;
    let all: Vec<String> = list.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect();
    match wanted {
        None => Ok(all),
        Some(name) if all.iter().any(|target| target == name) => Ok(vec![name.to_owned()]),
        Some(name) => bail!("there is no target {name}; there are {}", all.join(", ")),
    }
}

fn build() -> Result<PathBuf> {
    if find("c++").is_none() {
        bail!("libFuzzer needs a C++ compiler: install g++ or clang");
    }
    announce("building the fuzz targets with their instrumentation");
    let host = output(program("rustc").args(["--print", "host-tuple"]))?;
    // A folder of its own: with other flags everything is built again.
    let folder = workspace::target_folder()?.join("fuzz/build");
    let mut build = cargo();
    build.args(["build", "--package", PACKAGE, "--bin", "fuzz-by-coverage", "--features", "coverage"]);
    // With a target named, macros and build scripts are built without the instrumentation.
    build.args(["--profile", "fuzz", "--target", &host, "--target-dir"]).arg(&folder);
    build.env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}"));
    run_program(&mut build)?;
    Ok(folder.join(host).join("fuzz/fuzz-by-coverage"))
}

/// Runs one target; the input that made it fail, if any did.
fn fuzz(fuzzer: &Path, target: &str, seconds: u64, seed: u32) -> Result<Option<PathBuf>> {
    let folder = workspace::target_folder()?.join("fuzz");
    let kept = workspace::path("crates/fuzz/corpus").join(target);
    let found = folder.join("corpus").join(target);
    let failures = folder.join("failures").join(target);
    for folder in [&found, &failures] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let known = files(&failures)?;
    let before = files(&found)?.len();
    let dictionary = folder.join(format!("{target}.dict"));
    let words = ["run", "--quiet", "--package", PACKAGE, "--bin", PACKAGE, "--", "dictionary", target];
    fs::write(&dictionary, output(cargo().args(words))? + "\n").context("writing the dictionary")?;

    let mut fuzz = Command::new(fuzzer);
    fuzz.env("THROUGHLINE_FUZZ_TARGET", target).current_dir(workspace::root());
    fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-seed={seed}"));
    // One input that takes 10 s is a hang; the largest message of the protocol is 64 KiB.
    fuzz.args(["-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1", "-use_value_profile=1"]);
    fuzz.arg(format!("-dict={}", dictionary.display()));
    fuzz.arg(format!("-artifact_prefix={}/", failures.display()));
    // libFuzzer writes to the first folder.
    fuzz.arg(&found).arg(&kept);
    let is_fine = status(&mut fuzz)?.success();
    let after = files(&found)?.len();
    announce(&format!("{target}: {} new inputs, {after} in {}", after.saturating_sub(before), found.display()));
    if is_fine {
        return Ok(None);
    }
    let failure = files(&failures)?.into_iter().find(|file| !known.contains(file));
    failure
        .map(Some)
        .with_context(|| format!("{target} ended badly and left no input behind; what it printed says why"))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
