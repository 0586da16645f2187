//! Who is asking. Nobody is anybody until a credential proves it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use throughline_core::Caller;

use crate::audit::Denial;
use crate::client_address::kept_network;
use crate::problem::Problem;
use crate::service_key::{PREFIX, Scope, ServiceKeys};
use crate::tenant::TenantId;
use crate::token::{Claims, Purpose, TokenError, TokenIssuer};

/// A proven identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// What it is and whose sessions it may reach.
    pub role: Role,
    /// The network that its request came from, where it came from one; see [`kept_network`](crate::client_address::kept_network).
    pub network: Option<String>,
}

/// What a principal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A buyer's browser: exactly one session.
    Browser {
        /// The verified claims of its token.
        claims: Arc<Claims>,
    },
    /// A shop's back end: all sessions of its tenant.
    Service {
        /// Its tenant.
        tenant: TenantId,
        /// The public short name of its key.
        key_id: String,
    },
    /// Whoever runs the server: all sessions of the tenant, and the operator's routes.
    Operator {
        /// Its tenant.
        tenant: TenantId,
        /// The public short name of its key.
        key_id: String,
    },
}

/// Why nobody was recognised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// There is no `Authorization` header.
    #[error("no credential was sent; send `Authorization: Bearer` with a session token or a service key")]
    Missing,
    /// The header is there, once too often or in another form.
    #[error("the `Authorization` header must be sent once, as `Bearer` and one credential")]
    Form,
    /// It looks like a service key and is not a known one.
    #[error("the service key is not known to this server; it may have been rotated")]
    UnknownServiceKey,
    /// The session token was refused.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl AuthenticationError {
    /// The stable code that the outside sees.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "credentialMissing",
            Self::Form => "credentialMalformed",
            Self::UnknownServiceKey => "serviceKeyUnknown",
            Self::Token(error) => error.code(),
        }
    }

    /// Counts and logs that somebody was refused. By code only: the text of a credential never reaches a log.
    pub fn note(&self) {
        let code = self.code();
        metrics::counter!("throughline_authentication_refusals_total", "code" => code).increment(1);
        tracing::warn!(code, "authentication refused");
    }
}

impl Principal {
    /// The tenant whose sessions this principal may reach.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        match &self.role {
            Role::Browser { claims } => &claims.tenant,
            Role::Service { tenant, .. } | Role::Operator { tenant, .. } => tenant,
        }
    }

    /// The same, at this address.
    #[must_use]
    pub fn at(self, address: IpAddr) -> Self {
        Self { network: Some(kept_network(address)), ..self }
    }

    /// What is kept of who issues a command.
    #[must_use]
    pub fn caller(&self) -> Caller {
        let key_id = match &self.role {
            Role::Browser { .. } => None,
            Role::Service { key_id, .. } | Role::Operator { key_id, .. } => Some(key_id.clone()),
        };
        Caller { key_id, network: self.network.clone() }
    }

    /// That something was denied to this principal.
    #[must_use]
    pub fn denied(&self, did: &'static str, code: &'static str) -> Denial {
        let by = match &self.role {
            Role::Browser { .. } => "browser",
            Role::Service { .. } => "service",
            Role::Operator { .. } => "operator",
        };
        let session = match &self.role {
            Role::Browser { claims } => Some(claims.session_id.clone()),
            Role::Service { .. } | Role::Operator { .. } => None,
        };
        Denial { session, ..Denial::of(self.tenant().clone(), by, self.caller(), did, code) }
    }

    /// A name that tells principals apart and holds nothing secret: for the audit log and as
    /// the scope of idempotency keys.
    #[must_use]
    pub fn scope(&self) -> String {
        match &self.role {
            Role::Browser { claims } => format!("browser:{}", claims.session_id),
            Role::Service { key_id, .. } => format!("service:{key_id}"),
            Role::Operator { key_id, .. } => format!("operator:{key_id}"),
        }
    }
}

/// Recognises principals by the keys of this server.
#[derive(Debug, Clone)]
pub struct Authenticator {
    tokens: TokenIssuer,
    service_keys: ServiceKeys,
}

impl Authenticator {
    /// One that trusts tokens of `tokens` and the keys of `service_keys`, and nothing else.
    #[must_use]
    pub fn new(tokens: TokenIssuer, service_keys: ServiceKeys) -> Self {
        Self { tokens, service_keys }
    }

    /// What tokens are issued with.
    #[must_use]
    pub fn tokens(&self) -> &TokenIssuer {
        &self.tokens
    }

