//! Pages that are built into the program: a folder of files, made by something else before the program is compiled.
//!
//! What is not built in says how to have it. Where there is a `NAME.br` beside a file, that is sent to whoever takes it.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::EmbeddedFile;
#[cfg(any(test, feature = "web-demo"))]
use rust_embed::RustEmbed;

use crate::problem::Problem;
use crate::wiring::ServerState;

/// The demo shop, as `npm run build` leaves it.
#[cfg(feature = "web-demo")]
#[derive(RustEmbed)]
#[folder = "../../web-demo/dist"]
struct WebDemo;

/// In files whose name changes with what is in them.
const HASHED: &str = "assets/";
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Asked for again each time, and sent again if it has changed.
const REVALIDATED: &str = "no-cache";

/// Pages below one path.
#[derive(Debug, Clone, Copy)]
struct Pages {
    /// Where they are, without a slash in the end.
    path: &'static str,
    /// The file, if there is one of that name.
    file: fn(&str) -> Option<EmbeddedFile>,
    /// What they may load and connect to.
    policy: &'static str,
}

/// The demo shop. Its payment service is another program beside the server.
#[cfg(feature = "web-demo")]
const DEMO: Pages = Pages {
    path: "/demo",
    file: WebDemo::get,
    policy: "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
             connect-src 'self' http://127.0.0.1:8788 http://localhost:8788; manifest-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'self'; frame-src 'self'",
};

/// `/demo`, on a developer's machine: nobody wants a demo shop beside a real one.
pub(super) fn routes(is_dev: bool) -> Router<Arc<ServerState>> {
    if !is_dev {
        return Router::new();
    }
    #[cfg(feature = "web-demo")]
    return DEMO.routes();
    #[cfg(not(feature = "web-demo"))]
    return missing(
        "/demo",
        "the demo shop is not built into this program: build it with `cargo xtask release`, or run it beside the server with \
         `cargo xtask demo`",
    );
}

/// Answers in place of pages that are not there.
#[cfg_attr(feature = "web-demo", allow(dead_code))]
fn missing(path: &'static str, how_to_have_it: &'static str) -> Router<Arc<ServerState>> {
    let answer = move || async move { Problem::of_status(StatusCode::NOT_FOUND).detail(how_to_have_it) };
    Router::new()
        .route(path, get(answer))
        .route(&format!("{path}/{{*file}}"), get(answer))
        .route(&format!("{path}/"), get(answer))
}

impl Pages {
    /// The pages. Without them on, this is reached by tests alone.
    #[cfg_attr(not(feature = "web-demo"), allow(dead_code))]
    fn routes<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let index = move |headers: HeaderMap| async move { self.answer("index.html", &headers) };
        let file = move |Path(name): Path<String>, headers: HeaderMap| async move { self.answer(&name, &headers) };
        Router::new()
            // What a page names beside itself is looked for below its own path.
            .route(self.path, get(move || async move { Redirect::permanent(&format!("{}/", self.path)) }))
            .route(&format!("{}/", self.path), get(index))
            .route(&format!("{}/{{*file}}", self.path), get(file))
    }

    fn answer(self, name: &str, asked: &HeaderMap) -> Response {
        let Some(plain) = (self.file)(name).filter(|_| !name.ends_with(".br")) else {
            return Problem::of_status(StatusCode::NOT_FOUND).into_response();
        };
        let packed = if takes_brotli(asked) { (self.file)(&format!("{name}.br")) } else { None };
        let is_packed = packed.is_some();
        let file = packed.unwrap_or(plain);
        let tag: String = file.metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let tag = format!("\"{tag}\"");
        let is_known = is_known(asked, &tag);
        let mut headers = HeaderMap::with_capacity(6);
        let kind = mime_guess::from_path(name).first_or_octet_stream();
        for (header, value) in [
            (CONTENT_TYPE, kind.as_ref()),
            (CACHE_CONTROL, if name.starts_with(HASHED) { FOR_EVER } else { REVALIDATED }),
            (ETAG, &tag),
            (VARY, "accept-encoding"),
            (CONTENT_SECURITY_POLICY, self.policy),
        ] {
            // All of these are texts of this program, and letters.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(header, value);
            }
        }
        if is_known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        if is_packed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
        }
        (headers, file.data).into_response()
    }
}

