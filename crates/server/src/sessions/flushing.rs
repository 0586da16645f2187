//! What was accepted before the database has it, and its way there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::hosted::Hosted;

/// Sessions whose tail this process has to bring to the database, and how much that is in all.
#[derive(Debug)]
pub(super) struct Backlog {
    commands: AtomicUsize,
    limit: usize,
    queue: Mutex<Vec<Arc<Hosted>>>,
}

impl Backlog {
    /// `limit`: how many commands may be accepted ahead of the database.
    pub(super) fn new(limit: usize) -> Self {
        Self { commands: AtomicUsize::new(0), limit, queue: Mutex::default() }
    }

    pub(super) fn commands(&self) -> usize {
        self.commands.load(Ordering::Relaxed)
    }

    /// Whether more may be accepted ahead of the database.
    pub(super) fn has_room(&self) -> bool {
        self.commands() < self.limit
    }

    /// A session had so many commands ahead of the database, and has so many now.
    pub(super) fn count(&self, before: usize, now: usize) {
        if now >= before {
            self.commands.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.commands.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Brings the session's tail to the database in the next round. The queue keeps the session in memory until then.
    pub(super) fn push(&self, hosted: Arc<Hosted>) {
        self.queue().push(hosted);
    }

    /// Everything that is to be flushed now.
    pub(super) fn take(&self) -> Vec<Arc<Hosted>> {
        std::mem::take(&mut *self.queue())
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Hosted>>> {
        // Pushing and taking are whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
