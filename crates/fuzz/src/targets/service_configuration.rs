//! The server's configuration file.

use std::cell::RefCell;
use std::fs;

use tempfile::NamedTempFile;
use throughline_server::config::{Config, ServeOptions};

use crate::Outcome;

thread_local! {
    /// The server reads a file; one is enough.
    static FILE: RefCell<NamedTempFile> = RefCell::new(NamedTempFile::new().expect("a temporary file can be made"));
}

pub(super) fn run(input: &[u8]) -> Outcome {
    FILE.with_borrow(|file| {
        fs::write(file.path(), input).expect("the temporary file can be written");
        let options = ServeOptions { config: Some(file.path().to_owned()), ..ServeOptions::default() };
        match Config::resolve(options) {
            Ok((config, _)) => {
                assert!(!config.dev, "a file switched on the development mode");
                assert!(!config.lifetimes.idle.is_zero() && config.lifetimes.idle <= config.lifetimes.absolute);
                assert!(config.retention.shortest().is_none_or(|shortest| shortest >= config.lifetimes.absolute));
                assert!(config.database.writers < config.database.connections);
                assert!(config.max_connections > 0 && config.max_requests > 0 && config.body_limit > 0);
                assert!(!config.flush_interval.is_zero() && config.flush_interval.as_secs_f64() <= 1.0);
                Outcome::Taken
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                Outcome::Refused
            }
        }
    })
}
