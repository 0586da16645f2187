//! Everything fails, at random and mixed, while buyers go on; then it is checked what became of each change.
//!
//! What fails, when and for how long follows from a seed; what the machine makes of it does not, so a seed repeats a
//! run's faults and not its outcome.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::buyer::{Buyer, Identity};
use crate::fleet::{Fleet, Node};
use crate::promises::{self, Outcome};
use crate::tcp_proxy::TcpProxy;

/// How often each buyer changes something.
const CHANGE_EVERY: Duration = Duration::from_millis(25);

/// After this long everything is healed and checked, and other buyers come.
const ROUND: Duration = Duration::from_secs(20);

/// How long it may take until each change is settled once everything works again.
const SETTLING: Duration = Duration::from_secs(30);

/// How a run is made.
#[derive(Debug, Clone)]
pub struct ChaosOptions {
    /// The server.
    pub binary: PathBuf,
    /// For how long.
    pub duration: Duration,
    /// Which faults.
    pub seed: u64,
    /// How many servers.
    pub servers: usize,
    /// How many sessions at a time, each with two clients.
    pub sessions: usize,
}

/// What happened in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Processes that were killed.
    pub kills: u64,
    /// Servers that were asked to stop.
    pub stops: u64,
    /// Processes that were frozen for a while.
    pub freezes: u64,
    /// Links that were cut or held back for a while.
    pub cuts: u64,
    /// Times that Redis was emptied.
    pub flushes: u64,
    /// What became of the changes.
    pub outcome: Outcome,
    /// Accepted commands that lost against another history and were decided again.
    pub forks: u64,
    /// How often a client connected.
    pub connections: u64,
}

impl Summary {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.outcome.is_kept() && self.outcome.acknowledged > 0
    }

    /// The summary as JSON.
    #[must_use]
    pub fn to_json(&self, seed: u64, seconds: u64) -> serde_json::Value {
        let Self { kills, stops, freezes, cuts, flushes, outcome, forks, connections } = *self;
        serde_json::json!({
            "seed": seed, "seconds": seconds, "kills": kills, "stops": stops, "freezes": freezes, "cuts": cuts,
            "flushes": flushes, "acknowledgedWrites": outcome.acknowledged, "lost": outcome.lost,
            "doubled": outcome.doubled, "diverged": outcome.diverged, "wentBack": outcome.went_back, "forks": forks,
            "connections": connections,
        })
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kills, stops, freezes, cuts, flushes, outcome, forks, connections } = self;
        write!(
            f,
            "kills {kills}, stops {stops}, freezes {freezes}, cuts {cuts}, flushes {flushes}, connections {connections}, \
             acknowledgedWrites {}, lost {}, doubled {}, diverged {}, wentBack {}, forks {forks}",
            outcome.acknowledged, outcome.lost, outcome.doubled, outcome.diverged, outcome.went_back
        )
    }
}

/// What can fail.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillServer,
    StopServer,
    FreezeServer,
    KillRedis,
    FreezeRedis,
    EmptyRedis,
    KillDatabase,
    RestartDatabase,
    FreezeDatabase,
    CutFromRedis,
    CutFromDatabase,
    HoldBackRedis,
    HoldBackDatabase,
}

const FAULTS: [Fault; 13] = [
    Fault::KillServer,
    Fault::StopServer,
    Fault::FreezeServer,
    Fault::KillRedis,
    Fault::FreezeRedis,
    Fault::EmptyRedis,
    Fault::KillDatabase,
    Fault::RestartDatabase,
    Fault::FreezeDatabase,
    Fault::CutFromRedis,
    Fault::CutFromDatabase,
    Fault::HoldBackRedis,
    Fault::HoldBackDatabase,
];

/// A server with what stands between it and its services.
struct Placed {
    node: Node,
    to_redis: TcpProxy,
    to_database: TcpProxy,
    is_running: bool,
    /// How many forks this process has counted, and we have.
    forks: u64,
}

struct Chaos {
    random: fastrand::Rng,
    fleet: Fleet,
    placed: Vec<Placed>,
    summary: Summary,
    redis_runs: bool,
    redis_answers: bool,
    database_runs: bool,
    database_answers: bool,
}

