//! The requirements of OWASP ASVS that docs/security.md lists: that each is shown by a test which has its name, and those of them
//! that are shown nowhere else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hkdf::Hkdf;
use pasetors::keys::SymmetricKey;
use pasetors::version4::{LocalToken, V4};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use throughline_server::keys::ring_text::RingText;
use throughline_server::keys::{KeyRing, RootKey};
use throughline_server::token::{Purpose, TokenError, TokenIssuer};

use super::binary::*;
use super::fleets::LONG;

/// Each has a row in the table, and there a test whose name begins with it, or in bold letters why there is none.
const REQUIREMENTS: &str = "2.3.1 2.3.3 2.4.1 3.3.1 3.3.2 3.3.3 3.3.4 3.3.5 3.4.1 3.4.2 3.4.3 3.4.4 3.4.5 3.4.6 3.5.1 3.5.2 3.5.3 4.1.3 4.4.1 4.4.2 4.4.3 4.4.4 7.1.1 7.1.2 7.2.1 \
    7.2.3 7.2.4 7.3.1 7.3.2 7.4.1 7.4.2 7.4.5 7.5.2 8.2.2 8.3.2 9.1.1 9.1.2 9.1.3 9.2.1 9.2.2 9.2.3 9.2.4 11.2.2 11.3.4 11.5.1 13.1.2 13.2.6 13.3.1 13.3.4 \
    14.2.1 14.2.2 14.2.7 14.3.1 14.3.2 14.3.3 15.3.3 15.4.1 15.4.2 16.2.1 16.2.2 16.2.5 16.3.1 16.3.2 16.3.3 16.4.1 16.4.2 16.4.3 \
    16.5.1 16.5.2 16.5.3 16.5.4";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of the table: what stands in the first column, and in the last one.
fn rows() -> Vec<(String, String)> {
    let document = read("docs/security.md");
    let (_, section) = document.split_once("## OWASP ASVS").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| ") && line.contains(|c: char| c.is_ascii_digit()));
    let cells = lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>());
    cells.map(|cells| (cells[0].to_owned(), (*cells.last().unwrap()).to_owned())).collect()
}

