//! Many sessions at once: lists, searches, batches, statistics, the cache, and what is kept for how long.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use throughline_test_services::fleet::{Fleet, Node};

use super::binary::*;

/// How long something may take that the server does by itself every second.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with a service key and an operator's.
struct Shop {
    _server: Server,
    address: String,
    service: String,
    operator: String,
    client: Client,
    log: std::path::PathBuf,
}

fn keys(more: &[&str]) -> Value {
    let output = throughline(&[&["keys", "generate", "--json"], more].concat()).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn shop_with(more: &[&str]) -> Shop {
    let folder = tempfile::tempdir().unwrap();
    let (service, operator) = (keys(&[]), keys(&["--operator"]));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let hashes = format!("{}\n{}\n", text(&service["serviceKeyHash"]), text(&operator["serviceKeyHash"]));
    let url = format!("sqlite:{}", folder.path().join("data/t.db").display());
    let (keys, hashes) = (write(&folder, "keys", &text(&service["keys"])), write(&folder, "hashes", &hashes));
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--database-url", &url, "--log", "trace"];
    arguments.extend(["--keys-file", &keys, "--service-key-hashes-file", &hashes]);
    arguments.extend(["--session-creations-per-minute", "10000"]);
    arguments.extend(more);
    let log = folder.path().join("log");
    let mut command = throughline(&arguments);
    command.stdout(std::process::Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
    let mut process = command.spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(process.stdout.take().unwrap()));
    let mut server = Server { process, lines, folder };
    let address = address(&server.line()).to_owned();
    let (service, operator) = (text(&service["serviceKey"]), text(&operator["serviceKey"]));
    Shop { _server: server, address, service, operator, client: Client::new(), log }
}

fn shop() -> Shop {
    shop_with(&[])
}

impl Shop {
    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    fn key_for(&self, path: &str) -> &str {
        if path.starts_with("/v1/cache") { &self.operator } else { &self.service }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.ask(Method::GET, path).bearer_auth(self.key_for(path))
    }

    fn post(&self, path: &str, body: Value) -> RequestBuilder {
        self.ask(Method::POST, path).bearer_auth(self.key_for(path)).json(&body)
    }

    /// A session with this id.
    async fn create(&self, id: &str, mut body: Value) {
        body["id"] = id.into();
        let created = self.post("/v1/sessions", body).send().await.unwrap();
        assert_eq!(created.status(), StatusCode::CREATED);
    }

    async fn patch(&self, id: &str, body: Value) {
        let request = self.ask(Method::PATCH, &format!("/v1/sessions/{id}")).bearer_auth(&self.service).json(&body);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }

    async fn command(&self, id: &str, command: Value) {
        let request = self.post(&format!("/v1/sessions/{id}/commands"), json!({ "commands": [command] }));
        let outcome = json_of(request.send().await.unwrap()).await["results"][0].clone();
        assert_eq!(outcome["outcome"], "accepted", "{outcome}");
    }

    /// A session whose buyer has paid.
    async fn pay(&self, id: &str) {
        let body = json!({
            "email": format!("{id}@example.com"),
            "customer": { "firstName": "Ada", "lastName": "Lovelace" },
            "products": [{ "id": "fitspresso-1-pack", "quantity": 1 }],
        });
        self.create(id, body).await;
        self.command(id, json!({ "type": "beginProcessing" })).await;
        self.command(id, json!({ "type": "recordPayment", "transactionId": "t-1", "amount": 7900 })).await;
    }

    async fn delete(&self, id: &str) {
        let request = self.ask(Method::DELETE, &format!("/v1/sessions/{id}")).bearer_auth(&self.service);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    }

    async fn list(&self, query: &str) -> Value {
        let response = self.get(&format!("/v1/sessions?{query}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{query}");
        json_of(response).await
    }

    async fn listed(&self, query: &str) -> Vec<String> {
        ids(&self.list(query).await)
    }

    /// Asks until `is_so`.
    async fn until(&self, what: &str, path: &str, is_so: impl Fn(StatusCode, &Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let response = self.get(path).send().await.unwrap();
            let (status, body) = (response.status(), json_of(response).await);
            if is_so(status, &body) {
                return;
            }
            assert!(Instant::now() < deadline, "gave up waiting until {what}: {status} {body}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn ids(list: &Value) -> Vec<String> {
    let sessions = list["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

async fn json_of(response: Response) -> Value {
    let status = response.status();
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"))
}

async fn problem(request: RequestBuilder, status: u16, code: &str) -> Value {
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let document = json_of(response).await;
    assert_eq!(
        (document["status"].as_u64(), document["code"].as_str()),
        (Some(status.into()), Some(code)),
        "{document}"
    );
    assert!(document["detail"].is_string() && document["mendableBy"].is_string(), "{document}");
    document
}

#[tokio::test]
async fn sessions_are_listed_with_the_latest_one_first_and_filtered() {
    let shop = shop();
    for id in ["ws_1_a", "ws_1_b", "ws_1_c"] {
        shop.create(id, json!({})).await;
    }
    shop.pay("ws_1_d").await;
    shop.patch("ws_1_a", json!({ "metadata": { "n": 1 } })).await;
    shop.delete("ws_1_b").await;
    assert_eq!(shop.listed("").await, ["ws_1_d", "ws_1_c", "ws_1_b", "ws_1_a"]);
    assert_eq!(shop.listed("status=pending").await, ["ws_1_c", "ws_1_a"]);
    assert_eq!(shop.listed("status=pending&status=expired").await, ["ws_1_c", "ws_1_b", "ws_1_a"]);
    assert_eq!(shop.listed("status=expired,processing").await, ["ws_1_d", "ws_1_b"]);
    assert_eq!(shop.listed("funnel=default&limit=1").await, ["ws_1_d"]);
    assert_eq!(shop.listed("funnel=other").await, [] as [&str; 0]);
    let all = shop.list("").await;
    let step = all["sessions"][1]["currentStep"].as_str().unwrap();
    assert_eq!(shop.listed(&format!("step={step}&status=pending")).await, ["ws_1_c", "ws_1_a"]);
    let text = |index: usize, member: &str| all["sessions"][index][member].as_str().unwrap();
    let (changed, created) = (text(3, "updatedAt"), text(0, "createdAt"));
    assert_eq!(shop.listed(&format!("updatedAfter={changed}")).await, ["ws_1_b", "ws_1_a"]);
    assert_eq!(shop.listed(&format!("updatedBefore={changed}")).await, ["ws_1_d", "ws_1_c"]);
    assert_eq!(shop.listed(&format!("createdAfter={created}")).await, ["ws_1_d"]);
    assert_eq!(shop.listed(&format!("createdBefore={created}")).await, ["ws_1_c", "ws_1_b", "ws_1_a"]);
    // Each is as it is alone, what only services see included; an erased one is a tombstone.
    for (index, id) in ["ws_1_d", "ws_1_c", "ws_1_b"].into_iter().enumerate() {
        let alone = json_of(shop.get(&format!("/v1/sessions/{id}")).send().await.unwrap()).await;
        assert_eq!(all["sessions"][index], alone);
    }
    assert_eq!((&all["sessions"][0]["transactionId"], &all["sessions"][2]["email"]), (&json!("t-1"), &Value::Null));
    assert!(all.get("unreadable").is_none() && all.get("nextCursor").is_none(), "{all}");
}

#[tokio::test]
async fn what_is_for_service_keys_is_not_for_browsers_and_the_cache_is_for_operators() {
    let shop = shop();
    let created = json_of(shop.ask(Method::POST, "/v1/sessions").json(&json!({})).send().await.unwrap()).await;
    let token = created["token"].as_str().unwrap();
    let body = json!({ "ids": [created["session"]["id"]] });
    for (method, path) in [
        (Method::GET, "/v1/sessions"),
        (Method::GET, "/v1/sessions/stats"),
        (Method::POST, "/v1/sessions/batch/get"),
        (Method::POST, "/v1/cache/warm"),
        (Method::POST, "/v1/cache/invalidate"),
        (Method::GET, "/v1/cache"),
        (Method::POST, "/v1/sessions/batch/delete"),
    ] {
        let ask = || match method {
            Method::GET => shop.ask(Method::GET, path),
            _ => shop.ask(method.clone(), path).json(&body),
        };
        problem(ask().bearer_auth(token), 403, "notPermitted").await;
        problem(ask(), 401, "credentialMissing").await;
        if path.starts_with("/v1/cache") {
            problem(ask().bearer_auth(&shop.service), 403, "scopeMissing").await;
        } else {
            let answer = ask().bearer_auth(&shop.service).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
        }
        let answer = ask().bearer_auth(&shop.operator).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_query_that_is_not_understood_is_refused_by_name() {
    let shop = shop();
    for path in ["/v1/sessions", "/v1/sessions/stats"] {
        let refused = problem(shop.get(&format!("{path}?statsu=pending")), 400, "queryRefused").await;
        assert_eq!(refused["parameter"], "statsu");
        assert!(refused["detail"].as_str().unwrap().contains("createdAfter"), "{refused}");
    }
    for (query, parameter) in [
        ("status=paid", "status"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("limit=1&limit=2", "limit"),
        ("createdAfter=yesterday", "createdAfter"),
        ("updatedBefore=2026-11-25", "updatedBefore"),
        ("email=canary", "email"),
        ("step=a%20b", "step"),
        ("funnel=a%20b", "funnel"),
    ] {
        let refused = problem(shop.get(&format!("/v1/sessions?{query}")), 400, "queryRefused").await;
        assert_eq!(refused["parameter"], parameter);
        assert!(!refused["detail"].as_str().unwrap().contains("canary"), "{refused}");
    }
    for query in [
        "createdAfter=2026-01-02T00:00:00Z&createdBefore=2026-01-01T00:00:00Z",
        "createdAfter=2024-01-01T00:00:00Z&createdBefore=2026-01-01T00:00:00Z",
    ] {
        let refused = problem(shop.get(&format!("/v1/sessions/stats?{query}")), 400, "queryRefused").await;
        assert_eq!(refused["parameter"], "createdAfter");
    }
}

#[tokio::test]
async fn a_cursor_is_for_the_filters_that_it_came_with() {
    let shop = shop();
    for number in 0..3 {
        shop.create(&format!("ws_1_{number}"), json!({})).await;
    }
    let first = shop.list("limit=2&status=pending,failed").await;
    let cursor = first["nextCursor"].as_str().unwrap();
    assert_eq!(shop.listed(&format!("status=failed&status=pending&limit=50&cursor={cursor}")).await, ["ws_1_0"]);
    let other = problem(shop.get(&format!("/v1/sessions?status=pending&cursor={cursor}")), 400, "cursorRefused").await;
    assert!(other["detail"].as_str().unwrap().contains("other filters"), "{other}");
    for text in ["x", "AQAA", &format!("{cursor}%20")] {
        let path = format!("/v1/sessions?status=pending,failed&cursor={text}");
        problem(shop.get(&path), 400, "cursorRefused").await;
    }
    assert!(shop.list("limit=3").await.get("nextCursor").is_none(), "what is exactly full is not followed by nothing");
}

#[tokio::test]
async fn a_buyer_is_found_by_email_and_no_address_is_logged() {
    let shop = shop();
    shop.create("ws_1_a", json!({ "email": "Canary@Example.com" })).await;
    shop.create("ws_1_b", json!({ "email": "canary@example.com" })).await;
    shop.create("ws_1_c", json!({ "email": "ada@example.com" })).await;
    assert_eq!(shop.listed("email=CANARY%40example.com").await, ["ws_1_b", "ws_1_a"]);
    assert_eq!(shop.listed("email=canary@example.com&status=pending&limit=1").await, ["ws_1_b"]);
    assert_eq!(shop.listed("email=canary@example.com&status=failed").await, [] as [&str; 0]);
    shop.patch("ws_1_b", json!({ "email": "other@example.com" })).await;
    assert_eq!(shop.listed("email=canary@example.com").await, ["ws_1_a"]);
    shop.delete("ws_1_a").await;
    assert_eq!(shop.listed("email=canary@example.com").await, [] as [&str; 0]);
    problem(shop.get("/v1/sessions?email=canary@example.com&statsu=1"), 400, "queryRefused").await;
    let log = std::fs::read_to_string(&shop.log).unwrap();
    assert!(log.contains("/v1/sessions"), "{log}");
    assert!(!log.to_lowercase().contains("canary"), "an address is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_over_a_thousand_sessions_sees_each_once_while_others_change() {
    const SESSIONS: usize = 1_000;
    let shop = shop();
    let creating = (0..SESSIONS).map(|number| {
        let shop = &shop;
        async move { shop.create(&format!("ws_1_{number:04}"), json!({})).await }
    });
    futures_util::stream::iter(creating).buffer_unordered(32).collect::<Vec<()>>().await;

    // Every seventh changes, one after the other, until the walk is over.
    let is_over = tokio_util::sync::CancellationToken::new();
    let changing = async {
        let mut changed = HashSet::new();
        for round in 0.. {
            if is_over.is_cancelled() {
                break;
            }
            let id = format!("ws_1_{:04}", round * 7 % SESSIONS / 7 * 7);
            shop.patch(&id, json!({ "metadata": { "round": round } })).await;
            changed.insert(id);
        }
        changed
    };
    let walking = async {
        let (mut seen, mut cursor, mut parts) = (HashMap::<String, Vec<Value>>::new(), String::new(), 0);
        loop {
            let part = shop.list(&format!("limit=40{cursor}")).await;
            for session in part["sessions"].as_array().unwrap() {
                let id = session["id"].as_str().unwrap().to_owned();
                seen.entry(id).or_default().push(session["version"].clone());
            }
            parts += 1;
            match part["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        is_over.cancel();
        (seen, parts)
    };
    let (changed, (seen, parts)) = tokio::join!(changing, walking);
    assert!(parts > 15 && changed.len() > 10, "{parts} parts, {} changed", changed.len());
    for number in 0..SESSIONS {
        let id = format!("ws_1_{number:04}");
        let versions = seen.get(&id).map_or(0, Vec::len);
        assert!(versions == 1 || (changed.contains(&id) && versions == 0), "{id} was seen {versions} times");
    }
}

#[tokio::test]
async fn a_batch_tells_of_each_session_by_itself() {
    let shop = shop();
    shop.pay("ws_1_a").await;
    shop.create("ws_1_b", json!({})).await;
    let body = json!({ "ids": ["ws_1_b", "ws_9_nowhere", "not an id", "ws_1_a", "ws_1_b"] });
    let got = json_of(shop.post("/v1/sessions/batch/get", body.clone()).send().await.unwrap()).await;
    let outcomes = |answer: &Value, member: &str| -> Vec<Value> {
        answer["results"].as_array().unwrap().iter().map(|result| result[member].clone()).collect()
    };
    assert_eq!(outcomes(&got, "outcome"), ["found", "notFound", "notFound", "found", "found"]);
    assert_eq!(&json!(outcomes(&got, "id")), &body["ids"]);
    let alone = json_of(shop.get("/v1/sessions/ws_1_a").send().await.unwrap()).await;
    assert_eq!(got["results"][3]["session"], alone);

    for _ in 0..2 {
        let deleted = json_of(shop.post("/v1/sessions/batch/delete", body.clone()).send().await.unwrap()).await;
        assert_eq!(outcomes(&deleted, "outcome"), ["deleted", "notFound", "notFound", "deleted", "deleted"]);
    }
    let gone = json_of(shop.get("/v1/sessions/ws_1_a").send().await.unwrap()).await;
    assert_eq!((&gone["email"], &gone["transactionId"]), (&Value::Null, &Value::Null));
    assert_eq!(gone["status"], "completed", "a paid session is a completed one");
}

#[tokio::test]
async fn a_batch_has_its_limits() {
    let shop = shop();
    for (path, max) in [
        ("/v1/sessions/batch/get", 100),
        ("/v1/sessions/batch/delete", 100),
        ("/v1/cache/invalidate", 500),
        ("/v1/cache/warm", 500),
    ] {
        let many = |count: usize| json!({ "ids": (0..count).map(|n| format!("ws_{n}")).collect::<Vec<_>>() });
        for body in [many(0), many(max + 1)] {
            let refused = problem(shop.post(path, body), 422, "invalidBody").await;
            assert_eq!(refused["path"], "ids");
        }
        problem(shop.post(path, json!({ "id": "ws_1" })), 422, "invalidBody").await;
        let full = json_of(shop.post(path, many(max)).send().await.unwrap()).await;
        assert_eq!(full["results"].as_array().unwrap().len(), max);
    }
}

#[tokio::test]
async fn statistics_count_and_measure() {
    let shop = shop();
    let empty = json_of(shop.get("/v1/sessions/stats").send().await.unwrap()).await;
    assert_eq!((&empty["total"], &empty["conversion"], &empty["lifetime"]), (&json!(0), &Value::Null, &Value::Null));
    assert_eq!(empty["byStatus"], json!({ "pending": 0, "processing": 0, "completed": 0, "failed": 0, "expired": 0 }));
    shop.pay("ws_1_paid").await;
    shop.pay("ws_1_gone").await;
    shop.delete("ws_1_gone").await;
    shop.create("ws_1_open", json!({})).await;
    for id in ["ws_1_late", "ws_1_later"] {
        shop.create(id, json!({ "ttlMs": 250 })).await;
        let is_over = |_, session: &Value| session["status"] == "expired";
        shop.until("it expires", &format!("/v1/sessions/{id}"), is_over).await;
    }
    let stats = json_of(shop.get("/v1/sessions/stats").send().await.unwrap()).await;
    let expected = json!({ "pending": 1, "processing": 1, "completed": 1, "failed": 0, "expired": 2 });
    assert_eq!(stats["byStatus"], expected, "{stats}");
    assert_eq!((&stats["total"], &stats["erased"], &stats["ended"]), (&json!(5), &json!(1), &json!(3)));
    assert_eq!(stats["completedAmounts"], json!([{ "currency": "USD", "sessions": 1, "amount": 7900 }]));
    assert_eq!(stats["byFunnel"], json!([{ "id": "default", "version": 1, "sessions": 5 }]));
    let by_step = stats["byStep"].as_object().unwrap();
    assert_eq!(by_step.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 5, "{stats}");
    assert_eq!((&stats["conversion"], &stats["abandonment"]), (&json!(1.0 / 3.0), &json!(2.0 / 3.0)));
    assert_eq!(stats["lifetime"], json!({ "sessions": 2, "averageMs": 250.0, "medianMs": 250.0 }));
    let before = stats["createdAfter"].as_str().unwrap();
    for (query, total) in [("funnel=default", 5), ("funnel=other", 0), (&format!("createdBefore={before}"), 0)] {
        let stats = json_of(shop.get(&format!("/v1/sessions/stats?{query}")).send().await.unwrap()).await;
        assert_eq!(stats["total"], total, "{query}");
    }
}

#[tokio::test]
async fn the_cache_is_counted_warmed_and_read_again() {
    let shop = shop();
    shop.create("ws_1_a", json!({ "customer": { "firstName": "Ada", "lastName": "Lovelace" } })).await;
    let statistics = async || json_of(shop.get("/v1/cache").send().await.unwrap()).await;
    let before = statistics().await;
    assert_eq!((&before["mode"], &before["database"]["available"]), (&json!("normal"), &json!(true)));
    assert!(before.get("redis").is_none(), "{before}");
    assert_eq!((&before["memory"]["sessions"], &before["backlogCommands"]), (&json!(1), &json!(0)));
    let name = async || {
        let session = json_of(shop.get("/v1/sessions/ws_1_a").send().await.unwrap()).await;
        session["customer"]["lastName"].as_str().unwrap().to_owned()
    };
    assert_eq!(name().await, "Lovelace");
    let hits = |statistics: &Value| statistics["memory"]["hits"].as_u64().unwrap();
    let after = statistics().await;
    assert!(hits(&after) > hits(&before), "{before} {after}");

    // Somebody puts an earlier state back into the database by hand: the memory does not know.
    let url = format!("sqlite:{}", shop._server.folder.path().join("data/t.db").display());
    let mut database = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    let keep = "CREATE TABLE earlier AS SELECT version, state FROM sessions";
    sqlx::query(keep).execute(&mut database).await.unwrap();
    shop.patch("ws_1_a", json!({ "customer": { "firstName": "Ada", "lastName": "Byron" } })).await;
    let change = "UPDATE sessions SET version = earlier.version, state = earlier.state FROM earlier";
    sqlx::query(change).execute(&mut database).await.unwrap();
    assert_eq!(name().await, "Byron");
    let body = json!({ "ids": ["ws_1_a", "ws_9_nowhere", "not an id"] });
    let outcomes = async |path: &str| {
        let answer = json_of(shop.post(path, body.clone()).send().await.unwrap()).await;
        answer["results"].as_array().unwrap().iter().map(|result| result["outcome"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(outcomes("/v1/cache/invalidate").await, ["done", "notFound", "notFound"]);
    assert_eq!(statistics().await["memory"]["sessions"], 0, "it is read when somebody asks");
    assert_eq!(outcomes("/v1/cache/warm").await, ["done", "notFound", "notFound"]);
    let warmed = statistics().await;
    assert_eq!(warmed["memory"]["sessions"], 1);
    assert_eq!(name().await, "Lovelace");
    let used = statistics().await;
    assert_eq!(used["memory"]["misses"], warmed["memory"]["misses"], "what was warmed is in memory");
}

#[tokio::test]
async fn validation_says_what_is_wrong_when_it_ends_and_when_to_warn() {
    let shop = shop();
    let validate = async |id: &str| {
        json_of(shop.post(&format!("/v1/sessions/{id}/validate"), json!({})).send().await.unwrap()).await
    };
    shop.create("ws_1_a", json!({ "ttlMs": 7_200_000 })).await;
    let open = validate("ws_1_a").await;
    assert_eq!(open["valid"], true);
    let lacks = open["problems"].as_array().unwrap();
    assert!(!lacks.is_empty());
    for problem in lacks {
        assert_eq!(problem["code"], "fieldsMissing");
        assert!(problem["field"].is_string() && problem["step"].is_string() && problem["message"].is_string());
    }
    let moment = |member: &str| open[member].as_str().unwrap().to_owned();
    assert!(moment("warnAt") < moment("expiresAt"), "{open}");
    let remaining = open["remainingMs"].as_i64().unwrap();
    assert!((7_000_000..=7_200_000).contains(&remaining), "{open}");

    shop.create("ws_1_late", json!({ "ttlMs": 250 })).await;
    let is_over = |_, session: &Value| session["status"] == "expired";
    shop.until("it expires", "/v1/sessions/ws_1_late", is_over).await;
    shop.pay("ws_1_done").await;
    for command in [
        json!({ "type": "declineUpsell", "offer": "RC6" }),
        json!({ "type": "goToStep", "step": "upsell-2" }),
        json!({ "type": "declineUpsell", "offer": "SG6" }),
        json!({ "type": "goToStep", "step": "success" }),
    ] {
        shop.command("ws_1_done", command).await;
    }
    shop.create("ws_1_gone", json!({})).await;
    shop.delete("ws_1_gone").await;
    for (id, code) in
        [("ws_1_late", "sessionExpired"), ("ws_1_done", "sessionCompleted"), ("ws_1_gone", "sessionErased")]
    {
        let over = validate(id).await;
        assert_eq!((&over["valid"], &over["problems"][0]["code"]), (&json!(false), &json!(code)), "{over}");
        assert_eq!(over["problems"].as_array().unwrap().len(), 1);
        assert!(over["problems"][0]["message"].as_str().unwrap().contains("start a new"), "{over}");
    }
    assert_eq!(validate("ws_1_late").await["remainingMs"], 0);
}

#[tokio::test]
async fn sessions_that_are_over_are_deleted_after_their_retention_and_others_stay() {
    let more = ["--token-ttl", "1s", "--token-max-age", "1s", "--retention", "1s"];
    let shop = shop_with(&more);
    shop.create("ws_1_open", json!({})).await;
    shop.create("ws_1_late", json!({ "ttlMs": 250, "email": "ada@example.com" })).await;
    shop.create("ws_1_gone", json!({})).await;
    shop.delete("ws_1_gone").await;
    for id in ["ws_1_late", "ws_1_gone"] {
        // Asking keeps it in memory, and does not keep it alive.
        shop.until("it is deleted", &format!("/v1/sessions/{id}"), |status, _| status == StatusCode::NOT_FOUND).await;
        problem(shop.get(&format!("/v1/sessions/{id}/events")), 404, "sessionNotFound").await;
    }
    assert_eq!(shop.listed("").await, ["ws_1_open"]);
    let late = json!({ "commands": [{ "type": "setEmail", "email": "ada@example.com" }] });
    problem(shop.post("/v1/sessions/ws_1_late/commands", late), 404, "sessionNotFound").await;
    assert_eq!(json_of(shop.get("/v1/cache").send().await.unwrap()).await["memory"]["sessions"], 1);
}

#[test]
fn a_retention_that_tokens_would_outlive_is_refused() {
    let text = failure(&throughline(&["serve", "--dev", "--retention", "1h"]).output().unwrap());
    assert!(text.contains("retention") && text.contains("token_max_age"), "{text}");
}

#[tokio::test]
async fn a_session_is_found_right_after_its_creation_even_if_it_is_over_by_then() {
    let shop = shop();
    for number in 0..20 {
        shop.create(&format!("ws_1_{number}"), json!({ "ttlMs": 1 })).await;
    }
}

#[tokio::test]
async fn no_session_is_named_like_a_route() {
    let shop = shop();
    for id in ["stats", "batch"] {
        problem(shop.post("/v1/sessions", json!({ "id": id })), 422, "invalidField").await;
    }
}

#[tokio::test]
async fn the_routes_are_described_with_their_problems() {
    let shop = shop();
    let described = json_of(shop.ask(Method::GET, "/openapi.json").send().await.unwrap()).await;
    for (path, method, statuses) in [
        ("/v1/sessions", "get", vec!["200", "400", "401", "403", "422", "503"]),
        ("/v1/sessions/stats", "get", vec!["200", "400", "401", "403", "422", "503"]),
        ("/v1/sessions/batch/get", "post", vec!["200", "401", "403", "422", "503"]),
        ("/v1/sessions/batch/delete", "post", vec!["200", "401", "403", "422", "503"]),
        ("/v1/cache", "get", vec!["200", "401", "403"]),
        ("/v1/cache/invalidate", "post", vec!["200", "401", "403", "422", "503"]),
        ("/v1/cache/warm", "post", vec!["200", "401", "403", "422", "503"]),
    ] {
        let operation = &described["paths"][path][method];
        for status in statuses {
            assert!(operation["responses"][status].is_object(), "{method} {path} does not describe {status}");
        }
    }
    let list = described["paths"]["/v1/sessions"]["get"]["parameters"].as_array().unwrap();
    assert_eq!(list.len(), 10);
    assert!(described["paths"]["/v1/sessions"]["get"]["description"].as_str().unwrap().contains("second"));
}

/// Asks a server of several.
fn at(fleet: &Fleet, node: &Node, method: Method, path: &str) -> RequestBuilder {
    Client::new().request(method, format!("http://{}{path}", node.address)).bearer_auth(&fleet.service_key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_servers_delete_what_is_over_from_every_tier_of_all_of_them() {
    const SESSIONS: usize = 30;
    let fleet = Fleet::start(env!("CARGO_BIN_EXE_throughline")).unwrap();
    let more = ["--token-ttl", "3s", "--token-max-age", "3s", "--retention", "3s"];
    let nodes = [fleet.node("a", &more).unwrap(), fleet.node("b", &more).unwrap()];
    let paths: Vec<String> = (0..SESSIONS).map(|number| format!("/v1/sessions/ws_1_{number}")).collect();
    for (number, path) in paths.iter().enumerate() {
        let body = json!({ "id": format!("ws_1_{number}"), "customer": { "lastName": "canary" } });
        let created = at(&fleet, &nodes[number % 2], Method::POST, "/v1/sessions").json(&body).send().await.unwrap();
        assert_eq!(created.status(), StatusCode::CREATED);
        let other = &nodes[(number + 1) % 2];
        assert_eq!(at(&fleet, other, Method::GET, path).send().await.unwrap().status(), StatusCode::OK);
        let deleted = at(&fleet, other, Method::DELETE, path).send().await.unwrap();
        assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    }
    let open = json!({ "id": "ws_1_open" });
    at(&fleet, &nodes[0], Method::POST, "/v1/sessions").json(&open).send().await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    for path in &paths {
        for node in &nodes {
            while at(&fleet, node, Method::GET, path).send().await.unwrap().status() != StatusCode::NOT_FOUND {
                assert!(Instant::now() < deadline, "{path} is still there; {}", node.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    for node in &nodes {
        let list = json_of(at(&fleet, node, Method::GET, "/v1/sessions").send().await.unwrap()).await;
        assert_eq!(ids(&list), ["ws_1_open"]);
    }
    let deleted = nodes[0].metric("throughline_deleted_sessions_total").await.unwrap()
        + nodes[1].metric("throughline_deleted_sessions_total").await.unwrap();
    assert_eq!(deleted as usize, SESSIONS, "each goes once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidation_loses_nothing_that_is_not_in_the_database_yet() {
    let fleet = Fleet::start(env!("CARGO_BIN_EXE_throughline")).unwrap();
    let more = ["--flush-interval", "1s"];
    let nodes = [fleet.node("a", &more).unwrap(), fleet.node("b", &more).unwrap()];
    let body = json!({ "id": "ws_1_a" });
    at(&fleet, &nodes[0], Method::POST, "/v1/sessions").json(&body).send().await.unwrap();
    let mut relaxed = 0;
    for number in 1..=20 {
        let command = json!({ "type": "setMetadata", "metadata": { "n": number }, "clientId": "shop", "seq": number,
            "durability": "relaxed" });
        let path = "/v1/sessions/ws_1_a/commands";
        let sent = at(&fleet, &nodes[0], Method::POST, path).json(&json!({ "commands": [command] })).send();
        let outcome = json_of(sent.await.unwrap()).await["results"][0].clone();
        assert_eq!(outcome["outcome"], "accepted", "{outcome}");
        relaxed += usize::from(outcome["durable"] == false);
        for node in &nodes {
            let ids = json!({ "ids": ["ws_1_a"] });
            let answer = at(&fleet, node, Method::POST, "/v1/cache/invalidate").json(&ids).send().await.unwrap();
            assert_eq!(json_of(answer).await["results"][0]["outcome"], "done");
            let session = json_of(at(&fleet, node, Method::GET, "/v1/sessions/ws_1_a").send().await.unwrap()).await;
            assert_eq!(session["metadata"]["n"], number);
        }
    }
    assert!(relaxed > 0, "no command was ahead of the database");
    let cache = json_of(at(&fleet, &nodes[0], Method::GET, "/v1/cache").send().await.unwrap()).await;
    assert_eq!((&cache["mode"], &cache["redis"]["available"]), (&json!("normal"), &json!(true)));
}
