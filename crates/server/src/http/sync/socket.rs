//! One WebSocket from its hello to its end.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use throughline_core::sync::{ErrorCode, Hello, ServerFrame};
use tokio::time::Instant;

use super::Comer;
use super::conversation::{COMMANDS_AT_ONCE, COMMANDS_PER_SECOND, Conversation};
use super::end::{End, restarting, transport_end};
use super::incoming::{Incoming, read_frame, read_hello};
use crate::problem::chain;
use crate::wiring::ServerState;

/// How long a client may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// How often the server asks for a sign of life, and after which silence it gives up.
const PING_EVERY: Duration = Duration::from_secs(20);
const SILENCE_LIMIT: Duration = Duration::from_secs(50);

/// How long one message may take to be sent.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// How long a client has to hear why a conversation ended, and to close its side.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// One socket.
pub(super) struct Socket {
    state: Arc<ServerState>,
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    limiter: DefaultDirectRateLimiter,
}

impl Socket {
    pub(super) fn new(state: Arc<ServerState>, socket: WebSocket) -> Self {
        let (sink, stream) = socket.split();
        let quota = Quota::per_second(COMMANDS_PER_SECOND).allow_burst(COMMANDS_AT_ONCE);
        Self { state, sink, stream, limiter: RateLimiter::direct(quota) }
    }

    /// Until one side ends it.
    pub(super) async fn hold(mut self, comer: Comer) {
        let end = self.converse(comer).await;
        let Some(end) = end else { return };
        let code = end.code;
        tracing::debug!(?code, "a socket is closed");
        metrics::counter!("throughline_sockets_closed_total", "code" => code.close_code().to_string()).increment(1);
        if self.send(&end.into()).await.is_ok() {
            let reason = match code {
                ErrorCode::Restarting => "restarting".into(),
                _ => "see the last frame".into(),
            };
            let close = Message::Close(Some(CloseFrame { code: code.close_code(), reason }));
            // The client may be gone already.
            let _ = tokio::time::timeout(SEND_LIMIT, self.sink.send(close)).await;
            if code != ErrorCode::Restarting {
                let _ = tokio::time::timeout(FAREWELL_LIMIT, self.farewell()).await;
            }
        }
    }

    /// Waits for the client to close its side. A connection that is dropped while something of the client is unread is
    /// reset, and the reason is lost on its way.
    async fn farewell(&mut self) {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Close(_)) | Err(_)) => return,
                Some(Ok(_)) => {}
                // After a message that was too large nothing can be read any more; the client still needs the time.
                None => std::future::pending().await,
            }
        }
    }

    /// The whole conversation; `None` when the client has left.
    async fn converse(&mut self, comer: Comer) -> Option<End> {
        let shutdown = self.state.shutdown.clone();
        let hello = tokio::select! {
            () = shutdown.cancelled() => return Some(restarting()),
            hello = tokio::time::timeout(HELLO_LIMIT, self.first_frame()) => hello,
        };
        let hello = match hello {
            Ok(Ok(hello)) => hello,
            Ok(Err(end)) => return end,
            Err(_) => return Some(End::malformed("no hello came within 10 s")),
        };
        match Conversation::begin(Arc::clone(&self.state), &hello, comer).await {
            Ok(conversation) => self.exchange(conversation).await,
            Err(end) => Some(end),
        }
    }

    async fn first_frame(&mut self) -> Result<Hello, Option<End>> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    return read_hello(&text, self.state.config.json_depth_limit).map_err(Some);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => return Err(Some(End::malformed("frames are text"))),
                Some(Err(error)) => return Err(transport_end(&error, self.state.config.frame_limit)),
                Some(Ok(Message::Close(_))) | None => return Err(None),
            }
        }
    }

    /// Commands in, frames out.
    async fn exchange(&mut self, mut conversation: Conversation) -> Option<End> {
        let shutdown = self.state.shutdown.clone();
        let mut ping = tokio::time::interval(PING_EVERY);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Some(restarting()),
                frame = conversation.next() => {
                    let frame = match frame {
                        Ok(frame) => frame,
                        Err(end) => return Some(end),
                    };
                    if self.send(&frame).await.is_err() || self.hand_out_token(&mut conversation).await.is_err() {
                        return None;
                    }
                }
                message = self.stream.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            if let Err(end) = self.receive(&mut conversation, &text).await {
                                return end;
                            }
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Binary(_))) => return Some(End::malformed("frames are text")),
                        Some(Err(error)) => return transport_end(&error, self.state.config.frame_limit),
                        Some(Ok(Message::Close(_))) | None => return None,
                    }
                }
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE_LIMIT {
                        return None;
                    }
                    let ping = Message::Ping(Vec::new().into());
                    if tokio::time::timeout(SEND_LIMIT, self.sink.send(ping)).await.is_err() {
                        return None;
                    }
                    if let Err(end) = conversation.check_time() {
                        return Some(end);
                    }
                    if self.hand_out_token(&mut conversation).await.is_err() {
                        return None;
                    }
                }
            }
        }
    }

    async fn receive(&mut self, conversation: &mut Conversation, text: &str) -> Result<(), Option<End>> {
        conversation.check_time().map_err(Some)?;
        match read_frame(text, self.state.config.json_depth_limit).map_err(Some)? {
            Incoming::Submit(requests) => {
                requests.iter().try_for_each(|_| self.check_rate()).map_err(Some)?;
                conversation.submit(requests);
            }
            Incoming::Ping => self.send(&conversation.pong()).await.map_err(|()| None)?,
            Incoming::Hello(hello) => {
                self.check_rate().map_err(Some)?;
                conversation.greet_again(&hello).await.map_err(Some)?;
            }
        }
        Ok(())
    }

    fn check_rate(&self) -> Result<(), End> {
        self.limiter.check().map_err(|_| {
            let end = End::new(ErrorCode::RateLimited, "too many commands or greetings on one socket");
            end.retry_after(Duration::from_secs(2))
        })
    }

    async fn hand_out_token(&mut self, conversation: &mut Conversation) -> Result<(), ()> {
        match conversation.token_due() {
            Some(token) => self.send(&token).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, frame: &ServerFrame) -> Result<(), ()> {
        let text = serde_json::to_string(frame).map_err(|error| {
            tracing::error!(error = %chain(&error), "a frame can't be written");
        })?;
        match tokio::time::timeout(SEND_LIMIT, self.sink.send(Message::Text(text.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(()),
            Err(_) => {
                // There is no use in telling somebody who does not read.
                let code = ErrorCode::SlowReader.close_code();
                tracing::debug!("a socket is closed, because its client does not read");
                metrics::counter!("throughline_sockets_closed_total", "code" => code.to_string()).increment(1);
                Err(())
            }
        }
    }
}
