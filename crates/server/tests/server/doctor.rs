//! `throughline doctor` beside services that are as they should be, and that are not.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use throughline_test_services::postgres::Postgres;
use throughline_test_services::redis::{Redis, RedisCluster, RedisOptions};

use super::binary::*;

/// A folder with keys, and a database and a Redis that may be there.
struct Place {
    folder: tempfile::TempDir,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
}

impl Place {
    fn new(postgres: Option<Postgres>, redis: Option<Redis>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = throughline(&["keys", "generate"]).output().unwrap();
        let made = String::from_utf8(made.stdout).unwrap();
        let value = |name: &str| made.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let keys = write(&folder, "keys", &value("THROUGHLINE_KEYS="));
        std::fs::set_permissions(keys, std::fs::Permissions::from_mode(0o600)).unwrap();
        write(&folder, "hashes", &value("THROUGHLINE_SERVICE_KEY_HASHES="));
        if let Some(postgres) = &postgres {
            postgres.create_database("shop").unwrap();
        }
        Self { folder, postgres, redis }
    }

    fn with_services(redis: RedisOptions) -> Self {
        let postgres = Postgres::options().fsync(true).setting("max_connections", "100").start().unwrap();
        let place = Self::new(Some(postgres), Some(redis.start().unwrap()));
        place.migrate();
        place
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn database(&self) -> String {
        match &self.postgres {
            Some(postgres) => postgres.url("shop"),
            None => format!("sqlite:{}", self.file("data/shop.db")),
        }
    }

    fn migrate(&self) {
        let migrated = throughline(&["migrate", "--database-url", &self.database()]).output().unwrap();
        assert!(migrated.status.success(), "{migrated:?}");
    }

    fn run(&self, more: &[&str]) -> Output {
        let (keys, hashes, database) = (self.file("keys"), self.file("hashes"), self.database());
        let mut arguments = vec!["doctor", "--listen", "127.0.0.1:0", "--max-connections", "100"];
        // Each option may be given once.
        for (option, value) in
            [("--keys-file", &keys), ("--service-key-hashes-file", &hashes), ("--database-url", &database)]
        {
            if !more.contains(&option) {
                arguments.extend([option, value]);
            }
        }
        let redis = self.redis.as_ref().map(Redis::url);
        if let Some(url) = redis.as_ref().filter(|_| !more.contains(&"--redis-url")) {
            arguments.extend(["--redis-url", url]);
        }
        arguments.extend(more);
        if more.contains(&"--listen") {
            arguments.drain(1..3);
        }
        throughline(&arguments).output().unwrap()
    }

    /// The report, and whether the command was content.
    fn examine(&self, more: &[&str]) -> (Report, bool) {
        let output = self.run(&[more, &["--json"]].concat());
        let report = serde_json::from_slice(&output.stdout);
        (Report(report.unwrap_or_else(|error| panic!("{error}: {output:?}"))), output.status.success())
    }
}

struct Report(Value);

impl Report {
    fn finding(&self, check: &str) -> &Value {
        let findings = self.0["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check}: {}", self.0))
    }

    /// A finding's status; what it says has to contain all of `words`.
    fn status(&self, check: &str, words: &[&str]) -> String {
        let finding = self.finding(check);
        let text = finding.to_string();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text}");
        }
        finding["status"].as_str().unwrap().to_owned()
    }

    fn all(&self, status: &str) -> Vec<&str> {
        let findings = self.0["findings"].as_array().unwrap();
        let of_status = findings.iter().filter(|finding| finding["status"] == status);
        of_status.map(|finding| finding["check"].as_str().unwrap()).collect()
    }
}

fn good_redis() -> RedisOptions {
    RedisOptions::default().append_only(true).setting("maxmemory", "100mb").setting("maxmemory-policy", "volatile-lru")
}

