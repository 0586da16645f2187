//! `throughline audit`: whether the audit log is as it was written, and what it says.

use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::audit::AuditEntry;
use crate::audit::chain::Authenticity;
use crate::audit::verification::{self, Anchor, Verified};
use crate::clock::parse_rfc3339;
use crate::config;
use crate::keys::KeyRing;
use crate::keys_command::{KeysError, Ring};
use crate::store::{self, DatabaseSettings, OpenError, ReadError, Store};
use crate::tenant::TenantId;

const VERIFY_EXAMPLES: &str = "\
It finds records that were changed, removed, put in or moved, and chains that were cut. What it can't find by itself is a whole
database that was put back, or a chain that was cut together with its head by somebody who kept an older one: for that, keep
anchors elsewhere (`throughline audit anchor`) and give them with --anchors. It ends with 0 if everything is as it was written, and
with 1 if something is not, or could not be read.

Examples:
  throughline audit verify --config throughline.toml
  throughline audit verify --config throughline.toml --anchors anchors.jsonl
  throughline audit verify --config throughline.toml --tenant shop-a --json";

const EXPORT_EXAMPLES: &str = "\
One JSON object in each line. `authentic` says whether the record is as it was written; records that were removed are found by
`throughline audit verify` alone.

Examples:
  throughline audit export --config throughline.toml > audit.jsonl
  throughline audit export --config throughline.toml --session ws_m3k2x_9f2c
  throughline audit export --config throughline.toml --since 2026-01-01T00:00:00Z | jq 'select(.outcome == \"denied\")'";

const ANCHOR_EXAMPLES: &str = "\
Print it once a day, to where whoever may write to the database may not.

Examples:
  throughline audit anchor --config throughline.toml >> /mnt/elsewhere/anchors.jsonl";

/// How many records are read at a time.
const PAGE: u32 = 2_000;

/// The audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Say whether the log is as it was written
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// Print the log as JSON lines
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(Export),
    /// Print where each tenant's chain is, to be kept elsewhere
    #[command(after_help = ANCHOR_EXAMPLES)]
    Anchor(Source),
}

/// Whose log, in which database, under which keys.
#[derive(Debug, Args)]
pub struct Source {
    #[command(flatten)]
    ring: Ring,
    /// Only this tenant's log
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantId>,
}

/// What is verified.
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    source: Source,
    /// A file of what `audit anchor` printed, any number of times
    #[arg(long, value_name = "FILE")]
    anchors: Option<PathBuf>,
}

/// What is printed.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    source: Source,
    /// Only what tells of this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only from this time on
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// Only before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
}

/// Why nothing can be said about the log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The keys, or the configuration.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// No database was named.
    #[error("there is no database to read; name it with --database-url, --config or THROUGHLINE_DATABASE_URL")]
    NoDatabase,
    /// It can't be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The anchors can't be read.
    #[error("the anchors in {file:?} can't be read")]
    AnchorFile {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is no anchor.
    #[error("line {line} of {file:?} is no anchor; `throughline audit anchor` prints such lines")]
    Anchor {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1 on.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A head is not one that a server has written.
    #[error(
        "no anchor is made: the chains of {tenants} do not end as a server with this key ring has left them; `throughline audit verify` says more"
    )]
    Unbelievable {
        /// Of which tenants.
        tenants: String,
    },
    /// Nothing can be printed.
    #[error("standard output cannot be written to")]
    Output(#[from] io::Error),
    /// Nothing can be printed as JSON.
    #[error("the outcome cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// The operating system.
    #[error("the operating system did not let the command run")]
    System(#[source] io::Error),
}

/// A record, as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    position: u64,
    /// Missing where the key of its code was forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    authentic: Option<bool>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    entry: Option<AuditEntry>,
    /// The text of a record that does not say what records say.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

/// What was found, as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    intact: bool,
    verified: Verified,
    faults: Vec<PrintedFault>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PrintedFault {
    tenant: String,
    fault: String,
}

impl AuditCommand {
    /// Does it, and prints as it goes.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn run(&self, now_ms: i64, out: &mut impl Write) -> Result<ExitCode, AuditError> {
        let source = match self {
            Self::Verify(Verify { source, .. }) | Self::Export(Export { source, .. }) | Self::Anchor(source) => source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AuditError::System)?;
        runtime.block_on(async {
            let (store, keys) = source.open().await?;
            let code = match self {
                Self::Verify(command) => command.verify(&*store, &keys, now_ms, out).await?,
                Self::Export(command) => command.export(&*store, &keys, out).await?,
                Self::Anchor(source) => {
                    let (anchors, unbelievable) = verification::anchors(&*store, &keys, now_ms).await?;
                    if !unbelievable.is_empty() {
                        return Err(AuditError::Unbelievable { tenants: unbelievable.join(", ") });
                    }
                    for anchor in anchors {
                        if source.tenant.as_ref().is_none_or(|tenant| *tenant == anchor.tenant) {
                            writeln!(out, "{}", serde_json::to_string(&anchor)?)?;
                        }
                    }
                    ExitCode::SUCCESS
                }
            };
            store.close().await;
            Ok(code)
        })
    }
}

