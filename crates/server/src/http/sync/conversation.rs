//! What a client and its server tell each other, whichever way the frames come and go: `socket.rs` and `poll.rs` carry
//! them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use throughline_core::sync::{Credential, ErrorCode, Hello, PROTOCOL_VERSION, Request, ServerFrame};
use throughline_core::{Caller, Rejection, RejectionCode, Role, Timestamp};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::watch;

use super::Comer;
use super::end::End;
use crate::audit::Denial;
use crate::claim_secret;
use crate::client_address::kept_network;
use crate::connection_limit::ConnectionPermit;
use crate::principal::{AuthenticationError, Principal, Role as PrincipalRole, ScopeMissing};
use crate::problem::chain;
use crate::scope::Scope;
use crate::service_keys::ServiceKeyRefusal;
use crate::sessions::{FollowError, Subscription};
use crate::store::SessionKey;
use crate::tenant::TenantId;
use crate::token::{Claims, Grant, IssuedToken, Purpose, TokenError};
use crate::wiring::ServerState;

/// How many commands one socket, or one address without a socket, may send in a second, and at once.
pub const COMMANDS_PER_SECOND: NonZeroU32 = NonZeroU32::new(500).unwrap();
/// See [`COMMANDS_PER_SECOND`].
pub const COMMANDS_AT_ONCE: NonZeroU32 = NonZeroU32::new(2000).unwrap();

/// When a client may come back whose session has no place for it.
const NO_PLACE: Duration = Duration::from_secs(5);

/// What a client is told whose claim is refused.
const NOT_YOURS: &str = "this session is not this browser's, or its time with it is over, or was ended by the shop; start \
                         a new one, or ask for a link on the device that has the session";

/// What a client proved at its hello.
struct Proof {
    role: Role,
    tenant: TenantId,
    credential: Credential,
    token: Option<Arc<Claims>>,
    /// Whether the browser keeps it in a cookie.
    is_in_cookie: bool,
    /// Who it is, where a service key says so.
    service: Option<Principal>,
    /// What is kept of who this is.
    caller: Caller,
}

/// A client that has said hello, and follows its session.
pub(super) struct Conversation {
    state: Arc<ServerState>,
    key: SessionKey,
    subscription: Subscription,
    proof: Proof,
    /// Tells when a service key may have come to its end.
    ends: watch::Receiver<u64>,
    /// One of the session's places, for as long as this goes on.
    _place: ConnectionPermit<SessionKey>,
}

impl Conversation {
    /// Checks what the client proves, and lets it follow its session. The first frame is the welcome.
    pub(super) async fn begin(state: Arc<ServerState>, hello: &Hello, comer: Comer) -> Result<Self, End> {
        if hello.protocol != PROTOCOL_VERSION {
            let message = format!("this server speaks protocol {PROTOCOL_VERSION}, not {}", hello.protocol);
            return Err(End::new(ErrorCode::UnsupportedProtocol, message));
        }
        let address = comer.address;
        let shown = Shown::by(hello, &comer);
        // Before the key is looked up: what ends it from here on is told.
        let ends = state.authenticator.service_keys().follow_ends();
        let mut proof = recognise(&state, hello, &shown, &comer)?;
        let key = SessionKey { tenant: proof.tenant.clone(), session_id: hello.session_id.to_string() };
        match (state.sessions.current(&key).await?, &proof.credential) {
            (None, Credential::Verified | Credential::Token { .. }) => {
                return Err(End::new(ErrorCode::SessionNotFound, "there is no session with this id"));
            }
            (None, Credential::Claim(_)) => state.creations_per_address.check(address)?,
            // What came of a service key that is revoked has ended with it.
            (Some(current), Credential::Claim(digest))
                if current.state.lent_claim(digest).is_some_and(|lent| state.authenticator.has_ended(lent)) =>
            {
                return Err(not_admitted(&state, &proof));
            }
            // A newer one than this server has heard of lets it read the session again.
            (Some(current), Credential::Token { generation, family })
                if *generation <= current.state.access_generation && !current.state.accepts(*generation, family) =>
            {
                // The claim secret is proof as well, and may be good still.
                let by_claim = by_claim(&shown, &comer).filter(|claim| claim.tenant == proof.tenant);
                proof = by_claim.ok_or_else(|| not_admitted(&state, &proof))?;
            }
            (Some(_), _) => {}
        }
        let subscription = match state.sessions.follow(&key, proof.role, proof.credential.clone(), hello).await {
            Ok(subscription) => subscription,
            Err(FollowError::Session(error)) => return Err(error.into()),
            // Only here a claim proved nothing, so it used up nobody's allowance but its address's.
            Err(FollowError::Refused) => return Err(not_admitted(&state, &proof)),
        };
        if let Credential::Claim(_) = &proof.credential {
            state.request_limits.admit_tenant(&proof.tenant)?;
        }
        let place = state
            .sockets_per_session
            .open(key.clone())
            .map_err(|error| End::new(ErrorCode::RateLimited, error.to_string()).retry_after(NO_PLACE))?;
        Ok(Self { state, key, subscription, proof, ends, _place: place })
    }

