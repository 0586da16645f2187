//! Real services for tests: private processes on free ports in temporary folders, ended with their owner.

pub mod postgres;
pub mod redis;
pub mod tcp_proxy;
