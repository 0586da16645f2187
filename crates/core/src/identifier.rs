//! Names of things. Each is checked where it is read, so that inside the core every id is valid.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::json::{Mismatch, digits, read_value, text, write_value};
use crate::permission::Role;
use crate::prelude::*;
use crate::time::Timestamp;

/// The text can't be an id of this kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidIdentifier {
    kind: &'static str,
    max: i64,
}

impl fmt::Display for InvalidIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl InvalidIdentifier {
    #[inline(never)]
    fn sentence(self) -> String {
        ["a ", self.kind, " is 1 to ", &digits(self.max), " letters, digits, '_', '-', '.' or ':'"].joined()
    }
}

impl core::error::Error for InvalidIdentifier {}

macro_rules! identifier {
    ($(#[$docs:meta])* $name:ident, $kind:literal, $max:literal) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        #[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
        pub struct $name(String);

        impl $name {
            /// Checks `text`: 1 to the limit of letters, digits, `_`, `-`, `.` and `:`.
            ///
            /// # Errors
            /// [`InvalidIdentifier`] when it is empty, too long or holds another character.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidIdentifier> {
                let text = text.into();
                if is_identifier(&text, $max) { Ok(Self(text)) } else { Err(InvalidIdentifier { kind: $kind, max: $max }) }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidIdentifier;

            fn try_from(text: String) -> Result<Self, InvalidIdentifier> {
                Self::new(text)
            }
        }

        read_value! {
            $name, blank Self(String::new()), reader =>
                Self::new(text(reader)?).map_err(|error| Mismatch::new(error.sentence()));
        }

        write_value! {
            $name, this, out => out.plain(&this.0);
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_identifier(text: &str, max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    !text.is_empty() && text.len() <= max && text.bytes().all(allowed)
}

identifier!(
    /// Id of a session: `ws_<base36 ms>_<base36 of 128 random bits>`; older ids of at most 64 characters
    /// stay valid. Knowing an id grants nothing.
    SessionId, "session id", 64
);
identifier!(
    /// Id of one client of a session: a browser tab's place, or a back end's own name. At most 96 characters (a few more
    /// as the journal has it, with the role before it).
    ClientId, "client id", 112
);
identifier!(
    /// Id of a step of a funnel, such as `checkout`.
    StepId, "step id", 64
);
identifier!(
    /// Id of an upsell offer of a funnel, such as `RC6`.
    OfferId, "offer id", 64
);
identifier!(
    /// Id of a product of a catalogue.
    ProductId, "product id", 64
);
identifier!(
    /// Id of a funnel, such as `default`.
    FunnelId, "funnel id", 64
);

impl SessionId {
    /// A new id from the time and 128 bits of the platform's cryptographic randomness.
    pub fn generate(now: Timestamp, random: [u8; 16]) -> Self {
        let millis = u128::try_from(now.as_millis()).unwrap_or(0);
        Self(["ws_", &base36(millis, 1), "_", &base36(u128::from_le_bytes(random), 25)].joined())
    }
}

impl SessionId {
    /// Whether it has the form of [`SessionId::generate`]: nobody else's id can be guessed or taken first by that.
    pub fn is_generated(&self) -> bool {
        let is_base36 = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        let Some((millis, random)) = self.0.as_bytes().split_last_chunk::<25>() else { return false };
        let Some(millis) = millis.strip_prefix(b"ws_").and_then(|rest| rest.strip_suffix(b"_")) else { return false };
        !millis.is_empty() && millis.iter().all(is_base36) && random.iter().all(is_base36)
    }

    /// Whether it has the form of the ids that legacy systems gave: they begin with `ws_`.
    pub fn is_legacy(&self) -> bool {
        self.0.starts_with("ws_")
    }
}

impl FunnelId {
    /// The funnel of sessions that name none.
    pub const DEFAULT: &str = "default";
}

impl ClientId {
    /// How the ids begin that a server makes for one request with an idempotency key.
    pub const ONCE: &str = "once-";

    /// Whether it stands for one request only, in the ledger of any role.
    pub(crate) fn is_for_one_request(&self) -> bool {
        let named = self.0.strip_prefix("service:").or(self.0.strip_prefix("operator:")).unwrap_or(&self.0);
        named.starts_with(Self::ONCE)
    }

    /// Whether it is a browser's, in the ledger: all others' names have a `:`.
    pub(crate) fn is_of_browser(&self) -> bool {
        !self.0.bytes().any(|byte| byte == b':')
    }

    /// What the names of handoff codes begin with, of which each lets in one browser.
    pub const HANDOFF: &str = "handoff.";

    /// Whether it stands for a code, in the ledger of the server.
    pub(crate) fn is_for_handoff(&self) -> bool {
        self.0.strip_prefix("system:").is_some_and(|name| name.starts_with(Self::HANDOFF))
    }

    /// How long an id may be that somebody chooses.
    pub const MAX_CHOSEN: usize = 96;

    /// Whether somebody in this role may issue commands under this id: none that looks like another role's in the ledger.
    pub fn may_be_used_by(&self, role: Role) -> bool {
        self.0.len() <= Self::MAX_CHOSEN && (role != Role::Browser || self.is_of_browser())
    }

    /// The name under which the ledger and the journal have this client. Each role has its own names, so that nobody can use
    /// up the numbers of somebody with other rights.
    #[must_use]
    pub fn in_ledger(&self, role: Role) -> Self {
        match role {
            Role::Browser => self.clone(),
            Role::Service => Self(format!("service:{}", self.0)),
            Role::Operator => Self(format!("operator:{}", self.0)),
            Role::System => Self(format!("system:{}", self.0)),
        }
    }

    /// A new client id from 128 random bits.
    pub fn generate(random: [u8; 16]) -> Self {
        Self(["cl_", &base36(u128::from_le_bytes(random), 25)].joined())
    }
}

/// `number` in base 36, filled up with zeros to `width` digits (25 digits hold every 128-bit number).
///
/// By hand, in parts of 32 bits: the division of 128-bit numbers is a kilobyte of code that nothing else needs.
fn base36(number: u128, width: usize) -> String {
    let mut parts = [(number >> 96) as u32, (number >> 64) as u32, (number >> 32) as u32, number as u32];
    let mut digits = Vec::with_capacity(25);
    while parts != [0; 4] || digits.len() < width {
        let mut remainder = 0;
        for part in &mut parts {
            let dividend = (remainder << 32) | u64::from(*part);
            *part = (dividend / 36) as u32;
            remainder = dividend % 36;
        }
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[remainder as usize]);
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_holds_the_time_and_all_random_bits() {
        let id = SessionId::generate(Timestamp::from_millis(1_795_165_200_000), [255; 16]);
        assert_eq!(id.as_str(), "ws_mwor0dc0_f5lxx1zz5pnorynqglhzmsp33");
        assert!(SessionId::new(id.as_str()).is_ok());
    }

    #[test]
    fn legacy_ids_stay_valid() {
        for id in ["ws_mwor0dc0_wenwbwmq6", "ws_manual_1732000000000"] {
            assert!(SessionId::new(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn ids_with_other_characters_are_refused() {
        for id in ["", "a b", "a/b", "é", &"x".repeat(65)] {
            assert!(SessionId::new(id).is_err(), "{id}");
        }
    }
}
