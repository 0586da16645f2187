//! How often somebody may do something, in memory that does not grow.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::StatusCode;
use governor::clock::{Clock as _, DefaultClock};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::client_address::limited_network;
use crate::principal::{Principal, Role};
use crate::problem::Problem;
use crate::tenant::TenantId;

/// How many allowances there are. Keys are spread over them by a hash that nobody outside can compute: two of a few
/// thousand hardly ever share one, and a crowd of keys that somebody invents shares what there is, at 8 bytes each.
const ALLOWANCES: usize = 65_536;

/// How long who asked for more at once than there ever is at once is sent away.
const MORE_THAN_EVER: Duration = Duration::from_secs(60);

/// A limit per key: a burst, then evenly spread. Counting takes no lock and no memory.
#[derive(Debug)]
pub struct KeyedLimit {
    by: LimitedBy,
    limiter: RateLimiter<u64, Allowances, DefaultClock>,
    hasher: RandomState,
}

/// A limit per address; an IPv6 network of 64 bits counts as one.
#[derive(Debug)]
pub struct AddressLimit(KeyedLimit);

/// How much of its allowance each has used up, by the hash of its key.
#[derive(Debug)]
struct Allowances(Box<[InMemoryState]>);

impl StateStore for Allowances {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, hash: &u64, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // Less than the length, so it is a number of an element on every machine.
        let index = (hash % self.0.len() as u64) as usize;
        self.0[index].measure_and_replace(&NotKeyed::NonKey, judge)
    }
}

/// Somebody asked too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests {by}; try again in {} s", retry_after.as_secs() + 1)]
pub struct TooManyRequests {
    /// Whose allowance it was.
    pub by: LimitedBy,
    /// When the next attempt can succeed.
    pub retry_after: Duration,
}

/// Whose allowance a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedBy {
    /// Its address, all requests together or those for one thing.
    Address,
    /// Its address, as requests that prove nothing.
    NoCredential,
    /// The session whose token came with it.
    Session,
    /// The service key that came with it.
    ServiceKey,
    /// Its tenant.
    Tenant,
}

impl LimitedBy {
    /// Its name in metrics and problems.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::NoCredential => "noCredential",
            Self::Session => "session",
            Self::ServiceKey => "serviceKey",
            Self::Tenant => "tenant",
        }
    }
}

impl std::fmt::Display for LimitedBy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Address => "from this address",
            Self::NoCredential => "from this address without a credential that holds",
            Self::Session => "for this session",
            Self::ServiceKey => "with this service key",
            Self::Tenant => "for this tenant",
        })
    }
}

impl KeyedLimit {
    /// Allows `per_minute` attempts for each key, all of them at once as well.
    #[must_use]
    pub fn per_minute(by: LimitedBy, per_minute: NonZeroU32) -> Self {
        Self::with_memory(by, Quota::per_minute(per_minute), ALLOWANCES)
    }

    /// Allows `per_second` attempts for each key, and `at_once` after a pause.
    #[must_use]
    pub fn per_second(by: LimitedBy, per_second: NonZeroU32, at_once: NonZeroU32) -> Self {
        Self::with_memory(by, Quota::per_second(per_second).allow_burst(at_once), ALLOWANCES)
    }

    fn with_memory(by: LimitedBy, quota: Quota, allowances: usize) -> Self {
        let allowances = Allowances((0..allowances).map(|_| InMemoryState::default()).collect());
        let limiter = RateLimiter::new(quota, allowances, DefaultClock::default());
        Self { by, limiter, hasher: RandomState::new() }
    }

    /// Counts one attempt.
    ///
    /// # Errors
    /// When the key has used up its allowance; says when to try again.
    pub fn check(&self, key: &impl Hash) -> Result<(), TooManyRequests> {
        self.check_all(key, NonZeroU32::MIN)
    }

    /// Counts `attempts`, all or none of them.
    ///
    /// # Errors
    /// When that is more than what is left of the key's allowance; says when to try again.
    pub fn check_all(&self, key: &impl Hash, attempts: NonZeroU32) -> Result<(), TooManyRequests> {
        let retry_after = match self.limiter.check_key_n(&self.hasher.hash_one(key), attempts) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(until)) => until.wait_time_from(self.limiter.clock().now()),
            Err(_) => MORE_THAN_EVER,
        };
        metrics::counter!("throughline_rate_limited_total", "by" => self.by.as_str()).increment(1);
        Err(TooManyRequests { by: self.by, retry_after })
    }
}

impl AddressLimit {
    /// Allows `per_minute` attempts from each address, all of them at once as well.
    #[must_use]
    pub fn per_minute(per_minute: NonZeroU32) -> Self {
        Self(KeyedLimit::per_minute(LimitedBy::Address, per_minute))
    }

    /// Allows `per_second` attempts from each address, and `at_once` after a pause.
    #[must_use]
    pub fn per_second(per_second: NonZeroU32, at_once: NonZeroU32) -> Self {
        Self(KeyedLimit::per_second(LimitedBy::Address, per_second, at_once))
    }

    /// Counts one attempt.
    ///
    /// # Errors
    /// When the address has used up its allowance; says when to try again.
    pub fn check(&self, address: IpAddr) -> Result<(), TooManyRequests> {
        self.0.check(&limited_network(address))
    }

    /// Counts `attempts`, all or none of them.
    ///
    /// # Errors
    /// When that is more than what is left of the address's allowance; says when to try again.
    pub fn check_all(&self, address: IpAddr, attempts: NonZeroU32) -> Result<(), TooManyRequests> {
        self.0.check_all(&limited_network(address), attempts)
    }
}

