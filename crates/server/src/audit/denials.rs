//! What was not allowed. It changes nothing, so there is no transaction to write it with: it is counted, and written once in a
//! second.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use throughline_core::Caller;

use super::{AuditEntry, Outcome};
use crate::client_address::kept_network;
use crate::tenant::TenantId;

/// How many different ones are told apart in one second. A crowd of attackers fills neither memory nor database: what is beyond
/// is counted as one, without its network.
const TOLD_APART: usize = 100;

/// Somebody was not allowed something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Denial {
    /// Whose sessions it was about; the single tenant where nobody can tell.
    pub tenant: TenantId,
    /// The session of the token that was shown. Never what the caller merely wrote.
    pub session: Option<String>,
    /// In which role, or `nobody`.
    pub by: &'static str,
    /// The public name of the service key that was shown, if it is one.
    pub key_id: Option<String>,
    /// The network of the address that it came from.
    pub network: Option<String>,
    /// What was wanted.
    pub did: &'static str,
    /// The code of the refusal.
    pub code: Cow<'static, str>,
}

/// Denials that are not written yet.
#[derive(Debug, Default)]
pub struct Denials {
    counted: Mutex<HashMap<Denial, u64>>,
}

impl Denial {
    /// Of somebody who proved nothing.
    #[must_use]
    pub fn of_nobody(did: &'static str, code: impl Into<Cow<'static, str>>) -> Self {
        Self::of(TenantId::single(), "nobody", Caller::default(), did, code)
    }

    /// Of this caller.
    #[must_use]
    pub fn of(
        tenant: TenantId,
        by: &'static str,
        caller: Caller,
        did: &'static str,
        code: impl Into<Cow<'static, str>>,
    ) -> Self {
        let Caller { key_id, network } = caller;
        Self { tenant, session: None, by, key_id, network, did, code: code.into() }
    }

    /// The same, at this address.
    #[must_use]
    pub fn at(self, address: IpAddr) -> Self {
        Self { network: Some(kept_network(address)), ..self }
    }
}

impl Denials {
    /// Counts one.
    pub fn note(&self, denial: Denial) {
        self.add(denial, 1);
    }

    fn add(&self, denial: Denial, times: u64) {
        // An addition is all that is done under the lock: a panic elsewhere leaves a whole map.
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = counted.contains_key(&denial);
        let denial = if is_known || counted.len() < TOLD_APART {
            denial
        } else {
            let Denial { did, code, .. } = denial;
            Denial { network: None, ..Denial::of(TenantId::single(), "nobody", Caller::default(), did, code) }
        };
        *counted.entry(denial).or_default() += times;
    }

    /// Takes back what could not be written.
    pub(super) fn put_back(&self, denials: Vec<(Denial, u64)>) {
        denials.into_iter().for_each(|(denial, times)| self.add(denial, times));
    }

    /// Takes what was counted since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<(Denial, u64)> {
        let counted = std::mem::take(&mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner));
        counted.into_iter().collect()
    }
}

impl Denial {
    /// What the log is to say of it: another entry each time, so that what is written twice is no copy.
    pub(super) fn entry(&self, times: u64, now_ms: i64) -> AuditEntry {
        let Self { tenant, session, by, key_id, network, did, code } = self.clone();
        AuditEntry {
            session,
            outcome: Outcome::Denied,
            code: Some(code.into_owned()),
            times: Some(times),
            ..AuditEntry::done(tenant, did, now_ms).by(by, Caller { key_id, network })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_denial_is_written_once_with_its_count_and_a_crowd_does_not_fill_the_memory() {
        let denials = Denials::default();
        for _ in 0..5 {
            denials.note(Denial::of_nobody("authenticate", "tokenExpired").at("203.0.113.7".parse().unwrap()));
        }
        let taken = denials.take();
        assert_eq!(taken.len(), 1);
        let entry = taken[0].0.entry(taken[0].1, 1_700_000_000_000);
        assert_eq!((entry.times, entry.code.as_deref()), (Some(5), Some("tokenExpired")));
        assert!(denials.take().is_empty(), "taken once");
        denials.put_back(taken);
        assert_eq!(denials.take()[0].1, 5, "what could not be written is not lost");
        for network in 0..10 * TOLD_APART {
            let network = Some(format!("network {network}"));
            denials.note(Denial { network, ..Denial::of_nobody("authenticate", "tokenMalformed") });
        }
        let taken = denials.take();
        assert_eq!(taken.len(), TOLD_APART + 1);
        let sum: u64 = taken.iter().map(|(_, times)| times).sum();
        assert_eq!(sum, 10 * TOLD_APART as u64, "none is lost");
    }
}
