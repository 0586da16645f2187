//! One request of a client that has no WebSocket: it says hello, submits, and waits for what happens. Nothing is kept
//! from one request to the next, so any server may answer the next one.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant as Moment};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use throughline_core::sync::{Hello, Request, ServerFrame};
use tokio::time::{Instant, timeout, timeout_at};
use utoipa::ToSchema;

use super::Comer;
use super::conversation::Conversation;
use super::end::{End, not_in_time, restarting};
use super::incoming::{Incoming, read_value};
use crate::http::waiting::{Held, LONGEST, Waited};
use crate::wiring::ServerState;

/// How long the session may take to answer. Shorter than what requests have in all.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

/// How many frames one request holds at most.
const MAX_FRAMES: usize = 100;

/// How long after something has happened what belongs to it is waited for.
const GATHERING: Duration = Duration::from_millis(20);

/// How long a client that has been told what the database does not have yet waits for it to have that: it has it in a
/// quarter of this, and never as long as it is away.
const SETTLING: Duration = Duration::from_secs(1);

/// What a client says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "frames": [{
        "type": "hello", "protocol": 1, "sessionId": "ws_m3k2x_9f2c", "clientId": "cl_7q", "knownVersion": 4,
        "epoch": 5301, "token": "v4.local.…"
    }],
    "waitMs": 25000
}))]
pub(crate) struct Poll {
    /// `hello`, then up to 99 of `submit` and `ping`, each as it would go over the socket.
    #[schema(value_type = Vec<Value>)]
    frames: Vec<Value>,
    /// For how many milliseconds to wait for something to happen where there is nothing new: 0 to 25000.
    #[serde(default)]
    #[schema(value_type = u16, default = 0, maximum = 25000)]
    wait_ms: Wait,
}

/// What the server says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PollAnswer {
    /// As they would come over the socket, in their order. Where the last one is an `error`, it says what is wrong.
    #[schema(value_type = Vec<Object>)]
    frames: Vec<ServerFrame>,
}

/// For how long to wait.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(try_from = "u64")]
struct Wait(Duration);

impl TryFrom<u64> for Wait {
    type Error = String;

    fn try_from(milliseconds: u64) -> Result<Self, String> {
        let wait = Duration::from_millis(milliseconds);
        if wait > LONGEST {
            return Err(format!(
                "a request waits for at most {} milliseconds, not {milliseconds}",
                LONGEST.as_millis()
            ));
        }
        Ok(Self(wait))
    }
}

/// Counts as open until it is dropped, also where its client is gone.
struct Open;

impl Open {
    fn count() -> Self {
        metrics::gauge!("throughline_polls").increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("throughline_polls").decrement(1.0);
    }
}

/// Answers a poll, and says for how long it waited.
pub(super) async fn answer(
    state: &Arc<ServerState>,
    comer: Comer,
    poll: Poll,
    held: Option<Held>,
) -> (PollAnswer, Waited) {
    let _open = Open::count();
    let mut answering = Answering { until: Instant::now() + poll.wait_ms.0, held, waits: None, told: Vec::new() };
    let conversing = answering.converse(state, comer, poll.frames);
    let outcome = state.shutdown.run_until_cancelled(conversing).await;
    if let Err(end) = outcome.unwrap_or_else(|| Err(restarting())) {
        let code = end.code;
        tracing::debug!(?code, "a poll ends with an error");
        metrics::counter!("throughline_polls_refused_total", "code" => code.close_code().to_string()).increment(1);
        answering.told.push(end.into());
    }
    let Answering { waits, told: frames, .. } = answering;
    (PollAnswer { frames }, waits.map_or(Waited(Duration::ZERO), Waited::since))
}

/// What a poll's frames ask for.
struct Asked {
    hello: Hello,
    commands: Vec<Request>,
    pings: usize,
}

impl Asked {
    /// All of it is read before any of it is done.
    fn read(frames: Vec<Value>) -> Result<Self, End> {
        if frames.len() > MAX_FRAMES {
            return Err(End::malformed(&format!("a request holds at most {MAX_FRAMES} frames")));
        }
        let mut frames = frames.into_iter();
        let Some(Incoming::Hello(hello)) = frames.next().map(read_value).transpose()? else {
            return Err(End::malformed("the first frame has to be hello"));
        };
        let mut asked = Self { hello, commands: Vec::new(), pings: 0 };
        for frame in frames {
            match read_value(frame)? {
                Incoming::Submit(commands) => asked.commands.extend(commands),
                Incoming::Ping => asked.pings += 1,
                Incoming::Hello(_) => return Err(End::malformed("a request says hello once")),
            }
        }
        Ok(asked)
    }
}

