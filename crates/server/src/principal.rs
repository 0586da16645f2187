//! Who is asking. Nobody is anybody until a credential proves it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use throughline_core::{Caller, LentClaim};

use crate::audit::Denial;
use crate::client_address::kept_network;
use crate::problem::Problem;
use crate::scope::{Scope, Scopes};
use crate::service_key::PREFIX;
use crate::service_keys::{RecognisedKey, ServiceKeyRefusal, ServiceKeys};
use crate::tenant::TenantId;
use crate::token::{Claims, Purpose, TokenError, TokenIssuer};

/// When to come back where nobody can tell whether a service key is good.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(2);

/// A proven identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// What it is and whose sessions it may reach.
    pub role: Role,
    /// The network that its request came from, where it came from one; see [`kept_network`].
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
    /// Who has a service key: a shop's back end, or whoever runs the server. All sessions of its tenant, for what its scopes
    /// allow.
    Service {
        /// Its tenant.
        tenant: TenantId,
        /// The public short name of its key.
        key_id: String,
        /// What it may do.
        scopes: Scopes,
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
    /// The service key was refused.
    #[error(transparent)]
    ServiceKey(#[from] ServiceKeyRefusal),
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
            Self::ServiceKey(refusal) => refusal.code(),
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
            Role::Service { tenant, .. } => tenant,
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
            Role::Service { key_id, .. } => Some(key_id.clone()),
        };
        Caller { key_id, network: self.network.clone() }
    }

    /// That something was denied to this principal.
    #[must_use]
    pub fn denied(&self, did: &'static str, code: &'static str) -> Denial {
        let by = match &self.role {
            Role::Browser { .. } => "browser",
            Role::Service { .. } => "service",
        };
        let session = match &self.role {
            Role::Browser { claims } => Some(claims.session_id.clone()),
            Role::Service { .. } => None,
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
        }
    }

    /// The service key on whose request tokens are made, where it is one that asks.
    #[must_use]
    pub fn issuing_key(&self) -> Option<String> {
        match &self.role {
            Role::Browser { .. } => None,
            Role::Service { key_id, .. } => Some(key_id.clone()),
        }
    }

    /// Asks a service key for `scope`. A browser has no scopes: which session is its own says what it may do.
    ///
    /// # Errors
    /// When the key does not have it.
    pub fn require(&self, scope: Scope) -> Result<(), ScopeMissing> {
        match &self.role {
            Role::Service { scopes, key_id, .. } if !scopes.contains(scope) => {
                let denial = Box::new(self.denied(scope.as_str(), ScopeMissing::CODE));
                Err(ScopeMissing { scope, key_id: key_id.clone(), denial })
            }
            Role::Service { .. } | Role::Browser { .. } => Ok(()),
        }
    }
}

/// A service key does not have what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this asks for the scope {scope}, which the service key {key_id} does not have; an operator makes a key that has it, with `throughline service-keys create --scope {scope}`"
)]
pub struct ScopeMissing {
    /// What it was asked for.
    pub scope: Scope,
    /// The public short name of the key.
    pub key_id: String,
    /// What the audit log is to say of it.
    pub denial: Box<Denial>,
}

impl ScopeMissing {
    /// The stable code that the outside sees.
    pub const CODE: &str = "scopeMissing";
}

impl From<ScopeMissing> for Problem {
    fn from(missing: ScopeMissing) -> Self {
        tracing::warn!(scope = missing.scope.as_str(), key_id = missing.key_id, "a service key lacks a scope");
        Self::new(StatusCode::FORBIDDEN, ScopeMissing::CODE, "Scope missing")
            .detail(missing.to_string())
            .with("scope", missing.scope.as_str())
            .mendable_by("forbidden")
            .denial(*missing.denial)
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

    /// The service keys that it recognises.
    #[must_use]
    pub fn service_keys(&self) -> &ServiceKeys {
        &self.service_keys
    }

    /// Says what a token claims, once it is proven, and the key that had it made is not revoked.
    ///
    /// # Errors
    /// See [`TokenError`]; anything in doubt is refused.
    pub fn verify(&self, token: &str, expected: Purpose, now_ms: i64) -> Result<Arc<Claims>, TokenError> {
        let claims = self.tokens.verify(token, expected, now_ms)?;
        if self.is_revoked(&claims) { Err(TokenError::RevokedIssuer) } else { Ok(claims) }
    }

    /// Whether the service key that had the token made is revoked. That it expired says nothing: whoever revokes a key distrusts
    /// what was done with it, and a key that expires was good for all that it did.
    #[must_use]
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        claims.issued_by.as_deref().is_some_and(|key_id| self.service_keys.is_revoked(key_id))
    }

