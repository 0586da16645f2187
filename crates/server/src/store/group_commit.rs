//! Many callers, one transaction: the cost of making a commit durable is paid once per batch.
//!
//! A single task owns the writing connection. It takes one job, then as many more as are
//! waiting, writes all of them, commits once, and only then tells each caller; what one of
//! them does wrong does not hurt the others. While one batch is being written, the next one fills by itself; it waits for
//! callers only where they are about to come anyway (see `Gathering`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::StoreFault;
use crate::problem::chain;
use crate::telemetry::spans;

/// How much may wait, and how much goes into one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCommitLimits {
    /// Jobs that may wait; the next one is refused at once.
    pub queue: usize,
    /// Jobs in one transaction.
    pub batch: usize,
}

impl Default for GroupCommitLimits {
    fn default() -> Self {
        Self { queue: 4096, batch: 256 }
    }
}

/// Something that runs batches of jobs, each batch in one transaction.
///
/// The jobs tell their own callers, after the commit or after its failure.
#[async_trait]
pub trait BatchWriter: Send + 'static {
    /// What it writes.
    type Job: Send + 'static;

    /// Writes all of `batch` in one transaction. Returns how many transactions it began.
    async fn write(&mut self, batch: Vec<Self::Job>) -> u64;

    /// Work that is due between batches, such as a postponed checkpoint. Says how long to
    /// wait before asking again, or `None` when there is nothing left to do.
    async fn between(&mut self) -> Option<Duration>;

    /// The queue is closed and empty.
    async fn finish(&mut self);
}

/// Logs that a batch was not written. One that only was to find out whether writing works tells whoever asked,
/// again and again while it does not: nothing for the log.
pub(super) fn log_failure(fault: &StoreFault, jobs: usize, probes_only: bool) {
    if probes_only {
        tracing::debug!(error = %chain(fault), "writing does not work");
    } else {
        tracing::warn!(error = %chain(fault), jobs, "a batch of commits failed");
    }
}

/// Hands jobs to the one task that writes.
#[derive(Debug)]
pub struct GroupCommit<J> {
    /// With the span of whoever waits for it.
    jobs: mpsc::Sender<(J, Span)>,
    counts: Arc<Counts>,
    closing: CancellationToken,
    finished: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct Counts {
    jobs: AtomicU64,
    transactions: AtomicU64,
}

/// Why a job was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full.
    #[error("the queue of writes is full")]
    Full,
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
}

impl SubmitError {
    /// The fault to report when the writer has ended.
    #[must_use]
    pub fn into_fault(self) -> StoreFault {
        StoreFault::new("handing the change to the writer", self)
    }
}

impl<J: Send + 'static> GroupCommit<J> {
    /// Starts the writing task.
    pub fn start(writer: impl BatchWriter<Job = J>, limits: GroupCommitLimits) -> Self {
        let (jobs, waiting) = mpsc::channel(limits.queue.max(1));
        let (finish, finished) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let closing = CancellationToken::new();
        tokio::spawn(run(writer, waiting, limits.batch.max(1), Arc::clone(&counts), closing.clone(), finish));
        Self { jobs, counts, closing, finished }
    }

    /// Hands over `job`. From here on it runs whether or not its caller waits for it.
    ///
    /// # Errors
    /// When the queue is full or the writer has ended; the job was then not begun.
    pub fn submit(&self, job: J) -> Result<(), SubmitError> {
        self.jobs.try_send((job, spans::current())).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::Full,
            TrySendError::Closed(_) => SubmitError::Closed,
        })?;
        // Summed, not set: a database may have several writers.
        metrics::gauge!("throughline_store_queue_jobs").increment(1.0);
        Ok(())
    }

    /// Jobs and transactions so far.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let Counts { jobs, transactions } = &*self.counts;
        (jobs.load(Ordering::SeqCst), transactions.load(Ordering::SeqCst))
    }

    /// Refuses new jobs, writes what is waiting, and returns when that is done.
    pub async fn close(&self) {
        self.closing.cancel();
        // An error means that the writer is gone already.
        let _ = self.finished.clone().wait_for(|finished| *finished).await;
    }
}

async fn run<W: BatchWriter>(
    mut writer: W,
    mut waiting: mpsc::Receiver<(W::Job, Span)>,
    most: usize,
    counts: Arc<Counts>,
    closing: CancellationToken,
    finish: watch::Sender<bool>,
) {
    let mut pause = None;
    let mut batch = Vec::new();
    let mut before = Gathering::default();
    loop {
        // `recv_many` is cancel safe: a job is either still in the queue or in the batch.
        tokio::select! {
            biased;
            () = closing.cancelled(), if !waiting.is_closed() => waiting.close(),
            taken = waiting.recv_many(&mut batch, most) => {
                if taken == 0 {
                    break;
                }
                before.gather(&mut batch, &mut waiting, most).await;
            }
            () = sleep(pause) => {}
        }
        if !batch.is_empty() {
            let jobs = batch.len();
            counts.jobs.fetch_add(jobs as u64, Ordering::SeqCst);
            metrics::gauge!("throughline_store_queue_jobs").decrement(jobs as f64);
            metrics::histogram!("throughline_store_batch_jobs").record(jobs as f64);
            let started = Instant::now();
            let (batch, waiting): (Vec<W::Job>, Vec<Span>) = batch.drain(..).unzip();
            let span = spans::batch(&waiting);
            let begun = writer.write(batch).instrument(span).await;
            before = Gathering { jobs, took: started.elapsed(), ended: Some(Instant::now()) };
            metrics::histogram!("throughline_store_transaction_seconds").record(before.took);
            counts.transactions.fetch_add(begun, Ordering::SeqCst);
            metrics::counter!("throughline_store_transactions_total").increment(begun);
        }
        pause = writer.between().await;
    }
    writer.finish().await;
    // Nobody may be waiting any more.
    let _ = finish.send(true);
}

