//! Who sees what: the one place through which everything passes on its way out.

use crate::event::{Event, Record};
use crate::identifier::ClientId;
use crate::permission::Role;
use crate::session::Session;
use crate::state::State;

impl Session {
    /// The session as `role` may see it: without payment references for a browser.
    #[must_use]
    pub fn project(mut self, role: Role) -> Self {
        match role {
            Role::Service | Role::Operator | Role::System => self,
            Role::Browser => {
                self.vault_id = None;
                self.transaction_id = None;
                self.payment_token = None;
                for upsell in &mut self.upsells {
                    upsell.transaction_id = None;
                }
                if let Some(claims) = &mut self.claims {
                    claims.vault_id = None;
                    claims.transaction_id = None;
                    for accepted in &mut claims.accepted {
                        accepted.transaction_id = None;
                    }
                }
                self
            }
        }
    }
}

impl State {
    /// The state as who has these clients in `role` may see it: a browser gets its own ledgers only, and no claim digest.
    #[must_use]
    pub fn project(mut self, role: Role, clients: &[ClientId]) -> Self {
        self.session = self.session.project(role);
        match role {
            Role::Service | Role::Operator | Role::System => self,
            Role::Browser => {
                self.claim = None;
                self.lent.clear();
                self.revoked_tokens.clear();
                self.hold = None;
                self.clients.retain(|id, _| clients.contains(id));
                self
            }
        }
    }
}

impl Record {
    /// The record as who has these clients in `role` may see it. Evolving projected records on a projected state gives the
    /// projection of the evolved state.
    #[must_use]
    pub fn project(mut self, role: Role, clients: &[ClientId]) -> Self {
        match role {
            Role::Service | Role::Operator | Role::System => self,
            Role::Browser => {
                let is_own = self.origin.as_ref().is_some_and(|origin| clients.contains(&origin.client_id));
                if !is_own {
                    self.origin = None;
                }
                self.caller = None;
                match &mut self.event {
                    Event::Created { claim, .. } => *claim = None,
                    Event::HandedOff { claim } | Event::ClaimLent { claim } => *claim = None,
                    Event::TokenRevoked { family, claim, .. } => {
                        *family = None;
                        *claim = None;
                    }
                    Event::HoldSet { hold } => *hold = None,
                    Event::PaymentRecorded { transaction_id, vault_id, payment_token, .. }
                    | Event::PaymentReferencesSet { transaction_id, vault_id, payment_token, .. } => {
                        *transaction_id = None;
                        *vault_id = None;
                        *payment_token = None;
                    }
                    Event::OfferCharged { transaction_id, .. } => *transaction_id = None,
                    Event::ClaimsMade { claims } => {
                        claims.vault_id = None;
                        claims.transaction_id = None;
                        for accepted in &mut claims.accepted {
                            accepted.transaction_id = None;
                        }
                    }
                    Event::CommandRejected { rejection } if !is_own => rejection.message.clear(),
                    _ => {}
                }
                self
            }
        }
    }
}
