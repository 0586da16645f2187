//! `throughline keys generate`: the keys that a server needs, ready to be pasted.

use serde::Serialize;

use crate::email_lookup::{EmailLookup, NoRandomLookupKey};
use crate::service_key::{Scope, ServiceKey, ServiceKeyError};
use crate::tenant::TenantId;
use crate::token::{TokenKey, TokenKeyError};

/// Keys in the clear, to be shown once.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewKeys {
    token_key: String,
    token_key_id: String,
    service_key: String,
    service_key_hash: String,
    lookup_key: String,
}

/// Why no keys were made.
#[derive(Debug, thiserror::Error)]
pub enum NewKeysError {
    /// No token key.
    #[error("no token key was made")]
    Token(#[from] TokenKeyError),
    /// No service key.
    #[error("no service key was made")]
    Service(#[from] ServiceKeyError),
    /// No look-up key.
    #[error("no look-up key was made")]
    Lookup(#[from] NoRandomLookupKey),
}

impl NewKeys {
    /// Makes a token key, a look-up key, and a service key of `tenant`.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate(tenant: TenantId, scope: Scope) -> Result<Self, NewKeysError> {
        let token_key = TokenKey::generate()?;
        let service_key = ServiceKey::generate()?;
        Ok(Self {
            token_key: token_key.reveal()?,
            token_key_id: token_key.id().to_owned(),
            service_key: service_key.reveal().to_owned(),
            service_key_hash: service_key.known_as(tenant, scope).to_string(),
            lookup_key: EmailLookup::generate()?.reveal(),
        })
    }

    /// Lines for an environment file.
    #[must_use]
    pub fn lines(&self) -> String {
        format!(
            "THROUGHLINE_TOKEN_KEY={}\nTHROUGHLINE_SERVICE_KEY_HASHES={}\nTHROUGHLINE_LOOKUP_KEY={}\n# service key, give it to the shop's back end: {}\n",
            self.token_key, self.service_key_hash, self.lookup_key, self.service_key
        )
    }

    /// One JSON object.
    ///
    /// # Errors
    /// When the object cannot be written, which plain texts never cause.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_lines_start_a_server_that_knows_the_printed_key() {
        let keys = NewKeys::generate(TenantId::single(), Scope::Service).unwrap();
        let lines = keys.lines();
        let value =
            |name: &str| lines.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).map(str::to_owned);
        let options = crate::config::ServeOptions::default();
        let secrets = crate::config::Secrets::load(&options, value).unwrap();
        let (_, key) = lines.rsplit_once(": ").unwrap();
        assert!(secrets.service_keys.recognise(key.trim()).is_some());
        assert!(secrets.email_lookup.is_some());
    }
}