    /// The client says hello again, to catch up.
    pub(super) async fn greet_again(&mut self, hello: &Hello) -> Result<(), End> {
        if hello.session_id.as_str() != self.key.session_id {
            return Err(End::malformed("a socket stays with its session"));
        }
        loop {
            self.keep_up();
            let (role, credential) = (self.proof.role, self.proof.credential.clone());
            match self.state.sessions.follow(&self.key, role, credential, hello).await {
                Ok(subscription) => {
                    self.subscription = subscription;
                    return Ok(());
                }
                Err(FollowError::Session(error)) => return Err(error.into()),
                // It may have been paid since the line above.
                Err(FollowError::Refused) if self.keep_up() => {}
                Err(FollowError::Refused) => return Err(not_admitted(&self.state, &self.proof)),
            }
        }
    }

    /// A connection that was there when the session was paid goes on, as if it had come with the token that it gets; whether
    /// that is new.
    fn keep_up(&mut self) -> bool {
        let (Credential::Token { generation, family }, Some(state)) =
            (&mut self.proof.credential, self.subscription.state())
        else {
            return false;
        };
        let is_new = state.keeps(*generation, family) && state.access_generation > *generation;
        if is_new {
            *generation = state.access_generation;
        }
        is_new
    }

    /// The next frame for the client. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Result<Box<ServerFrame>, End> {
        loop {
            tokio::select! {
                // First, so that nobody is told more because there is always more to tell.
                biased;
                Ok(()) = self.ends.changed() => self.check_time()?,
                frame = self.subscription.frames.recv() => return frame.map_or_else(|| Err(too_slow()), or_end),
            }
        }
    }

    /// The frames that are there already. What is being told just now is waited for, so that nothing is torn apart that
    /// was told at once.
    pub(super) fn take_queued(&mut self, told: &mut Vec<ServerFrame>) -> Result<(), End> {
        drop(self.subscription.state());
        loop {
            match self.subscription.frames.try_recv() {
                Ok(frame) => told.push(*or_end(frame)?),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(too_slow()),
            }
        }
    }

    /// Hands in commands; the answers come as frames. Those for which a service key lacks the scope are refused in their turn.
    pub(super) fn submit(&self, mut requests: Vec<Request>) {
        for request in &mut requests {
            request.caller = Some(self.proof.caller.clone());
            let scope = request.command.as_ref().ok().map(|command| Scope::of_command(command.kind()));
            if let (Some(service), Some(scope)) = (&self.proof.service, scope)
                && let Err(missing) = service.require(scope)
            {
                self.state.denials.note(service.denied("command", ScopeMissing::CODE));
                request.command = Err(Rejection::new(RejectionCode::NotPermitted, missing.to_string()));
            }
        }
        let span = tracing::debug_span!("commands", count = requests.len(), role = ?self.proof.role);
        span.in_scope(|| self.subscription.submit(requests));
    }

    /// Ends the conversation of a browser whose token can't be renewed any more, whose key is retired, or which a service key had
    /// made that is revoked; and that of a service whose key is refused.
    pub(super) fn check_time(&self) -> Result<(), End> {
        let now_ms = self.state.clock.now_ms();
        let authenticator = &self.state.authenticator;
        if let Some(PrincipalRole::Service { key_id, .. }) = self.proof.service.as_ref().map(|service| &service.role) {
            authenticator.service_keys().check(key_id, now_ms).map_err(refused_key)?;
        }
        if self.proof.token.as_ref().is_some_and(|claims| authenticator.is_revoked(claims)) {
            return Err(End::new(ErrorCode::TokenExpired, TokenError::RevokedIssuer.to_string()));
        }
        if self.proof.token.as_ref().is_some_and(|claims| now_ms >= claims.ends_at_ms) {
            let message = "the time is over for which this token could be renewed; come back with another proof";
            return Err(End::new(ErrorCode::TokenExpired, message));
        }
        if self.proof.token.as_ref().is_some_and(|claims| !authenticator.tokens().holds(claims)) {
            let message = "the key with which this token was made is retired; come back with another proof";
            return Err(End::new(ErrorCode::TokenExpired, message));
        }
        Ok(())
    }

    /// The answer to a ping.
    pub(super) fn pong(&self) -> ServerFrame {
        ServerFrame::Pong { server_time: Timestamp::from_millis(self.state.clock.now_ms()) }
    }

    /// The token that is due now, if one is. A browser that proved its claim gets one as soon as the session is its own;
    /// one that has a token gets the next in time, and at once when the session is paid. One that keeps it in a cookie is told
    /// to fetch it: no script is to see it, and a socket sets no cookies.
    pub(super) fn token_due(&mut self) -> Option<ServerFrame> {
        if self.proof.role != Role::Browser {
            return None;
        }
        let now_ms = self.state.clock.now_ms();
        let tokens = self.state.authenticator.tokens();
        let lifetimes = self.state.config.lifetimes;
        let state = self.subscription.state()?;
        let access_generation = state.access_generation;
        let is_in_cookie = self.proof.is_in_cookie;
        let purpose = Purpose::of_browser(is_in_cookie);
        let issued = match (&self.proof.credential, &self.proof.token) {
            (Credential::Claim(digest), None) => {
                if !state.admits(digest, Timestamp::from_millis(now_ms)) {
                    return None;
                }
                let SessionKey { tenant, session_id } = self.key.clone();
                let grant = Grant { purpose, tenant, session_id, access_generation, issued_by: None };
                match state.lent_claim(digest) {
                    Some(lent) => tokens.issue_for(lent, &grant, lifetimes, now_ms),
                    None => tokens.issue(&grant, lifetimes, now_ms),
                }
            }
            (_, Some(claims))
                // Where its access was revoked, it is about to hear of that.
                if state.keeps(claims.access_generation, &claims.family)
                    && (claims.renew_due(now_ms)
                        || claims.access_generation < access_generation
                        || claims.purpose != purpose) =>
            {
                tokens.renew(claims, purpose, access_generation, lifetimes, now_ms)
            }
            _ => return None,
        };
        match issued {
            Ok(IssuedToken { text, claims }) => {
                let expires_at = Timestamp::from_millis(claims.expires_at_ms);
                self.proof.token = Some(Arc::new(claims));
                // The one in the cookie is made when the page asks for it; this one stands for it until the next is due.
                Some(if is_in_cookie {
                    ServerFrame::CookieDue {}
                } else {
                    ServerFrame::Token { token: text, expires_at }
                })
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "no token could be made");
                None
            }
        }
    }
}