#[test]
fn where_everything_is_fine_nothing_is_to_be_changed() {
    let place = Place::with_services(good_redis());
    let (report, is_content) = place.examine(&["--servers", "3", "--strict"]);
    assert!(is_content, "{}", report.0);
    assert_eq!(report.0["status"], "ok");
    for check in [
        "configuration",
        "keys",
        "database",
        "database tables",
        "database keys",
        "database writes",
        "database durability",
        "database isolation",
        "database connections",
        "database clock",
        "database latency",
        "redis",
        "redis eviction",
        "redis memory",
        "redis persistence",
        "redis clock",
        "redis latency",
        "funnels",
        "listen",
        "secrecy",
        "open files",
        "clock",
    ] {
        assert_eq!(report.status(check, &[]), "ok", "{}", report.0);
    }
    let output = place.run(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| !line.contains("->")) && text.contains("warnings: 0, errors: 0"), "{text}");

    // A probe that was rolled back has left nothing behind.
    assert_eq!(report.status("database writes", &["written"]), "ok");
    let redis_url = place.redis.as_ref().unwrap().url();
    let mut server = throughline(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--keys-file",
        &place.file("keys"),
        "--service-key-hashes-file",
        &place.file("hashes"),
        "--database-url",
        &place.database(),
        "--redis-url",
        &redis_url,
    ])
    .stdout(std::process::Stdio::piped())
    .stderr(std::process::Stdio::null())
    .spawn()
    .unwrap();
    let said = std::io::BufReader::new(server.stdout.take().unwrap());
    let line = std::io::BufRead::lines(said).next().unwrap().unwrap();
    let (report, is_content) = place.examine(&["--listen", address(&line)]);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(is_content && report.status("listen", &["throughline server listens"]) == "ok", "{}", report.0);
}

#[test]
fn settings_that_lose_data_are_errors() {
    let redis = RedisOptions::default().setting("maxmemory", "100mb").setting("maxmemory-policy", "allkeys-lru");
    let place = Place::with_services(redis);
    let postgres = place.postgres.as_ref().unwrap();
    postgres.execute("shop", "ALTER DATABASE shop SET synchronous_commit = off").unwrap();
    postgres.execute("shop", "ALTER DATABASE shop SET default_transaction_isolation = serializable").unwrap();
    let (report, is_content) = place.examine(&["--servers", "50"]);
    assert!(!is_content);
    assert_eq!(report.status("redis eviction", &["allkeys-lru", "CONFIG SET maxmemory-policy volatile-lru"]), "error");
    assert_eq!(report.status("redis persistence", &["appendonly no", "CONFIG SET appendonly yes"]), "warning");
    assert_eq!(report.status("database durability", &["synchronous_commit off", "ALTER ROLE"]), "error");
    assert_eq!(report.status("database isolation", &["serializable", "read committed"]), "warning");
    assert_eq!(report.status("database connections", &["550", "max_connections"]), "error");
    postgres.execute("shop", "ALTER DATABASE shop SET default_transaction_read_only = on").unwrap();
    let (report, _) = place.examine(&[]);
    assert_eq!(report.status("database writes", &["default_transaction_read_only"]), "error");
}

#[test]
fn services_that_are_away_are_told_at_once_and_without_passwords() {
    let mut place = Place::with_services(good_redis().password("hunter2"));
    place.redis.as_mut().unwrap().kill().unwrap();
    let (report, is_content) = place.examine(&[]);
    assert!(!is_content);
    assert_eq!(report.all("error"), ["redis"], "{}", report.0);
    assert_eq!(report.status("redis", &["redis-cli"]), "error");
    place.postgres.as_mut().unwrap().kill().unwrap();
    let (report, _) = place.examine(&[]);
    assert_eq!(report.all("error"), ["database", "redis"], "{}", report.0);
    assert!(!report.0.to_string().contains("hunter2"), "{}", report.0);
}

#[test]
fn services_that_hang_are_not_waited_for() {
    let place = Place::with_services(good_redis());
    place.postgres.as_ref().unwrap().pause().unwrap();
    place.redis.as_ref().unwrap().pause().unwrap();
    let started = Instant::now();
    let (report, _) = place.examine(&[]);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    place.postgres.as_ref().unwrap().resume().unwrap();
    assert_eq!(report.all("error"), ["database", "redis"], "{}", report.0);
}

