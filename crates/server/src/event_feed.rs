//! How far the outbox of lifecycle events can be read, for all that pass events on.
//!
//! The database is asked ten times a second, once for all of them together, and not at all while nobody listens.

use std::time::Duration;

use tokio::sync::watch;

use crate::problem::chain;
use crate::store::{Settling, Store};

/// How often the database is asked.
pub const ASK_EVERY: Duration = Duration::from_millis(100);

/// Where the outbox can be read up to. One for each server.
#[derive(Debug)]
pub struct EventFeed {
    settled: watch::Sender<Option<u64>>,
}

impl Default for EventFeed {
    fn default() -> Self {
        Self { settled: watch::Sender::new(None) }
    }
}

/// Listens to the outbox. While one is there, the database is asked.
#[derive(Debug, Clone)]
pub struct EventListener {
    settled: watch::Receiver<Option<u64>>,
}

impl EventFeed {
    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> EventListener {
        EventListener { settled: self.settled.subscribe() }
    }

    /// Finds out how far the outbox can be read. To be called every [`ASK_EVERY`]; `settling` is kept in between.
    pub async fn look(&self, store: &dyn Store, settling: &mut Settling) {
        if self.settled.receiver_count() == 0 {
            // What is known grows old from here on: who listens next begins with what is so then.
            self.settled.send_replace(None);
            *settling = Settling::default();
            return;
        }
        match store.event_mark(settling.known()).await {
            Ok(mark) => {
                // The database was put back to an earlier moment.
                if mark.position < settling.known() {
                    *settling = Settling::default();
                }
                if let Some(position) = settling.settled(mark) {
                    self.settled.send_if_modified(|known| known.replace(position) != Some(position));
                }
            }
            Err(error) => tracing::debug!(error = %chain(&error), "how far the outbox is can't be told now"),
        }
    }
}

impl EventListener {
    /// The position up to which the outbox is whole, as soon as that is known.
    pub async fn settled(&mut self) -> u64 {
        loop {
            let known = *self.settled.borrow_and_update();
            match known {
                Some(position) => return position,
                None => self.changed().await,
            }
        }
    }

    /// Waits until that is another position than it was when it was last asked for.
    pub async fn changed(&mut self) {
        // It is closed when the server ends, and who listens with it.
        if self.settled.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
