//! `throughline service-keys`: making, listing and revoking the service keys of a database.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use throughline_core::Caller;

use crate::clock::{millis, rfc3339};
use crate::config::{self, ConfigError, ServeOptions};
use crate::keys::KeyRing;
use crate::keys::ring_text::VARIABLE;
use crate::keys_command::{KeysError, Ring};
use crate::scope::Scope;
use crate::service_keys::{self, Author, CreateError, NewServiceKey, RevokeError, ServiceKeyName};
use crate::store::{self, DatabaseSettings, OpenError, ReadError, Revocation, Store, StoredServiceKey};
use crate::tenant::TenantId;

const CREATE_EXAMPLES: &str = "\
The key is printed this once, and only its hash is kept. Servers that run know it within a second. It is made together with a record
in the audit log, for which the servers' key ring is needed (--keys-file, --keys-command, --config or THROUGHLINE_KEYS).

Scopes: sessions:read, sessions:write, payments (what the payment gateway says), privacy (erasure), operator (service keys, and
the tiers above the database).

Examples:
  throughline service-keys create --name \"back end\" --scope sessions:read --scope sessions:write --scope payments
  throughline service-keys create --name prometheus --scope sessions:read --expires-in 90d --tenant shop-a
  throughline service-keys create --name admin --scope operator --config throughline.toml --json | jq -r .key";

const LIST_EXAMPLES: &str = "\
Bootstrap keys, which `throughline keys generate` makes for the configuration, are not among them.

Examples:
  throughline service-keys list --config throughline.toml
  throughline service-keys list --tenant shop-a --json | jq '.[] | select(.lastUsedAt == null)'";

const REVOKE_EXAMPLES: &str = "\
For ever. Running servers refuse the key within a second, and the session tokens that it had made, and end the sockets of
either. That it was revoked is in the audit log, for which the servers' key ring is needed, as for `create`. To go over to
another key without a gap: create it, let the back end use it, see in the list that the old one is used no more, and revoke that.

Examples:
  throughline service-keys list --config throughline.toml
  throughline service-keys revoke 8f0c1d2e3a4b5c6d --config throughline.toml";

/// Service keys of the database.
#[derive(Debug, Subcommand)]
pub enum ServiceKeysCommand {
    /// Make a service key and print it, this once
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Say which service keys there are, what they may do, and when they were last used; no secrets
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Have a service key refused, for ever
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(Revoke),
}

/// Which database.
#[derive(Debug, Args)]
pub struct Database {
    /// The database of the servers, as for `serve`
    #[arg(long, env = "THROUGHLINE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The TOML file of `serve`; of its options only the database's are used
    #[arg(long, env = "THROUGHLINE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is to be made.
#[derive(Debug, Args)]
pub struct Create {
    /// What people call it: what it is for, without personal data; 1 to 64 characters
    #[arg(long, value_name = "NAME")]
    name: ServiceKeyName,
    /// What it may do; several times for several scopes
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<Scope>,
    /// After which time it is refused, such as 90d. Without it, never
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<humantime::Duration>,
    /// Whose sessions it reaches
    #[arg(long, default_value = "default", value_name = "NAME")]
    tenant: TenantId,
    #[command(flatten)]
    ring: Ring,
}

/// Whose.
#[derive(Debug, Args)]
pub struct List {
    /// Only those of this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantId>,
    #[command(flatten)]
    database: Database,
}

/// Which key.
#[derive(Debug, Args)]
pub struct Revoke {
    /// The key's short name, as `service-keys list` prints it
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    ring: Ring,
}

/// Why nothing was done about service keys.
#[derive(Debug, thiserror::Error)]
pub enum ServiceKeysError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database can't be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The database can't be asked.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The key ring can't be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Nobody could believe the audit log's record.
    #[error(
        "there is no key ring, and without the servers' own nothing can be written to the audit log, so no service key is made or revoked: name it with --keys-file, --keys-command, --config or {VARIABLE}. Without it, an operator does that over HTTP: `/v1/service-keys`"
    )]
    NoRing,
    /// It is another ring.
    #[error(
        "the key ring is not the one that the servers of this database have: the audit log of {tenant} ends under the key {key}, which is not in it. Give the servers' ring; no service key was made or revoked"
    )]
    OtherRing {
        /// Whose chain.
        tenant: String,
        /// The public name of the key.
        key: String,
    },
    /// No key was made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// No key was revoked.
    #[error(transparent)]
    Revoke(#[from] RevokeError),
    /// The key would never be good.
    #[error("the key would be refused from the start; give a longer time to --expires-in, for example 90d")]
    ExpiresAtOnce,
    /// No such key.
    #[error(
        "the database has no service key {id}; `throughline service-keys list` prints those that it has. Bootstrap keys are taken out of THROUGHLINE_SERVICE_KEY_HASHES or --service-key-hashes-file"
    )]
    NoSuchKey {
        /// The name.
        id: String,
    },
    /// The operating system.
    #[error("the operating system did not let the command run")]
    System(#[source] io::Error),
    /// The outcome can't be written as JSON.
    #[error("the outcome cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// A key, as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    id: &'a str,
    tenant: &'a str,
    name: &'a str,
    scopes: Vec<Scope>,
    created_at: String,
    created_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<String>,
}

