//! Funnel definitions: the steps that a buyer takes, the prices and the offers, as data.

mod check;
mod definition;

pub use check::FunnelProblem;
pub use definition::{
    Coupon, Discount, Funnel, InvalidRequirement, Lifetime, Offer, Product, Requirement, Shipping, Step, StepKind, Tax,
};
