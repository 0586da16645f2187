//! Which server a command line asks, and with which service key.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::rest_client::{GivenKey, RestClient, RestError, ServerUrl};
use crate::service_key::PREFIX;

/// The variable with the service key.
pub(crate) const SERVICE_KEY: &str = "THROUGHLINE_SERVICE_KEY";

/// The variable that says where the server is.
pub(crate) const SERVER: &str = "THROUGHLINE_SERVER";

/// The variables that mean something to commands that ask a server.
pub(crate) const VARIABLES: [&str; 2] = [SERVER, SERVICE_KEY];

/// How much of a file is read that holds one line.
pub(crate) const MAX_BYTES: u64 = 64 * 1024;

/// Which server, and who asks it.
#[derive(Debug, Args)]
pub struct ServerArgument {
    /// The server, or one of several
    #[arg(long, env = SERVER, value_name = "URL")]
    server: ServerUrl,
    /// A file with the service key, instead of the variable THROUGHLINE_SERVICE_KEY
    #[arg(long, value_name = "FILE")]
    service_key_file: Option<PathBuf>,
    /// A file with the certificates of the authorities that are believed, instead of the public ones
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Why a command that asks a server, and does nothing else, did nothing.
#[derive(Debug, thiserror::Error)]
pub enum ServerCommandError {
    /// No server can be asked.
    #[error(transparent)]
    Server(#[from] ServerArgumentError),
    /// The server does not do it.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// Nothing can be printed.
    #[error("standard output cannot be written to")]
    Output(#[from] io::Error),
    /// The operating system.
    #[error("the operating system did not let the command run")]
    System(#[source] io::Error),
}

/// Why no server can be asked. No variant holds a key.
#[derive(Debug, thiserror::Error)]
pub enum ServerArgumentError {
    /// Nobody asks.
    #[error(
        "there is no service key to ask with; set {SERVICE_KEY}, or name a file that holds one with --service-key-file. `throughline service-keys create --name {for_what} --scope {scope}` makes one"
    )]
    NoKey {
        /// What a key for it would be called.
        for_what: &'static str,
        /// The scope that it needs.
        scope: &'static str,
    },
    /// Two ask.
    #[error("both {SERVICE_KEY} and --service-key-file are set; keep the one that is meant")]
    TwoKeys,
    /// A file can't be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableFile),
    /// What is given as the key is something else.
    #[error(
        "what is given as the service key is none: they begin with {PREFIX}. `throughline service-keys list` says which there are"
    )]
    NotAKey,
    /// No connection can be made.
    #[error(transparent)]
    Rest(#[from] RestError),
}

/// A file that an option names can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{option}: the file {file:?} can't be read; check the path and its permissions")]
pub struct UnreadableFile {
    option: &'static str,
    file: PathBuf,
    #[source]
    source: io::Error,
}

impl ServerArgument {
    pub(crate) fn is_key_read_from_standard_input(&self) -> bool {
        self.service_key_file.as_deref() == Some(Path::new("-"))
    }

    /// Asks the server, with a key that is `for_what` and has this scope; `what` is sent besides the key.
    pub(crate) fn client(
        &self,
        for_what: &'static str,
        scope: &'static str,
        what: &str,
    ) -> Result<RestClient, ServerArgumentError> {
        let key = self.key(std::env::var(SERVICE_KEY).ok(), for_what, scope)?;
        if self.server.is_in_the_clear() {
            eprintln!(
                "warning: the service key{what} go to {} in the clear; use https:// unless the network is yours alone",
                self.server
            );
        }
        Ok(RestClient::new(self.server.clone(), &key, self.ca_file.as_deref())?)
    }

    fn key(
        &self,
        variable: Option<String>,
        for_what: &'static str,
        scope: &'static str,
    ) -> Result<GivenKey, ServerArgumentError> {
        let none = || ServerArgumentError::NoKey { for_what, scope };
        let variable = variable.map(Zeroizing::new).filter(|text| !text.trim().is_empty());
        let text = match (variable, &self.service_key_file) {
            (Some(_), Some(_)) => return Err(ServerArgumentError::TwoKeys),
            (Some(text), None) => text,
            (None, Some(file)) => read("--service-key-file", file)?,
            (None, None) => return Err(none()),
        };
        let key = GivenKey::first_of(&text).ok_or_else(none)?;
        if key.is_service_key() { Ok(key) } else { Err(ServerArgumentError::NotAKey) }
    }
}

/// The answer to a request with a body, as it came and as what it says.
pub(crate) async fn asked<T: DeserializeOwned>(
    client: &RestClient,
    path: &str,
    body: &Value,
) -> Result<(Value, T), RestError> {
    let answer = client.post(path, body, "application/json").await?;
    let read = || Ok::<_, serde_json::Error>((serde_json::from_slice(&answer)?, serde_json::from_slice(&answer)?));
    read().map_err(|_| client.stranger(StatusCode::OK))
}

/// A file that holds a line, or standard input.
pub(crate) fn read(option: &'static str, file: &Path) -> Result<Zeroizing<String>, UnreadableFile> {
    let mut text = Zeroizing::new(String::new());
    let done = if file == Path::new("-") {
        io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        File::open(file).and_then(|opened| opened.take(MAX_BYTES).read_to_string(&mut text))
    };
    done.map_err(|source| UnreadableFile { option, file: file.to_owned(), source })?;
    Ok(text)
}