    /// The same of a claim: whether the service key on whose request a browser was let in is revoked.
    #[must_use]
    pub fn has_ended(&self, claim: &LentClaim) -> bool {
        claim.issued_by.as_deref().is_some_and(|key_id| self.service_keys.is_revoked(key_id))
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

    /// The browser whose cookie holds this token.
    ///
    /// # Errors
    /// When the token proves nothing there.
    pub fn recognise_cookie(&self, token: &str, now_ms: i64) -> Result<Principal, TokenError> {
        let claims = self.verify(token, Purpose::Cookie, now_ms)?;
        Ok(Principal { role: Role::Browser { claims }, network: None })
    }

    /// Who holds this credential: a session token, or a service key. For credentials that
    /// arrive elsewhere than in a header, such as a socket's first frame.
    ///
    /// # Errors
    /// When the credential proves nothing.
    pub fn recognise(&self, credential: &str, now_ms: i64) -> Result<Principal, AuthenticationError> {
        if credential.starts_with(PREFIX) {
            let RecognisedKey { tenant, id: key_id, scopes } = self.service_keys.recognise(credential, now_ms)?;
            return Ok(Principal { role: Role::Service { tenant, key_id, scopes }, network: None });
        }
        let claims = self.verify(credential, Purpose::Browser, now_ms)?;
        Ok(Principal { role: Role::Browser { claims }, network: None })
    }
}

impl From<AuthenticationError> for Problem {
    fn from(error: AuthenticationError) -> Self {
        error.note();
        let challenge = match error {
            AuthenticationError::Missing => "Bearer",
            AuthenticationError::Form => "Bearer error=\"invalid_request\"",
            AuthenticationError::ServiceKey(ServiceKeyRefusal::Unavailable) => {
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), "Service keys unavailable")
                    .detail(error.to_string())
                    .retry_after(UNAVAILABLE_RETRY)
                    .mendable_by("retry");
            }
            AuthenticationError::ServiceKey(_) | AuthenticationError::Token(_) => "Bearer error=\"invalid_token\"",
        };
        Self::new(StatusCode::UNAUTHORIZED, error.code(), "Not authenticated")
            .detail(error.to_string())
            .mendable_by("forbidden")
            .denial(Denial::of_nobody("authenticate", error.code()))
            .header(axum::http::header::WWW_AUTHENTICATE, axum::http::HeaderValue::from_static(challenge))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::keys::KeyRing;
    use crate::service_key::{BootstrapRole, ServiceKey};
    use crate::store::memory::MemoryStore;
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
            service.known_as("shop-a".parse().unwrap(), BootstrapRole::Service),
            operator.known_as(TenantId::single(), BootstrapRole::Operator),
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
        let (tenant, session_id) = ("shop-a".parse().unwrap(), "ws_1_a".to_owned());
        let grant = Grant { purpose, tenant, session_id, access_generation: 0, issued_by: None };
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
        assert_eq!(Scope::ALL.map(|scope| principal.require(scope).is_ok()), [true, true, true, true, true, false]);
    }

    #[test]
    fn an_operator_key_makes_an_operator() {
        let fixture = fixture();
        let principal = fixture
            .authenticator
            .authenticate(&headers(&format!("bearer {}", fixture.operator.reveal())), NOW_MS)
            .unwrap();
        assert_eq!(Scope::ALL.map(|scope| principal.require(scope).is_ok()), [true; 6]);
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
        let text = token(&fixture, Purpose::Cookie);
        assert_eq!(
            fixture.authenticator.recognise(&text, NOW_MS),
            Err(AuthenticationError::Token(TokenError::WrongPurpose { expected: Purpose::Browser }))
        );
    }

    #[tokio::test]
    async fn everything_else_is_nobody() {
        let Fixture { authenticator, service, .. } = fixture();
        assert_eq!(
            authenticator.recognise("tls_no", NOW_MS),
            Err(ServiceKeyRefusal::Unavailable.into()),
            "the database was not read yet"
        );
        authenticator.service_keys().read_again(&MemoryStore::default()).await.unwrap();
        let refused = |headers: &HeaderMap| authenticator.authenticate(headers, NOW_MS).unwrap_err();
        assert_eq!(refused(&HeaderMap::new()), AuthenticationError::Missing);
        assert_eq!(refused(&headers("Bearer")), AuthenticationError::Form);
        assert_eq!(refused(&headers("Basic dXNlcjpwYXNz")), AuthenticationError::Form);
        assert_eq!(refused(&headers("Bearer tls_no")), ServiceKeyRefusal::Unknown.into());
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
