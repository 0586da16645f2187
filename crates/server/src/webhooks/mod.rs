//! Webhooks: lifecycle events, sent to addresses that a shop names, as the Standard Webhooks specification has it
//! (<https://www.standardwebhooks.com>).
//!
//! Events come out of the outbox, where they were written with their changes ([`crate::store::EventStore`]); so none is sent of what
//! did not happen, and none is forgotten of what did. Each is sent at least once. Events of one session arrive in their order: while
//! one of them can't be delivered, the session's later ones wait, and other sessions' go on.
//!
//! One server at a time delivers for a webhook: it holds a lease in the database ([`dispatcher`]), and writes down together what it
//! has delivered and how far it is ([`worker`]). What one try does is in [`delivery`], where it may go in [`destination`], what it is
//! signed with in [`signature`].

pub mod delivery;
pub mod destination;
pub mod dispatcher;
pub mod signature;
pub mod worker;

use std::time::Duration;

use crate::network::Networks;

/// How webhooks are delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// After which time what failed is tried again: the second try, the third, and so on.
    pub retries: Vec<Duration>,
    /// How long one try may take.
    pub timeout: Duration,
    /// A webhook that has failed for this long is disabled.
    pub disable_after: Duration,
    /// Networks that are not public and may be delivered to all the same.
    pub networks: Networks,
}

impl WebhookSettings {
    /// How long to wait after so many failures, up to a tenth longer by chance, so that what failed together does not come back
    /// together; the last time again and again.
    #[must_use]
    pub fn pause_after(&self, failures: u32) -> Duration {
        let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        let pause = self.retries.get(index).or(self.retries.last()).copied().unwrap_or(Duration::from_secs(60));
        pause.mul_f64(1.0 + fastrand::f64() / 10.0)
    }

    /// Whether an event that was tried so often is given up.
    #[must_use]
    pub fn gives_up_after(&self, tries: u32) -> bool {
        usize::try_from(tries).unwrap_or(usize::MAX) > self.retries.len()
    }
}
