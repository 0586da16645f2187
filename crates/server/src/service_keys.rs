//! The service keys that a server knows: the bootstrap keys of its configuration, and those of the database.
//!
//! The table is read every [`READ_EVERY`], all of it at first and then only what has changed, and is kept in memory: no
//! request waits for the database because of its key, and what is revoked on one server is refused by all of them within a
//! second.
//!
//! Keys are found by their SHA-256 in a map. How long that takes may tell something about hashes, and nothing about keys:
//! whoever tries out keys can't choose their hashes, and a hash tells nothing about the 256 random bits that it is of.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use throughline_core::Caller;
use tokio::sync::watch;

use crate::audit::chain::UnwritableEntry;
use crate::audit::{AuditEntry, AuditRecord};
use crate::clock::millis;
use crate::keys::KeyRing;
use crate::scope::Scopes;
use crate::service_key::{KnownKey, PREFIX, ServiceKey, ServiceKeyError, hex, sha256_of};
use crate::store::{ReadError, Revocation, ServiceKeyChanges, Store, StoredServiceKey, USES_APART};
use crate::tenant::TenantId;

/// How often the table is read: what is revoked is refused within a second, with a slow answer of the database in it.
pub const READ_EVERY: Duration = Duration::from_millis(500);

/// For how long the keys of the database are good while it can't be read. As long as that, a key that was revoked may still be
/// good, so it is short; and shops go on through the restart of a database, which takes less. Bootstrap keys need no database.
pub const GOOD_UNREAD: Duration = Duration::from_secs(60);

/// The longest name of a service key, in characters.
pub const MAX_NAME_CHARS: usize = 64;

/// Longer texts are no service keys.
const MAX_KEY_BYTES: usize = 256;

/// All keys that a server recognises. Clones share what they know.
#[derive(Debug, Clone)]
pub struct ServiceKeys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    configured: HashMap<[u8; 32], KnownKey>,
    table: RwLock<Table>,
    /// Counts how often a key may have come to its end, for those who go on for longer than a request.
    ends: watch::Sender<u64>,
}

/// What is known of the database's table.
#[derive(Debug, Default)]
struct Table {
    version: u64,
    by_hash: HashMap<[u8; 32], Arc<TableKey>>,
    by_id: HashMap<String, Arc<TableKey>>,
    /// When it was last asked for what it answered.
    read_at: Option<Instant>,
    /// How many keys had expired, and whether the table was too old, when that was last looked at.
    ended: (usize, bool),
}

#[derive(Debug)]
struct TableKey {
    stored: StoredServiceKey,
    /// When it was last used here, and when of that was last written down; 0 for never.
    used_ms: AtomicI64,
    noted_ms: AtomicI64,
}

/// Whose a presented key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecognisedKey {
    /// Whose sessions it reaches.
    pub tenant: TenantId,
    /// Its short public name.
    pub id: String,
    /// What it may do.
    pub scopes: Scopes,
}

/// Why a service key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServiceKeyRefusal {
    /// Nobody knows it.
    #[error("the service key is not known to this server")]
    Unknown,
    /// It was revoked.
    #[error(
        "the service key is revoked; use another one, which an operator makes with `throughline service-keys create`"
    )]
    Revoked,
    /// Its time is over.
    #[error(
        "the service key expired at {}; use another one, which an operator makes with `throughline service-keys create`",
        crate::clock::rfc3339(*at_ms)
    )]
    Expired {
        /// When it expired, in milliseconds since 1970.
        at_ms: i64,
    },
    /// The database could not be read for too long to know.
    #[error(
        "whether the service key is still good can't be told: the server can't read its database for more than {} s; the keys of its configuration go on",
        GOOD_UNREAD.as_secs()
    )]
    Unavailable,
}

impl ServiceKeyRefusal {
    /// The stable code that the outside sees.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unknown => "serviceKeyUnknown",
            Self::Revoked => "serviceKeyRevoked",
            Self::Expired { .. } => "serviceKeyExpired",
            Self::Unavailable => "serviceKeysUnavailable",
        }
    }
}

