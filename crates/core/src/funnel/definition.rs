//! What a funnel definition holds.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::identifier::{FunnelId, OfferId, ProductId, StepId};
use crate::json::{
    FieldName, Mismatch, Reader, Unknown, fill_fields, json_enum, json_struct, read_value, text, write_value,
};
use crate::money::{Currency, Money, Rate};
use crate::ordered::OrderedMap;
use crate::prelude::*;
use crate::session::{OfferState, Session};
use crate::time::TimeSpan;

/// A funnel: its steps in order of appearance, its catalogue and its offers. Data, versioned;
/// a session is pinned to the version that it started with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Funnel {
    /// Its id.
    pub id: FunnelId,
    /// Its version; a change of the file is a new version.
    pub version: u32,
    /// Its name, for people.
    pub name: String,
    /// The currency of every amount in it.
    pub currency: Currency,
    /// How long its sessions live.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// Shipping.
    #[serde(default)]
    pub shipping: Shipping,
    /// Tax.
    #[serde(default)]
    pub tax: Tax,
    /// What can be bought, with prices.
    pub catalogue: Vec<Product>,
    /// Coupons.
    #[serde(default)]
    pub coupons: Vec<Coupon>,
    /// Upsell offers.
    #[serde(default)]
    pub offers: Vec<Offer>,
    /// The steps; a session begins at the first.
    pub steps: Vec<Step>,
}

/// How long the sessions of a funnel live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Lifetime {
    /// How long a session lives when nothing else is asked for.
    pub default: TimeSpan,
    /// How long it lives at most, however often it is extended.
    pub max: TimeSpan,
    /// How long before the end to warn.
    pub warning: TimeSpan,
    /// After how long a session ends that nobody changes; never where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub idle: Option<TimeSpan>,
}

impl Lifetime {
    /// No funnel may let its sessions live longer: 7 days.
    pub const LONGEST: TimeSpan = TimeSpan::from_hours(7 * 24);
}

impl Default for Lifetime {
    /// 24 hours, at most 7 days, a warning 30 minutes before the end; as long for one that nobody changes.
    fn default() -> Self {
        let warning = TimeSpan::from_millis(30 * 60_000);
        Self { default: TimeSpan::from_hours(24), max: Self::LONGEST, warning, idle: None }
    }
}

/// The shipping rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Shipping {
    /// What shipping costs, in minor units.
    pub flat: Money,
    /// From which subtotal on it is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_from: Option<Money>,
}

/// The tax rule: a rate for each state that the goods go to, in hundredths of a percent; 0 for any other.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Tax {
    /// State to rate; 725 is 7.25 %.
    #[cfg_attr(feature = "openapi", schema(value_type = alloc::collections::BTreeMap<String, Rate>))]
    #[cfg_attr(feature = "typescript", ts(as = "alloc::collections::BTreeMap<String, Rate>"))]
    pub rates: OrderedMap<String, Rate>,
}

/// A product of the catalogue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Product {
    /// Its id.
    pub id: ProductId,
    /// Its name, for people.
    pub name: String,
    /// The price of one, in minor units.
    pub price: Money,
    /// A sentence for the buyer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A coupon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Coupon {
    /// What the buyer enters; capitals don't matter.
    pub code: String,
    /// What it takes off the subtotal.
    pub discount: Discount,
}

/// What a coupon takes off: `{"percent": 1000}` (hundredths of a percent) or `{"amount": 500}` (minor units).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum Discount {
    /// A share.
    Percent(Rate),
    /// A fixed amount, at most the subtotal.
    Amount(Money),
}

/// An upsell offer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Offer {
    /// Its id, such as `RC6`.
    pub id: OfferId,
    /// The product of the catalogue.
    pub product: ProductId,
    /// What it is called in the offer.
    pub name: String,
    /// The offered price, in minor units.
    pub price: Money,
    /// A sentence for the buyer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A step of a funnel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Step {
    /// Its id, such as `checkout`.
    pub id: StepId,
    /// What happens there.
    pub kind: StepKind,
    /// Where the buyer may go on to; what was paid or has failed goes to the first.
    #[serde(default)]
    pub next: Vec<StepId>,
    /// Where the buyer may go back to; a failed payment goes to the first.
    #[serde(default)]
    pub back: Vec<StepId>,
    /// What has to be there before the step can be entered.
    #[serde(default)]
    pub requires: Vec<Requirement>,
    /// The offers that are made there.
    #[serde(default)]
    pub offers: Vec<OfferId>,
    /// How long its offers stay open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<TimeSpan>,
}

