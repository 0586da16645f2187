//! `throughline privacy`: giving, removing and holding a buyer's data, by a server that runs.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use throughline_core::{EmailAddress, SessionId};

use crate::clock::{parse_rfc3339, rfc3339};
use crate::rest_client::{RestClient, RestError, ToldProblem};
use crate::server_argument::{
    MAX_BYTES, SERVICE_KEY, ServerArgument, ServerArgumentError, UnreadableFile, asked, read,
};

/// With what `privacy erase` ends where something of what was asked for is left.
const SOMETHING_IS_LEFT: u8 = 3;

const EXPORT_EXAMPLES: &str = "\
It asks a server that runs, with a service key that has the scope `privacy`: from THROUGHLINE_SERVICE_KEY or --service-key-file.
The address is read from a file, because everybody on the machine can read a command line. That it was asked for is in the audit
log. It ends with 0 also where there is nothing to give.

Examples:
  throughline privacy export --server https://checkout.example --service-key-file key --email-file ada.txt --output ada.json
  throughline privacy export --server https://checkout.example --session ws_m3k2x_9f2c --html --output ada.html
  throughline privacy export --server http://127.0.0.1:8787 --email-file - < ada.txt | jq '.sessions[].session.id'";

pub(crate) const ERASE_EXAMPLES: &str = "\
It can't be undone: each session's data key goes with its data. So it shows which sessions it is about, and asks. The same again
changes nothing more. Sessions that are held stay. It ends with 0 if nothing is left of what was asked for, with 3 if something is
held or could not be erased, and with 1 if nothing was erased: it was not confirmed, or the server refused it.

Examples:
  throughline privacy erase --server https://checkout.example --service-key-file key --email-file ada.txt
  throughline privacy erase --server https://checkout.example --session ws_m3k2x_9f2c --yes
  throughline privacy erase --server https://checkout.example --email-file - --yes --json < ada.txt > proof.json";

const HOLD_EXAMPLES: &str = "\
A session that is held is neither erased nor deleted, and goes on being usable. The reason is told to whoever wants it erased: what
the law asks for, without personal data. A new hold replaces the one before.

Examples:
  throughline privacy hold --server https://checkout.example --session ws_m3k2x_9f2c --reason \"the invoice is kept for 8 years\" \\
    --until 2034-01-01T00:00:00Z
  throughline privacy hold --server https://checkout.example --session ws_m3k2x_9f2c --end";

/// What a shop owes a buyer by law.
#[derive(Debug, Subcommand)]
pub enum PrivacyCommand {
    /// Give all data of an email address or session, with what each field is for
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(Export),
    /// Remove the personal data of an email address or session, for ever
    #[command(after_help = ERASE_EXAMPLES)]
    Erase(Erase),
    /// Keep a session from being erased and deleted, or end that
    #[command(after_help = HOLD_EXAMPLES)]
    Hold(Hold),
}

/// Whose data.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Subject {
    /// A file with the email address whose sessions are meant; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    email_file: Option<PathBuf>,
    /// The session that is meant
    #[arg(long, value_name = "ID", value_parser = session_id)]
    session: Option<SessionId>,
}

/// What is given, and where to.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    server: ServerArgument,
    #[command(flatten)]
    subject: Subject,
    /// Give a page to read or print instead of JSON
    #[arg(long)]
    html: bool,
    /// Write it into this new file, readable for its owner alone, instead of printing it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What is removed.
#[derive(Debug, Args)]
pub struct Erase {
    #[command(flatten)]
    server: ServerArgument,
    #[command(flatten)]
    subject: Subject,
    /// Ask nothing
    #[arg(long)]
    yes: bool,
    /// Print what became of each session as one JSON object
    #[arg(long)]
    json: bool,
}

/// What is held, and why.
#[derive(Debug, Args)]
pub struct Hold {
    #[command(flatten)]
    server: ServerArgument,
    /// The session
    #[arg(long, value_name = "ID", value_parser = session_id)]
    session: SessionId,
    /// Why, in 1 to 200 characters
    #[arg(long, value_name = "TEXT", required_unless_present = "end", conflicts_with = "end")]
    reason: Option<String>,
    /// Until when, such as 2034-01-01T00:00:00Z. Without it, until somebody ends it
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "end")]
    until: Option<String>,
    /// Hold it no more
    #[arg(long)]
    end: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Why nothing was done. No variant holds an address or a key.
