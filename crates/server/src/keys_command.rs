//! `throughline keys`: making, rotating and retiring the keys of a server.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::clock::{millis, rfc3339};
use crate::config::{self, ConfigError, ServeOptions};
use crate::keys::ring_text::{RingText, VARIABLE};
use crate::keys::source::{KeySource, KeySourceError, lock_file, write_file};
use crate::keys::{KeyRing, KeyRingError, RootKey, RootKeyError};
use crate::service_key::{BootstrapRole, ServiceKey, ServiceKeyError};
use crate::store::{self, DatabaseSettings, OpenError, ReadError, Store};
use crate::tenant::TenantId;

const GENERATE_EXAMPLES: &str = "\
The service key is a bootstrap key: its hash stands in the configuration, it never expires, and taking it away needs a restart
of every server. For keys with a name, scopes and an end, which are revoked within a second: `throughline service-keys create`.

Examples:
  throughline keys generate > throughline.env
  throughline keys generate --keys-file /run/secrets/throughline-keys
  throughline keys generate --tenant shop-a --operator --json";

const ROTATE_EXAMPLES: &str = "\
The new key is used from some time on, so that every server has read the file before the first one uses it. Nobody is
logged out: the old keys stay good until they are retired. Sessions are brought under the new key by the servers
themselves, within minutes.

Examples:
  throughline keys rotate --keys-file /run/secrets/throughline-keys
  throughline keys rotate --keys-file keys --after 10m     where files reach the servers slowly";

const RETIRE_EXAMPLES: &str = "\
Tokens of a retired key are refused. So it is not done while the key is used for what is new, or while tokens that it made
may still be renewed. Sessions under it can be read, and are brought under the newest key by the servers.

Examples:
  throughline keys list --config throughline.toml
  throughline keys retire 8f0c1d2e3a4b5c6d --config throughline.toml
  throughline keys retire 8f0c1d2e3a4b5c6d --keys-file keys --force    the key has leaked: its tokens end now";

const FORGET_EXAMPLES: &str = "\
What is under a forgotten key can never be read again. So only a retired key is forgotten, and only when the database, which
has to be given, has no session under it.

Examples:
  throughline keys list --config throughline.toml
  throughline keys forget 8f0c1d2e3a4b5c6d --config throughline.toml";

/// Keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print a new key ring and a bootstrap service key for the configuration, each shown only this once
    #[command(after_help = GENERATE_EXAMPLES)]
    Generate(Generate),
    /// Say which keys the ring has, what each is used for, and how many sessions are under it; no secrets
    List(Ring),
    /// Add a new key to the ring's file, to be used for what is new
    #[command(after_help = ROTATE_EXAMPLES)]
    Rotate(Rotate),
    /// Have a key's tokens refused
    #[command(after_help = RETIRE_EXAMPLES)]
    Retire(Retire),
    /// Take a retired key out of the ring's file
    #[command(after_help = FORGET_EXAMPLES)]
    Forget(Forget),
}

/// What is to be made.
#[derive(Debug, Args)]
pub struct Generate {
    /// Whose sessions the bootstrap key reaches
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub tenant: TenantId,
    /// Let the service key do everything (all scopes) instead of what a shop's back end needs (all but `operator`)
    #[arg(long)]
    pub operator: bool,
    /// Write the key ring into this new file, readable for its owner alone, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub keys_file: Option<PathBuf>,
    /// Print one JSON object instead of lines for an environment file
    #[arg(long)]
    pub json: bool,
}

