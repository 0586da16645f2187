//! Funnel definitions: the steps that a buyer takes, the prices and the offers, as data.

#[cfg(not(target_family = "wasm"))]
mod check;
mod definition;

#[cfg(not(target_family = "wasm"))]
pub use check::FunnelProblem;
pub use definition::{
    Coupon, Discount, Funnel, InvalidRequirement, Lifetime, Offer, Product, Requirement, Shipping, Step, StepKind, Tax,
};
