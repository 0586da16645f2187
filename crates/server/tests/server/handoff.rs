//! Going on in another browser.

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::binary::{Dev, dev};
use super::fleets::{LONG, fleet, until};

struct Site {
    client: Client,
    address: String,
}

impl Site {
    fn of(address: &str) -> Self {
        Self { client: Client::new(), address: address.to_owned() }
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address)).json(body)
    }

    /// A browser's session: its id and token.
    async fn session(&self) -> (String, String) {
        let created: Value = self.post("/v1/sessions", &json!({})).send().await.unwrap().json().await.unwrap();
        (text(&created["session"]["id"]), text(&created["token"]))
    }

    async fn code(&self, id: &str, credential: &str) -> String {
        let asked = self.post(&format!("/v1/sessions/{id}/handoff"), &json!({})).bearer_auth(credential);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        text(&answer.json::<Value>().await.unwrap()["code"])
    }

    async fn exchange(&self, code: &str) -> (u16, Value) {
        let answer = self.post("/v1/handoff", &json!({ "code": code })).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn status_with(&self, id: &str, credential: &str) -> StatusCode {
        let url = format!("http://{}/v1/sessions/{id}", self.address);
        self.client.get(url).bearer_auth(credential).send().await.unwrap().status()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn started() -> (Dev, Site) {
    let dev = dev(&[]);
    let site = Site::of(&dev.address);
    (dev, site)
}

#[tokio::test]
async fn a_code_lets_one_other_browser_go_on_with_the_session() {
    let (_dev, site) = started();
    let (id, token) = site.session().await;
    let code = site.code(&id, &token).await;

    let (status, answer) = site.exchange(&code).await;
    assert_eq!((status, &answer["sessionId"]), (200, &json!(id)));
    let theirs = text(&answer["token"]);
    assert_ne!(theirs, token);
    assert_eq!(site.status_with(&id, &theirs).await, StatusCode::OK);
    assert_eq!(site.status_with(&id, &token).await, StatusCode::OK, "the first browser goes on as well");

    let (status, refused) = site.exchange(&code).await;
    assert_eq!((status, &refused["code"]), (410, &json!("handoffUsed")));
    assert_eq!(refused["mendableBy"], "buyerInput");

    let events = site.client.get(format!("http://{}/v1/sessions/{id}/events", site.address)).bearer_auth(&token);
    let events: Value = events.send().await.unwrap().json().await.unwrap();
    let kinds = events["records"].as_array().unwrap().iter().map(|record| text(&record["event"]["type"]));
    assert_eq!(kinds.filter(|kind| kind == "handedOff").count(), 1, "{events}");
}

#[tokio::test]
async fn a_code_is_good_for_nothing_else_and_nothing_else_for_a_code() {
    let (dev, site) = started();
    let (id, token) = site.session().await;
    let code = site.code(&id, &token).await;
    assert_eq!(site.status_with(&id, &code).await, StatusCode::UNAUTHORIZED);

    let mut changed = code.clone().into_bytes();
    changed[60] ^= 1;
    for other in [&token, &dev.service_key, "", "v4.local.made-up", &String::from_utf8(changed).unwrap()] {
        let (status, refused) = site.exchange(other).await;
        assert_eq!((status, &refused["code"]), (401, &json!("handoffRefused")), "{other}");
    }
    assert_eq!(site.exchange(&code).await.0, 200);
}

#[tokio::test]
async fn only_who_may_reach_a_session_gets_a_code_for_it() {
    let (dev, site) = started();
    let ((id, _), (_, other_token)) = (site.session().await, site.session().await);
    let path = format!("/v1/sessions/{id}/handoff");
    let code = async |request: RequestBuilder| {
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), text(&answer.json::<Value>().await.unwrap()["code"]))
    };
    assert_eq!(code(site.post(&path, &json!({}))).await, (401, "credentialMissing".to_owned()));
    assert_eq!(code(site.post(&path, &json!({})).bearer_auth(&other_token)).await, (403, "wrongSession".to_owned()));
    let by_service = site.code(&id, &dev.service_key).await;
    assert_eq!(site.exchange(&by_service).await.0, 200);
}

