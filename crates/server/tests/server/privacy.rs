//! What a shop owes a buyer by law: all data of theirs, and their removal.

use std::time::Duration;

use serde_json::{Value, json};
use throughline_test_services::buyer::{Buyer, Identity};
use throughline_test_services::fleet::{Fleet, Node};

use super::fleets::*;

async fn ask(fleet: &Fleet, node: &Node, path: &str, body: Value) -> Value {
    let answer = post(fleet, node, path, &body).send().await.unwrap();
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{path}: {body}");
    body
}

async fn session_of(fleet: &Fleet, node: &Node, email: &str) -> String {
    let new = json!({
        "email": email,
        "customer": { "firstName": "Ada", "phone": "555-0100", "billing": { "address": "12 St James's Square" } },
        "metadata": { "note": "<script>alert(1)</script>" },
    });
    let created = post(fleet, node, "/v1/sessions", &new).send().await.unwrap().json::<Value>().await.unwrap();
    created["session"]["id"].as_str().unwrap().to_owned()
}

async fn hold(fleet: &Fleet, node: &Node, id: &str, hold: Value) {
    let commands = json!({ "commands": [{ "type": "setHold", "hold": hold }] });
    let answer = ask(fleet, node, &format!("/v1/sessions/{id}/commands"), commands).await;
    assert_eq!(answer["results"][0]["outcome"], "accepted", "{answer}");
}

#[tokio::test]
async fn all_data_of_an_address_is_given_as_json_and_as_a_page_with_what_each_field_is_for() {
    let fleet = fleet();
    let node = fleet.node("a", &[]).unwrap();
    let ids = [session_of(&fleet, &node, "ada@example.com").await, session_of(&fleet, &node, "Ada@Example.com").await];
    let other = session_of(&fleet, &node, "bob@example.com").await;
    let export = ask(&fleet, &node, "/v1/privacy/export", json!({ "email": "ada@example.com" })).await;
    let mut found: Vec<&str> =
        export["sessions"].as_array().unwrap().iter().map(|one| one["session"]["id"].as_str().unwrap()).collect();
    found.sort_unstable();
    let mut expected: Vec<&str> = ids.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let first = &export["sessions"][0];
    assert_eq!(first["session"]["customer"]["phone"], "555-0100");
    let kinds: Vec<&Value> =
        first["history"].as_array().unwrap().iter().map(|record| &record["event"]["type"]).collect();
    assert!(kinds.contains(&&json!("created")) && kinds.contains(&&json!("emailSet")), "{kinds:?}");
    assert!(first["history"][0]["caller"]["network"].as_str().is_some_and(|network| network.ends_with("/24")));
    let purpose = export["fields"].as_array().unwrap().iter().find(|field| field["field"] == "email").unwrap();
    assert_eq!(purpose["isPersonal"], true);

    let one = ask(&fleet, &node, "/v1/privacy/export", json!({ "sessionId": other })).await;
    assert_eq!(one["sessions"][0]["session"]["email"], "bob@example.com");
    let none = ask(&fleet, &node, "/v1/privacy/export", json!({ "email": "nobody@example.com" })).await;
    assert_eq!(none["sessions"], json!([]));

    let page = post(&fleet, &node, "/v1/privacy/export", &json!({ "email": "ada@example.com" }))
        .header("accept", "text/html,application/xhtml+xml")
        .send()
        .await
        .unwrap();
    assert_eq!(page.headers()["cache-control"], "no-store");
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let page = page.text().await.unwrap();
    assert!(page.contains("ada@example.com") && page.contains("to deliver and to bill the order"), "{page}");
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "what a buyer wrote is text");

    for wrong in
        [json!({}), json!({ "email": "ada@example.com", "sessionId": other }), json!({ "email": "no address" })]
    {
        let refused = post(&fleet, &node, "/v1/privacy/export", &wrong).send().await.unwrap();
        assert_eq!(refused.status(), 422, "{wrong}");
    }
    let told = fleet.run(&[
        "audit",
        "export",
        "--session",
        &ids[0],
        "--keys-file",
        &fleet.keys_file().display().to_string(),
        "--database-url",
        &fleet.postgres.url("shop"),
    ]);
    assert_eq!(told.unwrap().matches("\"exported\"").count(), 2, "who took the data is in the audit log");
}

