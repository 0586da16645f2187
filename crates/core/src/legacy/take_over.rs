//! A browser's legacy storage, as the command that begins its session here.
//!
//! That storage is not to be trusted: whatever it says of prices and payments becomes a claim ([`Claims`](crate::Claims)) that a
//! service principal has to confirm.

use super::read::{LegacySession, LegacySystem, NotASession, read};
use crate::command::Create;
use crate::customer::Customer;
use crate::identifier::SessionId;
use crate::json::JsonValue;
use crate::prelude::*;
use crate::session::Source;

/// A session of a legacy system, ready to be created under its old id.
#[derive(Clone, PartialEq, Debug)]
pub struct TakenOver {
    /// Its old id.
    pub id: SessionId,
    /// How it begins here.
    pub create: Create,
}

/// Reads one entry of the legacy localStorage value, as [`read`] does.
///
/// # Errors
/// As [`read`].
pub fn take_over(key: &str, entry: &JsonValue) -> Result<TakenOver, NotASession> {
    let session = read(LegacySystem::Browser, key, entry)?;
    let claims = session.as_claims().ok_or(NotASession { field: "currentStep", reason: "can't be a step" })?;
    let LegacySession { id, email, customer, coupon_code, metadata, .. } = session;
    Ok(TakenOver {
        id,
        create: Create {
            email: email.map(String::from),
            customer: (customer != Customer::default()).then_some(customer),
            coupon_code,
            metadata,
            source: Some(Source::Migration),
            claims: Some(claims),
            ..Create::default()
        },
    })
}
