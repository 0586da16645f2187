//! Sessions in cookies: what browsers keep, which requests they count for, and what scripts of the page get of it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::binary::{Dev, dev};
use super::fleets::{LONG, until};
use super::socket::{CLAIM, Socket, open};

const PAGE: &str = "https://shop.example";
const OTHER_SHOP: &str = "https://other.example";
const ORIGINS: [&str; 2] = ["--allowed-origins", "https://shop.example,https://other.example=other"];

const ID: &str = "ws_1_ccccccccccccccccccccccccc";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// A browser: it keeps cookies and sends all of them, whatever page makes it send a request.
struct Browser<'a> {
    dev: &'a Dev,
    client: Client,
    jar: Mutex<BTreeMap<String, String>>,
}

impl<'a> Browser<'a> {
    fn new(dev: &'a Dev) -> Self {
        Self { dev, client: Client::new(), jar: Mutex::default() }
    }

    fn cookies(&self) -> String {
        let jar = self.jar.lock().unwrap();
        jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// The token and the secret of a session's cookie.
    fn held(&self, id: &str) -> (String, String) {
        let jar = self.jar.lock().unwrap();
        let (token, claim) = jar[&format!("__Host-throughline-{id}")].split_once('~').unwrap();
        (token.to_owned(), claim.to_owned())
    }

    /// A request with these headers beside the cookies.
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        let mut request = self.client.request(method, format!("http://{}{path}", self.dev.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let cookies = self.cookies();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies);
        }
        let response = request.json(body).send().await.unwrap();
        for set in response.headers().get_all("set-cookie") {
            let (pair, attributes) = set.to_str().unwrap().split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let mut attributes: Vec<&str> = attributes.split("; ").collect();
            attributes.sort_unstable();
            let [http_only, life, path, same_site, secure] = attributes[..] else { panic!("{attributes:?}") };
            assert_eq!(
                [http_only, path, same_site, secure],
                ["HttpOnly", "Path=/", "SameSite=Strict", "Secure"],
                "{set:?}"
            );
            let mut jar = self.jar.lock().unwrap();
            if life == "Max-Age=0" {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        response
    }

    /// What the shop's page sends.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let headers = [("origin", PAGE), ("throughline-credentials", "cookie")];
        let response = self.send(method, path, &headers, body).await;
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    async fn get(&self, id: &str) -> (u16, Value) {
        self.ask(Method::GET, &format!("/v1/sessions/{id}"), &Value::Null).await
    }

    /// Asks for the cookie of a session.
    async fn fetch_cookie(&self, id: &str, body: Value) -> (u16, Value) {
        self.ask(Method::POST, &format!("/v1/sessions/{id}/cookie"), &body).await
    }

    async fn create(&self) -> String {
        let body = json!({ "email": "ada@example.com", "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }] });
        let (status, created) = self.ask(Method::POST, "/v1/sessions", &body).await;
        assert_eq!(status, 201, "{created}");
        assert_eq!(created.get("token"), None, "the page gets none: {created}");
        assert!(created["tokenExpiresAt"].is_string(), "{created}");
        text(&created["session"]["id"])
    }

    /// A socket of the page; it has not said hello.
    async fn socket(&self, id: &str, client: &'static str) -> Socket {
        self.socket_of(PAGE, id, client).await.unwrap()
    }

    async fn socket_of(
        &self,
        page: &str,
        id: &str,
        client: &'static str,
    ) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        let cookies = self.cookies();
        let protocols = ("sec-websocket-protocol", "throughline.v1, throughline.cookie");
        let mut socket = open(self.dev, &[protocols, ("origin", page), ("cookie", &cookies)]).await?;
        socket.id = id.to_owned();
        socket.client = client;
        Ok(socket)
    }

    async fn poll(&self, id: &str, more: Value) -> Vec<Value> {
        let mut hello =
            json!({ "type": "hello", "protocol": 1, "sessionId": id, "clientId": "poller", "knownVersion": 0 });
        hello.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = self.ask(Method::POST, "/v1/sync", &json!({ "frames": [hello], "waitMs": 0 })).await;
        assert_eq!(status, 200, "{answer}");
        answer["frames"].as_array().unwrap().clone()
    }
}

async fn as_service(dev: &Dev, method: Method, path: &str, body: Value) -> Value {
    let request = Client::new().request(method, format!("http://{}{path}", dev.address)).bearer_auth(&dev.service_key);
    let response = request.json(&body).send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    response.json().await.unwrap()
}

async fn pay(dev: &Dev, id: &str) {
    let command = json!({ "type": "recordPayment", "transactionId": "t-1", "amount": 7900 });
    let path = format!("/v1/sessions/{id}/commands");
    let answer = as_service(dev, Method::POST, &path, json!({ "commands": [command] })).await;
    assert_eq!(answer["results"][0]["outcome"], "accepted", "{answer}");
}

fn code_of((status, answer): (u16, Value)) -> (u16, String) {
    (status, answer["code"].as_str().unwrap_or_default().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame["type"].as_str()).collect()
}

#[tokio::test]
async fn asvs_3_3_4_no_script_gets_what_is_in_the_cookie() {
    let dev = dev(&ORIGINS);
    let browser = Browser::new(&dev);
    let id = browser.create().await;
    let (status, session) = browser.get(&id).await;
    assert_eq!((status, &session["id"]), (200, &json!(id)));
    let change = json!({ "metadata": { "by": "the page" } });
    assert_eq!(browser.ask(Method::PATCH, &format!("/v1/sessions/{id}"), &change).await.0, 200);
    // Nothing turns a cookie into a token that a script could send away.
    let token = browser.ask(Method::POST, &format!("/v1/sessions/{id}/token"), &json!({})).await;
    assert_eq!(code_of(token), refused(403, "notPermitted"));
    let (status, answer) = browser.fetch_cookie(&id, json!({})).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.as_object().unwrap().keys().eq(["tokenExpiresAt"]), "{answer}");
    let mut socket = browser.socket(&id, "page").await;
    socket.hello(json!({})).await;
    let frames = [socket.next("welcome").await, socket.next("snapshot").await].map(|frame| frame.to_string()).concat();
    let (token, claim) = browser.held(&id);
    assert!(!frames.contains(&token) && !frames.contains(&claim), "{frames}");
    // And one that was stolen from where cookies are is none elsewhere.
    for stolen in [&token, &claim] {
        let answer = Client::new().get(format!("http://{}/v1/sessions/{id}", dev.address)).bearer_auth(stolen);
        assert_eq!(answer.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    let other = browser.create().await;
    assert_ne!(other, id);
    assert_eq!(browser.get(&id).await.0, 200, "each session has its own");
    assert_eq!(browser.get(&other).await.0, 200);
}

/// Every route for which a cookie can count.
fn routes(id: &str) -> [(Method, String, Value); 12] {
    let at = |route: &str| format!("/v1/sessions/{id}{route}");
    [
        (Method::GET, at(""), Value::Null),
        (Method::PATCH, at(""), json!({ "metadata": { "by": "evil" } })),
        (
            Method::POST,
            at("/commands"),
            json!({ "commands": [{ "type": "setMetadata", "metadata": { "by": "evil" } }] }),
        ),
        (Method::POST, at("/extend"), json!({})),
        (Method::POST, at("/handoff"), json!({})),
        (Method::POST, at("/validate"), json!({})),
        (Method::GET, at("/events"), Value::Null),
        (Method::POST, at("/cookie"), json!({})),
        (Method::DELETE, at("/cookie"), Value::Null),
        (Method::POST, "/v1/sessions".to_owned(), json!({})),
        (Method::POST, "/v1/handoff".to_owned(), json!({ "code": "x" })),
        (Method::POST, "/v1/sync".to_owned(), json!({ "frames": [] })),
    ]
}

#[tokio::test]
async fn asvs_3_5_1_no_page_of_another_origin_makes_a_browser_use_its_cookie() {
    let dev = dev(&ORIGINS);
    let browser = Browser::new(&dev);
    let id = browser.create().await;
    let version = browser.get(&id).await.1["version"].clone();
    let routes = routes(&id);
    let asked = ("throughline-credentials", "cookie");
    let strangers: [&[(&str, &str)]; 8] = [
        &[asked],
        &[asked, ("origin", "null")],
        &[asked, ("origin", "https://evil.example")],
        &[asked, ("origin", "https://shop.example.evil.example"), ("sec-fetch-site", "same-site")],
        &[asked, ("origin", "http://shop.example")],
        &[asked, ("sec-fetch-site", "cross-site")],
        &[asked, ("sec-fetch-site", "none")],
        &[asked, ("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
    ];
    for (method, path, body) in &routes {
        for headers in strangers {
            let response = browser.send(method.clone(), path, headers, body).await;
            let status = response.status();
            let answer: Value = response.json().await.unwrap();
            assert_eq!(
                (status, &answer["code"]),
                (StatusCode::FORBIDDEN, &json!("originRefused")),
                "{path} {headers:?}"
            );
        }
    }
    for page in ["https://evil.example", "null"] {
        assert!(browser.socket_of(page, &id, "evil").await.is_err(), "{page}");
    }
    // A program names no origin. Where it says that cookies count, it is no program.
    let protocols = ("sec-websocket-protocol", "throughline.v1, throughline.cookie");
    assert!(open(&dev, &[protocols, ("cookie", &browser.cookies())]).await.is_err());
    assert_eq!(browser.get(&id).await.1["version"], version, "and nothing has changed");
}

#[tokio::test]
async fn asvs_3_5_2_what_browsers_send_without_asking_first_is_not_enough() {
    let dev = dev(&ORIGINS);
    let browser = Browser::new(&dev);
    let id = browser.create().await;
    let version = browser.get(&id).await.1["version"].clone();
    let routes = routes(&id);
    for (method, path, body) in routes.iter().filter(|(_, path, _)| path.contains(&id)) {
        for headers in [&[][..], &[("origin", PAGE)], &[("origin", PAGE), ("throughline-credentials", "other")]] {
            let response = browser.send(method.clone(), path, headers, body).await;
            let status = response.status();
            let code = response.json::<Value>().await.unwrap()["code"].clone();
            let is_cookie = path.ends_with("/cookie");
            let expected = if is_cookie { (403, "cookieNotMeant") } else { (401, "credentialMissing") };
            assert_eq!((status.as_u16(), code.as_str().unwrap()), expected, "{method} {path} {headers:?}");
        }
    }
    let preflight = |origin: &'static str| {
        let request = browser.client.request(Method::OPTIONS, format!("http://{}/v1/sessions/{id}", dev.address));
        let asks = [("origin", origin), ("access-control-request-method", "PATCH")];
        let request = asks.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.header("access-control-request-headers", "throughline-credentials").send()
    };
    let listed = preflight(PAGE).await.unwrap();
    assert_eq!(listed.headers()["access-control-allow-origin"], PAGE);
    assert!(listed.headers()["access-control-allow-headers"].to_str().unwrap().contains("throughline-credentials"));
    assert_eq!(preflight("https://evil.example").await.unwrap().headers().get("access-control-allow-origin"), None);
    let mut without =
        open(&dev, &[("sec-websocket-protocol", "throughline.v1"), ("origin", PAGE), ("cookie", &browser.cookies())])
            .await
            .unwrap();
    without.id = id.clone();
    without.client = "without";
    without.hello(json!({})).await;
    without.refused("unauthorized", 4401).await;
    assert_eq!(browser.get(&id).await.1["version"], version, "and nothing has changed");
}

#[tokio::test]
async fn asvs_3_5_3_reading_changes_nothing() {
    let dev = dev(&ORIGINS);
    let browser = Browser::new(&dev);
    let id = browser.create().await;
    let before = browser.get(&id).await.1;
    let description: Value =
        browser.client.get(format!("http://{}/openapi.json", dev.address)).send().await.unwrap().json().await.unwrap();
    let paths = description["paths"].as_object().unwrap();
    let readable: Vec<String> = paths
        .iter()
        .filter(|(path, route)| route.get("get").is_some() && *path != "/v1/sync")
        .map(|(path, _)| path.replace("{id}", &id))
        .collect();
    assert!(readable.len() >= 5, "{readable:?}");
    for path in readable {
        for method in [Method::GET, Method::HEAD] {
            browser.ask(method.clone(), &path, &Value::Null).await;
            let request = browser.client.request(method, format!("http://{}{path}", dev.address));
            request.bearer_auth(&dev.service_key).send().await.unwrap();
        }
    }
    assert_eq!(browser.get(&id).await.1, before);
}

#[tokio::test]
async fn asvs_7_2_4_a_payment_changes_the_cookie_and_the_browser_that_was_away_comes_back() {
    let dev = dev(&ORIGINS);
    let browser = Browser::new(&dev);
    let id = browser.create().await;
    let (before, claim) = browser.held(&id);
    let mut there = browser.socket(&id, "there").await;
    there.hello(json!({})).await;
    there.next("snapshot").await;
    pay(&dev, &id).await;
    let told = there.next_of(&["cookieDue", "token", "error"]).await;
    assert_eq!(told, json!({ "type": "cookieDue" }));
    assert_eq!(code_of(browser.get(&id).await), refused(401, "tokenRevoked"));
    let (status, answer) = browser.fetch_cookie(&id, json!({})).await;
    assert_eq!(status, 200, "{answer}");
    let (after, same) = browser.held(&id);
    assert_ne!(after, before);
    assert_eq!(same, claim);
    assert_eq!(browser.get(&id).await.0, 200);
    // The connection that was there goes on, and one with the new cookie begins.
    there.submit(1, json!({ "type": "setMetadata", "metadata": { "still": "here" } })).await;
    there.next("accepted").await;
    let mut again = browser.socket(&id, "again").await;
    again.hello(json!({})).await;
    again.next("snapshot").await;
    // Who was away while it was paid has the old one, and is let in by the secret that is in the cookie as well.
    let away = Browser::new(&dev);
    away.jar.lock().unwrap().insert(format!("__Host-throughline-{id}"), format!("{before}~{claim}"));
    let frames = away.poll(&id, json!({})).await;
    assert!(kinds(&frames).contains(&"snapshot") && kinds(&frames).contains(&"cookieDue"), "{frames:?}");
    assert!(!kinds(&frames).contains(&"token"), "{frames:?}");
    assert_eq!(away.fetch_cookie(&id, json!({})).await.0, 200);
    assert_eq!(away.get(&id).await.0, 200);
    // The token alone is good for nothing.
    let thief = Browser::new(&dev);
    let other_secret = "x".repeat(43);
    thief.jar.lock().unwrap().insert(format!("__Host-throughline-{id}"), format!("{before}~{other_secret}"));
    assert_eq!(code_of(thief.fetch_cookie(&id, json!({})).await), refused(401, "tokenRevoked"));
    assert_eq!(kinds(&thief.poll(&id, json!({})).await), ["error"]);
}

#[tokio::test]
async fn a_session_that_a_page_began_by_itself_moves_into_a_cookie() {
    let dev = dev(&ORIGINS);
    let browser = Browser::new(&dev);
    let mut socket = browser.socket(ID, "page").await;
    socket.hello(json!({ "claim": CLAIM })).await;
    socket.submit(1, json!({ "type": "create", "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }] })).await;
    let told = socket.next_of(&["cookieDue", "token", "error"]).await;
    assert_eq!(told, json!({ "type": "cookieDue" }));
    let wrong = CLAIM.replace('0', "1");
    assert_eq!(code_of(browser.fetch_cookie(ID, json!({ "claim": wrong })).await), refused(401, "credentialMissing"));
    let unfit = format!("{CLAIM};");
    assert_eq!(code_of(browser.fetch_cookie(ID, json!({ "claim": unfit })).await), refused(422, "invalidBody"));
    let (status, answer) = browser.fetch_cookie(ID, json!({ "claim": CLAIM })).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(browser.held(ID).1, CLAIM);
    let mut next = browser.socket(ID, "next").await;
    next.hello(json!({})).await;
    next.next("snapshot").await;
    assert_eq!(kinds(&browser.poll(ID, json!({})).await), ["welcome", "snapshot"], "nothing is due");
    // A session that there is not: its page has to create it first.
    let nobodys = ID.replace('c', "d");
    assert_eq!(
        code_of(browser.fetch_cookie(&nobodys, json!({ "claim": CLAIM })).await),
        refused(401, "credentialMissing")
    );
}

#[tokio::test]
async fn a_token_of_the_shop_or_of_a_link_moves_into_a_cookie_with_a_secret_of_its_own() {
    let dev = dev(&ORIGINS);
    let created = as_service(
        &dev,
        Method::POST,
        "/v1/sessions",
        json!({ "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }] }),
    )
    .await;
    let (id, token) = (text(&created["session"]["id"]), text(&created["token"]));
    let browser = Browser::new(&dev);
    let mut socket = browser.socket(&id, "page").await;
    socket.hello(json!({ "token": token })).await;
    assert_eq!(socket.next_of(&["cookieDue", "token", "error"]).await, json!({ "type": "cookieDue" }));
    let bearer = format!("Bearer {token}");
    let headers = [("origin", PAGE), ("throughline-credentials", "cookie"), ("authorization", &bearer)];
    let response = browser.send(Method::POST, &format!("/v1/sessions/{id}/cookie"), &headers, &json!({})).await;
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    let service = format!("Bearer {}", dev.service_key);
    let headers = [("origin", PAGE), ("throughline-credentials", "cookie"), ("authorization", &service)];
    let response = browser.send(Method::POST, &format!("/v1/sessions/{id}/cookie"), &headers, &json!({})).await;
    assert_eq!(response.status(), 403, "a service has no cookies");

    let (_, code) = browser.ask(Method::POST, &format!("/v1/sessions/{id}/handoff"), &json!({})).await;
    let phone = Browser::new(&dev);
    let (status, answer) = phone.ask(Method::POST, "/v1/handoff", &json!({ "code": code["code"] })).await;
    assert_eq!((status, &answer["sessionId"], answer.get("token")), (200, &json!(id), None), "{answer}");

    // Nobody is connected while it is paid, and both come back.
    drop(socket);
    pay(&dev, &id).await;
    for device in [&browser, &phone] {
        assert_eq!(code_of(device.get(&id).await), refused(401, "tokenRevoked"));
        assert_eq!(device.fetch_cookie(&id, json!({})).await.0, 200);
        assert_eq!(device.get(&id).await.0, 200);
    }
}

#[tokio::test]
async fn the_page_of_one_shop_does_not_use_the_cookie_of_another() {
    let dev = dev(&ORIGINS);
    let browser = Browser::new(&dev);
    let id = browser.create().await;
    let headers = [("origin", OTHER_SHOP), ("throughline-credentials", "cookie")];
    for (method, route, body) in [
        (Method::GET, "", Value::Null),
        (Method::PATCH, "", json!({ "metadata": {} })),
        (Method::POST, "/handoff", json!({})),
    ] {
        let response = browser.send(method, &format!("/v1/sessions/{id}{route}"), &headers, &body).await;
        assert_eq!(response.status(), 401, "{route}");
    }
    let response = browser.send(Method::POST, &format!("/v1/sessions/{id}/cookie"), &headers, &json!({})).await;
    assert_eq!(response.status(), 401, "to it there is no such session");
    let mut socket = browser.socket_of(OTHER_SHOP, &id, "other").await.unwrap();
    socket.hello(json!({})).await;
    socket.refused("unauthorized", 4401).await;
    let response = browser.send(Method::DELETE, &format!("/v1/sessions/{id}/cookie"), &headers, &Value::Null).await;
    assert_eq!(response.status(), 204);
    // Not even under the name that its own cookies have.
    let mine = browser.jar.lock().unwrap()[&format!("__Host-throughline-{id}")].clone();
    browser.jar.lock().unwrap().insert(format!("__Host-throughline-other~{id}"), mine);
    let response = browser.send(Method::GET, &format!("/v1/sessions/{id}"), &headers, &Value::Null).await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "originRefused");
    let mut socket = browser.socket_of(OTHER_SHOP, &id, "other").await.unwrap();
    socket.hello(json!({})).await;
    socket.refused("unauthorized", 4401).await;
    assert_eq!(browser.get(&id).await.0, 200, "and the shop's own page has it still");
}

#[tokio::test]
async fn asvs_7_4_1_who_leaves_ends_what_was_in_the_cookie_and_nobody_elses() {
    let dev = dev(&ORIGINS);
    let browser = Browser::new(&dev);
    let id = browser.create().await;
    let (_, code) = browser.ask(Method::POST, &format!("/v1/sessions/{id}/handoff"), &json!({})).await;
    let phone = Browser::new(&dev);
    assert_eq!(phone.ask(Method::POST, "/v1/handoff", &json!({ "code": code["code"] })).await.0, 200);
    let (_, unused_code) = browser.ask(Method::POST, &format!("/v1/sessions/{id}/handoff"), &json!({})).await;
    let (mut here, mut there) = (browser.socket(&id, "here").await, phone.socket(&id, "there").await);
    for socket in [&mut here, &mut there] {
        socket.hello(json!({})).await;
        socket.next("snapshot").await;
    }
    let copied = Browser::new(&dev);
    *copied.jar.lock().unwrap() = browser.jar.lock().unwrap().clone();

    let path = format!("/v1/sessions/{id}/cookie");
    assert_eq!(browser.ask(Method::DELETE, &path, &Value::Null).await.0, 204);
    assert_eq!(browser.cookies(), "");
    here.refused("tokenRevoked", 4405).await;
    assert_eq!(code_of(copied.get(&id).await), refused(401, "tokenRevoked"));
    assert_eq!(code_of(copied.fetch_cookie(&id, json!({})).await), refused(401, "tokenRevoked"));
    assert_eq!(kinds(&copied.poll(&id, json!({})).await), ["error"]);
    let used = phone.ask(Method::POST, "/v1/handoff", &json!({ "code": unused_code["code"] })).await;
    assert_eq!(code_of(used), refused(401, "handoffRefused"), "nor does a link that it had asked for let anybody in");
    assert_eq!(copied.ask(Method::DELETE, &path, &Value::Null).await.0, 204, "and again");

    assert_eq!(phone.get(&id).await.0, 200);
    there.submit(1, json!({ "type": "setMetadata", "metadata": { "phone": true } })).await;
    there.next("accepted").await;
}

#[tokio::test]
async fn asvs_8_2_2_the_cookie_of_one_session_is_none_of_another_whatever_its_name() {
    let dev = dev(&ORIGINS);
    let (victim, mallory) = (Browser::new(&dev), Browser::new(&dev));
    let (id, own) = (victim.create().await, mallory.create().await);
    let renamed = mallory.jar.lock().unwrap()[&format!("__Host-throughline-{own}")].clone();
    mallory.jar.lock().unwrap().insert(format!("__Host-throughline-{id}"), renamed);
    let version = victim.get(&id).await.1["version"].clone();
    for (method, route, body, expected) in [
        (Method::GET, "", Value::Null, refused(403, "wrongSession")),
        (Method::PATCH, "", json!({ "metadata": {} }), refused(403, "wrongSession")),
        (Method::POST, "/handoff", json!({}), refused(403, "wrongSession")),
        (Method::POST, "/cookie", json!({}), refused(401, "credentialMissing")),
        (Method::POST, "/cookie", json!({ "claim": CLAIM }), refused(401, "credentialMissing")),
    ] {
        let answer = mallory.ask(method, &format!("/v1/sessions/{id}{route}"), &body).await;
        assert_eq!(code_of(answer), expected, "{route}");
    }
    let headers = [
        ("origin", PAGE),
        ("throughline-credentials", "cookie"),
        ("authorization", &format!("Bearer {}", victim.held(&id).0)),
    ];
    let answer = mallory.send(Method::POST, &format!("/v1/sessions/{own}/cookie"), &headers, &json!({})).await;
    assert_eq!(answer.status(), 401, "what is in a cookie is no bearer token");
    let mut socket = mallory.socket(&id, "mallory").await;
    socket.hello(json!({})).await;
    socket.refused("unauthorized", 4401).await;
    assert_eq!(mallory.ask(Method::DELETE, &format!("/v1/sessions/{id}/cookie"), &Value::Null).await.0, 204);
    let (status, session) = victim.get(&id).await;
    assert_eq!((status, &session["version"]), (200, &version), "nothing has changed");
}

#[tokio::test]
async fn a_cookie_of_somebody_else_in_whatever_encoding_hides_nothing() {
    let dev = dev(&ORIGINS);
    let browser = Browser::new(&dev);
    let id = browser.create().await;
    browser.jar.lock().unwrap().insert("name".to_owned(), "Jos\u{e9}".to_owned());
    assert_eq!(browser.get(&id).await.0, 200);
    assert_eq!(browser.fetch_cookie(&id, json!({})).await.0, 200);
}

#[tokio::test]
async fn what_a_revoked_token_had_registered_ends_with_it() {
    let dev = dev(&ORIGINS);
    let created = as_service(&dev, Method::POST, "/v1/sessions", json!({})).await;
    let (id, token) = (text(&created["session"]["id"]), text(&created["token"]));
    let (thief, bearer) = (Browser::new(&dev), format!("Bearer {token}"));
    let headers = [("origin", PAGE), ("throughline-credentials", "cookie"), ("authorization", bearer.as_str())];
    let path = format!("/v1/sessions/{id}/cookie");
    let response = thief.send(Method::POST, &path, &headers, &json!({ "claim": CLAIM })).await;
    assert_eq!(response.status(), 200);
    let (_, code) = thief.ask(Method::POST, &format!("/v1/sessions/{id}/handoff"), &json!({})).await;
    let revoked =
        thief.client.post(format!("http://{}/v1/tokens/revoke", dev.address)).json(&json!({ "token": token }));
    assert_eq!(revoked.send().await.unwrap().status(), 204);
    assert_eq!(code_of(thief.get(&id).await), refused(401, "tokenRevoked"));
    assert_eq!(code_of(thief.fetch_cookie(&id, json!({ "claim": CLAIM })).await), refused(401, "tokenRevoked"));
    let mut socket = thief.socket(&id, "thief").await;
    socket.hello(json!({ "claim": CLAIM })).await;
    socket.refused("unauthorized", 4401).await;
    let used = thief.ask(Method::POST, "/v1/handoff", &json!({ "code": code["code"] })).await;
    assert_eq!(code_of(used), refused(401, "handoffRefused"), "nor is a code good that it had asked for");
}

#[tokio::test]
async fn a_service_key_takes_along_the_cookies_that_came_of_it() {
    let dev = dev(&ORIGINS);
    let made =
        as_service(&dev, Method::POST, "/v1/service-keys", json!({ "name": "shop", "scopes": ["sessions:write"] }))
            .await;
    let (key, key_id) = (text(&made["key"]), text(&made["id"]));
    let client = Client::new();
    let request = || client.post(format!("http://{}/v1/sessions", dev.address)).bearer_auth(&key).json(&json!({}));
    let mut created = Value::Null;
    until("the key is known", LONG, async || {
        let answer = request().send().await.unwrap();
        let is_known = answer.status() == StatusCode::CREATED;
        created = answer.json().await.unwrap();
        is_known
    })
    .await;
    let (id, bearer) = (text(&created["session"]["id"]), format!("Bearer {}", text(&created["token"])));
    let browser = Browser::new(&dev);
    let headers = [("origin", PAGE), ("throughline-credentials", "cookie"), ("authorization", bearer.as_str())];
    let path = format!("/v1/sessions/{id}/cookie");
    assert_eq!(browser.send(Method::POST, &path, &headers, &json!({})).await.status(), 200);
    assert_eq!(browser.get(&id).await.0, 200);
    let url = format!("http://{}/v1/service-keys/{key_id}", dev.address);
    assert!(client.delete(url).bearer_auth(&dev.service_key).send().await.unwrap().status().is_success());
    until("the key is refused", LONG, async || browser.get(&id).await.0 != 200).await;
    assert_eq!(code_of(browser.get(&id).await), refused(401, "tokenRevoked"));
    assert_eq!(browser.fetch_cookie(&id, json!({})).await.0, 401);
    let mut socket = browser.socket(&id, "late").await;
    socket.hello(json!({})).await;
    socket.refused("unauthorized", 4401).await;
}

#[tokio::test]
async fn a_token_that_is_over_ends_what_was_renewed_out_of_it() {
    let dev = dev(&[ORIGINS[0], ORIGINS[1], "--token-ttl", "1s"]);
    let created = as_service(&dev, Method::POST, "/v1/sessions", json!({})).await;
    let (id, first) = (text(&created["session"]["id"]), text(&created["token"]));
    let client = Client::new();
    let get = |token: String| client.get(format!("http://{}/v1/sessions/{id}", dev.address)).bearer_auth(token).send();
    let mut latest = first.clone();
    until("the first token is over", LONG, async || {
        let url = format!("http://{}/v1/sessions/{id}/token", dev.address);
        let renewed: Value = client.post(url).bearer_auth(&latest).send().await.unwrap().json().await.unwrap();
        latest = text(&renewed["token"]);
        get(first.clone()).await.unwrap().status() != StatusCode::OK
    })
    .await;
    assert_eq!(get(latest.clone()).await.unwrap().status(), 200);
    let revoke = client.post(format!("http://{}/v1/tokens/revoke", dev.address)).json(&json!({ "token": first }));
    assert_eq!(revoke.send().await.unwrap().status(), 204);
    let answer: Value = get(latest).await.unwrap().json().await.unwrap();
    assert_eq!(answer["code"], "tokenRevoked", "{answer}");
}

#[tokio::test]
async fn a_token_that_is_over_says_nothing_against_the_secret_and_the_own_one_stays() {
    let dev = dev(&[ORIGINS[0], ORIGINS[1], "--token-ttl", "1s"]);
    let browser = Browser::new(&dev);
    let id = browser.create().await;
    let own = browser.held(&id).1;
    let answer = as_service(&dev, Method::POST, &format!("/v1/sessions/{id}/token"), json!({})).await;
    let bearer = format!("Bearer {}", text(&answer["token"]));
    let headers = [("origin", PAGE), ("throughline-credentials", "cookie"), ("authorization", bearer.as_str())];
    let path = format!("/v1/sessions/{id}/cookie");
    // A link of its own, followed in the same browser, does not take the place of what lasts longer.
    let response = browser.send(Method::POST, &path, &headers, &json!({ "claim": CLAIM })).await;
    assert_eq!(response.status(), 200);
    assert_eq!(browser.held(&id).1, own);
    let url = format!("http://{}/v1/sessions/{id}", dev.address);
    until("the token is over", LONG, async || {
        browser.client.get(&url).header("authorization", &bearer).send().await.unwrap().status() != StatusCode::OK
    })
    .await;
    let response = browser.send(Method::POST, &path, &headers, &json!({ "claim": own })).await;
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    // As long as the session is there, whatever becomes of tokens.
    let set = response.headers()["set-cookie"].to_str().unwrap();
    let life: u64 = set.split("Max-Age=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!(life >= 86_000, "{set}");
}

#[tokio::test]
async fn who_asks_for_cookies_without_one_or_with_a_made_up_one_is_limited_like_anybody_without_a_credential() {
    let dev = dev(&[ORIGINS[0], ORIGINS[1], "--requests-per-minute-without-credential", "20"]);
    let id = ID;
    let forged = format!("__Host-throughline-{id}=made-up~{CLAIM}");
    let of_another = format!("__Host-throughline-ws_1_other=made-up~{CLAIM}");
    let get = (Method::GET, format!("/v1/sessions/{id}"), Value::Null);
    let remove = (Method::DELETE, format!("/v1/sessions/{id}/cookie"), Value::Null);
    let fetch = (Method::POST, format!("/v1/sessions/{id}/cookie"), json!({}));
    let sync = (Method::POST, "/v1/sync".to_owned(), json!({ "frames": [] }));
    for (number, (request, cookie, origin)) in [
        (&get, "", PAGE),
        (&get, &forged, PAGE),
        (&get, &of_another, PAGE),
        (&get, &forged, "https://evil.example"),
        (&remove, &forged, PAGE),
        (&fetch, &forged, PAGE),
        (&sync, &forged, PAGE),
    ]
    .into_iter()
    .enumerate()
    {
        // Each from an address of its own.
        let dev = if number == 0 {
            &dev
        } else {
            &self::dev(&[ORIGINS[0], ORIGINS[1], "--requests-per-minute-without-credential", "20"])
        };
        let client = Client::new();
        let (method, path, body) = request;
        let mut statuses = Vec::new();
        for _ in 0..30 {
            let sent = client.request(method.clone(), format!("http://{}{path}", dev.address)).header("origin", origin);
            let sent = sent.header("throughline-credentials", "cookie").header("cookie", cookie).json(body);
            statuses.push(sent.send().await.unwrap().status().as_u16());
        }
        assert_eq!(statuses.last(), Some(&429), "{method} {path} {cookie} {origin}: {statuses:?}");
    }
}

#[tokio::test]
async fn when_a_session_is_erased_its_cookie_goes() {
    let dev = dev(&ORIGINS);
    let browser = Browser::new(&dev);
    let id = browser.create().await;
    let url = format!("http://{}/v1/sessions/{id}", dev.address);
    assert_eq!(browser.client.delete(url).bearer_auth(&dev.service_key).send().await.unwrap().status(), 204);
    assert_eq!(code_of(browser.fetch_cookie(&id, json!({})).await), refused(410, "sessionErased"));
    assert_eq!(browser.cookies(), "");
}
