//! What lets a browser into a session, in a cookie that no script can read: `__Host-`, `HttpOnly`, `Secure`, `SameSite=Strict`.
//!
//! A browser sends its cookies whoever makes it send a request, so they count only where the request says that it is meant:
//! by the header [`CREDENTIALS`], which pages of other origins can't send without having been asked for (CORS), and by where
//! it comes from (`Origin`, `Sec-Fetch-Site`). None of it depends on `SameSite`. The rules are those of OWASP ASVS 5.0,
//! chapters 3.3 and 3.5.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{COOKIE, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::{Cookie, SameSite};

use super::extract;
use super::origin::{AllowedOrigins, OriginRefused};
use crate::audit::Denial;
use crate::claim_secret;
use crate::problem::Problem;
use crate::tenant::TenantId;
use crate::token::Claims;
use crate::wiring::ServerState;

/// With the value `cookie`: the request's credential is in its cookie, and what it gets goes there.
pub const CREDENTIALS: HeaderName = HeaderName::from_static("throughline-credentials");

const IN_COOKIE: &str = "cookie";

/// Says of which kind of page a browser sends a request. Pages can't set it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Each session has a cookie of its own, see [`CookieMode::name_of`]. Browsers take a name of this form only with `Secure`, from the host
/// itself, for all of it.
const PREFIX: &str = "__Host-throughline-";

/// Between the token and the claim secret: in neither of them.
const SEPARATOR: char = '~';

/// How many sessions one browser has cookies of. The one that was begun first gives way to another: a browser sends all of them
/// with each request.
pub const MAX_COOKIES: usize = 8;

/// The cookies of a request that may use them: it says so, and comes from a page that is let in.
#[derive(Debug, Clone)]
pub(crate) struct CookieMode {
    cookies: HeaderMap,
    /// Whose sessions the page is about.
    pub(crate) tenant: TenantId,
}

/// What one session's cookie holds.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SessionCookie {
    /// A token for the purpose of being in a cookie; it may be over.
    pub(crate) token: String,
    /// With which the browser comes back when its token is over.
    pub(crate) claim: String,
}

impl std::fmt::Debug for SessionCookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionCookie([secret])")
    }
}

impl CookieMode {
    /// The cookies of a request with these headers; nothing where it does not ask for them.
    ///
    /// # Errors
    /// Where it asks, and does not come from a page that may.
    pub(crate) fn of(headers: &HeaderMap, origins: &AllowedOrigins) -> Result<Option<Self>, OriginRefused> {
        if is_asked_for(headers) { Self::judge(headers, origins).map(Some) } else { Ok(None) }
    }

    /// The same where something else says that they are asked for, such as a socket's subprotocol.
    ///
    /// # Errors
    /// Where the request does not come from a page that may.
    pub(crate) fn judge(headers: &HeaderMap, origins: &AllowedOrigins) -> Result<Self, OriginRefused> {
        let is_own_page = headers.get(FETCH_SITE).is_some_and(|site| site == "same-origin");
        // Browsers name the origin of each request but those by which a page reads from its own. What has none, and is not of
        // that kind, comes from a program, which has no use for a browser's cookies, or from where nobody can tell.
        if !headers.contains_key(ORIGIN) && !is_own_page {
            return Err(OriginRefused);
        }
        let tenant = origins.judge(headers)?;
        let cookies = headers.get_all(COOKIE).iter().map(|cookies| (COOKIE, cookies.clone())).collect();
        Ok(Self { cookies, tenant })
    }

    /// What the request has of this session.
    pub(crate) fn of_session(&self, session_id: &str) -> Option<SessionCookie> {
        let wanted = self.name_of(session_id);
        let (_, value) = self.all().find(|(name, _)| *name == wanted)?;
        let (token, claim) = value.split_once(SEPARATOR)?;
        Some(SessionCookie { token: token.to_owned(), claim: claim.to_owned() })
    }

    /// The cookies of the tenant's sessions: their names, and what they hold.
    fn all(&self) -> impl Iterator<Item = (String, String)> {
        let is_single = self.tenant == TenantId::single();
        let prefix = self.name_of("");
        ours(&self.cookies).filter(move |(name, _)| name.starts_with(&prefix) && name.contains('~') != is_single)
    }

