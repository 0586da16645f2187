//! What others wrote and we build in: its licences, where it comes from, whether it is known to be weak, and whether it is used.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{announce, cargo, find, output, program, status};
use crate::tools;
use crate::workspace::{self, NpmProject};

const CONFIGURATION: &str = ".ci/deny.toml";
const WORKSPACE: &str = "Cargo.toml";

/// A workspace of its own, with a lock file of its own.
const PEERS: &str = "crates/benchmarks/peers/rust/Cargo.toml";

/// Checks everything, so that one run shows all that is wrong. What the network did not let be checked is named at the end.
///
/// # Errors
/// Where something is wrong, or a check could not run that needs no network.
pub fn check() -> Result<()> {
    let mut found = Findings::default();
    lock_files(&mut found)?;
    licences_sources_and_bans(&mut found)?;
    unused_dependencies(&mut found)?;
    advisories(&mut found)?;
    npm_audit(&mut found)?;
    found.conclude()
}

#[derive(Default)]
struct Findings {
    wrong: Vec<String>,
    unchecked: Vec<String>,
}

impl Findings {
    fn conclude(self) -> Result<()> {
        for what in &self.unchecked {
            announce(&format!("NOT CHECKED: {what}"));
        }
        if self.wrong.is_empty() { Ok(()) } else { bail!("the supply chain:\n  {}", self.wrong.join("\n  ")) }
    }
}

