//! One socket from its hello to its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sha2::{Digest as _, Sha256};
use throughline_core::sync::{Credential, ErrorCode, Hello, PROTOCOL_VERSION, ServerFrame};
use throughline_core::{Role, Timestamp};
use tokio::time::Instant;

use super::end::{End, restarting, transport_end};
use super::incoming::{Incoming, read_frame, read_hello};
use crate::principal::{AuthenticationError, Role as PrincipalRole};
use crate::problem::chain;
use crate::sessions::{FollowError, Subscription};
use crate::store::SessionKey;
use crate::tenant::TenantId;
use crate::token::{Claims, Grant, IssuedToken, Purpose, TokenError};
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

/// How many commands one socket may send in a second, and at once.
const COMMANDS_PER_SECOND: u32 = 500;
const COMMANDS_AT_ONCE: u32 = 2000;

/// What a socket proved at its hello.
struct Proof {
    role: Role,
    tenant: TenantId,
    credential: Credential,
    token: Option<Arc<Claims>>,
}

/// One socket.
pub(super) struct Conversation {
    state: Arc<ServerState>,
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    limiter: DefaultDirectRateLimiter,
}

/// A socket that has said hello.
struct Followed {
    key: SessionKey,
    subscription: Subscription,
    proof: Proof,
}

impl Conversation {
    pub(super) fn new(state: Arc<ServerState>, socket: WebSocket) -> Self {
        let (sink, stream) = socket.split();
        let quota = Quota::per_second(const { std::num::NonZeroU32::new(COMMANDS_PER_SECOND).unwrap() })
            .allow_burst(const { std::num::NonZeroU32::new(COMMANDS_AT_ONCE).unwrap() });
        Self { state, sink, stream, limiter: RateLimiter::direct(quota) }
    }

