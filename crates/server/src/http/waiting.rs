//! Requests that wait: for most of their time the server has nothing to do for them, so they hold nothing then that
//! others need.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::Method;
use tokio::sync::OwnedSemaphorePermit;

use super::sync;

/// The longest that a request may wait for something to happen.
pub const LONGEST: Duration = Duration::from_secs(25);

/// Whether this request may wait.
pub(super) fn may_wait(request: &Request) -> bool {
    request.method() == Method::POST && request.uri().path() == sync::PATH
}

/// What a request holds while it is being answered: its place, and the room that its body takes. One that may wait finds
/// it among its extensions, and gives it back before.
#[derive(Debug, Clone)]
pub(super) struct Held(Arc<Mutex<Permits>>);

#[derive(Debug)]
struct Permits {
    _place: Option<OwnedSemaphorePermit>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Held {
    pub(super) fn new(place: Option<OwnedSemaphorePermit>, room: Option<OwnedSemaphorePermit>) -> Self {
        Self(Arc::new(Mutex::new(Permits { _place: place, _room: room })))
    }

    /// From here on the request waits.
    pub(super) fn give_back(&self) {
        // There is nothing in it that a panic elsewhere could leave half done.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Permits { _place: None, _room: None };
    }
}

/// For how long a request waited: an extension of its answer, so that this does not count as time that it took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited(pub(super) Duration);

impl Waited {
    pub(super) fn since(begun: Instant) -> Self {
        Self(begun.elapsed())
    }
}
