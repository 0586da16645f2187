//! Whether a server would work here as it is configured, and what to change where it would not.
//!
//! Nothing is changed, no check waits for longer than [`LIMIT`], and nothing that is said holds a password or a key.

mod database;
mod machine;
mod redis;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Args as _;
use serde::Serialize;

use crate::config::{Config, Secrets, SecretsError, ServeOptions};
use crate::funnels::FunnelLibrary;
use crate::keys::KeyRing;
use crate::problem::chain;
use crate::server_argument;
use crate::{export_command, import_command};

/// How long each group of checks may take.
pub const LIMIT: Duration = Duration::from_secs(5);

/// A clock that is off by more than this confuses people who compare logs; by more than that, tokens and deadlines.
const CLOCK_OFF_MS: u64 = 1_000;
const CLOCK_WRONG_MS: u64 = 30_000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and may not for ever or not in every situation.
    Warning,
    /// It does not work, or loses data.
    Error,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub status: Status,
    /// How it is.
    pub message: String,
    /// What to change and how, where something is to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, message: message.into(), remedy: None }
    }

    fn warning(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    fn error(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Error, message: message.into(), remedy: Some(remedy.into()) }
    }
}

/// What all checks found, in the order in which to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many are of a status.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.findings.iter().filter(|finding| finding.status == status).count()
    }

    /// The worst there is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok)
    }

    /// For people.
    #[must_use]
    pub fn lines(&self) -> String {
        let width = self.findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        for Finding { check, status, message, remedy } in &self.findings {
            let _ = writeln!(text, "{status:8} {check:width$}  {message}");
            if let Some(remedy) = remedy {
                let _ = writeln!(text, "{:8} {:width$}  -> {remedy}", "", "");
            }
        }
        let (warnings, errors) = (self.count(Status::Warning), self.count(Status::Error));
        let _ = writeln!(text, "\nok: {}, warnings: {warnings}, errors: {errors}", self.count(Status::Ok));
        text
    }

    /// For programs.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let report = serde_json::json!({
            "status": self.status(),
            "ok": self.count(Status::Ok),
            "warnings": self.count(Status::Warning),
            "errors": self.count(Status::Error),
            "findings": self.findings,
        });
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }
}

/// Looks at everything that a server with these options needs. `servers`: how many of them there will be.
/// `environment`: the variables that there are, with their values.
pub async fn examine(options: ServeOptions, servers: usize, environment: &BTreeMap<String, String>) -> Report {
    let file = options.config.clone();
    let (config, options) = match Config::resolve(options) {
        Ok(resolved) => resolved,
        Err(error) => {
            let remedy = "mend this first; everything else depends on it (docs/configuration.md has every option)";
            return Report { findings: vec![Finding::error("configuration", chain(&error), remedy)] };
        }
    };
    let said = file.map_or_else(
        || "flags and environment are readable, and there is no file".to_owned(),
        |file| format!("flags, environment and {file:?} are readable"),
    );
    let mut findings = vec![Finding::ok("configuration", said)];
    let (found, ring) = keys(&options, environment);
    findings.extend(found);
    let (database, redis, funnels, machine) = tokio::join!(
        within("database", database::check(&config, servers, ring.as_ref())),
        within("redis", redis::check(&config)),
        within("funnels", funnels(&config)),
        within("machine", machine::check(&config)),
    );
    findings.extend([database, redis, funnels, machine].into_iter().flatten());
    Report { findings }
}

/// What did not answer in time is an error.
async fn within(check: &'static str, checking: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    tokio::time::timeout(LIMIT, checking).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", LIMIT.as_secs());
        vec![Finding::error(check, message, "look whether it runs, hangs, or is cut off by a firewall")]
    })
}

fn keys(options: &ServeOptions, environment: &BTreeMap<String, String>) -> (Vec<Finding>, Option<KeyRing>) {
    // Whatever variable is asked for means something.
    let asked = RefCell::new(option_variables());
    asked.borrow_mut().extend(server_argument::VARIABLES.map(str::to_owned));
    asked.borrow_mut().extend([import_command::FROM, export_command::TO].map(str::to_owned));
    let read = |name: &'static str| {
        asked.borrow_mut().insert(name.to_owned());
        environment.get(name).cloned()
    };
    let mut findings = Vec::new();
    let loaded = Secrets::load(options, read);
    let asked = asked.into_inner();
    let unknown = environment.keys().filter(|name| name.starts_with("THROUGHLINE_") && !asked.contains(*name));
    // Who stops at the first wrong key has not asked for all of them.
    if loaded.is_ok() {
        findings.extend(unknown.map(|name| {
            let remedy = "look for a mistake in its name (docs/configuration.md has all of them), or take it away";
            Finding::warning("environment", format!("the variable {name} means nothing"), remedy)
        }));
    }
    // Without a ring, `--dev` would make one at the start.
    let ring = loaded.as_ref().ok().filter(|secrets| secrets.key_source.is_some()).map(|secrets| secrets.keys.clone());
    findings.insert(0, judge_keys(options, loaded));
    let secret = [&options.keys_file, &options.tls_key_file].into_iter().flatten();
    findings.extend(secret.filter_map(|file| machine::readable_by_all(file)));
    (findings, ring)
}