#[tokio::test]
async fn an_address_is_erased_in_all_its_sessions_but_those_that_are_held() {
    let fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let ids = [
        session_of(&fleet, &nodes[0], "ada@example.com").await,
        session_of(&fleet, &nodes[0], "ada@example.com").await,
        session_of(&fleet, &nodes[0], "ada@example.com").await,
    ];
    hold(&fleet, &nodes[0], &ids[1], json!({ "reason": "the invoice is kept for 8 years" })).await;
    let by_email = json!({ "email": "ada@example.com" });
    let erased = ask(&fleet, &nodes[1], "/v1/privacy/erase", by_email.clone()).await;
    assert_eq!(erased["isComplete"], false, "{erased}");
    let outcomes = erased["sessions"].as_array().unwrap();
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        let is_held = outcome["sessionId"] == json!(ids[1]);
        assert_eq!(outcome["outcome"], if is_held { "held" } else { "erased" }, "{outcome}");
        if is_held {
            assert!(outcome["reason"].as_str().unwrap().contains("8 years"), "{outcome}");
        } else {
            assert!(outcome["erasedAt"].is_string() && outcome["version"].is_u64(), "{outcome}");
        }
    }
    let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
    let delete = client.delete(format!("http://{}/v1/sessions/{}", nodes[0].address, ids[1]));
    let refused = delete.bearer_auth(&fleet.service_key).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "sessionHeld");

    let again = ask(&fleet, &nodes[0], "/v1/privacy/erase", by_email.clone()).await;
    assert_eq!(again["sessions"].as_array().unwrap().len(), 1, "only what is held is found by the address still");
    hold(&fleet, &nodes[0], &ids[1], Value::Null).await;
    let rest = ask(&fleet, &nodes[1], "/v1/privacy/erase", by_email.clone()).await;
    assert_eq!((&rest["isComplete"], rest["sessions"].as_array().unwrap().len()), (&json!(true), 1), "{rest}");
    let nothing = ask(&fleet, &nodes[1], "/v1/privacy/erase", by_email).await;
    assert_eq!(nothing, json!({ "isComplete": true, "sessions": [] }));
    let by_id = ask(&fleet, &nodes[1], "/v1/privacy/erase", json!({ "sessionId": ids[0] })).await;
    assert_eq!(by_id["sessions"][0]["outcome"], "erased", "the same again: {by_id}");
    let tombstone = ask(&fleet, &nodes[1], "/v1/privacy/export", json!({ "sessionId": ids[0] })).await;
    assert_eq!(tombstone["sessions"][0]["session"]["email"], Value::Null);
    let history = tombstone["sessions"][0]["history"].as_array().unwrap();
    let kinds: Vec<&Value> = history.iter().map(|record| &record["event"]["type"]).collect();
    assert_eq!(kinds, ["erased", "commandUnneeded"], "{tombstone}");
    assert!(!tombstone.to_string().contains("555-0100"));
}

