//! Delivers the events of one webhook, as long as this server holds its lease.
//!
//! Most of the time everything arrives: a page of events is sent, some sessions at a time, each session's in their order, and how far
//! that is is written down. An event that fails is put aside with its session's later ones, and tried again on its own. Where several
//! different events fail in a row, it is the receiver that fails: then nothing more is put aside; one event is tried now and then, and
//! when one arrives everything that waits is due.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::WebhookSettings;
use super::delivery::{Delivered, Deliverer, Failure, Message};
use super::signature::Secrets;
use crate::audit::{AuditEntry, AuditRecord};
use crate::clock::{Clock, millis};
use crate::event_feed::EventListener;
use crate::http::events::POSITIONS_AT_ONCE;
use crate::keys::KeyRing;
use crate::problem::chain;
use crate::store::{
    DeliveryNote, DeliveryTry, Disabled, EventQuery, OutboxEvent, ReadError, Store, StoredWebhook, WaitingDelivery,
};

/// How many events are read from the outbox at a time.
const PAGE: u32 = 64;

/// For how many sessions messages are sent at a time.
const AT_ONCE: usize = 8;

/// After so many different events in a row that failed it is the receiver that fails.
const FAILING: u32 = 3;

/// How many events of different sessions are tried in turn while the receiver fails.
const PROBED: usize = 16;

/// So many events may be put aside; beyond, nothing new is sent until some of them arrive.
const MAX_WAITING: usize = 1_000;

/// For how long a round begins new messages. What is slow does not hold up the sessions beside it for longer.
const ROUND: Duration = Duration::from_secs(5);

/// How often it is written down how far a webhook is that nothing is sent to: before that is forgotten.
const WRITTEN_EVERY: Duration = Duration::from_secs(15 * 60);

/// How long a worker waits before it asks a database again that did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// What a worker works with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Where events come from, and where what was delivered is written down.
    pub store: Arc<dyn Store>,
    /// With what secrets are read.
    pub keys: KeyRing,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How to deliver.
    pub settings: WebhookSettings,
    /// What delivers.
    pub deliverer: Deliverer,
    /// This server's name.
    pub server: String,
}

/// Delivers for one webhook.
#[derive(Debug)]
pub struct Worker {
    tools: Tools,
    webhook: StoredWebhook,
    secrets: Secrets,
    listener: EventListener,
    /// Until when the webhook is this server's.
    leased_until_ms: Arc<AtomicI64>,
    stop: CancellationToken,
    /// What waits to be tried again, by position.
    waiting: BTreeMap<u64, WaitingDelivery>,
    /// There is more that waits than was read.
    has_more: bool,
    /// How far the outbox was when it was last asked.
    seen: u64,
    written: Instant,
    /// The events that have failed since one arrived.
    failed: HashSet<String>,
}

/// One event that is to be sent.
#[derive(Debug, Clone)]
struct Job {
    position: u64,
    session_id: String,
    event: OutboxEvent,
    /// As it waits, if it does.
    tries: Option<u32>,
}

impl Job {
    /// What waits.
    fn of(row: &WaitingDelivery) -> Self {
        let (session_id, event) = (row.session_id.clone(), row.event.clone());
        Self { position: row.position, session_id, event, tries: Some(row.tries) }
    }

    /// It waits for its turn: it is due as soon as it is its session's first.
    fn waiting(self, now_ms: i64) -> WaitingDelivery {
        WaitingDelivery {
            position: self.position,
            session_id: self.session_id,
            event: self.event,
            tries: 0,
            next_try_at_ms: Some(now_ms),
            last_failure: String::new(),
        }
    }
}

/// What came of a job.
#[derive(Debug)]
struct Done {
    job: Job,
    /// `None` where it was not sent, because one before it has failed.
    delivered: Option<(Delivered, i64)>,
}

/// What a round came to.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// There may be more to do.
    More,
    /// Nothing is to be done before this time, in milliseconds since 1970, unless something happens.
    Until(Option<i64>),
    /// The webhook is another server's, or another one than it was.
    Lost,
}