/// Why a client may not follow a session for which its credential seemed to be good.
fn not_admitted(state: &ServerState, proof: &Proof) -> End {
    let denied = |by, did, code| Denial::of(proof.tenant.clone(), by, proof.caller.clone(), did, code);
    if let Credential::Token { .. } = proof.credential {
        let session = proof.token.as_ref().map(|claims| claims.session_id.clone());
        state.denials.note(Denial { session, ..denied("browser", "useToken", TokenError::Revoked.code()) });
        let error = AuthenticationError::from(TokenError::Revoked);
        error.note();
        return End::new(ErrorCode::TokenRevoked, error.to_string());
    }
    tracing::warn!("a claim was refused: it is none of the session's, or its time is over");
    state.denials.note(denied("nobody", "useClaim", "claimMismatch"));
    End::new(ErrorCode::Unauthorized, NOT_YOURS)
}

fn refused_key(refusal: ServiceKeyRefusal) -> End {
    match refusal {
        ServiceKeyRefusal::Unavailable => {
            End::new(ErrorCode::Unavailable, refusal.to_string()).retry_after(Duration::from_secs(2))
        }
        _ => End::new(ErrorCode::Unauthorized, refusal.to_string()),
    }
}

fn too_slow() -> End {
    End::new(ErrorCode::SlowReader, "frames were not read fast enough; come back and catch up")
}

/// The session itself may end the conversation.
fn or_end(frame: Box<ServerFrame>) -> Result<Box<ServerFrame>, End> {
    match *frame {
        ServerFrame::Error { code, message, retry_after_ms } => Err(End { code, message, retry_after_ms }),
        _ => Ok(frame),
    }
}

