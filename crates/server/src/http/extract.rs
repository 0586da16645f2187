//! What handlers ask for by naming it: who is asking, and from where.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::Extensions;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use crate::principal::{AuthenticationError, Principal};
use crate::problem::Problem;
use crate::service_keys::ServiceKeyRefusal;
use crate::wiring::ServerState;

impl FromRequestParts<Arc<ServerState>> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ServerState>) -> Result<Self, Problem> {
        recognise(state, parts)
    }
}

/// Who is asking, if anybody says so: for routes that answer strangers as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaybePrincipal(pub Option<Principal>);

impl FromRequestParts<Arc<ServerState>> for MaybePrincipal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ServerState>) -> Result<Self, Problem> {
        if !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(Self(None));
        }
        recognise(state, parts).map(|principal| Self(Some(principal)))
    }
}

/// The one place where principals are recognised, so that each of their requests counts.
fn recognise(state: &ServerState, parts: &Parts) -> Result<Principal, Problem> {
    let address = state.config.trusted_proxies.client(peer(&parts.extensions), &parts.headers);
    match state.authenticator.authenticate(&parts.headers, state.clock.now_ms()) {
        Ok(principal) => {
            state.request_limits.admit(&principal)?;
            Ok(principal.at(address))
        }
        Err(error) => {
            // What comes without any credential has been counted by the layers around the routes, and a key that can't be judged
            // just now is nobody's attempt.
            let unavailable = AuthenticationError::ServiceKey(ServiceKeyRefusal::Unavailable);
            if error != AuthenticationError::Missing && error != unavailable {
                state.request_limits.refuse_credential(address)?;
            }
            Err(error.into())
        }
    }
}

/// The address at the other end of the connection. Requests that come from nowhere, which there are none of, count as one.
pub(super) fn peer(extensions: &Extensions) -> IpAddr {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip())
}

/// The address that a request came from, seen through trusted proxies only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl FromRequestParts<Arc<ServerState>> for ClientAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ServerState>) -> Result<Self, Problem> {
        Ok(Self(state.config.trusted_proxies.client(peer(&parts.extensions), &parts.headers)))
    }
}
