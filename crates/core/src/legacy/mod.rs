//! What the four legacy systems wrote of one session: read, put together, brought into a session of today, and written back.
//!
//! | system | what it wrote | what is believed |
//! | --- | --- | --- |
//! | [database](LegacySystem::Database) | a row of `funnel_sessions` | all of it: the shop's back end wrote it |
//! | [cookie](LegacySystem::Cookie) | the claims of the JWT `upsell_session`, once its signature is verified | all of it; it was written after a payment, and says no amount |
//! | [cache](LegacySystem::Cache) | the same as the cookie, in the memory of one process | as the cookie |
//! | [browser](LegacySystem::Browser) | an entry of the localStorage key `webseed_funnel_sessions` | what a buyer may change themselves; the rest becomes [`Claims`](crate::Claims) |
//!
//! [`read`] takes anything that JSON can be, and gives what one system says. [`merge`] makes one of what several say, and [`together`]
//! does both for the sync command `import`. [`adopt`] says which events bring a session to that; [`take_over`] is for browsers, which
//! have nothing that can be believed. The `write_…` functions go the other way, for code that has not moved yet.

mod adopt;
mod fields;
mod merge;
mod note;
mod read;
mod take_over;
mod together;
mod write;

pub use adopt::{Adoption, adopt};
pub use merge::merge;
pub use note::{Note, NoteKind};
pub use read::{LegacyPayment, LegacySession, LegacySystem, NotASession, read};
pub use take_over::{TakenOver, take_over};
pub use together::together;
pub use write::{write_browser_entry, write_cookie_claims, write_row};

/// The localStorage key of the legacy `FunnelSessionManager`: one JSON object of all its sessions by id.
pub const FUNNEL_STORAGE_KEY: &str = "webseed_funnel_sessions";

/// The key under which metadata keeps what has no place in the unified session.
pub const METADATA_KEY: &str = "legacy";