/// A poll that is being answered.
struct Answering {
    /// Until when there is time for something to happen.
    until: Instant,
    held: Option<Held>,
    /// Since when it waits.
    waits: Option<Moment>,
    told: Vec<ServerFrame>,
}

impl Answering {
    async fn converse(&mut self, state: &Arc<ServerState>, comer: Comer, frames: Vec<Value>) -> Result<(), End> {
        let Asked { hello, commands, pings } = Asked::read(frames)?;
        let knows_durable = hello.known_version > 0;
        let mut conversation = match timeout(ANSWER_LIMIT, self.work(state, comer, hello, commands, pings)).await {
            Ok(conversation) => conversation?,
            Err(_) => return Err(not_in_time()),
        };
        let patience = match self.told.as_slice() {
            [_welcome] => self.until,
            // Who knows of nothing durable was told this a moment ago. Were it told again at once, and again, until the database has
            // it, that would go round as fast as the network is.
            told if !knows_durable && only_waits_for_the_database(told) => self.until.min(Instant::now() + SETTLING),
            _ => return Ok(()),
        };
        self.waits = Some(Moment::now());
        if let Some(held) = self.held.take() {
            held.give_back();
        }
        if let Ok(frame) = timeout_at(patience, conversation.next()).await {
            self.tell(&mut conversation, *frame?);
            let gathered = self.until.min(Instant::now() + GATHERING);
            while Instant::now() < gathered
                && let Ok(frame) = timeout_at(gathered, conversation.next()).await
            {
                self.tell(&mut conversation, *frame?);
            }
        }
        // While it waited, its token may have become due.
        self.told.extend(conversation.token_due());
        Ok(())
    }

    /// What does not depend on anything else happening: the welcome, what the client lacks, and the answers to its commands.
    async fn work(
        &mut self,
        state: &Arc<ServerState>,
        comer: Comer,
        hello: Hello,
        commands: Vec<Request>,
        pings: usize,
    ) -> Result<Conversation, End> {
        let address = comer.address;
        let mut conversation = Conversation::begin(Arc::clone(state), &hello, comer).await?;
        // Nothing can be submitted by whom the session does not know yet.
        let welcome = conversation.next().await?;
        self.tell(&mut conversation, *welcome);
        self.told.extend((0..pings).map(|_| conversation.pong()));
        let mut unanswered = commands.len();
        if let Some(count) = u32::try_from(unanswered).ok().and_then(NonZeroU32::new) {
            state.polled_commands_per_address.check_all(address, count)?;
            conversation.submit(commands);
        }
        while unanswered > 0 {
            let frame = conversation.next().await?;
            match &*frame {
                ServerFrame::Accepted { .. } | ServerFrame::Rejected { .. } | ServerFrame::Gap { .. } => {
                    unanswered -= 1
                }
                // All that was not answered yet is to be sent again.
                ServerFrame::Busy { .. } => unanswered = 0,
                _ => {}
            }
            self.tell(&mut conversation, *frame);
        }
        conversation.take_queued(&mut self.told)?;
        Ok(conversation)
    }

    /// A token comes as early as it can: the session may have become the client's own by this frame.
    fn tell(&mut self, conversation: &mut Conversation, frame: ServerFrame) {
        self.told.push(frame);
        self.told.extend(conversation.token_due());
    }
}

/// Whether a client that sends what is not durable again with each hello has heard nothing that it may not have heard
/// before, and would hear something new when the database has it.
fn only_waits_for_the_database(told: &[ServerFrame]) -> bool {
    let durable = told.iter().map(|frame| match frame {
        ServerFrame::Welcome { durable_version: version, .. } | ServerFrame::Durable { version } => *version,
        _ => 0,
    });
    let durable = durable.max().unwrap_or(0);
    let mut is_ahead = false;
    for frame in told {
        match frame {
            ServerFrame::Welcome { .. } | ServerFrame::Durable { .. } => {}
            ServerFrame::Snapshot { state } if state.version() > durable => is_ahead = true,
            ServerFrame::Accepted { repeated: true, version, .. } if *version > durable => is_ahead = true,
            _ => return false,
        }
    }
    is_ahead
}
