//! What handlers ask for by naming it: who is asking, and from where.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams, Request};
use axum::http::header::{ACCEPT, AUTHORIZATION};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};

use super::cookie::{self, CookieMode};
use super::sync;
use crate::principal::{AuthenticationError, Principal, Role};
use crate::problem::Problem;
use crate::service_keys::ServiceKeyRefusal;
use crate::wiring::ServerState;

impl FromRequestParts<Arc<ServerState>> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ServerState>) -> Result<Self, Problem> {
        recognise(state, parts).await
    }
}

/// Who is asking, if anybody says so: for routes that answer strangers as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaybePrincipal(pub Option<Principal>);

impl FromRequestParts<Arc<ServerState>> for MaybePrincipal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ServerState>) -> Result<Self, Problem> {
        // Where no session is named, there is no cookie of one.
        if !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(Self(None));
        }
        recognise(state, parts).await.map(|principal| Self(Some(principal)))
    }
}

/// Whether a request has a credential, or what looks like one, that is judged where it is recognised. What is in the frames of
/// `/v1/sync`, and in the cookies that belong to them, is judged with those.
pub(super) fn has_credential(request: &Request) -> bool {
    let headers = request.headers();
    headers.contains_key(AUTHORIZATION) || (request.uri().path() != sync::PATH && cookie::is_sent(headers))
}

/// The one place where principals are recognised, so that each of their requests counts.
async fn recognise(state: &Arc<ServerState>, parts: &mut Parts) -> Result<Principal, Problem> {
    let address = state.config.trusted_proxies.client(peer(&parts.extensions), &parts.headers);
    let now_ms = state.clock.now_ms();
    let recognised = if parts.headers.contains_key(AUTHORIZATION) || !cookie::is_asked_for(&parts.headers) {
        state.authenticator.authenticate(&parts.headers, now_ms)
    } else {
        by_cookie(state, parts, now_ms).await?
    };
    match recognised {
        Ok(principal) => {
            state.request_limits.admit(&principal)?;
            Ok(principal.at(address))
        }
        Err(error) => {
            // What comes without any credential has been counted by the layers around the routes, unless it had the cookie of another
            // session; and a key that can't be judged just now is nobody's attempt.
            let unavailable = AuthenticationError::ServiceKey(ServiceKeyRefusal::Unavailable);
            let is_counted = error == AuthenticationError::Missing && !cookie::is_sent(&parts.headers);
            if !is_counted && error != unavailable {
                state.request_limits.refuse_credential(address)?;
            }
            Err(error.into())
        }
    }
}

/// The browser whose cookie of the session that the path names came with the request.
async fn by_cookie(
    state: &Arc<ServerState>,
    parts: &mut Parts,
    now_ms: i64,
) -> Result<Result<Principal, AuthenticationError>, Problem> {
    let mode = CookieMode::from_request_parts(parts, state).await?;
    let path = RawPathParams::from_request_parts(parts, state).await.ok();
    let session_id = path.as_ref().and_then(|path| path.iter().find(|(name, _)| *name == "id"));
    let Some(held) = session_id.and_then(|(_, id)| mode.of_session(id)) else {
        return Ok(Err(AuthenticationError::Missing));
    };
    let recognised = state.authenticator.recognise_cookie(&held.token, now_ms).map_err(AuthenticationError::from);
    if let Ok(Principal { role: Role::Browser { claims }, .. }) = &recognised {
        cookie::judge_tenant(&mode, claims).map_err(cookie::refused)?;
    }
    Ok(recognised)
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

/// Whether who asks wants a page to read: a browser, or a person with `curl -H 'accept: text/html'`.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut first = accepted.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or("").trim());
    first.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"))
}
