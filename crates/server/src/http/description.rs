//! What holds for all routes, put into the API's description in one place: the answers that any of them may give, the
//! forms of headers, and what the derived descriptions get wrong.

use serde_json::{Value, json};
use utoipa::openapi::OpenApi;

use super::problem_page;
use crate::idempotency::MAX_KEY_BYTES;
use crate::problem::MEDIA_TYPE;

/// What any request may be answered with.
const ALWAYS: [(&str, &str); 8] = [
    ("400", "The request, a header or a parameter can't be read"),
    ("414", "Path and query are too long"),
    ("415", "The body is compressed, which this server does not take"),
    ("429", "This address, session, service key or tenant has asked too often"),
    ("431", "The request has too many or too large headers"),
    ("500", "Something went wrong in the server; its log has the request's id"),
    ("503", "It can't be served just now"),
    ("405", "The path does not know this method"),
];

/// What any request with a body may be answered with as well.
const WITH_BODY: [(&str, &str); 4] = [
    ("408", "The body was not here in time"),
    ("413", "The body is too large"),
    ("415", "The body is not announced as JSON, or is compressed"),
    ("422", "A field is wrong"),
];

/// What any request that needs a credential may be answered with as well.
const WITH_CREDENTIAL: [(&str, &str); 1] = [("401", "No credential, or one that proves nothing")];

/// The description, with all of it.
pub(super) fn completed(description: OpenApi) -> Value {
    let mut description = serde_json::to_value(description).unwrap_or_else(|error| {
        tracing::error!(%error, "the API's description can't be written");
        Value::Null
    });
    if let Some(paths) = description.get_mut("paths").and_then(Value::as_object_mut) {
        for (path, operations) in paths {
            for (method, operation) in operations.as_object_mut().into_iter().flatten() {
                operation["operationId"] = operation_id(method, path).into();
                complete(operation);
            }
        }
    }
    if let Some(components) = description.get_mut("components") {
        in_camel_case(components);
    }
    if let Some(code) = description.pointer_mut("/components/schemas/ProblemDetails/properties/code") {
        code["enum"] = problem_page::codes().collect();
    }
    with_whole_range(&mut description);
    description
}

/// `post /v1/sessions/{id}/commands` as `postSessionsIdCommands`: no two routes have the same, as functions of two modules may.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.trim_start_matches("/v1").split(|letter: char| !letter.is_ascii_alphanumeric());
    camel(&[method].into_iter().chain(words.filter(|word| !word.is_empty())).collect::<Vec<_>>().join("_"))
}

fn complete(operation: &mut Value) {
    let has_body = operation.get("requestBody").is_some();
    let needs_credential = operation.get("security").and_then(Value::as_array).is_some_and(|ways| {
        // An empty way is that of somebody without any.
        ways.iter().all(|way| way.as_object().is_some_and(|way| !way.is_empty()))
    });
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        let mut add = |problems: &[(&str, &str)]| {
            for (status, meaning) in problems {
                responses.entry(*status).or_insert_with(|| problem(meaning));
            }
        };
        if has_body {
            add(&WITH_BODY);
        }
        if needs_credential {
            add(&WITH_CREDENTIAL);
        }
        add(&ALWAYS);
        for (status, response) in responses {
            finish(status, response);
        }
    }
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        let schema = match parameter["name"].as_str() {
            // Spaces around it do not count.
            Some("Idempotency-Key") => {
                json!({ "type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES, "pattern": "^[!-~]([ -~]*[!-~])?$" })
            }
            Some("If-Match") => json!({ "type": "string", "pattern": "^(\\*|\"[0-9]{1,15}\")$" }),
            _ => continue,
        };
        parameter["schema"] = schema;
    }
}

fn problem(meaning: &str) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/ProblemDetails" });
    json!({ "description": meaning, "content": { MEDIA_TYPE: { "schema": schema } } })
}