/// Runs it. `progress` hears what happens, a line at a time.
///
/// # Errors
/// When something can't be started, or can't be made to work again.
pub async fn run(options: &ChaosOptions, mut progress: impl FnMut(String)) -> Result<Summary, String> {
    let mut chaos = Chaos::start(options).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut round = 0_u64;
    while started.elapsed() < options.duration {
        round += 1;
        let until = Instant::now() + ROUND.min(options.duration.saturating_sub(started.elapsed()));
        chaos.round(options, until, &mut progress).await?;
        let elapsed = started.elapsed().as_secs();
        progress(format!("round {round}, {elapsed} s: {}", chaos.summary));
        if !chaos.summary.is_kept() {
            return Ok(chaos.summary);
        }
    }
    Ok(chaos.summary)
}

impl Chaos {
    fn start(options: &ChaosOptions) -> io::Result<Self> {
        let fleet = Fleet::start(&options.binary)?;
        let mut placed = Vec::new();
        for number in 0..options.servers {
            let to_redis = TcpProxy::to(fleet.redis.address())?;
            let to_database = TcpProxy::to(fleet.postgres.address())?;
            let direct = fleet.postgres.address().to_string();
            let database = fleet.postgres.url("shop").replace(&direct, &to_database.address().to_string());
            let redis = fleet.redis.url_through(to_redis.address());
            let node = fleet.node_on(&format!("server-{number}"), &database, Some(&redis), &[])?;
            placed.push(Placed { node, to_redis, to_database, is_running: true, forks: 0 });
        }
        Ok(Self {
            random: fastrand::Rng::with_seed(options.seed),
            fleet,
            placed,
            summary: Summary::default(),
            redis_runs: true,
            redis_answers: true,
            database_runs: true,
            database_answers: true,
        })
    }

    async fn round(
        &mut self,
        options: &ChaosOptions,
        until: Instant,
        progress: &mut impl FnMut(String),
    ) -> Result<(), String> {
        let servers: Vec<String> = self.placed.iter().map(|placed| placed.node.address.clone()).collect();
        let mut buyers = Vec::new();
        for _ in 0..options.sessions {
            let identity = Identity::new();
            for identity in [identity.another_tab(), identity] {
                let buyer = Buyer::start(&identity, &servers, CHANGE_EVERY);
                buyers.push((identity, buyer));
            }
        }
        while Instant::now() < until {
            self.pause(100..600).await;
            // Sometimes two at a time.
            let faults: Vec<Fault> =
                (0..self.random.usize(1..=2)).map(|_| FAULTS[self.random.usize(..FAULTS.len())]).collect();
            for fault in &faults {
                let server = self.random.usize(..self.placed.len());
                progress(format!("  {fault:?} {server}"));
                self.fail(*fault, server).await.map_err(|error| format!("{fault:?}: {error}"))?;
            }
            self.pause(200..2500).await;
            self.heal().await.map_err(|error| format!("healing: {error}"))?;
        }
        self.check(buyers).await
    }

