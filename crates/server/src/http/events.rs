//! `/v1/events`: what happens to sessions, for service keys: as a stream that can be taken up again where it ended, and in pages.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event as Message, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde::Serialize;
use serde_json::value::RawValue;
use throughline_core::{LifecycleEvent, LifecycleKind};
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::idempotent::Reply;
use super::problem_schema::{ProblemDetails, StaffProblems};
use super::query::{QueryParameters, refused};
use super::sessions::staff;
use crate::connection_limit::ConnectionPermit;
use crate::event_feed::EventListener;
use crate::principal::Principal;
use crate::problem::{Problem, chain};
use crate::scope::Scope;
use crate::store::{EventQuery, StoredEvent};
use crate::wiring::ServerState;

/// How many streams one service key may have open on one server.
pub const STREAMS_PER_KEY: usize = 16;

/// How many events are read at a time.
const PAGE: u32 = 100;

/// How many positions one query looks at.
pub const POSITIONS_AT_ONCE: u64 = 10_000;

/// How many events one answer holds at most.
const MAX_PAGE: u32 = 500;

/// How often a stream says that it is there, and how far it is.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How often a stream finds out whether its key is still good.
const CHECK: Duration = Duration::from_secs(1);

/// How long a stream waits before it asks a database again that did not answer.
const PAUSE: Duration = Duration::from_secs(1);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells proxies not to hold a stream back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The routes, with their descriptions.
pub fn routes() -> OpenApiRouter<Arc<ServerState>> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Something that happened to a session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionEvent {
    /// Names it for ever. Whoever is told twice knows it by this; a webhook has it as `webhook-id`.
    id: String,
    /// What happened.
    #[serde(flatten)]
    event: LifecycleEvent,
}

/// Some events, in the order in which they happened to each session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventPage {
    /// The events.
    #[schema(value_type = Vec<SessionEvent>)]
    events: Vec<Box<RawValue>>,
    /// `after` of the next page. Where there are no events it is how far the server has looked.
    #[schema(value_type = String, example = "1042")]
    next_after: String,
}

/// What happens to sessions, from some place on.
///
/// With `Accept: text/event-stream` the answer is a stream that goes on until either side ends it (Server-Sent Events): each event's
/// `id` is the place to go on after, in `Last-Event-ID`, as `EventSource` does by itself; its `data` is a `SessionEvent`. Every 15 s an
/// empty message says how far the stream is. Otherwise the answer is a page of what is there.
///
/// An event may come twice, and is told by its `id`. Events of one session come in the order of its versions.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    params(
        ("after" = Option<String>, Query, description = "After which place to begin: `nextAfter` of a page, or the `id` of a message. `0` is the first event that is kept. Where it is missing, a stream begins with what happens from now on, and a page with the first event"),
        ("types" = Option<String>, Query, description = "Only events of these types, separated by commas; all where it is missing"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "How many events a page holds at most; 100 where it is missing"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same as `after`, and before it"),
    ),
    responses(
        (status = 200, description = "A page of events, or the stream", content(
            (EventPage = "application/json"),
            (SessionEvent = "text/event-stream"),
        )),
        StaffProblems,
        (status = 400, description = "The query can't be read", body = ProblemDetails),
        (status = 410, description = "What follows on that place is forgotten, or the database was put back to an earlier moment", body = ProblemDetails),
        (status = 429, description = "The service key has too many streams open", body = ProblemDetails),
    ),
    security(("serviceKey" = ["sessions:read"])),
)]
pub(crate) async fn events(
    State(state): State<Arc<ServerState>>,
    principal: Principal,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    staff(&principal, Scope::SessionsRead)?;
    let Wanted { after, kinds, limit } = Wanted::read(&headers, query.as_deref())?;
    let tenant = principal.tenant().clone();
    let mut listener = state.event_feed.listen();
    let settled = listener.settled().await;
    if let Some(after) = after {
        let forgotten = state.store.events_forgotten(&tenant).await?;
        // Another server may be ahead of this one; no server is ahead of the database.
        let latest = if after > settled { state.store.event_mark(0).await?.position } else { settled };
        check_place(after, forgotten, latest)?;
    }
    if !wants_stream(&headers) {
        let after = after.unwrap_or(0);
        let query = EventQuery { tenant, after, through: stretch(after, settled), kinds, limit };
        let found = state.store.events(&query).await?;
        return page(&query, found);
    }
    // A browser has none, and is refused above.
    let key_id = principal.issuing_key().unwrap_or_default();
    let permit = state.event_streams_per_key.open(key_id.clone()).map_err(|error| {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "tooManyStreams", "Too many streams")
            .detail(format!("of the service key {key_id} {error}"))
            .mendable_by("permanent")
    })?;
    let query = EventQuery { tenant, after: after.unwrap_or(settled), through: settled, kinds, limit: PAGE };
    let now = Instant::now();
    let streaming = Streaming {
        state,
        listener,
        key_id,
        query,
        next_check: now + CHECK,
        next_beat: now + HEARTBEAT,
        seen: 0,
        _permit: permit,
    };
    let mut response = Sse::new(streaming.messages()).into_response();
    response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|part| part.split(';').next().unwrap_or_default().trim() == "text/event-stream")
}

