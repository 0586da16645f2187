//! The checkout session, the funnel rules and the sync protocol of Throughline.
#![warn(missing_docs)]
