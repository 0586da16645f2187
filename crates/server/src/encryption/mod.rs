//! Encryption at rest: what leaves this process for the database or for Redis, and what comes back from there.
//!
//! Each session has a *data key* of its own. State, journal records, and everything in Redis are encrypted with it; the
//! data key itself is stored beside the state, *wrapped* by a key of the [key ring](crate::keys). Erasing a session
//! replaces its data key, so that what was written before can't be read from any copy that lacks the old one; rotating
//! the key ring wraps the same data keys anew, without touching what they encrypt.
//!
//! All of it is XChaCha20-Poly1305. The associated data name the tenant, the session, what it is, and its version, so
//! that a blob which is whole but in another place is refused.

mod answer_cipher;
mod session_cipher;

pub use answer_cipher::{AnswerCipher, AnswerError};
pub use session_cipher::{Part, SessionCipher, WrappedKey, WrappingError};

pub use throughline_sealing::{NotAuthentic, OVERHEAD, SealError};