/// Problems have a media type of their own, and those that pass say when.
fn finish(status: &str, response: &mut Value) {
    let Some(response) = response.as_object_mut() else { return };
    if let Some(content) = response.get_mut("content").and_then(Value::as_object_mut)
        && content.get("application/json").is_some_and(|json| {
            json["schema"]["$ref"].as_str().is_some_and(|schema| schema.ends_with("/ProblemDetails"))
        })
        && let Some(described) = content.remove("application/json")
    {
        content.insert(MEDIA_TYPE.to_owned(), described);
    }
    if matches!(status, "429" | "503") {
        let seconds = json!({ "type": "integer", "minimum": 1 });
        let header = json!({ "description": "After how many seconds to try again", "schema": seconds });
        response.insert("headers".to_owned(), json!({ "Retry-After": header }));
    }
}

/// Members are in camel case everywhere; what derives the schemas does not know serde's `rename_all_fields`.
fn in_camel_case(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get_mut("properties") {
                *properties = std::mem::take(properties).into_iter().map(|(name, of)| (camel(&name), of)).collect();
            }
            if let Some(Value::Array(required)) = members.get_mut("required") {
                for name in required {
                    *name = name.as_str().map(camel).into();
                }
            }
            members.values_mut().for_each(in_camel_case);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(in_camel_case),
        _ => {}
    }
}

/// Numbers that are not negative go as far as they do here. What derives the schemas calls them by the names of numbers
/// that may be, which end halfway.
fn with_whole_range(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let is_unsigned = members.get("minimum").and_then(Value::as_u64) == Some(0);
            let largest = match members.get("format").and_then(Value::as_str) {
                Some("int32") if is_unsigned => Some(u64::from(u32::MAX)),
                Some("int64") if is_unsigned => Some(u64::MAX),
                _ => None,
            };
            if let Some(largest) = largest {
                members.remove("format");
                members.entry("maximum").or_insert(largest.into());
            }
            members.values_mut().for_each(with_whole_range);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(with_whole_range),
        _ => {}
    }
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::reference::described;

    fn operations(description: &Value) -> Vec<(String, &Value)> {
        let paths = description["paths"].as_object().unwrap();
        paths
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().iter().map(move |(method, of)| (format!("{method} {path}"), of))
            })
            .collect()
    }

    #[test]
    fn every_route_describes_what_any_may_be_answered_with() {
        let (_, description) = described();
        let operations = operations(&description);
        assert!(operations.len() >= 21, "{}", operations.len());
        for (name, operation) in operations {
            let responses = operation["responses"].as_object().unwrap();
            for (status, _) in ALWAYS {
                assert!(responses.contains_key(status), "{name}: {status}");
            }
            assert_eq!(operation.get("requestBody").is_some(), responses.contains_key("413"), "{name}");
            for (status, response) in responses {
                let is_problem = status.as_str() >= "400";
                assert_eq!(response["content"].get(MEDIA_TYPE).is_some(), is_problem, "{name}: {status}");
                let passes = response["headers"].get("Retry-After").is_some();
                assert_eq!(passes, matches!(status.as_str(), "429" | "503"), "{name}: {status}");
            }
        }
    }

    #[test]
    fn every_route_has_an_id_of_its_own() {
        let (_, description) = described();
        let operations = operations(&description);
        let ids: BTreeSet<_> =
            operations.iter().map(|(_, operation)| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), operations.len(), "{ids:?}");
        assert!(ids.contains("postSessionsIdCommands") && ids.contains("deleteServiceKeysId"), "{ids:?}");
    }

    #[test]
    fn every_code_of_a_problem_is_listed() {
        let (_, description) = described();
        let code = &description["components"]["schemas"]["ProblemDetails"]["properties"]["code"];
        let codes = code["enum"].as_array().unwrap();
        assert!(
            codes.contains(&json!("idempotencyKeyInProgress")) && codes.contains(&json!("sessionNotFound")),
            "{code}"
        );
    }

    #[test]
    fn members_are_described_as_they_are_sent() {
        let (_, description) = described();
        let event = &description["components"]["schemas"]["Event"].to_string();
        assert!(event.contains("\"expiresAt\"") && !event.contains("expires_at"), "{event}");
        let ttl = &description["components"]["schemas"]["Extension"]["properties"]["ttlMs"];
        assert_eq!((&ttl["minimum"], &ttl["maximum"]), (&json!(0), &json!(u32::MAX)), "{ttl}");
        assert_eq!([camel("a"), camel("expires_at"), camel("a_b_c")], ["a", "expiresAt", "aBC"]);
    }
}