/// The batch before the one that is gathered.
///
/// Once it is written, all of its callers go on together. Without waiting, the first of them to come back would have a
/// transaction to itself, and all the others would wait for that one. So a batch waits for a moment that is short beside a
/// transaction, until about as many are there again; who is alone never waits.
#[derive(Debug, Default)]
struct Gathering {
    jobs: usize,
    took: Duration,
    ended: Option<Instant>,
}

/// The longest that a batch waits for others.
const GATHERING_LIMIT: Duration = Duration::from_millis(5);

impl Gathering {
    /// Waits until `batch` has about as many jobs as the one before, or the moment is over.
    async fn gather<J>(&self, batch: &mut Vec<J>, waiting: &mut mpsc::Receiver<J>, most: usize) {
        // Whoever was going to come back has done so after as long as all of them had waited.
        if self.ended.is_none_or(|ended| ended.elapsed() > self.took) {
            return;
        }
        let moment = (self.took / 4).min(GATHERING_LIMIT);
        let enough = most.min(self.jobs / 4 * 3);
        let filled = async { while batch.len() < enough && waiting.recv_many(batch, most - batch.len()).await > 0 {} };
        let _ = tokio::time::timeout(moment, filled).await;
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Semaphore, oneshot};

    use super::*;

    struct Slow {
        gate: Arc<Semaphore>,
    }

    #[async_trait]
    impl BatchWriter for Slow {
        type Job = oneshot::Sender<usize>;

        async fn write(&mut self, batch: Vec<Self::Job>) -> u64 {
            self.gate.acquire().await.unwrap().forget();
            let size = batch.len();
            for job in batch {
                let _ = job.send(size);
            }
            1
        }

        async fn between(&mut self) -> Option<Duration> {
            None
        }

        async fn finish(&mut self) {}
    }

    fn slow(queue: usize, batch: usize) -> (GroupCommit<oneshot::Sender<usize>>, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let writer = Slow { gate: Arc::clone(&gate) };
        (GroupCommit::start(writer, GroupCommitLimits { queue, batch }), gate)
    }

    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn jobs_that_arrive_during_a_write_share_the_next_one() {
        let (group, gate) = slow(16, 4);
        let mut answers = Vec::new();
        for _ in 0..7 {
            let (tell, told) = oneshot::channel();
            group.submit(tell).unwrap();
            answers.push(told);
            settle().await;
        }
        gate.add_permits(10);
        let mut sizes = Vec::new();
        for told in answers {
            sizes.push(told.await.unwrap());
        }
        assert_eq!(sizes, [1, 4, 4, 4, 4, 2, 2]);
        settle().await;
        assert_eq!(group.counts(), (7, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_come_back_together_are_waited_for_but_not_for_long() {
        let waiting_of = |jobs: Vec<u32>| {
            let (sender, receiver) = mpsc::channel(16);
            jobs.into_iter().for_each(|job| sender.try_send(job).unwrap());
            (sender, receiver)
        };
        let now = || Some(Instant::now());
        let before = Gathering { jobs: 4, took: Duration::from_millis(16), ended: now() };
        let begun = tokio::time::Instant::now();
        let (later, mut waiting) = waiting_of(vec![2]);
        let arriving = async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            later.send(3).await.unwrap();
        };
        let mut batch = vec![1];
        tokio::join!(before.gather(&mut batch, &mut waiting, 16), arriving);
        assert_eq!((batch, begun.elapsed()), (vec![1, 2, 3], Duration::from_millis(2)), "three of four are enough");

        let begun = tokio::time::Instant::now();
        let (_open, mut waiting) = waiting_of(vec![2]);
        let mut batch = vec![1];
        before.gather(&mut batch, &mut waiting, 16).await;
        assert_eq!((batch, begun.elapsed().as_millis()), (vec![1, 2], 4), "a quarter of what the last one took");

        let begun = tokio::time::Instant::now();
        let slow = Gathering { jobs: 4, took: Duration::from_secs(2), ended: now() };
        slow.gather(&mut vec![1], &mut waiting, 16).await;
        assert_eq!(begun.elapsed(), GATHERING_LIMIT, "and never for long");

        let begun = tokio::time::Instant::now();
        let long_ago = Gathering { ended: Instant::now().checked_sub(Duration::from_secs(3)), ..slow };
        long_ago.gather(&mut vec![1], &mut waiting, 16).await;
        assert!(begun.elapsed().is_zero(), "after a pause nobody is about to come");

        let begun = tokio::time::Instant::now();
        let alone = Gathering { jobs: 1, took: Duration::from_secs(1), ended: now() };
        alone.gather(&mut vec![1], &mut waiting, 16).await;
        assert!(begun.elapsed().is_zero(), "who is alone does not wait");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let (group, _gate) = slow(2, 1);
        let submit = || group.submit(oneshot::channel().0);
        submit().unwrap();
        settle().await;
        submit().unwrap();
        submit().unwrap();
        assert!(matches!(submit(), Err(SubmitError::Full)));
    }

    #[tokio::test]
    async fn closing_writes_what_waits_and_refuses_what_comes_later() {
        let (group, gate) = slow(16, 2);
        let mut answers = Vec::new();
        for _ in 0..5 {
            let (tell, told) = oneshot::channel();
            group.submit(tell).unwrap();
            answers.push(told);
        }
        gate.add_permits(10);
        group.close().await;
        for told in answers {
            assert!(told.await.is_ok());
        }
        assert!(matches!(group.submit(oneshot::channel().0), Err(SubmitError::Closed)));
    }
}
