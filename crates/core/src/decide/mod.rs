//! Whether a command may happen, and what it causes.

mod cart;
mod claims;
mod create;
mod import;
mod lifetime;
mod offers;
mod payment;
mod steps;

use crate::command::Command;
use crate::customer::{MAX_FIELD_CHARS, is_clean};
use crate::event::Event;
use crate::funnel::Funnel;
use crate::identifier::SessionId;
use crate::json::digits;
use crate::permission::{Role, may_issue};
use crate::prelude::*;
use crate::rejection::{Rejection, RejectionCode as Code};
use crate::session::{Session, Status};
use crate::state::{Hold, IdleLimit, State};
use crate::time::Timestamp;
use create::decide_create;
use import::decide_import;
pub use lifetime::ended;
pub(crate) use lifetime::{erase, expire};

/// What a decision depends on beside the state and the command.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The time at which it is decided.
    pub now: Timestamp,
    /// The funnel that the session is pinned to, or is to be created with.
    pub funnel: &'a Funnel,
    /// The session's id; used when it is created.
    pub session_id: &'a SessionId,
    /// A random number that tells the new history from any other; used when the session is created.
    pub epoch: u64,
    /// Digest of the claim secret of the client that creates the session.
    pub claim: Option<&'a str>,
}

type Decision = Result<Vec<Event>, Rejection>;

/// Whether `role` may do `command` to the session now, and which events it causes.
///
/// Pure: the same input gives the same answer, in the browser and in the server. No event means that what the
/// command wants is so already.
///
/// # Errors
/// A [`Rejection`] that says what was wrong and who can mend it; then nothing has happened.
pub fn decide(state: Option<&State>, command: &Command, role: Role, context: &Context<'_>) -> Decision {
    if let Command::Import { legacy, .. } = command {
        return check_permission(role, command).and_then(|()| decide_import(state, legacy, context));
    }
    judge(state, command, role, context, |decider, command| decider.decide_for_back_end(command))
}

/// What [`decide`] says of a browser's command. Without the rules for the commands that no browser may issue: in the browser
/// they would be of no use.
///
/// # Errors
/// As [`decide`].
pub fn decide_for_browser(state: Option<&State>, command: &Command, context: &Context<'_>) -> Decision {
    // Whatever else there is was refused before.
    judge(state, command, Role::Browser, context, |_, _| Ok(vec![]))
}

#[inline(always)]
fn judge(
    state: Option<&State>,
    command: &Command,
    role: Role,
    context: &Context<'_>,
    other: impl Fn(&Decider<'_>, &Command) -> Decision,
) -> Decision {
    check_permission(role, command)?;
    match (state, command) {
        (None, Command::Create(create)) => decide_create(create, role, context),
        (Some(_), Command::Create(_)) => reject(Code::SessionExists, &["there is a session with this id already"]),
        (None, _) => reject(Code::SessionNotFound, &["there is no session with this id"]),
        (Some(state), Command::Erase {}) => erase(state, context.now),
        (Some(state), _) if state.erased_at.is_some() => {
            reject(Code::SessionErased, &["the personal data of this session was erased; start a new session"])
        }
        (Some(state), Command::RevokeToken { family, claim, until }) => {
            let remembered = state.revoked_tokens.iter().filter(|(_, over)| context.now < *over).count();
            if remembered >= State::MAX_REVOKED_TOKENS {
                let message = "as many of this session's tokens were revoked as it remembers; the shop can end all with revokeAccess";
                return reject(Code::NotPermitted, &[message]);
            }
            Ok(vec![Event::TokenRevoked { family: family.clone(), claim: claim.clone(), until: *until }])
        }
        (Some(state), command) => {
            Decider { session: &state.session, idle: state.idle, hold: state.hold.as_ref(), role, context }
                .decide(command, other)
        }
    }
}

fn check_permission(role: Role, command: &Command) -> Result<(), Rejection> {
    let kind = command.kind();
    if may_issue(role, kind) {
        return Ok(());
    }
    let who = match role {
        Role::Browser => "a browser",
        Role::Service => "a service",
        Role::Operator => "an operator",
        Role::System => "the server by itself",
    };
    reject(Code::NotPermitted, &[who, " may not issue ", kind.as_str()])
}

fn reject<T>(code: Code, message: &[&str]) -> Result<T, Rejection> {
    Err(Rejection::because(code, message))
}

fn check_reference(name: &str, text: &str) -> Result<(), Rejection> {
    if text.is_empty() || !is_clean(text, MAX_FIELD_CHARS) {
        let message =
            &[name, " has to be 1 to ", &digits(MAX_FIELD_CHARS as i64), " characters without control characters"];
        return reject(Code::InvalidField, message);
    }
    Ok(())
}

fn check_references<const N: usize>(references: [(&str, &Option<String>); N]) -> Result<(), Rejection> {
    references
        .into_iter()
        .try_for_each(|(name, value)| value.as_deref().map_or(Ok(()), |text| check_reference(name, text)))
}

struct Decider<'a> {
    session: &'a Session,
    idle: Option<IdleLimit>,
    hold: Option<&'a Hold>,
    role: Role,
    context: &'a Context<'a>,
}

