//! A private Redis, alone or as a cluster.
