//! Receiving the bodies of requests, within bounds of size, time and memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::body::is_json;
use super::layers::overloaded;
use crate::config::Config;
use crate::json_depth;
use crate::problem::Problem;

/// So much of each body needs no room: what buyers and back ends mostly send is smaller, and has to come through when others
/// fill the room with large ones.
const ALWAYS: usize = 4 * 1024;

/// How large a body may be, and how much room there is for all that are not answered yet.
#[derive(Debug)]
pub(super) struct RequestBodies {
    limit: usize,
    /// How many arrays and objects may lie in each other in one of JSON.
    depth: usize,
    /// For what is said to whoever was too slow.
    time: Duration,
    /// A permit is a byte beyond the first ones of each body.
    room: Arc<Semaphore>,
    /// Cancelled when the server is told to stop.
    shutdown: CancellationToken,
}

impl RequestBodies {
    /// Each may be as large as `body_limit`; there is room for as many of that size as there may be requests.
    pub(super) fn new(config: &Config, shutdown: CancellationToken) -> Self {
        let Config { body_limit: limit, json_depth_limit: depth, max_requests: count, request_timeout: time, .. } =
            *config;
        let room = Arc::new(Semaphore::new(limit.saturating_mul(count).min(Semaphore::MAX_PERMITS)));
        Self { limit, depth, time, room, shutdown }
    }

    /// The request with all of its body, and the room that it takes.
    pub(super) async fn receive(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<(Request, Option<OwnedSemaphorePermit>), Problem> {
        let (head, body) = request.into_parts();
        // As its head announces it: then there is nothing to wait for.
        if body.size_hint().lower() > self.limit as u64 {
            return Err(too_large());
        }
        let receiving = tokio::time::timeout_at(deadline.into(), self.collect(body));
        let (bytes, room) = match self.shutdown.run_until_cancelled(receiving).await {
            Some(Ok(received)) => received?,
            // Nothing was begun, and another server takes it.
            None => return Err(overloaded()),
            Some(Err(_)) => {
                metrics::counter!("throughline_http_requests_timed_out_total").increment(1);
                let limit = self.time.as_secs_f32();
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "bodyTimedOut", "Body timed out")
                    .detail(format!("the request's body was not here within {limit} s; send it again"))
                    .mendable_by("retry"));
            }
        };
        // Whichever route reads it, nothing goes down into it further than this.
        if json_depth::exceeds(&bytes, self.depth) && is_json(&head.headers) {
            return Err(too_deep(self.depth));
        }
        Ok((Request::from_parts(head, Body::from(bytes)), room))
    }

    async fn collect(&self, mut body: Body) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
        let mut bytes = Vec::new();
        let mut room: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let broken = |_| {
                Problem::new(StatusCode::BAD_REQUEST, "bodyUnreadable", "Body unreadable")
                    .detail("the request's body ended early; send it again")
                    .mendable_by("retry")
            };
            // Anything else is a trailer, which nobody asked for.
            let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
            let length = bytes.len() + piece.len();
            if length > self.limit {
                return Err(too_large());
            }
            let has = ALWAYS + room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            if length > has {
                let more = u32::try_from(length - has).map_err(|_| too_large())?;
                let more = Arc::clone(&self.room).try_acquire_many_owned(more).map_err(|_| overloaded())?;
                match &mut room {
                    Some(room) => room.merge(more),
                    none => *none = Some(more),
                }
            }
            if bytes.is_empty() && body.is_end_stream() {
                return Ok((piece, room));
            }
            // Copied: a small piece would keep all of the buffer that it was received in.
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes.into(), room))
    }
}

fn too_large() -> Problem {
    Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE)
}

fn too_deep(limit: usize) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "jsonTooDeep", "JSON too deep")
        .detail(format!("more than {limit} arrays and objects lie in each other in the body; send it flatter"))
        .mendable_by("permanent")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is room for two of `limit` bytes.
    fn bodies(limit: usize) -> RequestBodies {
        let (room, shutdown) = (Arc::new(Semaphore::new(2 * limit)), CancellationToken::new());
        RequestBodies { limit, depth: 32, time: Duration::from_secs(1), room, shutdown }
    }

    #[tokio::test]
    async fn a_server_that_stops_waits_for_no_body() {
        let bodies = bodies(1024);
        let body = Body::from_stream(futures_util::stream::pending::<Result<&str, std::io::Error>>());
        let receiving = bodies.receive(Request::new(body), Instant::now() + Duration::from_secs(60));
        let stopping = async { bodies.shutdown.cancel() };
        let (received, ()) = tokio::join!(receiving, stopping);
        assert_eq!(received.unwrap_err().code(), "overloaded");
    }

    fn pieces(sizes: &[usize]) -> Body {
        let pieces: Vec<_> = sizes.iter().map(|&size| Ok::<_, std::io::Error>(vec![b'x'; size])).collect();
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    #[tokio::test]
    async fn large_bodies_share_a_room_and_small_ones_need_none() {
        let bodies = bodies(16 * 1024);
        let one = bodies.collect(pieces(&[6_000, 6_000, 4_000])).await.unwrap();
        let other = bodies.collect(Body::from(vec![b'x'; 16_000])).await.unwrap();
        assert_eq!((one.0.len(), other.0.len()), (16_000, 16_000));
        let third = bodies.collect(pieces(&[6_000, 6_000])).await.unwrap();
        assert_eq!(bodies.collect(pieces(&[8_000])).await.unwrap_err().code(), "overloaded");
        assert_eq!(bodies.collect(pieces(&[4_000, 90])).await.unwrap().0.len(), 4_090);
        drop((one, other, third));
        assert_eq!(bodies.collect(pieces(&[8_000, 8_000])).await.unwrap().0.len(), 16_000);
        assert_eq!(bodies.room.available_permits(), 2 * 16 * 1024);
    }

    #[tokio::test]
    async fn what_is_too_large_or_ends_early_is_told_apart() {
        let bodies = bodies(1024);
        assert_eq!(bodies.collect(pieces(&[1000, 25])).await.unwrap_err().code(), "bodyTooLarge");
        let early = [Ok("x"), Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))];
        let early = Body::from_stream(futures_util::stream::iter(early));
        assert_eq!(bodies.collect(early).await.unwrap_err().code(), "bodyUnreadable");
        assert_eq!(bodies.room.available_permits(), 2 * 1024);
    }
}