#[derive(Debug, thiserror::Error)]
pub enum PrivacyError {
    /// No server can be asked.
    #[error(transparent)]
    Server(#[from] ServerArgumentError),
    /// A file can't be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableFile),
    /// Both are to come from the same place.
    #[error(
        "--service-key-file and --email-file can't both be standard input; put the key into a file, or into {SERVICE_KEY}"
    )]
    TwoFromStandardInput,
    /// Nothing was found.
    #[error(
        "nothing was erased: there is no session {session} that this service key may reach; check the id and whose key it is. One that was deleted since is gone too"
    )]
    NoSession {
        /// What was asked for.
        session: SessionId,
    },
    /// Nobody is named.
    #[error(
        "--email-file: what it holds is no email address such as name@example.com on one line; nothing was asked for"
    )]
    NoAddress,
    /// The result can't be written.
    #[error(
        "--output: the file {file:?} can't be made; name one that is not there yet, in a folder that can be written to"
    )]
    Unwritable {
        /// Which file.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The server does not do it.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// Nobody can answer.
    #[error(
        "nothing was erased: standard input holds the address, so nobody can be asked there; add --yes, or give --email-file FILE"
    )]
    NobodyToAsk,
    /// Somebody did not mean it.
    #[error("nothing was erased: only `yes` lets it happen, typed, or as the flag --yes")]
    NotConfirmed,
    /// Nothing can be printed or read.
    #[error("standard output can't be written to, or standard input not be read")]
    Terminal(#[from] io::Error),
    /// The operating system.
    #[error("the operating system did not let the command run")]
    System(#[source] io::Error),
}

/// What an export tells of each session, as far as it is shown before an erasure.
#[derive(Deserialize)]
struct Listed {
    sessions: Vec<ListedSession>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedSession {
    session: SessionFacts,
    hold: Option<HoldFacts>,
    erased_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionFacts {
    id: String,
    status: String,
    updated_at: String,
}

#[derive(Deserialize)]
struct HoldFacts {
    reason: String,
    until: Option<String>,
}

/// What became of an erasure.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Erasures {
    is_complete: bool,
    sessions: Vec<Erasure>,
}

#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Erasure {
    Erased { session_id: String, erased_at: String },
    Held { session_id: String, reason: String },
    Failed { session_id: String, problem: ToldProblem },
}

/// What became of commands.
#[derive(Deserialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Outcome {
    Accepted {},
    Rejected { reason: Reason },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reason {
    code: String,
    mendable_by: String,
    message: String,
}

impl PrivacyCommand {
    /// Does it, and prints to `out`; with what the process ends.
    ///
    /// # Errors
    /// See [`PrivacyError`].
    pub fn run(&self, out: &mut impl Write) -> Result<ExitCode, PrivacyError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PrivacyError::System)?;
        runtime.block_on(async {
            match self {
                Self::Export(command) => command.run(out).await,
                Self::Erase(command) => command.run(out).await,
                Self::Hold(command) => command.run(out).await,
            }
        })
    }
}

impl Subject {
    fn body(&self, server: &ServerArgument) -> Result<Value, PrivacyError> {
        if self.is_read_from_standard_input() && server.is_key_read_from_standard_input() {
            return Err(PrivacyError::TwoFromStandardInput);
        }
        if let Some(session) = &self.session {
            return Ok(json!({ "sessionId": session }));
        }
        let file = self.email_file.as_deref().ok_or(PrivacyError::NoAddress)?;
        let text = read("--email-file", file)?;
        let address = EmailAddress::new(text.trim()).map_err(|_| PrivacyError::NoAddress)?;
        Ok(json!({ "email": address }))
    }

    fn is_read_from_standard_input(&self) -> bool {
        self.email_file.as_deref() == Some(Path::new("-"))
    }
}

