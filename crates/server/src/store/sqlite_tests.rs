//! What is particular to the SQLite file, beside the conformance suite.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::store::conformance::{append, session, suite, surveys};

fn settings(folder: &tempfile::TempDir) -> SqliteSettings {
    SqliteSettings {
        file: folder.path().join("new folder/throughline.db"),
        readers: 2,
        group_commit: GroupCommitLimits::default(),
        auto_migrate: true,
    }
}

async fn fresh() -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (SqliteStore::open(&settings(&folder)).await.unwrap(), folder)
}

suite!(fresh);

/// Whether `needle` stands anywhere in the database's files.
fn files_hold(folder: &tempfile::TempDir, needle: &[u8]) -> bool {
    let files = std::fs::read_dir(settings(folder).file.parent().unwrap()).unwrap();
    files
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_many_sessions_share_transactions() {
    let (store, _folder) = fresh().await;
    let store = Arc::new(store);
    let writers: Vec<_> = (0..64)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let key = session("a", &format!("ws_{number}"));
                for version in 0..4 {
                    store.commit(append(&key, version)).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let (jobs, transactions) = store.counts();
    assert_eq!(jobs, 64 * 4);
    assert!(transactions < jobs / 4, "{jobs} jobs took {transactions} transactions");
}

#[tokio::test]
async fn a_conflict_does_not_fail_the_others_in_its_batch() {
    let (store, _folder) = fresh().await;
    let stale = append(&session("a", "ws_1"), 3);
    let (first, good) = (append(&session("a", "ws_2"), 0), append(&session("a", "ws_3"), 0));
    let (one, two, three) = tokio::join!(store.commit(first), store.commit(stale), store.commit(good));
    assert_eq!(store.counts(), (3, 1));
    assert!(one.is_ok() && three.is_ok());
    assert!(matches!(two, Err(CommitError::Conflict { current_version: 0 })));
}

#[tokio::test]
async fn a_full_queue_is_answered_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let group_commit = GroupCommitLimits { queue: 4, batch: 4 };
    let store = SqliteStore::open(&SqliteSettings { group_commit, ..settings(&folder) }).await.unwrap();
    let keys: Vec<_> = (0..64).map(|number| session("a", &format!("ws_{number}"))).collect();
    let outcomes = futures_util::future::join_all(keys.iter().map(|key| store.commit(append(key, 0)))).await;
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(CommitError::Overloaded { .. }))).count();
    assert_eq!(refused, 60, "4 fit into the queue; the others must not wait");
    for (key, outcome) in keys.iter().zip(outcomes) {
        assert_eq!(store.load(key).await.unwrap().is_some(), outcome.is_ok());
    }
}

#[tokio::test]
async fn reopening_the_file_finds_everything() {
    let (store, folder) = fresh().await;
    let key = session("a", "ws_1");
    for version in 0..10 {
        store.commit(append(&key, version)).await.unwrap();
    }
    store.close().await;
    let store = SqliteStore::open(&settings(&folder)).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap().version, 10);
    assert_eq!(store.journal(&key, 0, 100).await.unwrap().len(), 10);
    store.commit(append(&key, 10)).await.unwrap();
}

#[tokio::test]
async fn a_file_copied_while_it_is_open_holds_what_was_committed() {
    let (store, folder) = fresh().await;
    let key = session("a", "ws_1");
    store.commit(append(&key, 0)).await.unwrap();
    // What a crash leaves behind: the files as they are, nothing flushed or closed.
    let crashed = tempfile::tempdir().unwrap();
    let target = settings(&crashed).file;
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    for suffix in ["", "-wal"] {
        let name = |file: &Path| format!("{}{suffix}", file.display());
        std::fs::copy(name(&settings(&folder).file), name(&target)).unwrap();
    }
    let store = SqliteStore::open(&settings(&crashed)).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap().version, 1);
}

