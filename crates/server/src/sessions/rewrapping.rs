//! Bringing sessions under the newest root key after a rotation.

use super::measures;
use super::stored::{email_digest, open_session};
use super::{SessionError, Sessions};
use crate::problem::chain;
use crate::store::{Rewrapped, SessionKey, Stored};

/// How many sessions one round takes: buyers come first.
const AT_ONCE: u32 = 200;

/// How far a walk through the sessions under older root keys has come.
#[derive(Debug, Default)]
pub struct RewrapWalk {
    /// The root key whose sessions it is at.
    root_key_id: Option<String>,
    /// The last session that it has seen.
    after: Option<SessionKey>,
}

impl Sessions {
    /// Wraps the data keys of the next few sessions anew that are under another root key than the one for what is new; whether
    /// the walk goes on. Whoever uses a session meanwhile notices nothing: its data key stays the same.
    ///
    /// Several servers may do this at the same time.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn rewrap_some(&self, walk: &mut RewrapWalk) -> Result<bool, SessionError> {
        let environment = &self.environment;
        if environment.database.is_away() {
            return Ok(false);
        }
        let now_ms = environment.clock.now_ms();
        let current = environment.keys.current(now_ms);
        // Away from those that come before it only: a server whose clock is behind must not take back what another one did.
        let older = environment.keys.all().into_iter().skip_while(|key| key.id() != current.id()).skip(1);
        let mut older: Vec<String> = older.chain(environment.keys.retired()).map(|key| key.id().to_owned()).collect();
        older.sort_unstable();
        let Some(root_key_id) = older.into_iter().find(|id| walk.root_key_id.as_ref().is_none_or(|at| id >= at)) else {
            *walk = RewrapWalk::default();
            return Ok(false);
        };
        if walk.root_key_id.as_ref() != Some(&root_key_id) {
            *walk = RewrapWalk { root_key_id: Some(root_key_id.clone()), after: None };
        }
        let wrapped = environment.store.wrapped_by(&root_key_id, walk.after.as_ref(), AT_ONCE);
        let found = measures::database("wrapped_by", wrapped).await?;
        match found.last() {
            Some((last, _)) => walk.after = Some(last.clone()),
            // On to the next key: there is none between the two.
            None => *walk = RewrapWalk { root_key_id: Some(format!("{root_key_id}~")), after: None },
        }
        let (count, mut unreadable) = (found.len(), 0_u64);
        let mut rewrapped = Vec::with_capacity(count);
        for (key, stored) in found {
            match self.rewrapped(key, stored, now_ms) {
                Some(new) => rewrapped.push(new),
                None => unreadable += 1,
            }
        }
        if unreadable > 0 {
            metrics::counter!("throughline_unreadable_sessions_total").increment(unreadable);
            tracing::warn!(
                sessions = unreadable,
                root_key_id,
                "sessions can't be read, and so stay under an older key"
            );
        }
        if !rewrapped.is_empty() {
            // Those that changed meanwhile came under the new key by that.
            let written = measures::database("rewrap", environment.store.rewrap(&rewrapped)).await?;
            metrics::counter!("throughline_rewrapped_sessions_total").increment(written);
        }
        Ok(true)
    }

    fn rewrapped(&self, key: SessionKey, stored: Stored, now_ms: i64) -> Option<Rewrapped> {
        let environment = &self.environment;
        let (version, old) = (stored.version, stored.data_key.clone());
        let opened = open_session(&key, stored, &environment.keys).inspect_err(|error| {
            tracing::debug!(error = %chain(error), "a session can't be brought under the new key");
        });
        let (state, cipher) = opened.ok()?;
        let renewed = cipher.renewed(&environment.keys, now_ms).inspect_err(|error| {
            tracing::debug!(error = %chain(error), "a session can't be brought under the new key");
        });
        let email_digest = email_digest(&key, &state, &environment.email_lookup, now_ms);
        Some(Rewrapped { key, version, old, new: renewed.ok()?.wrapped().clone(), email_digest })
    }
}
