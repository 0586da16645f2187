//! Who buys: names, phone, addresses.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::json::{Mismatch, json_struct, read_value, text, write_value};
use crate::prelude::*;

/// The longest value of a customer's or address's field, in characters.
pub const MAX_FIELD_CHARS: usize = 200;

/// An email address: checked for its form (one `@`, a dotted domain, no spaces), not for its existence.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "ada@example.com"))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
pub struct EmailAddress(String);

/// The text has not the form of an email address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidEmailAddress;

impl fmt::Display for InvalidEmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::SENTENCE)
    }
}

impl InvalidEmailAddress {
    pub(crate) const SENTENCE: &str = "expected an email address such as name@example.com";
}

impl core::error::Error for InvalidEmailAddress {}

impl EmailAddress {
    /// Checks the form of `text` (RFC 5321 lengths: 64 before the `@`, 254 in all).
    ///
    /// # Errors
    /// [`InvalidEmailAddress`] when it hasn't the form of an address.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidEmailAddress> {
        let text = text.into();
        let at = text.bytes().rposition(|byte| byte == b'@').ok_or(InvalidEmailAddress)?;
        let (local, domain) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        let mut labels = domain.as_bytes().split(|byte| *byte == b'.');
        let dotted = domain.bytes().any(|byte| byte == b'.') && labels.all(|label| !label.is_empty());
        let printable = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '@' | '<' | '>' | ',' | ';');
        let fits = (1..=64).contains(&local.len()) && text.len() <= 254;
        if dotted && fits && local.chars().all(printable) && domain.chars().all(printable) {
            Ok(Self(text))
        } else {
            Err(InvalidEmailAddress)
        }
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EmailAddress {
    type Error = InvalidEmailAddress;

    fn try_from(text: String) -> Result<Self, InvalidEmailAddress> {
        Self::new(text)
    }
}

read_value! {
    EmailAddress, blank Self(String::new()), reader =>
        Self::new(text(reader)?).map_err(|_| Mismatch::new(InvalidEmailAddress::SENTENCE));
}

write_value! {
    EmailAddress, this, out => out.quoted(&this.0);
}

impl From<EmailAddress> for String {
    fn from(email: EmailAddress) -> Self {
        email.0
    }
}

/// A postal address. Every field may be missing; each has at most 200 characters.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Address {
    /// Given name, where it differs from the customer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// Family name, where it differs from the customer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    /// Street and number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// City.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// State or province; two letters in the United States (it selects the tax rate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Postal code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zip_code: Option<String>,
    /// Country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
}

/// The buyer, beside the email address. Every field may be missing; each has at most 200 characters.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Customer {
    /// Given name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// Family name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    /// Telephone number, as the buyer wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Where the bill goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing: Option<Address>,
    /// Where the goods go; the billing address where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping: Option<Address>,
}

impl Address {
    /// Every field with its name.
    pub fn fields(&self) -> [(&'static str, &Option<String>); 7] {
        [
            ("firstName", &self.first_name),
            ("lastName", &self.last_name),
            ("address", &self.address),
            ("city", &self.city),
            ("state", &self.state),
            ("zipCode", &self.zip_code),
            ("country", &self.country),
        ]
    }

    /// The place alone, without what is empty.
    pub(crate) fn without_names(&self) -> Self {
        let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        Self {
            first_name: None,
            last_name: None,
            address: text(&self.address),
            city: text(&self.city),
            state: text(&self.state),
            zip_code: text(&self.zip_code),
            country: text(&self.country),
        }
    }

    fn merge(&mut self, patch: &Self) {
        merge_field(&mut self.first_name, &patch.first_name);
        merge_field(&mut self.last_name, &patch.last_name);
        merge_field(&mut self.address, &patch.address);
        merge_field(&mut self.city, &patch.city);
        merge_field(&mut self.state, &patch.state);
        merge_field(&mut self.zip_code, &patch.zip_code);
        merge_field(&mut self.country, &patch.country);
    }

    fn is_empty(&self) -> bool {
        self.fields().iter().all(|(_, value)| value.is_none())
    }
}

impl Customer {
    /// Takes over the fields that `patch` has; an empty text removes a field.
    ///
    /// Field by field, so that two tabs that fill in different fields don't undo each other.
    pub fn merge(&mut self, patch: &Self) {
        merge_field(&mut self.first_name, &patch.first_name);
        merge_field(&mut self.last_name, &patch.last_name);
        merge_field(&mut self.phone, &patch.phone);
        for (mine, theirs) in [(&mut self.billing, &patch.billing), (&mut self.shipping, &patch.shipping)] {
            if let Some(theirs) = theirs {
                let merged = mine.get_or_insert_default();
                merged.merge(theirs);
                if merged.is_empty() {
                    *mine = None;
                }
            }
        }
    }

