//! A circuit breaker: what fails again and again is left alone until it answers a probe.
//!
//! It knows nothing about what it guards. A caller asks [`Breaker::admit`] before it begins,
//! and tells the [`Attempt`] how it went. After several failures in a row the breaker opens:
//! nobody waits any more, and a task in the background probes until it may close again.
//!
//! An attempt that began before the last change of state says nothing about now, and an
//! attempt that is dropped (its caller was cancelled) says nothing at all.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::problem::chain;

/// How a breaker judges.
#[derive(Debug, Clone)]
pub struct BreakerSettings {
    /// What is guarded, as it is called in logs and metrics.
    pub dependency: Cow<'static, str>,
    /// After how many failures in a row it opens.
    pub failures: u32,
    /// How often it probes while it is open.
    pub probe_every: Duration,
    /// How long one probe may take.
    pub probe_limit: Duration,
}

impl BreakerSettings {
    /// Three failures in a row open it; probes of at most 250 ms follow every 500 ms.
    #[must_use]
    pub fn new(dependency: impl Into<Cow<'static, str>>) -> Self {
        Self {
            dependency: dependency.into(),
            failures: 3,
            probe_every: Duration::from_millis(500),
            probe_limit: Duration::from_millis(250),
        }
    }
}

type ProbeFuture = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Guards one thing. Clones share their state.
#[derive(Clone)]
pub struct Breaker {
    inner: Arc<Inner>,
}

struct Inner {
    settings: BreakerSettings,
    probe: Box<dyn Fn() -> ProbeFuture + Send + Sync>,
    runtime: Handle,
    /// The same as `state.open_since.is_some()`, to be read without the lock.
    open: AtomicBool,
    state: Mutex<State>,
    watchers: watch::Sender<bool>,
    probe_now: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// For each kind of work.
    failures_in_a_row: [u32; 2],
    open_since: Option<Instant>,
    /// Counts changes of state: tells attempts of an earlier time from those of now.
    turn: u64,
}

/// The breaker is open: nothing may be begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{dependency} failed before and is not asked until it answers a probe")]
pub struct Open {
    /// What is guarded.
    pub dependency: Cow<'static, str>,
}

/// Something that was admitted, and whose end the breaker wants to hear of.
#[derive(Debug)]
#[must_use = "tell it how the attempt went"]
pub struct Attempt {
    breaker: Breaker,
    turn: u64,
    kind: Kind,
}

/// What is attempted. That one kind works says nothing of the other: on a full disk reading works and writing fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What changes something.
    Writing,
    /// What reads.
    Looking,
}

impl Breaker {
    /// A closed breaker. `probe` tells whether what is guarded works again; it is called only
    /// while the breaker is open, one call at a time, and must not go through the breaker.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which the probes need.
    #[must_use]
    pub fn new<F, P>(settings: BreakerSettings, probe: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        let inner = Inner {
            settings,
            probe: Box::new(move || Box::pin(probe())),
            runtime: Handle::current(),
            open: AtomicBool::new(false),
            state: Mutex::default(),
            watchers: watch::Sender::new(false),
            probe_now: Notify::new(),
        };
        inner.measure(false);
        Self { inner: Arc::new(inner) }
    }