#[test]
fn outdated_tables_are_an_error_only_where_nobody_brings_them_up_to_date() {
    let place = Place::new(Some(Postgres::options().fsync(true).start().unwrap()), None);
    let (report, is_content) = place.examine(&["--auto-migrate", "false"]);
    assert!(!is_content && report.status("database tables", &["throughline migrate"]) == "error", "{}", report.0);
    let (report, is_content) = place.examine(&[]);
    assert!(is_content && report.status("database tables", &["throughline migrate"]) == "warning", "{}", report.0);
    assert!(!place.examine(&["--strict"]).1, "a warning fails where that is wanted");
    place.migrate();
    assert!(place.examine(&["--auto-migrate", "false"]).1);
    assert_eq!(place.examine(&[]).0.status("redis", &["every command waits for the database"]), "ok");
}

#[test]
fn a_file_of_sqlite_needs_a_folder_that_can_be_written_to() {
    let place = Place::new(None, None);
    let (report, is_content) = place.examine(&[]);
    assert!(is_content && report.status("database", &["not there yet"]) == "ok", "{}", report.0);
    assert!(!std::path::Path::new(&place.file("data")).exists(), "nothing was created");
    place.migrate();
    let (report, is_content) = place.examine(&[]);
    assert!(is_content && report.status("database durability", &["wal", "synchronous 2"]) == "ok", "{}", report.0);
    assert_eq!(place.examine(&["--servers", "2"]).0.status("database folder", &[]), "ok");
    assert!(!place.examine(&["--servers", "2"]).1, "a file is for one server");
    // Nobody may create anything there, not even who may do everything.
    let (report, is_content) = place.examine(&["--database-url", "sqlite:/proc/throughline/shop.db"]);
    assert!(!is_content && report.status("database folder", &["/proc", "chown"]) == "error", "{}", report.0);
    let (report, _) = place.examine(&["--database-url", &format!("sqlite:{}", place.file("keys"))]);
    assert_eq!(report.status("database", &["SQLite file"]), "error");
}

#[test]
fn what_cannot_be_read_is_told_without_repeating_it() {
    let place = Place::new(None, None);
    let wrong = write(&place.folder, "wrong", "hunter2\n");
    let (report, is_content) = place.examine(&["--keys-file", &wrong]);
    assert!(
        !is_content && report.status("keys", &["entry 1 of the key ring is wrong", "keys generate"]) == "error",
        "{}",
        report.0
    );
    assert!(!report.0.to_string().contains("hunter2"));
    assert_eq!(report.all("error"), ["keys"], "everything else was looked at all the same");
    assert_eq!(place.examine(&["--keys-file", "/nowhere"]).0.status("keys", &["/nowhere"]), "error");
    let file = write(&place.folder, "throughline.toml", "token_ttl = \"1h\"\ntoken_tll = \"1h\"\n");
    let (report, is_content) = place.examine(&["--config", &file]);
    assert!(!is_content && report.status("configuration", &["line 2", "token_tll"]) == "error", "{}", report.0);
    let funnels = tempfile::tempdir().unwrap();
    write(&funnels, "wrong.toml", "id = 1");
    let (report, _) = place.examine(&["--funnels", &funnels.path().display().to_string()]);
    assert_eq!(report.status("funnels", &["wrong.toml", "funnel check"]), "error");
}

#[test]
fn a_port_that_another_program_has_and_too_few_open_files_are_told() {
    let place = Place::new(None, None);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (report, is_content) = place.examine(&["--listen", &address]);
    assert!(!is_content && report.status("listen", &["another program", "ss -ltnp"]) == "error", "{}", report.0);
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 200; exec \"$0\" doctor --dev --listen 127.0.0.1:0 --json"])
        .arg(env!("CARGO_BIN_EXE_throughline"))
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    let report = Report(serde_json::from_slice(&output.stdout).unwrap());
    assert_eq!(report.status("open files", &["200 are allowed", "LimitNOFILE="]), "warning");
    assert_eq!(report.status("keys", &["--dev"]), "warning");
    assert!(output.status.success(), "warnings are no failure");
}

