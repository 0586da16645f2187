//! Every route, with everybody who may not use it. The routes come from the server's own description, so none is forgotten.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use throughline_test_services::fleet::{Fleet, Node};

use super::fleets::*;

/// Whose pages may use cookies.
const PAGE: &str = "https://shop.example";

const SCOPES: [&str; 6] = ["sessions:read", "sessions:write", "payments", "privacy", "webhooks", "operator"];

/// One operation of the description.
struct Operation {
    method: Method,
    path: String,
    /// The scope that it asks of a service key; nothing where none is good for it.
    scope: Option<String>,
    /// Whether it takes a session's token.
    takes_token: bool,
    /// Whether it answers whoever asks.
    is_public: bool,
}

/// A body that a request with this operation can have, about the session `id`.
fn body(operation: &Operation, id: &str) -> Option<Value> {
    let body = match (operation.method.as_str(), operation.path.as_str()) {
        ("POST", "/v1/sessions") => json!({}),
        (
            "POST",
            "/v1/sessions/batch/get" | "/v1/sessions/batch/delete" | "/v1/cache/invalidate" | "/v1/cache/warm",
        ) => {
            json!({ "ids": [id] })
        }
        ("PATCH", "/v1/sessions/{id}") => json!({ "email": "mallory@example.com" }),
        ("POST", "/v1/sessions/{id}/commands") => {
            json!({ "commands": [{ "type": "setEmail", "email": "mallory@example.com" }] })
        }
        (
            "POST",
            "/v1/sessions/{id}/extend"
            | "/v1/sessions/{id}/handoff"
            | "/v1/sessions/{id}/token"
            | "/v1/sessions/{id}/cookie",
        ) => json!({}),
        ("POST", "/v1/handoff") => json!({ "code": "none" }),
        ("POST", "/v1/tokens/revoke" | "/v1/tokens/introspect") => json!({ "token": "none" }),
        ("PUT", "/v1/routes/{route}") => json!({ "mode": "only" }),
        ("POST", "/v1/parity") => json!({ "routes": [{ "route": "checkout", "equal": 1 }] }),
        ("POST", "/v1/legacy-cookie") => json!({ "cookie": "none" }),
        ("POST", "/v1/sessions/batch/import") => {
            json!({ "sessions": [{ "id": id, "legacy": { "database": { "email": "mallory@example.com" } } }] })
        }
        ("POST", "/v1/sync") => json!({ "frames": [] }),
        ("POST", "/v1/privacy/export" | "/v1/privacy/erase") => json!({ "sessionId": id }),
        ("POST", "/v1/service-keys") => json!({ "name": "made by mallory", "scopes": ["operator"] }),
        ("POST", "/v1/webhooks") => json!({ "url": "http://127.0.0.1:9/" }),
        ("PATCH", "/v1/webhooks/{id}") => json!({ "enabled": false }),
        ("POST", "/v1/webhooks/{id}/replay") => json!({ "givenUp": true }),
        ("POST", "/v1/webhooks/{id}/test" | "/v1/webhooks/{id}/rotate-secret") => json!({}),
        ("POST", path) if path.ends_with("/validate") => json!({}),
        ("GET" | "DELETE", _) => return None,
        (method, path) => panic!("{method} {path} is new: give it a body here"),
    };
    Some(body)
}

async fn operations(node: &Node) -> Vec<Operation> {
    let description: Value =
        reqwest::get(format!("http://{}/openapi.json", node.address)).await.unwrap().json().await.unwrap();
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            if ![Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE].contains(&method) {
                continue;
            }
            let ways = operation["security"].as_array().cloned().unwrap_or_default();
            let scope = ways.iter().find_map(|way| way.get("serviceKey"));
            let scope = scope.and_then(|scopes| scopes[0].as_str()).map(str::to_owned);
            let takes_token = ways.iter().any(|way| way.get("sessionToken").is_some());
            let is_public = ways.is_empty() || ways.iter().any(|way| way.as_object().is_some_and(|way| way.is_empty()));
            operations.push(Operation { method, path: path.clone(), scope, takes_token, is_public });
        }
    }
    operations
}

