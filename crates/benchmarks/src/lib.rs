//! What the benchmarks of the server and of the browser package share: how figures are told.

pub mod report;

use std::process::Command;

/// What figures depend on: the processor, and the versions of what takes part, these programs among it.
pub fn machine(programs: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut machine = vec![
        ("processor", format!("{cores} × {}", model.map_or("unknown", |(_, name)| name.trim()))),
        ("throughline", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    for (name, program) in [("Rust", "rustc"), ("Node.js", "node")].iter().chain(programs) {
        machine.push((name, version(program).unwrap_or_else(|| "unknown".to_owned())));
    }
    machine
}

fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(|line| line.trim().to_owned())
}
