//! `throughline webhooks`: addresses that are told of lifecycle events, by a server that runs.

use std::io::{self, Write};
use std::process::ExitCode;

use axum::http::{Method, StatusCode};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::rest_client::RestClient;
use crate::server_argument::{ServerArgument, ServerCommandError};

const LIST_EXAMPLES: &str = "\
Examples:
  throughline webhooks list --server https://checkout.example --service-key-file key
  throughline webhooks list --server https://checkout.example --json | jq '.webhooks[] | select(.state != \"working\")'";

const CREATE_EXAMPLES: &str = "\
It prints the secret that messages are signed with, this once: the receiver verifies them with a library for Standard Webhooks.

Examples:
  throughline webhooks create https://shop.example/webhooks --server https://checkout.example --service-key-file key
  throughline webhooks create https://crm.example/hooks --type session.paid --type session.expired --server https://checkout.example";

const SHOW_EXAMPLES: &str = "\
It shows how the webhook does, the latest tries, and what waits or was given up.

Examples:
  throughline webhooks show wh_0123456789abcdef --server https://checkout.example --service-key-file key";

const REPLAY_EXAMPLES: &str = "\
Receivers know a message that they have had by its webhook-id.

Examples:
  throughline webhooks replay wh_0123456789abcdef --given-up --server https://checkout.example
  throughline webhooks replay wh_0123456789abcdef --since 2026-11-25T09:00:00Z --server https://checkout.example
  throughline webhooks replay wh_0123456789abcdef --after 1042 --server https://checkout.example";

const TEST_EXAMPLES: &str = "\
It ends with 0 if the message arrived, and with 3 if not.

Examples:
  throughline webhooks test wh_0123456789abcdef --server https://checkout.example --service-key-file key";

/// With what `test` ends where the message did not arrive.
const NOT_ARRIVED: u8 = 3;

/// The webhooks of a shop.
#[derive(Debug, Subcommand)]
pub enum WebhooksCommand {
    /// List webhooks, and how they do
    #[command(after_help = LIST_EXAMPLES)]
    List(Listed),
    /// Make a webhook, and print its secret
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Show one webhook, and what became of its messages
    #[command(after_help = SHOW_EXAMPLES)]
    Show(One),
    /// Send messages again, all of them after a failure or a pause
    Enable(One),
    /// Send nothing until it is enabled; what happens meanwhile is sent then
    Disable(One),
    /// Remove a webhook, with what waits for it
    Remove(One),
    /// Make a new secret, and print it; the one before signs as well for a day
    RotateSecret(One),
    /// Send events again
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(Replay),
    /// Send one message now, and say what came of it
    #[command(after_help = TEST_EXAMPLES)]
    Test(One),
}

