//! The edge server of Throughline.
#![warn(missing_docs)]
