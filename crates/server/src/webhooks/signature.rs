//! What messages are signed with: HMAC-SHA256 over id, time and body, by each of the webhook's secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use throughline_sealing::{NotAuthentic, SealError, open, seal};
use zeroize::Zeroizing;

use crate::keys::KeyRing;
use crate::tenant::TenantId;

/// What a secret's text begins with.
pub const PREFIX: &str = "whsec_";

/// For how long the secret before the present one signs as well, in milliseconds: a day, in which receivers learn the new one.
pub const OVERLAP_MS: i64 = 24 * 60 * 60 * 1000;

/// How many bytes a secret has: 24 to 64 are allowed.
const SECRET_BYTES: usize = 32;

/// How long a root key's public name is.
const NAME: usize = 16;

/// The secrets of a webhook, the newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secrets(Vec<Secret>);

/// What messages are signed with.
#[derive(Clone, Serialize, Deserialize)]
struct Secret {
    /// Base64, as receivers have it after `whsec_`.
    text: Zeroizing<String>,
    /// Until when it signs, in milliseconds since 1970; `None` for the present one.
    until_ms: Option<i64>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("until_ms", &self.until_ms).finish_non_exhaustive()
    }
}

/// Why the secrets of a webhook can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// No randomness.
    #[error("the operating system's random number source failed; no secret was made")]
    Randomness,
    /// They were not encrypted.
    #[error("the webhook's secrets can't be encrypted")]
    Seal(#[from] SealError),
    /// The root key is gone.
    #[error("the webhook's secrets are under the root key {id}, which the key ring does not have: put it back")]
    UnknownKey {
        /// Its public name.
        id: String,
    },
    /// They were changed.
    #[error("the webhook's secrets were changed by somebody else, or belong to another webhook")]
    NotAuthentic(#[from] NotAuthentic),
    /// They are of another form.
    #[error("the webhook's secrets can't be read or written")]
    Form(#[from] serde_json::Error),
}

impl Secrets {
    /// A new secret.
    ///
    /// # Errors
    /// Where there is no randomness.
    pub fn generate() -> Result<Self, SecretsError> {
        Ok(Self(vec![Secret::generate()?]))
    }

    /// A new secret takes the place of the present one, which signs as well until [`OVERLAP_MS`] from now; older ones end.
    ///
    /// # Errors
    /// Where there is no randomness.
    pub fn rotated(mut self, now_ms: i64) -> Result<Self, SecretsError> {
        self.0.truncate(1);
        for secret in &mut self.0 {
            secret.until_ms = Some(now_ms.saturating_add(OVERLAP_MS));
        }
        self.0.insert(0, Secret::generate()?);
        Ok(self)
    }

    /// The present secret, as receivers want it.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let text = self.0.first().map_or("", |secret| secret.text.as_str());
        Zeroizing::new(format!("{PREFIX}{text}"))
    }

    /// The header `webhook-signature` of a message: one signature for each secret that is good now.
    #[must_use]
    pub fn sign(&self, id: &str, now_ms: i64, body: &str) -> String {
        let good = self.0.iter().filter(|secret| secret.until_ms.is_none_or(|until_ms| now_ms < until_ms));
        let signatures = good.filter_map(|secret| secret.sign(id, now_ms / 1000, body));
        signatures.collect::<Vec<_>>().join(" ")
    }

    /// Encrypts them: the root key's public name, then what is sealed.
    ///
    /// # Errors
    /// See [`SecretsError`].
    pub fn seal(&self, tenant: &TenantId, id: &str, keys: &KeyRing, now_ms: i64) -> Result<Vec<u8>, SecretsError> {
        let key = keys.current(now_ms);
        let json = Zeroizing::new(serde_json::to_vec(self)?);
        let mut sealed = key.id().as_bytes().to_vec();
        sealed.extend(seal(key.webhooks(), &place(tenant, id), &json)?);
        Ok(sealed)
    }

    /// Decrypts what [`Secrets::seal`] gave.
    ///
    /// # Errors
    /// See [`SecretsError`].
    pub fn open(tenant: &TenantId, id: &str, sealed: &[u8], keys: &KeyRing) -> Result<Self, SecretsError> {
        let name = root_key_of(sealed).ok_or(NotAuthentic)?;
        let key = keys.reads(name).ok_or_else(|| SecretsError::UnknownKey { id: name.to_owned() })?;
        let json = Zeroizing::new(open(key.webhooks(), &place(tenant, id), &sealed[NAME..])?);
        Ok(serde_json::from_slice(&json)?)
    }
}

/// The public name of the root key that secrets are under.
#[must_use]
pub fn root_key_of(sealed: &[u8]) -> Option<&str> {
    std::str::from_utf8(sealed.get(..NAME)?).ok()
}

/// A tenant's name holds no line feed.
fn place(tenant: &TenantId, id: &str) -> Vec<u8> {
    format!("{tenant}\n{id}").into_bytes()
}

impl Secret {
    fn generate() -> Result<Self, SecretsError> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| SecretsError::Randomness)?;
        Ok(Self { text: Zeroizing::new(STANDARD.encode(*bytes)), until_ms: None })
    }

    /// `None` for what is no secret, which none that was made here is.
    fn sign(&self, id: &str, seconds: i64, body: &str) -> Option<String> {
        let key = Zeroizing::new(STANDARD.decode(self.text.as_bytes()).ok()?);
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body.as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use standardwebhooks::Webhook;

    use super::*;

    const NOW_MS: i64 = 1_700_000_000_123;
    const BODY: &str = r#"{"type":"session.paid"}"#;

    fn verifies(secret: &str, signature: &str, body: &str) -> bool {
        // The library compares with the clock, so only the signature is asked for.
        let webhook = Webhook::new(secret).unwrap();
        let expected = webhook.sign("evt_1", NOW_MS / 1000, body.as_bytes()).unwrap();
        signature.split(' ').any(|one| one == expected)
    }

    #[test]
    fn a_message_is_signed_as_the_published_library_does() {
        let secrets = Secrets::generate().unwrap();
        let signature = secrets.sign("evt_1", NOW_MS, BODY);
        assert!(verifies(&secrets.reveal(), &signature, BODY));
        assert!(!verifies(&secrets.reveal(), &signature, "{}"));
        assert!(!verifies(&Secrets::generate().unwrap().reveal(), &signature, BODY));
        assert!(secrets.reveal().starts_with(PREFIX));
    }

    #[test]
    fn after_a_rotation_both_secrets_sign_for_a_day() {
        let old = Secrets::generate().unwrap();
        let rotated = old.clone().rotated(NOW_MS).unwrap();
        let during = rotated.sign("evt_1", NOW_MS, BODY);
        assert!(verifies(&old.reveal(), &during, BODY) && verifies(&rotated.reveal(), &during, BODY));
        let afterwards = rotated.sign("evt_1", NOW_MS + OVERLAP_MS, BODY);
        assert_eq!(afterwards.split(' ').count(), 1);
        let again = rotated.rotated(NOW_MS).unwrap();
        let signature = again.sign("evt_1", NOW_MS, BODY);
        assert!(!verifies(&old.reveal(), &signature, BODY), "the one before the one before has ended");
        assert_eq!(signature.split(' ').count(), 2);
    }

    #[test]
    fn secrets_are_opened_for_their_own_webhook_alone() {
        let (keys, tenant) = (KeyRing::generate().unwrap(), TenantId::single());
        let secrets = Secrets::generate().unwrap();
        let sealed = secrets.seal(&tenant, "wh_1", &keys, NOW_MS).unwrap();
        let opened = Secrets::open(&tenant, "wh_1", &sealed, &keys).unwrap();
        assert_eq!(*opened.reveal(), *secrets.reveal());
        assert!(matches!(Secrets::open(&tenant, "wh_2", &sealed, &keys), Err(SecretsError::NotAuthentic(_))));
        let other = KeyRing::generate().unwrap();
        assert!(matches!(Secrets::open(&tenant, "wh_1", &sealed, &other), Err(SecretsError::UnknownKey { .. })));
        assert!(matches!(Secrets::open(&tenant, "wh_1", b"short", &keys), Err(SecretsError::NotAuthentic(_))));
        assert!(!format!("{secrets:?}").contains(&secrets.reveal()[PREFIX.len()..]), "secrets are not shown");
    }
}