/// Which ring, and which database.
#[derive(Debug, Args)]
pub struct Ring {
    /// The file with the key ring, as for `serve`
    #[arg(long, env = "THROUGHLINE_KEYS_FILE", value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// The command that prints the key ring, as for `serve`
    #[arg(long, env = "THROUGHLINE_KEYS_COMMAND", value_name = "COMMAND")]
    keys_command: Option<String>,
    /// The database, as for `serve`
    #[arg(long, env = "THROUGHLINE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The TOML file of `serve`; of its options only those above are used
    #[arg(long, env = "THROUGHLINE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Which file, and when the new key is used.
#[derive(Debug, Args)]
pub struct Rotate {
    #[command(flatten)]
    ring: Ring,
    /// From when on the new key is used: longer than it takes until all servers have read the file
    #[arg(long, default_value = "2m", value_name = "DURATION")]
    after: humantime::Duration,
}

/// Which key.
#[derive(Debug, Args)]
pub struct Retire {
    /// The key's name, as `keys list` prints it
    #[arg(value_name = "KEY")]
    id: String,
    #[command(flatten)]
    ring: Ring,
    /// How long the servers let tokens be renewed, as for `serve`
    #[arg(long, env = "THROUGHLINE_TOKEN_MAX_AGE", value_name = "DURATION")]
    token_max_age: Option<humantime::Duration>,
    /// Also where tokens that are good end by it
    #[arg(long)]
    force: bool,
}

/// Which key.
#[derive(Debug, Args)]
pub struct Forget {
    /// The key's name, as `keys list` prints it
    #[arg(value_name = "KEY")]
    id: String,
    #[command(flatten)]
    ring: Ring,
    /// Also where sessions are under it, which nobody can ever read again then
    #[arg(long)]
    lose_sessions: bool,
}

/// Why nothing was done about keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// No root key.
    #[error("no key was made")]
    RootKey(#[from] RootKeyError),
    /// No service key.
    #[error("no service key was made")]
    Service(#[from] ServiceKeyError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The ring can't be read or written.
    #[error(transparent)]
    Source(#[from] KeySourceError),
    /// The keys are no ring.
    #[error("the keys cannot be used together")]
    Ring(#[from] KeyRingError),
    /// No ring was named.
    #[error("there is no key ring to work on; name it with --keys-file, --keys-command, --config or {VARIABLE}")]
    NoRing,
    /// A ring that is not a file can't be changed here.
    #[error(
        "only a file can be changed here; put the key ring where {origin} comes from yourself: a new entry is `tlr_…@TIME`, a retired one `retired:tlr_…`"
    )]
    NotAFile {
        /// Where the ring comes from.
        origin: String,
    },
    /// The file is there already.
    #[error("{file:?} is there already, and may hold keys that sessions need; give another name, or `keys rotate` it")]
    Exists {
        /// Which file.
        file: PathBuf,
    },
    /// No such key.
    #[error("the key ring has no key {id}; `throughline keys list` prints those that it has")]
    NoSuchKey {
        /// The name.
        id: String,
    },
    /// It is needed.
    #[error("the key {id} is needed still: {why}")]
    Needed {
        /// The name.
        id: String,
        /// What for.
        why: String,
    },
    /// The database can't be asked.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The database can't be asked.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The operating system.
    #[error("the operating system did not let the command run")]
    System(#[source] io::Error),
    /// The outcome can't be written as JSON.
    #[error("the outcome cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl KeysCommand {
    /// Does it, and answers what to print.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn run(&self, now_ms: i64) -> Result<String, KeysError> {
        match self {
            Self::Generate(command) => generate(command),
            Self::List(ring) => ring.list(now_ms),
            Self::Rotate(command) => command.rotate(now_ms),
            Self::Retire(command) => command.retire(now_ms),
            Self::Forget(command) => command.forget(),
        }
    }
}

/// Keys in the clear, to be shown once.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewKeys<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<&'a str>,
    key_id: &'a str,
    service_key: &'a str,
    service_key_hash: String,
}

fn generate(command: &Generate) -> Result<String, KeysError> {
    let Generate { tenant, operator, keys_file, json } = command;
    let root = RootKey::generate(None)?;
    let (id, secret) = (root.id().to_owned(), root.reveal());
    let service_key = ServiceKey::generate()?;
    let role = if *operator { BootstrapRole::Operator } else { BootstrapRole::Service };
    let service_key_hash = service_key.known_as(tenant.clone(), role).to_string();
    if let Some(file) = keys_file {
        let _lock = lock_file(file)?;
        if file.exists() {
            return Err(KeysError::Exists { file: file.clone() });
        }
        write_file(file, &RingText { keys: vec![root], retired: Vec::new() })?;
    }
    let keys = keys_file.is_none().then(|| secret.as_str());
    if *json {
        let keys = NewKeys { keys, key_id: &id, service_key: service_key.reveal(), service_key_hash };
        return Ok(serde_json::to_string_pretty(&keys)? + "\n");
    }
    let ring = match (keys, keys_file) {
        (Some(keys), _) => format!("{VARIABLE}={keys}"),
        (None, Some(file)) => format!("THROUGHLINE_KEYS_FILE={}", file.display()),
        (None, None) => String::new(),
    };
    let service_key = service_key.reveal();
    Ok(format!(
        "{ring}\nTHROUGHLINE_SERVICE_KEY_HASHES={service_key_hash}\n# service key, give it to the shop's back end: {service_key}\n"
    ))
}

/// A key, as it is listed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedKey {
    id: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u64>,
}

