//! PostgreSQL as it is: the conformance suite, and what only several servers, a freeze or a kill shows.

use std::sync::Arc;
use std::time::Duration;

use throughline_test_services::postgres::Postgres;
use tokio::sync::mpsc;

use super::*;
use crate::store::conformance::{self, append, session, surveys};
use crate::store::postgres_listener::{ChangeListener, ListenerEvent};
use crate::store::{AuditStore as _, EventStore as _, Settling};

/// What a call may take that meets a server that is away.
const PROMPT: Duration = Duration::from_secs(1);

/// How long it may take until things go on after the server is back.
const RECOVERY: Duration = Duration::from_secs(10);

/// Patient, so that a slow machine is not taken for a fault.
fn settings(postgres: &Postgres, database: &str) -> PostgresSettings {
    PostgresSettings {
        address: postgres.url(database).parse().unwrap(),
        connections: 8,
        writers: 2,
        timeout: Duration::from_secs(10),
        group_commit: GroupCommitLimits::default(),
        auto_migrate: true,
    }
}

async fn open(postgres: &Postgres, database: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(&settings(postgres, database)).await.unwrap())
}

/// One that answers within [`PROMPT`], with some room for a slow machine.
async fn open_prompt(postgres: &Postgres, database: &str) -> PostgresStore {
    let settings = PostgresSettings { timeout: PROMPT * 7 / 10, ..settings(postgres, database) };
    PostgresStore::open(&settings).await.unwrap()
}

fn database(postgres: &Postgres) -> &'static str {
    postgres.create_database("shop").unwrap();
    "shop"
}

fn keys(count: usize) -> Vec<SessionKey> {
    (0..count).map(|number| session("a", &format!("ws_{number:04}"))).collect()
}

async fn commits(store: &PostgresStore, keys: &[SessionKey], version: u64) -> Vec<Result<(), CommitError>> {
    futures_util::future::join_all(keys.iter().map(|key| store.commit(append(key, version)))).await
}

