//! Bringing sessions under the newest root key after a rotation.

use std::time::Duration;

use super::measures;
use super::stored::{email_digest, open_session, rewrap};
use super::{SessionError, Sessions};
use crate::keys::RootKey;
use crate::problem::chain;
use crate::store::{Rewrapped, SessionKey, Stored};

/// How many sessions one round takes, and how long it rests after one: buyers come first.
const AT_ONCE: u32 = 200;
const REST: Duration = Duration::from_millis(100);

impl Sessions {
    /// Wraps the data keys of sessions anew that are under another root key than the one for what is new, until there are
    /// none; answers how many. Whoever uses a session meanwhile notices nothing: its data key stays the same.
    ///
    /// Several servers may do this at the same time.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn rewrap(&self) -> Result<u64, SessionError> {
        let environment = &self.environment;
        let mut count = 0;
        loop {
            let now_ms = environment.clock.now_ms();
            let current = environment.keys.current(now_ms);
            let others: Vec<String> = (environment.keys.all().iter())
                .map(|key| RootKey::id(key).to_owned())
                .filter(|id| id != current.id())
                .collect();
            if others.is_empty() || environment.database.is_away() {
                return Ok(count);
            }
            let wrapped = environment.store.wrapped_by(&others, AT_ONCE);
            let found = measures::database("wrapped_by", wrapped).await?;
            let is_last = found.len() < AT_ONCE as usize;
            let rewrapped: Vec<Rewrapped> =
                found.into_iter().filter_map(|(key, stored)| self.rewrapped(key, stored, now_ms)).collect();
            let written = match rewrapped.as_slice() {
                [] => 0,
                rewrapped => measures::database("rewrap", environment.store.rewrap(rewrapped)).await?,
            };
            count += written;
            metrics::counter!("throughline_rewrapped_sessions_total").increment(written);
            // Those that changed meanwhile have their turn next time, and so has what can't be read.
            if is_last || written == 0 {
                return Ok(count);
            }
            tokio::time::sleep(REST).await;
        }
    }

    fn rewrapped(&self, key: SessionKey, stored: Stored, now_ms: i64) -> Option<Rewrapped> {
        let environment = &self.environment;
        let (version, old) = (stored.version, stored.data_key.clone());
        let opened = open_session(&key, stored, &environment.keys).inspect_err(|error| {
            tracing::warn!(error = %chain(error), "a session can't be brought under the new key");
        });
        let (state, cipher) = opened.ok()?;
        let new = rewrap(&cipher, &environment.keys, now_ms).inspect_err(|error| {
            tracing::warn!(error = %chain(error), "a session can't be brought under the new key");
        });
        let email_digest = email_digest(&key, &state, &environment.email_lookup, now_ms);
        Some(Rewrapped { key, version, old, new: new.ok()?, email_digest })
    }
}
