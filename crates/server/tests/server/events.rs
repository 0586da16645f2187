//! What happens to sessions, as a stream that can be taken up again and in pages.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::binary::*;
use super::fleets::{LONG, fleet, post, until};

fn ask(address: &str, key: &str, path: &str) -> RequestBuilder {
    let client = Client::builder().timeout(LONG).build().unwrap();
    client.get(format!("http://{address}{path}")).bearer_auth(key)
}

/// A stream of events: what it says, message by message.
struct Stream {
    chunks: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: String,
}

/// One message: its place, and the event, which an empty one does not have.
#[derive(Debug, Clone)]
struct Message {
    id: String,
    event: Option<Value>,
}

impl Stream {
    async fn open(request: RequestBuilder) -> Self {
        let answer = request.header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self::of(answer)
    }

    fn of(answer: Response) -> Self {
        Self { chunks: Box::pin(answer.bytes_stream()), text: String::new() }
    }

    /// The next message; `None` where the stream is over.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let id = field("id:").unwrap_or_default().to_owned();
                let event = field("data:").map(|data| serde_json::from_str(data).unwrap());
                self.text = rest.to_owned();
                return Some(Message { id, event });
            }
            let chunk = self.chunks.next().await?.ok()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next message with an event.
    async fn event(&mut self) -> Message {
        let next = async {
            loop {
                let message = self.next().await.expect("the stream goes on");
                if message.event.is_some() {
                    return message;
                }
            }
        };
        tokio::time::timeout(LONG, next).await.expect("an event within the time")
    }

    async fn kinds(&mut self, count: usize) -> Vec<String> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            kinds.push(kind(&self.event().await));
        }
        kinds
    }
}

