//! A receiver of webhooks that does what a test asks of it, and checks each message with the published library.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use serde_json::Value;
use standardwebhooks::Webhook;

/// What a receiver does with a message.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Takes it.
    Take,
    /// Answers with this status, and these headers.
    Status(u16, &'static [(&'static str, &'static str)]),
    /// Sends the sender elsewhere.
    Redirect(&'static str),
    /// Takes longer than anybody waits.
    Hang,
    /// Takes it, and never says so.
    TakeAndBreak,
}

/// A message that arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub id: String,
    pub event: Value,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether it was taken.
    pub is_taken: bool,
}

impl Arrived {
    pub fn kind(&self) -> &str {
        self.event["type"].as_str().unwrap()
    }

    pub fn session(&self) -> &str {
        self.event["data"]["sessionId"].as_str().unwrap_or_default()
    }

    pub fn version(&self) -> u64 {
        self.event["data"]["version"].as_u64().unwrap()
    }

    pub fn verifies(&self, secret: &str) -> bool {
        Webhook::new(secret).unwrap().verify(&self.body, &self.headers).is_ok()
    }
}

type Rule = Box<dyn Fn(&Arrived) -> Answer + Send>;

/// Listens on this machine until it is dropped.
pub struct Receiver {
    pub url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    rule: Mutex<Rule>,
    arrived: Mutex<Vec<Arrived>>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { rule: Mutex::new(Box::new(|_| Answer::Take)), arrived: Mutex::default() });
        let routes = Router::new().route("/hooks", any(receive)).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, shared, task }
    }

    /// What it does from now on.
    pub fn does(&self, rule: impl Fn(&Arrived) -> Answer + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// Everything that arrived, in its order.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().unwrap().clone()
    }

    /// What was taken, in its order.
    pub fn taken(&self) -> Vec<Arrived> {
        self.arrived().into_iter().filter(|arrived| arrived.is_taken).collect()
    }

    /// What was taken of one session, each event once.
    pub fn taken_of(&self, session: &str) -> Vec<Arrived> {
        let mut seen = std::collections::HashSet::new();
        let taken = self.taken().into_iter();
        taken.filter(|arrived| arrived.session() == session && seen.insert(arrived.id.clone())).collect()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let id = headers["webhook-id"].to_str().unwrap().to_owned();
    let event = serde_json::from_slice(&body).unwrap();
    let mut arrived = Arrived { id, event, headers, body, is_taken: false };
    let answer = shared.rule.lock().unwrap()(&arrived);
    arrived.is_taken = matches!(answer, Answer::Take | Answer::TakeAndBreak);
    shared.arrived.lock().unwrap().push(arrived);
    match answer {
        Answer::Take => StatusCode::NO_CONTENT.into_response(),
        Answer::Status(status, headers) => {
            let mut response = StatusCode::from_u16(status).unwrap().into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            response
        }
        Answer::Redirect(location) => (StatusCode::TEMPORARY_REDIRECT, [("location", location)]).into_response(),
        Answer::Hang | Answer::TakeAndBreak => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            StatusCode::NO_CONTENT.into_response()
        }
    }
}
