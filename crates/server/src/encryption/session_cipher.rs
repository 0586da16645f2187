//! The key of one session, and what is encrypted with it.

use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use throughline_core::StateMark;

use crate::keys::{KeyRing, RootKey, Secret};
use crate::store::SessionKey;
use throughline_sealing::{NotAuthentic, SealError, open, seal};

/// Which part of a session something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The state at a version.
    State(u64),
    /// The journal's record of a version.
    Record(u64),
    /// The accepted commands that lead to a version.
    Tail(u64),
    /// What servers tell each other.
    News,
}

impl Part {
    const fn tag(self) -> (u8, u64) {
        match self {
            Self::State(version) => (b's', version),
            Self::Record(version) => (b'r', version),
            Self::Tail(version) => (b't', version),
            Self::News => (b'n', 0),
        }
    }
}

/// A data key as it is stored: the public name of the root key whose wrapping key has it, and the key encrypted with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The root key's public name.
    pub root_key_id: String,
    /// The data key, encrypted.
    pub sealed: Vec<u8>,
}

/// Why a data key could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrappingError {
    /// None can be made or wrapped.
    #[error("no data key could be made for a session")]
    Seal(#[from] SealError),
    /// Wrapped by a key that nobody knows here.
    #[error(
        "the session is encrypted under the root key {id}, which the key ring does not have; add it, on each server"
    )]
    Unknown {
        /// The root key's public name.
        id: String,
    },
    /// Something else than this session's wrapped key.
    #[error("the data key of the session was changed, or is another session's")]
    NotAuthentic(#[from] NotAuthentic),
}

/// Encrypts and decrypts what belongs to one session.
#[derive(Clone)]
pub struct SessionCipher {
    session: SessionKey,
    data_key: Arc<Secret>,
    wrapped: WrappedKey,
}

impl std::fmt::Debug for SessionCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionCipher").field("wrapped", &self.wrapped.root_key_id).finish_non_exhaustive()
    }
}

impl SessionCipher {
    /// One with a new data key.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate(session: &SessionKey, keys: &KeyRing, now_ms: i64) -> Result<Self, WrappingError> {
        let mut data_key = Secret::default();
        getrandom::fill(data_key.as_mut_slice()).map_err(|_| SealError::Randomness)?;
        let wrapped = wrap(session, &data_key, &keys.current(now_ms))?;
        Ok(Self { session: session.clone(), data_key: Arc::new(data_key), wrapped })
    }

    /// The one whose data key was stored.
    ///
    /// # Errors
    /// See [`WrappingError`].
    pub fn unwrap(session: &SessionKey, keys: &KeyRing, wrapped: WrappedKey) -> Result<Self, WrappingError> {
        let Some(root) = keys.reads(&wrapped.root_key_id) else {
            return Err(WrappingError::Unknown { id: wrapped.root_key_id });
        };
        let opened = zeroize::Zeroizing::new(open(root.wrapping(), &wrapping_place(session), &wrapped.sealed)?);
        let data_key = <[u8; 32]>::try_from(opened.as_slice()).map(Secret::new).map_err(|_| NotAuthentic)?;
        Ok(Self { session: session.clone(), data_key: Arc::new(data_key), wrapped })
    }

    /// The data key as it is stored.
    #[must_use]
    pub fn wrapped(&self) -> &WrappedKey {
        &self.wrapped
    }

    /// The same, its data key wrapped by the root key that is used for what is new.
    ///
    /// # Errors
    /// See [`WrappingError`].
    pub fn renewed(&self, keys: &KeyRing, now_ms: i64) -> Result<Self, WrappingError> {
        let current = keys.current(now_ms);
        if self.wrapped.root_key_id == current.id() {
            return Ok(self.clone());
        }
        Ok(Self { wrapped: wrap(&self.session, &self.data_key, &current)?, ..self.clone() })
    }

    /// Encrypts a part of the session.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&self, part: Part, content: &[u8]) -> Result<Vec<u8>, SealError> {
        seal(&self.data_key, &self.place(part), content)
    }

    /// Decrypts a part of the session.
    ///
    /// # Errors
    /// When it is something else.
    pub fn open(&self, part: Part, sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        open(&self.data_key, &self.place(part), sealed)
    }

    /// The mark of a state as the shared tier may know it. A plain one is a digest of all that the state holds, and would
    /// let somebody without the key find out by trying.
    #[must_use]
    pub fn conceal(&self, mark: StateMark) -> StateMark {
        // What HMAC itself does with a key that is shorter than a block.
        let mut block = [0_u8; 64];
        block[..32].copy_from_slice(self.data_key.as_slice());
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(b"mark\n");
        mac.update(&mark.tag.to_le_bytes());
        let digest = mac.finalize().into_bytes();
        let tag = digest.iter().take(8).fold(0, |tag, byte| (tag << 8) | u64::from(*byte));
        StateMark { version: mark.version, tag }
    }

    /// What the associated data say: length of the tenant's name, tenant, session, kind, version.
    fn place(&self, part: Part) -> Vec<u8> {
        let (tag, version) = part.tag();
        let mut place = session_place(&self.session);
        place.push(tag);
        place.extend_from_slice(&version.to_le_bytes());
        place
    }
}

