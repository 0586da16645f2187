//! Everything that reads what somebody else wrote, given that in every spoiled form.
//!
//! A [`Target`] is one such reader with what has to hold whatever it reads: it refuses or takes, it never panics, and what it
//! takes obeys the rules. The tests run each target over its kept inputs (`corpus/<target>/`) and over a fixed number of
//! changes to them, the same ones each time. `cargo xtask fuzz` goes on from there for as long as wanted, led by which
//! code an input reaches.
#![warn(missing_docs)]

pub mod corpus;
pub mod mutation;
pub mod targets;

/// What became of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was read, and used.
    Taken,
    /// It was refused.
    Refused,
}

impl Outcome {
    /// Taken where it is so.
    #[must_use]
    pub fn taken_if(is_taken: bool) -> Self {
        if is_taken { Self::Taken } else { Self::Refused }
    }
}

/// A reader of input from outside, and what has to hold of it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the name of its folder of kept inputs.
    pub name: &'static str,
    /// What it reads.
    pub about: &'static str,
    /// Reads this input; panics where something does not hold.
    pub run: fn(&[u8]) -> Outcome,
}

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    targets::ALL.iter().find(|target| target.name == name)
}
