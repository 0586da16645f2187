//! `throughline routes`: a shop that moves here route by route, by a server that runs.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use axum::http::{Method, StatusCode};
use clap::{Args, Subcommand, ValueEnum};
use form_urlencoded::byte_serialize;
use serde::Deserialize;
use serde_json::json;

use crate::rest_client::{RestClient, RestError};
use crate::server_argument::{ServerArgument, ServerArgumentError};
use crate::store::{OTHERS, RouteMode};

const LIST_EXAMPLES: &str = "\
A route that is not among them is off: the legacy systems answer alone.

Examples:
  throughline routes list --server https://checkout.example --service-key-file key
  throughline routes list --server https://checkout.example --json | jq '.routes[] | select(.mode != \"only\")'";

const SET_EXAMPLES: &str = "\
The back ends of the shop ask every few seconds, and work so from then on; nothing is deployed. That it was changed is in the audit
log. From `compare` and `on` there is a way back; from `only` the old systems miss what came since.

  off      the legacy systems alone
  shadow   they answer; the unified session is written and read as well
  compare  the same, and what both answer is compared
  on       the unified session answers; the legacy systems are still written, and compared
  only     the unified session alone

Examples:
  throughline routes set checkout shadow --server https://checkout.example --service-key-file key
  throughline routes set \"POST /api/upsell/process\" compare --server https://checkout.example
  throughline routes set checkout off --server https://checkout.example     the way back";

const REPORT_EXAMPLES: &str = "\
It ends with 0 if both sides gave the same wherever they were compared, and with 3 if not.

Examples:
  throughline routes report --server https://checkout.example --service-key-file key
  throughline routes report --server https://checkout.example --html --output parity.html
  throughline routes report --server https://checkout.example --json | jq '.routes[] | select(.different > 0) | .fields'";

const FORGET_EXAMPLES: &str = "\
After a difference was explained or mended, so that what comes is counted from nothing.

Examples:
  throughline routes forget checkout --server https://checkout.example --service-key-file key
  throughline routes forget --all --server https://checkout.example";

/// With what `report` ends where the sides differ.
const DIFFERENT: u8 = 3;

/// The routes of a shop that moves.
#[derive(Debug, Subcommand)]
pub enum RoutesCommand {
    /// Say which side answers on each route
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Set which side answers on a route
    #[command(after_help = SET_EXAMPLES)]
    Set(Set),
    /// Say how far both sides agree, on each route and field
    #[command(after_help = REPORT_EXAMPLES)]
    Report(Report),
    /// Begin counting again
    #[command(after_help = FORGET_EXAMPLES)]
    Forget(Forget),
}