/// Whether one of the tags that a client has is this one.
fn is_known(asked: &HeaderMap, tag: &str) -> bool {
    let tags = asked.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(','))
        .any(|known| matches!(known.trim(), "*") || known.trim().trim_start_matches("W/") == tag)
}

/// Whether a client takes Brotli. One that gives it a weight of 0 does not.
fn takes_brotli(asked: &HeaderMap) -> bool {
    let codings = asked.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    codings.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("br") && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{HeaderName, Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[derive(RustEmbed)]
    #[folder = "src/http/assets_sample"]
    struct Sample;

    const SAMPLE: Pages = Pages { path: "/sample", file: Sample::get, policy: "default-src 'none'; script-src 'self'" };

    async fn get_of(path: &str, headers: &[(HeaderName, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let answer = SAMPLE.routes::<()>().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    #[tokio::test]
    async fn files_have_their_types_and_only_hashed_names_are_kept_for_ever() {
        let (status, headers, _) = get_of("/sample", &[]).await;
        assert_eq!((status, headers["location"].as_bytes()), (StatusCode::PERMANENT_REDIRECT, &b"/sample/"[..]));
        for (path, kind, kept) in [
            ("/sample/", "text/html", REVALIDATED),
            ("/sample/index.html", "text/html", REVALIDATED),
            ("/sample/assets/page-3f2a.js", "text/javascript", FOR_EVER),
        ] {
            let (status, headers, body) = get_of(path, &[]).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert_eq!(
                (&headers[CONTENT_TYPE], &headers[CACHE_CONTROL]),
                (&kind.parse().unwrap(), &kept.parse().unwrap())
            );
            assert_eq!(headers[CONTENT_SECURITY_POLICY], SAMPLE.policy);
            assert!(!body.is_empty() && !headers.contains_key(CONTENT_ENCODING), "{path}");
        }
        for path in ["/sample/nothing.js", "/sample/../Cargo.toml", "/sample/assets", "/sample/assets/page-3f2a.js.br"]
        {
            assert_eq!(get_of(path, &[]).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[tokio::test]
    async fn what_a_browser_has_is_not_sent_again() {
        let (_, headers, _) = get_of("/sample/", &[]).await;
        let tag = headers[ETAG].to_str().unwrap();
        for known in [tag, &format!("\"other\", W/{tag}"), "*"] {
            let (status, headers, body) = get_of("/sample/", &[(IF_NONE_MATCH, known)]).await;
            assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{known}");
            assert_eq!(headers[ETAG], tag);
        }
        assert_eq!(get_of("/sample/", &[(IF_NONE_MATCH, "\"other\"")]).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_was_packed_is_sent_to_whoever_takes_it() {
        let path = "/sample/assets/page-3f2a.js";
        let (_, plain_headers, plain) = get_of(path, &[(ACCEPT_ENCODING, "gzip, br;q=0")]).await;
        let (_, headers, packed) = get_of(path, &[(ACCEPT_ENCODING, "gzip, br")]).await;
        assert_eq!(
            (&headers[CONTENT_ENCODING], &headers[VARY]),
            (&"br".parse().unwrap(), &"accept-encoding".parse().unwrap())
        );
        assert_eq!(headers[CONTENT_TYPE], plain_headers[CONTENT_TYPE]);
        assert!(packed.len() < plain.len() && headers[ETAG] != plain_headers[ETAG]);
        let (_, headers, _) = get_of("/sample/", &[(ACCEPT_ENCODING, "br")]).await;
        assert!(!headers.contains_key(CONTENT_ENCODING), "nothing is packed beside it");
    }
}
