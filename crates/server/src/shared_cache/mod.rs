//! The tier that all server processes share.