#[test]
fn a_redis_with_tls_is_asked_over_tls() {
    let redis = Redis::start_with_tls().unwrap();
    let (url, authority) = (redis.tls_url().unwrap(), redis.ca_file().display().to_string());
    let place = Place::new(Some(Postgres::options().fsync(true).start().unwrap()), None);
    let (report, _) = place.examine(&["--redis-url", &url, "--redis-ca-file", &authority]);
    assert_eq!(report.status("redis", &["is Redis"]), "ok");
    let (report, _) = place.examine(&["--redis-url", &url]);
    assert_eq!(report.status("redis", &["certificate"]), "error");
}

#[test]
fn each_node_of_a_cluster_is_asked() {
    let cluster = RedisCluster::start(2).unwrap();
    let place = Place::new(Some(Postgres::options().fsync(true).start().unwrap()), None);
    let (report, _) = place.examine(&["--redis-url", &cluster.url()]);
    assert_eq!(report.status("redis cluster", &["cluster_state ok", "16384 of 16384"]), "ok");
    let asked = report.all("ok").iter().filter(|check| **check == "redis cluster").count();
    assert_eq!(asked, 2, "{}", report.0);
}

#[test]
fn a_variable_that_means_nothing_and_a_key_that_everybody_reads_are_told() {
    let place = Place::new(None, None);
    std::fs::set_permissions(place.file("keys"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (keys, hashes) = (place.file("keys"), place.file("hashes"));
    let mut command =
        throughline(&["doctor", "--json", "--listen", "127.0.0.1:0", "--database-url", &place.database()]);
    command.env("THROUGHLINE_KEYS_FILE", keys).env("THROUGHLINE_SERVICE_KEY_HASHES_FILE", hashes);
    command.env("THROUGHLINE_SERVER", "https://checkout.example");
    let output = command.env("THROUGHLINE_TOKEN_TLL", "15m").output().unwrap();
    let report = Report(serde_json::from_slice(&output.stdout).unwrap());
    assert_eq!(report.status("environment", &["THROUGHLINE_TOKEN_TLL means nothing"]), "warning");
    assert_eq!(report.all("warning"), ["environment", "keys"], "{}", report.0);
    assert!(report.0.to_string().contains("chmod o="), "{}", report.0);
}

#[test]
fn tokens_that_would_travel_in_the_clear_and_certificates_that_can_not_be_used_are_told() {
    let place = Place::new(None, None);
    let open = ["--listen", "0.0.0.0:0"];
    let (report, _) = place.examine(&open);
    assert_eq!(report.status("secrecy", &["in the clear", "--tls-certificate-file", "--trusted-proxies"]), "warning");
    let (report, _) = place.examine(&[&open[..], &["--trusted-proxies", "10.0.0.0/8"]].concat());
    assert_eq!(report.status("secrecy", &["proxies"]), "ok");

    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = write(&place.folder, "certificate.pem", &made.cert.pem());
    let key = write(&place.folder, "key.pem", &made.signing_key.serialize_pem());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let with = |certificate: &str, key: &str| {
        let files = ["--tls-certificate-file", certificate, "--tls-key-file", key];
        place.examine(&[&open[..], &files].concat()).0
    };
    let report = with(&certificate, &key);
    assert_eq!(
        (report.status("secrecy", &["TLS"]), report.status("certificate", &["valid until"])),
        ("ok".into(), "ok".into())
    );
    let report = with(&certificate, &certificate);
    assert_eq!(report.status("certificate", &["no private key", "certificate.pem"]), "error");
    let mut over = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    over.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let over = write(&place.folder, "over.pem", &over.self_signed(&made.signing_key).unwrap().pem());
    assert_eq!(with(&over, &key).status("certificate", &["expired at 2020-01-01"]), "warning");
}
