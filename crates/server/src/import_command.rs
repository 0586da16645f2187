//! `throughline import`: sessions of the legacy systems, brought into the servers' database.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
use throughline_core::legacy::LegacySystem;
use throughline_core::{FunnelChoice, FunnelId, InvalidIdentifier};

use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, ConfigError, ServeOptions};
use crate::funnels::{FunnelError, FunnelLibrary};
use crate::import::checkpoint::Checkpoint;
use crate::import::entries::{BesideRows, Lines, Rows, Table};
use crate::import::report::{Report, Totals};
use crate::import::{Run, RunError};
use crate::keys_command::{KeysError, Ring};
use crate::progress::Progress;
use crate::sessions::importing::SessionImporter;
use crate::store::postgres::PostgresAddress;
use crate::store::{self, DatabaseSettings, DatabaseUrl, DatabaseUrlError, OpenError, ReadError};
use crate::tenant::TenantId;

/// Shown under the options.
pub const EXAMPLES: &str = "\
Servers may run meanwhile, and so may the old shop: what it changes afterwards is caught up with by running the command again. What is
so already stays as it is, so it may be run as often as you like; one that was interrupted goes on where it was.

Of an unpaid session the prices are the funnel's; of one that was paid, those of then. A session that was paid and then turned to
`expired` by a late read comes in as completed. Where nothing says how a payment ended, nobody can pay again before your back end has
asked the gateway (`confirmClaims` or `refuteClaims`); the report says which these are.

It ends with 0 if everything came in, with 3 if some entries can't be sessions (the report says which), and with 1 if it ended early.

Examples:
  throughline import --from postgres://reader@old-db.internal/shop --config throughline.toml --dry-run
  throughline import --from postgres://reader@old-db.internal/shop --table public.funnel_sessions --config throughline.toml
  throughline import --from-jsonl funnel_sessions.jsonl --cache cache.json --database-url sqlite:sessions.db --keys-file keys";

/// The variable with the address of the legacy database.
pub(crate) const FROM: &str = "THROUGHLINE_IMPORT_FROM";

/// What is to be brought in, and where.
#[derive(Debug, Args)]
pub struct ImportCommand {
    /// The PostgreSQL database of the legacy sessions; it is only read [env: THROUGHLINE_IMPORT_FROM, unless there is --from-jsonl]
    // clap would take the variable for the option, and refuse a file beside it.
    #[arg(long, value_name = "URL", conflicts_with = "from_jsonl")]
    from: Option<String>,
    /// The table in it, also with its schema
    #[arg(long, value_name = "NAME", default_value = "funnel_sessions")]
    table: String,
    /// A file with one row of that table as JSON in each line, instead of the database
    #[arg(long, value_name = "FILE")]
    from_jsonl: Option<PathBuf>,
    /// A file with the claims of `upsell_session` cookies, as your server has verified them: one JSON object with them by the session's id,
    /// or one in each line
    #[arg(long, value_name = "FILE")]
    cookies: Option<PathBuf>,
    /// A file with the entries of `sessionCache`, in the same form
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// A file with entries of browsers' `webseed_funnel_sessions`, in the same form. What they say of payments is not believed
    #[arg(long, value_name = "FILE")]
    browsers: Option<PathBuf>,
    /// Whose sessions they become
    #[arg(long, default_value = "default", value_name = "NAME")]
    tenant: TenantId,
    /// The folder with your funnels, as for `serve`
    #[arg(long, env = "THROUGHLINE_FUNNELS", value_name = "FOLDER")]
    funnels: Option<PathBuf>,
    /// The funnel that they follow: its name, or name@version
    #[arg(long, value_name = "FUNNEL", value_parser = funnel)]
    funnel: Option<FunnelChoice>,
    /// Where to write what had to be decided, one JSON object in each line: throughline-import.jsonl, or of a dry run
    /// throughline-import.dry-run.jsonl, unless it is given. What was in it is replaced
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Say what would be done, with the report, and write nothing to the database
    #[arg(long)]
    dry_run: bool,
    /// Begin at the beginning, also where an import was interrupted
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    ring: Ring,
}

