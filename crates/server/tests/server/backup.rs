//! Backups are made and restored by the commands of `docs/operations/backup.md`, which are run here as they stand there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use sqlx::Connection as _;
use throughline_test_services::buyer::{Buyer, Identity};
use throughline_test_services::fleet::{Fleet, Node};
use throughline_test_services::postgres::Postgres;
use throughline_test_services::promises;
use throughline_test_services::redis::Redis;

use super::binary;
use super::fleets::*;

/// The commands of a chapter of the page.
fn documented(chapter: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/backup.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, after) = page.split_once(&format!("### {chapter}\n")).unwrap_or_else(|| panic!("no chapter {chapter}"));
    let (_, block) = after.split_once("```sh\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// Runs them, with what the operator has set.
fn attempt(commands: &str, variables: &[(&str, &str)]) -> Output {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_throughline"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [binary.parent().unwrap().to_owned(), Postgres::program_folder().unwrap()];
    let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path))).unwrap();
    Command::new("sh").args(["-euc", commands]).env("PATH", path).envs(variables.iter().copied()).output().unwrap()
}

/// Runs them, and returns what they printed.
fn perform(chapter: &str, variables: &[(&str, &str)]) -> String {
    let output = attempt(&documented(chapter), variables);
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{chapter}: {out}{errors}");
    out.into_owned()
}

/// Another ring than the one with which everything was written.
fn foreign_ring(folder: &Path) -> String {
    let file = folder.join("foreign-keys").display().to_string();
    assert!(binary::throughline(&["keys", "generate", "--keys-file", &file]).output().unwrap().status.success());
    file
}

/// A server with another ring, and one without any, refuse the database and say why.
fn is_refused_without_its_ring(database: &str, folder: &Path) {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database-url", database];
    let without = binary::failure(&binary::throughline(&serve).output().unwrap());
    assert!(without.contains("there is no key ring"), "{without}");
    let foreign = foreign_ring(folder);
    let other = [&serve[..], &["--keys-file", &foreign]].concat();
    let other = binary::failure(&binary::throughline(&other).output().unwrap());
    assert!(other.contains("under keys that the key ring does not have"), "{other}");
}

/// Sessions that say something, as a server shows them.
async fn furnished(fleet: &Fleet, node: &Node) -> BTreeMap<String, Value> {
    let mut sessions = BTreeMap::new();
    for number in 0..5 {
        let id = created(fleet, node).await;
        assert_eq!(strict(fleet, node, &id, &format!("buyer-{number}@example.com")).await.0, 200);
        sessions.insert(id.clone(), promises::session(fleet, node, &id).await.unwrap());
    }
    sessions
}

/// The changes of a buyer that a server has, by their numbers.
async fn changes(fleet: &Fleet, node: &Node, identity: &Identity) -> Vec<u64> {
    let records = promises::journal(fleet, node, &identity.session_id).await.unwrap();
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record["version"].as_u64(), Some(index as u64 + 1), "the journal has a gap");
    }
    let number = |record: &Value| {
        let text = record["event"]["metadata"]["change"].as_str()?;
        text.strip_prefix(&format!("{}-", identity.client_id))?.parse().ok()
    };
    records.iter().filter_map(number).collect()
}

async fn all_are_as_they_were(fleet: &Fleet, node: &Node, sessions: &BTreeMap<String, Value>) {
    for (id, before) in sessions {
        assert_eq!(promises::session(fleet, node, id).await.as_ref(), Ok(before));
    }
}

fn audit(fleet: &Fleet, arguments: &[&str], database: &str) -> std::io::Result<String> {
    let keys = fleet.keys_file().display().to_string();
    fleet.run(&[&["audit"], arguments, &["--keys-file", &keys, "--database-url", database]].concat())
}

