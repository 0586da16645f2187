//! Started and stopped as an operator would.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::binary::*;

#[test]
fn without_keys_the_server_refuses_to_start_and_says_how_to_make_them() {
    let text = failure(&throughline(&["serve", "--listen", "127.0.0.1:0"]).output().unwrap());
    assert!(text.contains("throughline keys generate"), "{text}");
    assert!(text.contains("THROUGHLINE_KEYS"), "{text}");
}

#[test]
fn in_development_the_server_makes_a_key_and_prints_it() {
    let mut server = start(tempfile::tempdir().unwrap(), &["--dev"]);
    let line = server.line();
    let key = line.strip_prefix("dev service key: ").unwrap().to_owned();
    assert!(key.starts_with("tls_"));
    let line = server.line();
    let ready = request(address(&line), "/readyz", "");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.contains(r#""database":{"status":"up""#), "{ready}");
    assert!(server.folder.path().join("data/t.db").exists(), "the folder was created");
    let (status, took) = server.stop();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}

#[test]
fn switches_are_understood_in_the_environment_too() {
    for (value, on) in [("1", true), ("true", true), ("0", false), ("no", false)] {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", folder.path().join("t.db").display());
        let mut command = throughline(&["serve", "--listen", &address, "--database-url", &database]);
        let text = failure(&command.env("THROUGHLINE_DEV", value).output().unwrap());
        assert_eq!(text.contains("cannot listen"), on, "{value}: {text}");
        assert_eq!(text.contains("there is no key ring"), !on, "{value}: {text}");
    }
}

#[test]
fn generated_keys_start_a_server_that_knows_them() {
    let output = throughline(&["keys", "generate"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let tokens = write(&folder, "keys", &value("THROUGHLINE_KEYS="));
    let hashes = write(&folder, "hashes", &value("THROUGHLINE_SERVICE_KEY_HASHES="));
    let key = value("# service key, give it to the shop's back end: ");
    let mut server = start(folder, &["--keys-file", &tokens, "--service-key-hashes-file", &hashes]);
    let line = server.line();
    let refused = request(address(&line), "/metrics", "");
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    let header = format!("authorization: Bearer {key}\r\n");
    let scraped = request(address(&line), "/metrics", &header);
    assert!(scraped.starts_with("HTTP/1.1 200"), "{scraped}");
}

#[test]
fn generated_keys_are_also_printed_as_json() {
    let output = throughline(&["keys", "generate", "--tenant", "shop-a", "--json"]).output().unwrap();
    let keys: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(keys["keys"].as_str().unwrap().starts_with("tlr_"));
    assert!(keys["serviceKeyHash"].as_str().unwrap().starts_with("shop-a=sha256:"));
}

#[test]
fn a_wrong_configuration_file_is_explained_by_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.toml", "listen = \"127.0.0.1:0\"\nlissten = 1\n");
    let text = failure(&throughline(&["serve", "--config", &file]).output().unwrap());
    assert!(text.contains("line 2") && text.contains("lissten"), "{text}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    // Each of them names a port that is taken, so that the refusal tells which one was used.
    let taken: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = taken.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "t.toml", &format!("listen = \"{}\"\n", addresses[0]));
    let database = format!("sqlite:{}", folder.path().join("t.db").display());
    let refusal = |environment: Option<&str>, flag: Option<&str>| {
        let mut command = throughline(&["serve", "--dev", "--config", &file, "--database-url", &database]);
        command.envs(environment.map(|address| ("THROUGHLINE_LISTEN", address)));
        if let Some(address) = flag {
            command.args(["--listen", address]);
        }
        failure(&command.output().unwrap())
    };
    assert!(refusal(None, None).contains(&addresses[0]));
    assert!(refusal(Some(&addresses[1]), None).contains(&addresses[1]));
    assert!(refusal(Some(&addresses[1]), Some(&addresses[2])).contains(&addresses[2]));
}

#[test]
fn a_client_that_never_finishes_its_head_is_cut_off() {
    let mut server = start(tempfile::tempdir().unwrap(), &["--dev", "--header-timeout", "300ms"]);
    server.line();
    let line = server.line();
    let mut silent = TcpStream::connect(address(&line)).unwrap();
    let mut slow = TcpStream::connect(address(&line)).unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\nx-").unwrap();
    for stream in [&mut silent, &mut slow] {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
}

#[test]
fn connections_of_one_address_are_bounded() {
    let mut server = start(tempfile::tempdir().unwrap(), &["--dev", "--max-connections-per-address", "2"]);
    server.line();
    let line = server.line();
    let held: Vec<_> = (0..2).map(|_| TcpStream::connect(address(&line)).unwrap()).collect();
    // They are accepted in the order in which they came.
    let mut refused = TcpStream::connect(address(&line)).unwrap();
    refused.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(refused.read(&mut [0; 1]).unwrap_or(0), 0, "closed without a word");
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !try_request(address(&line), "/livez").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        assert!(Instant::now() < deadline, "the places were not given back");
    }
}

#[test]
fn an_idle_connection_does_not_hold_up_a_stop() {
    let mut server = start(tempfile::tempdir().unwrap(), &["--dev", "--shutdown-grace", "30s"]);
    server.line();
    let line = server.line();
    let mut idle = TcpStream::connect(address(&line)).unwrap();
    write!(idle, "GET /livez HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    assert!(idle.read(&mut [0; 64]).unwrap() > 0);
    let (status, took) = server.stop();
    assert!(status.success() && took < Duration::from_secs(20), "{status} after {took:?}");
}

#[test]
fn a_second_server_on_the_same_port_is_told_so() {
    let mut server = start(tempfile::tempdir().unwrap(), &["--dev"]);
    server.line();
    let line = server.line();
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("t.db").display());
    let arguments = ["serve", "--dev", "--listen", address(&line), "--database-url", database.as_str()];
    let text = failure(&throughline(&arguments).output().unwrap());
    assert!(text.contains("--listen"), "{text}");
}

#[test]
fn a_server_that_drains_serves_and_says_that_it_is_not_ready() {
    let mut server = start(tempfile::tempdir().unwrap(), &["--dev", "--drain-delay", "2s"]);
    server.line();
    let line = server.line();
    let address = address(&line);
    let url = format!("http://{address}");
    let health = || throughline(&["healthcheck", "--server", &url]).output().unwrap();
    let ready = health();
    assert!(ready.status.success(), "{}", failure(&ready));
    assert!(String::from_utf8_lossy(&ready.stdout).contains(r#""status":"ready""#));
    let mut kept = TcpStream::connect(address).unwrap();
    kept.set_read_timeout(Some(Duration::from_secs(10))).unwrap();

    let started = Instant::now();
    let id = server.process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(1);
    while !request(address, "/readyz", "").starts_with("HTTP/1.1 503") {
        assert!(Instant::now() < deadline, "it does not say that it drains");
    }
    let said = failure(&health());
    assert!(said.contains("is not ready") && said.contains("draining"), "{said}");
    // What comes is answered, and then the connection ends, whoever would have kept it.
    write!(kept, "GET /livez HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && header_of(&answer, "connection") == Some("close"), "{answer}");
    assert!(server.process.wait().unwrap().success());
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    let said = failure(&health());
    assert!(said.contains("can't be reached"), "{said}");
}

#[test]
fn what_anybody_can_cause_does_not_fill_the_log() {
    let Dev { mut server, address, service_key } = dev(&[]);
    for _ in 0..100 {
        assert!(request(&address, "/v1/sessions", "").starts_with("HTTP/1.1 401"));
    }
    let metrics = request(&address, "/metrics", &format!("authorization: Bearer {service_key}\r\n"));
    assert!(metrics.contains("throughline_authentication_refusals_total{code=\"credentialMissing\"} 100"), "{metrics}");
    let written = server.log().matches("authentication refused").count();
    let withheld = format!("throughline_log_lines_withheld_total {}", 100 - written);
    assert!((20..60).contains(&written) && metrics.contains(&withheld), "{written}; {metrics}");
    assert!(server.stop().0.success());
    assert!(server.log().contains("stopped"), "other lines are still written: {}", server.log());
}
