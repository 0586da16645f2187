//! Against real Redis servers.
