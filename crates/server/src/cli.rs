//! The command line.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::audit_command::{AuditCommand, AuditError};
use crate::bench_command::{self, BenchCommand, BenchError};
use crate::cli_documents;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, Config, ConfigError, Secrets, SecretsError, ServeOptions};
use crate::doctor_command::DoctorCommand;
use crate::export_command::{self, ExportCommand, ExportCommandError};
use crate::funnel_command::FunnelCommand;
use crate::funnels::FunnelError;
use crate::health_command::{self, HealthCommand, HealthError};
use crate::http;
use crate::import_command::{self, ImportCommand, ImportCommandError};
use crate::keys_command::{KeysCommand, KeysError, development_keys};
use crate::migrate_command::{self, MigrateCommand};
use crate::privacy_command::{self, PrivacyCommand, PrivacyError};
use crate::problem::chain;
use crate::routes_command::{RoutesCommand, RoutesError};
use crate::serve::{serve, stop_signal};
use crate::server_argument::ServerCommandError;
use crate::service_keys_command::{ServiceKeysCommand, ServiceKeysError};
use crate::sessions_command::SessionsCommand;
use crate::store::{self, DatabaseUrl, OpenError};
use crate::telemetry::{self, SpanExport, TelemetryError, TracingError};
use crate::tls::{Tls, TlsError};
use crate::webhooks_command::WebhooksCommand;
use crate::wiring::{ServerState, WiringError};