impl TableKey {
    fn check(&self, now_ms: i64, is_too_old: bool) -> Result<(), ServiceKeyRefusal> {
        // Neither is ever taken back, so both are certain however old the table is.
        if self.stored.revoked_at_ms.is_some() {
            return Err(ServiceKeyRefusal::Revoked);
        }
        match self.stored.expires_at_ms {
            Some(at_ms) if at_ms <= now_ms => Err(ServiceKeyRefusal::Expired { at_ms }),
            _ if is_too_old => Err(ServiceKeyRefusal::Unavailable),
            _ => {
                self.used_ms.store(now_ms, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

impl Table {
    fn is_too_old(&self) -> bool {
        self.read_at.is_none_or(|read_at| read_at.elapsed() > GOOD_UNREAD)
    }

    fn insert(&mut self, stored: StoredServiceKey) {
        let noted_ms = stored.last_used_at_ms.unwrap_or(0);
        let used_ms = self.by_id.get(&stored.id).map_or(0, |known| known.used_ms.load(Ordering::Relaxed));
        let key = TableKey { stored, used_ms: used_ms.max(noted_ms).into(), noted_ms: noted_ms.into() };
        let key = Arc::new(key);
        self.by_hash.insert(key.stored.sha256, Arc::clone(&key));
        self.by_id.insert(key.stored.id.clone(), key);
    }
}

impl ServiceKeys {
    /// Those of the configuration. The database's follow with the first [`read_again`](Self::read_again); until then nobody can
    /// tell whether another key is one.
    #[must_use]
    pub fn new(configured: Vec<KnownKey>) -> Self {
        let configured = configured.into_iter().map(|key| (key.sha256, key)).collect();
        Self(Arc::new(Shared { configured, table: RwLock::default(), ends: watch::Sender::new(0) }))
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        // What is inserted is inserted whole.
        self.0.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is no key at all, neither here nor in the database as far as that was read.
    #[must_use]
    pub fn has_none(&self) -> bool {
        self.0.configured.is_empty() && self.table().by_id.is_empty()
    }

    /// Whose the key `presented` is.
    ///
    /// # Errors
    /// See [`ServiceKeyRefusal`].
    pub fn recognise(&self, presented: &str, now_ms: i64) -> Result<RecognisedKey, ServiceKeyRefusal> {
        if !presented.starts_with(PREFIX) || presented.len() > MAX_KEY_BYTES {
            return Err(ServiceKeyRefusal::Unknown);
        }
        let sha256 = sha256_of(presented);
        if let Some(known) = self.0.configured.get(&sha256) {
            return Ok(RecognisedKey { tenant: known.tenant.clone(), id: known.id(), scopes: known.role.scopes() });
        }
        let table = self.table();
        let is_too_old = table.is_too_old();
        match table.by_hash.get(&sha256) {
            Some(key) => {
                key.check(now_ms, is_too_old)?;
                let StoredServiceKey { tenant, id, scopes, .. } = &key.stored;
                Ok(RecognisedKey { tenant: tenant.clone(), id: id.clone(), scopes: *scopes })
            }
            // It may have been made since.
            None if is_too_old => Err(ServiceKeyRefusal::Unavailable),
            None => Err(ServiceKeyRefusal::Unknown),
        }
    }

    /// Whether a key that was recognised before is still good. It counts as a use.
    ///
    /// # Errors
    /// See [`ServiceKeyRefusal`].
    pub fn check(&self, id: &str, now_ms: i64) -> Result<(), ServiceKeyRefusal> {
        let table = self.table();
        match table.by_id.get(id) {
            Some(key) => key.check(now_ms, table.is_too_old()),
            None if self.0.configured.values().any(|known| known.id() == id) => Ok(()),
            None => Err(ServiceKeyRefusal::Unknown),
        }
    }

    /// Whether the key with this name is revoked. Where the database can't be read, what is known stays so: buyers, whose tokens
    /// this is asked of, go on without a database.
    #[must_use]
    pub fn is_revoked(&self, id: &str) -> bool {
        self.table().by_id.get(id).is_some_and(|key| key.stored.revoked_at_ms.is_some())
    }

    /// Tells when a key may have come to its end.
    #[must_use]
    pub fn follow_ends(&self) -> watch::Receiver<u64> {
        self.0.ends.subscribe()
    }

    /// Reads what has changed in the database's table.
    ///
    /// # Errors
    /// See [`ReadError`]; what is known stays.
    pub async fn read_again(&self, store: &dyn Store) -> Result<(), ReadError> {
        let (asked_at, since) = (Instant::now(), self.table().version);
        let mut changes = store.service_key_changes(since).await?;
        let is_older_copy = changes.version < since;
        if is_older_copy {
            changes = store.service_key_changes(0).await?;
        }
        let is_first = since == 0;
        let has_changed = self.take(changes, is_older_copy, asked_at);
        if has_changed {
            if !is_first {
                tracing::info!("service keys have changed");
            }
            self.tell_ends();
        }
        Ok(())
    }

    fn take(&self, changes: ServiceKeyChanges, is_whole: bool, asked_at: Instant) -> bool {
        let mut table = self.0.table.write().unwrap_or_else(PoisonError::into_inner);
        // Of two that read at the same time the later one may be done first: what it has is not taken back.
        if !is_whole && changes.version < table.version {
            return false;
        }
        if is_whole {
            table.by_hash.clear();
            table.by_id.clear();
        }
        table.version = changes.version;
        table.read_at = table.read_at.max(Some(asked_at));
        let has_changed = is_whole || !changes.keys.is_empty();
        changes.keys.into_iter().for_each(|key| table.insert(key));
        has_changed
    }

    /// Looks whether keys have come to their end since, by the clock alone.
    pub fn look_for_ends(&self, now_ms: i64) {
        let (ended, known) = {
            let table = self.table();
            let is_over = |key: &&Arc<TableKey>| key.stored.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
            ((table.by_id.values().filter(is_over).count(), table.is_too_old()), table.ended)
        };
        if ended == known {
            return;
        }
        self.0.table.write().unwrap_or_else(PoisonError::into_inner).ended = ended;
        match (known.1, ended.1) {
            (false, true) => tracing::error!(
                limit_s = GOOD_UNREAD.as_secs(),
                "the service keys of the database can't be read for too long, and are refused until they can; those of the configuration go on"
            ),
            (true, false) => tracing::info!("the service keys of the database are read"),
            _ => {}
        }
        self.tell_ends();
    }

    fn tell_ends(&self) {
        self.0.ends.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Writes down which keys were used, each at most once in [`USES_APART`].
    ///
    /// # Errors
    /// See [`ReadError`]; what was not written is tried again the next time.
    pub async fn note_uses(&self, store: &dyn Store) -> Result<(), ReadError> {
        let is_due = |key: &&Arc<TableKey>| {
            let (used_ms, noted_ms) = (key.used_ms.load(Ordering::Relaxed), key.noted_ms.load(Ordering::Relaxed));
            used_ms > noted_ms && (noted_ms == 0 || used_ms - noted_ms >= millis(USES_APART))
        };
        let due: Vec<Arc<TableKey>> = self.table().by_id.values().filter(is_due).cloned().collect();
        for key in due {
            let used_ms = key.used_ms.load(Ordering::Relaxed);
            store.note_service_key_use(&key.stored.id, used_ms).await?;
            key.noted_ms.store(used_ms, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What people call a service key: 1 to [`MAX_NAME_CHARS`] characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceKeyName(String);

/// Why a text can't be the name of a service key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a service key's name has 1 to {MAX_NAME_CHARS} characters, no line breaks, and no spaces around it; say what the key is for, and no personal data"
)]
pub struct ServiceKeyNameError;

impl FromStr for ServiceKeyName {
    type Err = ServiceKeyNameError;

    fn from_str(name: &str) -> Result<Self, ServiceKeyNameError> {
        let is_long = name.chars().nth(MAX_NAME_CHARS).is_some();
        if name.is_empty() || is_long || name.trim() != name || name.chars().any(char::is_control) {
            return Err(ServiceKeyNameError);
        }
        Ok(Self(name.to_owned()))
    }
}

/// A service key that is to be made.
#[derive(Debug, Clone)]
pub struct NewServiceKey {
    /// Whose sessions it is to reach.
    pub tenant: TenantId,
    /// What people call it.
    pub name: ServiceKeyName,
    /// What it may do; at least one.
    pub scopes: Scopes,
    /// From when on it is refused; never where nothing is said.
    pub expires_at_ms: Option<i64>,
    /// Who makes it: a principal's scope, or `cli`.
    pub created_by: String,
}

/// Who makes or revokes a service key, and the key ring by which the audit log believes it.
#[derive(Debug, Clone)]
pub struct Author<'a> {
    /// In which role, as the audit log calls it.
    pub role: &'a str,
    /// With which key, and from where.
    pub caller: Caller,
    /// The key ring of the servers.
    pub keys: &'a KeyRing,
}

impl Author<'_> {
    fn record(&self, tenant: &TenantId, did: &str, id: &str, now_ms: i64) -> Result<AuditRecord, UnwritableEntry> {
        let entry = AuditEntry {
            subject: Some(id.to_owned()),
            ..AuditEntry::done(tenant.clone(), did, now_ms).by(self.role, self.caller.clone())
        };
        AuditRecord::new(&entry, self.keys, now_ms)
    }
}

/// Why no service key was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No randomness.
    #[error(transparent)]
    Random(#[from] ServiceKeyError),
    /// The database did not take it.
    #[error("the service key could not be stored; none was made")]
    Store(#[from] ReadError),
    /// The audit log could not be told.
    #[error(transparent)]
    Entry(#[from] UnwritableEntry),
}

/// Why a service key was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The audit log could not be told.
    #[error(transparent)]
    Entry(#[from] UnwritableEntry),
}

/// Makes a service key: the one place where that is done. The key itself is in the answer, and nowhere else; who has made it is in
/// the audit log.
///
/// # Errors
/// See [`CreateError`].
pub async fn create(
    store: &dyn Store,
    new: NewServiceKey,
    author: &Author<'_>,
    now_ms: i64,
) -> Result<(ServiceKey, StoredServiceKey), CreateError> {
    let key = ServiceKey::generate()?;
    let sha256 = sha256_of(key.reveal());
    let NewServiceKey { tenant, name, scopes, expires_at_ms, created_by } = new;
    let stored = StoredServiceKey {
        // Twice as long as the name of a bootstrap key, so that neither is ever taken for the other.
        id: hex(&sha256[..8]),
        tenant,
        name: name.0,
        sha256,
        scopes,
        created_at_ms: now_ms,
        created_by,
        expires_at_ms,
        revoked_at_ms: None,
        last_used_at_ms: None,
    };
    let audit = author.record(&stored.tenant, "serviceKeyCreated", &stored.id, now_ms)?;
    store.add_service_key(&stored, audit).await?;
    Ok((key, stored))
}

/// Revokes a service key of `tenant`: the one place where that is done. All servers refuse it, and the tokens that it had made,
/// within a second; who has revoked it is in the audit log.
///
/// # Errors
/// See [`RevokeError`].
pub async fn revoke(
    store: &dyn Store,
    tenant: &TenantId,
    id: &str,
    author: &Author<'_>,
    now_ms: i64,
) -> Result<Revocation, RevokeError> {
    let audit = author.record(tenant, "serviceKeyRevoked", id, now_ms)?;
    Ok(store.revoke_service_key(tenant, id, now_ms, audit).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Scope;
    use crate::service_key::BootstrapRole;
    use crate::store::ServiceKeyStore as _;
    use crate::store::memory::MemoryStore;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn new(name: &str, expires_at_ms: Option<i64>) -> NewServiceKey {
        NewServiceKey {
            tenant: "shop-a".parse().unwrap(),
            name: name.parse().unwrap(),
            scopes: [Scope::SessionsRead].into_iter().collect(),
            expires_at_ms,
            created_by: "cli".to_owned(),
        }
    }

    async fn make(store: &MemoryStore, new: NewServiceKey) -> Result<(ServiceKey, StoredServiceKey), CreateError> {
        let keys = KeyRing::generate().unwrap();
        create(store, new, &Author { role: "cli", caller: Caller::default(), keys: &keys }, NOW_MS).await
    }

    async fn end(store: &MemoryStore, tenant: &str, id: &str) -> Revocation {
        let keys = KeyRing::generate().unwrap();
        let author = Author { role: "cli", caller: Caller::default(), keys: &keys };
        revoke(store, &tenant.parse().unwrap(), id, &author, NOW_MS).await.unwrap()
    }

    /// Pretends that the table was read so long ago.
    fn age(keys: &ServiceKeys, by: Duration) {
        keys.0.table.write().unwrap().read_at = Instant::now().checked_sub(by);
    }

    #[tokio::test]
    async fn a_key_is_recognised_with_its_tenant_and_scopes_until_it_is_revoked() {
        let (store, keys) = (MemoryStore::default(), ServiceKeys::new(Vec::new()));
        assert!(keys.has_none());
        let (key, stored) = make(&store, new("back end", None)).await.unwrap();
        assert_eq!(keys.recognise(key.reveal(), NOW_MS), Err(ServiceKeyRefusal::Unavailable), "not read yet");
        keys.read_again(&store).await.unwrap();
        let known = keys.recognise(key.reveal(), NOW_MS).unwrap();
        assert_eq!((known.tenant.as_str(), known.id.as_str()), ("shop-a", stored.id.as_str()));
        assert_eq!(known.scopes.to_string(), "sessions:read");
        let other = ServiceKey::generate().unwrap();
        assert_eq!(keys.recognise(other.reveal(), NOW_MS), Err(ServiceKeyRefusal::Unknown));
        assert_eq!(keys.recognise(&key.reveal()[..40], NOW_MS), Err(ServiceKeyRefusal::Unknown));

        let mut ends = keys.follow_ends();
        keys.read_again(&store).await.unwrap();
        assert!(!ends.has_changed().unwrap(), "nothing has changed");
        for (tenant, revocation) in
            [("shop-b", Revocation::Unknown), ("shop-a", Revocation::Revoked), ("shop-a", Revocation::WasRevoked)]
        {
            assert_eq!(end(&store, tenant, &stored.id).await, revocation);
        }
        keys.read_again(&store).await.unwrap();
        assert!(ends.has_changed().unwrap());
        ends.mark_unchanged();
        assert_eq!(keys.recognise(key.reveal(), NOW_MS), Err(ServiceKeyRefusal::Revoked));
        assert!(keys.is_revoked(&stored.id) && !keys.is_revoked("0123456789abcdef"));
    }

    #[tokio::test]
    async fn an_expired_key_is_refused_and_who_goes_on_is_told() {
        let (store, keys) = (MemoryStore::default(), ServiceKeys::new(Vec::new()));
        let (key, stored) = make(&store, new("back end", Some(NOW_MS + 1_000))).await.unwrap();
        keys.read_again(&store).await.unwrap();
        keys.look_for_ends(NOW_MS);
        let ends = keys.follow_ends();
        keys.look_for_ends(NOW_MS + 999);
        assert!(keys.recognise(key.reveal(), NOW_MS + 999).is_ok() && !ends.has_changed().unwrap());
        keys.look_for_ends(NOW_MS + 1_000);
        assert!(ends.has_changed().unwrap());
        let refusal = ServiceKeyRefusal::Expired { at_ms: NOW_MS + 1_000 };
        assert_eq!(keys.recognise(key.reveal(), NOW_MS + 1_000), Err(refusal));
        assert_eq!(keys.check(&stored.id, NOW_MS + 1_000), Err(refusal));
        assert!(!keys.is_revoked(&stored.id), "what it had made goes on");
    }

    #[tokio::test]
    async fn asvs_16_5_3_without_the_database_its_keys_are_good_for_a_while_and_bootstrap_keys_for_ever() {
        let bootstrap = ServiceKey::generate().unwrap();
        let known = bootstrap.known_as(TenantId::single(), BootstrapRole::Service);
        let (store, keys) = (MemoryStore::default(), ServiceKeys::new(vec![known.clone()]));
        let (key, stored) = make(&store, new("back end", None)).await.unwrap();
        keys.read_again(&store).await.unwrap();
        keys.look_for_ends(NOW_MS);
        let ends = keys.follow_ends();
        age(&keys, GOOD_UNREAD.saturating_sub(Duration::from_secs(5)));
        keys.look_for_ends(NOW_MS);
        assert!(keys.recognise(key.reveal(), NOW_MS).is_ok() && !ends.has_changed().unwrap());
        age(&keys, GOOD_UNREAD + Duration::from_millis(1));
        keys.look_for_ends(NOW_MS);
        assert!(ends.has_changed().unwrap());
        assert_eq!(keys.recognise(key.reveal(), NOW_MS), Err(ServiceKeyRefusal::Unavailable));
        assert_eq!(keys.check(&stored.id, NOW_MS), Err(ServiceKeyRefusal::Unavailable));
        let by_bootstrap = keys.recognise(bootstrap.reveal(), NOW_MS).unwrap();
        assert_eq!((by_bootstrap.id.as_str(), by_bootstrap.scopes.contains(Scope::Operator)), (&*known.id(), false));
        assert!(keys.check(&known.id(), NOW_MS).is_ok());
        keys.read_again(&store).await.unwrap();
        assert!(keys.recognise(key.reveal(), NOW_MS).is_ok());
    }

    #[tokio::test]
    async fn uses_are_written_down_once_a_minute() {
        let (store, keys) = (MemoryStore::default(), ServiceKeys::new(Vec::new()));
        let (key, _) = make(&store, new("back end", None)).await.unwrap();
        keys.read_again(&store).await.unwrap();
        let last = async || store.service_keys(None).await.unwrap()[0].last_used_at_ms;
        keys.note_uses(&store).await.unwrap();
        assert_eq!(last().await, None);
        for (used_ms, noted_ms) in [(NOW_MS, NOW_MS), (NOW_MS + 59_999, NOW_MS), (NOW_MS + 60_000, NOW_MS + 60_000)] {
            keys.recognise(key.reveal(), used_ms).unwrap();
            keys.note_uses(&store).await.unwrap();
            assert_eq!(last().await, Some(noted_ms));
        }
    }

    #[tokio::test]
    async fn an_older_copy_of_the_database_replaces_what_was_known() {
        let (store, keys) = (MemoryStore::default(), ServiceKeys::new(Vec::new()));
        let (first, _) = make(&store, new("first", None)).await.unwrap();
        let (second, _) = make(&store, new("second", None)).await.unwrap();
        keys.read_again(&store).await.unwrap();
        let older = MemoryStore::default();
        let (ring, stored) = (KeyRing::generate().unwrap(), store.service_keys(None).await.unwrap().remove(0));
        let author = Author { role: "cli", caller: Caller::default(), keys: &ring };
        let audit = author.record(&stored.tenant, "serviceKeyCreated", &stored.id, NOW_MS).unwrap();
        older.add_service_key(&stored, audit).await.unwrap();
        keys.read_again(&older).await.unwrap();
        assert!(keys.recognise(first.reveal(), NOW_MS).is_ok());
        assert_eq!(keys.recognise(second.reveal(), NOW_MS), Err(ServiceKeyRefusal::Unknown));
    }

    #[test]
    fn a_name_is_short_and_fits_on_a_line() {
        for good in ["a", "Back end, München", &"ü".repeat(MAX_NAME_CHARS)] {
            assert!(good.parse::<ServiceKeyName>().is_ok(), "{good}");
        }
        for bad in ["", " a", "a ", "a\nb", "a\u{7f}", &"ü".repeat(MAX_NAME_CHARS + 1)] {
            assert_eq!(bad.parse::<ServiceKeyName>(), Err(ServiceKeyNameError), "{bad:?}");
        }
    }
}