impl Decider<'_> {
    /// The commands that a browser may issue (see [`PERMISSIONS`](crate::PERMISSIONS)); what is none of them goes to `other`.
    #[inline(always)]
    fn decide(&self, command: &Command, other: impl Fn(&Self, &Command) -> Decision) -> Decision {
        match command {
            Command::SetEmail { email } => self.set_email(email),
            Command::SetCustomer { customer } => self.set_customer(customer),
            Command::SetItems { items } => self.set_items(items),
            Command::SetCoupon { code } => self.set_coupon(code.as_deref()),
            Command::GoToStep { step } => self.go_to_step(step),
            Command::BeginProcessing {} => self.begin_processing(),
            Command::AcceptUpsell { offer } => self.accept_upsell(offer),
            Command::DeclineUpsell { offer } => self.decline_upsell(offer),
            Command::SetMetadata { metadata } => self.set_metadata(metadata),
            Command::Extend { ttl_ms } => self.extend(*ttl_ms),
            _ => other(self, command),
        }
    }

    /// The commands that a browser may not issue.
    fn decide_for_back_end(&self, command: &Command) -> Decision {
        match command {
            Command::SetAdjustments { discount, shipping, tax } => self.set_adjustments(*discount, *shipping, *tax),
            Command::RecordPayment { transaction_id, amount, vault_id, customer_id, payment_token } => {
                check_reference("transactionId", transaction_id)?;
                check_references([
                    ("vaultId", vault_id),
                    ("customerId", customer_id),
                    ("paymentToken", payment_token),
                ])?;
                self.record_payment(
                    transaction_id,
                    *amount,
                    Event::PaymentRecorded {
                        transaction_id: Some(transaction_id.clone()),
                        amount: *amount,
                        vault_id: vault_id.clone(),
                        customer_id: customer_id.clone(),
                        payment_token: payment_token.clone(),
                    },
                )
            }
            Command::SetPaymentReferences { transaction_id, vault_id, customer_id, payment_token } => {
                self.set_payment_references(transaction_id, vault_id, customer_id, payment_token)
            }
            Command::FailPayment { code, message } => self.fail_payment(code, message),
            Command::RecordUpsellCharge { offer, transaction_id, amount } => {
                self.record_upsell_charge(offer, transaction_id, *amount)
            }
            Command::FailUpsellCharge { offer, code, message } => self.fail_upsell_charge(offer, code, message),
            Command::Expire {} => expire(self.session, self.context.now),
            Command::ConfirmClaims { transaction_id, amount, vault_id, customer_id, charges } => {
                self.confirm_claims((transaction_id.as_ref(), *amount), vault_id, customer_id, charges)
            }
            Command::RefuteClaims {} => self.refute_claims(),
            // That a code lets in one browser alone is a matter of its number; see the server.
            Command::HandOff { claim } => Ok(vec![Event::HandedOff { claim: claim.clone() }]),
            Command::LendClaim { claim } => Ok(vec![Event::ClaimLent { claim: Some(claim.clone()) }]),
            Command::RevokeAccess {} => Ok(vec![Event::AccessRevoked {}]),
            Command::SetHold { hold } => self.set_hold(hold.as_ref()),
            // Decided before, with or without a session.
            Command::Create(_) | Command::Import { .. } | Command::Erase {} | Command::RevokeToken { .. } => Ok(vec![]),
            Command::SetEmail { .. }
            | Command::SetCustomer { .. }
            | Command::SetItems { .. }
            | Command::SetCoupon { .. }
            | Command::GoToStep { .. }
            | Command::BeginProcessing {}
            | Command::AcceptUpsell { .. }
            | Command::DeclineUpsell { .. }
            | Command::SetMetadata { .. }
            | Command::Extend { .. } => self.decide(command, |_, _| Ok(vec![])),
        }
    }

    /// The session has to be alive: neither over, nor past its end.
    fn check_alive(&self) -> Result<(), Rejection> {
        let is_over = self.context.now >= self.session.expires_at;
        match self.session.status {
            Status::Completed => reject(Code::SessionCompleted, &["this order is complete; start a new session"]),
            Status::Expired => reject(Code::SessionExpired, &["this session has expired; start a new session"]),
            _ if is_over && self.session.is_paid() => {
                reject(Code::SessionCompleted, &["the time of this session is over; the order is complete as it is"])
            }
            _ if is_over => reject(Code::SessionExpired, &["this session has expired; start a new session"]),
            Status::Pending | Status::Processing | Status::Failed => Ok(()),
        }
    }

    /// What is bought and who buys may only change before a payment is under way.
    fn check_editable(&self) -> Result<(), Rejection> {
        self.check_alive()?;
        if self.session.is_paid() {
            return reject(Code::AlreadyPaid, &["this session is paid; what was bought can't be changed any more"]);
        }
        if !self.session.is_editable() {
            return reject(Code::PaymentUnderWay, &["a payment is under way; wait for its outcome"]);
        }
        Ok(())
    }
}
