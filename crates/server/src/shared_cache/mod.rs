//! The tier that all server processes share: recent sessions, what the database does not have
//! yet, and what servers tell each other about both. In Redis, alone or as a cluster.
//!
//! States are compared by their [mark](StateMark), not by their version alone: two servers that were cut off from each
//! other may have accepted different changes for one version, and nothing of the one may be put on top of the other.
//!
//! A session has versions 1, 2, 3… The database has those up to the *durable* one. Redis keeps
//! a *snapshot* of the state at some durable version, and the *tail*: the changes accepted after
//! it that the database does not have yet. Who reads rebuilds the state from both. All blobs are
//! opaque. The database stays the arbiter: an error here never means more than "ask the database".
//!
//! - [`SharedCache::share`] accepts a change;
//! - [`SharedCache::settle`] says that the database has everything up to a version;
//! - [`SharedCache::fill`] puts what was read from the database, and never overwrites anything newer;
//! - [`SharedCache::take_abandoned`] finds tails whose server died before it flushed them;
//! - [`SharedCache::link`] tells whether everything that others say is heard. What is cached in
//!   this process under one generation of a link is worth nothing under another.
//!
//! Sessions are spread over [`PARTITIONS`] partitions, each with its own hash tag and channel,
//! so nothing here ever touches two slots of a cluster at once. `docs/decisions/0007-redis.md`
//! says why it is as it is, and how Redis must be configured.

mod calls;
mod connection;
mod corruption;
mod envelope;
mod fault;
pub mod inspection;
mod link;
mod node;
mod partition;
mod scripts;
mod sealed;
mod settings;
#[cfg(test)]
mod tests;
mod topology;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::Value;
use throughline_core::StateMark;
use tokio::sync::{mpsc, watch};

use self::calls::Calls;
use self::connection::{Connector, info_field};
use self::corruption::Corruption;
pub use self::fault::CacheFault;
use self::link::LinkBoard;
pub use self::link::{CacheEvent, HEARTBEAT_AFTER, Link, SILENCE};
use self::node::{Call, Reply};
use self::partition::{Names, member, session_of_member};
pub use self::partition::{PARTITIONS, Partition};
use self::scripts::Script;
use self::sealed::Place;
pub use self::settings::{SettingsError, SharedCacheSettings};
use crate::store::SessionKey;

/// The largest version and duration that the scripts can hold exactly: 2^53 - 1.
const MAX_VERSION: u64 = (1 << 53) - 1;

/// How many partitions are asked for abandoned sessions at a time.
const ASKED_AT_A_TIME: usize = 16;

/// A change to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Which session.
    pub key: SessionKey,
    /// Which history of it the change belongs to.
    pub epoch: u64,
    /// The state that the change was decided on.
    pub expected: StateMark,
    /// The state that it leads to.
    pub reached: StateMark,
    /// The change: it makes all versions from the one after `expected` to `reached`.
    pub entry: Bytes,
    /// What the other servers are told when it is taken.
    pub message: Bytes,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// It is in the tail, and was published. Sharing the same again, because the answer was lost, gives this answer too.
    Taken,
    /// Someone else's change came first, or it belongs to another history. Load the session again.
    Conflict {
        /// The version that Redis has.
        version: u64,
    },
    /// Redis lacks what the change builds on: it was emptied, or the session was evicted. The database has to take it;
    /// [`SharedCache::settle`] then puts the session back.
    Missing,
}

/// What the database has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    /// Which session.
    pub key: SessionKey,
    /// Which history of it.
    pub epoch: u64,
    /// The state that the database has.
    pub reached: StateMark,
    /// That state.
    pub snapshot: Bytes,
    /// What the other servers are told when it is taken.
    pub message: Bytes,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The snapshot is at that version, the tail holds only later changes, and it was published.
    Taken,
    /// Redis already knows that the database has more. Nothing was changed or published.
    Outdated {
        /// What the database has.
        version: u64,
    },
}

/// What Redis has of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// Nothing.
    Nothing(Vacancy),
    /// Nothing but the knowledge that the database has at least a certain version.
    Floor {
        /// That version.
        version: u64,
        /// To fill it.
        vacancy: Vacancy,
    },
    /// The session.
    Session(SharedSession),
}