/// Waits until something of the audit log is sealed.
async fn sealed(fleet: &Fleet, database: &str) {
    until("the log is sealed", LONG, async || !audit(fleet, &["anchor"], database).unwrap().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_postgresql_made_under_load_is_a_whole_shop_again_in_a_new_cluster() {
    let mut fleet = fleet();
    let mut node = fleet.node("a", &[]).unwrap();
    let sessions = furnished(&fleet, &node).await;
    let identity = Identity::new();
    let buyer = Buyer::start(&identity, std::slice::from_ref(&node.address), OFTEN);
    accepted(&buyer, 20).await;
    let (database, keys) = (fleet.postgres.url("shop"), fleet.keys_file().display().to_string());
    sealed(&fleet, &database).await;

    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().display().to_string();
    let known = buyer.told().durable;
    perform("A dump", &[("DATABASE_URL", &database), ("KEYS_FILE", &keys), ("BACKUP", &backup)]);
    accepted(&buyer, 20).await;
    let told = buyer.leave().await;
    assert!(node.stop().unwrap().success());
    fleet.postgres.kill().unwrap();
    fleet.redis.kill().unwrap();

    let (cluster, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
    cluster.create_database("shop").unwrap();
    let restored = cluster.url("shop");
    let variables = [("DATABASE_URL", restored.as_str()), ("KEYS_FILE", &keys), ("BACKUP", &backup)];
    let said = perform("A dump, restored", &variables);
    assert!(said.contains("the audit log is as it was written"), "{said}");
    is_refused_without_its_ring(&restored, folder.path());
    let node = fleet.node_on("restored", &restored, Some(&redis.url()), &[]).unwrap();
    all_are_as_they_were(&fleet, &node, &sessions).await;
    let kept = changes(&fleet, &node, &identity).await;
    assert!(known.iter().all(|change| kept.contains(change)), "{known:?} were durable before the dump; {kept:?}");
    assert!(kept.len() < told.issued as usize, "the dump is of a moment: {} of {}", kept.len(), told.issued);
    // It goes on, and so does the chain of the audit log.
    for id in sessions.keys() {
        assert_eq!(strict(&fleet, &node, id, "later@example.com").await.0, 200, "{}", node.log());
    }
    let anchors = folder.path().join("anchors.jsonl").display().to_string();
    until("what is new is sealed", LONG, async || {
        let said = audit(&fleet, &["verify", "--anchors", &anchors], &restored).unwrap();
        assert!(said.contains("as it was written"), "{said}");
        said.contains(", 0 of them not sealed yet")
    })
    .await;
    // What an anchor of a later moment says is what tells a database that was put back from one that never was away.
    let later = audit(&fleet, &["anchor"], &restored).unwrap();
    std::fs::write(&anchors, later).unwrap();
    cluster.create_database("again").unwrap();
    let again = cluster.url("again");
    let variables = [("DATABASE_URL", again.as_str()), ("KEYS_FILE", &keys), ("BACKUP", &backup)];
    let refused = attempt(&documented("A dump, restored"), &variables);
    assert!(!refused.status.success(), "{}", String::from_utf8_lossy(&refused.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_backup_and_the_log_after_it_bring_back_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().display().to_string();
    let wal = folder.path().join("wal");
    std::fs::create_dir(&wal).unwrap();
    // Whoever PostgreSQL runs as has to reach it.
    open_to_all(folder.path());
    open_to_all(&wal);
    let archive = format!("test ! -f {backup}/wal/%f && cp %p {backup}/wal/%f");
    let postgres = Postgres::options().fsync(true).setting("archive_mode", "on").setting("archive_command", &archive);
    let mut fleet =
        Fleet::with(env!("CARGO_BIN_EXE_throughline"), postgres.start().unwrap(), Redis::start().unwrap()).unwrap();
    let mut node = fleet.node("a", &[]).unwrap();
    let database = fleet.postgres.url("shop");
    perform("Every moment", &[("DATABASE_URL", &database), ("BACKUP", &backup)]);
    let sessions = furnished(&fleet, &node).await;
    sealed(&fleet, &database).await;
    let mut connection = sqlx::PgConnection::connect(&database).await.unwrap();
    let moment: String = sqlx::query_scalar("SELECT clock_timestamp()::text").fetch_one(&mut connection).await.unwrap();
    let later = created(&fleet, &node).await;
    assert!(node.stop().unwrap().success());
    // An orderly stop archives what is left.
    drop(connection);
    fleet.postgres.stop_fast().unwrap();

    let mut cluster = Postgres::start().unwrap();
    cluster.stop_fast().unwrap();
    let data = cluster.data_folder();
    std::fs::remove_dir_all(&data).unwrap();
    let data_text = data.display().to_string();
    perform("A moment, restored", &[("BACKUP", &backup), ("DATA", &data_text), ("MOMENT", &moment)]);
    cluster.own_data_folder().unwrap();
    cluster.start_again().unwrap();
    let restored = cluster.url("shop");
    until("the recovery is over", LONG, async || {
        let mut connection = sqlx::PgConnection::connect(&restored).await.unwrap();
        let recovering = sqlx::query_scalar::<_, bool>("SELECT pg_is_in_recovery()");
        !recovering.fetch_one(&mut connection).await.unwrap()
    })
    .await;
    let said = audit(&fleet, &["verify"], &restored).unwrap();
    assert!(said.contains("the audit log is as it was written"), "{said}");
    is_refused_without_its_ring(&restored, folder.path());
    let redis = Redis::start().unwrap();
    let node = fleet.node_on("restored", &restored, Some(&redis.url()), &[]).unwrap();
    all_are_as_they_were(&fleet, &node, &sessions).await;
    let absent = promises::session(&fleet, &node, &later).await.unwrap_err();
    assert!(absent.starts_with("404"), "it is of after the moment: {absent}");
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_sqlite_file_made_while_the_server_runs_is_a_whole_shop_again() {
    let kept = tempfile::tempdir().unwrap();
    let made = binary::throughline(&["keys", "generate"]).output().unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let value = |name: &str| made.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let keys = binary::write(&kept, "keys", &value("THROUGHLINE_KEYS="));
    let hashes = binary::write(&kept, "hashes", &value("THROUGHLINE_SERVICE_KEY_HASHES="));
    let service_key = value("# service key, give it to the shop's back end: ");
    let options = ["--keys-file", &keys, "--service-key-hashes-file", &hashes];
    let mut server = binary::start(tempfile::tempdir().unwrap(), &options);
    let address = binary::address(&server.line()).to_owned();
    let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
    let read = async |address: &str, id: &str| {
        let asked = client.get(format!("http://{address}/v1/sessions/{id}")).bearer_auth(&service_key).send().await;
        let answer = asked.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let mut sessions = BTreeMap::new();
    for number in 0..5 {
        let new = json!({ "email": format!("buyer-{number}@example.com") });
        let asked = client.post(format!("http://{address}/v1/sessions")).bearer_auth(&service_key).json(&new).send();
        let id = asked.await.unwrap().json::<Value>().await.unwrap()["session"]["id"].as_str().unwrap().to_owned();
        sessions.insert(id.clone(), read(&address, &id).await);
    }
    let identity = Identity::new();
    let buyer = Buyer::start(&identity, std::slice::from_ref(&address), OFTEN);
    accepted(&buyer, 20).await;
    let (backup, file) = (kept.path().display().to_string(), server.folder.path().join("data/t.db"));
    let file = file.display().to_string();
    let durable = buyer.told().durable;
    perform("A file", &[("FILE", &file), ("KEYS_FILE", &keys), ("BACKUP", &backup)]);
    accepted(&buyer, 20).await;
    let told = buyer.leave().await;
    drop(server);

    let again = tempfile::tempdir().unwrap();
    std::fs::create_dir(again.path().join("data")).unwrap();
    let file = again.path().join("data/t.db").display().to_string();
    let said = perform("A file, restored", &[("FILE", &file), ("KEYS_FILE", &keys), ("BACKUP", &backup)]);
    assert!(said.contains("the audit log is as it was written"), "{said}");
    is_refused_without_its_ring(&format!("sqlite:{file}"), again.path());
    let mut server = binary::start(again, &options);
    let address = binary::address(&server.line()).to_owned();
    for (id, before) in &sessions {
        assert_eq!(read(&address, id).await, *before);
    }
    let (status, session) = read(&address, &identity.session_id).await;
    assert_eq!(status, 200, "{session}");
    let version = session["version"].as_u64().unwrap();
    assert!(version >= durable.len() as u64 && version < told.durable_version, "{version}: {told:?}");
}
