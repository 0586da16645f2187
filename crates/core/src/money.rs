//! Money in integer minor units, and rates. No floating point.

use core::fmt;

use crate::prelude::*;
use serde::{Deserialize, Serialize};

/// An amount in minor units of the session's currency (cents for USD). Never a float.
///
/// At most [`Money::MAX`] in either direction, so that every sum of a session stays exact
/// in a JavaScript number (2^53).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = i64, example = 7900))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "number"))]
pub struct Money(i64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest price or adjustment that is accepted: 10,000,000,000 minor units.
    pub const MAX: Self = Self(10_000_000_000);

    /// `minor` minor units.
    pub const fn from_minor(minor: i64) -> Self {
        Self(minor)
    }

    /// The amount in minor units.
    pub const fn minor(self) -> i64 {
        self.0
    }

    /// Whether it is a usable price or adjustment: zero to [`Money::MAX`].
    pub const fn is_price(self) -> bool {
        0 <= self.0 && self.0 <= Self::MAX.0
    }

    /// The sum, held at the limits of 64 bits.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, never below zero.
    pub const fn minus_at_most_all(self, other: Self) -> Self {
        let rest = self.0.saturating_sub(other.0);
        Self(if rest < 0 { 0 } else { rest })
    }

    /// `quantity` times the amount.
    pub const fn times(self, quantity: u32) -> Self {
        Self(self.0.saturating_mul(quantity as i64))
    }

    /// Reads a decimal number of major units (`"79"`, `"19.99"`) with two decimal places.
    ///
    /// More digits are rounded half away from zero; the second part of the answer tells whether
    /// anything but floating-point dust (a difference of a millionth) was rounded away.
    /// `None` when the text is no decimal number or beyond [`Money::MAX`].
    pub fn from_major_decimal(text: &str) -> Option<(Self, bool)> {
        let text = text.trim();
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || whole.len() > 12 || !is_number(whole) || !is_number(fraction) {
            return None;
        }
        // Eight decimal places are enough to tell a third of a cent from the dust of 0.1 + 0.2.
        let place = |index: usize| i64::from(fraction.as_bytes().get(index).map_or(0, |digit| digit - b'0'));
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let fraction = (0..8).fold(0, |sum, index| sum * 10 + place(index));
        let hundred_millionths = whole.checked_mul(100_000_000)?.checked_add(fraction)?;
        Self::from_hundred_millionths(if negative { -hundred_millionths } else { hundred_millionths })
    }

    /// Reads a number of major units that was kept in floating point, like [`Money::from_major_decimal`].
    pub fn from_major_float(major: f64) -> Option<(Self, bool)> {
        let hundred_millionths = major * 1e8;
        let whole = hundred_millionths as i64;
        let rest = hundred_millionths - whole as f64;
        let rounded = whole.saturating_add(i64::from(rest >= 0.5) - i64::from(rest <= -0.5));
        // Also false for NaN.
        let fits = hundred_millionths.abs() <= Self::MAX.0 as f64 * 1e6;
        fits.then(|| Self::from_hundred_millionths(rounded))?
    }

    fn from_hundred_millionths(number: i64) -> Option<(Self, bool)> {
        let minor = (number.abs() + 500_000) / 1_000_000;
        let exact = (number.abs() - minor * 1_000_000).abs() <= 100;
        (minor <= Self::MAX.0).then_some((Self(minor * number.signum()), exact))
    }
}

impl fmt::Display for Money {
    /// Major units with two decimal places, for messages: `79.00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{:02}", self.0.unsigned_abs() / 100, self.0.unsigned_abs() % 100)
    }
}

/// An ISO 4217 currency code: three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "USD"))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
pub struct Currency([u8; 3]);

impl Currency {
    /// The code that ISO 4217 has for no currency.
    pub(crate) const NONE: Self = Self(*b"XXX");

    /// The code as text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl TryFrom<String> for Currency {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err("a currency is three capital letters (ISO 4217), such as USD"),
        }
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A share in hundredths of a percent: 725 is 7.25 %.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u32, example = 725))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "number"))]
pub struct Rate(u32);

impl Rate {
    /// The whole: 100 %.
    pub const WHOLE: Self = Self(10_000);

    /// A rate of `hundredths` hundredths of a percent.
    pub const fn from_hundredths_of_percent(hundredths: u32) -> Self {
        Self(hundredths)
    }

    /// The rate in hundredths of a percent.
    pub const fn hundredths_of_percent(self) -> u32 {
        self.0
    }

    /// This share of `amount`, rounded half up to a minor unit.
    pub fn of(self, amount: Money) -> Money {
        // In two parts, so that 64 bits are enough for every amount that a session can have.
        let (whole, rest) = (amount.0.div_euclid(10_000), amount.0.rem_euclid(10_000));
        let rate = i64::from(self.0);
        Money(whole.saturating_mul(rate).saturating_add((rest * rate + 5000) / 10_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_dollars_become_exact_cents() {
        let cases = [("79", 7900, true), ("19.99", 1999, true), ("0.30000000000000004", 30, true)];
        let more = [("33.333", 3333, false), ("1.005", 101, false), (".5", 50, true), ("-4.2", -420, true)];
        for (text, minor, exact) in cases.into_iter().chain(more) {
            assert_eq!(Money::from_major_decimal(text), Some((Money(minor), exact)), "{text}");
        }
        for (text, minor, exact) in cases.into_iter().chain(more) {
            let float: f64 = text.parse().unwrap();
            // 1.005 is a little less than that in floating point; but not by as much as a millionth.
            assert_eq!(Money::from_major_float(float), Some((Money(minor), exact)), "{text}");
        }
        assert_eq!(Money::from_major_float(0.1 + 0.2), Some((Money(30), true)));
        for float in [f64::NAN, f64::INFINITY, 1e300, -1e300] {
            assert_eq!(Money::from_major_float(float), None);
        }
        for text in ["", ".", "1e3", "abc", "1.2.3", "99999999999999", "NaN"] {
            assert_eq!(Money::from_major_decimal(text), None, "{text}");
        }
    }

    #[test]
    fn a_rate_is_rounded_half_up_to_the_minor_unit() {
        assert_eq!(Rate(625).of(Money(7900)), Money(494));
        // 7.25 % of 354.00 is 25.665: floating point made 25.66 of it.
        assert_eq!(Rate(725).of(Money(35400)), Money(2567));
    }
}
