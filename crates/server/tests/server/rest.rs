//! The REST API: what works, and every way in which a request is refused.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::binary::{Dev, dev};

impl Dev {
    fn ask(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        reqwest::Client::new().request(method, format!("http://{}{path}", self.address))
    }

    fn as_service(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.ask(method, path).bearer_auth(&self.service_key)
    }

    /// A browser's session, with its token.
    async fn session(&self) -> (String, String) {
        let body = json!({
            "email": "ada@example.com",
            "customer": { "firstName": "Ada", "lastName": "Lovelace" },
            "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }],
        });
        let created = json_of(self.ask(Method::POST, "/v1/sessions").json(&body).send().await.unwrap()).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&created["session"]["id"]), text(&created["token"]))
    }

    /// A new token, as the shop gives it to its buyer after the payment.
    async fn token(&self, id: &str) -> String {
        let sent = self.as_service(Method::POST, &format!("/v1/sessions/{id}/token")).send().await.unwrap();
        json_of(sent).await["token"].as_str().unwrap().to_owned()
    }

    async fn command(&self, id: &str, credential: &str, command: Value) -> Value {
        let path = format!("/v1/sessions/{id}/commands");
        let body = json!({ "commands": [command] });
        let sent = self.ask(Method::POST, &path).bearer_auth(credential).json(&body).send();
        json_of(sent.await.unwrap()).await["results"][0].clone()
    }
}

async fn json_of(response: Response) -> Value {
    let status = response.status();
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"))
}

/// Asserts a problem with this status and code; answers with the document.
async fn problem(request: reqwest::RequestBuilder, status: u16, code: &str) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let actual = response.status();
    let document = json_of(response).await;
    assert_eq!((actual.as_u16(), document["code"].as_str().unwrap()), (status, code), "{document}");
    assert_eq!(document["status"], status);
    for member in ["type", "title", "detail", "mendableBy", "requestId"] {
        assert!(document[member].is_string(), "{member} is missing in {document}");
    }
    document
}

#[tokio::test]
async fn a_browser_creates_a_session_and_gets_its_token() {
    let dev = dev(&[]);
    let body = json!({ "email": "ada@example.com", "products": [{ "id": "fitspresso-3-pack", "quantity": 2 }] });
    let response = dev.ask(Method::POST, "/v1/sessions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["etag"], "\"3\"");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let created = json_of(response).await;
    assert_eq!(created["session"]["amount"], 35400);
    assert_eq!(created["session"]["status"], "pending");
    let token = created["token"].as_str().unwrap();
    let read = dev.ask(Method::GET, &location).bearer_auth(token).send().await.unwrap();
    assert_eq!(json_of(read).await["id"], created["session"]["id"]);
}