impl Ring {
    pub(crate) fn options(&self) -> Result<ServeOptions, KeysError> {
        let options = ServeOptions {
            keys_file: self.keys_file.clone(),
            keys_command: self.keys_command.clone(),
            database_url: self.database_url.clone(),
            config: self.config.clone(),
            ..ServeOptions::default()
        };
        Ok(config::merged(options)?)
    }

    pub(crate) fn source(&self) -> Result<KeySource, KeysError> {
        let source = config::key_source(&self.options()?, |name| std::env::var(name).ok())?;
        source.ok_or(KeysError::NoRing)
    }

    /// The ring, for what is authenticated by it.
    pub(crate) fn key_ring(&self) -> Result<KeyRing, KeysError> {
        Ok(KeyRing::of(self.source()?.read()?)?)
    }

    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// The ring as a file that can be written, and the lock under which that has to be done.
    fn file(&self) -> Result<(PathBuf, RingText, File), KeysError> {
        let source = self.source()?;
        let KeySource::File(file) = &source else {
            return Err(KeysError::NotAFile { origin: format!("{source:?}") });
        };
        let lock = lock_file(file)?;
        Ok((file.clone(), source.read()?, lock))
    }

    /// How many sessions the database has under each key; `None` where no database is given.
    fn sessions(&self) -> Result<Option<Vec<(String, u64)>>, KeysError> {
        self.ask(async |store| store.sessions_by_root_key().await)
    }

    /// Under which keys the chains of the audit log are sealed; `None` where no database is given.
    fn audit_heads(&self) -> Result<Option<Vec<String>>, KeysError> {
        self.ask(async |store| Ok(store.audit_heads().await?.into_iter().map(|(_, head)| head.key_id).collect()))
    }

    /// What the database answers; `None` where none is given.
    fn ask<T>(&self, question: impl AsyncFnOnce(&dyn Store) -> Result<T, ReadError>) -> Result<Option<T>, KeysError> {
        let options = self.options()?;
        if options.database_url.is_none() {
            return Ok(None);
        }
        let settings = DatabaseSettings { auto_migrate: false, ..config::database_settings(options)? };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(KeysError::System)?;
        runtime.block_on(async {
            let store = store::open(&settings).await?;
            let answer = question(&*store).await?;
            store.close().await;
            Ok(Some(answer))
        })
    }

