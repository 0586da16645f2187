//! The TypeScript declarations of everything that the npm package gives out.

use ts_rs::{Config, TS};

/// All declarations as one TypeScript module.
pub fn declarations() -> String {
    let config = Config::new().with_large_int("number");
    let mut module = String::from("// Derived from the Rust types of throughline-core. Don't edit.\n");
    macro_rules! declare {
        ($($name:ty),+ $(,)?) => {$(
            module.push('\n');
            if let Some(docs) = <$name as TS>::docs() {
                module.push_str(&docs);
            }
            module.push_str("export ");
            module.push_str(&<$name as TS>::decl(&config));
            module.push('\n');
        )+};
    }
    declare!(
        crate::Session,
        crate::Status,
        crate::Flow,
        crate::StepVisit,
        crate::Item,
        crate::PriceSource,
        crate::Adjustments,
        crate::Totals,
        crate::Payment,
        crate::PaymentFailure,
        crate::Upsell,
        crate::OfferState,
        crate::Source,
        crate::FunnelRef,
        crate::Claims,
        crate::ClaimedItem,
        crate::ClaimedUpsell,
        crate::Customer,
        crate::Address,
        crate::Command,
        crate::Create,
        crate::ConfirmedCharge,
        crate::FunnelChoice,
        crate::LegacyEntries,
        crate::ItemRequest,
        crate::Event,
        crate::Record,
        crate::Origin,
        crate::Caller,
        crate::Hold,
        crate::LifecycleEvent,
        crate::LifecycleKind,
        crate::LifecycleData,
        crate::LifecycleSession,
        crate::LifecycleOffer,
        crate::ChangedPart,
        crate::LentClaim,
        crate::Role,
        crate::Rejection,
        crate::RejectionCode,
        crate::MendableBy,
        crate::Funnel,
        crate::funnel::Lifetime,
        crate::funnel::Shipping,
        crate::funnel::Tax,
        crate::funnel::Product,
        crate::funnel::Coupon,
        crate::funnel::Discount,
        crate::funnel::Offer,
        crate::funnel::Step,
        crate::funnel::StepKind,
        crate::funnel::Requirement,
        crate::SessionId,
        crate::ClientId,
        crate::StepId,
        crate::OfferId,
        crate::ProductId,
        crate::FunnelId,
        crate::EmailAddress,
        crate::Money,
        crate::Currency,
        crate::Rate,
        crate::Timestamp,
        crate::TimeSpan,
        crate::json::JsonValue,
    );
    module
}