/// Redis had nothing of a session at some moment. Whoever reads the session from the database
/// after that may [`SharedCache::fill`] it in; the vacancy makes sure that Redis did not lose
/// its data in between, and with it the knowledge of something newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vacancy {
    key: SessionKey,
    incarnation: String,
}

/// A session as Redis has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedSession {
    /// Which history of it.
    pub epoch: u64,
    /// The version that was accepted.
    pub version: u64,
    /// The version of `snapshot`; the database has it, and may have more.
    pub durable_version: u64,
    /// The state at `durable_version`.
    pub snapshot: Bytes,
    /// What was accepted after it, in order and without a gap.
    pub tail: Vec<TailEntry>,
    /// Whether it was written while this server's link was up, so that nothing about it was
    /// missed. What was written before is to be compared with the database.
    pub written_after_link_up: bool,
}

/// An accepted change that the database may not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailEntry {
    /// The version that it leads to.
    pub version: u64,
    /// The change.
    pub blob: Bytes,
}

/// What Redis had of a session that the database has a newer version of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outdated {
    /// Something older, or nothing. It is gone, and nothing older can be filled in for a while.
    Dropped,
    /// The same or a newer version.
    Current,
    /// A tail that has to be flushed or told of first. It was left alone.
    Tail {
        /// The version that was accepted.
        version: u64,
        /// The version of the snapshot below the tail.
        durable_version: u64,
    },
}

/// How Redis is, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheHealth {
    /// How long it took to answer.
    pub latency: Duration,
    /// Its version.
    pub version: String,
    /// Whether it is a cluster. The rest is about any one of its nodes.
    pub cluster: bool,
    /// `master` or `slave`, as it calls itself.
    pub role: String,
    /// What it does when its memory is full. With `allkeys-…` it may drop what the database
    /// does not have yet.
    pub maxmemory_policy: String,
    /// Whether it writes an append-only file. Without one, a restart loses the tails.
    pub append_only_file: bool,
    /// How many partitions do not answer. Only a cluster's can fail alone.
    pub partitions_away: usize,
    /// How many partitions' links are up.
    pub partitions_linked: usize,
}

/// The shared tier. Lets go of Redis when it is dropped.
#[derive(Debug)]
pub struct SharedCache {
    names: Names,
    node: envelope::NodeId,
    entry_lifetime: Duration,
    floor_lifetime: Duration,
    calls: Arc<Calls>,
    board: Arc<LinkBoard>,
    corruption: Arc<Corruption>,
    next_taken_from: AtomicUsize,
}

impl SharedCache {
    /// Connects, and goes on trying when Redis is away: then the breaker is open.
    ///
    /// Waits for the first attempt to connect. The receiver gets what [`CacheEvent`] says; when
    /// it is too slow for the queue, that is an interruption.
    ///
    /// # Errors
    /// [`SettingsError`], when the settings cannot work whatever Redis says.
    pub async fn open(settings: SharedCacheSettings) -> Result<(Arc<Self>, mpsc::Receiver<CacheEvent>), SettingsError> {
        let connector = Arc::new(Connector::new(&settings)?);
        let mut node = envelope::NodeId::default();
        getrandom::fill(&mut node).map_err(SettingsError::Random)?;
        metrics::gauge!("throughline_cache_partitions").set(PARTITIONS as f64);
        let names = Names::new(&settings.prefix);
        let corruption = Arc::new(Corruption::default());
        let calls = Calls::new(&settings, Arc::clone(&connector), node);
        let (board, events) = LinkBoard::new(names.clone(), node, settings.event_queue, Arc::clone(&corruption));
        tokio::spawn(link::look_after(Arc::clone(&board), Arc::clone(&calls), connector));
        calls.first_connection().await;
        let cache = Self {
            names,
            node,
            entry_lifetime: settings.entry_lifetime,
            floor_lifetime: settings.floor_lifetime,
            calls,
            board,
            corruption,
            next_taken_from: AtomicUsize::new(usize::from(node[0])),
        };
        Ok((Arc::new(cache), events))
    }

