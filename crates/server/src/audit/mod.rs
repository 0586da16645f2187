//! The audit log: who did what, when, from where, and with what outcome. It only grows, and tells of no person.
//!
//! A record is written in the transaction of the change that it tells of. What changes nothing, such as a credential that is
//! refused, is counted and written within a second ([`denials`]). Each record carries a code that only who has the key ring can
//! make. Every second the records of each tenant that are new are sealed into a block ([`sealing`]), which holds the hash of the
//! block before it ([`chain`]); so what was changed, removed, put in or put in another order is found ([`verification`]).

pub mod chain;
pub mod denials;
mod entry;
pub mod sealing;
pub mod verification;

pub use self::chain::{AuditBlock, AuditHead, AuditRecord, SealedHash, StoredAuditRecord, UnwritableEntry};
pub use self::denials::{Denial, Denials};
pub(crate) use self::entry::entries_of;
pub use self::entry::{AuditEntry, Outcome};
