//! What each field of a session is for: the register that an export carries.

use super::export::FieldPurpose;

const fn of(field: &'static str, is_personal: bool, purpose: &'static str) -> FieldPurpose {
    FieldPurpose { field, purpose, is_personal }
}

/// Every field of a session, in the order in which they stand there.
pub(super) const FIELDS: &[FieldPurpose] = &[
    of(
        "id",
        false,
        "Names the session. Random, or chosen by the shop, which puts no personal data there. Stays after an erasure.",
    ),
    of("version", false, "Counts the changes, so that none is lost or done twice. Stays after an erasure."),
    of("email", true, "Where the order is confirmed to, and by which the buyer's sessions are found."),
    of("createdAt", false, "When the buyer began. Stays after an erasure."),
    of(
        "updatedAt",
        false,
        "When the session last changed; from then on its time of keeping is counted. Stays after an erasure.",
    ),
    of("expiresAt", false, "When an unfinished order ends. Stays after an erasure."),
    of("lastAccessedAt", false, "When somebody last used the session. Stays after an erasure."),
    of("status", false, "Whether the order is open, paid, done or over. Stays after an erasure."),
    of("currentStep", false, "Where in the order the buyer is, so that they can go on. Stays after an erasure."),
    of("flow", false, "When each step of the order was reached, to see where buyers are lost. Stays after an erasure."),
    of("customer", true, "Name, telephone and addresses: to deliver and to bill the order."),
    of("products", false, "What is ordered, and at which price. Stays after an erasure."),
    of("couponCode", false, "Which reduction was asked for. Stays after an erasure."),
    of("adjustments", false, "Reduction, shipping and tax. Stays after an erasure."),
    of("totals", false, "What the order costs. Stays after an erasure."),
    of("amount", false, "What was or is to be paid. Stays after an erasure."),
    of("currency", false, "In which currency. Stays after an erasure."),
    of("payment", true, "When and how much was paid, how often it was tried, and what the payment service said."),
    of("vaultId", true, "By which the payment service knows the means of payment, to charge what is accepted later."),
    of("customerId", true, "By which the payment service or the shop knows the customer."),
    of("transactionId", true, "By which the payment service knows the payment, to refund it."),
    of("paymentToken", true, "By which the payment service charges again."),
    of("upsells", true, "What was offered after the order, what the buyer answered, and how it was charged."),
    of("source", false, "Which part of the shop began the session. Stays after an erasure."),
    of("metadata", true, "What the shop added for its own ends."),
    of("funnel", false, "By which rules the order went. Stays after an erasure."),
    of("claims", true, "What an older version of the shop had stored in the browser, until the shop has confirmed it."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::openapi::{RefOr, Schema};
    use utoipa::{PartialSchema as _, ToSchema as _};

    use super::*;

    #[test]
    fn every_field_of_a_session_has_a_purpose() {
        let RefOr::T(Schema::Object(session)) = throughline_core::Session::schema() else {
            panic!("{} is an object", throughline_core::Session::name())
        };
        let fields: BTreeSet<&str> = session.properties.keys().map(String::as_str).collect();
        let told: BTreeSet<&str> = FIELDS.iter().map(|field| field.field).collect();
        assert_eq!(told, fields);
        assert_eq!(told.len(), FIELDS.len(), "each once");
    }
}