    fn list(&self, now_ms: i64) -> Result<String, KeysError> {
        let ring = KeyRing::of(self.source()?.read()?)?;
        let (current, counts) = (ring.current(now_ms), self.sessions()?);
        let count = |id: &str| {
            let counts = counts.as_ref()?;
            Some(counts.iter().find(|(counted, _)| counted == id).map_or(0, |(_, count)| *count))
        };
        let mut listed = Vec::new();
        for key in ring.all() {
            let state = match key.from_ms() {
                _ if key.id() == current.id() => "current",
                Some(from_ms) if from_ms > now_ms => "next",
                _ => "accepted",
            };
            let from = key.from_ms().map(rfc3339);
            listed.push(ListedKey { id: key.id().to_owned(), state, from, sessions: count(key.id()) });
        }
        for key in ring.retired() {
            let sessions = count(key.id());
            listed.push(ListedKey { id: key.id().to_owned(), state: "retired", from: None, sessions });
        }
        for (id, sessions) in counts.iter().flatten() {
            if listed.iter().all(|key| key.id != *id) {
                listed.push(ListedKey { id: id.clone(), state: "missing", from: None, sessions: Some(*sessions) });
            }
        }
        if self.json {
            return Ok(serde_json::to_string_pretty(&listed)? + "\n");
        }
        let mut text = format!("{:<18}{:<10}{:<26}sessions\n", "key", "state", "used from");
        for ListedKey { id, state, from, sessions } in &listed {
            let from = from.as_deref().unwrap_or("-");
            let sessions = sessions.map_or_else(|| "-".to_owned(), |count| count.to_string());
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{id:<18}{state:<10}{from:<26}{sessions}");
        }
        Ok(text)
    }
}

impl Rotate {
    fn rotate(&self, now_ms: i64) -> Result<String, KeysError> {
        let (file, mut ring, _lock) = self.ring.file()?;
        let from_ms = now_ms.saturating_add(millis(Duration::from(self.after)));
        let key = RootKey::generate(Some(from_ms))?;
        let id = key.id().to_owned();
        ring.keys.insert(0, key);
        checked(&ring)?;
        write_file(&file, &ring)?;
        let from = rfc3339(from_ms);
        if self.ring.json {
            return Ok(serde_json::to_string(&serde_json::json!({ "id": id, "from": from }))? + "\n");
        }
        Ok(format!("the key {id} is used from {from} on; have every server read {} before\n", file.display()))
    }
}

impl Retire {
    fn retire(&self, now_ms: i64) -> Result<String, KeysError> {
        let (file, mut ring, _lock) = self.ring.file()?;
        let Some(place) = ring.keys.iter().position(|key| key.id() == self.id) else {
            return Err(KeysError::NoSuchKey { id: self.id.clone() });
        };
        if !self.force {
            self.check(&ring, now_ms)?;
        }
        let key = ring.keys.remove(place);
        ring.retired.push(key);
        checked(&ring)?;
        write_file(&file, &ring)?;
        if self.ring.json {
            return Ok(serde_json::to_string(&serde_json::json!({ "retired": self.id }))? + "\n");
        }
        Ok(format!(
            "the key {} is retired; servers that read {} refuse its tokens within 30 s\n",
            self.id,
            file.display()
        ))
    }

    /// Whether no token of the key can be good any more.
    fn check(&self, ring: &RingText, now_ms: i64) -> Result<(), KeysError> {
        let needed = |why: String| Err(KeysError::Needed { id: self.id.clone(), why });
        let keys = KeyRing::of(RingText::parse(&ring.lines()).map_err(KeyRingError::from)?)?;
        let current = keys.current(now_ms);
        if current.id() == self.id {
            return needed("it is used for what is new; `throughline keys rotate` first".to_owned());
        }
        let options = ServeOptions { token_max_age: self.token_max_age, ..self.ring.options()? };
        let lifetimes = config::token_lifetimes(options)?;
        let is_future = ring.keys.iter().any(|key| key.id() == self.id && key.from_ms() > Some(now_ms));
        let until_ms = match current.from_ms() {
            _ if is_future => return Ok(()),
            Some(from_ms) => from_ms.saturating_add(millis(lifetimes.absolute)),
            None => {
                return needed(format!(
                    "since when {} is used instead can't be told, nor when tokens of the other end; --force retires it all the same",
                    current.id()
                ));
            }
        };
        if until_ms > now_ms {
            let until = rfc3339(until_ms);
            return needed(format!("tokens that it made may be good until {until}; --force retires it all the same"));
        }
        Ok(())
    }
}

