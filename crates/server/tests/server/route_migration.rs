//! A shop that moves here route by route: the modes of its routes, and how far both sides agree.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::binary::throughline;
use super::fleets::{LONG, fleet};
use throughline_test_services::fleet::{Fleet, Node};

async fn ask(fleet: &Fleet, node: &Node, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
    let request =
        Client::builder().timeout(LONG).build().unwrap().request(method, format!("http://{}{path}", node.address));
    let request = body.into_iter().fold(request.bearer_auth(&fleet.service_key), |request, body| request.json(body));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

async fn set(fleet: &Fleet, node: &Node, route: &str, mode: &str) -> u16 {
    ask(fleet, node, Method::PUT, &format!("/v1/routes/{route}"), Some(&json!({ "mode": mode }))).await.0
}

#[tokio::test]
async fn the_mode_of_a_route_is_every_servers_at_once_and_in_the_audit_log() {
    let fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    for mode in ["shadow", "compare", "compare", "on"] {
        assert_eq!(set(&fleet, &nodes[0], "POST%20%2Fapi%2Fupsell%2Fprocess", mode).await, 204);
        let (_, list) = ask(&fleet, &nodes[1], Method::GET, "/v1/routes", None).await;
        let entry = &list["routes"][0];
        assert_eq!((&entry["route"], &entry["mode"]), (&json!("POST /api/upsell/process"), &json!(mode)));
    }
    assert_eq!(set(&fleet, &nodes[0], "checkout", "sometimes").await, 422);
    assert_eq!(set(&fleet, &nodes[0], &"x".repeat(101), "off").await, 422);
    assert_eq!(set(&fleet, &nodes[0], "GET%20%2Fbuyer%2F4111-1111-1111-1111", "on").await, 422);
    let (url, keys) = (fleet.postgres.url("shop"), fleet.keys_file().display().to_string());
    let log = fleet.run(&["audit", "export", "--database-url", &url, "--keys-file", &keys]).unwrap();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("routeModeSet")).collect();
    assert_eq!(told.len(), 3, "each change, and what was so already not: {told:?}");
    assert!(told[0].contains("POST /api/upsell/process: shadow"), "{}", told[0]);
}

#[tokio::test]
async fn differences_are_counted_over_all_servers_and_shown_as_a_page() {
    let fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    set(&fleet, &nodes[0], "checkout", "compare").await;
    set(&fleet, &nodes[0], "<img>", "shadow").await;
    let report = json!({ "routes": [{ "route": "checkout", "equal": 97, "different": 2, "unifiedFailed": 1, "differences": [
        { "field": "status", "legacy": "processing", "unified": "completed", "sessionId": "ws_1_a", "at": "2026-11-20T09:00:00Z" },
        { "field": "email", "legacy": "ada%40example.com", "unified": "<b>a***@e***</b>", "sessionId": "jane@example.com",
          "at": "2099-11-20T09:00:00Z" },
        { "field": "note", "legacy": "4111 1111 1111 1111", "unified": "79", "sessionId": "ws_1_a", "at": "2026-11-20T09:00:00Z" },
    ] }] });
    for node in &nodes {
        assert_eq!(ask(&fleet, node, Method::POST, "/v1/parity", Some(&report)).await.0, 204);
    }
    let (_, parity) = ask(&fleet, &nodes[1], Method::GET, "/v1/parity", None).await;
    let route = parity["routes"].as_array().unwrap().iter().find(|route| route["route"] == "checkout").unwrap();
    assert_eq!((&route["mode"], &route["equal"], &route["different"]), (&json!("compare"), &json!(194), &json!(4)));
    assert_eq!((&route["unifiedFailed"], &route["fields"][1]["times"]), (&json!(2), &json!(2)));
    let email = route["fields"].as_array().unwrap().iter().find(|field| field["field"] == "email").unwrap();
    assert_eq!(email["examples"][0]["legacy"], "(an email address)", "nothing that was not masked is kept");
    assert_eq!(email["examples"][0].get("sessionId"), None, "what is no id of a session");
    let note = route["fields"].as_array().unwrap().iter().find(|field| field["field"] == "note").unwrap();
    let example = &note["examples"][0];
    assert_eq!((&example["legacy"], &example["sessionId"]), (&json!("(a long number)"), &json!("ws_1_a")));
    assert!(email["lastAt"].as_str().unwrap() < "2099", "a clock that is ahead");

    let page = Client::new().get(format!("http://{}/v1/parity", nodes[0].address)).bearer_auth(&fleet.service_key);
    let page = page.header("accept", "text/html").send().await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let page = page.text().await.unwrap();
    for shown in ["checkout", "97.00 % the same", "&lt;img&gt;", "&lt;b&gt;a***@e***", "processing"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains("ada@example.com") && !page.contains("<img>"));

    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), &fleet.service_key).unwrap();
    let server = format!("http://{}", nodes[0].address);
    let routes = |arguments: &[&str]| {
        let key = keys.path().display().to_string();
        let more = ["--server", &server, "--service-key-file", &key];
        throughline(&[&["routes"], arguments, &more].concat()).output().unwrap()
    };
    let told = routes(&["report"]);
    assert_eq!(told.status.code(), Some(3), "they differ: {}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("2 x  status") && told.contains("legacy \"processing\", unified \"completed\""), "{told}");
    let set = routes(&["set", "POST /api/upsell/process", "on"]);
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let list = String::from_utf8(routes(&["list"]).stdout).unwrap();
    assert!(list.contains("on       POST /api/upsell/process"), "{list}");
    assert!(!routes(&["set", "checkout", "sometimes"]).status.success());

    for named in [
        json!({ "route": "GET /buyer/jane@example.com" }),
        json!({ "route": "checkout", "differences": [{ "field": "ada@example.com", "legacy": "1", "unified": "2", "at": "2026-11-20T09:00:00Z" }] }),
    ] {
        let (status, problem) =
            ask(&fleet, &nodes[0], Method::POST, "/v1/parity", Some(&json!({ "routes": [named] }))).await;
        assert_eq!((status, &problem["code"]), (422, &json!("invalidBody")), "{problem}");
        assert!(!problem.to_string().contains("example.com"), "{problem}");
    }

    let too_many: Vec<Value> = (0..201).map(|_| report["routes"][0]["differences"][0].clone()).collect();
    let report = json!({ "routes": [{ "route": "checkout", "differences": too_many }] });
    assert_eq!(ask(&fleet, &nodes[0], Method::POST, "/v1/parity", Some(&report)).await.0, 422);
    assert_eq!(ask(&fleet, &nodes[0], Method::DELETE, "/v1/parity?route=checkout", None).await.0, 204);
    let (_, parity) = ask(&fleet, &nodes[1], Method::GET, "/v1/parity", None).await;
    assert!(parity["routes"].as_array().unwrap().iter().all(|route| route["equal"] == 0), "{parity}");
}