impl Export {
    async fn run(&self, out: &mut impl Write) -> Result<ExitCode, PrivacyError> {
        let subject = self.subject.body(&self.server)?;
        let client = client(&self.server)?;
        // Before the server is asked: whoever is given the data is told of in the audit log.
        let output = self.output.as_deref().map(|file| Ok::<_, PrivacyError>((create(file)?, file))).transpose()?;
        let accept = if self.html { "text/html" } else { "application/json" };
        let answer = client.post("/v1/privacy/export", &subject, accept).await;
        if let (Err(_), Some((_, file))) = (&answer, &output) {
            // It is empty, and was made just now.
            let _ = fs::remove_file(file);
        }
        let answer = answer?;
        match output {
            Some((mut created, file)) => {
                let unwritable = |source| PrivacyError::Unwritable { file: file.to_owned(), source };
                created.write_all(&answer).and_then(|()| created.sync_all()).map_err(unwritable)?;
                writeln!(out, "written to {}, readable for its owner alone", file.display())?;
            }
            None => {
                out.write_all(&answer)?;
                out.write_all(b"\n")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Erase {
    async fn run(&self, out: &mut impl Write) -> Result<ExitCode, PrivacyError> {
        if !self.yes && self.subject.is_read_from_standard_input() {
            return Err(PrivacyError::NobodyToAsk);
        }
        let subject = self.subject.body(&self.server)?;
        let client = client(&self.server)?;
        if !self.yes {
            let listed: Listed = asked(&client, "/v1/privacy/export", &subject).await?.1;
            if !listed.sessions.is_empty() {
                eprint!("{}Type `yes` to erase their personal data for ever: ", listed.lines());
                let mut answer = String::new();
                io::stdin().lock().take(MAX_BYTES).read_line(&mut answer)?;
                if answer.trim() != "yes" {
                    return Err(PrivacyError::NotConfirmed);
                }
            }
        }
        let (answer, erasures): (Value, Erasures) = asked(&client, "/v1/privacy/erase", &subject).await?;
        // An address may have none; an id that somebody wrote down has one, unless it is wrong.
        if let (true, Some(session)) = (erasures.sessions.is_empty(), &self.subject.session) {
            return Err(PrivacyError::NoSession { session: session.clone() });
        }
        if self.json {
            writeln!(out, "{answer:#}")?;
        } else {
            out.write_all(erasures.lines().as_bytes())?;
        }
        Ok(if erasures.is_complete { ExitCode::SUCCESS } else { ExitCode::from(SOMETHING_IS_LEFT) })
    }
}

impl Listed {
    fn lines(&self) -> String {
        let mut text = String::new();
        for ListedSession { session: SessionFacts { id, status, updated_at }, hold, erased_at } in &self.sessions {
            // Writing to a `String` cannot fail.
            let _ = match (erased_at, hold) {
                (Some(at), _) => writeln!(text, "{id}  erased before, {at}"),
                (None, Some(hold)) => writeln!(text, "{id}  held, stays: {}", hold.sentence()),
                (None, None) => writeln!(text, "{id}  {status}, last changed {updated_at}"),
            };
        }
        text
    }
}

impl HoldFacts {
    fn sentence(&self) -> String {
        match &self.until {
            Some(until) => format!("{} (until {until})", self.reason),
            None => self.reason.clone(),
        }
    }
}

impl Erasures {
    fn lines(&self) -> String {
        if self.sessions.is_empty() {
            return "there is no session with this address; nothing is left to erase\n".to_owned();
        }
        let mut text = String::new();
        for erasure in &self.sessions {
            // Writing to a `String` cannot fail.
            let _ = match erasure {
                Erasure::Erased { session_id, erased_at } => writeln!(text, "{session_id}  erased, {erased_at}"),
                Erasure::Held { session_id, reason } => writeln!(text, "{session_id}  not erased: {reason}"),
                Erasure::Failed { session_id, problem } => writeln!(text, "{session_id}  NOT erased: {problem}"),
            };
        }
        text
    }
}

impl Hold {
    async fn run(&self, out: &mut impl Write) -> Result<ExitCode, PrivacyError> {
        let client = client(&self.server)?;
        let hold = self.reason.as_ref().map(|reason| match &self.until {
            Some(until) => json!({ "reason": reason, "until": until }),
            None => json!({ "reason": reason }),
        });
        let id = self.session.as_str();
        let commands = json!({ "commands": [{ "type": "setHold", "hold": hold }] });
        let (_, outcomes): (Value, Outcomes) =
            asked(&client, &format!("/v1/sessions/{id}/commands"), &commands).await?;
        if let Some(Outcome::Rejected { reason: Reason { code, mendable_by, message } }) =
            outcomes.results.into_iter().find(|outcome| !matches!(outcome, Outcome::Accepted {}))
        {
            return Err(PrivacyError::Rest(RestError::Refused(Box::new(ToldProblem {
                title: "Refused by the rules".to_owned(),
                code,
                detail: Some(message),
                mendable_by: Some(mendable_by),
                retry_after_seconds: None,
                request_id: None,
            }))));
        }
        match (self.json, &self.reason, &self.until) {
            (true, _, _) => writeln!(out, "{}", json!({ "sessionId": id, "hold": hold }))?,
            (false, None, _) => writeln!(out, "the session {id} is not held any more")?,
            (false, Some(_), Some(until)) => writeln!(out, "the session {id} is held until {until}")?,
            (false, Some(_), None) => writeln!(out, "the session {id} is held until somebody ends it")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks the server, with a key that may.
fn client(server: &ServerArgument) -> Result<RestClient, PrivacyError> {
    Ok(server.client("privacy", "privacy", " and the buyer's data")?)
}

pub(crate) fn session_id(text: &str) -> Result<SessionId, String> {
    SessionId::new(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<String, String> {
    parse_rfc3339(text).map(rfc3339).ok_or_else(|| "write a time as 2034-01-31T12:00:00Z".to_owned())
}

/// A new file that only its owner can read.
fn create(file: &Path) -> Result<File, PrivacyError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    created.map_err(|source| PrivacyError::Unwritable { file: file.to_owned(), source })
}