    /// Until one side ends it.
    pub(super) async fn hold(mut self, address: IpAddr) {
        let end = self.converse(address).await;
        let Some(End { code, message, retry_after_ms }) = end else { return };
        tracing::debug!(?code, "a socket is closed");
        metrics::counter!("throughline_sockets_closed_total", "code" => code.close_code().to_string()).increment(1);
        let frame = ServerFrame::Error { code, message, retry_after_ms };
        if self.send(&frame).await.is_ok() {
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
    async fn converse(&mut self, address: IpAddr) -> Option<End> {
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
        let followed = match self.follow(hello, address).await {
            Ok(followed) => followed,
            Err(end) => return Some(end),
        };
        let permit = self.state.sockets_per_session.open(followed.key.clone());
        let _permit = match permit {
            Ok(permit) => permit,
            Err(error) => {
                let end = End::new(ErrorCode::RateLimited, error.to_string());
                return Some(end.retry_after(Duration::from_secs(5)));
            }
        };
        self.exchange(followed).await
    }

    async fn first_frame(&mut self) -> Result<Hello, Option<End>> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return read_hello(&text).map_err(Some),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => return Err(Some(End::malformed("frames are text"))),
                Some(Err(error)) => return Err(transport_end(&error)),
                Some(Ok(Message::Close(_))) | None => return Err(None),
            }
        }
    }

    /// Checks what the client proves, and lets it follow its session.
    async fn follow(&mut self, hello: Hello, address: IpAddr) -> Result<Followed, End> {
        if hello.protocol != PROTOCOL_VERSION {
            let message = format!("this server speaks protocol {PROTOCOL_VERSION}, not {}", hello.protocol);
            return Err(End::new(ErrorCode::UnsupportedProtocol, message));
        }
        let proof = self.recognise(&hello)?;
        let key = SessionKey { tenant: proof.tenant.clone(), session_id: hello.session_id.to_string() };
        if self.state.sessions.current(&key).await?.is_none() {
            match &proof.credential {
                Credential::Verified => {
                    return Err(End::new(ErrorCode::SessionNotFound, "there is no session with this id"));
                }
                Credential::Claim(_) => self.state.creations_per_address.check(address).map_err(|error| {
                    End::new(ErrorCode::RateLimited, error.to_string()).retry_after(error.retry_after)
                })?,
            }
        }
        let (role, credential) = (proof.role, proof.credential.clone());
        match self.state.sessions.follow(&key, role, credential, &hello).await {
            Ok(subscription) => Ok(Followed { key, subscription, proof }),
            Err(FollowError::Session(error)) => Err(error.into()),
            Err(FollowError::Claim) => {
                tracing::warn!("a claim was refused");
                Err(End::new(ErrorCode::Unauthorized, "this session was created by somebody else; start a new one"))
            }
        }
    }

    /// A token where there is a good one, else the claim secret.
    fn recognise(&self, hello: &Hello) -> Result<Proof, End> {
        let token = hello.token.as_deref().filter(|token| !token.is_empty());
        let refusal = match token.map(|token| self.state.authenticator.recognise(token, self.state.clock.now_ms())) {
            Some(Ok(principal)) => {
                let (role, token) = match principal.role {
                    PrincipalRole::Browser { claims } if claims.session_id != hello.session_id.as_str() => {
                        tracing::warn!("a token was used for another session than its own");
                        return Err(End::new(ErrorCode::Unauthorized, "this token is for another session"));
                    }
                    PrincipalRole::Browser { ref claims } => (Role::Browser, Some(claims.clone())),
                    PrincipalRole::Service { .. } => (Role::Service, None),
                    PrincipalRole::Operator { .. } => (Role::Operator, None),
                };
                let tenant = principal.tenant().clone();
                return Ok(Proof { role, tenant, credential: Credential::Verified, token });
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        if let Some(secret) = hello.claim.as_deref().filter(|secret| secret.len() >= 32 && secret.len() <= 256) {
            let digest = Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect();
            let credential = Credential::Claim(digest);
            return Ok(Proof { role: Role::Browser, tenant: TenantId::single(), credential, token: None });
        }
        let code = match &refusal {
            Some(AuthenticationError::Token(TokenError::Expired { .. })) => ErrorCode::TokenExpired,
            _ => ErrorCode::Unauthorized,
        };
        refusal.as_ref().unwrap_or(&AuthenticationError::Missing).note();
        let message = refusal.map_or_else(|| "send a session token, or the claim secret".to_owned(), |e| e.to_string());
        Err(End::new(code, message))
    }

    /// Commands in, frames out.
    async fn exchange(&mut self, mut followed: Followed) -> Option<End> {
        let shutdown = self.state.shutdown.clone();
        let mut ping = tokio::time::interval(PING_EVERY);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Some(restarting()),
                frame = followed.subscription.frames.recv() => {
                    let Some(frame) = frame else {
                        let message = "frames were not read fast enough; come back and catch up";
                        return Some(End::new(ErrorCode::SlowReader, message));
                    };
                    if let ServerFrame::Error { code, message, retry_after_ms } = *frame {
                        return Some(End { code, message, retry_after_ms });
                    }
                    if self.send(&frame).await.is_err() {
                        return None;
                    }
                    if let Err(end) = self.hand_out_token(&mut followed).await {
                        return end;
                    }
                }
                message = self.stream.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            if let Err(end) = self.receive(&mut followed, &text).await {
                                return end;
                            }
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Binary(_))) => return Some(End::malformed("frames are text")),
                        Some(Err(error)) => return transport_end(&error),
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
                    if let Err(end) = self.hand_out_token(&mut followed).await {
                        return end;
                    }
                }
            }
        }
    }

    async fn receive(&mut self, followed: &mut Followed, text: &str) -> Result<(), Option<End>> {
        match read_frame(text).map_err(Some)? {
            Incoming::Submit(requests) => {
                for _ in &requests {
                    if self.limiter.check().is_err() {
                        let end = End::new(ErrorCode::RateLimited, "too many commands on one socket");
                        return Err(Some(end.retry_after(Duration::from_secs(2))));
                    }
                }
                let span = tracing::debug_span!("commands", count = requests.len(), role = ?followed.proof.role);
                span.in_scope(|| followed.subscription.submit(requests));
            }
            Incoming::Ping => {
                let server_time = Timestamp::from_millis(self.state.clock.now_ms());
                self.send(&ServerFrame::Pong { server_time }).await.map_err(|()| None)?;
            }
            Incoming::Hello(hello) => {
                if hello.session_id.as_str() != followed.key.session_id {
                    return Err(Some(End::malformed("a socket stays with its session")));
                }
                let (role, credential) = (followed.proof.role, followed.proof.credential.clone());
                let again = self.state.sessions.follow(&followed.key, role, credential, &hello).await;
                match again {
                    Ok(subscription) => {
                        followed.subscription = subscription;
                    }
                    Err(FollowError::Session(error)) => return Err(Some(error.into())),
                    Err(FollowError::Claim) => {
                        return Err(Some(End::new(
                            ErrorCode::Unauthorized,
                            "this session was created by somebody else",
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// A browser that proved its claim gets a token as soon as the session is its own; one that has a token gets the next in time.
    async fn hand_out_token(&mut self, followed: &mut Followed) -> Result<(), Option<End>> {
        let now_ms = self.state.clock.now_ms();
        let tokens = self.state.authenticator.tokens();
        let lifetimes = self.state.config.lifetimes;
        let issued = match (&followed.proof.credential, &followed.proof.token) {
            _ if followed.proof.role != Role::Browser => return Ok(()),
            (Credential::Claim(digest), None) => {
                let owns = followed.subscription.state().is_some_and(|state| state.claim.as_ref() == Some(digest));
                if !owns {
                    return Ok(());
                }
                let SessionKey { tenant, session_id } = followed.key.clone();
                tokens.issue(&Grant { purpose: Purpose::Browser, tenant, session_id }, lifetimes, now_ms)
            }
            (_, Some(claims)) if claims.renew_due(now_ms) => tokens.renew(claims, lifetimes, now_ms),
            _ => return Ok(()),
        };
        match issued {
            Ok(IssuedToken { text, claims }) => {
                let expires_at = Timestamp::from_millis(claims.expires_at_ms);
                followed.proof.token = Some(Arc::new(claims));
                self.send(&ServerFrame::Token { token: text, expires_at }).await.map_err(|()| None)
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "no token could be made");
                Ok(())
            }
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