/// What is listed.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    server: ServerArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is set.
#[derive(Debug, Args)]
pub struct Set {
    /// The route, as the shop calls it
    #[arg(value_name = "ROUTE")]
    route: String,
    /// How it is to work
    #[arg(value_name = "MODE")]
    mode: RouteMode,
    #[command(flatten)]
    server: ServerArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is told.
#[derive(Debug, Args)]
pub struct Report {
    #[command(flatten)]
    server: ServerArgument,
    /// Print JSON
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Give a page to look at
    #[arg(long)]
    html: bool,
    /// Write it into this file instead of printing it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What is forgotten.
#[derive(Debug, Args)]
pub struct Forget {
    /// The route
    #[arg(value_name = "ROUTE", required_unless_present = "all", conflicts_with = "all")]
    route: Option<String>,
    /// All routes
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: ServerArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ValueEnum for RouteMode {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.as_str()))
    }
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// No server can be asked.
    #[error(transparent)]
    Server(#[from] ServerArgumentError),
    /// The server does not do it.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The report can't be written.
    #[error("--output: the file {file:?} can't be written; name one in a folder that can be written to")]
    Unwritable {
        /// Which file.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Nothing can be printed.
    #[error("standard output cannot be written to")]
    Output(#[from] io::Error),
    /// The operating system.
    #[error("the operating system did not let the command run")]
    System(#[source] io::Error),
}

#[derive(Deserialize)]
struct RouteList {
    routes: Vec<RouteEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteEntry {
    route: String,
    mode: RouteMode,
    changed_at: String,
}

#[derive(Deserialize)]
struct Parity {
    routes: Vec<ParityOfRoute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ParityOfRoute {
    route: String,
    mode: RouteMode,
    equal: u64,
    different: u64,
    legacy_failed: u64,
    unified_failed: u64,
    fields: Vec<ParityOfField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ParityOfField {
    field: String,
    times: u64,
    last_at: String,
    examples: Vec<Example>,
}

#[derive(Deserialize)]
struct Example {
    legacy: String,
    unified: String,
}

impl RoutesCommand {
    /// Does it, and prints to `out`; with what the process ends.
    ///
    /// # Errors
    /// See [`RoutesError`].
    pub fn run(&self, out: &mut impl Write) -> Result<ExitCode, RoutesError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RoutesError::System)?;
        runtime.block_on(async {
            match self {
                Self::List(command) => command.run(out).await,
                Self::Set(command) => command.run(out).await,
                Self::Report(command) => command.run(out).await,
                Self::Forget(command) => command.run(out).await,
            }
        })
    }
}

impl List {
    async fn run(&self, out: &mut impl Write) -> Result<ExitCode, RoutesError> {
        let client = self.server.client("routes", "sessions:read", "")?;
        let answer = client.ask(Method::GET, "/v1/routes", None, "application/json").await?;
        if self.json {
            out.write_all(&answer)?;
            out.write_all(b"\n")?;
            return Ok(ExitCode::SUCCESS);
        }
        let RouteList { routes } = read(&client, &answer)?;
        if routes.is_empty() {
            writeln!(out, "no route was ever set: the legacy systems answer on all")?;
        }
        for RouteEntry { route, mode, changed_at } in routes {
            writeln!(out, "{mode:<9}{route}  (since {changed_at})")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Set {
    async fn run(&self, out: &mut impl Write) -> Result<ExitCode, RoutesError> {
        let client = self.server.client("routes", "operator", "")?;
        let body = json!({ "mode": self.mode });
        let path = format!("/v1/routes/{}", encoded(&self.route));
        client.ask(Method::PUT, &path, Some(&body), "application/json").await?;
        if self.json {
            writeln!(out, "{}", json!({ "route": self.route, "mode": self.mode }))?;
        } else {
            writeln!(out, "{} is {}; the shop's back ends work so within seconds", self.route, self.mode)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Report {
    async fn run(&self, out: &mut impl Write) -> Result<ExitCode, RoutesError> {
        let client = self.server.client("routes", "operator", "")?;
        let json = client.ask(Method::GET, "/v1/parity", None, "application/json").await?;
        let parity: Parity = read(&client, &json)?;
        let text = if self.html {
            client.ask(Method::GET, "/v1/parity", None, "text/html").await?.to_vec()
        } else if self.json {
            [&json[..], b"\n"].concat()
        } else {
            parity.lines().into_bytes()
        };
        match &self.output {
            Some(file) => {
                fs::write(file, text).map_err(|source| RoutesError::Unwritable { file: file.clone(), source })?;
                writeln!(out, "written to {}", file.display())?;
            }
            None => out.write_all(&text)?,
        }
        Ok(if parity.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
    }
}

impl Parity {
    fn is_equal(&self) -> bool {
        self.routes.iter().all(|route| route.different + route.legacy_failed + route.unified_failed == 0)
    }

    fn lines(&self) -> String {
        if self.routes.is_empty() {
            return "no route was ever set, and nothing was compared\n".to_owned();
        }
        let mut text = format!(
            "{:<9}{:>12}{:>12}{:>15}{:>16}  route\n",
            "mode", "the same", "different", "legacy failed", "unified failed"
        );
        for ParityOfRoute { route, mode, equal, different, legacy_failed, unified_failed, fields } in &self.routes {
            // Writing to a `String` cannot fail.
            let _ =
                writeln!(text, "{mode:<9}{equal:>12}{different:>12}{legacy_failed:>15}{unified_failed:>16}  {route}");
            for ParityOfField { field, times, last_at, examples } in fields {
                let _ = write!(text, "{:>21}  {field}, last {last_at}", format!("{times} x"));
                if let Some(Example { legacy, unified }) = examples.first() {
                    let _ = write!(text, ": legacy {legacy:?}, unified {unified:?}");
                }
                text.push('\n');
            }
        }
        let names =
            self.routes.iter().flat_map(|route| route.fields.iter().map(|field| &field.field).chain([&route.route]));
        if names.into_iter().any(|name| name == OTHERS) {
            let _ = writeln!(text, "{OTHERS} are more routes or fields than are counted one by one");
        }
        text
    }
}

impl Forget {
    async fn run(&self, out: &mut impl Write) -> Result<ExitCode, RoutesError> {
        let client = self.server.client("routes", "operator", "")?;
        let path = match &self.route {
            Some(route) => format!("/v1/parity?route={}", encoded(route)),
            None => "/v1/parity".to_owned(),
        };
        client.ask(Method::DELETE, &path, None, "application/json").await?;
        if self.json {
            writeln!(out, "{}", json!({ "forgotten": self.route.as_deref().unwrap_or("all") }))?;
        } else {
            writeln!(out, "what was counted is forgotten")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// As a part of a path or a query. A form's space is not a path's.
fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn read<T: for<'de> Deserialize<'de>>(client: &RestClient, answer: &[u8]) -> Result<T, RestError> {
    serde_json::from_slice(answer).map_err(|_| client.stranger(StatusCode::OK))
}