#[tokio::test]
async fn an_erasure_wins_against_writers_and_against_a_browser_that_was_offline() {
    let fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let identity = Identity::new();
    let buyer = Buyer::start(&identity, std::slice::from_ref(&nodes[0].address), OFTEN);
    accepted(&buyer, 5).await;
    let id = identity.session_id.clone();
    // A back end writes at the other server all the while; the browser writes at the first one.
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let writer = async {
        let mut statuses = Vec::new();
        while !*stopped.borrow_and_update() {
            statuses.push(strict(&fleet, &nodes[1], &id, "race@example.com").await.0);
        }
        statuses
    };
    let eraser = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let erased = ask(&fleet, &nodes[1], "/v1/privacy/erase", json!({ "sessionId": id })).await;
        let issued = buyer.told().issued;
        // Once it has heard of it, the browser refuses what its page wants by itself.
        until("the browser hears of it", LONG, async || {
            let erased = ask(&fleet, &nodes[0], "/v1/privacy/export", json!({ "sessionId": id })).await;
            erased["sessions"][0]["erasedAt"].is_string() && buyer.told().issued <= issued + 100
        })
        .await;
        stop.send(true).unwrap();
        erased
    };
    let (statuses, erased) = tokio::join!(writer, eraser);
    assert_eq!(erased["sessions"][0]["outcome"], "erased", "{erased}");
    assert!(statuses.contains(&200), "it wrote before: {statuses:?}");
    // Commands that somebody who was away had numbered before.
    let late =
        json!({ "commands": [{ "clientId": "outbox", "seq": 1, "type": "setEmail", "email": "late@example.com" }] });
    for node in &nodes {
        let path = format!("/v1/sessions/{id}/commands");
        let answer = ask(&fleet, node, &path, late.clone()).await;
        assert_eq!(answer["results"][0]["reason"]["code"], "sessionErased", "a clear answer: {answer}");
    }
    buyer.leave().await;
    for node in &nodes {
        let export = ask(&fleet, node, "/v1/privacy/export", json!({ "sessionId": id })).await;
        let session = &export["sessions"][0];
        assert_eq!(session["session"]["email"], Value::Null, "{session}");
        assert_eq!(session["session"]["metadata"], json!({}), "{session}");
        let kinds: Vec<&Value> =
            session["history"].as_array().unwrap().iter().map(|record| &record["event"]["type"]).collect();
        assert_eq!(kinds, ["erased"], "nothing is revived");
    }
}

#[tokio::test]
async fn asvs_14_2_7_how_long_sessions_are_kept_depends_on_what_they_ended_as_and_not_while_they_are_held() {
    let fleet = fleet();
    let more = ["--token-ttl", "1s", "--token-max-age", "1s", "--retention", "1h", "--retention-expired", "1s"];
    let node = fleet.node("a", &more).unwrap();
    let ended = async |ends: Value| {
        let id = session_of(&fleet, &node, "ada@example.com").await;
        let answer = ask(&fleet, &node, &format!("/v1/sessions/{id}/commands"), json!({ "commands": ends })).await;
        let outcomes = answer["results"].as_array().unwrap();
        assert!(outcomes.iter().all(|outcome| outcome["outcome"] == "accepted"), "{answer}");
        id
    };
    let items = json!({ "type": "setItems", "items": [{ "id": "fitspresso-1-pack", "quantity": 1 }] });
    let customer = json!({ "type": "setCustomer", "customer": { "firstName": "Ada", "lastName": "Lovelace", "billing": { "state": "CA" } } });
    let failed = ended(json!([items, customer, { "type": "beginProcessing" }, { "type": "failPayment", "code": "declined", "message": "no" }])).await;
    let held = session_of(&fleet, &node, "ada@example.com").await;
    hold(&fleet, &node, &held, json!({ "reason": "a dispute" })).await;
    let over = async |id: &str| {
        let path = format!("http://{}/v1/sessions/{id}", node.address);
        let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
        client.get(path).bearer_auth(&fleet.service_key).send().await.unwrap().status() == 404
    };
    let erased = session_of(&fleet, &node, "ada@example.com").await;
    ask(&fleet, &node, "/v1/privacy/erase", json!({ "sessionId": erased })).await;
    until("an expired one is deleted", LONG, async || over(&erased).await).await;
    assert!(!over(&failed).await, "a failed one is kept for an hour");
    assert!(!over(&held).await);
    let told = fleet.run(&[
        "audit",
        "export",
        "--session",
        &erased,
        "--keys-file",
        &fleet.keys_file().display().to_string(),
        "--database-url",
        &fleet.postgres.url("shop"),
    ]);
    assert!(told.unwrap().contains("\"did\":[\"deleted\"]"));
}
