//! Webhooks: what is sent, in which order, and what happens when it does not arrive.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use throughline_test_services::fleet::Fleet;

use super::binary::*;
use super::fleets::{LONG, fleet, until};
use super::webhook_receiver::{Answer, Receiver};

/// How fast a test wants things to be tried again, and that receivers on this machine may be told.
const QUICK: [&str; 6] =
    ["--webhook-retries", "300ms,300ms,300ms", "--webhook-timeout", "1s", "--webhook-networks", "127.0.0.0/8"];

/// A shop's back end: a server's address and a key for it.
struct BackEnd {
    address: String,
    key: String,
}

impl BackEnd {
    fn of(dev: &Dev) -> Self {
        Self { address: dev.address.clone(), key: dev.service_key.clone() }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let client = Client::builder().timeout(LONG).build().unwrap();
        client.request(method, format!("http://{}{path}", self.address)).bearer_auth(&self.key)
    }

    async fn done(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.ask(method, path).json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn refused(&self, method: Method, path: &str, body: Value) -> (u16, String) {
        let answer = self.ask(method, path).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        (status, format!("{} {}", problem["code"], problem["detail"]))
    }

    /// Makes a webhook; its id and secret.
    async fn webhook(&self, url: &str) -> (String, String) {
        let made = self.done(Method::POST, "/v1/webhooks", json!({ "url": url })).await;
        (text(&made["id"]), text(&made["secret"]))
    }

    async fn look(&self, id: &str) -> Value {
        self.done(Method::GET, &format!("/v1/webhooks/{id}"), json!({})).await
    }

    async fn session(&self) -> String {
        text(&self.done(Method::POST, "/v1/sessions", json!({})).await["session"]["id"])
    }

    /// Changes something about a session, `times` times.
    async fn change(&self, session: &str, times: u32) {
        for number in 0..times {
            let commands = json!({ "commands": [{ "type": "setMetadata", "metadata": { "number": number, "at": fastrand::u64(..1 << 50) } }] });
            self.done(Method::POST, &format!("/v1/sessions/{session}/commands"), commands).await;
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

async fn taken(receiver: &Receiver, session: &str, count: usize) {
    let kinds = || receiver.taken_of(session).iter().map(|arrived| arrived.kind().to_owned()).collect::<Vec<_>>();
    let arrive = tokio::time::timeout(LONG, async {
        while kinds().len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(arrive.await.is_ok(), "{count} events of {session} are due, not {:?}", kinds());
}

/// The events of a session arrived in the order of its versions.
fn in_order(receiver: &Receiver, session: &str) -> Vec<u64> {
    let versions: Vec<u64> = receiver.taken_of(session).iter().map(|arrived| arrived.version()).collect();
    assert!(versions.is_sorted(), "{session}: {versions:?}");
    versions
}

#[tokio::test]
async fn what_happens_is_sent_signed_and_in_order() {
    let dev = dev(&QUICK);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let before = shop.session().await;
    let (id, secret) = shop.webhook(&receiver.url).await;
    let session = shop.session().await;
    shop.change(&session, 3).await;
    shop.done(Method::POST, &format!("/v1/sessions/{session}/commands"), json!({ "commands": [{ "type": "erase" }] }))
        .await;
    taken(&receiver, &session, 6).await;
    let arrived = receiver.taken_of(&session);
    let kinds: Vec<&str> = arrived.iter().map(|arrived| arrived.kind()).collect();
    let changed = "session.updated";
    let ended = ["session.erased", "session.statusChanged"];
    assert_eq!(kinds, [&["session.created", changed, changed, changed], &ended[..]].concat());
    in_order(&receiver, &session);
    for message in &arrived {
        assert!(message.verifies(&secret), "{message:?}");
        assert!(!message.verifies("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"));
        assert_eq!(message.event["id"], message.id);
        assert_eq!(message.headers["content-type"], "application/json");
    }
    assert!(receiver.taken_of(&before).is_empty(), "a webhook is told of what happens from its beginning on");
    until("it is written down", LONG, async || shop.look(&id).await["delivered"] == 6).await;
    let webhook = shop.look(&id).await;
    assert_eq!((&webhook["state"], &webhook["waiting"]), (&json!("working"), &json!(0)));
}

#[tokio::test]
async fn only_the_types_that_were_asked_for_are_sent() {
    let dev = dev(&QUICK);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let wanted = json!({ "url": receiver.url, "types": ["session.created"], "description": "orders" });
    let webhook = shop.done(Method::POST, "/v1/webhooks", wanted).await;
    let session = shop.session().await;
    shop.change(&session, 2).await;
    let later = shop.session().await;
    taken(&receiver, &later, 1).await;
    assert!(receiver.taken().iter().all(|arrived| arrived.kind() == "session.created"));
    let path = format!("/v1/webhooks/{}", text(&webhook["id"]));
    let changed = shop.done(Method::PATCH, &path, json!({ "types": ["session.updated"] })).await;
    assert_eq!((&changed["types"], &changed["description"]), (&json!(["session.updated"]), &json!("orders")));
    shop.change(&later, 1).await;
    taken(&receiver, &later, 2).await;
    assert_eq!(receiver.taken_of(&later)[1].kind(), "session.updated");
}

#[tokio::test]
async fn a_session_whose_events_fail_waits_and_others_go_on() {
    let dev = dev(&QUICK);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let (id, _) = shop.webhook(&receiver.url).await;
    let (poor, well) = (shop.session().await, shop.session().await);
    taken(&receiver, &poor, 1).await;
    taken(&receiver, &well, 1).await;
    let failing = poor.clone();
    receiver.does(move |arrived| if arrived.session() == failing { Answer::Status(500, &[]) } else { Answer::Take });
    shop.change(&poor, 3).await;
    shop.change(&well, 3).await;
    taken(&receiver, &well, 4).await;
    let tried = |session: &str| {
        let arrived =
            receiver.arrived().into_iter().filter(|arrived| arrived.session() == session && !arrived.is_taken);
        arrived.map(|arrived| arrived.id).collect::<HashSet<_>>()
    };
    until("it is tried again", LONG, async || {
        receiver.arrived().iter().filter(|one| one.session() == poor).count() > 2
    })
    .await;
    assert_eq!(tried(&poor).len(), 1, "what comes after an event that fails is not sent before it");
    assert_eq!(shop.look(&id).await["waiting"], 3);
    let deliveries = shop.done(Method::GET, &format!("/v1/webhooks/{id}/deliveries"), json!({})).await;
    assert_eq!(deliveries["waiting"][0]["failure"], "it answered 500 Internal Server Error");
    assert_eq!(deliveries["waiting"][1]["tries"], 0);
    receiver.does(|_| Answer::Take);
    taken(&receiver, &poor, 4).await;
    assert_eq!(in_order(&receiver, &poor).len(), 4);
    until("nothing waits", LONG, async || shop.look(&id).await["waiting"] == 0).await;
}

#[tokio::test]
async fn an_event_that_keeps_failing_is_given_up_and_can_be_sent_again() {
    let dev = dev(&QUICK);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let (id, _) = shop.webhook(&receiver.url).await;
    let (poison, well) = (shop.session().await, shop.session().await);
    taken(&receiver, &well, 1).await;
    taken(&receiver, &poison, 1).await;
    let failing = poison.clone();
    receiver.does(move |arrived| {
        let is_poison = arrived.session() == failing && arrived.version() == 2;
        if is_poison { Answer::Status(400, &[]) } else { Answer::Take }
    });
    shop.change(&poison, 2).await;
    let tries = || receiver.arrived().iter().filter(|one| one.session() == poison && one.version() == 2).count();
    until("it is tried for as often as is said", LONG, async || tries() >= 4).await;
    assert_eq!(shop.look(&id).await["givenUp"], 0, "while nothing else arrives, it may not be the event's fault");
    until("it is given up", LONG, async || {
        shop.change(&well, 1).await;
        shop.look(&id).await["givenUp"] == 1
    })
    .await;
    taken(&receiver, &poison, 2).await;
    assert_eq!(in_order(&receiver, &poison), [1, 3], "what waited for it goes on");
    receiver.does(|_| Answer::Take);
    shop.done(Method::POST, &format!("/v1/webhooks/{id}/replay"), json!({ "givenUp": true })).await;
    taken(&receiver, &poison, 3).await;
    until("it is not given up", LONG, async || shop.look(&id).await["givenUp"] == 0).await;
}

#[tokio::test]
async fn a_receiver_that_is_away_misses_nothing_and_is_not_hammered() {
    let dev = dev(&[&QUICK[..2], &["--webhook-timeout", "1s", "--webhook-networks", "127.0.0.1"]].concat());
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let (id, _) = shop.webhook(&receiver.url).await;
    let elsewhere = Receiver::start().await;
    let location: &'static str = elsewhere.url.clone().leak();
    receiver.does(move |arrived| match arrived.version() % 4 {
        0 => Answer::Status(503, &[]),
        1 => Answer::Redirect(location),
        2 => Answer::TakeAndBreak,
        _ => Answer::Hang,
    });
    let sessions = [shop.session().await, shop.session().await, shop.session().await, shop.session().await];
    for session in &sessions {
        shop.change(session, 5).await;
    }
    until("it fails", LONG, async || {
        let webhook = shop.look(&id).await;
        webhook["state"] == "failing" && webhook["nextTryAt"].is_string()
    })
    .await;
    let aside = shop.look(&id).await["waiting"].as_u64().unwrap();
    // While it is away, one try follows on another.
    let before = receiver.arrived().len();
    until("it is tried", LONG, async || receiver.arrived().len() >= before + 2).await;
    let more = shop.session().await;
    shop.change(&more, 5).await;
    assert!(shop.look(&id).await["waiting"].as_u64().unwrap() <= aside, "nothing more is put aside");
    receiver.does(|_| Answer::Take);
    for session in sessions.iter().chain([&more]) {
        taken(&receiver, session, 6).await;
        assert_eq!(in_order(&receiver, session).len(), 6, "{session}");
    }
    until("it works", LONG, async || shop.look(&id).await["state"] == "working").await;
    assert!(elsewhere.arrived().is_empty(), "redirects are not followed");
}

#[tokio::test]
async fn a_short_outage_of_many_sessions_is_over_soon() {
    let dev = dev(&[
        "--webhook-retries",
        "300ms,300ms,300ms,300ms,300ms,300ms,300ms,300ms,1h",
        "--webhook-timeout",
        "1s",
        "--webhook-networks",
        "127.0.0.1",
    ]);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let (id, _) = shop.webhook(&receiver.url).await;
    receiver.does(|_| Answer::Status(502, &[]));
    let mut sessions = Vec::new();
    for _ in 0..30 {
        sessions.push(shop.session().await);
    }
    until("it fails", LONG, async || shop.look(&id).await["state"] == "failing").await;
    receiver.does(|_| Answer::Take);
    for session in &sessions {
        taken(&receiver, session, 1).await;
    }
}

#[tokio::test]
async fn a_receiver_says_for_how_long_it_wants_to_be_left_alone() {
    let dev = dev(&QUICK);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let (id, _) = shop.webhook(&receiver.url).await;
    receiver.does(|_| Answer::Status(429, &[("retry-after", "3")]));
    let begun = std::time::Instant::now();
    let session = shop.session().await;
    until("it has failed", LONG, async || !receiver.arrived().is_empty()).await;
    receiver.does(|_| Answer::Take);
    taken(&receiver, &session, 1).await;
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    // What nobody wants any more is not tried again either, and who asks for something else need not wait.
    receiver.does(|_| Answer::Status(429, &[("retry-after", "3600")]));
    shop.change(&session, 1).await;
    until("it waits", LONG, async || shop.look(&id).await["waiting"] == 1).await;
    let path = format!("/v1/webhooks/{id}");
    shop.done(Method::PATCH, &path, json!({ "types": ["session.created"] })).await;
    assert_eq!(shop.look(&id).await["waiting"], 0);
    receiver.does(|_| Answer::Take);
    let other = shop.session().await;
    taken(&receiver, &other, 1).await;
}

#[tokio::test]
async fn a_receiver_that_stays_away_is_disabled_and_goes_on_where_it_was() {
    let dev = dev(&[&QUICK[..], &["--webhook-disable-after", "1s"]].concat());
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let (id, _) = shop.webhook(&receiver.url).await;
    receiver.does(|_| Answer::Status(500, &[]));
    let session = shop.session().await;
    shop.change(&session, 2).await;
    until("it is disabled", LONG, async || shop.look(&id).await["state"] == "disabled").await;
    let webhook = shop.look(&id).await;
    assert!(text(&webhook["disabledBecause"]).contains("nothing has arrived for 1s"), "{webhook}");
    assert!(dev.server.log().contains("a webhook is disabled"), "{}", dev.server.log());
    let before = receiver.arrived().len();
    shop.change(&session, 1).await;
    let works = Receiver::start().await;
    shop.webhook(&works.url).await;
    let later = shop.session().await;
    taken(&works, &later, 1).await;
    assert_eq!(receiver.arrived().len(), before, "nothing is sent to it");
    receiver.does(|_| Answer::Take);
    let path = format!("/v1/webhooks/{id}");
    assert_eq!(shop.done(Method::PATCH, &path, json!({ "enabled": true })).await["state"], "working");
    taken(&receiver, &session, 4).await;
    assert_eq!(in_order(&receiver, &session).len(), 4);
    // One that says that it is gone needs no time.
    receiver.does(|_| Answer::Status(410, &[]));
    shop.change(&session, 1).await;
    until("it is disabled", LONG, async || shop.look(&id).await["state"] == "disabled").await;
    assert!(text(&shop.look(&id).await["disabledBecause"]).contains("410 Gone"));
}

#[tokio::test]
async fn what_was_sent_can_be_sent_again_from_a_place_or_a_time_on() {
    let dev = dev(&QUICK);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let (id, _) = shop.webhook(&receiver.url).await;
    let begun = text(&shop.look(&id).await["createdAt"]);
    let session = shop.session().await;
    shop.change(&session, 2).await;
    taken(&receiver, &session, 3).await;
    let ids = |count: usize| receiver.taken().into_iter().take(count).map(|arrived| arrived.id).collect::<Vec<_>>();
    let path = format!("/v1/webhooks/{id}/replay");
    for (times, wanted) in [(2, json!({ "after": "0" })), (3, json!({ "since": begun }))] {
        shop.done(Method::POST, &path, wanted).await;
        until("all is sent again", LONG, async || receiver.taken().len() >= times * 3).await;
        let all = ids(times * 3);
        assert_eq!(all[..3], all[all.len() - 3..], "under the same ids, in the same order");
    }
    assert_eq!(receiver.taken_of(&session).len(), 3);
    for (wanted, why) in [
        (json!({}), "exactly one of"),
        (json!({ "after": "0", "givenUp": true }), "exactly one of"),
        (json!({ "after": "99999999" }), "there is no such event yet"),
        (json!({ "after": "one" }), "a whole number"),
    ] {
        let (status, problem) = shop.refused(Method::POST, &path, wanted).await;
        assert!(status == 422 && problem.contains(why), "{status} {problem}");
    }
}

#[tokio::test]
async fn a_new_secret_signs_beside_the_old_one_for_a_day() {
    let dev = dev(&QUICK);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let (id, old) = shop.webhook(&receiver.url).await;
    let rotated = shop.done(Method::POST, &format!("/v1/webhooks/{id}/rotate-secret"), json!({})).await;
    let new = text(&rotated["secret"]);
    assert_ne!(new, old);
    let session = shop.session().await;
    taken(&receiver, &session, 1).await;
    let message = &receiver.taken_of(&session)[0];
    assert!(message.verifies(&old) && message.verifies(&new));
    let shown = shop.look(&id).await.to_string();
    assert!(!shown.contains("whsec_") && !dev.server.log().contains("whsec_"), "a secret is shown once");
    // Nothing of it is in the database either.
    let folder = dev.server.folder.path().join("data");
    for file in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let secret = new.trim_start_matches("whsec_").as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

#[tokio::test]
async fn nothing_is_sent_to_where_only_the_server_itself_can_go() {
    let dev = dev(&["--webhook-timeout", "1s"]);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let port = receiver.url.trim_end_matches("/hooks").rsplit(':').next().unwrap().to_owned();
    for (url, why) in [
        (format!("http://127.0.0.1:{port}/hooks"), "not a public address"),
        (format!("https://127.0.0.1:{port}/hooks"), "not a public address"),
        (format!("https://[::ffff:127.0.0.1]:{port}/"), "not a public address"),
        ("http://shop.example/hooks".to_owned(), "--webhook-networks"),
        ("https://ada:secret@shop.example/".to_owned(), "no password"),
        ("shop.example".to_owned(), "no address"),
    ] {
        let (status, problem) = shop.refused(Method::POST, "/v1/webhooks", json!({ "url": url })).await;
        assert!(status == 422 && problem.contains(why), "{url}: {status} {problem}");
    }
    // What a name stands for is seen when it is connected to.
    let (id, _) = shop.webhook(&format!("https://localhost:{port}/hooks")).await;
    let outcome = shop.done(Method::POST, &format!("/v1/webhooks/{id}/test"), json!({})).await;
    assert_eq!(outcome["arrived"], false);
    assert!(text(&outcome["failure"]).contains("not a public address"), "{outcome}");
    shop.session().await;
    until("it is tried", LONG, async || shop.look(&id).await["tries"].as_u64() > Some(0)).await;
    assert!(receiver.arrived().is_empty());
}

#[tokio::test]
async fn a_webhook_is_tried_out_listed_and_removed_and_all_of_that_is_audited() {
    let dev = dev(&QUICK);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    let (id, secret) = shop.webhook(&receiver.url).await;
    let path = format!("/v1/webhooks/{id}");
    let outcome = shop.done(Method::POST, &format!("{path}/test"), json!({})).await;
    assert_eq!((&outcome["arrived"], &outcome["status"]), (&json!(true), &json!(204)));
    let message = receiver.arrived().pop().unwrap();
    assert!(message.kind() == "webhook.test" && message.verifies(&secret));
    let list = shop.done(Method::GET, "/v1/webhooks", json!({})).await;
    assert_eq!(list["webhooks"][0]["id"], id);
    shop.done(Method::PATCH, &path, json!({ "enabled": false })).await;
    assert!(text(&shop.look(&id).await["disabledBecause"]).starts_with("service:"));
    shop.done(Method::DELETE, &path, json!({})).await;
    for (method, path) in
        [(Method::GET, path.clone()), (Method::DELETE, path.clone()), (Method::POST, format!("{path}/test"))]
    {
        let (status, problem) = shop.refused(method, &path, json!({})).await;
        assert!(status == 404 && problem.contains("webhookNotFound"), "{status} {problem}");
    }
    let url = format!("sqlite:{}", dev.server.folder.path().join("data/t.db").display());
    let keys = dev.server.folder.path().join("data/t.db.keys").display().to_string();
    let exported = throughline(&["audit", "export", "--database-url", &url, "--keys-file", &keys]).output().unwrap();
    let log = String::from_utf8(exported.stdout).unwrap();
    for did in ["webhookCreated", "webhookDisabled", "webhookRemoved"] {
        let entry = log.lines().find(|line| line.contains(did)).unwrap_or_else(|| panic!("{did} is not in {log}"));
        assert!(entry.contains(&id), "{entry}");
    }
}

/// Runs `throughline webhooks`; with what it ended, and what it printed.
fn command(dev: &Dev, arguments: &[&str]) -> (i32, String) {
    let server = format!("http://{}", dev.address);
    let mut command = throughline(&[&["webhooks"], arguments, &["--server", &server]].concat());
    let output = command.env("THROUGHLINE_SERVICE_KEY", &dev.service_key).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_does_all_that_there_is_to_do_about_webhooks() {
    let dev = dev(&QUICK);
    let (shop, receiver) = (BackEnd::of(&dev), Receiver::start().await);
    assert!(command(&dev, &["list"]).1.contains("there is no webhook"));
    let (code, made) = command(&dev, &["create", &receiver.url, "--type", "session.created", "--json"]);
    assert_eq!(code, 0, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    let (id, secret) = (text(&made["id"]), text(&made["secret"]));
    let (code, printed) = command(&dev, &["test", &id]);
    assert!(code == 0 && printed.contains("it arrived: 204"), "{printed}");
    receiver.does(|_| Answer::Status(500, &[]));
    let (code, printed) = command(&dev, &["test", &id]);
    assert!(code == 3 && printed.contains("it answered 500"), "{code} {printed}");
    receiver.does(|_| Answer::Take);
    let session = shop.session().await;
    taken(&receiver, &session, 1).await;
    until("it is written down", LONG, async || shop.look(&id).await["delivered"] == 1).await;
    let (_, shown) = command(&dev, &["show", &id]);
    assert!(shown.contains("1 delivered") && shown.contains(&session) && shown.contains("session.created"), "{shown}");
    let before = receiver.taken().len();
    let (code, printed) = command(&dev, &["replay", &id, "--after", "0"]);
    assert_eq!(code, 0, "{printed}");
    until("it is sent again", LONG, async || receiver.taken().len() > before).await;
    let (_, rotated) = command(&dev, &["rotate-secret", &id]);
    assert!(rotated.contains("whsec_") && !rotated.contains(&secret), "{rotated}");
    assert!(command(&dev, &["disable", &id]).1.contains("disabled"));
    assert!(command(&dev, &["enable", &id]).1.contains("working"));
    assert_eq!(command(&dev, &["replay", &id]).0, 2, "it has to be said what is sent again");
    assert_eq!(command(&dev, &["remove", &id]).0, 0);
    let (code, printed) = command(&dev, &["show", &id]);
    assert!(code == 1 && printed.contains("there is no webhook with this id"), "{code} {printed}");
}

/// A webhook of a fleet, with what its receiver took.
async fn of_fleet(fleet: &Fleet, address: &str, receiver: &Receiver) -> (BackEnd, String) {
    let shop = BackEnd { address: address.to_owned(), key: fleet.service_key.clone() };
    let id = shop.webhook(&receiver.url).await.0;
    (shop, id)
}

#[tokio::test]
async fn a_server_that_dies_while_it_delivers_is_followed_by_another_and_nothing_is_missed() {
    let fleet = fleet();
    let receiver = Receiver::start().await;
    let mut nodes = [fleet.node("a", &QUICK).unwrap(), fleet.node("b", &QUICK).unwrap()];
    let (shop, _) = of_fleet(&fleet, &nodes[0].address, &receiver).await;
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(shop.session().await);
    }
    for session in &sessions {
        shop.change(session, 2).await;
    }
    // In the middle of it: one of the two delivers, and both are killed in their turn.
    until("it is under way", LONG, async || receiver.taken().len() >= 4).await;
    for index in 0..2 {
        nodes[index].kill().unwrap();
        let shop = BackEnd { address: nodes[1 - index].address.clone(), key: fleet.service_key.clone() };
        for session in &sessions {
            shop.change(session, 2).await;
        }
        for session in &sessions {
            taken(&receiver, session, 5 + 2 * index).await;
        }
        nodes[index].start_again().unwrap();
    }
    let mut counts = BTreeMap::new();
    for session in &sessions {
        counts.insert(session.clone(), in_order(&receiver, session).len());
    }
    assert!(counts.values().all(|count| *count == 7), "{counts:?}");
    let repeated = receiver.taken().len() - sessions.len() * 7;
    // Two servers that both deliver would send everything twice.
    assert!(repeated < 20, "{repeated} of 35 events were sent twice");
    println!("servers killed while delivering: 2, events 35, sent twice {repeated}, missed 0");
}