/// What is listed.
#[derive(Debug, Args)]
pub struct Listed {
    #[command(flatten)]
    server: ServerArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is made.
#[derive(Debug, Args)]
pub struct Create {
    /// Where events are sent
    #[arg(value_name = "URL")]
    url: String,
    /// Only events of this type; may be given several times. Without it, all
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// What people say of it
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    #[command(flatten)]
    server: ServerArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One webhook.
#[derive(Debug, Args)]
pub struct One {
    /// The webhook's short name
    #[arg(value_name = "WEBHOOK")]
    id: String,
    #[command(flatten)]
    server: ServerArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is sent again.
#[derive(Debug, Args)]
pub struct Replay {
    /// The webhook's short name
    #[arg(value_name = "WEBHOOK")]
    id: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    server: ServerArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which events.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// What was given up, and what waits at once
    #[arg(long)]
    given_up: bool,
    /// All that happened since then and is kept (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// All after this place, as `show` says it
    #[arg(long, value_name = "POSITION")]
    after: Option<String>,
}

#[derive(Deserialize)]
struct WebhookList {
    webhooks: Vec<Webhook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    id: String,
    url: String,
    types: Vec<String>,
    state: String,
    disabled_because: Option<String>,
    failing_since: Option<String>,
    next_try_at: Option<String>,
    position: String,
    delivered: u64,
    waiting: u64,
    given_up: u64,
    secret: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deliveries {
    tries: Vec<Tried>,
    waiting: Vec<Waiting>,
    given_up: Vec<Waiting>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tried {
    event_id: String,
    r#type: String,
    session_id: String,
    at: String,
    took_ms: u64,
    status: Option<u16>,
    failure: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Waiting {
    event_id: String,
    r#type: String,
    session_id: String,
    tries: u32,
    next_try_at: Option<String>,
    failure: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    arrived: bool,
    status: Option<u16>,
    took_ms: u64,
    failure: Option<String>,
}

impl WebhooksCommand {
    /// Does it, and prints to `out`; with what the process ends.
    ///
    /// # Errors
    /// See [`ServerCommandError`].
    pub fn run(&self, out: &mut impl Write) -> Result<ExitCode, ServerCommandError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerCommandError::System)?;
        runtime.block_on(async {
            match self {
                Self::List(command) => command.run(out).await,
                Self::Create(command) => command.run(out).await,
                Self::Show(command) => command.show(out).await,
                Self::Enable(command) => command.change(out, &json!({ "enabled": true })).await,
                Self::Disable(command) => command.change(out, &json!({ "enabled": false })).await,
                Self::Remove(command) => command.remove(out).await,
                Self::RotateSecret(command) => command.rotate(out).await,
                Self::Replay(command) => command.run(out).await,
                Self::Test(command) => command.test(out).await,
            }
        })
    }
}

/// Asks for JSON; prints it where that is wanted.
struct Asked {
    client: RestClient,
    is_json: bool,
}

impl Asked {
    fn of(server: &ServerArgument, is_json: bool) -> Result<Self, ServerCommandError> {
        Ok(Self { client: server.client("webhooks", "webhooks", "")?, is_json })
    }

    /// The answer; `None` where it was printed as it is.
    async fn ask<T: DeserializeOwned>(
        &self,
        out: &mut impl Write,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<T>, ServerCommandError> {
        let answer = self.client.ask(method, path, body, "application/json").await?;
        if self.is_json {
            out.write_all(&answer)?;
            out.write_all(b"\n")?;
            return Ok(None);
        }
        let read = serde_json::from_slice(&answer);
        Ok(Some(read.map_err(|_| self.client.stranger(StatusCode::OK))?))
    }
}

impl Webhook {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let types = if self.types.is_empty() { "all events".to_owned() } else { self.types.join(", ") };
        writeln!(out, "{}  {:<9}{}", self.id, self.state, self.url)?;
        writeln!(
            out,
            "  of {types}; {} delivered, {} waiting, {} given up; at {}",
            self.delivered, self.waiting, self.given_up, self.position
        )?;
        if let Some(because) = &self.disabled_because {
            writeln!(out, "  disabled: {because}")?;
        }
        if let Some(since) = &self.failing_since {
            let next = self.next_try_at.as_ref().map(|at| format!(", tried again at {at}")).unwrap_or_default();
            writeln!(out, "  nothing has arrived since {since}{next}")?;
        }
        Ok(())
    }

