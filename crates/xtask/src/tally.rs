//! Counting what the test runners report.

use std::fs;
use std::ops::AddAssign;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Tests that ran, by outcome.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl Tally {
    /// From a report in JUnit's format, as nextest and schemathesis write it. A test that passed when run again counts as passed.
    pub fn from_junit(report: &Path) -> Result<Self> {
        let text = read(report)?;
        let suites =
            text.lines().find(|line| line.trim_start().starts_with("<testsuites ")).context("no test suites")?;
        let number = |name: &str| -> Result<u64> {
            let start = suites.find(&format!(" {name}=\"")).with_context(|| format!("no {name}"))? + name.len() + 3;
            let digits: String = suites[start..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse().with_context(|| format!("{name} is no number"))
        };
        let failed = number("failures")? + number("errors")?;
        Ok(Self { passed: number("tests")?.saturating_sub(failed), failed })
    }

    /// From one line that Rust's own test harness prints: `test result: ok. 3 passed; 0 failed; …`.
    pub fn from_harness_line(line: &str) -> Option<Self> {
        let result = line.strip_prefix("test result: ")?;
        let before = |word: &str| -> Option<u64> {
            let end = result.find(word)?;
            result[..end].split_whitespace().last()?.parse().ok()
        };
        Some(Self { passed: before(" passed;")?, failed: before(" failed;")? })
    }

    /// From vitest's JSON report.
    pub fn from_vitest(report: &Path) -> Result<Self> {
        let report = json(report)?;
        Ok(Self { passed: count(&report["numPassedTests"])?, failed: count(&report["numFailedTests"])? })
    }

    /// From Playwright's JSON report. A test that passed when run again counts as passed.
    pub fn from_playwright(report: &Path) -> Result<Self> {
        let stats = &json(report)?["stats"];
        Ok(Self { passed: count(&stats["expected"])? + count(&stats["flaky"])?, failed: count(&stats["unexpected"])? })
    }
}

fn read(report: &Path) -> Result<String> {
    fs::read_to_string(report).with_context(|| format!("reading {}", report.display()))
}

fn json(report: &Path) -> Result<Value> {
    serde_json::from_str(&read(report)?).with_context(|| format!("{} is not JSON", report.display()))
}

fn count(value: &Value) -> Result<u64> {
    value.as_u64().context("the report has no such count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harness_line_is_counted_and_other_lines_are_not() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(Tally::from_harness_line(line), Some(Tally { passed: 3, failed: 2 }));
        assert_eq!(Tally::from_harness_line("test store::reads ... ok"), None);
    }

    #[test]
    fn reports_are_counted_by_outcome() {
        let folder = std::env::temp_dir().join(format!("throughline-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let schemathesis = write(
            "schemathesis.xml",
            "<?xml version=\"1.0\"?>\n<testsuites errors=\"0\" failures=\"17\" skipped=\"0\" tests=\"21\" time=\"29.7\">\n",
        );
        let nextest = write(
            "junit.xml",
            "<?xml version=\"1.0\"?>\n<testsuites name=\"nextest-run\" tests=\"9\" failures=\"1\" errors=\"1\" uuid=\"x\">\n",
        );
        let vitest = write("vitest.json", r#"{"numTotalTests":4,"numPassedTests":3,"numFailedTests":1}"#);
        let playwright = write("playwright.json", r#"{"stats":{"expected":5,"unexpected":2,"flaky":1,"skipped":4}}"#);

        assert_eq!(Tally::from_junit(&nextest).unwrap(), Tally { passed: 7, failed: 2 });
        assert_eq!(Tally::from_junit(&schemathesis).unwrap(), Tally { passed: 4, failed: 17 });
        assert_eq!(Tally::from_vitest(&vitest).unwrap(), Tally { passed: 3, failed: 1 });
        assert_eq!(Tally::from_playwright(&playwright).unwrap(), Tally { passed: 6, failed: 2 });
        assert!(Tally::from_vitest(&folder.join("absent.json")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
