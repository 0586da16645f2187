//! Who may issue which command: one table, and what is not in it is forbidden.

use serde::{Deserialize, Serialize};

use crate::command::CommandKind;
use crate::json::json_enum;

/// In which role a command is issued.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum Role {
    /// The buyer's browser, with the session's token.
    Browser,
    /// A shop's back end, with a service key.
    Service,
    /// A person who runs the server.
    Operator,
    /// The server itself, when a deadline has passed.
    System,
}

impl Role {
    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Service => "service",
            Self::Operator => "operator",
            Self::System => "system",
        }
    }
}

use CommandKind as C;
use Role::{Browser, Operator, Service, System};

/// Which roles may issue which command.
pub const PERMISSIONS: &[(CommandKind, &[Role])] = &[
    (C::Create, &[Browser, Service]),
    (C::Import, &[Service, Operator, System]),
    (C::SetEmail, &[Browser, Service]),
    (C::SetCustomer, &[Browser, Service]),
    (C::SetItems, &[Browser, Service]),
    (C::SetCoupon, &[Browser, Service]),
    (C::SetAdjustments, &[Service]),
    (C::GoToStep, &[Browser, Service]),
    (C::BeginProcessing, &[Browser, Service]),
    (C::RecordPayment, &[Service]),
    (C::SetPaymentReferences, &[Service]),
    (C::FailPayment, &[Service]),
    (C::AcceptUpsell, &[Browser, Service]),
    (C::DeclineUpsell, &[Browser, Service]),
    (C::RecordUpsellCharge, &[Service]),
    (C::FailUpsellCharge, &[Service]),
    (C::SetMetadata, &[Browser, Service]),
    (C::Extend, &[Browser, Service, Operator]),
    (C::Expire, &[Service, Operator, System]),
    (C::ConfirmClaims, &[Service]),
    (C::RefuteClaims, &[Service]),
    (C::HandOff, &[System]),
    (C::LendClaim, &[System]),
    (C::RevokeAccess, &[Service]),
    (C::RevokeToken, &[System]),
    (C::SetHold, &[Service, Operator]),
    (C::Erase, &[Service, Operator]),
];

/// Whether `role` may issue commands of this kind. Deny by default.
pub fn may_issue(role: Role, kind: CommandKind) -> bool {
    PERMISSIONS.iter().any(|(listed, roles)| *listed == kind && roles.contains(&role))
}

json_enum!(Role { Browser: "browser", Service: "service", Operator: "operator", System: "system" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_stands_in_the_table_once() {
        for kind in CommandKind::ALL {
            assert_eq!(PERMISSIONS.iter().filter(|(listed, _)| listed == kind).count(), 1, "{kind:?}");
        }
    }

    #[test]
    fn a_browser_may_not_touch_money() {
        for kind in [
            C::Import,
            C::SetAdjustments,
            C::RecordPayment,
            C::RecordUpsellCharge,
            C::ConfirmClaims,
            C::HandOff,
            C::Erase,
        ] {
            assert!(!may_issue(Browser, kind), "{kind:?}");
        }
    }

    #[test]
    fn only_a_service_revokes_access() {
        for role in [Browser, Operator, System] {
            assert!(!may_issue(role, C::RevokeAccess), "{role:?}");
        }
        assert!(may_issue(Service, C::RevokeAccess));
    }
}
