//! What differs between two values, written as JSON, so that whoever has the one can make the other of it.
//!
//! A patch is an object with the entries that differ. An entry whose name begins with [`WITHIN`] holds a patch itself,
//! of the value under the rest of the name; the entries of an array are named by their positions. Any other entry is the
//! whole new value. Nothing is ever taken out by a patch: an array that has become shorter is written as a whole.

use super::ToJson;
use super::write::{Writer, digits};
use crate::prelude::*;

/// What the name of an entry begins with that is a patch itself.
const WITHIN: &str = ">";

/// A value of which the parts that differ can be written.
pub(crate) trait Change {
    /// Writes what differs from `last` as one entry of an object, and takes it over there.
    fn write_change(&self, name: &str, last: &mut Self, out: &mut Writer);
}

impl<T: Change + ToJson + Clone + PartialEq> Change for Vec<T> {
    fn write_change(&self, name: &str, last: &mut Self, out: &mut Writer) {
        if self.len() < last.len() {
            out.field(name, self);
            last.clone_from(self);
            return;
        }
        out.open_within(name);
        for (position, item) in self.iter().enumerate() {
            let name = digits(position as i64);
            match last.get_mut(position) {
                Some(last) if item == last => {}
                Some(last) => item.write_change(&name, last, out),
                None => {
                    out.field(&name, item);
                    last.push(item.clone());
                }
            }
        }
        out.close("}");
    }
}

impl Writer {
    /// Begins a patch within a patch; it has to be closed.
    #[inline(never)]
    pub(crate) fn open_within(&mut self, name: &str) {
        self.key(&[WITHIN, name].joined());
        self.open("{");
    }
}

/// Structs of which the fields that differ can be written one by one.
macro_rules! changes_by_field {
    ($($name:ident),+) => {$(
        impl $crate::json::Change for $name {
            fn write_change(&self, name: &str, last: &mut Self, out: &mut $crate::json::Writer) {
                out.open_within(name);
                self.write_changed_fields(last, out);
                out.close("}");
            }
        }
    )+};
}

pub(crate) use changes_by_field;
