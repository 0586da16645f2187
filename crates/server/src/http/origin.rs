//! Which web pages may talk to this server, and whose sessions they create: an exact list, the same for CORS and sockets.

use std::fmt;
use std::str::FromStr;

use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::problem::Problem;
use crate::tenant::{TenantId, TenantIdError};

/// One origin: scheme, host and port, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// Why a text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// A wildcard.
    #[error("`*` would let every web page in; list each origin, for example https://shop.example")]
    Wildcard,
    /// Something else.
    #[error("{text:?} is not an origin; write scheme, host and port without a path, for example https://shop.example")]
    Form {
        /// What was given.
        text: String,
    },
    /// What stands after `=` is no tenant.
    #[error("what stands after `=` is no tenant; write for example https://shop-a.example=shop-a")]
    Tenant(#[from] TenantIdError),
}

/// An origin that is let in, with the tenant whose sessions its pages create.
///
/// Text form: `https://shop.example` for the single tenant, `https://shop-a.example=shop-a` for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin {
    origin: Origin,
    tenant: TenantId,
}

impl FromStr for AllowedOrigin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        // No origin holds a `=`.
        match text.trim().split_once('=') {
            Some((origin, tenant)) => Ok(Self { origin: origin.parse()?, tenant: tenant.parse()? }),
            None => Ok(Self { origin: text.parse()?, tenant: TenantId::single() }),
        }
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant == TenantId::single() {
            self.origin.fmt(f)
        } else {
            write!(f, "{}={}", self.origin, self.tenant)
        }
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let text = text.trim();
        if text.contains('*') {
            return Err(OriginError::Wildcard);
        }
        let form = || OriginError::Form { text: text.to_owned() };
        let uri: Uri = text.parse().map_err(|_| form())?;
        let scheme = uri.scheme_str().ok_or_else(form)?;
        let authority = uri.authority().ok_or_else(form)?.as_str();
        // Browsers send the origin in lower case and without a slash; anything else in the
        // list would silently never match.
        let canonical = format!("{scheme}://{authority}");
        let web = matches!(scheme, "http" | "https");
        if !web || authority.contains('@') || canonical != text || text != text.to_lowercase() {
            return Err(form());
        }
        HeaderValue::from_str(&canonical).map(Self).map_err(|_| form())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// The list of origins that are let in. Empty lets no web page in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<AllowedOrigin>);

/// One origin is listed for two tenants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an origin is listed for two tenants; nobody could tell whose sessions its pages create")]
pub struct OriginOfTwoTenants;

/// A page of another origin asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pages of this origin may not talk to this server; its operator can add it to `allowed_origins`")]
pub struct OriginRefused;

impl AllowedOrigins {
    /// Lets in exactly `origins`.
    ///
    /// # Errors
    /// When one of them is there for two tenants.
    pub fn new(origins: Vec<AllowedOrigin>) -> Result<Self, OriginOfTwoTenants> {
        for (index, one) in origins.iter().enumerate() {
            if origins.iter().take(index).any(|other| other.origin == one.origin && other.tenant != one.tenant) {
                return Err(OriginOfTwoTenants);
            }
        }
        Ok(Self(origins))
    }

    /// The origins as header values.
    pub fn values(&self) -> impl Iterator<Item = HeaderValue> + '_ {
        self.0.iter().map(|allowed| allowed.origin.0.clone())
    }

    /// Judges the `Origin` of a request that CORS does not protect, such as a socket's upgrade. Says whose sessions the page
    /// creates where it has no credential that says so.
    ///
    /// A request without one comes from a program, not from a web page: nobody's browser can
    /// be made to send it, so only its credential counts.
    ///
    /// # Errors
    /// When there is an origin, and it is not in the list or is there more than once.
    pub fn judge(&self, headers: &HeaderMap) -> Result<TenantId, OriginRefused> {
        let mut values = headers.get_all(ORIGIN).iter();
        let Some(value) = values.next() else { return Ok(TenantId::single()) };
        let listed = self.0.iter().find(|allowed| allowed.origin.0 == *value);
        match listed {
            Some(allowed) if values.next().is_none() => Ok(allowed.tenant.clone()),
            _ => Err(OriginRefused),
        }
    }

    /// Whose sessions the page that sent a request creates. CORS keeps pages of other origins from sending it; what has another
    /// one all the same is of the server's own origin, behind a proxy, or comes from a program.
    #[must_use]
    pub fn tenant_of(&self, headers: &HeaderMap) -> TenantId {
        self.judge(headers).unwrap_or_else(|_| TenantId::single())
    }
}

