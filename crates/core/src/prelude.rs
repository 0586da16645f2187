//! What the standard library puts everywhere, for where there is none.

pub(crate) use alloc::borrow::ToOwned;
pub(crate) use alloc::boxed::Box;
pub(crate) use alloc::string::{String, ToString};
pub(crate) use alloc::vec::Vec;
pub(crate) use alloc::{format, vec};

/// Pieces of text put together. The standard library's `concat` is made for speed, with a kilobyte of code.
pub trait Joined {
    /// The text.
    fn joined(&self) -> String;
}

impl Joined for [&str] {
    #[inline(never)]
    fn joined(&self) -> String {
        let mut text = String::with_capacity(self.iter().map(|piece| piece.len()).sum());
        for piece in self {
            text.push_str(piece);
        }
        text
    }
}
