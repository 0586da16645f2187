//! Secrets with which browsers prove that a session is theirs, also when their token is over.

use std::ops::RangeInclusive;

use sha2::{Digest as _, Sha256};

/// How long one is, in bytes. Shorter ones could be guessed.
const BYTES: RangeInclusive<usize> = 32..=256;

/// The digest by which a session knows a secret; nothing where it is too short or too long to be one.
pub(crate) fn digest_of(secret: &str) -> Option<String> {
    let is_one = BYTES.contains(&secret.len());
    is_one.then(|| Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_could_be_guessed_is_none() {
        assert_eq!(digest_of(&"s".repeat(31)), None);
        assert_eq!(digest_of(&"s".repeat(257)), None);
    }

    #[test]
    fn a_session_knows_a_secret_by_its_sha_256() {
        // printf 's%.0s' $(seq 32) | sha256sum
        let digest = "8fd6a6a78f5857d7ba1cfe9033bffeec86da2ba6a4bd60a6f833209d9d3e390d";
        assert_eq!(digest_of(&"s".repeat(32)).as_deref(), Some(digest));
    }
}
