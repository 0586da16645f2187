//! How long a session lives, and how it ends.

use super::offers::lapse;
use super::{Decider, Decision, reject};
use crate::event::Event;
use crate::rejection::RejectionCode as Code;
use crate::session::Session;
use crate::time::{TimeSpan, Timestamp};

impl Decider<'_> {
    pub(super) fn extend(&self, ttl_ms: Option<u32>) -> Decision {
        self.check_alive()?;
        let lifetime = self.context.funnel.lifetime;
        let latest = self.session.created_at.plus(lifetime.max);
        if self.session.expires_at >= latest {
            let message = format_args!("a session of this funnel lives {} at most", lifetime.max);
            return reject(Code::LifetimeExceeded, message);
        }
        let ttl = ttl_ms.map_or(lifetime.default, |ttl| TimeSpan::from_millis(ttl.into()));
        let expires_at = self.context.now.plus(ttl).min(latest);
        Ok(if expires_at <= self.session.expires_at { vec![] } else { vec![Event::Extended { expires_at }] })
    }
}

/// Ends a session whose time is over. Needs no funnel, so that it works also where the session's funnel is gone.
pub(crate) fn expire(session: &Session, now: Timestamp) -> Decision {
    if session.status.is_terminal() {
        return Ok(vec![]);
    }
    if now < session.expires_at {
        return reject(Code::NotDue, format_args!("the session lives until {}", session.expires_at));
    }
    if !session.is_paid() {
        return Ok(vec![Event::Expired {}]);
    }
    let mut events = lapse(session, |_| true);
    events.push(Event::Completed {});
    Ok(events)
}
