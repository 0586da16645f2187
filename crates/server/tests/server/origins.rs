//! Which web pages may talk to the server: only those of listed origins, whatever looks like one.

use super::binary::*;

const LISTED: [&str; 2] = ["https://shop.example", "http://127.0.0.1:5173"];

/// What a browser, or somebody who pretends to be one, could send in the name of another origin.
const OTHERS: [&str; 20] = [
    "null",
    "",
    "*",
    "https://shop.example.evil.example",
    "https://evilshop.example",
    "https://evil.example/https://shop.example",
    "https://evil.example?https://shop.example",
    "https://sub.shop.example",
    "https://shop.exampl",
    "https://shop.example.",
    "https://shop.example/",
    "http://shop.example",
    "https://shop.example:443",
    "https://shop.example:8443",
    "HTTPS://SHOP.EXAMPLE",
    "https://Shop.example",
    "https://shop.example@evil.example",
    "https://user@shop.example",
    "https://shop.example, https://evil.example",
    "http://127.0.0.1",
];

const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: throughline.v1\r\n";

/// The head of the answer.
fn head(address: &str, line: &str, headers: &str, body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    write!(stream, "{line} HTTP/1.1\r\nhost: t\r\n{headers}\r\n{body}").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

const TWICE: &str = "origin: https://shop.example\r\norigin: https://evil.example\r\n";

const ALLOWED: &str = "access-control-allow-origin";

#[test]
fn asvs_3_4_2_pages_of_listed_origins_alone_are_let_in() {
    let dev = dev(&["--allowed-origins", &LISTED.join(",")]);
    let preflight = |origin: &str| {
        let asks = "access-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n";
        head(&dev.address, "OPTIONS /v1/sessions", &format!("{origin}{asks}"), "")
    };
    let request = |origin: &str| head(&dev.address, "GET /v1/funnels/default", origin, "");
    let poll = |origin: &str| {
        let body = r#"{"frames":[]}"#;
        let headers = format!("{origin}content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        head(&dev.address, "POST /v1/sync", &headers, body)
    };
    for listed in LISTED {
        let origin = format!("origin: {listed}\r\n");
        for answer in [preflight(&origin), request(&origin), poll(&origin)] {
            assert_eq!((status(&answer), header_of(&answer, ALLOWED)), (200, Some(listed)), "{answer}");
            assert_eq!(header_of(&answer, "access-control-allow-credentials"), Some("true"), "{answer}");
        }
        assert_eq!(
            header_of(&preflight(&origin), "access-control-allow-headers").map(|list| list.contains('*')),
            Some(false)
        );
    }
    for other in OTHERS {
        let origin = format!("origin: {other}\r\n");
        for answer in [preflight(&origin), request(&origin), poll(&origin)] {
            assert_eq!(header_of(&answer, ALLOWED), None, "{other}: {answer}");
            assert!(header_of(&answer, "vary").is_some_and(|vary| vary.contains("origin")), "{other}: {answer}");
        }
        // What CORS does not protect is refused, and not only hidden.
        assert_eq!(status(&poll(&origin)), 403, "{other}");
    }
    assert_eq!(status(&poll(TWICE)), 403);
    // No browser leaves it out where it matters: whoever does is a program, and needs a credential like everybody.
    assert_eq!((status(&poll("")), header_of(&request(""), ALLOWED)), (200, None));
}

#[test]
fn asvs_4_4_2_sockets_open_for_pages_of_listed_origins_alone() {
    let dev = dev(&["--allowed-origins", &LISTED.join(",")]);
    let upgrade = |origin: &str| head(&dev.address, "GET /v1/sync", &format!("{origin}{UPGRADE}"), "");
    for listed in LISTED {
        assert_eq!(status(&upgrade(&format!("origin: {listed}\r\n"))), 101, "{listed}");
    }
    for other in OTHERS {
        let answer = upgrade(&format!("origin: {other}\r\n"));
        assert_eq!((status(&answer), header_of(&answer, ALLOWED)), (403, None), "{other}: {answer}");
        assert!(header_of(&answer, "vary").is_some_and(|vary| vary.contains("origin")), "{other}: {answer}");
    }
    assert_eq!(status(&upgrade(TWICE)), 403);
    assert_eq!(status(&upgrade("")), 101, "a program: it needs a credential like everybody");
}

#[test]
fn without_a_list_no_page_is_let_in() {
    let dev = dev(&[]);
    for origin in ["https://shop.example", "null", "http://127.0.0.1"] {
        let origin = format!("origin: {origin}\r\n");
        let answer = head(&dev.address, "GET /v1/funnels/default", &origin, "");
        assert_eq!(header_of(&answer, ALLOWED), None, "{answer}");
        assert_eq!(status(&head(&dev.address, "GET /v1/sync", &format!("{origin}{UPGRADE}"), "")), 403);
    }
}
