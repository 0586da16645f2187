//! The headers that every kind of answer has.

use super::binary::*;

const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// A server as in production, with its address and a service key.
fn production() -> (Server, String, String) {
    let output = throughline(&["keys", "generate", "--operator"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let tokens = write(&folder, "token-key", &value("THROUGHLINE_KEYS="));
    let hashes = write(&folder, "hashes", &value("THROUGHLINE_SERVICE_KEY_HASHES="));
    let key = value("# service key, give it to the shop's back end: ");
    let more = ["--keys-file", &tokens, "--service-key-hashes-file", &hashes];
    let mut server = start(folder, &[&more[..], &["--allowed-origins", "https://shop.example"]].concat());
    let address = address(&server.line()).to_owned();
    (server, address, key)
}

/// Everything but what closes the connection, which an upgrade must not ask for.
fn asked(address: &str, line: &str, headers: &str) -> String {
    let wants_upgrade = headers.contains("upgrade: websocket");
    let connection = if wants_upgrade { "connection: upgrade" } else { "connection: close" };
    let bytes = format!("{line} HTTP/1.1\r\nhost: t\r\n{connection}\r\n{headers}\r\n");
    if !wants_upgrade {
        return raw(address, bytes.as_bytes());
    }
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

const UPGRADE: &str = "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       sec-websocket-protocol: throughline.v1\r\n";

/// Asks for every kind of answer, and has each looked at: what was asked for, and the answer.
fn look_at_every_kind_of_answer(look: impl Fn(&str, &str)) {
    let (mut server, address, key) = production();
    let key = format!("authorization: Bearer {key}\r\n");
    let preflight = "origin: https://shop.example\r\naccess-control-request-method: POST\r\n";
    let foreign = "origin: https://evil.example\r\naccess-control-request-method: POST\r\n";
    let compressed = "content-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n";
    let long = format!("GET /{}", "x".repeat(8200));
    let many: String = (0..70).map(|number| format!("x-{number}: y\r\n")).collect();
    for (status, line, headers) in [
        (200, "GET /livez", ""),
        (200, "GET /readyz", ""),
        (200, "GET /metrics", key.as_str()),
        (200, "GET /v1/funnels/default", ""),
        (200, "GET /v1/cache", key.as_str()),
        (200, "HEAD /v1/cache", key.as_str()),
        (200, "GET /openapi.json", ""),
        (200, "GET /docs/", ""),
        (200, "GET /docs/problems", ""),
        (303, "GET /docs", ""),
        (200, "OPTIONS /v1/sessions", preflight),
        (200, "OPTIONS /v1/sessions", foreign),
        (401, "GET /v1/sessions", ""),
        (401, "GET /metrics", ""),
        (404, "GET /nowhere", ""),
        (404, "GET /v1/nowhere", ""),
        (404, "GET /v1/sessions/ws_1_a", key.as_str()),
        (405, "DELETE /v1/sessions", ""),
        (414, long.as_str(), ""),
        (415, "POST /v1/sessions", compressed),
        (422, "POST /v1/sessions", "content-type: application/json\r\ncontent-length: 2\r\n\r\n[]"),
        (431, "GET /livez", many.as_str()),
        (400, "GET /v1/sync", ""),
        (101, "GET /v1/sync", UPGRADE),
    ] {
        // Where a body is among the headers, nothing may follow it.
        let answer = asked(&address, line, headers);
        let short: String = answer.chars().take(600).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status} is expected of {line}\n{short}");
        look(line, &answer);
    }
    assert!(server.stop().0.success());
}

/// That every kind of answer has this header with this value.
fn every_answer_has(name: &str, value: &str) {
    look_at_every_kind_of_answer(|line, answer| assert_eq!(header_of(answer, name), Some(value), "{line}: {name}"));
}

#[test]
fn asvs_3_4_1_every_answer_asks_for_tls_from_then_on() {
    every_answer_has("strict-transport-security", "max-age=31536000; includeSubDomains");
}

#[test]
fn asvs_3_4_3_every_answer_says_that_nothing_may_be_loaded() {
    look_at_every_kind_of_answer(|line, answer| {
        let policy = header_of(answer, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("script-src 'unsafe"), "{line}: {policy}");
        let is_page = line.contains(" /docs") || line.contains("openapi");
        assert_eq!(policy == POLICY, !is_page, "{line}: {policy}");
    });
}

#[test]
fn asvs_3_4_4_every_answer_is_what_it_says_it_is() {
    every_answer_has("x-content-type-options", "nosniff");
}

#[test]
fn asvs_3_4_5_no_answer_lets_addresses_be_told_to_others() {
    every_answer_has("referrer-policy", "no-referrer");
}

#[test]
fn asvs_3_4_6_no_answer_may_be_framed() {
    look_at_every_kind_of_answer(|line, answer| {
        let policy = header_of(answer, "content-security-policy").unwrap();
        assert!(policy.contains("frame-ancestors 'none'"), "{line}: {policy}");
        assert_eq!(header_of(answer, "x-frame-options"), Some("DENY"), "{line}");
    });
}

#[test]
fn asvs_14_3_2_no_answer_with_data_is_stored() {
    look_at_every_kind_of_answer(|line, answer| {
        if line.contains(" /v1/") {
            assert_eq!(header_of(answer, "cache-control"), Some("no-store"), "{line}");
        }
    });
}

#[test]
fn every_answer_has_an_id_for_the_log() {
    look_at_every_kind_of_answer(|line, answer| assert!(header_of(answer, "x-request-id").is_some(), "{line}"));
}

#[test]
fn what_cannot_be_served_has_them_too() {
    // One place, and a request that keeps it: the next is told 503.
    let dev = dev(&["--max-requests", "1", "--request-timeout", "2s"]);
    let late = raw(
        &dev.address,
        b"POST /v1/sessions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    );
    assert!(late.starts_with("HTTP/1.1 408"), "{late}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("content-security-policy", POLICY),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(header_of(&late, name), Some(value), "{late}");
    }
    assert_eq!(header_of(&late, "strict-transport-security"), None, "not on a developer's machine: {late}");
}
