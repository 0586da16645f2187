//! A shop that moves here from the legacy systems while buyers are in it: its sessions over REST, its cookies, and its tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Client;
use serde_json::{Value, json};
use sha2::Sha256;
use throughline_test_services::fleet::{Fleet, Node};

use super::binary::throughline;
use super::fleets::{LONG, fleet, service_keys, until};

const SECRET: &str = "legacy-session-secret-for-tests-only-0123456789";
const PUBLIC_SECRET: &str = "your-secret-key-change-in-production";
const CLAIM: &str = "a-claim-secret-of-a-browser-0123456789";

/// Asks, and answers with the status and the document.
async fn ask(node: &Node, path: &str, credential: Option<&str>, body: &Value) -> (u16, Value) {
    let request =
        Client::builder().timeout(LONG).build().unwrap().post(format!("http://{}{path}", node.address)).json(body);
    let request = credential.into_iter().fold(request, |request, credential| request.bearer_auth(credential));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

async fn get(node: &Node, id: &str, credential: &str) -> (u16, Value) {
    let request = Client::new().get(format!("http://{}/v1/sessions/{id}", node.address)).bearer_auth(credential);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn row(id: &str, changes: &Value) -> Value {
    let mut row = json!({
        "id": id, "email": "ada@example.com", "status": "pending", "current_step": "checkout",
        "products": [{"id": "fitspresso-1-pack", "name": "One", "price": 79, "quantity": 1}], "amount": 79,
        "created_at": "2099-01-01T00:00:00Z", "updated_at": "2099-01-01T00:00:00Z",
    });
    row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json!({ "id": id, "legacy": { "database": row } })
}

async fn import(fleet: &Fleet, node: &Node, sessions: Value) -> Vec<Value> {
    let body = json!({ "sessions": sessions });
    let (status, answer) = ask(node, "/v1/sessions/batch/import", Some(&fleet.service_key), &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["results"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_back_end_brings_sessions_in_one_by_one_as_its_buyers_come() {
    let fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let wrong = json!({ "id": "ws_1_wrong", "legacy": { "database": { "id": "ws_1_another" } } });
    let stuck = row("ws_1_stuck", &json!({ "status": "processing", "transaction_id": "t1" }));
    let results = import(&fleet, &nodes[0], json!([row("ws_1_a", &json!({})), wrong, stuck])).await;
    assert_eq!(results[0]["outcome"], "created");
    assert_eq!((&results[1]["outcome"], &results[1]["problem"]["code"]), (&json!("failed"), &json!("invalidField")));
    assert_eq!(results[2]["decisions"][0]["code"], "paymentUnsettled");
    assert_eq!(results[2]["decisions"][0]["needsAPerson"], true);
    assert_eq!(import(&fleet, &nodes[1], json!([row("ws_1_a", &json!({}))])).await[0]["outcome"], "unchanged");

    // The old shop was paid.
    let paid = json!({ "status": "completed", "current_step": "upsell-1", "transaction_id": "t2", "updated_at": "2099-01-01T00:00:00Z" });
    assert_eq!(import(&fleet, &nodes[1], json!([row("ws_1_a", &paid)])).await[0]["outcome"], "updated");
    let (_, session) = get(&nodes[0], "ws_1_a", &fleet.service_key).await;
    assert_eq!((&session["transactionId"], &session["currentStep"]), (&json!("t2"), &json!("upsell-1")));
    assert_eq!((&session["source"], &session["upsells"][0]["state"]), (&json!("migration"), &json!("offered")));

    let body = json!({ "sessions": [row("ws_1_b", &json!({}))] });
    let key: Value = serde_json::from_str(
        &service_keys(&fleet, &["create", "--json", "--name", "reader", "--scope", "sessions:write"]).unwrap(),
    )
    .unwrap();
    // Who brings in what was paid has to be trusted with payments.
    until("the key is known, and refused", LONG, async || {
        let (status, answer) = ask(&nodes[0], "/v1/sessions/batch/import", key["key"].as_str(), &body).await;
        (status, &answer["scope"]) == (403, &json!("payments"))
    })
    .await;
    for sessions in [json!([]), Value::Array((0..101).map(|n| row(&format!("ws_1_{n}"), &json!({}))).collect())] {
        let body = json!({ "sessions": sessions });
        let (status, answer) = ask(&nodes[0], "/v1/sessions/batch/import", Some(&fleet.service_key), &body).await;
        assert_eq!((status, &answer["path"]), (422, &json!("sessions")), "{answer}");
    }
}

/// A cookie as the old shop made it.
fn cookie(id: &str, secret: &str, changes: &Value) -> String {
    let now_ms = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let mut claims = json!({
        "id": id, "vaultId": "v1", "customerId": "CUST-1", "email": "ada@example.com", "firstName": "Ada", "lastName": "Lovelace",
        "transactionId": "t1", "state": "CA", "createdAt": now_ms, "expiresAt": now_ms + 1_800_000, "iat": now_ms / 1000,
        "exp": now_ms / 1000 + 1800,
    });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// Two servers that know the old shop's secret.
fn servers(fleet: &Fleet, folder: &tempfile::TempDir) -> [Node; 2] {
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let file = file.display().to_string();
    ["a", "b"].map(|name| fleet.node(name, &["--legacy-cookie-secret-file", &file]).unwrap())
}

async fn exchange(node: &Node, body: Value) -> (u16, Value) {
    ask(node, "/v1/legacy-cookie", None, &body).await
}

#[tokio::test]
async fn a_cookie_of_the_old_shop_is_good_once_for_a_token_and_what_it_says_comes_in() {
    let (fleet, folder) = (fleet(), tempfile::tempdir().unwrap());
    let nodes = servers(&fleet, &folder);
    let stuck = json!({ "status": "processing", "current_step": "processing", "updated_at": "2026-11-20T09:00:00Z" });
    let stuck = row("ws_1_a", &stuck);
    import(&fleet, &nodes[0], json!([stuck])).await;

    let jwt = cookie("ws_1_a", SECRET, &json!({}));
    let (status, answer) = exchange(&nodes[0], json!({ "cookie": jwt, "claim": CLAIM })).await;
    assert_eq!((status, &answer["sessionId"]), (200, &json!("ws_1_a")), "{answer}");
    let token = answer["token"].as_str().unwrap();
    let (status, session) = get(&nodes[1], "ws_1_a", token).await;
    assert_eq!((status, &session["customer"]["firstName"]), (200, &json!("Ada")), "{session}");
    assert_eq!(session["payment"]["paidAt"], Value::Null, "the cookie says a transaction and no amount");
    assert_eq!(session["claims"]["transactionId"], Value::Null, "a browser sees no reference of the gateway");
    let (_, seen) = get(&nodes[1], "ws_1_a", &fleet.service_key).await;
    assert_eq!((&seen["claims"]["transactionId"], &seen["claims"]["vaultId"]), (&json!("t1"), &json!("v1")));

    // On whichever server, and after both have forgotten everything.
    for node in &nodes {
        let (status, answer) = exchange(node, json!({ "cookie": jwt })).await;
        assert_eq!((status, &answer["code"]), (410, &json!("legacyCookieUsed")), "{answer}");
        let other = json!({ "cookie": jwt, "claim": "another-browser-with-the-same-cookie-0123" });
        assert_eq!(exchange(node, other).await.0, 410);
    }
    let (status, again) = exchange(&nodes[1], json!({ "cookie": jwt, "claim": CLAIM })).await;
    assert_eq!(status, 200, "whose answer was lost: {again}");
    assert_eq!(get(&nodes[0], "ws_1_a", again["token"].as_str().unwrap()).await.0, 200);

    // What the row says later settles it.
    let paid = json!({ "status": "completed", "current_step": "upsell-1", "transaction_id": "t1", "updated_at": "2026-11-20T09:01:00Z" });
    import(&fleet, &nodes[0], json!([row("ws_1_a", &paid)])).await;
    let (_, seen) = get(&nodes[1], "ws_1_a", &fleet.service_key).await;
    assert_eq!((&seen["transactionId"], &seen["claims"]), (&json!("t1"), &Value::Null), "{seen}");
    let (status, renewed) = exchange(&nodes[1], json!({ "cookie": jwt, "claim": CLAIM })).await;
    assert_eq!(status, 200, "who had come in by the cookie stays in: {renewed}");
    assert_eq!(get(&nodes[1], "ws_1_a", renewed["token"].as_str().unwrap()).await.0, 200);

    // A session that only the cookie knows of.
    let (status, answer) = exchange(&nodes[1], json!({ "cookie": cookie("ws_1_new", SECRET, &json!({})) })).await;
    assert_eq!(status, 200, "{answer}");
    let (_, session) = get(&nodes[0], "ws_1_new", answer["token"].as_str().unwrap()).await;
    assert_eq!((&session["email"], &session["source"]), (&json!("ada@example.com"), &json!("migration")));

    let exported = || {
        let (url, keys) = (fleet.postgres.url("shop"), fleet.keys_file().display().to_string());
        fleet.run(&["audit", "export", "--database-url", &url, "--keys-file", &keys]).unwrap()
    };
    until("the audit log tells of it", LONG, async || {
        let log = exported();
        log.matches("legacyCookieExchanged").count() == 4 && log.contains("legacyCookieUsed")
    })
    .await;
    assert!(!exported().contains("ada@example.com"));
}

#[tokio::test]
async fn the_cookie_is_taken_from_the_request_and_goes_into_one_of_ours() {
    let (fleet, folder) = (fleet(), tempfile::tempdir().unwrap());
    let file = folder.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    let file = file.display().to_string();
    let node =
        fleet.node("a", &["--legacy-cookie-secret-file", &file, "--allowed-origins", "https://shop.example"]).unwrap();
    let jwt = cookie("ws_1_a", SECRET, &json!({}));
    let without_header = Client::new()
        .post(format!("http://{}/v1/legacy-cookie", node.address))
        .header("cookie", format!("upsell_session={jwt}"))
        .json(&json!({}));
    assert_eq!(without_header.send().await.unwrap().status(), 401, "it may be some other page's doing");
    let request = Client::new()
        .post(format!("http://{}/v1/legacy-cookie", node.address))
        .header("cookie", format!("other=1; upsell_session={jwt}; more=2"))
        .header("throughline-credentials", "cookie")
        .header("origin", "https://shop.example")
        .json(&json!({}));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.starts_with("__Host-throughline-") && set.contains("HttpOnly") && set.contains("Secure"), "{set}");
    assert!(answer.json::<Value>().await.unwrap()["token"].is_null());
    let (status, answer) = exchange(&node, json!({})).await;
    assert_eq!((status, &answer["code"]), (401, &json!("legacyCookieMissing")));
}

#[tokio::test]
async fn cookies_that_anybody_can_make_are_refused_by_name() {
    let (fleet, folder) = (fleet(), tempfile::tempdir().unwrap());
    let [node, _] = servers(&fleet, &folder);
    for (jwt, code) in [
        (cookie("ws_1_a", PUBLIC_SECRET, &json!({})), "legacySecretPublic"),
        (cookie("ws_1_a", "another-secret-of-somebody-else", &json!({})), "legacyCookieForged"),
        (cookie("ws_1_a", SECRET, &json!({ "exp": 1_795_167_936 })), "legacyCookieExpired"),
        (cookie("ws_1_a", SECRET, &json!({ "expiresAt": 1 })), "legacyCookieExpired"),
        (cookie("no session", SECRET, &json!({})), "legacyCookieMalformed"),
        ("a.b.c".to_owned(), "legacyCookieMalformed"),
    ] {
        let (status, answer) = exchange(&node, json!({ "cookie": jwt })).await;
        assert_eq!((status, &answer["code"]), (401, &json!(code)), "{answer}");
        if code == "legacySecretPublic" {
            assert!(answer["detail"].as_str().unwrap().contains(PUBLIC_SECRET), "{answer}");
        }
    }
    assert_eq!(get(&node, "ws_1_a", &fleet.service_key).await.0, 404, "nothing came in");
    let plain = fleet.node("without", &[]).unwrap();
    let (status, answer) = exchange(&plain, json!({ "cookie": cookie("ws_1_a", SECRET, &json!({})) })).await;
    assert_eq!((status, &answer["code"]), (403, &json!("legacyCookiesOff")));

    let file = folder.path().join("public");
    std::fs::write(&file, PUBLIC_SECRET).unwrap();
    let refused = throughline(&["serve", "--dev", "--listen", "127.0.0.1:0", "--database-url"])
        .arg(format!("sqlite:{}", folder.path().join("t.db").display()))
        .arg("--legacy-cookie-secret-file")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(PUBLIC_SECRET), "the server does not start: {said}");
}

#[tokio::test]
async fn an_erased_session_does_not_come_back_by_a_row_or_a_cookie() {
    let (fleet, folder) = (fleet(), tempfile::tempdir().unwrap());
    let [node, _] = servers(&fleet, &folder);
    import(&fleet, &node, json!([row("ws_1_a", &json!({}))])).await;
    let erase = json!({ "sessionId": "ws_1_a" });
    assert_eq!(ask(&node, "/v1/privacy/erase", Some(&fleet.service_key), &erase).await.0, 200);
    let again = import(&fleet, &node, json!([row("ws_1_a", &json!({ "updated_at": "2099-01-01T00:00:00Z" }))])).await;
    assert_eq!(again[0]["problem"]["code"], "sessionErased");
    let (status, answer) = exchange(&node, json!({ "cookie": cookie("ws_1_a", SECRET, &json!({})) })).await;
    assert_eq!((status, &answer["code"]), (410, &json!("sessionErased")));
    assert_eq!(get(&node, "ws_1_a", &fleet.service_key).await.1["email"], Value::Null);
}

#[tokio::test]
async fn a_back_end_asks_whether_a_browsers_token_is_good() {
    let fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let (_, created) = ask(&nodes[0], "/v1/sessions", None, &json!({})).await;
    let (id, token) = (created["session"]["id"].as_str().unwrap(), created["token"].as_str().unwrap());
    let introspect = async |node: &Node, key: &str, token: &str| {
        ask(node, "/v1/tokens/introspect", Some(key), &json!({ "token": token })).await
    };
    for node in &nodes {
        let (status, answer) = introspect(node, &fleet.service_key, token).await;
        assert_eq!((status, &answer["active"], &answer["sessionId"]), (200, &json!(true), &json!(id)), "{answer}");
        assert_eq!(answer["expiresAt"], created["tokenExpiresAt"]);
    }
    let nothing = json!({ "active": false });
    assert_eq!(introspect(&nodes[0], &fleet.service_key, "none").await, (200, nothing.clone()));
    let other: Value = serde_json::from_str(
        &service_keys(
            &fleet,
            &["create", "--json", "--name", "other", "--scope", "sessions:read", "--tenant", "shop-b"],
        )
        .unwrap(),
    )
    .unwrap();
    let key = other["key"].as_str().unwrap();
    until("the key is known", LONG, async || introspect(&nodes[0], key, "none").await.0 == 200).await;
    assert_eq!(introspect(&nodes[0], key, token).await.1, nothing, "another tenant's");
    assert_eq!(introspect(&nodes[0], token, token).await.0, 403, "a browser asks about nobody");

    assert_eq!(ask(&nodes[0], "/v1/tokens/revoke", None, &json!({ "token": token })).await.0, 204);
    for node in &nodes {
        until("it is good no more", LONG, async || introspect(node, &fleet.service_key, token).await.1 == nothing)
            .await;
    }
}
