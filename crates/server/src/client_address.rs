//! From which address a request came, believing a proxy only when it was named as trusted.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::HeaderMap;
use ipnet::IpNet;

use crate::network::{Network, Networks};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The addresses of the proxies in front of this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Networks,
}

impl TrustedProxies {
    /// Trusts exactly `proxies`.
    #[must_use]
    pub fn new(proxies: Vec<Network>) -> Self {
        Self { networks: Networks::new(proxies) }
    }

    /// Whether `address` is one of the trusted proxies.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.networks.contain(address)
    }

    /// The client's address, given the address at the other end of the connection.
    ///
    /// `X-Forwarded-For` is read from its right end, where our own proxies wrote: each trusted
    /// hop vouches for the entry before it. The first address that is not a trusted proxy is
    /// the client; whatever stands to its left is the client's own invention.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let mut hops: Vec<&str> = Vec::new();
        for value in headers.get_all(FORWARDED_FOR) {
            // A value that is not text vouches for nothing, nor does what came before it.
            let Ok(text) = value.to_str() else {
                hops.clear();
                continue;
            };
            hops.extend(text.split(','));
        }
        for hop in hops.into_iter().rev() {
            if !self.trusts(client) {
                break;
            }
            let Some(address) = address_of(hop.trim()) else { break };
            client = address.to_canonical();
        }
        client
    }
}

/// The network that limits count by: an IPv6 client commands a whole /64.
#[must_use]
pub fn limited_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let prefix = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

/// The network that may be kept of an address, in CIDR form: 24 bits of an IPv4 address, 48 of an IPv6 one, which is what one
/// connection to a home or an office has at least.
#[must_use]
pub fn kept_network(address: IpAddr) -> String {
    let address = address.to_canonical();
    let bits = if address.is_ipv4() { 24 } else { 48 };
    // Neither is more bits than such an address has.
    IpNet::new(address, bits).map_or_else(|_| "unknown".to_owned(), |network| network.trunc().to_string())
}

/// An address, with the port that some proxies add or without.
fn address_of(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some(socket.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn proxies(list: &[&str]) -> TrustedProxies {
        TrustedProxies::new(list.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(value).unwrap());
        }
        proxies(trusted).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn asvs_4_1_3_a_stranger_cannot_choose_its_address() {
        assert_eq!(client(&[], "203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client(&["10.0.0.0/8"], "203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
    }

    #[test]
    fn a_trusted_proxy_vouches_only_for_the_entry_it_wrote() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(client(trusted, "10.1.1.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client(trusted, "10.1.1.1", &["1.2.3.4, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(client(trusted, "10.1.1.1", &["1.2.3.4", "198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn a_chain_of_trusted_proxies_is_followed_to_the_client() {
        let trusted = &["10.0.0.0/8", "192.0.2.7"];
        assert_eq!(client(trusted, "10.1.1.1", &["198.51.100.1, 192.0.2.7"]), "198.51.100.1");
    }

    #[test]
    fn nonsense_ends_the_chain_at_the_last_hop_that_was_proven() {
        assert_eq!(client(&["10.0.0.0/8"], "10.1.1.1", &["1.2.3.4, unknown"]), "10.1.1.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.1.1.1", &[""]), "10.1.1.1");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(client(trusted, "::ffff:10.1.1.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(client(trusted, "10.1.1.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client(trusted, "10.1.1.1", &["[2001:db8::1]"]), "2001:db8::1");
    }

    #[test]
    fn an_ipv6_client_is_limited_by_its_64_bit_network() {
        let network = |text: &str| limited_network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn of_an_address_only_its_network_is_kept() {
        let kept = |text: &str| kept_network(text.parse().unwrap());
        assert_eq!(kept("203.0.113.77"), "203.0.113.0/24");
        assert_eq!(kept("::ffff:203.0.113.77"), "203.0.113.0/24");
        assert_eq!(kept("2001:db8:1:2:3:4:5:6"), "2001:db8:1::/48");
    }

    #[test]
    fn a_proxy_that_is_no_address_is_named_in_the_error() {
        let error = "proxy.local".parse::<Network>().unwrap_err();
        assert!(error.to_string().contains("proxy.local"));
    }
}
