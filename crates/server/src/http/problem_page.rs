//! `/docs/problems`: what each code of a problem means. A problem's `type` leads here.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use throughline_core::RejectionCode;

use super::refusal::{mendable_by, status_of};
use crate::wiring::ServerState;

/// The codes that come from the server itself: status, code, meaning.
const OWN_CODES: &[(u16, &str, &str)] = &[
    (400, "badRequest", "The request is not one that its path understands."),
    (400, "bodyUnreadable", "The body ended early."),
    (400, "cursorRefused", "The cursor is none of this server's, or was made for other filters."),
    (400, "idempotencyKeyMalformed", "The Idempotency-Key is not 1 to 255 printable characters, or was sent twice."),
    (400, "ifMatchMalformed", "The If-Match header is not one entity tag as the server sent it."),
    (400, "jsonTooDeep", "Too many arrays and objects lie in each other in the body."),
    (400, "malformedJson", "The body is not JSON; line and column say where."),
    (400, "queryRefused", "A query parameter is not known, is there twice, or has a value that it can't have."),
    (400, "subprotocolMissing", "A WebSocket has to ask for the subprotocol throughline.v1."),
    (401, "credentialMalformed", "The Authorization header is not one Bearer credential."),
    (401, "credentialMissing", "The path needs a session token or a service key."),
    (401, "serviceKeyExpired", "The service key's time is over."),
    (401, "serviceKeyRevoked", "The service key is revoked."),
    (401, "serviceKeyUnknown", "The service key is not one of this server's."),
    (401, "tokenExpired", "The token's time is over."),
    (401, "tokenKeyUnknown", "The token was made with a key that this server does not have, or has retired."),
    (401, "tokenMalformed", "The token is none, or was changed."),
    (401, "tokenNotYetValid", "The token was made in the future; a clock is wrong."),
    (401, "tokenTooOld", "The token was renewed for as long as that is possible."),
    (
        401,
        "handoffRefused",
        "The code for going on in another browser is none of this server, was changed or revoked, or its time is over.",
    ),
    (410, "handoffUsed", "The code for going on in another browser was used already."),
    (401, "legacyCookieExpired", "The time of the old shop's cookie is over."),
    (401, "legacyCookieForged", "The old shop's cookie is not signed with the secret that this server knows."),
    (401, "legacyCookieMalformed", "It is no cookie of the old shop."),
    (401, "legacyCookieMissing", "Neither the body nor the request has the old shop's cookie."),
    (
        401,
        "legacySecretPublic",
        "The old shop's cookie is signed with the secret that stands in its source code; anybody can have made it.",
    ),
    (403, "legacyCookiesOff", "This server takes no cookies of an old shop; its operator has to set their secret."),
    (
        410,
        "eventsGone",
        "What follows on that place is forgotten, or the database was put back to an earlier moment; oldestAfter says where to begin again.",
    ),
    (404, "webhookNotFound", "There is no webhook with this id."),
    (409, "tooManyWebhooks", "The tenant has as many webhooks as it may have."),
    (409, "webhookChanged", "Somebody else has changed the webhook meanwhile."),
    (429, "tooManyStreams", "The service key has as many streams of events open as it may have."),
    (410, "legacyCookieUsed", "The old shop's cookie was exchanged already."),
    (401, "tokenWrongAudience", "The token was made for something else."),
    (401, "tokenWrongPurpose", "The token was made for another purpose."),
    (403, "cookieNotMeant", "The request does not say that the session's cookie is meant to count."),
    (403, "forbidden", "The principal may not do that."),
    (403, "originRefused", "Web pages of this origin may not talk to this server."),
    (403, "scopeMissing", "The service key does not have the scope that this asks for; scope names it."),
    (403, "wrongSession", "The token is for another session."),
    (404, "funnelNotFound", "There is no such funnel."),
    (404, "serviceKeyNotFound", "The tenant has no service key with this id."),
    (404, "notFound", "There is nothing at this path."),
    (405, "methodNotAllowed", "The path does not know this method."),
    (408, "bodyTimedOut", "The body did not arrive in time."),
    (409, "idempotencyKeyInProgress", "The first request with this Idempotency-Key is still running."),
    (409, "ownServiceKey", "The service key would revoke itself; own=true says that this is meant."),
    (409, "sequenceGap", "Numbers are missing between the client's last command and these."),
    (409, "versionConflict", "Somebody else changed the session first."),
    (413, "bodyTooLarge", "The body is larger than this server takes."),
    (414, "urlTooLong", "Path and query are longer than this server takes."),
    (415, "contentEncodingUnsupported", "The body is compressed, and this server takes none that is."),
    (415, "unsupportedMediaType", "The body is not announced as JSON."),
    (422, "idempotencyKeyReused", "The Idempotency-Key was used for a request with another body."),
    (422, "invalidBody", "The body is JSON of another form; the path says where."),
    (422, "tooMuch", "The database would have to look at too many sessions."),
    (429, "rateLimited", "This address, session, service key or tenant has asked too often; limitedBy says which."),
    (431, "headersTooLarge", "The request has more or larger headers than this server takes."),
    (500, "internal", "Something went wrong in the server; its log has the request's id."),
    (503, "overloaded", "Too much is under way; this was not begun."),
    (503, "requestTimedOut", "The request took too long; what it had begun may still happen."),
    (503, "serviceKeysUnavailable", "The database can't be read, so whether the service key is good can't be told."),
    (503, "storeUnavailable", "The database does not answer."),
    (503, "unavailable", "The change could not be stored just now."),
];

/// The page.
pub fn routes() -> Router<Arc<ServerState>> {
    Router::new().route("/docs/problems", get(page))
}

/// Every code that a problem may have.
pub(super) fn codes() -> impl Iterator<Item = &'static str> {
    RejectionCode::ALL.iter().map(|code| code.as_str()).chain(OWN_CODES.iter().map(|(_, code, _)| *code))
}

async fn page() -> impl IntoResponse {
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    ([(CONTENT_SECURITY_POLICY, policy)], Html(document()))
}

fn document() -> String {
    let mut rows = String::new();
    let mut row = |code: &str, status: u16, who: &str, meaning: &str| {
        // Writing into a String can't fail.
        let _ = writeln!(
            rows,
            "<tr id=\"{code}\"><th scope=\"row\"><code>{code}</code></th><td>{status}</td><td>{who}</td><td>{meaning}</td></tr>"
        );
    };
    for code in RejectionCode::ALL {
        row(code.as_str(), status_of(*code).as_u16(), mendable_by(code.mendable_by()), code.meaning().trim());
    }
    for (status, code, meaning) in OWN_CODES {
        row(code, *status, "see the problem", meaning);
    }
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Problems</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b2b}}\
         table{{border-collapse:collapse}}th,td{{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ccd;\
         vertical-align:top}}tr:target{{background:#fff3c4}}</style>\
         <h1>Problems</h1><p>Every request that fails is answered with a problem (RFC 9457). Its <code>code</code> is \
         stable; <code>mendableBy</code> says who can do something about it.</p>\
         <table><thead><tr><th scope=\"col\">Code</th><th scope=\"col\">Status</th><th scope=\"col\">Mendable by</th>\
         <th scope=\"col\">Meaning</th></tr></thead><tbody>\n{rows}</tbody></table></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_described_once() {
        let page = document();
        let codes: Vec<&str> = codes().collect();
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
        for code in codes {
            assert_eq!(page.matches(&format!("id=\"{code}\"")).count(), 1, "{code}");
        }
    }
}