    /// The address that the goods go to: the one for shipping, where it names the state that decides on the tax.
    pub fn ships_to(&self) -> Option<&Address> {
        self.shipping.as_ref().filter(|address| address.state.is_some()).or(self.billing.as_ref())
    }

    /// The name of the first field that is too long or holds control characters.
    pub fn first_invalid_field(&self) -> Option<String> {
        let own = [("firstName", &self.first_name), ("lastName", &self.last_name), ("phone", &self.phone)];
        first_invalid("", &own)
            .or_else(|| first_invalid("billing.", &self.billing.as_ref()?.fields()))
            .or_else(|| first_invalid("shipping.", &self.shipping.as_ref()?.fields()))
    }
}

fn first_invalid(path: &str, fields: &[(&str, &Option<String>)]) -> Option<String> {
    fields.iter().find(|(_, value)| !is_valid_field(value)).map(|(name, _)| [path, name].joined())
}

fn merge_field(mine: &mut Option<String>, theirs: &Option<String>) {
    match theirs.as_deref() {
        None => {}
        Some("") => *mine = None,
        Some(text) => *mine = Some(text.to_owned()),
    }
}

fn is_valid_field(value: &Option<String>) -> bool {
    value.as_ref().is_none_or(|text| is_clean(text, MAX_FIELD_CHARS))
}

/// Whether a text has at most so many characters, and no control characters among them.
#[inline(never)]
pub(crate) fn is_clean(text: &str, max_chars: usize) -> bool {
    // By hand: the standard library counts faster, with a kilobyte of code.
    let mut left = max_chars;
    text.chars().all(|character| {
        let fits = left > 0 && !character.is_control();
        left = left.saturating_sub(1);
        fits
    })
}

json_struct!(
    Address,
    Refused {
        first_name: "firstName" unless empty,
        last_name: "lastName" unless empty,
        address: "address" unless empty,
        city: "city" unless empty,
        state: "state" unless empty,
        zip_code: "zipCode" unless empty,
        country: "country" unless empty
    }
);

json_struct!(
    Customer,
    Refused {
        first_name: "firstName" unless empty,
        last_name: "lastName" unless empty,
        phone: "phone" unless empty,
        billing: "billing" unless empty,
        shipping: "shipping" unless empty
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_many_scripts_are_accepted_and_malformed_ones_refused() {
        for text in ["a@b.co", "o'brien+tag@mail.example.com", "用户@例子.广告", "buyer0@example.com"] {
            assert!(EmailAddress::new(text).is_ok(), "{text}");
        }
        let long = format!("{}@example.com", "x".repeat(65));
        for text in ["", "a", "@b.co", "a@b", "a@b..co", "a b@c.de", "a@b.co\n", "a@@b.co", long.as_str()] {
            assert!(EmailAddress::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn merging_keeps_what_the_patch_does_not_name_and_removes_empty_fields() {
        let mut customer: Customer =
            serde_json::from_str(r#"{"firstName":"Ada","phone":"1","billing":{"city":"London"}}"#).unwrap();
        customer
            .merge(&serde_json::from_str(r#"{"phone":"","lastName":"L","billing":{"city":"","state":"CA"}}"#).unwrap());
        assert_eq!(
            serde_json::to_string(&customer).unwrap(),
            r#"{"firstName":"Ada","lastName":"L","billing":{"state":"CA"}}"#
        );
    }

    #[test]
    fn control_characters_and_long_fields_are_named() {
        let customer: Customer = serde_json::from_str(r#"{"billing":{"city":"a\u0000b"}}"#).unwrap();
        assert_eq!(customer.first_invalid_field().as_deref(), Some("billing.city"));
    }
}