    /// Who sent these headers.
    ///
    /// # Errors
    /// When no credential was sent or it proves nothing.
    pub fn authenticate(&self, headers: &HeaderMap, now_ms: i64) -> Result<Principal, AuthenticationError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(AuthenticationError::Missing)?;
        if values.next().is_some() {
            return Err(AuthenticationError::Form);
        }
        let text = value.to_str().map_err(|_| AuthenticationError::Form)?;
        let (scheme, credential) = text.split_once(' ').ok_or(AuthenticationError::Form)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthenticationError::Form);
        }
        self.recognise(credential.trim_matches(' '), now_ms)
    }

    /// Who holds this credential: a session token, or a service key. For credentials that
    /// arrive elsewhere than in a header, such as a socket's first frame.
    ///
    /// # Errors
    /// When the credential proves nothing.
    pub fn recognise(&self, credential: &str, now_ms: i64) -> Result<Principal, AuthenticationError> {
        if credential.starts_with(PREFIX) {
            let known = self.service_keys.recognise(credential).ok_or(AuthenticationError::UnknownServiceKey)?;
            let (tenant, key_id) = (known.tenant.clone(), known.id());
            let role = match known.scope {
                Scope::Service => Role::Service { tenant, key_id },
                Scope::Operator => Role::Operator { tenant, key_id },
            };
            return Ok(Principal { role, network: None });
        }
        let claims = self.tokens.verify(credential, Purpose::Browser, now_ms)?;
        Ok(Principal { role: Role::Browser { claims }, network: None })
    }
}

impl From<AuthenticationError> for Problem {
    fn from(error: AuthenticationError) -> Self {
        error.note();
        let challenge = match error {
            AuthenticationError::Missing => "Bearer",
            AuthenticationError::Form => "Bearer error=\"invalid_request\"",
            AuthenticationError::UnknownServiceKey | AuthenticationError::Token(_) => "Bearer error=\"invalid_token\"",
        };
        Self::new(StatusCode::UNAUTHORIZED, error.code(), "Not authenticated")
            .detail(error.to_string())
            .mendable_by("forbidden")
            .header(axum::http::header::WWW_AUTHENTICATE, axum::http::HeaderValue::from_static(challenge))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::keys::KeyRing;
    use crate::service_key::ServiceKey;
    use crate::token::{Grant, Lifetimes};

    const NOW_MS: i64 = 1_700_000_000_000;

    struct Fixture {
        authenticator: Authenticator,
        service: ServiceKey,
        operator: ServiceKey,
    }

    fn fixture() -> Fixture {
        let (service, operator) = (ServiceKey::generate().unwrap(), ServiceKey::generate().unwrap());
        let keys = ServiceKeys::new(vec![
            service.known_as("shop-a".parse().unwrap(), Scope::Service),
            operator.known_as(TenantId::single(), Scope::Operator),
        ]);
        let ring = TokenIssuer::new(KeyRing::generate().unwrap());
        Fixture { authenticator: Authenticator::new(ring, keys), service, operator }
    }

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        headers
    }

    fn token(fixture: &Fixture, purpose: Purpose) -> String {
        let grant =
            Grant { purpose, tenant: "shop-a".parse().unwrap(), session_id: "ws_1_a".to_owned(), access_generation: 0 };
        fixture.authenticator.tokens().issue(&grant, Lifetimes::default(), NOW_MS).unwrap().text
    }

    #[test]
    fn a_service_key_makes_a_service_of_its_tenant() {
        let fixture = fixture();
        let principal = fixture
            .authenticator
            .authenticate(&headers(&format!("Bearer {}", fixture.service.reveal())), NOW_MS)
            .unwrap();
        assert_eq!(principal.tenant().as_str(), "shop-a");
        assert!(matches!(principal.role, Role::Service { .. }));
    }

    #[test]
    fn an_operator_key_makes_an_operator() {
        let fixture = fixture();
        let principal = fixture
            .authenticator
            .authenticate(&headers(&format!("bearer {}", fixture.operator.reveal())), NOW_MS)
            .unwrap();
        assert!(matches!(principal.role, Role::Operator { .. }));
    }

    #[test]
    fn a_session_token_makes_a_browser_of_one_session() {
        let fixture = fixture();
        let text = token(&fixture, Purpose::Browser);
        let principal = fixture.authenticator.authenticate(&headers(&format!("Bearer {text}")), NOW_MS).unwrap();
        assert_eq!(principal.scope(), "browser:ws_1_a");
        assert_eq!(principal.tenant().as_str(), "shop-a");
    }

    #[test]
    fn a_token_for_another_purpose_does_not_make_a_browser() {
        let fixture = fixture();
        let text = token(&fixture, Purpose::Service);
        assert_eq!(
            fixture.authenticator.recognise(&text, NOW_MS),
            Err(AuthenticationError::Token(TokenError::WrongPurpose { expected: Purpose::Browser }))
        );
    }

    #[test]
    fn everything_else_is_nobody() {
        let Fixture { authenticator, service, .. } = fixture();
        let refused = |headers: &HeaderMap| authenticator.authenticate(headers, NOW_MS).unwrap_err();
        assert_eq!(refused(&HeaderMap::new()), AuthenticationError::Missing);
        assert_eq!(refused(&headers("Bearer")), AuthenticationError::Form);
        assert_eq!(refused(&headers("Basic dXNlcjpwYXNz")), AuthenticationError::Form);
        assert_eq!(refused(&headers("Bearer tls_no")), AuthenticationError::UnknownServiceKey);
        assert_eq!(
            refused(&headers("Bearer ws_1_a")),
            AuthenticationError::Token(TokenError::Malformed),
            "knowing an id grants nothing"
        );
        let mut twice = headers(&format!("Bearer {}", service.reveal()));
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(refused(&twice), AuthenticationError::Form);
    }
}
