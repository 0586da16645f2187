//! Where webhooks may be delivered: to public addresses only, unless the operator has named other networks. Whoever enters an address
//! must not reach what only this server can reach (server-side request forgery).
//!
//! An address is judged when it is entered and again with each connection, by what its name stands for at that moment: a name that was
//! public yesterday may be this machine today.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::network::Networks;

/// How long an address may be, in bytes.
pub const MAX_BYTES: usize = 2048;

/// Why nothing is delivered to an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// No address at all.
    #[error("this is no address; write for example https://shop.example/webhooks")]
    Form,
    /// Too long.
    #[error("an address has at most {MAX_BYTES} bytes")]
    TooLong,
    /// Not encrypted.
    #[error(
        "it has to begin with https://; http:// is for networks that the operator has named with --webhook-networks"
    )]
    Insecure,
    /// With a name and password, which would be in logs.
    #[error("an address holds no name and no password; messages prove by their signature where they come from")]
    Credentials,
    /// Not public.
    #[error(
        "it is not a public address, and messages are sent to public ones alone; the operator can allow a network with --webhook-networks"
    )]
    NotPublic,
    /// The name stands for nothing.
    #[error("the name in the address stands for no host")]
    Unknown,
}

/// An address that may be delivered to as far as its text tells.
///
/// # Errors
/// See [`DestinationError`].
pub fn destination(text: &str, networks: &Networks) -> Result<Url, DestinationError> {
    if text.len() > MAX_BYTES {
        return Err(DestinationError::TooLong);
    }
    let url = Url::parse(text).map_err(|_| DestinationError::Form)?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(DestinationError::Form);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(DestinationError::Credentials);
    }
    match literal(&url) {
        Some(address) => {
            if !may_reach(address, networks) {
                return Err(DestinationError::NotPublic);
            }
            if url.scheme() == "http" && !networks.contain(address) {
                return Err(DestinationError::Insecure);
            }
        }
        // What it stands for is seen when it is connected to.
        None if url.scheme() == "http" && *networks == Networks::default() => return Err(DestinationError::Insecure),
        None => {}
    }
    Ok(url)
}

/// The address in the place of a name.
#[must_use]
pub fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
        Host::Domain(_) => None,
    }
}

/// Those of these addresses, for which a name stands, that may be connected to.
///
/// # Errors
/// Where there is none: [`DestinationError::Unknown`] or [`DestinationError::NotPublic`]; [`DestinationError::Insecure`] where it would be
/// without TLS, and through a network that nobody has named.
pub fn reachable(
    addresses: impl Iterator<Item = IpAddr>,
    is_encrypted: bool,
    networks: &Networks,
) -> Result<Vec<IpAddr>, DestinationError> {
    let all: Vec<IpAddr> = addresses.collect();
    if all.is_empty() {
        return Err(DestinationError::Unknown);
    }
    let public: Vec<IpAddr> = all.into_iter().filter(|address| may_reach(*address, networks)).collect();
    if public.is_empty() {
        return Err(DestinationError::NotPublic);
    }
    let usable: Vec<IpAddr> = public.into_iter().filter(|address| is_encrypted || networks.contain(*address)).collect();
    if usable.is_empty() { Err(DestinationError::Insecure) } else { Ok(usable) }
}

fn may_reach(address: IpAddr, networks: &Networks) -> bool {
    is_public(address) || networks.contain(address)
}

/// Whether an address is one of the Internet's: of none of the ranges in the IANA registries of special-purpose addresses (RFC 6890)
/// that are not globally reachable.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_protocol_assignment = (first, second, third) == (192, 0, 0);
    let is_benchmarking = first == 198 && (18..20).contains(&second);
    let is_relay = (first, second, third) == (192, 88, 99);
    !(first == 0
        || first >= 240
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || is_shared
        || is_protocol_assignment
        || is_benchmarking
        || is_relay)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        // The ways in which an IPv4 address is written within IPv6: translated (RFC 6052), 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(embedded(high, low)),
        [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // All that is global unicast begins with 001, without Teredo, benchmarking, ORCHID, documentation.
        [first, second, ..] => {
            let is_protocol_assignment = first == 0x2001 && second < 0x200;
            let is_documentation = (first, second) == (0x2001, 0xdb8) || (first == 0x3fff && second < 0x1000);
            first & 0xe000 == 0x2000 && !is_protocol_assignment && !is_documentation
        }
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &[&str]) -> Networks {
        Networks::new(text.iter().map(|network| network.parse().unwrap()).collect())
    }

    #[test]
    fn what_is_not_public_is_refused_however_it_is_written() {
        let refused = [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://0.0.0.0/",
            "https://10.1.2.3/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://100.64.0.1/",
            "https://192.0.0.8/",
            "https://198.18.0.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[fe80::1]/",
            "https://[fc00::1]/",
            "https://[fec0::1]/",
            "https://[ff02::1]/",
            "https://[2001:db8::1]/",
            "https://[2001::1]/",
            "https://[64:ff9b:1::1]/",
        ];
        for text in refused {
            assert_eq!(destination(text, &Networks::default()), Err(DestinationError::NotPublic), "{text}");
        }
        for text in ["https://93.184.216.34/", "https://[2606:2800:220:1::1]/", "https://shop.example/hooks?a=b"] {
            assert!(destination(text, &Networks::default()).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_network_that_the_operator_named_may_be_reached_also_without_tls() {
        let office = networks(&["10.1.0.0/16"]);
        assert!(destination("http://10.1.2.3:8080/hooks", &office).is_ok());
        assert_eq!(destination("https://10.2.2.3/", &office), Err(DestinationError::NotPublic));
        assert_eq!(destination("http://93.184.216.34/", &office), Err(DestinationError::Insecure));
        assert_eq!(destination("http://shop.example/", &Networks::default()), Err(DestinationError::Insecure));
    }

    #[test]
    fn a_name_is_judged_by_what_it_stands_for() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let judged = |texts: &[&str], is_encrypted, networks: &Networks| {
            reachable(addresses(texts).into_iter(), is_encrypted, networks)
        };
        let (none, office) = (Networks::default(), networks(&["10.1.0.0/16"]));
        assert_eq!(judged(&[], true, &none), Err(DestinationError::Unknown));
        assert_eq!(judged(&["127.0.0.1", "::1"], true, &none), Err(DestinationError::NotPublic));
        assert_eq!(judged(&["127.0.0.1", "93.184.216.34"], true, &none), Ok(addresses(&["93.184.216.34"])));
        assert_eq!(judged(&["93.184.216.34"], false, &office), Err(DestinationError::Insecure));
        assert_eq!(judged(&["93.184.216.34", "10.1.0.1"], false, &office), Ok(addresses(&["10.1.0.1"])));
    }

    #[test]
    fn what_is_no_address_of_the_web_is_refused() {
        let none = Networks::default();
        for text in ["", "shop.example", "ftp://shop.example/", "mailto:a@b.example", "file:///etc/passwd"] {
            assert_eq!(destination(text, &none), Err(DestinationError::Form), "{text}");
        }
        assert_eq!(destination("https://ada:pw@shop.example/", &none), Err(DestinationError::Credentials));
        let long = format!("https://shop.example/{}", "a".repeat(MAX_BYTES));
        assert_eq!(destination(&long, &none), Err(DestinationError::TooLong));
    }
}