    fn print_secret(&self, out: &mut impl Write) -> io::Result<()> {
        let secret = self.secret.as_deref().unwrap_or_default();
        writeln!(out, "  secret, shown this once: {secret}")
    }
}

impl Listed {
    async fn run(&self, out: &mut impl Write) -> Result<ExitCode, ServerCommandError> {
        let asked = Asked::of(&self.server, self.json)?;
        let list = asked.ask::<WebhookList>(out, Method::GET, "/v1/webhooks", None).await?;
        let Some(WebhookList { webhooks }) = list else { return Ok(ExitCode::SUCCESS) };
        if webhooks.is_empty() {
            writeln!(out, "there is no webhook; `throughline webhooks create URL` makes one")?;
        }
        for webhook in webhooks {
            webhook.print(out)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    async fn run(&self, out: &mut impl Write) -> Result<ExitCode, ServerCommandError> {
        let asked = Asked::of(&self.server, self.json)?;
        let body = json!({ "url": self.url, "types": self.types, "description": self.description });
        if let Some(webhook) = asked.ask::<Webhook>(out, Method::POST, "/v1/webhooks", Some(&body)).await? {
            webhook.print(out)?;
            webhook.print_secret(out)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl One {
    fn path(&self) -> String {
        path_of(&self.id)
    }

    async fn show(&self, out: &mut impl Write) -> Result<ExitCode, ServerCommandError> {
        let asked = Asked::of(&self.server, self.json)?;
        if let Some(webhook) = asked.ask::<Webhook>(out, Method::GET, &self.path(), None).await? {
            webhook.print(out)?;
        }
        let path = format!("{}/deliveries", self.path());
        let Some(deliveries) = asked.ask::<Deliveries>(out, Method::GET, &path, None).await? else {
            return Ok(ExitCode::SUCCESS);
        };
        for (what, rows) in [("waiting", &deliveries.waiting), ("given up", &deliveries.given_up)] {
            for Waiting { event_id, r#type, session_id, tries, next_try_at, failure } in rows {
                let next = next_try_at.as_ref().map(|at| format!(", next at {at}")).unwrap_or_default();
                let failure = failure.as_deref().unwrap_or("waits for an earlier one of its session");
                writeln!(out, "  {what}: {type} of {session_id} ({event_id}), {tries} tries{next}: {failure}")?;
            }
        }
        for Tried { event_id, r#type, session_id, at, took_ms, status, failure } in deliveries.tries {
            let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
            let failure = failure.map(|failure| format!(": {failure}")).unwrap_or_default();
            writeln!(out, "  {at}  {status:>3}  {took_ms:>6} ms  {type} of {session_id} ({event_id}){failure}")?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn change(&self, out: &mut impl Write, body: &Value) -> Result<ExitCode, ServerCommandError> {
        let asked = Asked::of(&self.server, self.json)?;
        if let Some(webhook) = asked.ask::<Webhook>(out, Method::PATCH, &self.path(), Some(body)).await? {
            webhook.print(out)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn remove(&self, out: &mut impl Write) -> Result<ExitCode, ServerCommandError> {
        let asked = Asked::of(&self.server, self.json)?;
        asked.client.ask(Method::DELETE, &self.path(), None, "application/json").await?;
        if !self.json {
            writeln!(out, "{} is removed", self.id)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn rotate(&self, out: &mut impl Write) -> Result<ExitCode, ServerCommandError> {
        let asked = Asked::of(&self.server, self.json)?;
        let path = format!("{}/rotate-secret", self.path());
        if let Some(webhook) = asked.ask::<Webhook>(out, Method::POST, &path, Some(&json!({}))).await? {
            webhook.print(out)?;
            webhook.print_secret(out)?;
            writeln!(out, "  the secret before it signs as well for a day")?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn test(&self, out: &mut impl Write) -> Result<ExitCode, ServerCommandError> {
        let client = self.server.client("webhooks", "webhooks", "")?;
        let path = format!("{}/test", self.path());
        let answer = client.ask(Method::POST, &path, Some(&json!({})), "application/json").await?;
        let outcome: Outcome = serde_json::from_slice(&answer).map_err(|_| client.stranger(StatusCode::OK))?;
        let Outcome { arrived, status, took_ms, failure } = outcome;
        if self.json {
            out.write_all(&answer)?;
            out.write_all(b"\n")?;
        } else if arrived {
            writeln!(out, "it arrived: {} after {took_ms} ms", status.unwrap_or_default())?;
        } else {
            writeln!(out, "it did not arrive: {} ({took_ms} ms)", failure.unwrap_or_default())?;
        }
        Ok(if arrived { ExitCode::SUCCESS } else { ExitCode::from(NOT_ARRIVED) })
    }
}

impl Replay {
    async fn run(&self, out: &mut impl Write) -> Result<ExitCode, ServerCommandError> {
        let asked = Asked::of(&self.server, self.json)?;
        let Which { given_up, since, after } = &self.which;
        let body = match (since, after) {
            (Some(since), _) => json!({ "since": since }),
            (None, Some(after)) => json!({ "after": after }),
            (None, None) => json!({ "givenUp": given_up }),
        };
        let path = format!("{}/replay", path_of(&self.id));
        if let Some(webhook) = asked.ask::<Webhook>(out, Method::POST, &path, Some(&body)).await? {
            webhook.print(out)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn path_of(id: &str) -> String {
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    format!("/v1/webhooks/{id}")
}
