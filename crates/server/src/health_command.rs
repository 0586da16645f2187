//! `throughline healthcheck`: whether a server that runs is ready, for where there is no other program to ask it.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use clap::Args;
use serde_json::Value;

use crate::rest_client::{RestClient, RestError, ServerUrl};
use crate::server_argument::SERVER;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// What help says in the end.
pub const EXAMPLES: &str = "\
It asks /readyz, and ends with 0 if the server takes commands, also where it works without one of its tiers; with 1 if it does not, or
does not answer within 4 s.

Examples:
  throughline healthcheck
  throughline healthcheck --server https://checkout.example";

/// Which server.
#[derive(Debug, Args)]
pub struct HealthCommand {
    /// The server
    #[arg(long, env = SERVER, value_name = "URL", default_value = "http://127.0.0.1:8787")]
    server: ServerUrl,
    /// A file with the certificates of the authorities that are believed, instead of the public ones
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Why a server does not count as ready.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// No answer.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// None in time.
    #[error("the server at {server} did not answer within {} s", PATIENCE.as_secs())]
    Silent {
        /// Where.
        server: ServerUrl,
    },
    /// It says that it is not.
    #[error("the server at {server} is not ready: {told}")]
    NotReady {
        /// Where.
        server: ServerUrl,
        /// What it said.
        told: Value,
    },
    /// The operating system does not let anybody be asked.
    #[error("the operating system did not let the server be asked")]
    System(#[from] std::io::Error),
}

impl HealthCommand {
    /// What the server said, if it is ready.
    ///
    /// # Errors
    /// See [`HealthError`].
    pub fn run(self) -> Result<String, HealthError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = RestClient::without_key(self.server.clone(), self.ca_file.as_deref())?;
        let asking = client.exchange(Method::GET, "/readyz", None, "application/json");
        let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await });
        let (status, body) = answer.map_err(|_| HealthError::Silent { server: self.server.clone() })??;
        let told: Value = serde_json::from_slice(&body).map_err(|_| client.stranger(status))?;
        if told["status"].as_str().is_none() {
            return Err(client.stranger(status).into());
        }
        if status != StatusCode::OK {
            return Err(HealthError::NotReady { server: self.server, told });
        }
        Ok(format!("{told}\n"))
    }
}