/// What happens at a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum StepKind {
    /// The buyer fills in a form; before the payment.
    Form,
    /// The payment; entered by `beginProcessing`, left by the outcome.
    Payment,
    /// Offers are made; after the payment.
    Offer,
    /// The end: entering it completes the session.
    Terminal,
}

/// A guard of a step: something of the session that has to be there.
///
/// As text: `email`, `products`, `coupon`, `payment` (paid), `offersAnswered` (no offer is open), or a field of the
/// customer such as `customer.firstName` or `customer.billing.zipCode`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
pub enum Requirement {
    /// An email address.
    Email,
    /// At least one product.
    Products,
    /// A coupon.
    Coupon,
    /// The payment was recorded.
    Payment,
    /// No offer is open.
    OffersAnswered,
    /// A field of the customer.
    Customer(CustomerField),
    /// A field of the billing address.
    Billing(AddressField),
    /// A field of the shipping address.
    Shipping(AddressField),
}

/// Index into the names of the customer's own fields.
type CustomerField = &'static str;
/// Index into the names of an address's fields.
type AddressField = &'static str;

const CUSTOMER_FIELDS: [&str; 3] = ["firstName", "lastName", "phone"];
const ADDRESS_FIELDS: [&str; 7] = ["firstName", "lastName", "address", "city", "state", "zipCode", "country"];

/// A guard names something that a session has not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidRequirement(String);

impl fmt::Display for InvalidRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl InvalidRequirement {
    fn sentence(&self) -> String {
        let possible = "' is no field that a step can require; possible are email, products, coupon, payment, \
                        offersAnswered, customer.{firstName|lastName|phone}, \
                        customer.billing.{firstName|lastName|address|city|state|zipCode|country} \
                        and the same under customer.shipping";
        ["'", &self.0, possible].joined()
    }
}

impl core::error::Error for InvalidRequirement {}

impl TryFrom<String> for Requirement {
    type Error = InvalidRequirement;

    fn try_from(text: String) -> Result<Self, InvalidRequirement> {
        let known = |names: &[&'static str], name: &str| names.iter().copied().find(|known| *known == name);
        let found = match text.as_str() {
            "email" => Some(Self::Email),
            "products" => Some(Self::Products),
            "coupon" => Some(Self::Coupon),
            "payment" => Some(Self::Payment),
            "offersAnswered" => Some(Self::OffersAnswered),
            path => {
                let field = path.strip_prefix("customer.").unwrap_or_default();
                if let Some(field) = field.strip_prefix("billing.") {
                    known(&ADDRESS_FIELDS, field).map(Self::Billing)
                } else if let Some(field) = field.strip_prefix("shipping.") {
                    known(&ADDRESS_FIELDS, field).map(Self::Shipping)
                } else {
                    known(&CUSTOMER_FIELDS, field).map(Self::Customer)
                }
            }
        };
        found.ok_or(InvalidRequirement(text))
    }
}

impl From<Requirement> for String {
    fn from(requirement: Requirement) -> Self {
        requirement.to_string()
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Requirement {
    /// It as text, as in JSON.
    pub(crate) fn text(&self) -> String {
        let (path, field) = match self {
            Self::Email => ("email", ""),
            Self::Products => ("products", ""),
            Self::Coupon => ("coupon", ""),
            Self::Payment => ("payment", ""),
            Self::OffersAnswered => ("offersAnswered", ""),
            Self::Customer(field) => ("customer.", *field),
            Self::Billing(field) => ("customer.billing.", *field),
            Self::Shipping(field) => ("customer.shipping.", *field),
        };
        [path, field].joined()
    }
}

impl Requirement {
    /// Whether `session` has it.
    pub fn is_met(&self, session: &Session) -> bool {
        let customer = &session.customer;
        let in_address = |address: &Option<crate::customer::Address>, name: &str| {
            address.iter().flat_map(|address| address.fields()).any(|(field, value)| field == name && value.is_some())
        };
        match self {
            Self::Email => session.email.is_some(),
            Self::Products => !session.products.is_empty(),
            Self::Coupon => session.coupon_code.is_some(),
            Self::Payment => session.is_paid(),
            Self::OffersAnswered => session.upsells.iter().all(|upsell| upsell.state != OfferState::Offered),
            Self::Customer("firstName") => customer.first_name.is_some(),
            Self::Customer("lastName") => customer.last_name.is_some(),
            Self::Customer(_) => customer.phone.is_some(),
            Self::Billing(field) => in_address(&customer.billing, field),
            Self::Shipping(field) => in_address(&customer.shipping, field),
        }
    }
}

impl Funnel {
    /// The step at which a session begins.
    pub fn first_step(&self) -> Option<&Step> {
        self.steps.first()
    }

    /// The step with this id.
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == *id)
    }