fn wrap(session: &SessionKey, data_key: &Secret, root: &RootKey) -> Result<WrappedKey, WrappingError> {
    let sealed = seal(root.wrapping(), &wrapping_place(session), data_key.as_slice())?;
    Ok(WrappedKey { root_key_id: root.id().to_owned(), sealed })
}

fn wrapping_place(session: &SessionKey) -> Vec<u8> {
    let mut place = session_place(session);
    place.push(b'k');
    place
}

/// No two sessions have the same: the tenant's length says where its name ends.
fn session_place(session: &SessionKey) -> Vec<u8> {
    let tenant = session.tenant.as_str().as_bytes();
    let mut place = Vec::with_capacity(tenant.len() + session.session_id.len() + 18);
    place.extend_from_slice(&(tenant.len() as u64).to_le_bytes());
    place.extend_from_slice(tenant);
    place.extend_from_slice(session.session_id.as_bytes());
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::ring_text::RingText;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn session(tenant: &str, id: &str) -> SessionKey {
        SessionKey { tenant: tenant.parse().unwrap(), session_id: id.to_owned() }
    }

    #[test]
    fn a_stored_data_key_opens_what_it_sealed() {
        let (keys, session) = (KeyRing::generate().unwrap(), session("a", "ws_1"));
        let cipher = SessionCipher::generate(&session, &keys, NOW_MS).unwrap();
        let sealed = cipher.seal(Part::State(3), b"state").unwrap();
        let again = SessionCipher::unwrap(&session, &keys, cipher.wrapped().clone()).unwrap();
        assert_eq!(again.open(Part::State(3), &sealed).unwrap(), b"state");
        let stranger = SessionCipher::unwrap(&session, &KeyRing::generate().unwrap(), cipher.wrapped().clone());
        assert!(matches!(stranger.unwrap_err(), WrappingError::Unknown { .. }));
    }

    #[test]
    fn parts_of_sessions_cannot_change_places() {
        let keys = KeyRing::generate().unwrap();
        let cipher = SessionCipher::generate(&session("a", "ws_1"), &keys, NOW_MS).unwrap();
        let sealed = cipher.seal(Part::State(3), b"state").unwrap();
        for other in [Part::State(2), Part::Record(3), Part::Tail(3), Part::News] {
            assert_eq!(cipher.open(other, &sealed), Err(NotAuthentic), "{other:?}");
        }
        for elsewhere in [session("b", "ws_1"), session("a", "ws_2"), session("aw", "s_1")] {
            let stolen = SessionCipher::unwrap(&elsewhere, &keys, cipher.wrapped().clone());
            assert_eq!(stolen.unwrap_err(), WrappingError::NotAuthentic(NotAuthentic));
        }
    }

    #[test]
    fn asvs_11_2_2_a_rotation_wraps_the_same_data_key_anew() {
        let (old, new) = (RootKey::generate(None).unwrap(), RootKey::generate(Some(NOW_MS)).unwrap());
        let (old_id, new_text) = (old.id().to_owned(), new.reveal());
        let keys = KeyRing::of(RingText { keys: vec![old], retired: Vec::new() }).unwrap();
        let session = session("a", "ws_1");
        let cipher = SessionCipher::generate(&session, &keys, NOW_MS).unwrap();
        let sealed = cipher.seal(Part::Record(1), b"record").unwrap();
        let old = RootKey::parse(&keys.all()[0].reveal(), None).unwrap();
        keys.replace(RingText { keys: vec![old, new], retired: Vec::new() }).unwrap();
        let renewed = cipher.renewed(&keys, NOW_MS).unwrap();
        assert_ne!(renewed.wrapped().root_key_id, old_id);
        let new = || RootKey::parse(&new_text, None).unwrap();
        let old = RootKey::parse(&keys.all()[1].reveal(), None).unwrap();
        keys.replace(RingText { keys: vec![new()], retired: vec![old] }).unwrap();
        let read = |wrapped: &WrappedKey| {
            let cipher = SessionCipher::unwrap(&session, &keys, wrapped.clone())?;
            Ok::<_, WrappingError>(cipher.open(Part::Record(1), &sealed).unwrap())
        };
        assert_eq!(read(renewed.wrapped()).unwrap(), b"record");
        assert_eq!(read(cipher.wrapped()).unwrap(), b"record", "a retired key still reads");
        keys.replace(RingText { keys: vec![new()], retired: Vec::new() }).unwrap();
        assert_eq!(read(renewed.wrapped()).unwrap(), b"record");
        assert_eq!(read(cipher.wrapped()), Err(WrappingError::Unknown { id: old_id }));
    }

    #[test]
    fn marks_are_concealed_alike_for_one_session_and_not_for_another() {
        let keys = KeyRing::generate().unwrap();
        let cipher = |id| SessionCipher::generate(&session("a", id), &keys, NOW_MS).unwrap();
        let (one, other) = (cipher("ws_1"), cipher("ws_2"));
        let mark = StateMark { version: 7, tag: 42 };
        assert_eq!(one.conceal(mark), one.conceal(mark));
        assert_eq!(one.conceal(mark).version, 7);
        assert_ne!(one.conceal(mark).tag, 42);
        assert_ne!(one.conceal(mark), other.conceal(mark));
        assert_ne!(one.conceal(mark), one.conceal(StateMark { version: 7, tag: 43 }));
    }
}