    /// The headers that put `held` into the browser, for `life`, and take out what is too much. Which of the others was begun
    /// first, `age` tells of their tokens.
    pub(crate) fn set(
        &self,
        session_id: &str,
        held: &SessionCookie,
        life: Duration,
        age: impl Fn(&str) -> Option<i64>,
    ) -> Vec<HeaderValue> {
        let name = self.name_of(session_id);
        let mut others: Vec<(Option<i64>, String)> = self
            .all()
            .filter(|(other, _)| *other != name)
            .map(|(other, value)| (value.split(SEPARATOR).next().and_then(&age), other))
            .collect();
        others.sort();
        let surplus = (others.len() + 1).saturating_sub(MAX_COOKIES);
        let removed = others.into_iter().take(surplus).map(|(_, other)| written(other, String::new(), Duration::ZERO));
        let value = format!("{}{SEPARATOR}{}", held.token, held.claim);
        removed.chain([written(name, value, life)]).flatten().collect()
    }

    /// The header that takes a session's cookie out of the browser.
    pub(crate) fn removal(&self, session_id: &str) -> Option<HeaderValue> {
        written(self.name_of(session_id), String::new(), Duration::ZERO)
    }

    /// The name of a session's cookie: no shop's page touches what another shop's has. Of what an id may have in it, `:` alone
    /// can't stand there; `!` and `~` are in none.
    fn name_of(&self, session_id: &str) -> String {
        let id = session_id.replace(':', "!");
        if self.tenant == TenantId::single() {
            format!("{PREFIX}{id}")
        } else {
            format!("{PREFIX}{}~{id}", self.tenant)
        }
    }
}

/// All cookies of sessions that a request has. What others put into the header, in whatever encoding, is passed over: browsers
/// protect the names of ours as they are written, byte by byte.
fn ours(headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|cookies| cookies.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let text = std::str::from_utf8(pair).ok().filter(|text| text.starts_with(PREFIX))?;
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    })
}

/// Whether a request says that its credential is in a cookie, and has one.
pub(crate) fn is_sent(headers: &HeaderMap) -> bool {
    is_asked_for(headers) && ours(headers).next().is_some()
}

/// Whether a request says that its credential is in its cookie.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    headers.get(CREDENTIALS).is_some_and(|value| value == IN_COOKIE)
}

fn written(name: String, value: String, life: Duration) -> Option<HeaderValue> {
    let seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
    let cookie = Cookie::build((name, value))
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Strict)
        .max_age(cookie::time::Duration::seconds(seconds));
    HeaderValue::from_str(&cookie.to_string()).ok()
}

/// A claim secret that a page never sees.
///
/// # Errors
/// When the operating system gives no randomness.
pub(crate) fn new_claim() -> Result<String, Problem> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Problem::internal(&error))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// The digest of a claim secret that can stand in a cookie; nothing where it can't.
pub(crate) fn digest_of_claim(claim: &str) -> Option<String> {
    let is_plain = claim.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_plain { claim_secret::digest_of(claim) } else { None }
}

/// Refuses the cookie of a shop's buyer to the page of another shop.
pub(crate) fn judge_tenant(mode: &CookieMode, claims: &Claims) -> Result<(), OriginRefused> {
    if claims.tenant == mode.tenant { Ok(()) } else { Err(OriginRefused) }
}

/// Whether a request wants what it gets in a cookie: for routes that give out tokens.
#[derive(Debug, Clone)]
pub(crate) struct MaybeCookieMode(pub(crate) Option<CookieMode>);

impl FromRequestParts<Arc<ServerState>> for MaybeCookieMode {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ServerState>) -> Result<Self, Problem> {
        asked(parts, state).map(Self)
    }
}

impl FromRequestParts<Arc<ServerState>> for CookieMode {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ServerState>) -> Result<Self, Problem> {
        let mode = asked(parts, state)?;
        mode.ok_or_else(|| {
            Problem::new(StatusCode::FORBIDDEN, "cookieNotMeant", "Cookie not meant")
                .detail("send the header `throughline-credentials: cookie`: without it a request may be some other page's doing")
                .mendable_by("permanent")
                .denial(Denial::of_nobody("useCookie", "cookieNotMeant"))
        })
    }
}

