//! A server on PostgreSQL, as an operator sees it.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use throughline_test_services::postgres::Postgres;

use super::binary::*;

/// How long a server may take to find out that its database is there again.
const RECOVERY: Duration = Duration::from_secs(10);

#[test]
fn tables_are_brought_up_to_date_apart_and_readiness_follows_the_database() {
    let mut postgres = Postgres::start().unwrap();
    postgres.create_database("shop").unwrap();
    let url = postgres.url("shop");
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys").display().to_string();
    let serve = ["serve", "--dev", "--listen", "127.0.0.1:0", "--auto-migrate=false", "--database-url", &url];

    // A developer's keys would be gone with the process, and with them all that it has stored.
    let refused = failure(&throughline(&serve).output().unwrap());
    assert!(refused.contains("--keys-file"), "{refused}");
    assert!(throughline(&["keys", "generate", "--keys-file", &keys]).output().unwrap().status.success());
    let serve = [&serve[..], &["--keys-file", &keys]].concat();
    let refused = failure(&throughline(&serve).output().unwrap());
    assert!(refused.contains("throughline migrate"), "{refused}");
    let migrate = || {
        let output = throughline(&["migrate", "--json", "--database-url", &url]).output().unwrap();
        let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        outcome["applied"].as_array().unwrap().len()
    };
    let (first, second) = (migrate(), migrate());
    assert!(first > 0 && second == 0, "{first}, then {second}");

    let mut process = throughline(&serve).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut server = Server { process, lines, folder };
    server.line();
    let line = server.line();
    let is_ready = || request(address(&line), "/readyz", "").starts_with("HTTP/1.1 200");
    assert!(is_ready());
    postgres.stop_fast().unwrap();
    assert!(!is_ready());
    postgres.start_again().unwrap();
    let deadline = Instant::now() + RECOVERY;
    while !is_ready() {
        assert!(Instant::now() < deadline, "it does not find its database again");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(server.stop().0.success());
}

#[test]
fn the_password_in_an_address_is_never_printed() {
    for url in ["postgres://ada:hunter2@127.0.0.1:1/shop", "postgres://ada:hunter2@", "mysql://ada:hunter2@db/shop"] {
        for command in ["serve", "migrate"] {
            let mut command = throughline(&[command, "--database-url", url]);
            let output = command.env("THROUGHLINE_DEV", "true").output().unwrap();
            let said = failure(&output) + &String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("error: ") && !said.contains("hunter2"), "{said}");
        }
    }
}