/// The variables that options are read from.
fn option_variables() -> BTreeSet<String> {
    let command = ServeOptions::augment_args(clap::Command::new("serve"));
    let variables = command.get_arguments().filter_map(clap::Arg::get_env);
    variables.map(|name| name.to_string_lossy().into_owned()).collect()
}

fn judge_keys(options: &ServeOptions, loaded: Result<Secrets, SecretsError>) -> Finding {
    match loaded {
        Ok(_) if options.dev => Finding::warning(
            "keys",
            "--dev: without a key ring, one is made at the start",
            "for production, leave out --dev and give keys that `throughline keys generate` made",
        ),
        Ok(_) => Finding::ok("keys", "the key ring and the service keys are there and well-formed"),
        Err(error) => {
            let remedy = "make keys with `throughline keys generate`, and have each server read the same ones";
            Finding::error("keys", chain(&error), remedy)
        }
    }
}

async fn funnels(config: &Config) -> Vec<Finding> {
    let folder = config.funnels.clone();
    let loading = tokio::task::spawn_blocking(move || FunnelLibrary::load(folder.as_deref()).map(drop));
    vec![match (loading.await, &config.funnels) {
        (Ok(Ok(())), Some(folder)) => Finding::ok("funnels", format!("all definitions in {folder:?} can be used")),
        (Ok(Ok(())), None) => Finding::ok("funnels", "only the built-in one"),
        (Ok(Err(error)), _) => {
            Finding::error("funnels", chain(&error), "mend it, and try it with `throughline funnel check FILE`")
        }
        (Err(_), _) => Finding::error("funnels", "they could not be looked at", "look at the folder's file system"),
    }]
}

/// What a clock that is `ahead_ms` before ours means.
fn clock(check: &'static str, whose: &str, ahead_ms: i64) -> Finding {
    let message =
        format!("{whose} is {} ms {} ours", ahead_ms.unsigned_abs(), if ahead_ms < 0 { "behind" } else { "ahead of" });
    let remedy =
        "let both machines follow the same time service (chrony, systemd-timesyncd), and look which of them is wrong";
    match ahead_ms.unsigned_abs() {
        CLOCK_WRONG_MS.. => Finding::error(check, message, remedy),
        CLOCK_OFF_MS.. => Finding::warning(check, message, remedy),
        _ => Finding::ok(check, message),
    }
}

/// What it means that a tier takes so long to answer: `slow` is where it is felt.
fn latency(check: &'static str, latency: Duration, slow: Duration, remedy: &str) -> Finding {
    let message = format!("answers within {:.1} ms", latency.as_secs_f64() * 1e3);
    if latency > slow { Finding::warning(check, message, remedy) } else { Finding::ok(check, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_as_bad_as_its_worst_finding() {
        let mut report = Report { findings: vec![Finding::ok("keys", "there")] };
        assert_eq!(report.status(), Status::Ok);
        report.findings.push(Finding::warning("clock", "off", "set it"));
        report.findings.push(Finding::error("redis clock", "wrong", "set it"));
        assert_eq!(report.status(), Status::Error);
        let lines = report.lines();
        assert!(lines.contains("ok       keys         there\n"), "{lines}");
        assert!(lines.contains("                      -> set it\n"), "{lines}");
        assert!(lines.ends_with("\nok: 1, warnings: 1, errors: 1\n"), "{lines}");
    }

    #[test]
    fn clocks_that_differ_are_told_with_the_direction() {
        assert_eq!(clock("clock", "its clock", -20).status, Status::Ok);
        let off = clock("clock", "its clock", -2_000);
        assert!(off.status == Status::Warning && off.message.contains("2000 ms behind"), "{off:?}");
        assert_eq!(clock("clock", "its clock", 3_600_000).status, Status::Error);
    }
}