impl Source {
    async fn open(&self) -> Result<(Arc<dyn Store>, KeyRing), AuditError> {
        let options = self.ring.options()?;
        if options.database_url.is_none() {
            return Err(AuditError::NoDatabase);
        }
        let keys = self.ring.key_ring()?;
        let settings = config::database_settings(options).map_err(KeysError::from)?;
        let store = store::open(&DatabaseSettings { auto_migrate: false, ..settings }).await?;
        Ok((store, keys))
    }
}

impl Verify {
    fn anchors(&self) -> Result<Vec<Anchor>, AuditError> {
        let Some(file) = &self.anchors else { return Ok(Vec::new()) };
        let text = fs::read_to_string(file).map_err(|source| AuditError::AnchorFile { file: file.clone(), source })?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let read = lines.map(|(index, line)| {
            let refused = |source| AuditError::Anchor { file: file.clone(), line: index + 1, source };
            serde_json::from_str(line).map_err(refused)
        });
        read.collect()
    }

    async fn verify(
        &self,
        store: &dyn Store,
        keys: &KeyRing,
        now_ms: i64,
        out: &mut impl Write,
    ) -> Result<ExitCode, AuditError> {
        let (tenant, json) = (self.source.tenant.as_ref(), self.source.ring.json());
        let mut faults = Vec::new();
        let mut progress = Progress::default();
        let note = |finding: verification::Finding| {
            faults.push(PrintedFault { tenant: finding.tenant, fault: finding.what.to_string() });
        };
        let verified =
            verification::verify(store, keys, tenant, &self.anchors()?, now_ms, note, |records| progress.show(records))
                .await?;
        progress.end();
        let report = Report { intact: faults.is_empty(), verified, faults };
        if json {
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        } else {
            for PrintedFault { tenant, fault } in &report.faults {
                writeln!(out, "{tenant}: {fault}")?;
            }
            let Verified { tenants, blocks, records, unsealed, unsealed_since, under_forgotten_keys } = report.verified;
            writeln!(
                out,
                "{records} records in {blocks} blocks of {tenants} tenants, {unsealed} of them not sealed yet"
            )?;
            if let Some(since) = unsealed_since {
                writeln!(out, "the oldest of these waits since {since}: no server runs, or it can't seal")?;
            }
            if under_forgotten_keys > 0 {
                writeln!(out, "{under_forgotten_keys} records are under forgotten keys; their blocks hold them")?;
            }
            let verdict = match report.faults.len() {
                0 => "the audit log is as it was written".to_owned(),
                count => format!("the audit log is NOT as it was written: {count} faults"),
            };
            writeln!(out, "{verdict}")?;
        }
        Ok(if report.intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Export {
    async fn export(&self, store: &dyn Store, keys: &KeyRing, out: &mut impl Write) -> Result<ExitCode, AuditError> {
        for name in store.audited_tenants().await? {
            // What is under another name was put in; `audit verify` tells of it.
            let Ok(tenant) = TenantId::try_from(name) else { continue };
            if self.source.tenant.as_ref().is_some_and(|only| *only != tenant) {
                continue;
            }
            let mut after = 0;
            loop {
                let page = store.audit_records(&tenant, after, u64::MAX >> 1, PAGE).await?;
                for record in &page {
                    after = record.position;
                    let entry = serde_json::from_str::<AuditEntry>(&record.body).ok();
                    // What can't be read may be what is looked for.
                    if entry.as_ref().is_some_and(|entry| !self.wants(entry)) {
                        continue;
                    }
                    let authentic = match record.authenticity(&tenant, keys) {
                        Authenticity::Authentic => Some(true),
                        Authenticity::Forged => Some(false),
                        Authenticity::KeyGone => None,
                    };
                    let unreadable = entry.is_none().then(|| record.body.clone());
                    let printed = Printed { position: record.position, authentic, entry, unreadable };
                    writeln!(out, "{}", serde_json::to_string(&printed)?)?;
                }
                if page.len() < PAGE as usize {
                    break;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn wants(&self, entry: &AuditEntry) -> bool {
        let at_ms = parse_rfc3339(&entry.at).unwrap_or(0);
        let is_of_session = self.session.is_none() || self.session == entry.session;
        is_of_session && self.since.is_none_or(|since| since <= at_ms) && self.until.is_none_or(|until| at_ms < until)
    }
}

fn time(text: &str) -> Result<i64, String> {
    parse_rfc3339(text).ok_or_else(|| "write a time as 2026-01-31T12:00:00Z".to_owned())
}

/// Shows a person that something happens.
#[derive(Default)]
struct Progress {
    shown: u64,
}

impl Progress {
    fn show(&mut self, records: u64) {
        if io::stderr().is_terminal() && records >= self.shown + 10_000 {
            self.shown = records;
            eprint!("\r{records} records verified");
        }
    }

    fn end(&self) {
        if self.shown > 0 {
            eprintln!();
        }
    }
}