    /// What Redis has of a session. What is damaged there counts as nothing, and is dropped.
    ///
    /// # Errors
    /// See [`CacheFault`].
    pub async fn load(&self, key: &SessionKey) -> Result<Loaded, CacheFault> {
        let partition = Partition::of(key);
        let keys = vec![self.names.session(key), self.names.sequence(partition)];
        let reply = self.run(partition, &scripts::LOAD, keys, Vec::new()).await?;
        let mut rest = reply.rest.into_iter();
        let version = number(rest.next())?;
        let vacancy = Vacancy { key: key.clone(), incarnation: text(rest.next())? };
        match reply.status.as_str() {
            "floor" => return Ok(Loaded::Floor { version, vacancy }),
            "session" => {}
            _ => return Ok(Loaded::Nothing(vacancy)),
        }
        let mut fields: HashMap<String, Vec<u8>> = match rest.next() {
            Some(fields) => redis::from_redis_value(fields).map_err(|_| unreadable("load"))?,
            None => return Err(unreadable("load")),
        };
        match self.read(key, &mut fields) {
            Ok(session) => Ok(Loaded::Session(session)),
            Err(kind) => {
                self.corruption.found(kind, partition);
                let written = fields.remove("w").unwrap_or_default();
                let keys = vec![self.names.session(key), self.names.unflushed(partition)];
                let arguments = vec![member(key).into_bytes(), written, lifetime(self.floor_lifetime)];
                self.run(partition, &scripts::DISCARD, keys, arguments).await?;
                Ok(Loaded::Nothing(vacancy))
            }
        }
    }

    /// Rebuilds a session from the fields of its hash.
    fn read(&self, key: &SessionKey, fields: &mut HashMap<String, Vec<u8>>) -> Result<SharedSession, corruption::Kind> {
        let number = |name: &str| -> Result<u64, corruption::Kind> {
            let digits = fields.get(name).and_then(|value| std::str::from_utf8(value).ok());
            digits.and_then(|digits| digits.parse().ok()).ok_or(corruption::Kind::Foreign)
        };
        let (epoch, version, durable_version) = (number("e")?, number("v")?, number("d")?);
        let written_us = number("w")?;
        let member = member(key);
        let place = Place { member: &member, epoch, version: durable_version };
        let snapshot = fields.remove("s").and_then(|blob| sealed::open(sealed::Kind::Snapshot, place, blob));
        let snapshot = snapshot.ok_or(corruption::Kind::Snapshot)?;
        let mut places: Vec<u64> = (fields.keys().filter_map(|field| field.strip_prefix('t')))
            .filter_map(|version| version.parse().ok())
            .filter(|place| (durable_version..=version).contains(place) && *place != durable_version)
            .collect();
        places.sort_unstable();
        let mut tail = Vec::with_capacity(places.len());
        let mut reached = durable_version;
        for version in places {
            let place = Place { member: &member, epoch, version };
            let entry = fields.remove(&format!("t{version}"));
            let entry = entry.and_then(|entry| sealed::open(sealed::Kind::Entry, place, entry));
            let (follows_on, blob) = entry.and_then(after_version).ok_or(corruption::Kind::TailEntry)?;
            if follows_on != reached {
                return Err(corruption::Kind::TailEntry);
            }
            reached = version;
            tail.push(TailEntry { version, blob });
        }
        if reached != version {
            return Err(corruption::Kind::TailEntry);
        }
        let written_after_link_up =
            self.board.up_since_us(Partition::of(key)).is_some_and(|since_us| written_us > since_us);
        Ok(SharedSession { epoch, version, durable_version, snapshot, tail, written_after_link_up })
    }

    /// Accepts a change on top of the version that it was decided on: appends it to the tail,
    /// marks the session as unflushed, and publishes the message, in one step.
    ///
    /// # Errors
    /// See [`CacheFault`]. After [`CacheFault::TimedOut`] and [`CacheFault::Failed`] it may have been taken.
    pub async fn share(&self, share: Share) -> Result<Shared, CacheFault> {
        let Share { key, epoch, expected, reached, entry, message } = share;
        if reached.version <= expected.version {
            return Err(CacheFault::Malformed { detail: "it leads to no later version" });
        }
        within_range(reached.version)?;
        let partition = Partition::of(&key);
        let member = member(&key);
        let place = Place { member: &member, epoch, version: reached.version };
        let entry = [&expected.version.to_le_bytes(), entry.as_ref()].concat();
        let entry = sealed::seal(sealed::Kind::Entry, place, &entry);
        let arguments = vec![
            member.into_bytes(),
            decimal(epoch),
            decimal(expected.version),
            decimal(expected.tag),
            decimal(reached.version),
            decimal(reached.tag),
            self.message(&key, &message)?,
            entry,
        ];
        let reply = self.run(partition, &scripts::SHARE, self.keys(&key, partition), arguments).await?;
        let version = number(reply.rest.into_iter().next())?;
        Ok(match reply.status.as_str() {
            "taken" => Shared::Taken,
            "conflict" => Shared::Conflict { version },
            _ => Shared::Missing,
        })
    }