fn kind(message: &Message) -> String {
    message.event.as_ref().unwrap()["type"].as_str().unwrap().to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

async fn made(dev: &Dev) -> String {
    let client = Client::builder().timeout(LONG).build().unwrap();
    let create = client.post(format!("http://{}/v1/sessions", dev.address)).bearer_auth(&dev.service_key);
    let created: Value = create.json(&json!({})).send().await.unwrap().json().await.unwrap();
    text(&created["session"]["id"])
}

async fn command(dev: &Dev, session: &str, command: Value) {
    let client = Client::builder().timeout(LONG).build().unwrap();
    let path = format!("http://{}/v1/sessions/{session}/commands", dev.address);
    let request = client.request(Method::POST, path).bearer_auth(&dev.service_key);
    let answer = request.json(&json!({ "commands": [command] })).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

async fn page(dev: &Dev, query: &str) -> (Vec<Value>, String) {
    let page = ask(&dev.address, &dev.service_key, &format!("/v1/events{query}")).send().await.unwrap();
    let (status, page): (_, Value) = (page.status(), page.json().await.unwrap());
    assert_eq!(status, 200, "{page}");
    (page["events"].as_array().unwrap().clone(), text(&page["nextAfter"]))
}

#[tokio::test]
async fn a_stream_tells_what_happens_and_is_taken_up_again_where_it_ended() {
    let dev = dev(&[]);
    made(&dev).await;
    let mut stream = Stream::open(ask(&dev.address, &dev.service_key, "/v1/events")).await;
    assert!(stream.next().await.unwrap().event.is_none(), "first it says where it is");
    let session = made(&dev).await;
    command(&dev, &session, json!({ "type": "setEmail", "email": "ada@example.com" })).await;
    let created = stream.event().await;
    let event = created.event.clone().unwrap();
    assert_eq!((kind(&created).as_str(), &event["data"]["sessionId"]), ("session.created", &json!(session)));
    assert_eq!(event["data"]["session"]["status"], "pending");
    let updated = stream.event().await;
    assert_eq!(updated.event.clone().unwrap()["data"]["changed"], json!(["email"]));
    assert!(!updated.event.unwrap().to_string().contains("ada@example.com"));
    drop(stream);
    command(&dev, &session, json!({ "type": "erase" })).await;
    // From after the first one on: what was heard, and what happened meanwhile.
    let again = ask(&dev.address, &dev.service_key, "/v1/events").header("last-event-id", &created.id);
    let mut again = Stream::open(again).await;
    assert_eq!(again.kinds(3).await, ["session.updated", "session.erased", "session.statusChanged"]);
    let mut all = Stream::open(ask(&dev.address, &dev.service_key, "/v1/events?after=0&types=session.created")).await;
    assert_eq!(all.kinds(2).await, ["session.created", "session.created"]);
}

#[tokio::test]
async fn pages_of_events_follow_each_other() {
    let dev = dev(&[]);
    let sessions = [made(&dev).await, made(&dev).await];
    for session in &sessions {
        command(&dev, session, json!({ "type": "setMetadata", "metadata": { "a": 1 } })).await;
    }
    let mut after = "0".to_owned();
    let mut seen = Vec::new();
    loop {
        let (events, next) = page(&dev, &format!("?after={after}&limit=1")).await;
        if events.is_empty() {
            break;
        }
        seen.extend(events);
        after = next;
    }
    let kinds: Vec<String> = seen.iter().map(|event| text(&event["type"])).collect();
    assert_eq!(kinds, ["session.created", "session.created", "session.updated", "session.updated"]);
    let ids: std::collections::HashSet<String> = seen.iter().map(|event| text(&event["id"])).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(page(&dev, "?types=session.updated").await.0.len(), 2);
    assert_eq!(page(&dev, &format!("?after={after}")).await, (Vec::new(), after));
    for (query, why) in [
        ("?types=session.sold", "there is no type session.sold"),
        ("?after=one", "a whole number"),
        ("?limit=0", "from 1 to 500"),
        ("?from=1", "it is not known here"),
    ] {
        let answer = ask(&dev.address, &dev.service_key, &format!("/v1/events{query}")).send().await.unwrap();
        let (status, problem) = (answer.status(), answer.text().await.unwrap());
        assert!(status == 400 && problem.contains(why), "{query}: {status} {problem}");
    }
}

#[tokio::test]
async fn a_place_whose_events_are_forgotten_or_not_there_yet_is_said_to_be_gone() {
    let dev = dev(&["--event-retention", "1s"]);
    let session = made(&dev).await;
    let (events, first) = page(&dev, "?limit=1").await;
    assert_eq!(events.len(), 1);
    command(&dev, &session, json!({ "type": "setMetadata", "metadata": { "a": 1 } })).await;
    let gone = async |after: &str| {
        let answer = ask(&dev.address, &dev.service_key, &format!("/v1/events?after={after}")).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    until("they are forgotten", LONG, async || gone(&first).await.0 == 410).await;
    let (_, problem) = gone(&first).await;
    assert_eq!(problem["code"], "eventsGone");
    let (status, _) = gone(&text(&problem["oldestAfter"])).await;
    assert_eq!(status, 200, "it says from where on nothing is missed");
    assert_eq!(page(&dev, "?after=0").await.0, Vec::<Value>::new(), "who has seen nothing has missed nothing");
    let (status, problem) = gone("99999999").await;
    assert_eq!((status, text(&problem["code"])), (410, "eventsGone".to_owned()));
    assert!(text(&problem["detail"]).contains("put back to an earlier moment"));
}

#[tokio::test]
async fn a_stream_ends_with_its_key_and_with_the_server() {
    let mut dev = dev(&[]);
    let client = Client::builder().timeout(LONG).build().unwrap();
    let keys = format!("http://{}/v1/service-keys", dev.address);
    let wanted = json!({ "name": "analytics", "scopes": ["sessions:read"] });
    let made_key: Value =
        client.post(&keys).bearer_auth(&dev.service_key).json(&wanted).send().await.unwrap().json().await.unwrap();
    let (id, key) = (text(&made_key["id"]), text(&made_key["key"]));
    let mut stream = Stream::open(ask(&dev.address, &key, "/v1/events")).await;
    stream.next().await.unwrap();
    let revoked = client.delete(format!("{keys}/{id}")).bearer_auth(&dev.service_key).send().await.unwrap();
    assert_eq!(revoked.status(), 204);
    let over = tokio::time::timeout(Duration::from_secs(5), stream.next()).await;
    assert!(over.expect("a revoked key hears nothing more").is_none());
    assert_eq!(ask(&dev.address, &key, "/v1/events").send().await.unwrap().status(), 401);
    let mut stream = Stream::open(ask(&dev.address, &dev.service_key, "/v1/events")).await;
    stream.next().await.unwrap();
    let (status, took) = tokio::task::spawn_blocking(move || dev.server.stop()).await.unwrap();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn one_key_may_have_so_many_streams_and_no_more() {
    let dev = dev(&[]);
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(Stream::open(ask(&dev.address, &dev.service_key, "/v1/events")).await);
    }
    let refused = ask(&dev.address, &dev.service_key, "/v1/events").header("accept", "text/event-stream");
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.text().await.unwrap().contains("tooManyStreams"));
    assert_eq!(page(&dev, "").await.0.len(), 0, "pages are no streams");
    streams.pop();
    until("one may be opened", LONG, async || {
        let request = ask(&dev.address, &dev.service_key, "/v1/events").header("accept", "text/event-stream");
        request.send().await.unwrap().status() == 200
    })
    .await;
}

/// Positions are given before transactions end, and several servers commit at the same time: still no event is passed by.
#[tokio::test]
async fn a_stream_misses_nothing_of_what_several_servers_commit_at_the_same_time() {
    const SESSIONS: usize = 24;
    const CHANGES: usize = 12;
    let fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap(), fleet.node("c", &[]).unwrap()];
    let mut stream = Stream::open(ask(&nodes[0].address, &fleet.service_key, "/v1/events")).await;
    stream.next().await.unwrap();
    let change = async |index: usize| {
        let node = &nodes[index % nodes.len()];
        let created = post(&fleet, node, "/v1/sessions", &json!({})).send().await.unwrap();
        let id = text(&created.json::<Value>().await.unwrap()["session"]["id"]);
        for number in 0..CHANGES {
            let node = &nodes[(index + number) % nodes.len()];
            let body = json!({ "commands": [{ "type": "setMetadata", "metadata": { "number": number } }] });
            let answer = post(&fleet, node, &format!("/v1/sessions/{id}/commands"), &body).send().await.unwrap();
            assert_eq!(answer.status(), 200);
        }
    };
    let heard = async {
        let mut versions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut last = 0;
        for _ in 0..SESSIONS * (CHANGES + 1) {
            let message = stream.event().await;
            let place: u64 = message.id.parse().unwrap();
            assert!(place > last, "{place} after {last}");
            last = place;
            let event = message.event.unwrap();
            let of_session = versions.entry(text(&event["data"]["sessionId"])).or_default();
            of_session.push(event["data"]["version"].as_u64().unwrap());
        }
        versions
    };
    let changes = futures_util::future::join_all((0..SESSIONS).map(change));
    let (_, versions) = tokio::join!(changes, heard);
    assert_eq!(versions.len(), SESSIONS);
    for (id, versions) in versions {
        assert_eq!(versions, (1..=CHANGES as u64 + 1).collect::<Vec<_>>(), "{id}");
    }
}