/// The tests that a cell names: the file of each, and what it is called there.
fn named(cell: &str) -> Vec<(String, String)> {
    let quoted = cell.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::"));
    let file = |place: &str| match place {
        place if place.starts_with("crates/") || place.starts_with("tests/") => place.to_owned(),
        place if place.contains('/') => format!("crates/server/{place}"),
        place => format!("crates/server/tests/server/{place}.rs"),
    };
    quoted.map(|(place, name)| (file(place), name.to_owned())).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn each_requirement_has_a_test_that_is_there_and_has_its_name() {
    let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (id, cell) in rows() {
        for (file, name) in named(&cell) {
            let text = std::fs::read_to_string(repository().join(&file)).unwrap_or_default();
            let is_there = text.contains(&format!("fn {name}(")) || text.contains(&format!("test('{name}'"));
            if !is_there {
                wrong.push(format!("{id}: there is no test {name} in {file}"));
            }
            shown.entry(id.clone()).or_default().push(name);
        }
        if cell.contains("**") {
            shown.entry(id).or_default().push(cell);
        }
    }
    for id in REQUIREMENTS.split(' ') {
        let function = format!("asvs_{}_", id.replace('.', "_"));
        let is_own = |name: &String| {
            name.starts_with(&function) || name.starts_with(&format!("ASVS {id} ")) || name.starts_with("**")
        };
        if !shown.get(id).is_some_and(|names| names.iter().any(is_own)) {
            wrong.push(format!("{id}: no row with a test {function}…, and no reason for that"));
        }
    }
    // What has a requirement's name is what the table leads to.
    let mut files = Vec::new();
    sources(&repository().join("crates"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let functions = text.lines().map(str::trim_start).filter(|line| !line.contains('"'));
        let functions = functions.filter_map(|line| line.split_once("fn asvs_")?.1.split_once('('));
        for (rest, _) in functions {
            let name = format!("asvs_{rest}");
            if !shown.values().flatten().any(|shown| *shown == name) {
                wrong.push(format!("{name} in {} is not in the table", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/security.md:\n{}", wrong.join("\n"));
}

/// The row of an option in the reference of the configuration.
fn documented(option: &str) -> String {
    let reference = read("docs/configuration.md");
    let row = reference.lines().find(|line| line.starts_with(&format!("| `{option}`<br>")));
    row.unwrap_or_else(|| panic!("{option} is not documented")).to_owned()
}

/// That options are documented with what holds without them.
fn are_documented<'a>(options: impl Iterator<Item = &'a str>) -> usize {
    let defaults = read("crates/server/src/config/defaults.toml");
    let check = |option: &str| {
        let name = option.trim_start_matches("--").replace('-', "_");
        let value = defaults.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
        let value = value.unwrap_or_else(|| panic!("{option} has no default")).trim_matches('"');
        let row = documented(option);
        assert!(row.contains(&format!("| `{value}` |")), "{row} does not say {value}");
    };
    options.map(check).count()
}

#[test]
fn asvs_7_1_1_how_long_a_session_is_good_is_documented() {
    are_documented(["--token-ttl", "--token-max-age", "--idle-timeout"].into_iter());
}

#[test]
fn asvs_7_1_2_how_many_at_once_is_documented() {
    let counted = ["--max-sockets-per-session", "--max-connections-per-address", "--session-creations-per-minute"];
    are_documented(counted.into_iter());
}

#[test]
fn asvs_13_1_2_every_limit_is_documented() {
    let defaults = read("crates/server/src/config/defaults.toml");
    let limits = ["max_", "limit", "timeout", "connections", "per_minute", "queue", "batch", "writers", "memory"];
    let names = defaults.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let names = names.filter(|name| limits.iter().any(|limit| name.contains(limit)));
    let options: Vec<String> = names.map(|name| format!("--{}", name.replace('_', "-"))).collect();
    assert!(are_documented(options.iter().map(String::as_str)) > 20, "{options:?}");
    for (option, becomes) in
        [("--max-connections", "more wait"), ("--max-requests", "503"), ("--backlog-limit", "waits")]
    {
        assert!(documented(option).contains(becomes), "what becomes of more than {option}");
    }
}

fn client() -> Client {
    Client::builder().timeout(LONG).build().unwrap()
}

async fn outcome(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap_or_default())
}

/// A session: its id and its token.
async fn session(dev: &Dev) -> (String, String) {
    let request = client().post(format!("http://{}/v1/sessions", dev.address)).json(&json!({}));
    let (_, created) = outcome(request).await;
    (created["session"]["id"].as_str().unwrap().to_owned(), created["token"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn asvs_9_1_2_a_token_that_names_another_algorithm_is_refused() {
    let dev = dev(&[]);
    let (id, token) = session(&dev).await;
    let read = |token: &str| client().get(format!("http://{}/v1/sessions/{id}", dev.address)).bearer_auth(token);
    assert_eq!(outcome(read(&token)).await.0, 200);
    let sealed = token.strip_prefix("v4.local.").expect("one algorithm");
    for other in ["v1.local.", "v2.local.", "v3.local.", "v4.public.", "V4.local.", "v4.LOCAL.", "none.", ""] {
        let (status, problem) = outcome(read(&format!("{other}{sealed}"))).await;
        assert_eq!((status.as_u16(), &problem["code"]), (401, &json!("tokenMalformed")), "{other}");
    }
    // {"alg":"none"} . {"sub":"a"} .
    let (status, _) = outcome(read("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.")).await;
    assert_eq!(status, 401);
}

#[test]
fn asvs_9_2_3_a_token_for_another_audience_is_refused_although_it_was_made_with_our_key() {
    let bytes = [7_u8; 32];
    let text = format!("tlr_{}", base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes));
    let issuer = TokenIssuer::new(KeyRing::of(RingText::parse(&text).unwrap()).unwrap());
    let mut secret = [0; 32];
    Hkdf::<Sha256>::new(None, &bytes).expand(b"throughline/1/token", &mut secret).unwrap();
    let secret = SymmetricKey::<V4>::from(&secret).unwrap();
    let footer = json!({ "kid": RootKey::parse(&text, None).unwrap().id() }).to_string();
    let told = |audience: &str| {
        let claims = json!({ "aud": audience, "purpose": "browser", "tenant": "default", "sub": "ws_loyw3v28_0123456789",
            "iat": "2026-11-20T09:00:00.000Z", "exp": "2026-11-20T09:30:00.000Z", "jti": "AAAAAAAAAAAAAAAAAAAAAA", "fam": "AAAAAAAAAAAAAAAAAAAAAA", "renewals": 0,
            "ends": "2026-11-21T09:00:00.000Z", "gen": 0 });
        let assertion = b"throughline-session-token-3";
        let token =
            LocalToken::encrypt(&secret, claims.to_string().as_bytes(), Some(footer.as_bytes()), Some(assertion));
        issuer.verify(&token.unwrap(), Purpose::Browser, 1_795_165_200_000).map(drop)
    };
    assert_eq!(told("throughline"), Ok(()), "it is the audience alone");
    assert_eq!(told("another"), Err(TokenError::WrongAudience));
}

#[tokio::test]
async fn asvs_14_2_1_a_token_in_an_address_lets_nobody_in_and_is_not_logged() {
    let mut dev = dev(&["--log", "trace"]);
    let (id, token) = session(&dev).await;
    for name in ["token", "access_token", "authorization", "key"] {
        for secret in [&token, &dev.service_key] {
            let read = format!("http://{}/v1/sessions/{id}?{name}={secret}", dev.address);
            assert_eq!(outcome(client().get(read)).await.0, 401, "{name}");
            let hello =
                json!({ "type": "hello", "protocol": 1, "sessionId": id, "clientId": "client", "knownVersion": 0 });
            let poll = client().post(format!("http://{}/v1/sync?{name}={secret}", dev.address));
            let (_, answer) = outcome(poll.json(&json!({ "frames": [hello] }))).await;
            assert!(!answer.to_string().contains("welcome"), "{name}: {answer}");
        }
    }
    assert!(dev.server.stop().0.success());
    let log = dev.server.log();
    assert!(
        log.contains("authentication refused") && !log.contains(&token) && !log.contains(&dev.service_key),
        "{log}"
    );
}

#[tokio::test]
async fn asvs_16_4_1_nobody_writes_lines_into_the_log() {
    let mut dev = dev(&["--log", "trace"]);
    let url = format!("http://{}", dev.address);
    for path in ["/nowhere%0aforged%20line", "/v1/sessions/ws_1%0d%0aforged", "/v1/sessions?email=forged%0aforged"] {
        let request = client().get(format!("{url}{path}")).bearer_auth(&dev.service_key);
        assert!(!outcome(request).await.0.is_server_error());
    }
    for header in ["x-request-id", "user-agent", "origin", "x-forwarded-for", "authorization", "idempotency-key"] {
        let request = client().post(format!("{url}/v1/sessions")).header(header, "forged\tline");
        let answer = request.json(&json!({ "forged\nline": "forged\nline" })).send().await.unwrap();
        assert!(!answer.status().is_server_error(), "{header}");
    }
    assert!(dev.server.stop().0.success());
    let log = dev.server.log();
    assert!(log.contains("stopped") && !log.contains("forged"), "{log}");
}