impl Worker {
    /// One for this webhook.
    #[must_use]
    pub fn new(
        tools: Tools,
        webhook: StoredWebhook,
        secrets: Secrets,
        listener: EventListener,
        leased_until_ms: Arc<AtomicI64>,
        stop: CancellationToken,
    ) -> Self {
        let (waiting, failed, written) = (BTreeMap::new(), HashSet::new(), Instant::now());
        let (has_more, seen) = (false, 0);
        Self { tools, webhook, secrets, listener, leased_until_ms, stop, waiting, has_more, seen, written, failed }
    }

    /// Delivers until it is stopped, or the webhook is another server's.
    pub async fn run(mut self) {
        let stop = self.stop.clone();
        let (tenant, id) = (self.webhook.tenant.clone(), self.webhook.id.clone());
        if stop.run_until_cancelled(self.begin()).await.is_none() {
            return;
        }
        loop {
            // A round is not cut off: what was sent is written down.
            let round = match self.round().await {
                Ok(round) => round,
                Err(error) => {
                    tracing::debug!(%tenant, webhook = id, error = %chain(&error), "a webhook waits for the database");
                    Round::Until(Some(self.now_ms().saturating_add(millis(PAUSE))))
                }
            };
            match round {
                _ if stop.is_cancelled() => return,
                Round::More => {}
                Round::Lost => return,
                Round::Until(at_ms) => {
                    let pause = at_ms.map_or(Duration::MAX, |at_ms| {
                        Duration::from_millis(u64::try_from(at_ms.saturating_sub(self.now_ms())).unwrap_or_default())
                    });
                    // Whether it is time is asked of the clock, which may be set; so not too seldom.
                    let pause = pause.clamp(Duration::from_millis(10), PAUSE);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.listener.changed() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    fn now_ms(&self) -> i64 {
        self.tools.clock.now_ms()
    }

    /// Reads what waits, as soon as the database answers.
    async fn begin(&mut self) {
        while let Err(error) = self.read_waiting().await {
            let StoredWebhook { tenant, id, .. } = &self.webhook;
            tracing::debug!(%tenant, webhook = id, error = %chain(&error), "a webhook waits for the database");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read_waiting(&mut self) -> Result<(), ReadError> {
        let StoredWebhook { tenant, id, .. } = &self.webhook;
        // A round adds a page at most to what may wait.
        let limit = u32::try_from(MAX_WAITING).unwrap_or(u32::MAX).saturating_add(PAGE);
        let waiting = self.tools.store.waiting_deliveries(tenant, id, false, limit).await?;
        self.has_more = waiting.len() >= limit as usize;
        self.waiting = waiting.into_iter().map(|row| (row.position, row)).collect();
        self.notice_gap().await
    }

    /// Tells where events are forgotten that were not sent yet, and goes on after them.
    async fn notice_gap(&mut self) -> Result<(), ReadError> {
        let StoredWebhook { tenant, id, progress, .. } = &mut self.webhook;
        let forgotten = self.tools.store.events_forgotten(tenant).await?;
        if progress.position < forgotten {
            metrics::counter!("throughline_webhook_gaps_total").increment(1);
            tracing::error!(
                %tenant, webhook = id, after = progress.position, through = forgotten,
                "events that a webhook was not sent yet are forgotten: it was disabled or failed for longer than --event-retention"
            );
            progress.position = forgotten;
        }
        Ok(())
    }

    /// Whether the webhook stays this server's for as long as a try may take. Otherwise somebody else may have it by then.
    fn is_own(&self, now_ms: i64) -> bool {
        let left_ms = self.leased_until_ms.load(Ordering::Relaxed).saturating_sub(now_ms);
        left_ms > millis(self.tools.settings.timeout)
    }

    /// Whether nothing arrives at all.
    fn is_failing(&self) -> bool {
        self.webhook.progress.failures >= FAILING
    }

    async fn round(&mut self) -> Result<Round, ReadError> {
        let now_ms = self.now_ms();
        if !self.is_own(now_ms) {
            return Ok(Round::Until(None));
        }
        if let Some(at_ms) = self.webhook.progress.next_try_at_ms.filter(|at_ms| *at_ms > now_ms) {
            return Ok(Round::Until(Some(at_ms)));
        }
        let stop = self.stop.clone();
        let Some(settled) = stop.run_until_cancelled(self.listener.settled()).await else { return Ok(Round::Lost) };
        if settled < std::mem::replace(&mut self.seen, settled) {
            let StoredWebhook { tenant, id, progress, .. } = &mut self.webhook;
            tracing::error!(%tenant, webhook = id, position = settled, "the database was put back to an earlier moment; a webhook goes on from there");
            progress.position = progress.position.min(settled);
        }
        if self.has_more && self.waiting.len() < MAX_WAITING / 2 {
            self.read_waiting().await?;
        }
        let (new, reached) = self.new_events(settled).await?;
        let due = self.due(now_ms);
        if self.is_failing() {
            return self.probe(new, reached, settled).await;
        }
        if new.is_empty() && due.is_empty() {
            return self.advance(reached, settled).await;
        }
        let jobs = new.into_iter().chain(due).fold(BTreeMap::<String, Vec<Job>>::new(), |mut sessions, job| {
            sessions.entry(job.session_id.clone()).or_default().push(job);
            sessions
        });
        let (worker, until) = (&*self, Instant::now() + ROUND);
        let sent = futures_util::stream::iter(jobs.into_values()).map(|jobs| worker.send_in_order(jobs, until));
        let done: Vec<Vec<Done>> = sent.buffer_unordered(AT_ONCE).collect().await;
        self.settle(done.into_iter().flatten().collect(), reached).await
    }

    /// The events that are next in the outbox, and the position up to which they go.
    async fn new_events(&self, settled: u64) -> Result<(Vec<Job>, u64), ReadError> {
        let position = self.webhook.progress.position;
        if settled <= position || self.has_more || self.waiting.len() >= MAX_WAITING {
            return Ok((Vec::new(), position));
        }
        let settled = settled.min(position.saturating_add(POSITIONS_AT_ONCE));
        let (tenant, kinds) = (self.webhook.tenant.clone(), self.webhook.kinds.clone());
        let query = EventQuery { tenant, after: position, through: settled, kinds, limit: PAGE };
        let found = self.tools.store.events(&query).await?;
        let is_last = found.len() < PAGE as usize;
        let reached = if is_last { settled } else { found.last().map_or(settled, |event| event.position) };
        let job = |event: crate::store::StoredEvent| Job {
            position: event.position,
            session_id: event.session_id,
            event: event.event,
            tries: None,
        };
        Ok((found.into_iter().map(job).collect(), reached))
    }

    /// What waits, a page of it: of each session whose first one is due.
    fn due(&self, now_ms: i64) -> Vec<Job> {
        let mut are_due: HashMap<&str, bool> = HashMap::new();
        let due = self.waiting.values().filter(|row| {
            let is_due = row.next_try_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
            *are_due.entry(&row.session_id).or_insert(is_due)
        });
        due.take(PAGE as usize).map(Job::of).collect()
    }

    /// Whether an event of this session waits before this position.
    fn is_blocked(&self, job: &Job) -> bool {
        let earlier = self.waiting.range(..job.position);
        job.tries.is_none() && earlier.into_iter().any(|(_, row)| row.session_id == job.session_id)
    }

    /// Sends the events of one session, until one of them fails.
    async fn send_in_order(&self, mut jobs: Vec<Job>, until: Instant) -> Vec<Done> {
        jobs.sort_by_key(|job| job.position);
        let mut done = Vec::with_capacity(jobs.len());
        let mut has_failed = false;
        for job in jobs {
            let is_over = self.stop.is_cancelled() || Instant::now() >= until || !self.is_own(self.now_ms());
            let waits = has_failed || is_over || self.is_blocked(&job);
            let delivered = if waits { None } else { Some(self.send(&job).await) };
            has_failed |= delivered.as_ref().is_none_or(|(delivered, _)| delivered.failure.is_some());
            done.push(Done { job, delivered });
        }
        done
    }

    async fn send(&self, job: &Job) -> (Delivered, i64) {
        let now_ms = self.now_ms();
        let message = Message { url: &self.webhook.url, id: &job.event.id, body: &job.event.body };
        let delivered = self.tools.deliverer.deliver(message, &self.secrets, now_ms).await;
        let outcome = if delivered.failure.is_none() { "delivered" } else { "failed" };
        metrics::counter!("throughline_webhook_tries_total", "outcome" => outcome).increment(1);
        metrics::histogram!("throughline_webhook_try_seconds").record(delivered.took);
        (delivered, now_ms)
    }

    /// Tries one event of those that are there, a new one before one that waits: the latter may fail by itself.
    async fn probe(&mut self, new: Vec<Job>, reached: u64, settled: u64) -> Result<Round, ReadError> {
        let mut sessions = HashSet::new();
        let firsts = new.iter().filter(|job| !self.is_blocked(job) && sessions.insert(&job.session_id));
        let new_firsts: Vec<Job> = firsts.take(PROBED).cloned().collect();
        let mut sessions = HashSet::new();
        let waiting = self.waiting.values().filter(|row| sessions.insert(&row.session_id));
        let waiting_firsts: Vec<Job> = waiting.take(PROBED).map(Job::of).collect();
        // Another one each time: some may fail by themselves.
        let turn = self.webhook.progress.failures as usize;
        let of = |jobs: &[Job]| jobs.get((turn / 2) % jobs.len().max(1)).cloned();
        let job = if turn.is_multiple_of(2) {
            of(&new_firsts).or_else(|| of(&waiting_firsts))
        } else {
            of(&waiting_firsts).or_else(|| of(&new_firsts))
        };
        let Some(job) = job else {
            return self.advance(reached, settled).await;
        };
        let (delivered, now_ms) = self.send(&job).await;
        let mut note = self.note();
        note.tries.push(tried(&job, &delivered, now_ms));
        match delivered.failure {
            None => {
                self.arrived(&mut note, now_ms);
                if job.tries.is_some() {
                    self.waiting.remove(&job.position);
                    note.delivered.push(job.position);
                } else {
                    note.progress.position = job.position;
                    // Those before it wait for their turn.
                    let before = new.into_iter().filter(|other| other.position < job.position);
                    self.waiting.extend(before.map(|other| (other.position, other.waiting(now_ms))));
                }
                // All that waits is due now.
                for row in self.waiting.values_mut() {
                    row.next_try_at_ms = Some(now_ms);
                }
                note.waiting = self.waiting.values().cloned().collect();
            }
            Some(failure) => {
                self.failed(&mut note, &failure, &job.event.id, now_ms);
                let written = self.write(note).await?;
                // It may fail for longer than events are kept.
                self.notice_gap().await?;
                return Ok(written);
            }
        }
        self.write(note).await
    }

    /// Goes on to where nothing is to be sent any more.
    async fn advance(&mut self, reached: u64, settled: u64) -> Result<Round, ReadError> {
        let position = self.webhook.progress.position;
        let mut round = Round::Until(self.waiting.values().filter_map(|row| row.next_try_at_ms).min());
        // How far it is matters only for where it begins after a restart: to write that for each event of other kinds is too much.
        let is_far = reached.saturating_sub(position) >= u64::from(PAGE);
        if is_far || (reached > position && self.written.elapsed() >= WRITTEN_EVERY) {
            let mut note = self.note();
            note.progress.position = reached;
            let written = self.write(note).await?;
            if written == Round::Lost || reached < settled {
                round = written;
            }
        }
        Ok(round)
    }

    /// Writes down what came of a round.
    async fn settle(&mut self, mut done: Vec<Done>, reached: u64) -> Result<Round, ReadError> {
        done.sort_by_key(|done| done.delivered.as_ref().map(|(_, at_ms)| *at_ms));
        let mut note = self.note();
        note.progress.position = reached.max(note.progress.position);
        let something_arrived =
            done.iter().any(|done| matches!(&done.delivered, Some((delivered, _)) if delivered.failure.is_none()));
        for Done { job, delivered } in done {
            let Some((delivered, at_ms)) = delivered else {
                // What waited before waits as it did.
                if job.tries.is_none() {
                    let row = job.waiting(self.now_ms());
                    self.waiting.insert(row.position, row.clone());
                    note.waiting.push(row);
                }
                continue;
            };
            note.tries.push(tried(&job, &delivered, at_ms));
            match delivered.failure {
                None => {
                    self.arrived(&mut note, at_ms);
                    self.waiting.remove(&job.position);
                    // Also one that was given up, and is sent again.
                    note.delivered.push(job.position);
                }
                Some(failure) => {
                    // Since what failed before it, if anything did.
                    let others_arrive = note.progress.failing_since_ms.is_none();
                    self.failed(&mut note, &failure, &job.event.id, at_ms);
                    note.waiting.push(self.put_aside(job, &failure, others_arrive, at_ms));
                }
            }
        }
        if something_arrived {
            self.make_room(&mut note);
        }
        self.write(note).await
    }

    /// Where so much waits that nothing new can be sent, although other events arrive: gives up those that have failed, the oldest
    /// first.
    fn make_room(&mut self, note: &mut DeliveryNote) {
        if self.waiting.len() < MAX_WAITING {
            return;
        }
        let surplus = self.waiting.len() - MAX_WAITING / 2;
        let failed = self.waiting.values().filter(|row| row.tries > 0).map(|row| row.position);
        for position in failed.take(surplus).collect::<Vec<u64>>() {
            if let Some(row) = self.waiting.remove(&position) {
                let row = WaitingDelivery { next_try_at_ms: None, ..row };
                self.tell_given_up(&row);
                note.waiting.retain(|known| known.position != position);
                note.waiting.push(row);
            }
        }
    }

    fn tell_given_up(&self, row: &WaitingDelivery) {
        metrics::counter!("throughline_webhook_given_up_total").increment(1);
        let StoredWebhook { tenant, id, .. } = &self.webhook;
        tracing::warn!(
            %tenant, webhook = id, event = row.event.id, tries = row.tries, failure = row.last_failure,
            "an event is not sent to a webhook any more; `throughline webhooks replay --given-up` tries it again"
        );
    }

    /// An event waits for its next try, or is given up. As long as nothing else arrives it may not be the event that is at fault.
    fn put_aside(&mut self, job: Job, failure: &Failure, others_arrive: bool, at_ms: i64) -> WaitingDelivery {
        let settings = &self.tools.settings;
        let tries = job.tries.unwrap_or(0).saturating_add(1);
        let pause = settings.pause_after(tries).max(failure.pause.unwrap_or_default());
        let is_given_up = settings.gives_up_after(tries) && others_arrive;
        let row = WaitingDelivery {
            position: job.position,
            session_id: job.session_id,
            event: job.event,
            tries,
            next_try_at_ms: (!is_given_up).then(|| at_ms.saturating_add(millis(pause))),
            last_failure: failure.what.clone(),
        };
        if is_given_up {
            self.tell_given_up(&row);
            self.waiting.remove(&row.position);
        } else {
            self.waiting.insert(row.position, row.clone());
        }
        row
    }

    fn note(&self) -> DeliveryNote {
        let StoredWebhook { tenant, id, revision, progress, .. } = &self.webhook;
        DeliveryNote {
            tenant: tenant.clone(),
            id: id.clone(),
            revision: *revision,
            server: self.tools.server.clone(),
            progress: progress.clone(),
            delivered: Vec::new(),
            waiting: Vec::new(),
            tries: Vec::new(),
            audit: None,
        }
    }

    /// An event has arrived: so the receiver works.
    fn arrived(&mut self, note: &mut DeliveryNote, at_ms: i64) {
        let progress = &mut note.progress;
        if progress.failures >= FAILING {
            let StoredWebhook { tenant, id, .. } = &self.webhook;
            let failed_ms = progress.failing_since_ms.map_or(0, |since_ms| at_ms.saturating_sub(since_ms));
            tracing::info!(%tenant, webhook = id, failed_ms, "a webhook works again");
        }
        (progress.failing_since_ms, progress.failures, progress.next_try_at_ms) = (None, 0, None);
        progress.delivered += 1;
        progress.tries += 1;
        self.failed.clear();
    }

    /// An event has failed.
    fn failed(&mut self, note: &mut DeliveryNote, failure: &Failure, event_id: &str, at_ms: i64) {
        let settings = &self.tools.settings;
        let progress = &mut note.progress;
        let was_failing = progress.failures >= FAILING;
        progress.tries += 1;
        let since_ms = *progress.failing_since_ms.get_or_insert(at_ms);
        if self.webhook.progress.failures >= FAILING {
            progress.failures = progress.failures.saturating_add(1);
        } else if self.failed.insert(event_id.to_owned()) {
            // What fails together in one round is no longer a failure than one event.
            progress.failures = progress.failures.saturating_add(1).min(FAILING);
        }
        let StoredWebhook { tenant, id, .. } = &self.webhook;
        if progress.failures >= FAILING {
            let pause = settings.pause_after(progress.failures - (FAILING - 1));
            let pause = pause.max(failure.pause.unwrap_or_default());
            progress.next_try_at_ms = Some(at_ms.saturating_add(millis(pause)));
            if !was_failing {
                tracing::warn!(%tenant, webhook = id, failure = failure.what, "a webhook fails; it is tried now and then");
            }
        }
        let has_failed_for_long = at_ms.saturating_sub(since_ms) >= millis(settings.disable_after);
        if failure.is_gone || has_failed_for_long {
            let because = if failure.is_gone {
                failure.what.clone()
            } else {
                let days = humantime::format_duration(settings.disable_after);
                format!("nothing has arrived for {days}; at last {}", failure.what)
            };
            tracing::error!(%tenant, webhook = id, because, "a webhook is disabled; nothing is sent to it until somebody enables it");
            progress.disabled = Some(Disabled { at_ms, because });
            let entry = AuditEntry::done(tenant.clone(), "webhookDisabled", at_ms);
            let entry = AuditEntry { subject: Some(id.clone()), ..entry };
            note.audit = AuditRecord::new(&entry, &self.tools.keys, at_ms).ok();
        }
    }

    /// Writes down what was done, and goes on from there.
    async fn write(&mut self, note: DeliveryNote) -> Result<Round, ReadError> {
        loop {
            match self.tools.store.note_deliveries(&note).await {
                Ok(true) => {
                    self.written = Instant::now();
                    let is_disabled = note.progress.disabled.is_some();
                    self.webhook.progress = note.progress;
                    return Ok(if is_disabled { Round::Lost } else { Round::More });
                }
                Ok(false) => return Ok(Round::Lost),
                Err(error) if self.stop.is_cancelled() => return Err(error),
                // What was sent would be sent again were it not written down.
                Err(error) => {
                    let StoredWebhook { tenant, id, .. } = &self.webhook;
                    tracing::debug!(%tenant, webhook = id, error = %chain(&error), "what a webhook was told is not written down yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

fn tried(job: &Job, delivered: &Delivered, at_ms: i64) -> DeliveryTry {
    DeliveryTry {
        event_id: job.event.id.clone(),
        kind: job.event.kind,
        session_id: job.session_id.clone(),
        at_ms,
        took_ms: u64::try_from(delivered.took.as_millis()).unwrap_or(u64::MAX),
        status: delivered.status,
        failure: delivered.failure.as_ref().map(|failure| failure.what.clone()),
    }
}
