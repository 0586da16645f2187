//! The tier that all servers share: in memory, and sometimes all of it is gone.

use throughline_core::State;
use throughline_core::sync::{Share, SharedView, TailEntry};

use crate::plants::Plant;

#[derive(Clone, Default)]
pub(crate) struct SharedTier {
    pub(crate) session: Option<SharedSession>,
}

#[derive(Clone)]
pub(crate) struct SharedSession {
    durable: State,
    /// What was shared after it, each with the state that it led to.
    tail: Vec<(Vec<TailEntry>, State)>,
}

impl SharedSession {
    fn state(&self) -> &State {
        self.tail.last().map_or(&self.durable, |(_, state)| state)
    }

    pub(crate) fn view(&self) -> SharedView {
        let tail = self.tail.iter().flat_map(|(entries, _)| entries).cloned().collect();
        SharedView { state: self.durable.clone(), tail }
    }
}

/// What the shared tier says to a change.
pub(crate) enum Taken {
    Yes,
    Conflict,
    Missing,
}

impl SharedTier {
    pub(crate) fn share(&mut self, share: &Share, plant: Plant) -> Taken {
        let Some(session) = &mut self.session else { return Taken::Missing };
        let is_expected = match plant {
            Plant::ShareWithoutComparing => session.state().version() == share.previous.version(),
            _ => session.state() == &*share.previous,
        };
        if !is_expected {
            return Taken::Conflict;
        }
        session.tail.push((share.entries.clone(), (*share.state).clone()));
        Taken::Yes
    }

    /// The database has this state. What was shared after it stays; what was shared instead of it does not.
    pub(crate) fn settle(&mut self, state: &State) {
        let Some(session) = &mut self.session else {
            self.session = Some(SharedSession { durable: state.clone(), tail: Vec::new() });
            return;
        };
        if session.durable.epoch == state.epoch && session.durable.version() >= state.version() {
            return;
        }
        let place = session.tail.iter().position(|(_, shared)| shared == state);
        let kept = place.map(|place| session.tail.split_off(place + 1)).unwrap_or_default();
        *session = SharedSession { durable: state.clone(), tail: kept };
    }
}