/// What a client shows: in its hello, and in the session's cookie what is not there.
struct Shown {
    token: Option<String>,
    is_token_of_cookie: bool,
    claim: Option<String>,
}

impl Shown {
    fn by(hello: &Hello, comer: &Comer) -> Self {
        let held = comer.cookies.as_ref().and_then(|cookies| cookies.of_session(hello.session_id.as_str()));
        let (in_cookie, claim_in_cookie) = held.map(|held| (held.token, held.claim)).unzip();
        let said = hello.token.clone().filter(|token| !token.is_empty());
        let is_token_of_cookie = said.is_none() && in_cookie.is_some();
        Self { token: said.or(in_cookie), is_token_of_cookie, claim: hello.claim.clone().or(claim_in_cookie) }
    }
}

/// What the claim secret proves, where there is one, for a session of the tenant that the page's origin belongs to.
fn by_claim(shown: &Shown, comer: &Comer) -> Option<Proof> {
    let digest = shown.claim.as_deref().and_then(claim_secret::digest_of)?;
    let credential = Credential::Claim(digest);
    let caller = Caller { key_id: None, network: Some(kept_network(comer.address)) };
    let (tenant, is_in_cookie) = (comer.tenant.clone(), comer.cookies.is_some());
    Some(Proof { role: Role::Browser, tenant, credential, token: None, is_in_cookie, service: None, caller })
}

/// A token where there is a good one, else the claim secret.
fn recognise(state: &ServerState, hello: &Hello, shown: &Shown, comer: &Comer) -> Result<Proof, End> {
    let (address, now_ms) = (comer.address, state.clock.now_ms());
    let recognised = shown.token.as_deref().map(|token| {
        if shown.is_token_of_cookie {
            state.authenticator.recognise_cookie(token, now_ms).map_err(AuthenticationError::from)
        } else {
            state.authenticator.recognise(token, now_ms)
        }
    });
    let refusal = match recognised {
        Some(Ok(principal)) if comer.cookies.is_some() && *principal.tenant() != comer.tenant => {
            tracing::warn!("a cookie was sent by the page of another tenant");
            state.denials.note(principal.at(address).denied("useCookie", "originRefused"));
            return Err(End::new(ErrorCode::Unauthorized, "pages of this origin may not use this session's cookie"));
        }
        Some(Ok(principal)) => {
            state.request_limits.admit(&principal)?;
            let principal = principal.at(address);
            let caller = principal.caller();
            principal.require(Scope::SessionsRead).map_err(|missing| {
                state.denials.note(principal.denied("followSession", ScopeMissing::CODE));
                End::new(ErrorCode::Unauthorized, missing.to_string())
            })?;
            let tenant = principal.tenant().clone();
            let (role, token, service) = match &principal.role {
                PrincipalRole::Browser { claims } if claims.session_id != hello.session_id.as_str() => {
                    tracing::warn!("a token was used for another session than its own");
                    state.denials.note(principal.denied("reachSession", "wrongSession"));
                    return Err(End::new(ErrorCode::Unauthorized, "this token is for another session"));
                }
                PrincipalRole::Browser { claims } => (Role::Browser, Some(claims.clone()), None),
                PrincipalRole::Service { .. } => (Role::Service, None, Some(principal)),
            };
            let credential = token.as_ref().map_or(Credential::Verified, |claims: &Arc<Claims>| claims.credential());
            let is_in_cookie = comer.cookies.is_some();
            return Ok(Proof { role, tenant, credential, token, is_in_cookie, service, caller });
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    if let Some(proof) = by_claim(shown, comer) {
        return Ok(proof);
    }
    let code = match &refusal {
        Some(AuthenticationError::Token(TokenError::Expired { .. })) => ErrorCode::TokenExpired,
        Some(AuthenticationError::ServiceKey(ServiceKeyRefusal::Unavailable)) => ErrorCode::Unavailable,
        _ => ErrorCode::Unauthorized,
    };
    let error = refusal.as_ref().unwrap_or(&AuthenticationError::Missing);
    error.note();
    state.denials.note(Denial::of_nobody("authenticate", error.code()).at(address));
    let message = refusal.map_or_else(|| "send a session token, or the claim secret".to_owned(), |e| e.to_string());
    Err(End::new(code, message))
}