#[tokio::test]
async fn a_service_names_id_prices_and_adjustments_and_sees_what_a_browser_does_not() {
    let dev = dev(&[]);
    let body = json!({
        "id": "ws_manual_1732000000000",
        "email": "ada@example.com",
        "customer": { "firstName": "Ada", "lastName": "Lovelace" },
        "products": [{ "id": "gift-card", "name": "Gift card", "price": 2500, "quantity": 2 }],
        "adjustments": { "discount": 500, "tax": 100 },
    });
    let response = dev.as_service(Method::POST, "/v1/sessions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let created = json_of(response).await;
    assert_eq!(created["session"]["totals"]["total"], 4600);
    let id = "ws_manual_1732000000000";
    problem(dev.as_service(Method::POST, "/v1/sessions").json(&body), 409, "sessionExists").await;

    assert_eq!(dev.command(id, &dev.service_key, json!({ "type": "beginProcessing" })).await["outcome"], "accepted");
    let payment = json!({ "type": "recordPayment", "transactionId": "canary-transaction", "amount": 4600,
        "vaultId": "canary-vault", "paymentToken": "canary-token" });
    assert_eq!(dev.command(id, &dev.service_key, payment).await["outcome"], "accepted");
    let path = format!("/v1/sessions/{id}");
    let seen_by_service = json_of(dev.as_service(Method::GET, &path).send().await.unwrap()).await;
    assert_eq!(seen_by_service["transactionId"], "canary-transaction");
    let token = dev.token(id).await;
    for path in [path.clone(), format!("{path}/events?limit=500")] {
        let text = dev.ask(Method::GET, &path).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(id) || text.contains("paymentRecorded"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn a_whole_funnel_goes_over_rest_alone() {
    let dev = dev(&[]);
    let (id, token) = dev.session().await;
    let key = dev.service_key.clone();
    let done = async |credential: &str, command: Value| {
        let outcome = dev.command(&id, credential, command.clone()).await;
        assert_eq!(outcome["outcome"], "accepted", "{command}: {outcome}");
    };
    done(&token, json!({ "type": "beginProcessing" })).await;
    done(&key, json!({ "type": "recordPayment", "transactionId": "t-1", "amount": 7900 })).await;
    let token = dev.token(&id).await;
    for (credential, command) in [
        (&token, json!({ "type": "acceptUpsell", "offer": "RC6" })),
        (&token, json!({ "type": "acceptUpsell", "offer": "RC6" })),
        (&key, json!({ "type": "recordUpsellCharge", "offer": "RC6", "transactionId": "t-2", "amount": 19900 })),
        (&token, json!({ "type": "goToStep", "step": "upsell-2" })),
        (&token, json!({ "type": "declineUpsell", "offer": "SG6" })),
        (&token, json!({ "type": "goToStep", "step": "success" })),
    ] {
        done(credential, command).await;
    }
    let path = format!("/v1/sessions/{id}");
    let session = json_of(dev.as_service(Method::GET, &path).send().await.unwrap()).await;
    assert_eq!((&session["status"], &session["amount"]), (&json!("completed"), &json!(27800)));
    let states: Vec<&Value> = session["upsells"].as_array().unwrap().iter().map(|upsell| &upsell["state"]).collect();
    assert_eq!(states, ["charged", "lapsed", "declined"]);
}

#[tokio::test]
async fn a_patch_merges_and_honours_the_version_it_is_meant_for() {
    let dev = dev(&[]);
    let (id, token) = dev.session().await;
    let path = format!("/v1/sessions/{id}");
    let patch = |body: Value| dev.ask(Method::PATCH, &path).bearer_auth(&token).json(&body);

    let body = json!({ "customer": { "phone": "1", "billing": { "state": "CA" } }, "metadata": { "a": 1, "b": 2 } });
    let response = patch(body).header("content-type", "application/merge-patch+json").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let session = json_of(response).await;
    assert_eq!(session["totals"]["tax"], 573, "7.25 % of 79.00");
    assert_eq!(session["customer"]["firstName"], "Ada");

    let body = json!({ "customer": { "phone": null }, "metadata": { "a": null }, "couponCode": "save10" });
    let changed = json_of(patch(body.clone()).header("if-match", &etag).send().await.unwrap()).await;
    assert_eq!(
        changed["customer"],
        json!({ "firstName": "Ada", "lastName": "Lovelace", "billing": { "state": "CA" } })
    );
    assert_eq!(changed["metadata"], json!({ "b": 2 }));
    assert_eq!(changed["totals"]["discount"], 790);

    let stale = problem(patch(body).header("if-match", &etag), 412, "staleVersion").await;
    assert_eq!(stale["mendableBy"], "staleVersion");
    problem(patch(json!({})).header("if-match", "7"), 400, "ifMatchMalformed").await;

    let cleared =
        json_of(patch(json!({ "customer": null, "metadata": null, "email": null })).send().await.unwrap()).await;
    assert_eq!((&cleared["customer"], &cleared["metadata"], &cleared["email"]), (&json!({}), &json!({}), &Value::Null));
}

#[tokio::test]
async fn asvs_2_3_3_a_patch_is_applied_as_a_whole_or_not_at_all() {
    let dev = dev(&[]);
    let (id, token) = dev.session().await;
    let path = format!("/v1/sessions/{id}");
    let body = json!({ "email": "new@example.com", "couponCode": "no-such-coupon" });
    let request = dev.ask(Method::PATCH, &path).bearer_auth(&token).json(&body);
    assert_eq!(problem(request, 422, "unknownCoupon").await["mendableBy"], "buyerInput");
    let session = json_of(dev.ask(Method::GET, &path).bearer_auth(&token).send().await.unwrap()).await;
    assert_eq!(session["email"], "ada@example.com");
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_explained() {
    let dev = dev(&[]);
    let post = || dev.ask(Method::POST, "/v1/sessions").header("content-type", "application/json");
    let broken = problem(post().body("{\n \"email\": }"), 400, "malformedJson").await;
    assert_eq!((&broken["line"], &broken["column"]), (&json!(2), &json!(11)));
    let unknown = problem(post().body(r#"{"emial":"a@b.co"}"#), 422, "invalidBody").await;
    assert!(unknown["detail"].as_str().unwrap().contains("emial"), "{unknown}");
    let nested = problem(post().body(r#"{"products":[{"id":"x","quantity":-1}]}"#), 422, "invalidBody").await;
    assert_eq!(nested["path"], "products[0].quantity");
    problem(post().body(r#"{"email":"no address"}"#), 422, "invalidField").await;
    problem(post().body(format!(r#"{{"email":"{}"}}"#, "x".repeat(70_000))), 413, "bodyTooLarge").await;
    problem(dev.ask(Method::POST, "/v1/sessions").body("{}"), 415, "unsupportedMediaType").await;
    problem(post().body(r#"{"funnel":{"id":"nowhere"}}"#), 422, "unknownFunnel").await;

    let (id, token) = dev.session().await;
    let commands =
        |body: Value| dev.ask(Method::POST, &format!("/v1/sessions/{id}/commands")).bearer_auth(&token).json(&body);
    let typo =
        problem(commands(json!({ "commands": [{ "type": "setEmial", "email": "x" }] })), 422, "invalidBody").await;
    assert!(typo["detail"].as_str().unwrap().contains("setEmial"), "{typo}");
    let extra = json!({ "commands": [{ "type": "beginProcessing", "amount": 1 }] });
    assert!(problem(commands(extra), 422, "invalidBody").await["detail"].as_str().unwrap().contains("amount"));
    problem(commands(json!({ "commands": [] })), 422, "invalidBody").await;
    let listed = json!({ "commands": [{ "type": "import", "legacy": [null, null] }] });
    problem(commands(listed), 422, "invalidBody").await;
    problem(commands(json!({ "commands": [{ "clientId": "a", "type": "beginProcessing" }] })), 422, "invalidBody")
        .await;
    let gap = json!({ "commands": [{ "clientId": "a", "seq": 2, "type": "beginProcessing" }] });
    assert_eq!(problem(commands(gap), 409, "sequenceGap").await["expected"], 1);
}

#[tokio::test]
async fn nobody_reaches_a_session_that_is_not_theirs() {
    let dev = dev(&[]);
    let ((mine, my_token), (theirs, _)) = (dev.session().await, dev.session().await);
    let routes = [
        (Method::GET, ""),
        (Method::PATCH, ""),
        (Method::DELETE, ""),
        (Method::POST, "/commands"),
        (Method::POST, "/validate"),
        (Method::POST, "/extend"),
        (Method::POST, "/token"),
        (Method::POST, "/handoff"),
        (Method::GET, "/events"),
    ];
    for (method, route) in routes {
        let path = format!("/v1/sessions/{theirs}{route}");
        let body =
            if route == "/commands" { json!({ "commands": [{ "type": "beginProcessing" }] }) } else { json!({}) };
        let request = || dev.ask(method.clone(), &path).json(&body);
        problem(request(), 401, "credentialMissing").await;
        problem(request().bearer_auth(&my_token), 403, "wrongSession").await;
        let mut changed = my_token.clone().into_bytes();
        changed[40] ^= 1;
        problem(request().bearer_auth(String::from_utf8(changed).unwrap()), 401, "tokenMalformed").await;
        problem(request().bearer_auth("tls_made-up"), 401, "serviceKeyUnknown").await;
        problem(request().header("authorization", "Basic YTpi"), 401, "credentialMalformed").await;
        let made_up = format!("/v1/sessions/ws_1_nobody{route}");
        problem(dev.as_service(method.clone(), &made_up).json(&body), 404, "sessionNotFound").await;
    }
    problem(dev.ask(Method::DELETE, &format!("/v1/sessions/{mine}")).bearer_auth(&my_token), 403, "notPermitted").await;
}

#[tokio::test]
async fn asvs_15_3_3_what_only_services_may_do_is_refused_to_browsers() {
    let dev = dev(&[]);
    let post = |body: Value| dev.ask(Method::POST, "/v1/sessions").json(&body);
    problem(post(json!({ "id": "ws_mine" })), 403, "notPermitted").await;
    problem(post(json!({ "adjustments": { "discount": 100 } })), 403, "notPermitted").await;
    problem(
        post(json!({ "products": [{ "id": "fitspresso-1-pack", "quantity": 1, "price": 1 }] })),
        403,
        "priceNotAllowed",
    )
    .await;
    let (id, token) = dev.session().await;
    for command in [
        json!({ "type": "recordPayment", "transactionId": "t", "amount": 7900 }),
        json!({ "type": "setAdjustments", "discount": 7900 }),
        json!({ "type": "erase" }),
    ] {
        assert_eq!(dev.command(&id, &token, command).await["reason"]["code"], "notPermitted");
    }
    let patch = dev.ask(Method::PATCH, &format!("/v1/sessions/{id}")).bearer_auth(&token);
    problem(patch.json(&json!({ "adjustments": { "discount": 1 } })), 403, "notPermitted").await;
    let skipped = dev.command(&id, &token, json!({ "type": "goToStep", "step": "success" })).await;
    assert_eq!(skipped["reason"]["code"], "stepNotAllowed");
}

#[tokio::test]
async fn an_idempotent_request_is_answered_once_and_replayed() {
    let dev = dev(&[]);
    let create = |key: &str, body: &Value| {
        dev.as_service(Method::POST, "/v1/sessions").header("idempotency-key", key).json(body).send()
    };
    let body = json!({ "email": "ada@example.com" });
    let first = create("k-1", &body).await.unwrap();
    assert!(!first.headers().contains_key("idempotent-replayed"));
    let first = json_of(first).await;
    let second = create("k-1", &body).await.unwrap();
    assert_eq!(
        (second.status(), &second.headers()["idempotent-replayed"]),
        (StatusCode::CREATED, &"true".parse().unwrap())
    );
    assert!(second.headers().contains_key("etag"));
    assert_eq!(json_of(second).await, first);

    let other = dev.as_service(Method::POST, "/v1/sessions").header("idempotency-key", "k-1");
    problem(other.json(&json!({ "email": "bob@example.com" })), 422, "idempotencyKeyReused").await;
    let empty = dev.as_service(Method::POST, "/v1/sessions").header("idempotency-key", "");
    problem(empty.json(&body), 400, "idempotencyKeyMalformed").await;

    let id = first["session"]["id"].as_str().unwrap();
    let path = format!("/v1/sessions/{id}/commands");
    let charge = json!({ "commands": [{ "type": "setMetadata", "metadata": { "n": 1 } }] });
    let mut versions = Vec::new();
    for _ in 0..2 {
        let sent = dev.as_service(Method::POST, &path).header("idempotency-key", "k-2").json(&charge).send().await;
        versions.push(json_of(sent.unwrap()).await["results"][0]["version"].clone());
    }
    assert_eq!(versions[0], versions[1]);
}

#[tokio::test]
async fn a_numbered_command_is_applied_once_however_often_it_is_sent() {
    let dev = dev(&[]);
    let (id, token) = dev.session().await;
    let command = json!({ "clientId": "shop", "seq": 1, "type": "setMetadata", "metadata": { "n": 1 } });
    let first = dev.command(&id, &token, command.clone()).await;
    assert_eq!((&first["outcome"], &first["repeated"]), (&json!("accepted"), &json!(false)));
    let second = dev.command(&id, &token, command).await;
    assert_eq!((&second["outcome"], &second["repeated"]), (&json!("accepted"), &json!(true)));
    let refused = json!({ "clientId": "shop", "seq": 2, "type": "goToStep", "step": "success" });
    for _ in 0..2 {
        assert_eq!(dev.command(&id, &token, refused.clone()).await["reason"]["code"], "stepNotAllowed");
    }
}

#[tokio::test]
async fn a_browser_cannot_use_up_the_numbers_of_a_back_end() {
    let dev = dev(&[]);
    let (id, token) = dev.session().await;
    let begin = json!({ "clientId": "payment-7", "seq": 1, "type": "beginProcessing" });
    assert_eq!(dev.command(&id, &token, begin).await["outcome"], "accepted");
    let pay =
        json!({ "clientId": "payment-7", "seq": 1, "type": "recordPayment", "transactionId": "t", "amount": 7900 });
    let paid = dev.command(&id, &dev.service_key, pay).await;
    assert_eq!((&paid["outcome"], &paid["repeated"]), (&json!("accepted"), &json!(false)), "{paid}");
    let disguised = json!({ "clientId": "service:payment-8", "seq": 1, "type": "extend" });
    assert_eq!(dev.command(&id, &dev.token(&id).await, disguised).await["reason"]["code"], "notPermitted");
}

#[tokio::test]
async fn what_is_erased_together_with_other_commands_is_erased_as_well() {
    let dev = dev(&[]);
    let (id, token) = dev.session().await;
    let path = format!("/v1/sessions/{id}");
    let body = json!({ "commands": [{ "type": "setEmail", "email": "canary@example.com" }, { "type": "erase" }] });
    let sent = dev.as_service(Method::POST, &format!("{path}/commands")).json(&body).send().await.unwrap();
    assert_eq!(json_of(sent).await["results"][1]["outcome"], "accepted");
    let late = json!({ "commands": [{ "type": "setMetadata", "metadata": { "name": "canary" } }] });
    let refused = dev.ask(Method::POST, &format!("{path}/commands")).bearer_auth(&token).json(&late).send().await;
    assert_eq!(json_of(refused.unwrap()).await["results"][0]["reason"]["code"], "sessionErased");
    let events = dev.as_service(Method::GET, &format!("{path}/events")).send().await.unwrap().text().await.unwrap();
    assert!(!events.contains("canary") && !events.contains("commandRejected"), "{events}");
    let session = json_of(dev.as_service(Method::GET, &path).send().await.unwrap()).await;
    assert_eq!(session["status"], "expired");
}

#[tokio::test]
async fn a_session_is_not_created_without_what_it_was_to_begin_with() {
    let dev = dev(&[]);
    let body = |tax: i64| json!({ "id": "order-7", "adjustments": { "tax": tax } });
    let create = |tax: i64| dev.as_service(Method::POST, "/v1/sessions").json(&body(tax));
    problem(create(-1), 422, "invalidAmount").await;
    assert_eq!(create(1).send().await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test]
async fn nobody_gets_the_session_of_another_buyer_by_an_idempotency_key() {
    let dev = dev(&[]);
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let request = dev.ask(Method::POST, "/v1/sessions").header("idempotency-key", "1").json(&json!({}));
        tokens.push(json_of(request.send().await.unwrap()).await["session"]["id"].clone());
    }
    assert_ne!(tokens[0], tokens[1]);
}

#[tokio::test]
async fn an_erased_session_keeps_nothing_of_the_buyer_and_is_not_revived() {
    let dev = dev(&[]);
    let (id, token) = dev.session().await;
    let path = format!("/v1/sessions/{id}");
    // An answer that is kept for replaying tells of the buyer as well.
    let patch = dev.as_service(Method::PATCH, &path).header("idempotency-key", "k-9");
    patch.json(&json!({ "metadata": { "n": 1 } })).send().await.unwrap();
    for _ in 0..2 {
        let deleted = dev.as_service(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    }
    let outcome = dev.command(&id, &token, json!({ "type": "setEmail", "email": "ada@example.com" })).await;
    assert_eq!(outcome["reason"]["code"], "sessionErased");
    for path in [path.clone(), format!("{path}/events")] {
        let text = dev.as_service(Method::GET, &path).send().await.unwrap().text().await.unwrap();
        assert!(!text.contains("ada@") && !text.contains("Lovelace"), "{text}");
    }
    let database = std::fs::read_dir(dev.server.folder.path().join("data")).unwrap();
    for file in database.map(|entry| entry.unwrap().path()) {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes.windows(8).any(|window| window == b"Lovelace");
        assert!(!found, "the buyer's name is still in {}", file.display());
    }
}

#[tokio::test]
async fn sessions_are_extended_up_to_their_longest_life_and_validated() {
    let dev = dev(&[]);
    let (id, token) = dev.session().await;
    let extend =
        |body: Value| dev.ask(Method::POST, &format!("/v1/sessions/{id}/extend")).bearer_auth(&token).json(&body);
    let extended = json_of(extend(json!({ "ttlMs": 4_000_000_000u32 })).send().await.unwrap()).await;
    assert!(extended["expiresAt"].as_str() > extended["createdAt"].as_str());
    problem(extend(json!({})), 409, "lifetimeExceeded").await;
    let validate = dev.ask(Method::POST, &format!("/v1/sessions/{id}/validate")).bearer_auth(&token);
    let validity = json_of(validate.send().await.unwrap()).await;
    assert_eq!((&validity["valid"], &validity["problems"]), (&json!(true), &json!([])));
}

#[tokio::test]
async fn asvs_2_4_1_an_address_that_creates_too_many_sessions_is_told_to_wait() {
    let dev = dev(&["--session-creations-per-minute", "3"]);
    for _ in 0..3 {
        let created = dev.ask(Method::POST, "/v1/sessions").json(&json!({})).send().await.unwrap();
        assert_eq!(created.status(), StatusCode::CREATED);
    }
    let refused = dev.ask(Method::POST, "/v1/sessions").json(&json!({})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let service = dev.as_service(Method::POST, "/v1/sessions").json(&json!({})).send().await.unwrap();
    assert_eq!(service.status(), StatusCode::CREATED, "service principals are not limited by address");
}

#[tokio::test]
async fn the_api_describes_itself_and_every_answer_is_described() {
    let dev = dev(&[]);
    let described = json_of(dev.ask(Method::GET, "/openapi.json").send().await.unwrap()).await;
    let paths: Vec<&String> = described["paths"].as_object().unwrap().keys().collect();
    for path in ["/v1/sessions", "/v1/sessions/{id}", "/v1/sessions/{id}/commands", "/v1/sync", "/v1/funnels/{id}"] {
        assert!(paths.iter().any(|known| *known == path), "{path} is not among {paths:?}");
    }
    let problems = dev.ask(Method::GET, "/docs/problems").send().await.unwrap().text().await.unwrap();
    for code in ["wrongSession", "malformedJson", "offerDeclined", "sequenceGap"] {
        assert!(problems.contains(&format!("id=\"{code}\"")), "{code} is not explained");
    }
    let page = dev.ask(Method::GET, "/docs/").send().await.unwrap().text().await.unwrap();
    assert!(page.contains("Swagger UI"), "{page}");
    let funnel = json_of(dev.ask(Method::GET, "/v1/funnels/default").send().await.unwrap()).await;
    assert_eq!(funnel["funnel"]["steps"].as_array().unwrap().len(), 5);
    problem(dev.ask(Method::GET, "/v1/funnels/nowhere"), 404, "funnelNotFound").await;
    problem(dev.ask(Method::GET, "/v1/nowhere"), 404, "notFound").await;
    problem(dev.ask(Method::PUT, "/v1/sessions"), 405, "methodNotAllowed").await;
}

#[tokio::test]
async fn request_ids_go_in_and_out() {
    let dev = dev(&[]);
    let request = dev.ask(Method::GET, "/v1/nowhere").header("x-request-id", "abc-123");
    assert_eq!(problem(request, 404, "notFound").await["requestId"], "abc-123");
}
