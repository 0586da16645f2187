//! How often one address may do something, in bounded memory.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::StatusCode;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::client_address::limited_network;
use crate::problem::Problem;

/// How many addresses are remembered one by one.
const MAX_ADDRESSES: usize = 65_536;

/// How long who asked for more at once than there ever is at once is sent away.
const MORE_THAN_EVER: Duration = Duration::from_secs(60);

/// A limit per address: a burst, then evenly spread.
#[derive(Debug)]
pub struct AddressLimit {
    limiter: DefaultKeyedRateLimiter<Key>,
    clock: DefaultClock,
    max_addresses: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Network(IpAddr),
    /// All addresses that came when the memory was full share one allowance, so that a crowd
    /// of addresses exhausts that and not this process.
    Crowd,
}

/// An address asked too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests from this address; try again in {} s", retry_after.as_secs() + 1)]
pub struct TooManyRequests {
    /// When the next attempt can succeed.
    pub retry_after: Duration,
}

impl AddressLimit {
    /// Allows `per_minute` attempts from each address, all of them at once as well.
    #[must_use]
    pub fn per_minute(per_minute: NonZeroU32) -> Self {
        Self::with_memory(Quota::per_minute(per_minute), MAX_ADDRESSES)
    }

    /// Allows `per_second` attempts from each address, and `at_once` after a pause.
    #[must_use]
    pub fn per_second(per_second: NonZeroU32, at_once: NonZeroU32) -> Self {
        Self::with_memory(Quota::per_second(per_second).allow_burst(at_once), MAX_ADDRESSES)
    }

    fn with_memory(quota: Quota, max_addresses: usize) -> Self {
        Self { limiter: RateLimiter::keyed(quota), clock: DefaultClock::default(), max_addresses }
    }

    /// Counts one attempt.
    ///
    /// # Errors
    /// When the address has used up its allowance; says when to try again.
    pub fn check(&self, address: IpAddr) -> Result<(), TooManyRequests> {
        self.check_all(address, NonZeroU32::MIN)
    }

    /// Counts `attempts`, all or none of them.
    ///
    /// # Errors
    /// When that is more than what is left of the address's allowance; says when to try again.
    pub fn check_all(&self, address: IpAddr, attempts: NonZeroU32) -> Result<(), TooManyRequests> {
        // Forgetting walks the whole memory: `forget_idle` does it on a timer, not each request.
        let key =
            if self.limiter.len() >= self.max_addresses { Key::Crowd } else { Key::Network(limited_network(address)) };
        match self.limiter.check_key_n(&key, attempts) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(TooManyRequests { retry_after: until.wait_time_from(self.clock.now()) }),
            Err(_) => Err(TooManyRequests { retry_after: MORE_THAN_EVER }),
        }
    }

    /// Forgets the addresses whose allowance is full again. To be called every minute.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

impl From<TooManyRequests> for Problem {
    fn from(refusal: TooManyRequests) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rateLimited", "Too many requests")
            .detail(refusal.to_string())
            .mendable_by("retry")
            .retry_after(refusal.retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_address_that_asks_too_often_is_told_when_to_come_back() {
        let limit = AddressLimit::per_minute(NonZeroU32::new(3).unwrap());
        for _ in 0..3 {
            limit.check(address(1)).unwrap();
        }
        let refusal = limit.check(address(1)).unwrap_err();
        assert!(refusal.retry_after <= Duration::from_secs(20));
        assert!(refusal.retry_after > Duration::from_secs(15));
        assert!(limit.check(address(2)).is_ok(), "its neighbours are unharmed");
    }

    #[test]
    fn several_attempts_are_counted_all_or_none() {
        let number = |number| NonZeroU32::new(number).unwrap();
        let limit = AddressLimit::per_second(number(1), number(10));
        limit.check_all(address(1), number(8)).unwrap();
        let refusal = limit.check_all(address(1), number(5)).unwrap_err();
        assert!(refusal.retry_after <= Duration::from_secs(3), "{refusal:?}");
        limit.check_all(address(1), number(2)).unwrap();
        assert_eq!(limit.check_all(address(2), number(11)), Err(TooManyRequests { retry_after: MORE_THAN_EVER }));
    }

    #[test]
    fn a_crowd_of_addresses_does_not_fill_the_memory() {
        let limit = AddressLimit::with_memory(Quota::per_minute(NonZeroU32::new(2).unwrap()), 10);
        let refused = (0..200).filter(|last| limit.check(address(*last)).is_err()).count();
        assert!(limit.limiter.len() <= 11);
        assert!(refused >= 180, "the crowd shares one allowance, {refused} were refused");
    }
}
