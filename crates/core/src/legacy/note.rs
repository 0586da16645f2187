//! What somebody may want to know of how legacy data was read.

use core::fmt;

use super::read::LegacySystem;
use crate::prelude::*;

/// Something that had to be decided about legacy data. It names the field and never the value, so that it may be logged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Note {
    /// The field, as in the unified session.
    pub field: String,
    /// What was decided.
    pub kind: NoteKind,
}

/// What was decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NoteKind {
    /// It can't be read. It is kept as it was in `metadata.legacy`, or left out: where that has no room, and what no browser may see.
    Unreadable,
    /// An amount was no whole number of cents, and was rounded.
    Rounded,
    /// The metadata were too large; the largest entries were left out.
    MetadataDropped,
    /// A payment was begun, and nothing says how it ended. Nobody can pay again before a service principal confirms or refutes it.
    PaymentUnsettled,
    /// It is paid, and a read after its end had turned it to `expired`. It comes in as completed.
    PaidThoughExpired,
    /// It was paid twice, by two transactions. The newer one counts; the other waits for somebody to look at it.
    PaidTwice,
    /// What is owed by the funnel's prices is another amount than the legacy one.
    Repriced,
    /// What was paid is another amount than that of the products, with discount, shipping and tax.
    AmountsDisagree,
    /// A product that the catalogue has not at this price. It can't be paid before a service principal confirms it.
    PriceUnconfirmed,
    /// More products than a session can have; the first ones are there.
    ProductsDropped,
    /// It says that it is from later than now: a clock that is ahead, or a column without a time zone that does not hold UTC. What
    /// has changed here is taken for newer.
    ClockAhead,
    /// A column that the legacy table had not. It stays there alone: browsers see the metadata.
    ColumnLeftOut,
    /// A browser had begun a session under this id, and did not know the buyer whom the shop knows. It has no access any more.
    AccessRevoked,
    /// The funnel has no such coupon; kept in `metadata.legacy`.
    CouponUnknown,
    /// The funnel has no such offer; it comes in under its code, at the amount that was written down, else for nothing.
    OfferUnknown,
    /// An offer that is declined or closed here was accepted, and so charged, there. What was charged counts.
    OfferCharged,
    /// The funnel has no such step; the buyer is at the last one that their session allows.
    StepUnknown,
    /// Two systems say different things; this one's is older and was left out.
    Overruled(LegacySystem),
    /// The session was erased here; nothing brings it back.
    Erased,
}

impl NoteKind {
    /// A stable name, for reports.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Rounded => "rounded",
            Self::MetadataDropped => "metadataDropped",
            Self::PaymentUnsettled => "paymentUnsettled",
            Self::PaidThoughExpired => "paidThoughExpired",
            Self::PaidTwice => "paidTwice",
            Self::Repriced => "repriced",
            Self::AmountsDisagree => "amountsDisagree",
            Self::PriceUnconfirmed => "priceUnconfirmed",
            Self::ProductsDropped => "productsDropped",
            Self::ClockAhead => "clockAhead",
            Self::ColumnLeftOut => "columnLeftOut",
            Self::AccessRevoked => "accessRevoked",
            Self::CouponUnknown => "couponUnknown",
            Self::OfferUnknown => "offerUnknown",
            Self::OfferCharged => "offerCharged",
            Self::StepUnknown => "stepUnknown",
            Self::Overruled(_) => "overruled",
            Self::Erased => "erased",
        }
    }

    /// Whether a person has to do something about it.
    #[must_use]
    pub const fn needs_a_person(self) -> bool {
        matches!(
            self,
            Self::PaymentUnsettled
                | Self::PaidTwice
                | Self::PriceUnconfirmed
                | Self::AmountsDisagree
                | Self::ProductsDropped
        )
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Unreadable => "can't be read; kept as it was in metadata.legacy",
            Self::Rounded => "was no whole number of cents, and was rounded",
            Self::MetadataDropped => "were too large; the largest entries were left out",
            Self::PaymentUnsettled => {
                "was begun, and nothing says how it ended; ask the payment gateway, then confirmClaims or refuteClaims"
            }
            Self::PaidThoughExpired => "was paid and then turned to expired by a late read; comes in as completed",
            Self::PaidTwice => {
                "was made twice; the newer transaction counts, refund the other one or confirm it (confirmClaims)"
            }
            Self::Repriced => "is another one by the funnel's prices; those count",
            Self::AmountsDisagree => "is not what the products cost; what was paid counts, ask the payment gateway",
            Self::PriceUnconfirmed => "is not in the catalogue; can't be paid before confirmClaims",
            Self::ProductsDropped => "are more than a session can have; the first ones are there",
            Self::ClockAhead => "is later than now; what has changed here counts as newer",
            Self::ColumnLeftOut => "is no column of the legacy table; it was left out, and stays there alone",
            Self::AccessRevoked => {
                "was begun here by a browser that did not know the buyer; its access is over, the buyer comes in by the shop"
            }
            Self::CouponUnknown => "is none of the funnel's; kept in metadata.legacy",
            Self::OfferUnknown => "names an offer that the funnel has not; it comes in under its code",
            Self::OfferCharged => {
                "names an offer that is declined or closed here and was charged there; it counts as charged"
            }
            Self::StepUnknown => "is no step of the funnel; the buyer is at the last one that the session allows",
            Self::Overruled(_) => "differs between the systems; the newest counts, the other was left out",
            Self::Erased => "was erased; nothing brings it back",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.kind.sentence())?;
        match self.kind {
            NoteKind::Overruled(system) => write!(f, " (of the {})", system.as_str()),
            _ => Ok(()),
        }
    }
}
