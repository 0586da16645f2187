//! `X-Forwarded-For`. The first line is the trusted proxies, the second the address at the other end of the connection; each
//! further one is a header of its own.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use throughline_server::client_address::{TrustedProxies, limited_network};

use crate::Outcome;

pub(super) fn run(input: &[u8]) -> Outcome {
    let mut lines = input.split(|byte| *byte == b'\n');
    let proxies = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let proxies: Vec<_> = proxies.split(',').filter_map(|text| text.parse().ok()).collect();
    let peer = str::from_utf8(lines.next().unwrap_or_default()).ok().and_then(|text| text.parse::<IpAddr>().ok());
    let peer = peer.unwrap_or(IpAddr::from([10, 0, 0, 1]));
    let mut headers = HeaderMap::new();
    for line in lines.take(100) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
        }
    }

    let trusted = TrustedProxies::new(proxies);
    let client = trusted.client(peer, &headers);
    let is_peer = client == peer.to_canonical();
    assert!(trusted.trusts(peer) || is_peer, "a stranger at {peer} chose the address {client}");
    assert!(is_peer || named(&headers).any(|address| address == client), "nobody named {client}");
    // Whoever is limited stays limited by the same network.
    assert_eq!(limited_network(limited_network(client)), limited_network(client));
    assert_eq!(TrustedProxies::default().client(peer, &headers), peer.to_canonical());
    Outcome::taken_if(!is_peer)
}

/// All addresses that the headers name, by a reading of its own.
fn named(headers: &HeaderMap) -> impl Iterator<Item = IpAddr> {
    let values = headers.values().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|hop| {
        let hop = hop.trim();
        let plain = hop.trim_start_matches('[').trim_end_matches(']');
        let address = plain.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
        Some(IpAddr::to_canonical(&address))
    })
}
