//! How long a session lives, and how it ends.

use super::offers::lapse;
use super::{Decider, Decision, reject};
use crate::customer::{MAX_FIELD_CHARS, is_clean};
use crate::event::{Event, Record};
use crate::evolve::evolve;
use crate::json::digits;
use crate::permission::Role;
use crate::prelude::*;
use crate::rejection::RejectionCode as Code;
use crate::session::Session;
use crate::state::{Hold, State};
use crate::time::{TimeSpan, Timestamp};

impl Decider<'_> {
    pub(super) fn extend(&self, ttl_ms: Option<u32>) -> Decision {
        self.check_alive()?;
        let lifetime = self.context.funnel.lifetime;
        let latest = self.session.created_at.plus(lifetime.max);
        // With an idle limit the end moves by itself up to the latest one; that is what is extended.
        let ends = self.idle.map_or(self.session.expires_at, |idle| idle.latest_end);
        if ends >= latest {
            let message = &["a session of this funnel lives ", &lifetime.max.text(), " at most"];
            return reject(Code::LifetimeExceeded, message);
        }
        let ttl = ttl_ms.map_or(lifetime.default, |ttl| TimeSpan::from_millis(ttl.into()));
        let expires_at = self.context.now.plus(ttl).min(latest);
        Ok(if expires_at <= ends { vec![] } else { vec![Event::Extended { expires_at }] })
    }

    pub(super) fn set_hold(&self, hold: Option<&Hold>) -> Decision {
        if let Some(Hold { reason, until }) = hold {
            if reason.trim().is_empty() || !is_clean(reason, MAX_FIELD_CHARS) {
                let message = &[
                    "reason has to be 1 to ",
                    &digits(MAX_FIELD_CHARS as i64),
                    " characters without control characters",
                ];
                return reject(Code::InvalidField, message);
            }
            if until.is_some_and(|until| until <= self.context.now) {
                return reject(Code::InvalidField, &["until has to be in the future; to end a hold, set none"]);
            }
        }
        Ok(if self.hold == hold { vec![] } else { vec![Event::HoldSet { hold: hold.cloned() }] })
    }
}

/// Removes the personal data, unless the session is held. Needs no funnel: erasure must not depend on a file that somebody removed.
pub(crate) fn erase(state: &State, now: Timestamp) -> Decision {
    if state.erased_at.is_some() {
        return Ok(vec![]);
    }
    if let Some(Hold { reason, until }) = state.held(now) {
        let until = until.map_or_else(|| "somebody ends that".to_owned(), |until| until.to_string());
        return reject(Code::SessionHeld, &["the session is held until ", &until, ": ", reason]);
    }
    Ok(vec![Event::Erased {}])
}

/// Ends a session whose time is over. Needs no funnel, so that it works also where the session's funnel is gone.
pub(crate) fn expire(session: &Session, now: Timestamp) -> Decision {
    if session.status.is_terminal() {
        return Ok(vec![]);
    }
    if now < session.expires_at {
        return reject(Code::NotDue, &["the session lives until ", &session.expires_at.to_string()]);
    }
    if !session.is_paid() {
        return Ok(vec![Event::Expired {}]);
    }
    let mut events = lapse(session, |_| true);
    events.push(Event::Completed {});
    Ok(events)
}

/// The state as it is once somebody has written down that its time is over; the same where it is not, or was ended before.
///
/// For showing it while it can't be written down: an ended session never looks alive.
pub fn ended(state: &State, now: Timestamp) -> State {
    let is_due = state.deadline().is_some_and(|deadline| now >= deadline);
    let events = if is_due { expire(&state.session, now).unwrap_or_default() } else { Vec::new() };
    events.into_iter().fold(state.clone(), |state, event| {
        let record =
            Record { version: state.version() + 1, at: now, by: Role::System, origin: None, caller: None, event };
        evolve(Some(state.clone()), &record).unwrap_or(state)
    })
}