#[tokio::test]
async fn a_code_of_an_erased_session_brings_nothing_back() {
    let (dev, site) = started();
    let (id, token) = site.session().await;
    let code = site.code(&id, &token).await;
    let erased = site.client.delete(format!("http://{}/v1/sessions/{id}", site.address)).bearer_auth(&dev.service_key);
    assert_eq!(erased.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let (status, refused) = site.exchange(&code).await;
    assert_eq!((status, &refused["code"]), (410, &json!("sessionErased")));
}

#[tokio::test]
async fn whichever_servers_are_asked_at_once_a_code_lets_one_browser_in() {
    let fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let sites = nodes.each_ref().map(|node| Site::of(&node.address));
    for _ in 0..8 {
        let (id, token) = sites[0].session().await;
        let code = sites[1].code(&id, &token).await;
        let attempts = (0..6).map(|attempt| sites[attempt % 2].exchange(&code));
        let outcomes = futures_util::future::join_all(attempts).await;
        let mut codes: Vec<u16> = outcomes.iter().map(|(status, _)| *status).collect();
        codes.sort_unstable();
        assert_eq!(codes, [200, 410, 410, 410, 410, 410], "{outcomes:?}");
    }
}

#[tokio::test]
async fn however_many_browsers_come_after_it_a_used_code_stays_used() {
    let (_dev, site) = started();
    let (id, token) = site.session().await;
    let code = site.code(&id, &token).await;
    assert_eq!(site.exchange(&code).await.0, 200);
    for first in (0..300).step_by(50) {
        let commands: Vec<Value> = (first..first + 50)
            .map(|n| json!({ "clientId": format!("tab-{n}"), "seq": 1, "type": "setMetadata", "metadata": { "n": n } }))
            .collect();
        let sent =
            site.post(&format!("/v1/sessions/{id}/commands"), &json!({ "commands": commands })).bearer_auth(&token);
        assert_eq!(sent.send().await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(site.exchange(&code).await.0, 410);
}

#[tokio::test]
async fn going_on_elsewhere_again_and_again_is_no_way_around_the_longest_life_of_a_token() {
    let dev = dev(&["--token-ttl", "2s", "--token-max-age", "3s"]);
    let site = Site::of(&dev.address);
    let (id, mut token) = site.session().await;
    let began = std::time::Instant::now();
    let refused = loop {
        let asked = site.post(&format!("/v1/sessions/{id}/handoff"), &json!({})).bearer_auth(&token);
        let answer = asked.send().await.unwrap();
        if answer.status() != StatusCode::CREATED {
            break answer.status();
        }
        let code = text(&answer.json::<Value>().await.unwrap()["code"]);
        match site.exchange(&code).await {
            (200, answer) => token = text(&answer["token"]),
            (status, _) => break StatusCode::from_u16(status).unwrap(),
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "it goes on for ever");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(refused, StatusCode::UNAUTHORIZED);
}

/// What the server answers to a browser that comes back with its claim secret and a token that may be over.
async fn back(site: &Site, id: &str, token: &str, claim: &str) -> Vec<Value> {
    let hello = json!({
        "type": "hello", "protocol": 1, "sessionId": id, "clientId": "another", "knownVersion": 0,
        "token": token, "claim": claim,
    });
    let asked = site.post("/v1/sync", &json!({ "frames": [hello], "waitMs": 0 }));
    let answer: Value = asked.send().await.unwrap().json().await.unwrap();
    answer["frames"].as_array().unwrap_or_else(|| panic!("no frames: {answer}")).clone()
}

fn of_type<'a>(frames: &'a [Value], kind: &str) -> Option<&'a Value> {
    frames.iter().find(|frame| frame["type"] == kind)
}

#[tokio::test]
async fn who_went_on_with_it_comes_back_when_the_token_is_over_until_the_first_one_could_not_either() {
    let dev = dev(&["--token-ttl", "3s", "--token-max-age", "15s"]);
    let site = Site::of(&dev.address);
    let (id, token) = site.session().await;
    let code = site.code(&id, &token).await;
    let claim = "a secret of the other browser, and of nobody else";
    let answer = site.post("/v1/handoff", &json!({ "code": code, "claim": claim })).send().await.unwrap();
    let theirs = text(&answer.json::<Value>().await.unwrap()["token"]);
    until("the token is over", LONG, async || site.status_with(&id, &theirs).await == StatusCode::UNAUTHORIZED).await;

    let stranger = back(&site, &id, &theirs, "a secret that this session has never heard of").await;
    assert_eq!(of_type(&stranger, "error").unwrap()["code"], "unauthorized", "{stranger:?}");

    let welcome = back(&site, &id, &theirs, claim).await;
    assert!(of_type(&welcome, "welcome").is_some(), "{welcome:?}");
    let new = text(&of_type(&welcome, "token").unwrap()["token"]);
    assert_eq!(site.status_with(&id, &new).await, StatusCode::OK);
    until("its time is over", LONG, async || {
        let frames = back(&site, &id, &theirs, claim).await;
        of_type(&frames, "error").is_some_and(|error| error["code"] == "unauthorized")
    })
    .await;
    until("and the token's", LONG, async || site.status_with(&id, &new).await == StatusCode::UNAUTHORIZED).await;
}

#[tokio::test]
async fn asvs_11_5_1_a_claim_secret_that_could_be_guessed_is_refused_and_the_code_is_as_good_as_before() {
    let (_dev, site) = started();
    let (id, token) = site.session().await;
    let code = site.code(&id, &token).await;
    let answer = site.post("/v1/handoff", &json!({ "code": code, "claim": "short" })).send().await.unwrap();
    let (status, refused) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
    assert_eq!((status, &refused["code"], &refused["path"]), (422, &json!("invalidBody"), &json!("claim")));
    assert_eq!(site.exchange(&code).await.0, 200);
}

#[tokio::test]
async fn who_lost_the_answer_asks_again_with_the_same_secret() {
    let (_dev, site) = started();
    let (id, token) = site.session().await;
    let code = site.code(&id, &token).await;
    let exchange = async |claim: &str| {
        let answer = site.post("/v1/handoff", &json!({ "code": code, "claim": claim })).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let claim = "a secret of the other browser, and of nobody else";
    for _ in 0..2 {
        let (status, answer) = exchange(claim).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(site.status_with(&id, &text(&answer["token"])).await, StatusCode::OK);
    }
    let (status, refused) = exchange("a secret of somebody who has seen the code later on").await;
    assert_eq!((status, &refused["code"]), (410, &json!("handoffUsed")));
    assert_eq!(site.exchange(&code).await.0, 410);
}