impl<'a> Printed<'a> {
    fn of(stored: &'a StoredServiceKey, key: Option<&'a str>) -> Self {
        Self {
            key,
            id: &stored.id,
            tenant: stored.tenant.as_str(),
            name: &stored.name,
            scopes: stored.scopes.iter().collect(),
            created_at: rfc3339(stored.created_at_ms),
            created_by: &stored.created_by,
            expires_at: stored.expires_at_ms.map(rfc3339),
            revoked_at: stored.revoked_at_ms.map(rfc3339),
            last_used_at: stored.last_used_at_ms.map(rfc3339),
        }
    }
}

impl ServiceKeysCommand {
    /// Does it, and answers what to print.
    ///
    /// # Errors
    /// See [`ServiceKeysError`].
    pub fn run(&self, now_ms: i64) -> Result<String, ServiceKeysError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServiceKeysError::System)?;
        runtime.block_on(async {
            let (store, outcome) = match self {
                Self::Create(command) => {
                    let (store, keys) = opened_with_keys(&command.ring).await?;
                    let outcome = command.create(&*store, &keys, now_ms).await;
                    (store, outcome)
                }
                Self::List(command) => {
                    let store = opened(command.database.options()?).await?;
                    let outcome = command.list(&*store, now_ms).await;
                    (store, outcome)
                }
                Self::Revoke(command) => {
                    let (store, keys) = opened_with_keys(&command.ring).await?;
                    let outcome = command.revoke(&*store, &keys, now_ms).await;
                    (store, outcome)
                }
            };
            store.close().await;
            outcome
        })
    }
}

impl Database {
    fn options(&self) -> Result<ServeOptions, ServiceKeysError> {
        let (database_url, config) = (self.database_url.clone(), self.config.clone());
        Ok(config::merged(ServeOptions { database_url, config, ..ServeOptions::default() })?)
    }
}

async fn opened(options: ServeOptions) -> Result<Arc<dyn Store>, ServiceKeysError> {
    let settings = DatabaseSettings { auto_migrate: false, ..config::database_settings(options)? };
    Ok(store::open(&settings).await?)
}

/// The database, and the key ring by which its servers believe what is written to their audit log.
async fn opened_with_keys(ring: &Ring) -> Result<(Arc<dyn Store>, KeyRing), ServiceKeysError> {
    let keys = ring.key_ring().map_err(|error| match error {
        KeysError::NoRing => ServiceKeysError::NoRing,
        error => error.into(),
    })?;
    let store = opened(ring.options()?).await?;
    let heads = store.audit_heads().await?;
    match heads.into_iter().find(|(_, head)| keys.reads(&head.key_id).is_none()) {
        Some((tenant, head)) => Err(ServiceKeysError::OtherRing { tenant, key: head.key_id }),
        None => Ok((store, keys)),
    }
}

