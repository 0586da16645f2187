//! The shop's back end: requests that are asked again until they are answered.

use throughline_core::json::{JsonObject, JsonValue};
use throughline_core::sync::{Credential, PeerId, Request, ServerFrame};
use throughline_core::{ClientId, Command, Role};

use crate::world::{World, client, tag_of};

/// A request of the shop's back end, until it is answered.
pub(crate) struct Call {
    client_id: ClientId,
    command: Command,
    pub(crate) peer: Option<(usize, PeerId)>,
}

impl World {
    pub(crate) fn call(&mut self) {
        let tag = self.unique();
        let metadata = JsonObject::from([("tag".to_owned(), JsonValue::Integer(tag as i64))]);
        let amount = self.database.state.as_ref().map_or_else(Default::default, |state| state.session.amount);
        let transaction_id = format!("transaction-{tag}");
        let payment =
            Command::RecordPayment { transaction_id, amount, vault_id: None, customer_id: None, payment_token: None };
        let command = if self.percent(15) { payment } else { Command::SetMetadata { metadata } };
        self.calls.push(Call { client_id: client(&format!("backend-{tag}")), command, peer: None });
    }

    /// Creates the session on behalf of whoever wants one.
    pub(crate) fn call_to_create(&mut self) {
        let client_id = client(&format!("backend-{}", self.unique()));
        self.calls.push(Call { client_id, command: Command::Create(Box::default()), peer: None });
    }

    /// The back end asks again until it is answered.
    pub(crate) fn send_calls(&mut self, server: usize) -> bool {
        let mut sent = false;
        for index in 0..self.calls.len() {
            let Some(call) = self.calls.get(index) else { break };
            if call.peer.is_some() {
                continue;
            }
            let (client_id, command) = (call.client_id.clone(), Ok(call.command.clone()));
            let peer = PeerId(self.unique());
            self.calls[index].peer = Some((server, peer));
            let request = Request::new(client_id, Some(1), command);
            self.ask(server, |authority, environment| {
                authority.submit_once(peer, Role::Service, Credential::Verified, [request], environment)
            });
            sent = true;
        }
        sent
    }

    pub(crate) fn answer_call(&mut self, peer: PeerId, frame: ServerFrame) {
        let Some(index) = self.calls.iter().position(|call| call.peer.is_some_and(|(_, known)| known == peer)) else {
            return;
        };
        match frame {
            ServerFrame::Accepted { client_id, seq, .. } => {
                self.promises.confirmed.extend(tag_of(&self.calls[index].command));
                self.promises.told.insert((client_id.in_ledger(Role::Service), seq));
                self.calls.remove(index);
            }
            ServerFrame::Rejected { client_id, seq, .. } => {
                self.promises.told.insert((client_id.in_ledger(Role::Service), seq));
                self.calls.remove(index);
            }
            ServerFrame::Busy { .. } | ServerFrame::Gap { .. } => self.calls[index].peer = None,
            _ => {}
        }
    }
}
