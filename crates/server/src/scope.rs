//! What a service key may do. Each route, each sync conversation and each command asks for exactly one scope; what a key
//! does not have is refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use throughline_core::CommandKind;
use utoipa::ToSchema;

/// One thing that a service key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// Read and follow sessions, list them, and sum them up.
    #[serde(rename = "sessions:read")]
    SessionsRead,
    /// Create and change sessions, and give out tokens for them.
    #[serde(rename = "sessions:write")]
    SessionsWrite,
    /// Say what the payment gateway says: payments, charges, and what a browser's old storage claims of them.
    #[serde(rename = "payments")]
    Payments,
    /// Erase personal data, and hold sessions against it.
    #[serde(rename = "privacy")]
    Privacy,
    /// Say where lifecycle events are sent, and have them sent again.
    #[serde(rename = "webhooks")]
    Webhooks,
    /// Run the server: service keys, and the tiers above the database.
    #[serde(rename = "operator")]
    Operator,
}

/// A text that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no such scope; a scope is one of sessions:read, sessions:write, payments, privacy, webhooks and operator"
)]
pub struct ScopeError;

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] =
        [Self::SessionsRead, Self::SessionsWrite, Self::Payments, Self::Privacy, Self::Webhooks, Self::Operator];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionsRead => "sessions:read",
            Self::SessionsWrite => "sessions:write",
            Self::Payments => "payments",
            Self::Privacy => "privacy",
            Self::Webhooks => "webhooks",
            Self::Operator => "operator",
        }
    }

    /// What a command asks of a service key. Exhaustive on purpose: a new command has to be placed here.
    #[must_use]
    pub const fn of_command(kind: CommandKind) -> Self {
        match kind {
            CommandKind::Create
            | CommandKind::SetEmail
            | CommandKind::SetCustomer
            | CommandKind::SetItems
            | CommandKind::SetCoupon
            | CommandKind::SetAdjustments
            | CommandKind::GoToStep
            | CommandKind::BeginProcessing
            | CommandKind::AcceptUpsell
            | CommandKind::DeclineUpsell
            | CommandKind::SetMetadata
            | CommandKind::Extend
            | CommandKind::Expire
            | CommandKind::RevokeAccess
            // Of the server alone: the rules refuse it to every key.
            | CommandKind::HandOff
            | CommandKind::LendClaim
            | CommandKind::RevokeToken => Self::SessionsWrite,
            // It may say that a session was paid.
            CommandKind::Import
            | CommandKind::RecordPayment
            | CommandKind::SetPaymentReferences
            | CommandKind::FailPayment
            | CommandKind::RecordUpsellCharge
            | CommandKind::FailUpsellCharge
            | CommandKind::ConfirmClaims
            | CommandKind::RefuteClaims => Self::Payments,
            CommandKind::Erase | CommandKind::SetHold => Self::Privacy,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(name: &str) -> Result<Self, ScopeError> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name).ok_or(ScopeError)
    }
}

/// What one key may do. Written as the names with a space between them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether `scope` is one of them.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, always in the same order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    const fn bit(scope: Scope) -> u8 {
        1 << scope as u8
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | Self::bit(scope)))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{scope}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

impl FromStr for Scopes {
    type Err = ScopeError;

    fn from_str(names: &str) -> Result<Self, ScopeError> {
        names.split_ascii_whitespace().map(str::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_survive_being_written_and_read() {
        let scopes: Scopes = "payments  sessions:read".parse().unwrap();
        assert_eq!(scopes.to_string(), "sessions:read payments");
        assert!(scopes.contains(Scope::Payments) && !scopes.contains(Scope::Operator));
        assert_eq!(Scopes::all().to_string().parse(), Ok(Scopes::all()));
        assert_eq!(Scopes::all().iter().count(), Scope::ALL.len());
        assert!("".parse::<Scopes>().unwrap().is_empty());
        assert_eq!("sessions:read root".parse::<Scopes>(), Err(ScopeError));
        assert_eq!("Operator".parse::<Scope>(), Err(ScopeError));
    }

    #[test]
    fn a_scope_is_called_the_same_in_json() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
    }

    #[test]
    fn what_only_services_may_say_of_money_is_a_scope_of_its_own() {
        for kind in CommandKind::ALL {
            let name = format!("{kind:?}");
            let words = ["Payment", "PaymentReferences", "Charge", "Claims", "Import"];
            let is_of_payments = words.iter().any(|word| name.ends_with(word));
            assert_eq!(Scope::of_command(*kind) == Scope::Payments, is_of_payments, "{name}");
        }
    }
}
