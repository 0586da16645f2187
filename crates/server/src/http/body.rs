//! Reading a JSON body, with a problem that says where it is wrong.

use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

use crate::problem::Problem;

/// A request's JSON body, read into `T`.
#[derive(Debug, Clone)]
pub struct JsonBody<T>(pub T);

/// A body whose bytes are kept as well, to be hashed for an idempotency key.
#[derive(Debug, Clone)]
pub struct HashedJsonBody<T> {
    /// What the body says.
    pub value: T,
    /// The SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = body_bytes(request, state).await?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for HashedJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        use sha2::Digest as _;
        let bytes = body_bytes(request, state).await?;
        Ok(Self { value: parse(&bytes)?, sha256: sha2::Sha256::digest(&bytes).into() })
    }
}

async fn body_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<axum::body::Bytes, Problem> {
    if !is_json(request.headers()) {
        return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    // All of it is here already, see `request_body.rs`.
    axum::body::Bytes::from_request(request, state).await.map_err(|error| Problem::internal(&error))
}

/// Reads `bytes` as one JSON object of the shape `T`.
///
/// # Errors
/// `malformedJson` with line and column where it is not JSON, `invalidBody` with the path
/// where it is JSON of another shape.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde would read an array as a structure's fields in their order, which no client means.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|error| refusal(&error, "."))?;
        return Err(invalid("", "an object is due here, not an array"));
    }
    let mut document = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        let path = error.path().to_string();
        refusal(error.inner(), &path)
    })?;
    document.end().map_err(|error| refusal(&error, "."))?;
    Ok(value)
}

/// What is wrong with the form of a customer, if anything. All of a customer's members may be missing, so that serde would
/// take an empty array for one, and for an address.
pub(in crate::http) fn customer_is_by_name(customer: &Value) -> Result<(), &'static str> {
    let addresses = ["billing", "shipping"].into_iter().filter_map(|name| customer.get(name));
    if std::iter::once(customer).chain(addresses).any(Value::is_array) {
        return Err("a customer and an address are objects, not arrays");
    }
    Ok(())
}

fn refusal(error: &serde_json::Error, path: &str) -> Problem {
    match error.classify() {
        Category::Data => {
            // The whole document is "." to serde_path_to_error.
            let path = if path == "." { "" } else { path };
            invalid(path, &without_position(error))
        }
        Category::Syntax | Category::Eof | Category::Io => {
            let (line, column) = (error.line(), error.column());
            Problem::new(StatusCode::BAD_REQUEST, "malformedJson", "Malformed JSON")
                .detail(format!("the body is not JSON at line {line}, column {column}: {}", without_position(error)))
                .with("line", line)
                .with("column", column)
                .mendable_by("permanent")
        }
    }
}

pub(in crate::http) fn invalid(path: &str, reason: &str) -> Problem {
    let place = if path.is_empty() { "the body".to_owned() } else { format!("`{path}`") };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalidBody", "Invalid body")
        .detail(format!("{place} is not as expected: {reason}"))
        .with("path", path)
        .mendable_by("permanent")
}

/// serde_json ends its messages with the position, which we give in members of their own.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use axum::response::IntoResponse as _;
    use http_body_util::BodyExt as _;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        #[allow(dead_code)]
        items: Vec<Item>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        #[allow(dead_code)]
        quantity: u32,
    }

    async fn refused(text: &str) -> serde_json::Value {
        let problem = parse::<Order>(text.as_bytes()).unwrap_err();
        let bytes = problem.into_response().into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn broken_json_is_refused_with_line_and_column() {
        let document = refused("{\n  \"items\": [}").await;
        assert_eq!(document["status"], 400);
        assert_eq!(document["code"], "malformedJson");
        assert_eq!((&document["line"], &document["column"]), (&2.into(), &13.into()));
        assert_eq!(refused("").await["code"], "malformedJson");
        assert_eq!(refused("{\"items\":[]} x").await["code"], "malformedJson");
    }

    #[tokio::test]
    async fn a_wrong_field_is_refused_with_its_path() {
        let document = refused(r#"{"items":[{"quantity":1},{"quantity":"two"}]}"#).await;
        assert_eq!(document["status"], 422);
        assert_eq!(document["path"], "items[1].quantity");
    }

    #[tokio::test]
    async fn an_array_is_not_read_as_an_object() {
        for array in ["[]", " [[{\"quantity\":1}]]"] {
            let document = refused(array).await;
            assert_eq!(document["status"], 422);
            assert_eq!(document["detail"], "the body is not as expected: an object is due here, not an array");
        }
        assert_eq!(refused("[1").await["code"], "malformedJson");
    }

    #[tokio::test]
    async fn an_unknown_field_is_refused_by_name() {
        let document = refused(r#"{"items":[],"amount":1}"#).await;
        assert_eq!(document["status"], 422);
        assert!(document["detail"].as_str().unwrap().contains("`amount`"), "{document}");
    }

    #[test]
    fn only_json_media_types_are_read() {
        let judged = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(text).unwrap());
            is_json(&headers)
        };
        assert!(judged("application/json"));
        assert!(judged("Application/JSON; charset=utf-8"));
        assert!(judged("application/merge-patch+json"));
        for other in ["text/plain", "text/json", "application/x-www-form-urlencoded", "json"] {
            assert!(!judged(other), "{other}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