fn author(keys: &KeyRing) -> Author<'_> {
    Author { role: "cli", caller: Caller::default(), keys }
}

impl Create {
    async fn create(&self, store: &dyn Store, keys: &KeyRing, now_ms: i64) -> Result<String, ServiceKeysError> {
        let expires_at_ms = self.expires_in.map(|after| now_ms.saturating_add(millis(Duration::from(after))));
        if expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return Err(ServiceKeysError::ExpiresAtOnce);
        }
        let new = NewServiceKey {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            scopes: self.scopes.iter().copied().collect(),
            expires_at_ms,
            created_by: "cli".to_owned(),
        };
        let (key, stored) = service_keys::create(store, new, &author(keys), now_ms).await?;
        if self.ring.json() {
            return Ok(serde_json::to_string_pretty(&Printed::of(&stored, Some(key.reveal())))? + "\n");
        }
        let until = stored
            .expires_at_ms
            .map_or_else(|| "until it is revoked".to_owned(), |at_ms| format!("until {}", rfc3339(at_ms)));
        Ok(format!(
            "{}\n# {} ({}), for {} of {}, {until}; the key is shown this once\n",
            key.reveal(),
            stored.id,
            stored.name,
            stored.scopes,
            stored.tenant
        ))
    }
}

impl List {
    async fn list(&self, store: &dyn Store, now_ms: i64) -> Result<String, ServiceKeysError> {
        let keys = store.service_keys(self.tenant.as_ref()).await?;
        if self.database.json {
            let printed: Vec<Printed<'_>> = keys.iter().map(|stored| Printed::of(stored, None)).collect();
            return Ok(serde_json::to_string_pretty(&printed)? + "\n");
        }
        let width =
            |of: fn(&StoredServiceKey) -> usize, least: usize| keys.iter().map(of).max().unwrap_or(0).max(least);
        let tenants = width(|key| key.tenant.as_str().len(), 6) + 2;
        let names = width(|key| key.name.chars().count(), 4) + 2;
        let mut text = format!(
            "{:<18}{:<tenants$}{:<names$}{:<9}{:<26}{:<26}scopes\n",
            "key", "tenant", "name", "state", "expires", "last used"
        );
        for stored in &keys {
            let state = match (stored.revoked_at_ms, stored.expires_at_ms) {
                (Some(_), _) => "revoked",
                (None, Some(at_ms)) if at_ms <= now_ms => "expired",
                _ => "good",
            };
            let time = |at_ms: Option<i64>| at_ms.map_or_else(|| "-".to_owned(), rfc3339);
            let (expires, used) = (time(stored.expires_at_ms), time(stored.last_used_at_ms));
            let StoredServiceKey { id, tenant, name, scopes, .. } = stored;
            // Writing to a `String` cannot fail.
            let _ = writeln!(
                text,
                "{id:<18}{:<tenants$}{name:<names$}{state:<9}{expires:<26}{used:<26}{scopes}",
                tenant.as_str()
            );
        }
        Ok(text)
    }
}

impl Revoke {
    async fn revoke(&self, store: &dyn Store, keys: &KeyRing, now_ms: i64) -> Result<String, ServiceKeysError> {
        let id = &self.id;
        let no_such_key = || ServiceKeysError::NoSuchKey { id: id.clone() };
        let known = store.service_keys(None).await?.into_iter().find(|key| key.id == *id).ok_or_else(no_such_key)?;
        let revocation = service_keys::revoke(store, &known.tenant, id, &author(keys), now_ms).await?;
        if revocation == Revocation::Unknown {
            return Err(no_such_key());
        }
        if self.ring.json() {
            return Ok(serde_json::to_string(&serde_json::json!({ "revoked": id }))? + "\n");
        }
        Ok(match revocation {
            Revocation::Revoked => format!("the key {id} is revoked; servers refuse it within a second\n"),
            _ => format!("the key {id} was revoked before\n"),
        })
    }
}
