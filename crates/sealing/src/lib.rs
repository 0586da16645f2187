//! Authenticated encryption of bytes for one place: XChaCha20-Poly1305 with nonces that nobody has to think about.
//!
//! What is sealed opens with the same key and the same description of its place, and is refused otherwise. A crate of its
//! own, so that it is small enough to be read at once, and optimised in debug builds as well: unoptimised, it would be
//! seventy times slower and slow down everything that is tested.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};

use zeroize::Zeroizing;

/// 32 secret bytes, overwritten when they are dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// The form of what is sealed, its first byte.
const FORMAT: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;

/// How many bytes longer than its content something sealed is.
pub const OVERHEAD: usize = 1 + NONCE + TAG;

/// What is there was not sealed with this key for this place, or it was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was not encrypted with this key for this place, or was changed since")]
pub struct NotAuthentic;

/// It could not be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No randomness for nonces.
    #[error("the operating system's random number source failed; nothing is encrypted without it")]
    Randomness,
    /// The cipher refused it.
    #[error("it is too large to be encrypted")]
    TooLarge,
}

/// 16 bytes that are this process's own, and a number: no nonce is used twice, and none has to be asked for.
static NONCES: LazyLock<Option<([u8; 16], AtomicU64)>> = LazyLock::new(|| {
    let mut process = [0; 16];
    getrandom::fill(&mut process).ok()?;
    Some((process, AtomicU64::new(0)))
});

fn nonce() -> Result<[u8; NONCE], SealError> {
    let (process, number) = NONCES.as_ref().ok_or(SealError::Randomness)?;
    let mut nonce = [0; NONCE];
    nonce[..16].copy_from_slice(process);
    nonce[16..].copy_from_slice(&number.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    Ok(nonce)
}

/// Encrypts `content` with `key` for the place that `associated` names: `format(1) nonce(24) content tag(16)`.
///
/// # Errors
/// See [`SealError`].
pub fn seal(key: &Secret, associated: &[u8], content: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce = nonce()?;
    let mut sealed = Vec::with_capacity(OVERHEAD + content.len());
    sealed.push(FORMAT);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(content);
    let cipher = XChaCha20Poly1305::new((&**key).into());
    let tag = cipher
        .encrypt_inout_detached(&XNonce::from(nonce), associated, (&mut sealed[1 + NONCE..]).into())
        .map_err(|_| SealError::TooLarge)?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// The content of what was sealed with this key for this place.
///
/// # Errors
/// When it was not, or was changed since.
pub fn open(key: &Secret, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
    let (format, rest) = sealed.split_first().ok_or(NotAuthentic)?;
    let (nonce, rest) = rest.split_first_chunk::<NONCE>().ok_or(NotAuthentic)?;
    let (content, tag) = rest.split_last_chunk::<TAG>().ok_or(NotAuthentic)?;
    if *format != FORMAT {
        return Err(NotAuthentic);
    }
    let mut content = content.to_vec();
    let cipher = XChaCha20Poly1305::new((&**key).into());
    let (nonce, tag) = (XNonce::from(*nonce), Tag::from(*tag));
    cipher.decrypt_inout_detached(&nonce, associated, content.as_mut_slice().into(), &tag).map_err(|_| NotAuthentic)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_was_sealed_opens_with_its_key_in_its_place_and_nowhere_else() {
        let (key, other) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let sealed = seal(&key, b"here", b"content").unwrap();
        assert_eq!(sealed.len(), b"content".len() + OVERHEAD);
        assert_eq!(open(&key, b"here", &sealed).unwrap(), b"content");
        assert_eq!(open(&key, b"there", &sealed), Err(NotAuthentic));
        assert_eq!(open(&other, b"here", &sealed), Err(NotAuthentic));
    }

    #[test]
    fn each_changed_bit_and_each_cut_is_found() {
        let key = Secret::new([1; 32]);
        let sealed = seal(&key, b"", b"content").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key, b"", &changed), Err(NotAuthentic), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(open(&key, b"", &sealed[..length]), Err(NotAuthentic), "{length} bytes");
        }
    }

    #[test]
    fn asvs_11_3_4_no_nonce_is_used_twice() {
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(|| (0..10_000).map(|_| nonce().unwrap()).collect::<Vec<_>>())).collect();
        let nonces: HashSet<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(nonces.len(), 40_000);
    }

    #[test]
    fn the_same_content_never_looks_the_same() {
        let key = Secret::new([1; 32]);
        assert_ne!(seal(&key, b"", b"content").unwrap(), seal(&key, b"", b"content").unwrap());
    }
}