fn made_key(fleet: &Fleet, tenant: &str, scopes: &[&str]) -> String {
    let mut arguments = vec!["create", "--json", "--name", "test", "--tenant", tenant];
    scopes.iter().for_each(|scope| arguments.extend(["--scope", scope]));
    let made: Value = serde_json::from_str(&service_keys(fleet, &arguments).unwrap()).unwrap();
    made["key"].as_str().unwrap().to_owned()
}

async fn ask(node: &Node, operation: &Operation, id: &str, credential: Option<&str>) -> (StatusCode, Value) {
    let path = operation.path.replace("{id}", id);
    let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
    let mut request = client.request(operation.method.clone(), format!("http://{}{path}", node.address));
    if let Some(credential) = credential {
        request = request.bearer_auth(credential);
    }
    if path.ends_with("/cookie") {
        request = request.header("origin", PAGE).header("throughline-credentials", "cookie");
    }
    if let Some(body) = body(operation, id) {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap_or(Value::Null))
}

async fn new_session(fleet: &Fleet, node: &Node) -> (String, String) {
    let created = post(fleet, node, "/v1/sessions", &json!({ "email": "ada@example.com" })).send().await.unwrap();
    let created = created.json::<Value>().await.unwrap();
    (created["session"]["id"].as_str().unwrap().to_owned(), created["token"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn asvs_8_2_2_no_route_lets_a_wrong_principal_reach_a_session() {
    let fleet = fleet();
    let node = fleet.node("a", &["--allowed-origins", PAGE]).unwrap();
    let (victim, token) = new_session(&fleet, &node).await;
    let (_, other_token) = new_session(&fleet, &node).await;
    let operations = operations(&node).await;
    assert!(operations.len() >= 20, "the description names {} operations", operations.len());
    let other_tenant = made_key(&fleet, "shop-b", &SCOPES);
    let without: Vec<(&str, String)> = SCOPES
        .iter()
        .map(|scope| {
            let rest: Vec<&str> = SCOPES.into_iter().filter(|other| other != scope).collect();
            (*scope, made_key(&fleet, "default", &rest))
        })
        .collect();
    until("the keys are known", LONG, async || {
        let reads = Operation {
            method: Method::GET,
            path: "/v1/sessions".to_owned(),
            scope: None,
            takes_token: false,
            is_public: false,
        };
        ask(&node, &reads, &victim, without.last().map(|(_, key)| key.as_str())).await.0 == StatusCode::OK
    })
    .await;
    let about_session = |operation: &Operation| operation.path.starts_with("/v1/sessions/{id}");
    let mut met = BTreeSet::new();
    for operation in &operations {
        let name = format!("{} {}", operation.method, operation.path);
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        if !operation.is_public {
            for (who, credential) in [
                ("nobody", None),
                ("a made-up token", Some("v4.local.bm90IGEgdG9rZW4")),
                ("a made-up key", Some("tls_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
                ("the session's id", Some(victim.as_str())),
            ] {
                let (status, problem) = ask(&node, operation, &victim, credential).await;
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{name} by {who}: {problem}");
                met.insert(who);
            }
        }
        // The token of one session, at the routes of another one, and at those for service keys.
        // What takes neither token nor key takes a cookie, see `cookies.rs`.
        if about_session(operation) && operation.takes_token || !(operation.takes_token || operation.is_public) {
            let (status, problem) = ask(&node, operation, &victim, Some(&other_token)).await;
            assert!(refused.contains(&status), "{name} by another buyer: {status} {problem}");
            met.insert("another buyer");
        }
        if !operation.takes_token && !operation.is_public {
            let (status, problem) = ask(&node, operation, &victim, Some(&token)).await;
            assert!(refused.contains(&status), "{name} by the session's own browser: {status} {problem}");
        }
        if about_session(operation) && operation.scope.is_some() {
            let (status, problem) = ask(&node, operation, &victim, Some(&other_tenant)).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{name} by another shop: {problem}");
            met.insert("another shop");
        } else if let Some(Value::Object(body)) = body(operation, &victim)
            && (body.contains_key("ids") || body.contains_key("sessionId"))
        {
            let (status, answer) = ask(&node, operation, &victim, Some(&other_tenant)).await;
            let is_empty = answer["sessions"] == json!([]) || answer["results"][0]["outcome"] == "notFound";
            assert!(status == StatusCode::OK && is_empty, "{name} by another shop: {status} {answer}");
        }
        if let Some(scope) = &operation.scope {
            let (_, key) = without.iter().find(|(without, _)| without == scope).expect("a scope that is known");
            let (status, problem) = ask(&node, operation, &victim, Some(key)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{name} without {scope}: {problem}");
            assert_eq!((&problem["code"], &problem["scope"]), (&json!("scopeMissing"), &json!(scope)), "{name}");
            met.insert("a key without the scope");
        }
    }
    assert_eq!(met.len(), 7, "everybody was tried: {met:?}");
    // Nobody has changed anything.
    let read = Operation {
        method: Method::GET,
        path: "/v1/sessions/{id}".to_owned(),
        scope: None,
        takes_token: true,
        is_public: false,
    };
    let (status, session) = ask(&node, &read, &victim, Some(&token)).await;
    // What its own browser may not do is noted down as refused, and counts as a version.
    let unchanged = (StatusCode::OK, &json!("ada@example.com"), &json!("pending"), &session["createdAt"]);
    assert_eq!((status, &session["email"], &session["status"], &session["updatedAt"]), unchanged, "{session}");
}

#[tokio::test]
async fn asvs_4_4_4_neither_a_frame_nor_an_idempotency_key_nor_a_handoff_code_leads_to_another_buyers_session() {
    let fleet = fleet();
    let node = fleet.node("a", &[]).unwrap();
    let (victim, token) = new_session(&fleet, &node).await;
    let (other, other_token) = new_session(&fleet, &node).await;
    let hello = |session: &str, proof: Value| {
        let mut hello =
            json!({ "type": "hello", "protocol": 1, "sessionId": session, "clientId": "mallory", "knownVersion": 0 });
        hello.as_object_mut().unwrap().extend(proof.as_object().unwrap().clone());
        json!({ "frames": [hello] })
    };
    for proof in [
        json!({ "token": other_token }),
        json!({ "claim": "a secret of thirty-two bytes or more" }),
        json!({ "token": victim }),
        json!({}),
    ] {
        let answer = post(&fleet, &node, "/v1/sync", &hello(&victim, proof.clone())).send().await.unwrap();
        let answer = answer.json::<Value>().await.unwrap();
        assert_eq!(answer["frames"][0]["type"], "error", "{proof}: {answer}");
        assert!(!answer.to_string().contains("ada@example.com"), "{answer}");
    }
    // A socket or poll of one session takes no commands for another one: they are its own session's.
    let own = post(&fleet, &node, "/v1/sync", &hello(&other, json!({ "token": other_token }))).send().await.unwrap();
    assert_eq!(own.json::<Value>().await.unwrap()["frames"][0]["type"], "welcome");

    // The same idempotency key, by another shop and by another key of the same one.
    let same = |key: &str| {
        let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
        let request = client.post(format!("http://{}/v1/sessions", node.address)).bearer_auth(key.to_owned());
        request.header("idempotency-key", "order-1").json(&json!({ "email": "ada@example.com" }))
    };
    let first = same(&fleet.service_key).send().await.unwrap().json::<Value>().await.unwrap();
    for key in [made_key(&fleet, "shop-b", &["sessions:write"]), made_key(&fleet, "default", &["sessions:write"])] {
        until("another session is made", LONG, async || {
            let answer = same(&key).send().await.unwrap();
            answer.status() == StatusCode::CREATED
                && answer.json::<Value>().await.unwrap()["session"]["id"] != first["session"]["id"]
        })
        .await;
    }

    // A code is for the session that it was made for, whoever exchanges it.
    let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
    let code = client.post(format!("http://{}/v1/sessions/{other}/handoff", node.address)).bearer_auth(&other_token);
    let code = code.json(&json!({})).send().await.unwrap().json::<Value>().await.unwrap();
    let exchanged = client.post(format!("http://{}/v1/handoff", node.address)).bearer_auth(&token);
    let exchanged = exchanged.json(&json!({ "code": code["code"] })).send().await.unwrap();
    assert_eq!(exchanged.json::<Value>().await.unwrap()["sessionId"], json!(other));
}