impl From<OriginRefused> for Problem {
    fn from(refusal: OriginRefused) -> Self {
        tracing::warn!("origin refused");
        Self::new(StatusCode::FORBIDDEN, "originRefused", "Origin refused")
            .detail(refusal.to_string())
            .mendable_by("forbidden")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(list: &[&str], origins: &[&str]) -> Result<TenantId, OriginRefused> {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        AllowedOrigins::new(list.iter().map(|text| text.parse().unwrap()).collect()).unwrap().judge(&headers)
    }

    #[test]
    fn only_listed_origins_are_let_in() {
        let list = &["https://shop.example", "http://localhost:5173"];
        assert!(judged(list, &["https://shop.example"]).is_ok());
        assert!(judged(list, &["http://localhost:5173"]).is_ok());
        for stranger in [
            "http://shop.example",
            "https://shop.example:8443",
            "https://shop.example.evil.example",
            "https://sub.shop.example",
            "null",
        ] {
            assert_eq!(judged(list, &[stranger]), Err(OriginRefused), "{stranger}");
        }
        assert_eq!(judged(list, &["https://shop.example", "https://x.example"]), Err(OriginRefused));
    }

    #[test]
    fn an_origin_belongs_to_one_tenant() {
        let list = &["https://a.example=shop-a", "https://b.example=shop-b", "https://c.example"];
        for (origin, tenant) in
            [("https://a.example", "shop-a"), ("https://b.example", "shop-b"), ("https://c.example", "default")]
        {
            assert_eq!(judged(list, &[origin]).unwrap().as_str(), tenant);
        }
        assert_eq!(judged(list, &["https://a.example=shop-a"]), Err(OriginRefused));
        assert_eq!(judged(list, &["https://a.example", "https://b.example"]), Err(OriginRefused));
        let of = |texts: &[&str]| AllowedOrigins::new(texts.iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(of(&["https://a.example=shop-a", "https://a.example"]), Err(OriginOfTwoTenants));
        assert!(of(&["https://a.example=default", "https://a.example"]).is_ok());
        for text in ["https://a.example=shop-a", "https://a.example"] {
            assert_eq!(text.parse::<AllowedOrigin>().unwrap().to_string(), text);
        }
        assert!(matches!("https://a.example=".parse::<AllowedOrigin>(), Err(OriginError::Tenant(_))));
        assert!(matches!("https://a.example=A".parse::<AllowedOrigin>(), Err(OriginError::Tenant(_))));
        assert!(matches!("=shop-a".parse::<AllowedOrigin>(), Err(OriginError::Form { .. })));
    }

    #[test]
    fn a_program_without_an_origin_is_judged_by_its_credential_alone() {
        assert!(judged(&[], &[]).is_ok());
    }

    #[test]
    fn an_origin_that_could_never_match_is_an_error_at_the_start() {
        assert_eq!("*".parse::<Origin>(), Err(OriginError::Wildcard));
        assert_eq!("https://*.shop.example".parse::<Origin>(), Err(OriginError::Wildcard));
        for text in ["", "shop.example", "https://shop.example/", "HTTPS://shop.example", "ftp://a"] {
            assert!(matches!(text.parse::<Origin>(), Err(OriginError::Form { .. })), "{text}");
        }
    }
}