impl Forget {
    fn forget(&self) -> Result<String, KeysError> {
        let (file, mut ring, _lock) = self.ring.file()?;
        let needed = |why: String| Err(KeysError::Needed { id: self.id.clone(), why });
        if ring.keys.iter().any(|key| key.id() == self.id) {
            return needed("it is not retired; `throughline keys retire` first".to_owned());
        }
        let Some(place) = ring.retired.iter().position(|key| key.id() == self.id) else {
            return Err(KeysError::NoSuchKey { id: self.id.clone() });
        };
        if !self.lose_sessions {
            let counts = match self.ring.sessions()? {
                None => {
                    return needed(
                        "nobody can tell whether sessions are under it; give --database-url or --config".to_owned(),
                    );
                }
                Some(counts) => counts,
            };
            if let Some((_, count)) = counts.iter().find(|(id, count)| *id == self.id && *count > 0) {
                return needed(format!(
                    "{count} sessions are under it; running servers bring them under the newest key within minutes"
                ));
            }
            if self.ring.audit_heads()?.is_some_and(|keys| keys.contains(&self.id)) {
                return needed(
                    "the audit log is sealed under it; a running server brings it under the newest key within seconds"
                        .to_owned(),
                );
            }
        }
        ring.retired.remove(place);
        checked(&ring)?;
        write_file(&file, &ring)?;
        if self.ring.json {
            return Ok(serde_json::to_string(&serde_json::json!({ "forgotten": self.id }))? + "\n");
        }
        Ok(format!("the key {} is forgotten\n", self.id))
    }
}

/// Nothing is written that no server would start with.
fn checked(ring: &RingText) -> Result<(), KeysError> {
    KeyRing::of(RingText::parse(&ring.lines()).map_err(KeyRingError::from)?)?;
    Ok(())
}