const EXAMPLES: &str = "\
Examples:
  throughline serve --dev                      try it out; prints a service key
  throughline keys generate                    make a key ring for production, and a first service key
  throughline service-keys create --name backend --scope sessions:read --scope sessions:write
  throughline doctor --config throughline.toml say whether everything is as it should be
  throughline funnel check funnels/*.toml      check funnel definitions
  throughline audit verify --config throughline.toml  say whether the audit log is as it was written
  throughline import --from postgres://reader@old-db.internal/shop --config throughline.toml --dry-run
  throughline privacy export --server https://checkout.example --email-file ada.txt  give a buyer their data
  throughline sessions show ws_m3k2x_9f2c --server https://checkout.example  tell the story of a session
  throughline serve --config throughline.toml  run with them in the environment
  throughline migrate --database-url postgres://throughline@db.internal/throughline";

const SERVE_EXAMPLES: &str = "\
Each option can be set as a flag, as a variable in the environment, or under its name with
underscores in the --config file; the first of them wins. Keys are never flags.

Examples:
  throughline serve --dev
  throughline serve --listen 0.0.0.0:8787 --allowed-origins https://shop.example
  THROUGHLINE_TOKEN_TTL=15m throughline serve --config throughline.toml

An example of a file:
  database_url = \"sqlite:/var/lib/throughline/sessions.db\"
  allowed_origins = [\"https://shop.example\"]
  trusted_proxies = [\"10.0.0.0/8\"]
  keys_file = \"/run/secrets/throughline-keys\"";

const DOCTOR_EXAMPLES: &str = "\
It takes the options of `serve`, changes nothing, and ends with 0 unless something is wrong.

Examples:
  throughline doctor --config throughline.toml
  throughline doctor --config throughline.toml --servers 3 --strict
  throughline doctor --config throughline.toml --json | jq '.findings[] | select(.status != \"ok\")'";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  throughline completions bash > /etc/bash_completion.d/throughline
  throughline completions zsh > \"${fpath[1]}/_throughline\"
  throughline completions fish > ~/.config/fish/completions/throughline.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  throughline man --out /usr/local/share/man/man1
  throughline man --out man && man man/throughline.1";

/// Checkout sessions that hold from browser to database
#[derive(Debug, Parser)]
#[command(name = "throughline", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeOptions>),
    /// Say whether a server with these options would work here, and what to change
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Box<DoctorCommand>),
    /// Ask a server that runs whether it is ready; ends with 0 if it is
    #[command(after_help = health_command::EXAMPLES)]
    Healthcheck(HealthCommand),
    /// Show what can be configured
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Bring the tables of a database up to date, and print what was done
    Migrate(MigrateCommand),
    /// Make, rotate and retire the keys of the key ring, and make bootstrap service keys for the configuration
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Verify and print the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Make, list and revoke the service keys of the database
    #[command(subcommand)]
    ServiceKeys(ServiceKeysCommand),
    /// Give, remove and hold a buyer's data, by a server that runs
    #[command(subcommand)]
    Privacy(PrivacyCommand),
    /// Remove a buyer's personal data for ever: `privacy erase`, where whoever looks for it finds it
    #[command(after_help = privacy_command::ERASE_EXAMPLES)]
    Erase(privacy_command::Erase),
    /// Tell the story of a session, and what happens to sessions just now, by a server that runs
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Measure how fast a server that runs answers
    #[command(after_help = bench_command::EXAMPLES)]
    Bench(BenchCommand),
    /// Bring in the sessions of the legacy systems
    #[command(after_help = import_command::EXAMPLES)]
    Import(Box<ImportCommand>),
    /// Write the sessions as rows of the legacy table: the way back
    #[command(after_help = export_command::EXAMPLES)]
    Export(Box<ExportCommand>),
    /// Move a shop here route by route, by a server that runs
    #[command(subcommand)]
    Routes(RoutesCommand),
    /// Say where lifecycle events are sent, and have them sent again, by a server that runs
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
    /// Check and draw funnel definitions
    #[command(subcommand)]
    Funnel(FunnelCommand),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write manual pages
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The folder to write them into; it is made where it is missing
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every option, with its default and what it does, in Markdown
    Reference,
    /// Print a file with all defaults, to begin with
    Defaults,
    /// Print every metric, with what it tells, in Markdown
    Metrics,
    /// Print every command, with its arguments and how it ends, in Markdown
    Cli,
    /// Print the description of the REST API, as `/openapi.json` of a server has it
    #[command(name = "openapi")]
    OpenApi,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Tracing(#[from] TracingError),
    #[error(transparent)]
    Wiring(#[from] WiringError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Funnel(#[from] FunnelError),
    #[error(transparent)]
    Database(#[from] OpenError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    ServiceKeys(#[from] ServiceKeysError),
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
    #[error(transparent)]
    Routes(#[from] RoutesError),
    #[error(transparent)]
    Health(#[from] HealthError),
    #[error(transparent)]
    Server(#[from] ServerCommandError),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Import(#[from] ImportCommandError),
    #[error(transparent)]
    Export(#[from] ExportCommandError),
    #[error("the outcome cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the server cannot listen on {address}; is another process using it? Choose one with --listen")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "sessions in PostgreSQL outlive this process, and nobody could read them without its keys: make some with `throughline keys generate --keys-file FILE`, and give them with --keys-file FILE"
    )]
    NoKeysForPostgres,
    #[error("the operating system did not let the server run")]
    System(#[source] std::io::Error),
    #[error("the manual pages cannot be written into {folder:?}; name a folder that can be written to")]
    Manual {
        folder: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("standard output cannot be written to")]
    Output(#[source] std::io::Error),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let outcome = match parsed().command {
        Command::Serve(options) => run_server(*options),
        Command::Doctor(command) => return examine(*command).unwrap_or_else(|error| failed(&error)),
        Command::Healthcheck(command) => command.run().map_err(CommandError::from).and_then(|text| print(&text)),
        Command::Config(command) => print(&configuration(&command)),
        Command::Migrate(command) => migrate(command),
        Command::Keys(command) => {
            command.run(SystemClock.now_ms()).map_err(CommandError::from).and_then(|text| print(&text))
        }
        Command::Audit(command) => return ended(|out| Ok(command.run(SystemClock.now_ms(), out)?)),
        Command::ServiceKeys(command) => {
            command.run(SystemClock.now_ms()).map_err(CommandError::from).and_then(|text| print(&text))
        }
        Command::Privacy(command) => return ended(|out| Ok(command.run(out)?)),
        Command::Erase(command) => return ended(|out| Ok(PrivacyCommand::Erase(command).run(out)?)),
        Command::Sessions(command) => return ended(|out| Ok(command.run(out)?)),
        Command::Bench(command) => return ended(|out| Ok(command.run(out)?)),
        Command::Routes(command) => return ended(|out| Ok(command.run(out)?)),
        Command::Webhooks(command) => return ended(|out| Ok(command.run(out)?)),
        Command::Import(command) => return ended(|out| Ok(command.run(out)?)),
        Command::Export(command) => return ended(|out| Ok(command.run(out)?)),
        Command::Completions { shell } => print_bytes(&cli_documents::completions(definition(), shell)),
        Command::Man { out } => manual(out),
        Command::Funnel(command) => command.run().map_err(CommandError::from).and_then(|text| print(&text)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &CommandError) -> ExitCode {
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "error: {}", chain(error));
    ExitCode::FAILURE
}

/// Runs what prints as it goes, and says how it ended.
fn ended(run: impl FnOnce(&mut io::BufWriter<io::StdoutLock<'_>>) -> Result<ExitCode, CommandError>) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let code = run(&mut out).and_then(|code| out.flush().map_err(CommandError::Output).map(|()| code));
    code.unwrap_or_else(|error| failed(&error))
}

fn examine(command: DoctorCommand) -> Result<ExitCode, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::System)?;
    let (text, is_well) = runtime.block_on(command.run())?;
    // A file system that hangs is not waited for.
    runtime.shutdown_background();
    print(&text)?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command line. Help shows the defaults, which are not part of the options' definitions: what a flag does not say,
/// a file still may.
fn parsed() -> Cli {
    let commands = definition().mut_subcommands(config::reference::with_defaults);
    Cli::from_arg_matches(&commands.get_matches()).unwrap_or_else(|error| error.exit())
}

/// All commands.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

fn manual(folder: PathBuf) -> Result<(), CommandError> {
    match cli_documents::manual(definition(), &folder) {
        Ok(pages) => print(&format!("{pages} pages are in {}\n", folder.display())),
        Err(source) => Err(CommandError::Manual { folder, source }),
    }
}

fn configuration(command: &ConfigCommand) -> String {
    match command {
        ConfigCommand::Reference => config::reference::markdown(),
        ConfigCommand::Defaults => config::reference::defaults_file().to_owned(),
        ConfigCommand::Metrics => telemetry::catalogue::reference(),
        ConfigCommand::Cli => cli_documents::reference(definition()),
        ConfigCommand::OpenApi => http::reference::document(),
    }
}

fn migrate(command: MigrateCommand) -> Result<(), CommandError> {
    let json = command.json;
    let url = config::database_of(command.into_options())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::System)?;
    let applied = runtime.block_on(store::migrate(&url))?;
    print(&if json { migrate_command::json(&applied)? } else { migrate_command::lines(&applied) })
}

fn run_server(options: ServeOptions) -> Result<(), CommandError> {
    let (config, mut options) = Config::resolve(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CommandError::System)?;
    let traces = config.tracing.as_ref().map(|settings| SpanExport::start(settings, runtime.handle().clone()));
    let traces = traces.transpose()?;
    telemetry::start_logging(config.log_format, &config.log_filter, traces.as_ref().zip(config.tracing.as_ref()))?;
    if options.dev
        && config::key_source(&options, |name| std::env::var(name).ok()).map_err(SecretsError::from)?.is_none()
    {
        let DatabaseUrl::Sqlite(file) = &config.database.url else { return Err(CommandError::NoKeysForPostgres) };
        let keys = development_keys(file)?;
        tracing::info!(file = %keys.display(), "--dev without a key ring: a developer's keys are used, from a file beside the database");
        options.keys_file = Some(keys);
    }
    let secrets = Secrets::load(&options, |name| std::env::var(name).ok())?;
    let outcome = runtime.block_on(start_and_serve(config, secrets));
    if let Some(traces) = traces {
        runtime.block_on(traces.close());
    }
    // What outlived the grace time is cut off here.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

async fn start_and_serve(config: Config, secrets: Secrets) -> Result<(), CommandError> {
    let stop = stop_signal().map_err(CommandError::System)?;
    let address = config.listen;
    let dev_service_key = secrets.dev_service_key.as_ref().map(|key| key.reveal().to_owned());
    let state = ServerState::build(config, secrets).await?;
    let tls = match state.config.tls.clone() {
        Some(files) => {
            let tls = Tls::open(files, Arc::clone(&state.clock))?;
            let watching = Arc::clone(&tls).watch(Tls::hangups()?);
            let shutdown = state.shutdown.clone();
            state.tasks.spawn(async move { shutdown.run_until_cancelled_owned(watching).await });
            Some(tls.acceptor()?)
        }
        None => None,
    };
    state.start_background_tasks();
    let mut hangup = signal(SignalKind::hangup()).map_err(CommandError::System)?;
    let reloading = Arc::clone(&state);
    // Ends with the process.
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reloading.reload.notify_one();
        }
    });
    let listen = |source| CommandError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    if let Some(key) = dev_service_key {
        print(&format!("dev service key: {key}\n"))?;
        if !bound.ip().is_loopback() {
            tracing::warn!(%bound, "--dev on an address that others can reach");
        }
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    print(&format!("listening on {scheme}://{bound}\n"))?;
    let (features, description) = http::reference::described();
    let app = http::app(&state, features.merge(http::reference::routes(description)));
    serve(&state, app, listener, tls, stop).await;
    Ok(())
}

fn print(text: &str) -> Result<(), CommandError> {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(CommandError::Output)
}