    async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(milliseconds))).await;
    }

    async fn fail(&mut self, fault: Fault, server: usize) -> io::Result<()> {
        let placed = &mut self.placed[server];
        match fault {
            Fault::KillServer if placed.is_running => {
                self.summary.forks += placed.new_forks().await;
                placed.node.kill()?;
                (placed.is_running, placed.forks) = (false, 0);
                self.summary.kills += 1;
            }
            Fault::StopServer if placed.is_running => {
                self.summary.forks += placed.new_forks().await;
                // One that is frozen hears nothing, and would be waited for without end.
                placed.node.resume()?;
                placed.node.stop()?;
                (placed.is_running, placed.forks) = (false, 0);
                self.summary.stops += 1;
            }
            Fault::FreezeServer if placed.is_running => {
                placed.node.pause()?;
                self.summary.freezes += 1;
            }
            Fault::KillServer | Fault::StopServer | Fault::FreezeServer => {}
            Fault::KillRedis => {
                self.fleet.redis.kill()?;
                (self.redis_runs, self.redis_answers) = (false, false);
                self.summary.kills += 1;
            }
            Fault::FreezeRedis if self.redis_answers => {
                self.fleet.redis.pause()?;
                self.redis_answers = false;
                self.summary.freezes += 1;
            }
            Fault::EmptyRedis if self.redis_answers => {
                self.fleet.redis.command(&["FLUSHALL"])?;
                self.summary.flushes += 1;
            }
            Fault::FreezeRedis | Fault::EmptyRedis => {}
            Fault::KillDatabase => {
                self.fleet.postgres.kill()?;
                (self.database_runs, self.database_answers) = (false, false);
                self.summary.kills += 1;
            }
            Fault::RestartDatabase if self.database_answers => {
                self.fleet.postgres.stop_fast()?;
                (self.database_runs, self.database_answers) = (false, false);
                self.summary.stops += 1;
            }
            Fault::FreezeDatabase if self.database_answers => {
                self.fleet.postgres.pause()?;
                self.database_answers = false;
                self.summary.freezes += 1;
            }
            Fault::FreezeDatabase | Fault::RestartDatabase => {}
            Fault::CutFromRedis => {
                placed.to_redis.cut();
                self.summary.cuts += 1;
            }
            Fault::CutFromDatabase => {
                placed.to_database.cut();
                self.summary.cuts += 1;
            }
            Fault::HoldBackRedis => {
                placed.to_redis.delay(Duration::from_millis(100));
                self.summary.cuts += 1;
            }
            Fault::HoldBackDatabase => {
                placed.to_database.delay(Duration::from_millis(100));
                self.summary.cuts += 1;
            }
        }
        Ok(())
    }

    async fn heal(&mut self) -> io::Result<()> {
        if !self.redis_runs {
            self.fleet.redis.start_again()?;
            self.redis_runs = true;
        }
        self.fleet.redis.resume()?;
        self.redis_answers = true;
        if !self.database_runs {
            self.fleet.postgres.start_again()?;
            self.database_runs = true;
        }
        self.fleet.postgres.resume()?;
        self.database_answers = true;
        for placed in &mut self.placed {
            placed.to_redis.heal();
            placed.to_database.heal();
            if placed.is_running {
                placed.node.resume()?;
            } else {
                placed.node.start_again()?;
                placed.is_running = true;
            }
        }
        Ok(())
    }

    async fn check(&mut self, buyers: Vec<(Identity, Buyer)>) -> Result<(), String> {
        let mut clients = Vec::new();
        for (identity, buyer) in buyers {
            if !buyer.settle(SETTLING).await {
                return Err(format!("{} is not settled: {:?}", identity.client_id, buyer.told()));
            }
            let told = buyer.leave().await;
            self.summary.connections += told.connections;
            clients.push((identity, told));
        }
        clients.sort_by(|(one, _), (other, _)| one.session_id.cmp(&other.session_id));
        for of_session in clients.chunk_by(|(one, _), (other, _)| one.session_id == other.session_id) {
            let nodes: Vec<&Node> = self.placed.iter().map(|placed| &placed.node).collect();
            let outcome = promises::check(&self.fleet, &nodes, of_session).await?;
            if !outcome.is_kept() {
                let logs: String = nodes.iter().map(|node| format!("--- {}\n{}\n", node.address, node.log())).collect();
                let file = std::env::temp_dir().join(format!("throughline-chaos-{}.log", std::process::id()));
                std::fs::write(&file, logs).map_err(|error| error.to_string())?;
                eprintln!(
                    "session {}: {outcome}; the servers' logs are in {}",
                    of_session[0].0.session_id,
                    file.display()
                );
            }
            self.summary.outcome += outcome;
        }
        for placed in &mut self.placed {
            self.summary.forks += placed.new_forks().await;
        }
        Ok(())
    }
}

impl Placed {
    /// What the server has counted since it was asked last.
    async fn new_forks(&mut self) -> u64 {
        let asked = self.node.metric("throughline_forked_commands_total");
        match tokio::time::timeout(Duration::from_millis(500), asked).await {
            Ok(Ok(forks)) => {
                let forks = forks as u64;
                forks.saturating_sub(std::mem::replace(&mut self.forks, forks))
            }
            _ => 0,
        }
    }
}