/// Each npm package is named by its content, not by an address, and every registry or mirror has to give just that.
fn lock_files(found: &mut Findings) -> Result<()> {
    announce("npm lock files: no addresses, a digest for every package");
    let names = output(program("git").args(["ls-files", "*package-lock.json"]))?;
    let mut packages = 0;
    for name in names.lines() {
        let text = fs::read_to_string(workspace::path(name)).with_context(|| format!("reading {name}"))?;
        let lock = serde_json::from_str(&text).with_context(|| format!("{name} is not JSON"))?;
        let (count, faults) = faults_of_lock(&lock);
        packages += count;
        found.wrong.extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    if packages == 0 {
        bail!("no npm lock file with packages was found; is this a git checkout?");
    }
    eprintln!("{packages} packages in {} lock files", names.lines().count());
    Ok(())
}

/// How many packages it locks, and what is wrong with it.
fn faults_of_lock(lock: &Value) -> (usize, Vec<String>) {
    let Some(entries) = lock["packages"].as_object() else {
        return (0, vec!["it has no `packages`; write it anew with a newer npm".to_owned()]);
    };
    let mut count = 0;
    let mut faults = Vec::new();
    for (place, package) in entries {
        // The project itself, and what it links to in this repository.
        if !place.contains("node_modules/") || package["link"] == true {
            continue;
        }
        count += 1;
        if let Some(address) = package["resolved"].as_str() {
            faults.push(format!("{place} comes from {address}; remove the address, .npmrc keeps npm from writing it"));
        }
        let digest = package["integrity"].as_str().unwrap_or_default();
        if !digest.split(' ').any(|digest| digest.starts_with("sha512-")) {
            faults.push(format!("{place} has no SHA-512 digest; install it anew from the registry"));
        }
    }
    (count, faults)
}

fn licences_sources_and_bans(found: &mut Findings) -> Result<()> {
    for manifest in [WORKSPACE, PEERS] {
        announce(&format!("cargo deny: licences, sources and bans in {manifest}"));
        let mut check = deny(manifest, "warn")?;
        check.args(["check", "--hide-inclusion-graph"]);
        // What is allowed is allowed for the product; the peers need less of it.
        if manifest == PEERS {
            check.args(["--allow", "license-not-encountered", "--allow", "license-exception-not-encountered"]);
            check.args(["--allow", "unused-wrapper"]);
        }
        if !status(check.args(["licenses", "sources", "bans"]))?.success() {
            found
                .wrong
                .push(format!("cargo deny refuses something in {manifest}; {CONFIGURATION} says what is allowed"));
        }
    }
    Ok(())
}

fn deny(manifest: &str, level: &str) -> Result<Command> {
    let mut command = tools::DENY.command()?;
    command.args(["--locked", "--log-level", level, "--config", CONFIGURATION, "--manifest-path", manifest]);
    // A database that does not answer must not hold up everything else.
    command.env("GIT_HTTP_LOW_SPEED_LIMIT", "1000").env("GIT_HTTP_LOW_SPEED_TIME", "20");
    Ok(command)
}

fn advisories(found: &mut Findings) -> Result<()> {
    announce("cargo deny: known weaknesses");
    if !status(deny(WORKSPACE, "off")?.args(["fetch", "db"]))?.success() {
        let what = "known weaknesses of crates (the database of RustSec can't be reached from here)";
        found.unchecked.push(what.to_owned());
        return Ok(());
    }
    for manifest in [WORKSPACE, PEERS] {
        if !status(deny(manifest, "warn")?.args(["check", "--disable-fetch", "advisories"]))?.success() {
            found.wrong.push(format!("something in {manifest} is known to be weak, abandoned or taken back"));
        }
    }
    Ok(())
}

fn unused_dependencies(found: &mut Findings) -> Result<()> {
    announce("cargo machete: dependencies that nothing uses");
    // It searches all manifests below; those of the peers are among them.
    if !status(tools::MACHETE.command()?.args(["--with-metadata", "crates"]))?.success() {
        found.wrong.push("dependencies are unused: remove them from their manifests".to_owned());
    }
    // Also so that the lock files are as the manifests want them.
    for manifest in [WORKSPACE, PEERS] {
        let mut metadata = cargo();
        metadata.args(["metadata", "--locked", "--format-version", "1", "--manifest-path", manifest]);
        output(&mut metadata).with_context(|| format!("the lock file beside {manifest} is not up to date"))?;
    }
    Ok(())
}

/// What npm answered when asked for known weaknesses.
#[derive(PartialEq, Eq, Debug)]
enum Audit {
    Clean,
    /// How many, and of which packages.
    Weak(String),
    /// The registry does not know the question.
    Unanswered(String),
}

fn npm_audit(found: &mut Findings) -> Result<()> {
    announce("npm audit: known weaknesses");
    if find("npm").is_none() {
        bail!("npm is missing: install Node.js 20.19 or later");
    }
    for project in NpmProject::ALL {
        let mut audit = program("npm");
        // From `high` on: the rest is printed by nobody, as nothing of these projects but the package itself is shipped.
        audit.args(["audit", "--json", "--package-lock-only", "--audit-level=high"]);
        audit.args(["--fetch-retries=0", "--fetch-timeout=30000"]).current_dir(project.path());
        let answer = audit.output().context("could not start npm")?;
        match read_audit(&String::from_utf8_lossy(&answer.stdout), answer.status.success()) {
            Audit::Clean => {}
            Audit::Weak(what) => found.wrong.push(format!("{}: {what}", project.folder())),
            Audit::Unanswered(why) => {
                // The others would not be answered either.
                found.unchecked.push(format!("known weaknesses of npm packages (the registry does not tell: {why})"));
                return Ok(());
            }
        }
    }
    Ok(())
}

fn read_audit(answer: &str, is_success: bool) -> Audit {
    let Ok(answer) = serde_json::from_str::<Value>(answer) else {
        return Audit::Unanswered("npm printed no JSON".to_owned());
    };
    if let Some(weak) = answer["vulnerabilities"].as_object() {
        if is_success {
            return Audit::Clean;
        }
        let names: Vec<&str> = weak.keys().map(String::as_str).collect();
        return Audit::Weak(format!("npm knows weaknesses of {}; see `npm audit` there", names.join(", ")));
    }
    let reasons = [&answer["error"]["summary"], &answer["message"]];
    let why = reasons.into_iter().filter_map(Value::as_str).find_map(|text| text.lines().next());
    Audit::Unanswered(why.unwrap_or("no reason was given").to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_and_a_missing_digest_in_a_lock_file_are_found() {
        let lock = json!({ "packages": {
            "": { "name": "shop" },
            "../target/npm/throughline": { "version": "0.1.0" },
            "node_modules/throughline": { "resolved": "../target/npm/throughline", "link": true },
            "node_modules/good": { "version": "1.0.0", "integrity": "sha512-AA==" },
            "node_modules/addressed": { "resolved": "https://mirror.example/a.tgz", "integrity": "sha512-AA==" },
            "node_modules/good/node_modules/bare": { "version": "1.0.0" },
            "node_modules/old": { "integrity": "sha1-AA==" },
        } });
        let (count, faults) = faults_of_lock(&lock);
        assert_eq!(count, 4);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults.iter().any(|fault| fault.contains("addressed") && fault.contains("mirror.example")));
        assert!(faults.iter().any(|fault| fault.contains("bare")) && faults.iter().any(|fault| fault.contains("old")));
        assert_eq!(faults_of_lock(&json!({ "dependencies": {} })).1.len(), 1);
    }

    #[test]
    fn an_audit_that_was_not_answered_is_none_that_found_nothing() {
        let clean = r#"{"auditReportVersion":2,"vulnerabilities":{}}"#;
        assert_eq!(read_audit(clean, true), Audit::Clean);
        let weak = r#"{"auditReportVersion":2,"vulnerabilities":{"leftpad":{"severity":"high"}}}"#;
        assert!(matches!(read_audit(weak, false), Audit::Weak(what) if what.contains("leftpad")));
        let refused = r#"{"message":"405 Method Not Allowed","error":{"summary":"","detail":""}}"#;
        assert!(matches!(read_audit(refused, false), Audit::Unanswered(why) if why.starts_with("405")));
        assert!(matches!(read_audit("", false), Audit::Unanswered(_)));
        assert!(matches!(read_audit("{}", true), Audit::Unanswered(_)));
    }
}