    /// The first step of this kind.
    pub fn step_of_kind(&self, kind: StepKind) -> Option<&Step> {
        self.steps.iter().find(|step| step.kind == kind)
    }

    /// The offer with this id.
    pub fn offer(&self, id: &OfferId) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.id == *id)
    }

    /// The product with this id.
    pub fn product(&self, id: &ProductId) -> Option<&Product> {
        self.catalogue.iter().find(|product| product.id == *id)
    }

    /// The coupon with this code; capitals don't matter.
    pub fn coupon(&self, code: &str) -> Option<&Coupon> {
        self.coupons.iter().find(|coupon| coupon.code.eq_ignore_ascii_case(code))
    }
}

json_struct!(Funnel, Refused { id: "id", version: "version", name: "name", currency: "currency", lifetime: "lifetime" or default, shipping: "shipping" or default, tax: "tax" or default, catalogue: "catalogue", coupons: "coupons" or default, offers: "offers" or default, steps: "steps" });

json_struct!(Lifetime, Refused { default: "default", max: "max", warning: "warning", idle: "idle" unless empty });

json_struct!(Shipping, Refused { flat: "flat", free_from: "freeFrom" unless empty });

json_struct!(Tax, Refused { rates: "rates" });

json_struct!(Product, Refused { id: "id", name: "name", price: "price", description: "description" unless empty });

json_struct!(Coupon, Refused { code: "code", discount: "discount" });

json_struct!(Offer, Refused { id: "id", product: "product", name: "name", price: "price", description: "description" unless empty });

json_struct!(Step, Refused { id: "id", kind: "kind", next: "next" or default, back: "back" or default, requires: "requires" or default, offers: "offers" or default, time_limit: "timeLimit" unless empty });

json_enum!(StepKind { Form: "form", Payment: "payment", Offer: "offer", Terminal: "terminal" });

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Requirement {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        <String as utoipa::PartialSchema>::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Requirement {}

read_value! {
    Requirement, blank Self::Email, reader =>
        Self::try_from(text(reader)?).map_err(|error| Mismatch::new(error.sentence()));
    Discount, blank Self::Amount(Money::ZERO), reader => read_discount(reader);
}

write_value! {
    Requirement, this, out => out.quoted(&this.text());
    Discount, this, out => {
        let (percent, amount) = match this {
            Discount::Percent(rate) => (Some(*rate), None),
            Discount::Amount(amount) => (None, Some(*amount)),
        };
        out.fields(DISCOUNT_NAMES, &[&percent, &amount]);
    };
}

const DISCOUNT_NAMES: &[FieldName] = &[
    FieldName { key: "\"percent\":", or_default: false, unless_empty: true },
    FieldName { key: "\"amount\":", or_default: false, unless_empty: true },
];

fn read_discount(reader: &mut Reader<'_>) -> Result<Discount, Mismatch> {
    let (mut percent, mut amount) = (None, None);
    fill_fields(reader, Unknown::Refused, DISCOUNT_NAMES, &mut [&mut percent, &mut amount])?;
    match (percent, amount) {
        (Some(rate), None) => Ok(Discount::Percent(rate)),
        (None, Some(amount)) => Ok(Discount::Amount(amount)),
        _ => Err(Mismatch::new("expected either percent or amount")),
    }
}