/// The key ring of a developer's server: beside the database's file, so that the next start can read what this one wrote.
/// Made where it is missing.
///
/// # Errors
/// When it can't be written.
pub fn development_keys(database: &Path) -> Result<PathBuf, KeysError> {
    let mut file = database.as_os_str().to_owned();
    file.push(".keys");
    let file = PathBuf::from(file);
    if !file.exists() {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(KeysError::System)?;
        }
        let _lock = lock_file(&file)?;
        // Another server may have made it while this one waited.
        if file.exists() {
            return Ok(file);
        }
        write_file(&file, &RingText { keys: vec![RootKey::generate(None)?], retired: Vec::new() })?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;
    const HOUR_MS: i64 = 60 * 60 * 1000;

    fn ring(file: &Path) -> Ring {
        let file = Some(file.to_owned());
        Ring { keys_file: file, keys_command: None, database_url: None, config: None, json: false }
    }

    fn names(file: &Path) -> (Vec<String>, Vec<String>) {
        let text = KeySource::File(file.to_owned()).read().unwrap();
        let names = |keys: &[RootKey]| keys.iter().map(|key| key.id().to_owned()).collect();
        (names(&text.keys), names(&text.retired))
    }

    fn generated(folder: &Path) -> PathBuf {
        let file = folder.join("keys");
        let command =
            Generate { tenant: TenantId::single(), operator: false, keys_file: Some(file.clone()), json: false };
        let printed = generate(&command).unwrap();
        assert!(printed.starts_with(&format!("THROUGHLINE_KEYS_FILE={}\n", file.display())), "{printed}");
        assert!(matches!(generate(&command), Err(KeysError::Exists { .. })), "what is there is not overwritten");
        file
    }

    #[test]
    fn the_printed_lines_start_a_server_that_knows_the_printed_key() {
        let command = Generate { tenant: TenantId::single(), operator: false, keys_file: None, json: false };
        let lines = generate(&command).unwrap();
        let value =
            |name: &str| lines.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).map(str::to_owned);
        let options = crate::config::ServeOptions::default();
        let secrets = crate::config::Secrets::load(&options, value).unwrap();
        let (_, key) = lines.rsplit_once(": ").unwrap();
        assert!(secrets.service_keys.recognise(key.trim(), NOW_MS).is_ok());
    }

    #[test]
    fn a_rotation_adds_a_key_that_is_used_later_and_keeps_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = generated(folder.path());
        let (before, _) = names(&file);
        let after: humantime::Duration = Duration::from_secs(120).into();
        Rotate { ring: ring(&file), after }.rotate(NOW_MS).unwrap();
        let keys = KeyRing::of(KeySource::File(file.clone()).read().unwrap()).unwrap();
        assert_eq!(keys.all().len(), 2);
        assert_eq!(keys.current(NOW_MS).id(), before[0]);
        assert_ne!(keys.current(NOW_MS + 120_000).id(), before[0]);
        let listed = ring(&file).list(NOW_MS).unwrap();
        assert!(listed.contains("next") && listed.contains("current"), "{listed}");
        assert!(!listed.contains(crate::keys::PREFIX), "no secret is listed");
    }

    #[test]
    fn rotations_at_the_same_time_lose_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = generated(folder.path());
        let after: humantime::Duration = Duration::from_secs(120).into();
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| Rotate { ring: ring(&file), after }.rotate(NOW_MS).unwrap());
            }
        });
        assert_eq!(names(&file).0.len(), 9);
    }

    #[test]
    fn a_key_is_retired_and_forgotten_only_when_nothing_needs_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = generated(folder.path());
        let (before, _) = names(&file);
        let retire = |now_ms, force| {
            let token_max_age = Some(Duration::from_secs(3600).into());
            Retire { id: before[0].clone(), ring: ring(&file), token_max_age, force }.retire(now_ms)
        };
        let forget = |lose_sessions| Forget { id: before[0].clone(), ring: ring(&file), lose_sessions }.forget();
        let why = |error: KeysError| error.to_string();
        assert!(why(retire(NOW_MS, false).unwrap_err()).contains("used for what is new"));
        Rotate { ring: ring(&file), after: Duration::ZERO.into() }.rotate(NOW_MS).unwrap();
        assert!(why(retire(NOW_MS + HOUR_MS - 1, false).unwrap_err()).contains("tokens that it made"));
        assert!(why(forget(true).unwrap_err()).contains("not retired"));
        retire(NOW_MS + HOUR_MS, false).unwrap();
        let (after, retired) = names(&file);
        assert_eq!((after.len(), retired), (1, before.clone()), "its secret is kept: sessions may be under it");
        assert!(matches!(retire(NOW_MS, true), Err(KeysError::NoSuchKey { .. })));
        assert!(why(forget(false).unwrap_err()).contains("--database-url"));
        forget(true).unwrap();
        assert_eq!(names(&file), (after, Vec::new()));
    }

    #[test]
    fn the_last_key_is_never_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = generated(folder.path());
        let (before, _) = names(&file);
        let error = Retire { id: before[0].clone(), ring: ring(&file), token_max_age: None, force: true }
            .retire(NOW_MS)
            .unwrap_err();
        assert!(matches!(error, KeysError::Ring(KeyRingError::Empty)), "{error}");
        assert_eq!(names(&file).0, before);
    }

    #[test]
    fn a_developers_keys_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("deep/sessions.db");
        let first = names(&development_keys(&database).unwrap());
        assert_eq!(names(&development_keys(&database).unwrap()), first);
    }
}
