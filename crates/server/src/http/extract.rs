//! What handlers ask for by naming it: who is asking, and from where.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;

use crate::principal::Principal;
use crate::problem::Problem;
use crate::wiring::ServerState;

impl FromRequestParts<Arc<ServerState>> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ServerState>) -> Result<Self, Problem> {
        Ok(state.authenticator.authenticate(&parts.headers, state.clock.now_ms())?)
    }
}

/// The address that a request came from, seen through trusted proxies only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl FromRequestParts<Arc<ServerState>> for ClientAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ServerState>) -> Result<Self, Problem> {
        let ConnectInfo(peer) = ConnectInfo::<SocketAddr>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::internal(&rejection))?;
        Ok(Self(state.config.trusted_proxies.client(peer.ip(), &parts.headers)))
    }
}