/// Asks again until the answer is yes.
async fn until<F: Future<Output = bool>>(what: &str, limit: Duration, ask: impl Fn() -> F) {
    let deadline = Instant::now() + limit;
    while !ask().await {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_a_store_must_do() {
    let postgres = Postgres::start().unwrap();
    postgres.create_database("migrated").unwrap();
    migrate(&settings(&postgres, "migrated").address).await.unwrap();
    macro_rules! run_each {
        ($postgres:ident: $($name:ident),+ $(,)?) => {$({
            println!("{}", stringify!($name));
            let database = database_name(stringify!($name));
            $postgres.copy_database(database, "migrated").unwrap();
            let store = open(&$postgres, database).await;
            conformance::$name(Arc::clone(&store)).await;
            store.close().await;
        })+};
    }
    conformance::all!(run_each postgres);
}

/// PostgreSQL cuts names off at 63 bytes.
fn database_name(test: &str) -> &str {
    &test[..test.len().min(63)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_servers_that_start_together_bring_an_empty_database_up_to_date() {
    let postgres = Postgres::start().unwrap();
    let name = database(&postgres);
    let apart = PostgresSettings { auto_migrate: false, ..settings(&postgres, name) };
    let error = PostgresStore::open(&apart).await.unwrap_err().to_string();
    assert!(error.contains("throughline migrate") && error.contains("/shop"), "{error}");

    let starting = (0..10).map(|_| {
        let settings = settings(&postgres, name);
        tokio::spawn(async move { PostgresStore::open(&settings).await })
    });
    for (number, started) in futures_util::future::join_all(starting).await.into_iter().enumerate() {
        let store = started.unwrap().unwrap();
        store.commit(append(&session("a", &format!("ws_{number}")), 0)).await.unwrap();
    }
    assert_eq!(migrate(&apart.address).await.unwrap(), []);
    PostgresStore::open(&apart).await.unwrap();

    postgres.execute(name, "UPDATE _sqlx_migrations SET checksum = '' WHERE version = 2").unwrap();
    let error = PostgresStore::open(&apart).await.unwrap_err().to_string();
    assert!(error.contains("migration 2"), "{error}");
    postgres.execute(name, "INSERT INTO _sqlx_migrations VALUES (99, 'later', now(), true, '', 0)").unwrap();
    postgres.execute(name, "DELETE FROM _sqlx_migrations WHERE version = 2").unwrap();
    for auto_migrate in [true, false] {
        let error = PostgresStore::open(&PostgresSettings { auto_migrate, ..apart.clone() }).await.unwrap_err();
        assert!(error.to_string().contains("newer version of throughline (its migration 99"), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named_without_the_password() {
    let postgres = Postgres::start().unwrap();
    let mut wrong = settings(&postgres, "nowhere");
    let url = postgres.url("nowhere").replace("postgres@", "postgres:hunter2@");
    wrong.address = url.parse().unwrap();
    let error = crate::problem::chain(&PostgresStore::open(&wrong).await.unwrap_err()).to_string();
    assert!(error.contains("/nowhere") && error.contains("does not exist") && !error.contains("hunter2"), "{error}");
    drop(postgres);
    let error = crate::problem::chain(&PostgresStore::open(&wrong).await.unwrap_err()).to_string();
    assert!(
        error.contains("/nowhere") && error.contains("check that it runs") && !error.contains("hunter2"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_share_transactions_and_servers_do_not_deadlock() {
    let postgres = Postgres::options().setting("deadlock_timeout", "20ms").start().unwrap();
    let name = database(&postgres);
    let nodes = [open(&postgres, name).await, open(&postgres, name).await];
    let keys = Arc::new(keys(64));
    let writers = (0..16_usize).map(|writer| {
        let (store, keys) = (Arc::clone(&nodes[writer % 2]), Arc::clone(&keys));
        tokio::spawn(async move {
            let mut won = 0;
            for round in 0..4 {
                // Each in an order of its own, and all at once.
                let place_of = |place: usize| (place * (2 * writer + 1) + round) % 64;
                let mine: Vec<_> = (0..64).map(|place| keys[place_of(place)].clone()).collect();
                let versions = store.versions(&mine).await.unwrap();
                let outcomes =
                    mine.iter().zip(versions).map(|(key, version)| store.commit(append(key, version.unwrap_or(0))));
                // Answers about some of them at the same time: these take locks of sessions as well.
                let answers = mine.iter().step_by(5).map(async |key| {
                    let (tenant, request) = (key.tenant.clone(), format!("{writer} {round} {}", key.session_id));
                    let request = IdempotencyKey { tenant, scope: "POST".to_owned(), key: request };
                    let Begin::Started(ticket) = store.begin(request, [1; 32], 0).await.unwrap() else { panic!() };
                    let session_id = Some(key.session_id.clone());
                    let answer = Answer { status: 200, headers: Vec::new(), body: Vec::new(), session_id };
                    store.finish(ticket, answer).await.unwrap();
                });
                let answers = futures_util::future::join_all(answers);
                let (outcomes, _) = tokio::join!(futures_util::future::join_all(outcomes), answers);
                for outcome in outcomes {
                    match outcome {
                        Ok(()) => won += 1,
                        Err(CommitError::Conflict { .. }) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
            won
        })
    });
    let mut won = 0;
    for writer in futures_util::future::join_all(writers).await {
        won += writer.unwrap();
    }
    let mut written = 0;
    for (key, version) in keys.iter().zip(nodes[0].versions(&keys).await.unwrap()) {
        let journal = nodes[1].journal(key, 0, 1_000).await.unwrap();
        assert_eq!(journal.last().map(|record| record.version), version);
        assert_eq!(journal.len() as u64, version.unwrap());
        written += version.unwrap();
    }
    assert_eq!(written, won, "each success is one version");
    for node in &nodes {
        let (jobs, transactions) = node.counts();
        assert!(transactions < jobs / 4, "{jobs} jobs took {transactions} transactions");
    }

    // A request that reaches both at once is answered by one.
    for number in 0..20 {
        let tenant = keys[0].tenant.clone();
        let request = IdempotencyKey { tenant, scope: "POST".to_owned(), key: number.to_string() };
        let (one, other) =
            tokio::join!(nodes[0].begin(request.clone(), [1; 32], 0), nodes[1].begin(request.clone(), [1; 32], 0));
        let started = [one, other].into_iter().filter(|begin| matches!(begin, Ok(Begin::Started(_)))).count();
        assert_eq!(started, 1);
    }

    for node in &nodes {
        node.close().await;
    }
    assert_eq!(deadlocks(&postgres, name).await, 0);
}

/// How many there were; connections tell it at their end, so the store's have to be closed.
async fn deadlocks(postgres: &Postgres, name: &str) -> i64 {
    const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    until("all others have gone", RECOVERY, || async {
        let others = query(OTHERS).fetch_one(&mut intruder(postgres, name).await).await.unwrap();
        others.get::<i64, _>(0) == 0
    })
    .await;
    let count = query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    count.fetch_one(&mut intruder(postgres, name).await).await.unwrap().get(0)
}

/// A connection beside the store's, that gets in its way.
async fn intruder(postgres: &Postgres, name: &str) -> sqlx::PgConnection {
    let connector = Connector::without_limit(&settings(postgres, name).address, FIRST_CONNECTION);
    connector.connect(None).await.unwrap()
}

/// Waits until somebody waits for a lock in the database that `store` is in.
async fn until_blocked(store: &PostgresStore) {
    let blocked =
        || query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()");
    until("somebody waits for a lock", RECOVERY, || async {
        !store.pool.rows("looking for locks", blocked).await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_in_the_way_delays_a_batch_and_does_not_fail_it() {
    // Each side looks once, so long after it began to wait: there has to be time for the other one to begin.
    let postgres = Postgres::options().setting("deadlock_timeout", "1500ms").start().unwrap();
    let name = database(&postgres);
    let one_writer = PostgresSettings { writers: 1, ..settings(&postgres, name) };
    let store = Arc::new(PostgresStore::open(&one_writer).await.unwrap());
    let other = open(&postgres, name).await;
    let mut intruder = intruder(&postgres, name).await;
    let keys = keys(3);
    let commit_all = |keys: &[SessionKey], version| {
        let (store, keys) = (Arc::clone(&store), keys.to_vec());
        tokio::spawn(async move { commits(&store, &keys, version).await })
    };

    // Another server creates one of the sessions at the same moment; then the only one, so that writing the others
    // without it is no way out.
    let copy = "INSERT INTO sessions SELECT tenant, $1, version, state, status, step, funnel_id, funnel_version,
        created_at_ms, updated_at_ms, expires_at_ms, completed_at_ms, deadline_at_ms, erased, currency, amount_minor
        FROM sessions WHERE session_id = 'template'";
    other.commit(append(&session("a", "template"), 0)).await.unwrap();
    let lone = vec![session("a", "lone")];
    for (keys, overtaken) in [(&keys, 1), (&lone, 0)] {
        query("BEGIN").execute(&mut intruder).await.unwrap();
        query(copy).bind(&keys[overtaken].session_id).execute(&mut intruder).await.unwrap();
        let commits = commit_all(keys, 0);
        until_blocked(&other).await;
        query("COMMIT").execute(&mut intruder).await.unwrap();
        for (number, outcome) in commits.await.unwrap().into_iter().enumerate() {
            let expected = if number == overtaken { Some(1) } else { None };
            let conflict = match outcome {
                Ok(()) => None,
                Err(CommitError::Conflict { current_version }) => Some(current_version),
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(conflict, expected, "{number}");
        }
    }

    // Somebody locks in another order than the servers do. The batch waits longer, so it is the one that is given up.
    let lock = |id: &'static str| query("UPDATE sessions SET claimed_until_ms = 1 WHERE session_id = $1").bind(id);
    query("BEGIN").execute(&mut intruder).await.unwrap();
    lock("ws_0002").execute(&mut intruder).await.unwrap();
    let commits = commit_all(&keys, 1);
    until_blocked(&other).await;
    lock("ws_0000").execute(&mut intruder).await.unwrap();
    query("ROLLBACK").execute(&mut intruder).await.unwrap();
    let outcomes = commits.await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    for store in [store, other] {
        store.close().await;
    }
    drop(intruder);
    // At least one: who was given up can come back for the first row before the other has woken up to take it.
    assert!(deadlocks(&postgres, name).await >= 1, "there was one");
}

/// The latest transaction of all is the one that a snapshot does not list: none is over that began after it.
#[tokio::test]
async fn a_log_is_read_no_further_than_a_transaction_that_is_under_way() {
    let postgres = Postgres::start().unwrap();
    let name = database(&postgres);
    let store = PostgresStore::open(&settings(&postgres, name)).await.unwrap();
    for sequence in ["audit_positions", "lifecycle_positions"] {
        let mark = async |settled| match sequence {
            "audit_positions" => store.audit_mark(settled).await.unwrap(),
            _ => store.event_mark(settled).await.unwrap(),
        };
        let mut writer = intruder(&postgres, name).await;
        let mut settling = Settling::default();
        sqlx::query("BEGIN").execute(&mut writer).await.unwrap();
        let take = format!("SELECT pg_current_xact_id()::text, nextval('{sequence}')");
        let taken = sqlx::query(sqlx::AssertSqlSafe(take)).fetch_one(&mut writer).await.unwrap();
        let taken = unsigned(sqlx::Row::try_get(&taken, 1).unwrap());
        for _ in 0..20 {
            let settled = settling.settled(mark(settling.known()).await);
            assert!(settled.is_none_or(|settled| settled < taken), "{sequence}: {settled:?} with {taken} under way");
        }
        sqlx::query("COMMIT").execute(&mut writer).await.unwrap();
        let settled = async {
            while settling.settled(mark(settling.known()).await).is_none_or(|settled| settled < taken) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), settled).await.expect("it is read as soon as that is over");
        let (known, again) = (settling.known(), mark(settling.known()).await);
        assert_eq!((again.position, again.next_transaction), (known, 0), "where nothing is new, nothing is asked for");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_somebody_holds_does_not_hold_up_the_others() {
    let postgres = Postgres::start().unwrap();
    let name = database(&postgres);
    let timeout = Duration::from_millis(900);
    let impatient = PostgresSettings { writers: 1, timeout, ..settings(&postgres, name) };
    let store = PostgresStore::open(&impatient).await.unwrap();
    let mut intruder = intruder(&postgres, name).await;
    let keys = keys(16);
    assert!(commits(&store, &keys, 0).await.iter().all(Result::is_ok));
    for (held, version) in [(0, 1), (7, 2), (15, 3)] {
        query("BEGIN").execute(&mut intruder).await.unwrap();
        let lock = "SELECT 1 FROM sessions WHERE session_id = $1 FOR UPDATE";
        query(lock).bind(&keys[held].session_id).execute(&mut intruder).await.unwrap();
        let outcomes = commits(&store, &keys, version).await;
        query("ROLLBACK").execute(&mut intruder).await.unwrap();
        for (number, outcome) in outcomes.iter().enumerate() {
            let is_as_expected = match outcome {
                Ok(()) => number != held,
                // Nothing that a breaker would count.
                Err(CommitError::Overloaded { .. }) => number == held,
                Err(_) => false,
            };
            assert!(is_as_expected, "{number} of {held}: {outcome:?}");
        }
        store.commit(append(&keys[held], version)).await.unwrap();
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_arrives_during_an_erasure_is_not_kept() {
    let postgres = Postgres::start().unwrap();
    let name = database(&postgres);
    let (store, other) = (open(&postgres, name).await, open(&postgres, name).await);
    let mut intruder = intruder(&postgres, name).await;
    let key = session("a", "ws_1");
    store.commit(append(&key, 0)).await.unwrap();
    let request = IdempotencyKey { tenant: key.tenant.clone(), scope: "POST".to_owned(), key: "k".to_owned() };
    let Begin::Started(ticket) = store.begin(request.clone(), [1; 32], 0).await.unwrap() else { panic!() };
    // The erasure of another server, not committed yet.
    query("BEGIN").execute(&mut intruder).await.unwrap();
    query("UPDATE sessions SET erased = TRUE").execute(&mut intruder).await.unwrap();
    let answer = Answer {
        status: 200,
        headers: Vec::new(),
        body: b"ada@example.com".to_vec(),
        session_id: Some(key.session_id),
    };
    let finishing = tokio::spawn(async move { store.finish(ticket, answer).await });
    until_blocked(&other).await;
    query("COMMIT").execute(&mut intruder).await.unwrap();
    finishing.await.unwrap().unwrap();
    assert_eq!(other.begin(request, [1; 32], 1).await.unwrap(), Begin::InProgress, "it was not kept");
}

#[tokio::test]
async fn a_poisoned_change_does_not_hurt_its_neighbours() {
    let postgres = Postgres::start().unwrap();
    let store = open(&postgres, database(&postgres)).await;
    let keys = keys(32);
    let poisoned = [5, 6, 31];
    let changes = keys.iter().enumerate().map(|(number, key)| {
        let mut change = append(key, 0);
        if poisoned.contains(&number) {
            // PostgreSQL has no text with this character.
            change.columns.step = "\0".to_owned();
        }
        store.commit(change)
    });
    let outcomes = futures_util::future::join_all(changes).await;
    for (number, (key, outcome)) in keys.iter().zip(outcomes).enumerate() {
        let is_poisoned = poisoned.contains(&number);
        assert_eq!(outcome.is_err(), is_poisoned, "{number}: {outcome:?}");
        assert_eq!(store.load(key).await.unwrap().is_none(), is_poisoned);
        assert_eq!(store.journal(key, 0, 10).await.unwrap().is_empty(), is_poisoned);
    }
    store.ping().await.unwrap();
}

/// All that a server asks of its store; all of it must be answered within this time. Says whether all succeeded.
async fn ask_everything(store: &PostgresStore, keys: &[SessionKey], version: u64, within: Duration) -> bool {
    let begun = Instant::now();
    let request = IdempotencyKey {
        tenant: keys[0].tenant.clone(),
        scope: "POST".to_owned(),
        key: format!("{:?}", Instant::now()),
    };
    let loads = futures_util::future::join_all(keys.iter().map(|key| store.load(key)));
    let (commits, loads, journal, versions, due, deleted, ping, begin, sweep) = tokio::join!(
        commits(store, keys, version),
        loads,
        store.journal(&keys[0], 0, 10),
        store.versions(keys),
        store.claim_due(0, 0, 1),
        store.delete(Vec::new()),
        store.ping(),
        store.begin(request, [0; 32], 0),
        store.sweep(0),
    );
    let elapsed = begun.elapsed();
    assert!(elapsed < within, "it took {elapsed:?}");
    commits.iter().all(Result::is_ok)
        && loads.iter().all(Result::is_ok)
        && journal.is_ok()
        && versions.is_ok()
        && due.is_ok()
        && deleted.is_ok()
        && ping.is_ok()
        && begin.is_ok()
        && sweep.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_answered_for_promptly_and_costs_no_connection() {
    let postgres = Postgres::start().unwrap();
    let name = database(&postgres);
    let store = open_prompt(&postgres, name).await;
    let keys = keys(16);
    assert!(ask_everything(&store, &keys, 0, PROMPT).await);
    for round in 0..3 {
        postgres.pause().unwrap();
        for _ in 0..3 {
            assert!(!ask_everything(&store, &keys, 1, PROMPT).await, "round {round}: it is frozen");
        }
        // Callers that give up meanwhile must not take a connection with them.
        let abandoned = futures_util::future::join_all(keys.iter().map(|key| store.load(key)));
        let _ = tokio::time::timeout(Duration::from_millis(50), abandoned).await;
        postgres.resume().unwrap();
        until("it is ready again", RECOVERY, || async { store.ping().await.is_ok() }).await;
        // What gave up has let go of its connection, and as many as there are can read at once.
        until("all connections are free", RECOVERY, || async { store.pool.free() == 6 }).await;
        let reads = futures_util::future::join_all(keys[..6].iter().map(|key| store.load(key)));
        assert!(reads.await.iter().all(Result::is_ok));
    }
    let version = store.load(&keys[0]).await.unwrap().unwrap().version;
    store.commit(append(&keys[0], version)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asvs_13_2_6_a_server_that_is_away_is_answered_for_promptly_and_found_again() {
    let mut postgres = Postgres::start().unwrap();
    let name = database(&postgres);
    // Long enough for a busy machine to connect anew; who waits for a server that is away waits for less.
    let settings = PostgresSettings { timeout: RECOVERY * 7 / 10, ..settings(&postgres, name) };
    let store = PostgresStore::open(&settings).await.unwrap();
    let keys = keys(16);
    assert!(ask_everything(&store, &keys, 0, RECOVERY).await);
    postgres.stop_fast().unwrap();
    for _ in 0..20 {
        assert!(!ask_everything(&store, &keys, 1, PROMPT).await);
    }
    postgres.start_again().unwrap();
    until("it is ready again", RECOVERY, || async { store.ping().await.is_ok() }).await;
    // While it was away nothing can have been written.
    assert!(ask_everything(&store, &keys, 1, RECOVERY).await);

    // A restart that nobody noticed, because nobody asked.
    postgres.stop_fast().unwrap();
    postgres.start_again().unwrap();
    assert!(ask_everything(&store, &keys, 2, RECOVERY).await, "old connections are replaced, not reported");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let mut postgres = Postgres::options().fsync(true).start().unwrap();
    let name = database(&postgres);
    let store = open(&postgres, name).await;
    for round in 0..2_usize {
        let (progress, mut written) = mpsc::unbounded_channel();
        let writers: Vec<_> = (0..16_usize)
            .map(|writer| {
                let (store, progress) = (Arc::clone(&store), progress.clone());
                let key = session("a", &format!("ws_{round}_{writer}"));
                tokio::spawn(async move {
                    for version in 0.. {
                        if store.commit(append(&key, version)).await.is_err() {
                            return (key, version);
                        }
                        let _ = progress.send(());
                    }
                    unreachable!("it ends by the kill")
                })
            })
            .collect();
        for _ in 0..300 {
            written.recv().await.unwrap();
        }
        postgres.kill().unwrap();
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.push(writer.await.unwrap());
        }
        postgres.start_again().unwrap();
        until("it is ready again", RECOVERY, || async { store.ping().await.is_ok() }).await;
        for (key, version) in acknowledged {
            let stored = store.load(&key).await.unwrap().unwrap();
            // The one change whose outcome was not known may be there or not.
            assert!((version..=version + 1).contains(&stored.version), "{key:?}: {version} of {}", stored.version);
            let journal = store.journal(&key, 0, 100_000).await.unwrap();
            let versions: Vec<u64> = journal.iter().map(|record| record.version).collect();
            assert_eq!(versions, (1..=stored.version).collect::<Vec<_>>());
            assert_eq!(stored.state, format!("state {}", stored.version).into_bytes());
            store.commit(append(&key, stored.version)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_tell_each_other_what_changed() {
    let mut postgres = Postgres::start().unwrap();
    let name = database(&postgres);
    let store = open(&postgres, name).await;
    let (listener, mut events) = ChangeListener::start(&settings(&postgres, name).address, 64);
    let next = async |events: &mut mpsc::Receiver<ListenerEvent>, limit: Duration| {
        tokio::time::timeout(limit, events.recv()).await.expect("an event in time").unwrap()
    };
    let changed = |key: &SessionKey, version| ListenerEvent::Changed { key: key.clone(), version };
    assert_eq!(next(&mut events, RECOVERY).await, ListenerEvent::Up);

    let keys = keys(400);
    store.commit(append(&keys[0], 0)).await.unwrap();
    let mut stale = append(&keys[0], 0);
    stale.announce = true;
    store.commit(stale).await.unwrap_err();
    let mut told = append(&keys[1], 0);
    told.announce = true;
    store.commit(told).await.unwrap();
    let event = next(&mut events, RECOVERY).await;
    assert_eq!(event, changed(&keys[1], 1), "neither what is not to be announced nor what was not committed");

    let all: Vec<_> = keys.iter().map(|key| (key.clone(), 7)).collect();
    store.announce(&all).await.unwrap();
    for key in &keys {
        assert_eq!(next(&mut events, RECOVERY).await, changed(key, 7));
    }

    postgres.pause().unwrap();
    assert_eq!(next(&mut events, Duration::from_millis(2_500)).await, ListenerEvent::Down, "frozen");
    postgres.resume().unwrap();
    assert_eq!(next(&mut events, RECOVERY).await, ListenerEvent::Up);
    postgres.kill().unwrap();
    assert_eq!(next(&mut events, Duration::from_millis(2_500)).await, ListenerEvent::Down, "gone");
    postgres.start_again().unwrap();
    assert_eq!(next(&mut events, RECOVERY).await, ListenerEvent::Up);
    until("it is ready again", RECOVERY, || async { store.ping().await.is_ok() }).await;
    store.announce(&all[..1]).await.unwrap();
    assert_eq!(next(&mut events, RECOVERY).await, changed(&keys[0], 7));
    drop(listener);
    assert_eq!(events.recv().await, None, "it ends with its owner");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_question_about_many_sessions_looks_at_all_of_them() {
    let postgres = Postgres::start().unwrap();
    let name = database(&postgres);
    let store = open(&postgres, name).await;
    let fill = "INSERT INTO sessions (tenant, session_id, version, state, status, step, funnel_id, funnel_version,
            created_at_ms, updated_at_ms, expires_at_ms, erased, currency, amount_minor, email_digest)
        SELECT 'a', 'ws_' || n, 1, repeat('x', 500)::bytea,
            (ARRAY['pending', 'processing', 'completed', 'failed', 'expired'])[1 + n % 5],
            (ARRAY['checkout', 'payment', 'success'])[1 + n % 3], 'default', '1',
            n, n, n + 1, false, 'EUR', 1, sha256((n % 5000)::text::bytea)
        FROM generate_series(1, 20000) AS n";
    postgres.execute(name, fill).unwrap();
    postgres.execute(name, "ANALYZE sessions").unwrap();
    let explain = async |statement: Statement| {
        let statement = Statement { text: format!("EXPLAIN {}", statement.text), ..statement };
        let plan = store.survey("explaining", statement).await.unwrap();
        plan.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
    };
    for (name, search) in surveys::forms_of_a_search() {
        let plan = explain(Statement::search(&Search { limit: 50, ..search }, Dialect::Postgres)).await;
        let index =
            ["Index Scan using sessions_", "Index Scan Backward using sessions_", "Bitmap Index Scan on sessions_"];
        assert!(index.iter().any(|index| plan.contains(index)) && !plan.contains("Seq Scan"), "{name}:\n{plan}");
    }
    let plan = explain(Statement::summary(&surveys::summary_of("a"), Dialect::Postgres)).await;
    assert!(plan.contains("sessions_recent") && !plan.contains("Seq Scan on sessions"), "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_takes_too_long_is_not_a_database_that_is_away() {
    let postgres = Postgres::start().unwrap();
    let name = database(&postgres);
    let guarded = crate::store::GuardedStore::new(open(&postgres, name).await, crate::store::Guards::Everything);
    postgres.execute(name, "ALTER TABLE sessions RENAME TO slow_sessions").unwrap();
    let slow = "CREATE VIEW sessions AS SELECT * FROM slow_sessions WHERE pg_sleep(60) IS NOT NULL";
    postgres.execute(name, slow).unwrap();
    postgres
        .execute(
            name,
            "INSERT INTO slow_sessions SELECT 'a', 'ws_1', 1, '', 'pending', 'checkout', 'default', '1',
        1000, 1000, 1, NULL, NULL, false, 'EUR', 1, NULL, NULL",
        )
        .unwrap();
    let all = surveys::search("a");
    let asking = (0..2).map(|_| guarded.search(&all));
    for outcome in futures_util::future::join_all(asking).await {
        assert!(matches!(outcome, Err(SurveyError::TooSlow)), "{outcome:?}");
    }
    assert!(!guarded.health().is_away());
}