    /// Whether calls fail at once.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.inner.open.load(Ordering::Acquire)
    }

    /// Follows the state: `true` while open.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.inner.watchers.subscribe()
    }

    /// Asks whether something may begin.
    ///
    /// # Errors
    /// [`Open`] while it may not.
    pub fn admit(&self, kind: Kind) -> Result<Attempt, Open> {
        if self.is_open() {
            return Err(Open { dependency: self.inner.settings.dependency.clone() });
        }
        let turn = self.inner.state().turn;
        Ok(Attempt { breaker: self.clone(), turn, kind })
    }

    /// Opens it now: for what is known to be away without having been tried.
    pub fn trip(&self, cause: &(dyn Error + 'static)) {
        let state = self.inner.state();
        if state.open_since.is_none() {
            self.open(state, cause);
        }
    }

    /// Probes at once instead of at the next interval, if it is open.
    pub fn probe_now(&self) {
        if self.is_open() {
            self.inner.probe_now.notify_one();
        }
    }

    fn open(&self, mut state: MutexGuard<'_, State>, cause: &(dyn Error + 'static)) {
        let settings = &self.inner.settings;
        state.open_since = Some(Instant::now());
        state.turn += 1;
        self.inner.open.store(true, Ordering::Release);
        // Under the lock, so that watchers and the metric see changes in their order.
        self.inner.watchers.send_replace(true);
        self.inner.measure(true);
        drop(state);
        tracing::warn!(
            dependency = %settings.dependency,
            error = %chain(cause),
            "does not work; it is not asked until it answers a probe"
        );
        self.inner.runtime.spawn(Inner::probe_until_closed(Arc::downgrade(&self.inner)));
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("dependency", &self.inner.settings.dependency)
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Attempt {
    /// It worked.
    pub fn succeeded(self) {
        let mut state = self.breaker.inner.state();
        if state.turn == self.turn {
            state.failures_in_a_row[self.kind as usize] = 0;
        }
    }

    /// It did not, for a reason that lies with what is guarded. Tells whether this opened the
    /// breaker.
    pub fn failed(self, cause: &(dyn Error + 'static)) -> bool {
        let mut state = self.breaker.inner.state();
        if state.turn != self.turn {
            return false;
        }
        let failures = &mut state.failures_in_a_row[self.kind as usize];
        *failures += 1;
        let enough = *failures >= self.breaker.inner.settings.failures;
        if enough {
            self.breaker.open(state, cause);
        }
        enough
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if something did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measure(&self, open: bool) {
        let gauge = metrics::gauge!("throughline_breaker_open", "dependency" => self.settings.dependency.clone());
        gauge.set(if open { 1.0 } else { 0.0 });
    }

    /// Ends when the breaker closed or nobody has it any more.
    async fn probe_until_closed(breaker: Weak<Self>) {
        loop {
            let Some(inner) = breaker.upgrade() else { return };
            let probe = (inner.probe)();
            let settings = inner.settings.clone();
            drop(inner);
            let answered = tokio::time::timeout(settings.probe_limit, probe).await.unwrap_or(false);
            let Some(inner) = breaker.upgrade() else { return };
            if answered {
                inner.close();
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(settings.probe_every) => {}
                () = inner.probe_now.notified() => {}
            }
        }
    }

    fn close(&self) {
        let mut state = self.state();
        let open_for = state.open_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        state.failures_in_a_row = [0; 2];
        state.turn += 1;
        self.open.store(false, Ordering::Release);
        self.watchers.send_replace(false);
        self.measure(false);
        drop(state);
        #[allow(clippy::cast_possible_truncation)] // Half a billion years.
        let open_for_ms = open_for.as_millis() as u64;
        tracing::info!(dependency = %self.settings.dependency, open_for_ms, "works again");
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What is not used any more does not fail any more.
        self.measure(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("broken")]
    struct Broken;

    fn breaker(works: &Arc<AtomicBool>) -> Breaker {
        let works = Arc::clone(works);
        Breaker::new(BreakerSettings::new("test"), move || {
            let works = works.load(Ordering::SeqCst);
            async move { works }
        })
    }

    fn fail(breaker: &Breaker) -> bool {
        breaker.admit(Kind::Writing).expect("it is closed").failed(&Broken)
    }

    async fn until(watch: &mut watch::Receiver<bool>, open: bool) {
        tokio::time::timeout(Duration::from_secs(5), watch.wait_for(|state| *state == open))
            .await
            .expect("the breaker changes in time")
            .expect("the breaker is there");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_a_probe_closes_it() {
        let works = Arc::new(AtomicBool::new(false));
        let breaker = breaker(&works);
        assert!(!fail(&breaker) && !fail(&breaker));
        breaker.admit(Kind::Writing).expect("two failures are not enough").succeeded();
        assert!(!fail(&breaker) && !fail(&breaker), "a success between them begins the count anew");
        assert!(fail(&breaker));
        assert!(breaker.is_open());
        assert_eq!(breaker.admit(Kind::Writing).expect_err("it is open"), Open { dependency: "test".into() });
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(breaker.is_open(), "no probe was answered");
        works.store(true, Ordering::SeqCst);
        until(&mut breaker.watch(), false).await;
        assert!(!fail(&breaker), "a closed breaker counts from zero");
    }

    #[tokio::test(start_paused = true)]
    async fn that_reading_works_does_not_excuse_that_writing_fails() {
        let works = Arc::new(AtomicBool::new(false));
        let breaker = breaker(&works);
        let look = || breaker.admit(Kind::Looking).expect("it is closed");
        assert!(!fail(&breaker));
        look().succeeded();
        assert!(!fail(&breaker), "one kind's failures are not the other's");
        look().succeeded();
        assert!(!look().failed(&Broken), "nor do they add up");
        look().succeeded();
        assert!(fail(&breaker), "the third write in a row that failed");
    }

    #[tokio::test(start_paused = true)]
    async fn what_began_before_a_change_says_nothing_about_now() {
        let works = Arc::new(AtomicBool::new(true));
        let breaker = breaker(&works);
        let old: Vec<Attempt> = (0..5).map(|_| breaker.admit(Kind::Writing).expect("it is closed")).collect();
        breaker.trip(&Broken);
        until(&mut breaker.watch(), false).await;
        for attempt in old {
            assert!(!attempt.failed(&Broken));
        }
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_attempt_counts_for_nothing() {
        let works = Arc::new(AtomicBool::new(false));
        let breaker = breaker(&works);
        for _ in 0..10 {
            drop(breaker.admit(Kind::Writing).expect("it is closed"));
        }
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_is_given_up() {
        let probes = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&probes);
        let breaker = Breaker::new(BreakerSettings::new("test"), move || {
            let probe = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                if probe < 2 {
                    std::future::pending::<()>().await;
                }
                true
            }
        });
        breaker.trip(&Broken);
        until(&mut breaker.watch(), false).await;
        assert_eq!(probes.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_can_be_asked_for() {
        let works = Arc::new(AtomicBool::new(false));
        let settings = BreakerSettings { probe_every: Duration::from_secs(3600), ..BreakerSettings::new("test") };
        let probed = Arc::clone(&works);
        let breaker = Breaker::new(settings, move || {
            let works = probed.load(Ordering::SeqCst);
            async move { works }
        });
        breaker.trip(&Broken);
        tokio::time::sleep(Duration::from_millis(1)).await;
        works.store(true, Ordering::SeqCst);
        breaker.probe_now();
        until(&mut breaker.watch(), false).await;
    }
}