/// Which events a request asks for.
struct Wanted {
    after: Option<u64>,
    kinds: Vec<LifecycleKind>,
    limit: u32,
}

impl Wanted {
    fn read(headers: &HeaderMap, query: Option<&str>) -> Result<Self, Problem> {
        let query = QueryParameters::read(query, &["after", "types", "limit"])?;
        let what = "the place of an event, as a message's `id` or `nextAfter` of a page says it: a whole number";
        let after = match headers.get(LAST_EVENT_ID) {
            Some(id) => {
                let id = id.to_str().ok().and_then(|id| id.trim().parse().ok());
                Some(id.ok_or_else(|| refused("Last-Event-ID", &format!("the header has to be {what}")))?)
            }
            None => query.value("after", what)?,
        };
        let kinds = query.list("types").map(|name| LifecycleKind::of_name(name).ok_or(name));
        let kinds = kinds.collect::<Result<Vec<_>, _>>().map_err(|name| {
            let known: Vec<&str> = LifecycleKind::ALL.into_iter().map(LifecycleKind::as_str).collect();
            let shown: String = name.chars().take(40).collect();
            refused("types", &format!("there is no type {shown}; known are {}", known.join(", ")))
        })?;
        let limit = query.value("limit", "a whole number")?.unwrap_or(PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(refused("limit", &format!("it has to be from 1 to {MAX_PAGE}")));
        }
        Ok(Self { after, kinds, limit })
    }
}

/// Whether everything after this place can be told.
fn check_place(after: u64, forgotten: u64, latest: u64) -> Result<(), Problem> {
    let gone = |detail: String| {
        Problem::new(StatusCode::GONE, "eventsGone", "Events gone").detail(detail).mendable_by("permanent")
    };
    // Who has seen nothing has missed nothing.
    if after > 0 && after < forgotten {
        return Err(gone(format!(
            "events up to {forgotten} are forgotten, so what came after {after} can't be told without a gap; read the sessions that matter (`GET /v1/sessions`), and begin again with `after={forgotten}`"
        ))
        .with("oldestAfter", forgotten.to_string()));
    }
    if after > latest {
        return Err(gone(format!(
            "there is no event {after} yet: the latest one is {latest}. The database was put back to an earlier moment, or the place is another database's; read the sessions that matter (`GET /v1/sessions`), and begin again with `after={latest}`"
        ))
        .with("oldestAfter", latest.to_string()));
    }
    Ok(())
}

/// How far one query looks: of events that are wanted seldom there may be none for very long.
fn stretch(after: u64, settled: u64) -> u64 {
    settled.min(after.saturating_add(POSITIONS_AT_ONCE))
}

