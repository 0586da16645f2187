//! What people type: the story of a session, a measurement, and what helps to type.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Output, Stdio};

use serde_json::{Value, json};

use super::binary::*;
use super::fleets::LONG;

fn run(dev: &Dev, arguments: &[&str]) -> Output {
    let url = format!("http://{}", dev.address);
    let mut command = throughline(&[arguments, &["--server", &url]].concat());
    command.env("THROUGHLINE_SERVICE_KEY", &dev.service_key).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn ask(dev: &Dev, path: &str, body: Value) -> Value {
    let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
    let request = client.post(format!("http://{}{path}", dev.address)).bearer_auth(&dev.service_key).json(&body);
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.json().await.unwrap()
}

async fn new_session(dev: &Dev) -> String {
    ask(dev, "/v1/sessions", json!({})).await["session"]["id"].as_str().unwrap().to_owned()
}

async fn set_email(dev: &Dev, id: &str) {
    let commands = json!({ "commands": [{ "type": "setEmail", "email": "ada@example.com" }] });
    ask(dev, &format!("/v1/sessions/{id}/commands"), commands).await;
}

#[tokio::test]
async fn the_story_of_a_session_is_told_without_what_the_buyer_has_typed() {
    let dev = dev(&[]);
    let id = new_session(&dev).await;
    set_email(&dev, &id).await;
    let story = printed(&run(&dev, &["sessions", "show", &id]));
    for told in [id.as_str(), "pending", "created", "emailSet", "service"] {
        assert!(story.contains(told), "{told}: {story}");
    }
    assert!(!story.contains("ada@"), "{story}");
    let all: Value = serde_json::from_str(&printed(&run(&dev, &["sessions", "show", &id, "--json"]))).unwrap();
    assert_eq!(all["session"]["email"], "ada@example.com");
    assert_eq!(all["records"].as_array().unwrap().last().unwrap()["event"]["type"], "emailSet");

    let unknown = run(&dev, &["sessions", "show", "ws_mwor0dc0_f5l0000000000000000000009"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(failure(&unknown).contains("sessionNotFound"), "{}", failure(&unknown));
}

#[tokio::test]
async fn who_follows_a_session_hears_what_happens_to_it() {
    let dev = dev(&[]);
    let id = new_session(&dev).await;
    let url = format!("http://{}", dev.address);
    let [mut one, mut all] = [&[&id, "-n", "1"][..], &[]].map(|arguments| Following::start(&dev, &url, arguments));
    let begun = all.next();
    assert_eq!((&begun["id"], &begun["version"]), (&json!(id), &one.next()["version"]));
    set_email(&dev, &id).await;
    let (record, session) = (one.next(), all.next());
    assert_eq!(record["event"]["type"], "emailSet");
    assert_eq!((&session["id"], &session["version"]), (&json!(id), &record["version"]));
}

/// A command that goes on until it is ended.
struct Following {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(dev: &Dev, url: &str, arguments: &[&str]) -> Self {
        let follow = ["sessions", "tail", "--follow", "--json", "--server", url];
        let mut command = throughline(&[&follow, arguments].concat());
        command.env("THROUGHLINE_SERVICE_KEY", &dev.service_key).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_server_is_measured_for_as_long_and_as_much_as_wanted() {
    let dev = dev(&[]);
    let outcome = run(&dev, &["bench", "--seconds", "2", "--clients", "2", "--requests", "200", "--json"]);
    let outcome: Value = serde_json::from_str(&printed(&outcome)).unwrap();
    assert_eq!((&outcome["requests"], &outcome["failed"]), (&json!(200), &json!(0)), "{outcome}");
    for operation in outcome["operations"].as_array().unwrap() {
        assert!(operation["requests"].as_u64().unwrap() > 0 && operation["p50Ms"].as_f64().unwrap() > 0.0, "{outcome}");
    }
}

#[test]
fn a_server_elsewhere_is_only_loaded_by_who_says_that_it_is_theirs() {
    // Nobody is reached: it is refused before.
    let mut command = throughline(&["bench", "--server", "https://checkout.invalid"]);
    let output = command.env("THROUGHLINE_SERVICE_KEY", "tls_a").output().unwrap();
    assert!(failure(&output).contains("--i-own-this-server"), "{}", failure(&output));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man").display().to_string();
    printed(&throughline(&["man", "--out", &out]).output().unwrap());
    for command in ["serve", "sessions-tail", "bench", "erase"] {
        let page = std::fs::read_to_string(folder.path().join(format!("man/throughline-{command}.1"))).unwrap();
        assert!(page.contains(".TH"), "{command}: {page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&throughline(&["completions", shell]).output().unwrap());
        assert!(script.contains("sessions") && script.contains("bench"), "{shell}");
    }
}