#[tokio::test]
async fn erased_bytes_are_gone_from_every_file() {
    let (store, folder) = fresh().await;
    let key = session("a", "ws_1");
    let canary = b"canary-4711-jane@example.com";
    for version in 0..4 {
        let mut change = append(&key, version);
        change.records[0].blob = canary.repeat(50);
        change.state = canary.repeat(50);
        store.commit(change).await.unwrap();
    }
    assert!(files_hold(&folder, canary), "the search finds what is there");
    let mut erase = append(&key, 4);
    erase.purge_history = true;
    store.commit(erase).await.unwrap();
    let mut rounds = 0;
    while files_hold(&folder, canary) {
        rounds += 1;
        assert!(rounds < 50, "the canary is still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_writer_locked_out_answers_unavailable_and_recovers() {
    let (store, folder) = fresh().await;
    let key = session("a", "ws_1");
    let options = SqliteConnectOptions::new().filename(settings(&folder).file);
    let mut intruder = options.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut intruder).await.unwrap();
    let error = store.commit(append(&key, 0)).await.unwrap_err();
    assert!(matches!(error, CommitError::Unavailable { .. }), "{error:?}");
    assert!(store.load(&key).await.unwrap().is_none(), "reads go on");
    sqlx::query("ROLLBACK").execute(&mut intruder).await.unwrap();
    store.commit(append(&key, 0)).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_clearly_and_loses_nothing_that_was_acknowledged() {
    let (store, folder) = fresh().await;
    store.close().await;
    let SqliteStore { readers, file, .. } = SqliteStore::open(&settings(&folder)).await.unwrap();
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&readers).await.unwrap();
    let options = connect_options(&settings(&folder).file).0.pragma("max_page_count", (pages + 20).to_string());
    let connection = options.connect().await.unwrap();
    let writer = GroupCommit::start(SqliteWriter::new(file.clone(), options, connection), GroupCommitLimits::default());
    let surveyors = readers.clone();
    let store = SqliteStore { file, writer, readers, surveyors, write_failed: AtomicBool::new(false) };

    let keys: Vec<_> = (0..64).map(|number| session("a", &format!("ws_{number}"))).collect();
    let mut acknowledged = Vec::new();
    for group in keys.chunks(4) {
        let commits = group.iter().map(|key| {
            let mut change = append(key, 0);
            change.state = vec![7; 3000];
            store.commit(change)
        });
        for (key, outcome) in group.iter().zip(futures_util::future::join_all(commits).await) {
            match outcome {
                Ok(()) => acknowledged.push(key),
                Err(CommitError::Unavailable { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(!acknowledged.is_empty() && acknowledged.len() < keys.len(), "{}", acknowledged.len());
    assert!(matches!(store.ping().await, Err(ReadError::Unavailable { .. })), "what can't be written is not ready");
    store.close().await;

    let store = SqliteStore::open(&settings(&folder)).await.unwrap();
    for key in &keys {
        let stored = store.load(key).await.unwrap().is_some();
        let journal = store.journal(key, 0, 10).await.unwrap().len();
        assert_eq!((stored, journal == 1), (acknowledged.contains(&key), stored), "{key:?}");
        if !stored {
            store.commit(append(key, 0)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = settings(&folder).file;
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "not a database, but long enough to look at".repeat(50)).unwrap();
    let error = SqliteStore::open(&settings(&folder)).await.unwrap_err();
    assert!(error.to_string().contains("throughline.db"), "{error}");
}

#[tokio::test]
async fn outdated_tables_are_refused_where_they_are_not_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let apart = SqliteSettings { auto_migrate: false, ..settings(&folder) };
    let error = SqliteStore::open(&apart).await.unwrap_err().to_string();
    assert!(error.contains("throughline migrate"), "{error}");
    assert_eq!(migrate(&apart.file).await.unwrap().len(), migrations().iter().count());
    assert_eq!(migrate(&apart.file).await.unwrap(), []);
    SqliteStore::open(&apart).await.unwrap();
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    migrate(&settings(&folder).file).await.unwrap();
    let mut connection = connect(&settings(&folder).file).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations VALUES (99, 'later', 0, TRUE, x'00', 0)";
    sqlx::query(newer).execute(&mut connection).await.unwrap();
    for auto_migrate in [true, false] {
        let error = SqliteStore::open(&SqliteSettings { auto_migrate, ..settings(&folder) }).await.unwrap_err();
        assert!(error.to_string().contains("newer version of throughline (its migration 99"), "{error}");
    }
}

#[tokio::test]
async fn no_question_about_many_sessions_looks_at_all_of_them() {
    let (store, _folder) = fresh().await;
    let explain = async |statement: &Statement| {
        let text = format!("EXPLAIN QUERY PLAN {}", statement.text);
        let mut asked = sqlx::query(sqlx::AssertSqlSafe(text));
        for argument in statement.arguments.clone() {
            asked = match argument {
                Argument::Text(text) => asked.bind(text),
                Argument::Number(number) => asked.bind(number),
                Argument::Bytes(bytes) => asked.bind(bytes),
            };
        }
        let rows = asked.fetch_all(&store.readers).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>(3)).collect::<Vec<_>>()
    };
    for (name, search) in surveys::forms_of_a_search() {
        let plan = explain(&Statement::search(&search, Dialect::Sqlite)).await;
        let sessions: Vec<&String> = plan.iter().filter(|step| step.contains(" sessions")).collect();
        assert!(!sessions.is_empty(), "{name}: {plan:?}");
        assert!(sessions.iter().all(|step| step.starts_with("SEARCH sessions USING INDEX")), "{name}: {plan:?}");
        // At most a page of each part is put in order; what the index gives is never sorted.
        let is_sorted = |pair: &[String]| pair[0].contains(" sessions") && pair[1].contains("TEMP B-TREE");
        assert!(!plan.windows(2).any(is_sorted), "{name}: {plan:?}");
    }
    let plan = explain(&Statement::summary(&surveys::summary_of("a"), Dialect::Sqlite)).await;
    assert!(plan.iter().any(|step| step.starts_with("SEARCH sessions USING INDEX sessions_recent")), "{plan:?}");
}

#[tokio::test]
async fn a_file_that_is_taken_away_or_emptied_is_not_written_to() {
    let (store, folder) = fresh().await;
    let (file, aside) = (settings(&folder).file, folder.path().join("aside"));
    let key = session("a", "ws_1");
    store.commit(append(&key, 0)).await.unwrap();
    for taken_away in [true, false] {
        std::fs::rename(&file, &aside).unwrap();
        if !taken_away {
            std::fs::copy(&aside, &file).unwrap();
        }
        let refused = store.commit(append(&key, 1)).await;
        let Err(CommitError::Unavailable { fault }) = refused else { panic!("{refused:?}") };
        assert!(crate::problem::chain(&fault).contains("restart the server"), "{fault}");
        assert!(store.ping().await.is_err(), "whoever asks is told");
        std::fs::rename(&aside, &file).unwrap();
        store.ping().await.unwrap();
    }
    store.commit(append(&key, 1)).await.unwrap();
    std::fs::File::create(&file).unwrap();
    assert!(matches!(store.commit(append(&key, 2)).await, Err(CommitError::Unavailable { .. })));
}