fn page(query: &EventQuery, found: Vec<StoredEvent>) -> Result<Response, Problem> {
    let is_last = found.len() < query.limit as usize;
    let last = found.last().map_or(query.after, |event| event.position);
    let next_after = if is_last { query.through.max(query.after) } else { last };
    let bodies = found.into_iter().map(|event| RawValue::from_string(event.event.body));
    let events = bodies.collect::<Result<_, _>>().map_err(|error| Problem::internal(&error))?;
    let page = EventPage { events, next_after: next_after.to_string() };
    Ok(Reply::json(StatusCode::OK, &page)?.into_response())
}

/// A stream, and how far it is.
struct Streaming {
    state: Arc<ServerState>,
    listener: EventListener,
    key_id: String,
    query: EventQuery,
    next_check: Instant,
    next_beat: Instant,
    /// How far the outbox was when it was last asked.
    seen: u64,
    _permit: ConnectionPermit<String>,
}

impl Streaming {
    /// The messages, until the server stops or the key is refused.
    fn messages(self) -> impl Stream<Item = Result<Message, Infallible>> {
        let first = vec![self.place()];
        futures_util::stream::unfold((self, first), |(mut streaming, mut waiting)| async move {
            loop {
                if let Some(message) = waiting.pop() {
                    return Some((Ok(message), (streaming, waiting)));
                }
                waiting = streaming.next_page().await?;
                waiting.reverse();
                streaming.next_beat = Instant::now() + HEARTBEAT;
            }
        })
    }

    /// The next messages, as soon as there are some; `None` where the stream is over.
    async fn next_page(&mut self) -> Option<Vec<Message>> {
        let state = Arc::clone(&self.state);
        loop {
            if state.shutdown.is_cancelled() || !self.is_let_in() {
                return None;
            }
            let settled = tokio::select! {
                () = state.shutdown.cancelled() => return None,
                settled = self.listener.settled() => settled,
            };
            // The database was put back to an earlier moment: whoever comes back with this place is told so.
            if settled < std::mem::replace(&mut self.seen, settled) {
                return None;
            }
            self.query.through = stretch(self.query.after, settled);
            let found = if self.query.through > self.query.after { self.read().await } else { Some(Vec::new()) };
            if let Some(found) = found {
                let is_last = found.len() < self.query.limit as usize;
                let reached = if is_last { Some(self.query.through) } else { found.last().map(|event| event.position) };
                self.query.after = reached.unwrap_or(self.query.after).max(self.query.after);
                if !found.is_empty() {
                    return Some(found.into_iter().map(message).collect());
                }
                if self.query.after < settled {
                    continue;
                }
            }
            tokio::select! {
                () = state.shutdown.cancelled() => return None,
                () = self.listener.changed() => {}
                () = tokio::time::sleep_until(self.next_beat) => return Some(vec![self.place()]),
                () = tokio::time::sleep_until(self.next_check) => {}
            }
        }
    }

    /// Whether its key is good still, as far as that was asked lately.
    fn is_let_in(&mut self) -> bool {
        if Instant::now() < self.next_check {
            return true;
        }
        self.next_check = Instant::now() + CHECK;
        let (keys, now_ms) = (self.state.authenticator.service_keys(), self.state.clock.now_ms());
        let refused = keys.check(&self.key_id, now_ms).err();
        if let Some(refusal) = &refused {
            tracing::info!(key_id = self.key_id, code = refusal.code(), "a stream of events is ended");
        }
        refused.is_none()
    }

    /// Says how far the stream is, and nothing else.
    fn place(&self) -> Message {
        Message::default().id(self.query.after.to_string())
    }

    async fn read(&self) -> Option<Vec<StoredEvent>> {
        match self.state.store.events(&self.query).await {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::debug!(error = %chain(&error), "a stream of events waits for the database");
                tokio::time::sleep(PAUSE).await;
                None
            }
        }
    }
}

fn message(event: StoredEvent) -> Message {
    Message::default().id(event.position.to_string()).data(event.event.body)
}