    /// Says that the database has everything up to a version: the snapshot moves there, the
    /// tail up to it goes, and the message is published, in one step.
    ///
    /// A tail beyond that version stays, if it belongs to the same history. Where it does not,
    /// the database is right, and its state replaces everything.
    ///
    /// # Errors
    /// See [`CacheFault`]. After [`CacheFault::TimedOut`] and [`CacheFault::Failed`] it may have been taken.
    pub async fn settle(&self, settle: Settle) -> Result<Settled, CacheFault> {
        let Settle { key, epoch, reached: StateMark { version, tag }, snapshot, message } = settle;
        let partition = Partition::of(&key);
        let member = member(&key);
        within_range(version)?;
        let place = Place { member: &member, epoch, version };
        let snapshot = sealed::seal(sealed::Kind::Snapshot, place, &snapshot);
        let arguments = vec![
            member.clone().into_bytes(),
            decimal(epoch),
            decimal(version),
            decimal(tag),
            self.message(&key, &message)?,
            snapshot,
            lifetime(self.entry_lifetime),
        ];
        let reply = self.run(partition, &scripts::SETTLE, self.keys(&key, partition), arguments).await?;
        let version = number(reply.rest.into_iter().next())?;
        Ok(if reply.status == "outdated" { Settled::Outdated { version } } else { Settled::Taken })
    }

    /// Puts what was read from the database, unless Redis has the same or something newer, or
    /// lost its data since the vacancy was seen. Tells whether it was put.
    ///
    /// # Errors
    /// See [`CacheFault`].
    pub async fn fill(
        &self,
        vacancy: &Vacancy,
        epoch: u64,
        StateMark { version, tag }: StateMark,
        snapshot: &[u8],
    ) -> Result<bool, CacheFault> {
        within_range(version)?;
        let key = &vacancy.key;
        let partition = Partition::of(key);
        let member = member(key);
        let snapshot = sealed::seal(sealed::Kind::Snapshot, Place { member: &member, epoch, version }, snapshot);
        let arguments = vec![
            member.into_bytes(),
            decimal(epoch),
            decimal(version),
            decimal(tag),
            snapshot,
            lifetime(self.entry_lifetime),
            vacancy.incarnation.clone().into_bytes(),
        ];
        let keys = vec![self.names.session(key), self.names.unflushed(partition), self.names.sequence(partition)];
        Ok(self.run(partition, &scripts::FILL, keys, arguments).await?.status == "taken")
    }

    /// Says that the database has a version: something older without a tail is dropped, and for
    /// a minute nothing older can be filled in.
    ///
    /// # Errors
    /// See [`CacheFault`].
    pub async fn outdated(&self, key: &SessionKey, version: u64) -> Result<Outdated, CacheFault> {
        within_range(version)?;
        let arguments = vec![decimal(version), lifetime(self.floor_lifetime)];
        let reply = self.run(Partition::of(key), &scripts::OUTDATED, vec![self.names.session(key)], arguments).await?;
        let mut rest = reply.rest.into_iter();
        let (version, durable_version) = (number(rest.next())?, number(rest.next())?);
        Ok(match reply.status.as_str() {
            "tail" => Outdated::Tail { version, durable_version },
            "current" => Outdated::Current,
            _ => Outdated::Dropped,
        })
    }