/// The cookies of a request that asks for them. One that may not counts as an attempt.
fn asked(parts: &Parts, state: &ServerState) -> Result<Option<CookieMode>, Problem> {
    CookieMode::of(&parts.headers, &state.config.allowed_origins).map_err(|refusal| {
        let address = state.config.trusted_proxies.client(extract::peer(&parts.extensions), &parts.headers);
        let counted = state.request_limits.refuse_credential(address);
        counted.map_or_else(Problem::from, |()| refused(refusal))
    })
}

/// The problem of a request whose cookies do not count.
pub(crate) fn refused(refusal: OriginRefused) -> Problem {
    Problem::from(refusal).denial(Denial::of_nobody("useCookie", "originRefused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: &str = "v4.local.token";

    fn origins() -> AllowedOrigins {
        let texts = ["https://shop.example", "https://other.example=other"];
        AllowedOrigins::new(texts.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn mode(cookies: &str) -> CookieMode {
        CookieMode::judge(&headers(&[("origin", "https://shop.example"), ("cookie", cookies)]), &origins()).unwrap()
    }

    fn held() -> SessionCookie {
        SessionCookie { token: HELD.to_owned(), claim: "c".repeat(43) }
    }

    /// What is set: name, value, attributes.
    fn set() -> (String, String, Vec<String>) {
        let set = mode("").set("ws_1_a", &held(), Duration::from_secs(60), |_| None);
        let (pair, attributes) = set[0].to_str().unwrap().split_once("; ").unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned(), attributes.split("; ").map(str::to_owned).collect())
    }

    #[test]
    fn asvs_3_3_1_a_cookie_is_sent_over_tls_alone() {
        assert!(set().2.contains(&"Secure".to_owned()), "{:?}", set());
    }

    #[test]
    fn asvs_3_3_2_a_cookie_does_not_come_with_requests_of_other_sites() {
        assert!(set().2.contains(&"SameSite=Strict".to_owned()), "{:?}", set());
    }

    #[test]
    fn asvs_3_3_3_a_cookie_is_bound_to_its_host() {
        let (name, value, attributes) = set();
        assert_eq!((name.as_str(), value), ("__Host-throughline-ws_1_a", format!("{HELD}~{}", "c".repeat(43))));
        assert!(attributes.contains(&"Path=/".to_owned()), "{attributes:?}");
        assert!(!attributes.iter().any(|attribute| attribute.starts_with("Domain")), "{attributes:?}");
    }

    #[test]
    fn a_cookie_is_out_of_reach_of_scripts_and_ends_by_itself_or_when_it_is_removed() {
        assert!(set().2.contains(&"HttpOnly".to_owned()) && set().2.contains(&"Max-Age=60".to_owned()), "{:?}", set());
        let removed = mode("").removal("ws_1_a").unwrap();
        let text = removed.to_str().unwrap();
        assert!(text.starts_with("__Host-throughline-ws_1_a=; ") && text.contains("Max-Age=0"), "{text}");
        assert!(text.contains("Secure") && text.contains("Path=/"), "or a browser would not take it: {text}");
    }

    #[test]
    fn what_was_set_is_found_among_others_and_only_for_its_session() {
        let mode = mode(&format!("theme=dark; __Host-throughline-ws_1_a={HELD}~secret; __Host-throughline-ws_1_b=x"));
        let found = mode.of_session("ws_1_a").unwrap();
        assert_eq!((found.token.as_str(), found.claim.as_str()), (HELD, "secret"));
        assert_eq!(mode.of_session("ws_1_b"), None, "it is of another form");
        assert_eq!(mode.of_session("ws_1"), None);
        assert_eq!(mode.of_session(""), None);
    }

    #[test]
    fn asvs_3_5_1_cookies_count_only_for_requests_that_are_meant_and_come_from_listed_pages() {
        let asked = |more: &[(&'static str, &str)]| {
            let all: Vec<_> = [("throughline-credentials", "cookie")].iter().chain(more).copied().collect();
            CookieMode::of(&headers(&all), &origins()).map(|mode| mode.map(|mode| mode.tenant.to_string()))
        };
        let tenant = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(asked(&[("origin", "https://shop.example")]), tenant("default"));
        assert_eq!(asked(&[("origin", "https://other.example")]), tenant("other"));
        assert_eq!(asked(&[("sec-fetch-site", "same-origin")]), tenant("default"), "a page reads from its own origin");
        assert_eq!(asked(&[("origin", "https://shop.example"), ("sec-fetch-site", "same-site")]), tenant("default"));
        for stranger in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "https://shop.example.evil.example")],
            &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(asked(stranger), Err(OriginRefused), "{stranger:?}");
        }
        let unasked = headers(&[("origin", "https://shop.example"), ("cookie", "__Host-throughline-ws_1_a=x~y")]);
        assert!(CookieMode::of(&unasked, &origins()).unwrap().is_none());
    }

    #[test]
    fn what_others_put_into_the_header_hides_nothing_and_passes_for_nothing() {
        let good = format!("__Host-throughline-ws_1_a={HELD}~secret");
        for other in ["x=Jos\u{e9}", "x", "x=\"a", "a=b=c", ""] {
            for text in [format!("{other}; {good}"), format!("{good}; {other}")] {
                assert!(mode(&text).of_session("ws_1_a").is_some(), "{text}");
            }
        }
        let mut latin = b"x=Jos\xe9; ".to_vec();
        latin.extend(good.as_bytes());
        let mut sent = headers(&[("origin", "https://shop.example")]);
        sent.insert(COOKIE, HeaderValue::from_bytes(&latin).unwrap());
        assert!(CookieMode::judge(&sent, &origins()).unwrap().of_session("ws_1_a").is_some());
        // Browsers protect a name as it is written.
        for spoilt in ["\u{2003}", "\u{a0}", "_", "\u{feff}"] {
            assert_eq!(mode(&format!("{spoilt}{good}")).of_session("ws_1_a"), None, "{spoilt:?}");
        }
    }

    #[test]
    fn no_shops_page_takes_another_shops_cookies_out() {
        let others: Vec<String> = (0..9).map(|index| format!("__Host-throughline-other~ws_1_{index}=t~c")).collect();
        let set = mode(&others.join("; ")).set("ws_1_a", &held(), Duration::from_secs(60), |_| None);
        assert_eq!(set.len(), 1, "{set:?}");
        let other = CookieMode { tenant: "other".parse().unwrap(), ..mode(&others.join("; ")) };
        assert_eq!(other.set("ws_1_a", &held(), Duration::from_secs(60), |_| None).len(), 3);
    }

    #[test]
    fn a_browser_has_a_few_cookies_and_the_oldest_gives_way() {
        let name = |index: usize| format!("ws_1_{index}");
        let cookies: Vec<String> =
            (0..MAX_COOKIES).map(|index| format!("{}=token-{index}~claim", mode("").name_of(&name(index)))).collect();
        let mode = mode(&cookies.join("; "));
        // Number 5 was begun first, and nobody can tell of number 2.
        let age = |token: &str| match token {
            "token-5" => Some(1),
            "token-2" => None,
            _ => Some(9),
        };
        let again = mode.set(&name(5), &held(), Duration::from_secs(60), age);
        assert_eq!(again.len(), 1, "it is there already: {again:?}");
        let set = mode.set("ws_1_new", &held(), Duration::from_secs(60), age);
        assert_eq!(set.len(), 2, "{set:?}");
        assert_eq!(set[0], mode.removal(&name(2)).unwrap());
    }

    #[test]
    fn asvs_3_3_5_the_largest_cookie_has_less_than_4096_bytes() {
        let held = SessionCookie { token: "t".repeat(crate::token::MAX_TOKEN_BYTES), claim: "c".repeat(256) };
        let tenant = "t".repeat(64);
        let mode = CookieMode { tenant: tenant.parse().unwrap(), ..mode("") };
        assert!(format!("{tenant}t").parse::<TenantId>().is_err());
        let id = ":".repeat(64);
        assert!(
            throughline_core::SessionId::new(id.clone()).is_ok()
                && throughline_core::SessionId::new(format!("{id}:")).is_err()
        );
        let set = mode.set(&id, &held, Duration::from_secs(86_400), |_| None);
        assert!(set[0].len() < 4096, "{}", set[0].len());
    }

    #[test]
    fn a_claim_that_could_end_a_cookie_is_none() {
        assert!(digest_of_claim(&new_claim().unwrap()).is_some());
        for claim in ["x".repeat(31), format!("{};", "x".repeat(32)), format!("{}~", "x".repeat(32))] {
            assert_eq!(digest_of_claim(&claim), None, "{claim}");
        }
    }
}