fn funnel(text: &str) -> Result<FunnelChoice, String> {
    let (id, version) = match text.split_once('@') {
        Some((id, version)) => {
            (id, Some(version.parse().map_err(|_| format!("{version} is no version of a funnel; those are numbers"))?))
        }
        None => (text, None),
    };
    let id = FunnelId::new(id).map_err(|error: InvalidIdentifier| error.to_string())?;
    Ok(FunnelChoice { id, version })
}

/// Why not everything was brought in.
#[derive(Debug, thiserror::Error)]
pub enum ImportCommandError {
    /// Nothing to do.
    #[error(
        "name what is to be imported: --from with the address of the legacy database, --from-jsonl with a file, or at least one of --cookies, --cache and --browsers"
    )]
    NothingToImport,
    /// The legacy database's address is wrong.
    #[error("--from")]
    From(#[source] DatabaseUrlError),
    /// Another kind of database.
    #[error(
        "the legacy database is a PostgreSQL one: --from postgres://user@host/database. From anything else, write its rows into a file, one as JSON in each line, and give that with --from-jsonl"
    )]
    NotPostgres,
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key ring can't be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The database can't be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The database can't be asked.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Sessions under it could not be read by the servers.
    #[error(
        "the key ring is not the one that the servers of this database have: there are sessions under the key {key}, which is not in it. Give the servers' ring; nothing was imported"
    )]
    OtherRing {
        /// The public name of the key.
        key: String,
    },
    /// A funnel can't be read.
    #[error(transparent)]
    Funnel(#[from] FunnelError),
    /// It ended early.
    #[error(transparent)]
    Run(Box<RunError>),
    /// The operating system.
    #[error("the operating system did not let the command run")]
    System(#[source] io::Error),
    /// The outcome can't be written.
    #[error("standard output cannot be written to")]
    Output(#[source] io::Error),
    /// The outcome can't be written as JSON.
    #[error("the outcome cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl<E: Into<RunError>> From<E> for ImportCommandError {
    fn from(error: E) -> Self {
        Self::Run(Box::new(error.into()))
    }
}

/// What was done, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    dry_run: bool,
    #[serde(flatten)]
    totals: &'a Totals,
    seconds: f64,
    report: String,
}

impl ImportCommand {
    /// Does it, and prints what was done.
    ///
    /// # Errors
    /// See [`ImportCommandError`].
    pub fn run(&self, out: &mut impl Write) -> Result<ExitCode, ImportCommandError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ImportCommandError::System)?;
        runtime.block_on(self.import(out))
    }

    async fn import(&self, out: &mut impl Write) -> Result<ExitCode, ImportCommandError> {
        let started = Instant::now();
        let given = self.from.clone().or_else(|| env::var(FROM).ok().filter(|_| self.from_jsonl.is_none()));
        let options = self.options(given.is_some())?;
        let from = match given.as_deref().map(str::parse).transpose().map_err(ImportCommandError::From)? {
            None => None,
            Some(DatabaseUrl::Postgres(address)) => Some(address),
            Some(DatabaseUrl::Sqlite(_)) => return Err(ImportCommandError::NotPostgres),
        };
        let settings = config::database_settings(options.clone())?;
        let funnels = FunnelLibrary::load(options.funnels.as_deref())?;
        let keys = self.ring.key_ring()?;
        let of = self.description(from.as_ref(), &settings);
        let store = store::open(&DatabaseSettings { auto_migrate: false, ..settings }).await?;
        if let Some(key) = store.root_keys().await?.into_iter().find(|id| keys.reads(id).is_none()) {
            return Err(ImportCommandError::OtherRing { key });
        }
        let (checkpoint, reached) = if self.dry_run {
            (None, None)
        } else {
            let (checkpoint, reached) = Checkpoint::beside(&self.report(), of, self.restart)?;
            (Some(checkpoint), reached)
        };
        let (position, totals) =
            reached.map_or((None, Totals::default()), |(position, totals)| (Some(position), totals));
        let goes_on = position.is_some();
        let mut total = None;
        let rows = match (&from, &self.from_jsonl) {
            (Some(address), _) => {
                let mut table = Table::open(address, &self.table, position).await?;
                total = Some(table.count().await?);
                Rows::Table(Box::new(table))
            }
            (None, Some(file)) => {
                let lines = Lines::open(file, position).await?;
                total = Some(lines.size().await?);
                Rows::Lines(Box::new(lines))
            }
            (None, None) => Rows::None,
        };
        let mut beside = BesideRows::default();
        let files = [
            (LegacySystem::Cookie, &self.cookies),
            (LegacySystem::Cache, &self.cache),
            (LegacySystem::Browser, &self.browsers),
        ];
        for (system, file) in files {
            if let Some(file) = file {
                beside.add(system, file).await?;
            }
        }
        let total = total.unwrap_or(beside.len() as u64);
        let in_bytes = matches!(rows, Rows::Lines(_));
        let mut progress = if in_bytes { Progress::of_bytes(total, started) } else { Progress::of(total, started) };
        if goes_on {
            progress.say("going on where the import was interrupted");
        }
        let importer = SessionImporter {
            store: Arc::clone(&store),
            keys,
            funnels,
            tenant: self.tenant.clone(),
            funnel: self.funnel.clone(),
            dry_run: self.dry_run,
        };
        let report = Report::open(&self.report(), goes_on)?;
        let run = Run { importer: &importer, rows, beside, report, checkpoint, totals };
        let totals = run
            .finish(
                || SystemClock.now_ms(),
                |totals| {
                    progress.reach(if in_bytes { totals.bytes } else { totals.seen() }, totals.seen());
                },
            )
            .await;
        progress.end();
        store.close().await;
        let totals = totals?;
        let summary = Summary {
            dry_run: self.dry_run,
            totals: &totals,
            seconds: started.elapsed().as_secs_f64(),
            report: self.report().display().to_string(),
        };
        let text = if self.ring.json() { serde_json::to_string_pretty(&summary)? + "\n" } else { summary.text() };
        out.write_all(text.as_bytes()).map_err(ImportCommandError::Output)?;
        Ok(if totals.unreadable > 0 { ExitCode::from(3) } else { ExitCode::SUCCESS })
    }

    fn report(&self) -> PathBuf {
        let name = if self.dry_run { "throughline-import.dry-run.jsonl" } else { "throughline-import.jsonl" };
        self.report.clone().unwrap_or_else(|| PathBuf::from(name))
    }

    fn options(&self, has_table: bool) -> Result<ServeOptions, ImportCommandError> {
        if !has_table
            && self.from_jsonl.is_none()
            && [&self.cookies, &self.cache, &self.browsers].into_iter().all(Option::is_none)
        {
            return Err(ImportCommandError::NothingToImport);
        }
        let options = self.ring.options()?;
        Ok(ServeOptions { funnels: self.funnels.clone().or(options.funnels.clone()), ..options })
    }

    /// From where to where, without passwords.
    fn description(&self, from: Option<&PostgresAddress>, settings: &DatabaseSettings) -> String {
        let from = match (from, &self.from_jsonl) {
            (Some(address), _) => format!("the table {} of {address}", self.table),
            // One that was written anew has other rows where this import had come to.
            (None, Some(file)) => {
                let written = std::fs::metadata(file).and_then(|file| Ok((file.len(), file.modified()?))).ok();
                let written =
                    written.map(|(bytes, at)| format!(" of {bytes} bytes from {}", humantime::format_rfc3339(at)));
                format!("the file {}{}", file.display(), written.unwrap_or_default())
            }
            (None, None) => "other systems' files".to_owned(),
        };
        format!("{from}, to the tenant {} of {:?}", self.tenant, settings.url)
    }
}

impl Summary<'_> {
    fn text(&self) -> String {
        let Totals { created, updated, unchanged, unreadable, for_people, decisions, .. } = self.totals;
        let would = if self.dry_run { "would be " } else { "" };
        let mut text = format!(
            "{created} {would}created, {updated} {would}brought up to date, {unchanged} were so already, {unreadable} can't be sessions ({} s, {} a second)\n",
            HumanCount(self.seconds.round() as u64),
            HumanCount((self.totals.seen() as f64 / self.seconds.max(0.001)).round() as u64),
        );
        for (code, count) in decisions {
            text.push_str(&format!("  {count:>9}  {code}\n"));
        }
        if *for_people > 0 {
            text.push_str(&format!("{for_people} need a person: grep needsAPerson {}\n", self.report));
        } else if !decisions.is_empty() || *unreadable > 0 {
            text.push_str(&format!("what was decided is in {}\n", self.report));
        }
        text
    }
}