/// How many requests whoever asks may send a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRates {
    /// From one address.
    pub per_address: NonZeroU32,
    /// From one address, with nothing that proves who asks.
    pub without_credential: NonZeroU32,
    /// With the tokens of one session.
    pub per_session: NonZeroU32,
    /// With one service key.
    pub per_service_key: NonZeroU32,
    /// For one tenant.
    pub per_tenant: NonZeroU32,
}

/// What all requests are counted against.
#[derive(Debug)]
pub struct RequestLimits {
    per_address: AddressLimit,
    without_credential: AddressLimit,
    per_session: KeyedLimit,
    per_service_key: KeyedLimit,
    per_tenant: KeyedLimit,
}

impl RequestLimits {
    /// Nobody has asked for anything yet.
    #[must_use]
    pub fn new(rates: RequestRates) -> Self {
        Self {
            per_address: AddressLimit::per_minute(rates.per_address),
            without_credential: AddressLimit(KeyedLimit::per_minute(LimitedBy::NoCredential, rates.without_credential)),
            per_session: KeyedLimit::per_minute(LimitedBy::Session, rates.per_session),
            per_service_key: KeyedLimit::per_minute(LimitedBy::ServiceKey, rates.per_service_key),
            per_tenant: KeyedLimit::per_minute(LimitedBy::Tenant, rates.per_tenant),
        }
    }

    /// Counts a request from this address, which came with a credential or without any.
    ///
    /// # Errors
    /// When the address has asked too often.
    pub fn admit_address(&self, address: IpAddr, has_credential: bool) -> Result<(), TooManyRequests> {
        self.per_address.check(address)?;
        if has_credential { Ok(()) } else { self.without_credential.check(address) }
    }

    /// Counts a credential that proved nothing: nobody may try out as many as they like.
    ///
    /// # Errors
    /// When the address has asked too often.
    pub fn refuse_credential(&self, address: IpAddr) -> Result<(), TooManyRequests> {
        self.without_credential.check(address)
    }

    /// Counts a request of somebody who was recognised.
    ///
    /// # Errors
    /// When the session, the service key, or their tenant has asked too often.
    pub fn admit(&self, principal: &Principal) -> Result<(), TooManyRequests> {
        match &principal.role {
            Role::Browser { claims } => self.per_session.check(&(&claims.tenant, &claims.session_id))?,
            Role::Service { key_id, .. } => self.per_service_key.check(key_id)?,
        }
        self.admit_tenant(principal.tenant())
    }

    /// Counts a request for a session of this tenant, whose browser has no token yet.
    ///
    /// # Errors
    /// When the tenant has asked too often.
    pub fn admit_tenant(&self, tenant: &TenantId) -> Result<(), TooManyRequests> {
        self.per_tenant.check(tenant)
    }
}

impl From<TooManyRequests> for Problem {
    fn from(refusal: TooManyRequests) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rateLimited", "Too many requests")
            .detail(refusal.to_string())
            .with("limitedBy", refusal.by.as_str())
            .mendable_by("retry")
            .retry_after(refusal.retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Scopes;

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_address_that_asks_too_often_is_told_when_to_come_back() {
        let limit = AddressLimit::per_minute(number(3));
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
        let limit = AddressLimit::per_second(number(1), number(10));
        limit.check_all(address(1), number(8)).unwrap();
        let refusal = limit.check_all(address(1), number(5)).unwrap_err();
        assert!(refusal.retry_after <= Duration::from_secs(3), "{refusal:?}");
        limit.check_all(address(1), number(2)).unwrap();
        let refusal = limit.check_all(address(2), number(11)).unwrap_err();
        assert_eq!(refusal, TooManyRequests { by: LimitedBy::Address, retry_after: MORE_THAN_EVER });
    }

    #[test]
    fn a_crowd_of_keys_shares_what_there_is() {
        let limit = KeyedLimit::with_memory(LimitedBy::Session, Quota::per_minute(number(2)), 10);
        let allowed = (0..2000).filter(|key| limit.check(key).is_ok()).count();
        // Each of 10 was found by some of 2000, and on a slow machine one or the other has some of its allowance back.
        assert!((20..100).contains(&allowed), "{allowed} were allowed");
    }

    #[test]
    fn hardly_any_two_of_many_keys_share_an_allowance() {
        let limit = KeyedLimit::per_minute(LimitedBy::Session, number(1));
        let refused = (0..1000).filter(|key| limit.check(&("a", key)).is_err()).count();
        assert!(refused < 50, "{refused} of 1000 were refused, and about 8 are to be expected");
    }

    #[test]
    fn who_is_limited_by_one_thing_does_not_use_up_the_others() {
        let rates = RequestRates {
            per_address: number(100),
            without_credential: number(2),
            per_session: number(100),
            per_service_key: number(3),
            per_tenant: number(4),
        };
        let limits = RequestLimits::new(rates);
        let by = |outcome: Result<(), TooManyRequests>| outcome.map_err(|refusal| refusal.by);
        let service = |key_id: &str| {
            let role = Role::Service { tenant: TenantId::single(), key_id: key_id.to_owned(), scopes: Scopes::all() };
            by(limits.admit(&Principal { role, network: None }))
        };
        assert_eq!([(); 3].map(|()| service("a")), [Ok(()); 3]);
        assert_eq!([(); 3].map(|()| service("a")), [Err(LimitedBy::ServiceKey); 3]);
        assert_eq!(service("b"), Ok(()));
        assert_eq!(service("b"), Err(LimitedBy::Tenant));
        let nobody = || by(limits.admit_address(address(1), false));
        assert_eq!([nobody(), by(limits.refuse_credential(address(1)))], [Ok(()), Ok(())]);
        assert_eq!(nobody(), Err(LimitedBy::NoCredential));
        assert_eq!(by(limits.admit_address(address(1), true)), Ok(()));
    }
}
