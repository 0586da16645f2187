//! `throughline privacy`: the rights of a buyer, carried out from a command line by a server that runs.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

use reqwest::Client;
use serde_json::{Value, json};

use super::binary::*;
use super::fleets::LONG;

const EMAIL: &str = "ada@example.com";

/// Runs `throughline privacy` with this key and this standard input.
fn privacy(key: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = throughline(&[&["privacy"], arguments].concat());
    command.env("THROUGHLINE_SERVICE_KEY", key);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that asks nothing may have ended before.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    process.wait_with_output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_str(&printed(output)).unwrap()
}

/// A server, its address as a URL, and the sessions of one buyer on it.
struct Shop {
    dev: Dev,
    url: String,
    ids: [String; 2],
}

impl Shop {
    async fn open() -> Self {
        let dev = dev(&[]);
        let url = format!("http://{}", dev.address);
        let new = async || {
            let answer = ask(&url, "/v1/sessions", &dev.service_key, json!({ "email": EMAIL })).await;
            answer["session"]["id"].as_str().unwrap().to_owned()
        };
        let ids = [new().await, new().await];
        Self { dev, url, ids }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        privacy(&self.dev.service_key, &[arguments, &["--server", &self.url]].concat(), input)
    }
}

async fn ask(url: &str, path: &str, key: &str, body: Value) -> Value {
    let client = Client::builder().timeout(LONG).build().unwrap();
    let answer = client.post(format!("{url}{path}")).bearer_auth(key).json(&body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.json().await.unwrap()
}

#[tokio::test]
async fn all_data_is_given_to_standard_output_or_into_a_file_that_only_its_owner_can_read() {
    let shop = Shop::open().await;
    let folder = tempfile::tempdir().unwrap();
    let address = write(&folder, "ada.txt", &format!("{EMAIL}\n"));
    let by_file = json_of(&shop.run(&["export", "--email-file", &address], ""));
    let by_input = json_of(&shop.run(&["export", "--email-file", "-"], EMAIL));
    for export in [by_file, by_input] {
        let mut found: Vec<&str> =
            export["sessions"].as_array().unwrap().iter().map(|one| one["session"]["id"].as_str().unwrap()).collect();
        found.sort_unstable();
        let mut expected: Vec<&str> = shop.ids.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(export["fields"].is_array(), "with what each is for");
    }
    let file = folder.path().join("ada.html").display().to_string();
    let into_file = ["export", "--session", &shop.ids[0], "--html", "--output", &file];
    assert!(printed(&shop.run(&into_file, "")).contains("readable for its owner alone"));
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains(EMAIL), "{page}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = failure(&shop.run(&into_file, ""));
    assert!(again.contains("not there yet"), "nothing is written over: {again}");
    let none = json_of(&shop.run(&["export", "--email-file", "-"], "nobody@example.com"));
    assert_eq!(none["sessions"], json!([]));
    for (arguments, input, why) in [
        (&["export", "--email-file", "-"][..], "ada@example.com\nbob@example.com", "on one line"),
        (&["export", "--email-file", "/nowhere/ada.txt"], "", "can't be read"),
        (&["export"], "", "--email-file"),
        (&["export", "--email-file", "-", "--session", "ws_1"], "", "--session"),
        (&["export", "--session", "../x"], "", "letters, digits"),
    ] {
        let refused = shop.run(arguments, input);
        let refused = failure(&refused);
        assert!(refused.contains(why), "{arguments:?}: {refused}");
        assert!(!refused.contains("bob@"), "no address is told: {refused}");
    }
}

#[tokio::test]
async fn an_erasure_asks_first_leaves_what_is_held_and_changes_nothing_the_second_time() {
    let shop = Shop::open().await;
    let folder = tempfile::tempdir().unwrap();
    let address = write(&folder, "ada.txt", EMAIL);
    let [free, held] = &shop.ids;
    let hold = ["hold", "--session", held, "--reason", "the invoice is kept", "--until", "2094-01-01T00:00:00Z"];
    let outcome = shop.run(&hold, "");
    assert_eq!(printed(&outcome), format!("the session {held} is held until 2094-01-01T00:00:00.000Z\n"));
    printed(&shop.run(&hold, ""));

    let erase = ["erase", "--email-file", &address];
    for answer in ["", "no\n", "y\n"] {
        let left = shop.run(&erase, answer);
        assert_eq!(left.status.code(), Some(1), "{answer:?}");
        let asked = told(&left);
        assert!(asked.contains(free) && asked.contains("last changed"), "{asked}");
        assert!(asked.contains(held) && asked.contains("held, stays: the invoice is kept"), "{asked}");
        assert!(asked.contains("nothing was erased"), "{asked}");
    }
    let export = json_of(&shop.run(&["export", "--session", free], ""));
    assert_eq!(export["sessions"][0]["session"]["email"], EMAIL, "nothing was erased");

    let in_part = shop.run(&erase, "yes\n");
    assert_eq!(in_part.status.code(), Some(3), "{}", told(&in_part));
    let lines = String::from_utf8(in_part.stdout).unwrap();
    assert!(lines.contains(&format!("{free}  erased, 2")), "{lines}");
    assert!(lines.contains(&format!("{held}  not erased: ")) && lines.contains("the invoice is kept"), "{lines}");
    let export = json_of(&shop.run(&["export", "--session", free], ""));
    assert_eq!(export["sessions"][0]["session"]["email"], Value::Null);

    let erased_at = |output: &Output| json_of(output)["sessions"][0]["erasedAt"].clone();
    let by_id = ["erase", "--session", free, "--yes", "--json"];
    let first = erased_at(&shop.run(&by_id, ""));
    assert!(first.is_string());
    assert_eq!(erased_at(&shop.run(&by_id, "")), first, "the same again changes nothing");

    assert!(printed(&shop.run(&["hold", "--session", held, "--end"], "")).contains("not held any more"));
    let rest = json_of(&shop.run(&["erase", "--email-file", "-", "--yes", "--json"], EMAIL));
    assert_eq!((&rest["isComplete"], rest["sessions"].as_array().unwrap().len()), (&json!(true), 1), "{rest}");
    let nothing = printed(&shop.run(&erase, ""));
    assert!(nothing.contains("nothing is left to erase"), "who is not there any more is not asked about: {nothing}");

    let mistyped = failure(&shop.run(&["erase", "--session", "ws_unknown", "--yes"], ""));
    assert!(mistyped.contains("nothing was erased") && mistyped.contains("ws_unknown"), "{mistyped}");
    let unknown = failure(&shop.run(&["hold", "--session", "ws_unknown", "--reason", "why"], ""));
    assert!(unknown.contains("sessionNotFound"), "{unknown}");
    let refused = failure(&shop.run(&["hold", "--session", free, "--reason", "too late"], ""));
    assert!(refused.contains("sessionErased") && refused.contains("refused again"), "{refused}");
    let both = failure(&shop.run(&["erase", "--email-file", "-"], EMAIL));
    assert!(both.contains("--yes"), "the input can't be the address and the answer: {both}");
}

#[tokio::test]
async fn who_may_not_and_who_is_not_there_are_told_of_with_what_mends_it() {
    let shop = Shop::open().await;
    let folder = tempfile::tempdir().unwrap();
    let reader = json!({ "name": "reader", "scopes": ["sessions:read"] });
    let reader = ask(&shop.url, "/v1/service-keys", &shop.dev.service_key, reader).await;
    let reader = reader["key"].as_str().unwrap();
    let about = ["--session", &shop.ids[0], "--server", &shop.url];
    let file = folder.path().join("ada.json");
    let output = file.display().to_string();
    for arguments in [&["export", "--output", &output][..], &["erase", "--yes"], &["hold", "--reason", "why"]] {
        let refused = failure(&privacy(reader, &[arguments, &about].concat(), ""));
        assert!(refused.contains("the scope privacy") && refused.contains("scopeMissing"), "{arguments:?}: {refused}");
        assert!(!refused.contains(reader));
    }
    assert!(!file.exists(), "no empty file is left");
    let unknown = failure(&privacy("tls_unknown", &[&["export"], &about[..]].concat(), ""));
    assert!(unknown.contains("credential") || unknown.contains("service key"), "{unknown}");

    // Where the key comes from.
    let key_file = write(&folder, "key", &format!("{}\n# shown this once\n", shop.dev.service_key));
    let by_file = [&["export", "--service-key-file", &key_file], &about[..]].concat();
    printed(&throughline(&[&["privacy"], &by_file[..]].concat()).output().unwrap());
    let both = failure(&privacy(reader, &by_file, ""));
    assert!(both.contains("keep the one that is meant"), "{both}");
    let none = throughline(&[&["privacy", "export"], &about[..]].concat()).output().unwrap();
    assert!(failure(&none).contains("--service-key-file"));
    let flag = failure(&privacy(reader, &[&["export", "--service-key", "tls_x"], &about[..]].concat(), ""));
    assert!(flag.contains("unexpected argument"), "a key is no flag: {flag}");

    // Nobody is there, and somebody else is.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = privacy(reader, &["erase", "--yes", "--session", "ws_1", "--server", &format!("http://{closed}")], "");
    assert_eq!(nobody.status.code(), Some(1));
    let nobody = told(&nobody);
    assert!(nobody.contains("can't be reached") && nobody.contains("is it running"), "{nobody}");
    let other = ["export", "--session", "ws_1", "--server", &format!("{}/livez", shop.url)];
    assert!(!privacy(&shop.dev.service_key, &other, "").status.success());
    let wrong = failure(&privacy(reader, &["export", "--session", "ws_1", "--server", "checkout.example"], ""));
    assert!(wrong.contains("https://checkout.example"), "{wrong}");
}

#[tokio::test]
async fn a_server_with_tls_is_asked_if_its_authority_is_believed() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let certificate = write(&folder, "certificate.pem", &made.cert.pem());
    let key = write(&folder, "key.pem", &made.signing_key.serialize_pem());
    let more = ["--dev", "--tls-certificate-file", &certificate, "--tls-key-file", &key];
    let mut server = start(tempfile::tempdir().unwrap(), &more);
    let service_key = server.line().strip_prefix("dev service key: ").unwrap().to_owned();
    let line = server.line();
    let port = line.rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}");
    let export = ["export", "--session", "ws_none", "--server", &url];
    let believed = json_of(&privacy(&service_key, &[&export[..], &["--ca-file", &certificate]].concat(), ""));
    assert_eq!(believed["sessions"], json!([]));
    let stranger = failure(&privacy(&service_key, &export, ""));
    assert!(stranger.contains("can't be reached") && stranger.contains("certificate"), "{stranger}");
    let no_certificate = failure(&privacy(&service_key, &[&export[..], &["--ca-file", &key]].concat(), ""));
    assert!(no_certificate.contains("BEGIN CERTIFICATE"), "{no_certificate}");
}