    /// Gives out sessions with a tail that nobody flushed for `older_than`, each to one caller
    /// only, who has `lease` to load, flush and [`SharedCache::settle`] it. At most `limit`.
    ///
    /// Partitions that cannot be asked are left out.
    ///
    /// # Errors
    /// See [`CacheFault`]; only when no partition could be asked.
    pub async fn take_abandoned(
        &self,
        older_than: Duration,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<SessionKey>, CacheFault> {
        let mut taken = Vec::new();
        let (mut asked, mut fault) = (false, None);
        let mut partitions: Vec<Partition> = Partition::all().collect();
        // Each call begins elsewhere: none of the partitions is always the one that is too late.
        partitions.rotate_left(self.next_taken_from.fetch_add(1, Ordering::Relaxed) % PARTITIONS);
        let mut unasked = partitions.as_slice();
        while taken.len() < limit
            && let left = limit - taken.len()
            && let (some, rest) = unasked.split_at(unasked.len().min(left).min(ASKED_AT_A_TIME))
            && !some.is_empty()
        {
            unasked = rest;
            // The first `left % n` of them may give one more, so together they never exceed it.
            let share = |index: usize| left / some.len() + usize::from(index < left % some.len());
            let asking =
                some.iter().enumerate().map(|(index, part)| self.take_from(*part, older_than, lease, share(index)));
            for answer in futures_util::future::join_all(asking).await {
                match answer {
                    Ok(sessions) => {
                        asked = true;
                        taken.extend(sessions);
                    }
                    Err(error) => fault = Some(error),
                }
            }
        }
        match fault {
            Some(fault) if !asked => Err(fault),
            _ => Ok(taken),
        }
    }

    async fn take_from(
        &self,
        partition: Partition,
        older_than: Duration,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<SessionKey>, CacheFault> {
        let arguments = vec![
            milliseconds(older_than),
            milliseconds(lease),
            decimal(limit as u64),
            self.names.sessions_of(partition).into_bytes(),
        ];
        let reply = self.run(partition, &scripts::TAKE, vec![self.names.unflushed(partition)], arguments).await?;
        let members: Vec<Vec<u8>> = match reply.rest.into_iter().next() {
            Some(members) => redis::from_redis_value(members).map_err(|_| unreadable("take"))?,
            None => return Err(unreadable("take")),
        };
        let mut sessions = Vec::with_capacity(members.len());
        for member in members {
            match session_of_member(&member) {
                Some(key) => sessions.push(key),
                None => self.corruption.found(corruption::Kind::Member, partition),
            }
        }
        Ok(sessions)
    }

    /// Removes a session with its tail: erasure. `version` is the one that the database has
    /// now; for a minute nothing older can be filled in or put back.
    ///
    /// # Errors
    /// See [`CacheFault`]. Then its bytes may still be there: it has to be done again.
    pub async fn remove(&self, key: &SessionKey, version: u64) -> Result<(), CacheFault> {
        within_range(version)?;
        let partition = Partition::of(key);
        let keys = vec![self.names.session(key), self.names.unflushed(partition)];
        let arguments = vec![member(key).into_bytes(), decimal(version), lifetime(self.floor_lifetime)];
        self.run(partition, &scripts::REMOVE, keys, arguments).await?;
        Ok(())
    }

    /// Tells the other servers something about a session, without changing anything.
    ///
    /// # Errors
    /// See [`CacheFault`].
    pub async fn publish(&self, key: &SessionKey, message: &[u8]) -> Result<(), CacheFault> {
        let partition = Partition::of(key);
        let keys = vec![self.names.sequence(partition), self.names.channel(partition)];
        let arguments = vec![self.message(key, message)?];
        self.run(partition, &scripts::PUBLISH, keys, arguments).await?;
        Ok(())
    }

    /// Names what servers have to have in common to hear each other: the Redis processes, and the prefix of the names there.
    /// Empty while no process is reached.
    #[must_use]
    pub fn identity(&self) -> String {
        let processes = self.calls.processes();
        if processes.is_empty() { processes } else { format!("{} {processes}", self.names.prefix()) }
    }

    /// Whether any calls are begun. In a cluster, see [`SharedCache::is_available_for`] too.
    #[must_use]
    pub fn is_available(&self) -> bool {
        !self.calls.is_away()
    }

    /// Whether calls about this session are begun.
    #[must_use]
    pub fn is_available_for(&self, key: &SessionKey) -> bool {
        self.calls.is_available(Partition::of(key))
    }

    /// Follows whether all of Redis is away: `true` while it is.
    #[must_use]
    pub fn watch_away(&self) -> watch::Receiver<bool> {
        self.calls.watch_away()
    }

    /// Whether everything that is said about a session is heard. Costs two loads of an atomic
    /// and a look at the clock.
    #[must_use]
    pub fn link(&self, key: &SessionKey) -> Link {
        self.board.link(Partition::of(key))
    }

    /// The same for a whole partition.
    #[must_use]
    pub fn link_of(&self, partition: Partition) -> Link {
        self.board.link(partition)
    }

    /// Asks Redis how it is.
    ///
    /// # Errors
    /// See [`CacheFault`].
    pub async fn health(&self) -> Result<CacheHealth, CacheFault> {
        let asked = Instant::now();
        self.calls.ask_any("ping", redis::cmd("PING")).await?;
        let latency = asked.elapsed();
        let info = self.calls.ask_any("info", redis::cmd("INFO")).await?;
        let info: String = redis::from_redis_value(info).map_err(|_| unreadable("info"))?;
        let field = |name: &str| info_field(&info, name).unwrap_or("unknown").to_owned();
        Ok(CacheHealth {
            latency,
            version: field("redis_version"),
            cluster: field("redis_mode") == "cluster",
            role: field("role"),
            maxmemory_policy: field("maxmemory_policy"),
            append_only_file: field("aof_enabled") == "1",
            partitions_away: self.calls.partitions_away(),
            partitions_linked: self.board.partitions_up(),
        })
    }

    /// Lets go of Redis. Calls fail from now on, and no more events come.
    pub fn close(&self) {
        self.calls.close();
    }

    async fn run(
        &self,
        partition: Partition,
        script: &'static Script,
        keys: Vec<String>,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Reply, CacheFault> {
        let reply = self.calls.run(Call { partition, script, keys, arguments }).await?;
        for _ in 0..reply.foreign {
            self.corruption.found(corruption::Kind::Foreign, partition);
        }
        Ok(reply)
    }

    /// The keys of the scripts that change a session and publish.
    fn keys(&self, key: &SessionKey, partition: Partition) -> Vec<String> {
        vec![
            self.names.session(key),
            self.names.unflushed(partition),
            self.names.sequence(partition),
            self.names.channel(partition),
        ]
    }

    fn message(&self, key: &SessionKey, payload: &[u8]) -> Result<Vec<u8>, CacheFault> {
        envelope::message(self.node, key, payload)
            .ok_or(CacheFault::Malformed { detail: "the session's id is longer than 64 KiB" })
    }
}

impl Drop for SharedCache {
    fn drop(&mut self) {
        self.close();
    }
}

fn milliseconds(duration: Duration) -> Vec<u8> {
    decimal(u64::try_from(duration.as_millis()).unwrap_or(MAX_VERSION).min(MAX_VERSION))
}

/// How long something is kept. Redis refuses 0.
fn lifetime(duration: Duration) -> Vec<u8> {
    milliseconds(duration.max(Duration::from_millis(1)))
}

fn decimal(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// An entry of the tail begins with the version that it follows on: one that is missing is noticed.
fn after_version(entry: Bytes) -> Option<(u64, Bytes)> {
    let (version, _) = entry.split_first_chunk()?;
    Some((u64::from_le_bytes(*version), entry.slice(size_of::<u64>()..)))
}

fn within_range(version: u64) -> Result<(), CacheFault> {
    if version > MAX_VERSION {
        return Err(CacheFault::Malformed { detail: "its version is beyond 2^53 - 1, which is what Redis can count" });
    }
    Ok(())
}

fn number(value: Option<Value>) -> Result<u64, CacheFault> {
    value.and_then(|value| redis::from_redis_value(value).ok()).ok_or_else(|| unreadable("a script"))
}

fn text(value: Option<Value>) -> Result<String, CacheFault> {
    value.and_then(|value| redis::from_redis_value(value).ok()).ok_or_else(|| unreadable("a script"))
}

/// Redis answered with something that our own scripts cannot have answered.
fn unreadable(during: &'static str) -> CacheFault {
    CacheFault::failed(during, std::io::Error::new(std::io::ErrorKind::InvalidData, "an answer has the wrong form"))
}
