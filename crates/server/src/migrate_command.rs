//! The command `throughline migrate`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::config::ServeOptions;
use crate::store::AppliedMigration;

/// Which database, and how to print what was done.
#[derive(Debug, Args)]
pub struct MigrateCommand {
    /// The database, as for `serve`
    #[arg(long, env = "THROUGHLINE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,

    /// The TOML file of `serve`; of its options only `database_url` is used
    #[arg(long, env = "THROUGHLINE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl MigrateCommand {
    /// The same database as options of `serve`.
    #[must_use]
    pub fn into_options(self) -> ServeOptions {
        ServeOptions { database_url: self.database_url, config: self.config, ..ServeOptions::default() }
    }
}

/// What was applied, for people.
#[must_use]
pub fn lines(applied: &[AppliedMigration]) -> String {
    let mut text = String::new();
    for AppliedMigration { version, description } in applied {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "applied {version}: {description}");
    }
    text.push_str("the tables are up to date\n");
    text
}

/// What was applied, for programs.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn json(applied: &[AppliedMigration]) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(&serde_json::json!({ "applied": applied }))? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_is_told_to_people_and_programs() {
        let applied = [AppliedMigration { version: 1, description: "sessions".to_owned() }];
        assert_eq!(lines(&applied), "applied 1: sessions\nthe tables are up to date\n");
        assert_eq!(lines(&[]), "the tables are up to date\n");
        let read: serde_json::Value = serde_json::from_str(&json(&applied).unwrap()).unwrap();
        assert_eq!(read, serde_json::json!({ "applied": [{ "version": 1, "description": "sessions" }] }));
        assert_eq!(json(&[]).unwrap(), "{\"applied\":[]}\n");
    }
}
