//! The command `throughline doctor`.

use std::collections::BTreeMap;

use clap::Args;

use crate::config::ServeOptions;
use crate::doctor::{self, Status};

/// What to look at, and how to tell it.
#[derive(Debug, Args)]
pub struct DoctorCommand {
    #[command(flatten)]
    options: ServeOptions,

    /// How many servers there will be, to tell whether the database has connections for all of them
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    servers: usize,

    /// Let warnings fail as well
    #[arg(long)]
    strict: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl DoctorCommand {
    /// Looks at everything; the text to print, and whether all is well.
    ///
    /// # Errors
    /// When the report cannot be written as JSON.
    pub async fn run(self) -> Result<(String, bool), serde_json::Error> {
        // What is no text is no variable of ours.
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let report = doctor::examine(self.options, self.servers.max(1), &environment).await;
        let is_well = match report.status() {
            Status::Ok => true,
            Status::Warning => !self.strict,
            Status::Error => false,
        };
        Ok((if self.json { report.json()? } else { report.lines() }, is_well))
    }
}
