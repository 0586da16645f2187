//! `examples/deployment`: what can be said of it without a cluster, and without a Docker engine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args as _;
use serde_json::Value;
use throughline_server::config::{Config, ServeOptions};
use throughline_test_services::haproxy::HaProxy;

use super::binary::*;

/// What a stopping server needs beside its drain delay and its grace time: what is on its way to the database.
const WRITING: Duration = Duration::from_secs(15);

/// Variables that are no option of `serve`: secrets, and what commands that ask a server use.
const OTHER_VARIABLES: [&str; 4] =
    ["THROUGHLINE_KEYS", "THROUGHLINE_SERVICE_KEY_HASHES", "THROUGHLINE_SERVER", "THROUGHLINE_SERVICE_KEY"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn example(file: &str) -> String {
    let file = root().join("examples/deployment").join(file);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn documents(file: &str) -> Vec<Value> {
    let text = example(file);
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// The documents of all files for Kubernetes.
fn manifests() -> Vec<Value> {
    let kustomization = &documents("kubernetes/kustomization.yaml")[0];
    let named = kustomization["resources"].as_array().unwrap().iter().map(|file| file.as_str().unwrap());
    let all = named.chain(["secrets.example.yaml", "migrate.yaml"]);
    all.flat_map(|file| documents(&format!("kubernetes/{file}"))).collect()
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    manifests.iter().find(|manifest| manifest["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// Whether the program takes these arguments. It reads all of them before it helps.
fn is_taken(arguments: &[&str]) -> Result<(), String> {
    let output = throughline(&[arguments, &["--help"]].concat()).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

/// What a file of options comes to.
fn resolved(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let config = Some(PathBuf::from(write(&folder, "throughline.toml", text)));
    Config::resolve(ServeOptions { config, ..ServeOptions::default() }).unwrap().0
}

fn needed(config: &Config) -> Duration {
    config.drain_delay + config.shutdown_grace + WRITING
}

fn seconds(text: &str) -> Duration {
    text.parse::<humantime::Duration>().unwrap().into()
}

#[test]
fn every_variable_in_the_examples_is_one_that_the_server_knows() {
    let options = ServeOptions::augment_args(clap::Command::new("serve"));
    let mut known: BTreeSet<String> = OTHER_VARIABLES.map(str::to_owned).into();
    known.extend(options.get_arguments().filter_map(|option| Some(option.get_env()?.to_str()?.to_owned())));
    let mut found = 0;
    for file in files(&root().join("examples/deployment")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("THROUGHLINE_") {
            let is_part = |character: char| character.is_ascii_uppercase() || character == '_';
            let name: String = text[at..].chars().take_while(|&character| is_part(character)).collect();
            assert!(known.contains(&name), "{}: {name} is no variable of the server", file.display());
            found += 1;
        }
    }
    assert!(found > 15, "only {found} were found");
}

#[test]
fn the_image_is_built_from_what_exists_and_runs_without_rights() {
    let text = example("docker/Dockerfile").replace("\\\n", " ");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let of =
        |instruction: &str| lines.iter().filter(move |words| words.first() == Some(&instruction)).collect::<Vec<_>>();
    assert_eq!(of("FROM").len(), 2, "one stage builds, the other one is what is left");
    let ignored = example("docker/Dockerfile.dockerignore");
    let let_in: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let mut copied = 0;
    for words in of("COPY").into_iter().filter(|words| !words[1].starts_with("--from")) {
        for source in &words[1..words.len() - 1] {
            assert!(root().join(source).exists(), "COPY {source}: there is no such thing");
            assert!(let_in.contains(source), "{source} is kept out by Dockerfile.dockerignore");
            copied += 1;
        }
    }
    assert!(copied >= 3, "{copied}");
    // Everything that cargo reads: the manifests of all members, and what they include.
    assert!(let_in.contains(&"crates"));
    assert_eq!(of("USER"), [&vec!["USER", "65532:65532"]]);
    let check = text.lines().find_map(|line| line.strip_prefix("HEALTHCHECK ")).unwrap();
    let command: Value = serde_json::from_str(check.split_once("CMD ").unwrap().1).unwrap();
    let command = words(&command);
    assert_eq!(command[0], "/usr/local/bin/throughline");
    is_taken(&command[1..]).unwrap();
    let entry: Vec<String> = serde_json::from_str(&of("ENTRYPOINT")[0][1..].join(" ")).unwrap();
    assert_eq!(entry, ["/usr/local/bin/throughline"]);
    let command: Value = serde_json::from_str(&of("CMD")[0][1..].join(" ")).unwrap();
    is_taken(&words(&command)).unwrap();
}

#[test]
fn the_composition_names_what_exists_and_waits_for_servers_that_stop() {
    let compose = &documents("compose/compose.yaml")[0];
    let services = compose["services"].as_object().unwrap();
    let of = |service: &str, what: &str| compose["services"][service][what].clone();
    let environment = of("server-1", "environment");
    let option = |name: &str| seconds(environment[name].as_str().unwrap());
    let needs = option("THROUGHLINE_DRAIN_DELAY") + option("THROUGHLINE_SHUTDOWN_GRACE") + WRITING;
    for server in ["server-1", "server-2"] {
        assert!(seconds(of(server, "stop_grace_period").as_str().unwrap()) >= needs, "{server} is killed too early");
        assert_eq!(of(server, "read_only"), true);
        is_taken(&words(&of(server, "command"))).unwrap();
        let address = of(server, "networks")["shop"]["ipv4_address"].as_str().unwrap().to_owned();
        let proxied = of("proxy", "environment")[server.to_uppercase().replace('-', "_")].clone();
        assert_eq!(proxied, format!("{address}:8787"), "the proxy's server is another one");
    }
    assert_eq!(environment["THROUGHLINE_TRUSTED_PROXIES"], of("proxy", "networks")["shop"]["ipv4_address"]);
    is_taken(&words(&of("migrate", "command"))).unwrap();
    let folder = root().join("examples/deployment/compose");
    let build = of("migrate", "build");
    let context = folder.join(build["context"].as_str().unwrap());
    assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file());
    let mounted = of("proxy", "volumes")[0].as_str().unwrap().split(':').next().unwrap().to_owned();
    assert!(folder.join(mounted).is_file());
    for (name, service) in services {
        let after: Vec<String> = match &service["depends_on"] {
            Value::Object(after) => after.keys().cloned().collect(),
            Value::Array(after) => after.iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
            _ => Vec::new(),
        };
        assert!(after.iter().all(|other| services.contains_key(other)), "{name} waits for {after:?}");
        for secret in service["secrets"].as_array().into_iter().flatten() {
            assert!(compose["secrets"][secret.as_str().unwrap()].is_object(), "{name}: there is no secret {secret}");
        }
    }
    let variables = example("compose/environment.example");
    for name in ["POSTGRES_PASSWORD", "ALLOWED_ORIGINS"] {
        assert!(
            example("compose/compose.yaml").contains(&format!("${{{name}:?")) && variables.contains(name),
            "{name}"
        );
    }
}

#[test]
fn the_manifests_fit_together_and_give_servers_the_time_that_they_need() {
    let manifests = manifests();
    let configuration = of_kind(&manifests, "ConfigMap")["data"]["throughline.toml"].as_str().unwrap();
    let config = resolved(configuration);
    let deployment = &of_kind(&manifests, "Deployment")["spec"];
    let pod = &deployment["template"]["spec"];
    let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
    assert!(grace >= needed(&config), "a pod is killed after {grace:?}, and needs {:?}", needed(&config));
    let container = &pod["containers"][0];
    is_taken(&words(&container["args"])).unwrap();
    let job = &of_kind(&manifests, "Job")["spec"]["template"]["spec"]["containers"][0];
    is_taken(&words(&job["args"])).unwrap();
    assert!(!config.database.auto_migrate, "the job brings the tables up to date");
    assert_eq!(job["image"], container["image"], "of one version");

    let readiness = &container["readinessProbe"];
    let number = |value: &Value| value.as_u64().unwrap();
    let noticed = (number(&readiness["periodSeconds"]) + number(&readiness["timeoutSeconds"]))
        * number(&readiness["failureThreshold"]);
    assert!(config.drain_delay >= Duration::from_secs(noticed), "nobody has noticed by then");
    assert_eq!(readiness["httpGet"]["path"], "/readyz");
    for probe in ["livenessProbe", "startupProbe"] {
        assert_eq!(container[probe]["httpGet"]["path"], "/livez", "{probe}");
    }
    assert_eq!(container["ports"][0]["containerPort"], config.listen.port());
    assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let labels = &deployment["template"]["metadata"]["labels"];
    assert_eq!(&deployment["selector"]["matchLabels"], labels);
    assert_eq!(&of_kind(&manifests, "Service")["spec"]["selector"], labels);
    let disruption = &of_kind(&manifests, "PodDisruptionBudget")["spec"];
    assert_eq!(&disruption["selector"]["matchLabels"], labels);
    assert!(number(&disruption["maxUnavailable"]) < number(&deployment["replicas"]));
    for spec in [pod, &of_kind(&manifests, "Job")["spec"]["template"]["spec"]] {
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    }

    // What is mounted is where the configuration looks for it, and is made by these files.
    let named = |kind: &str, name: &Value| {
        let found = manifests.iter().find(|manifest| manifest["kind"] == kind && &manifest["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}")).clone()
    };
    let keys = named("Secret", &pod["volumes"][1]["secret"]["secretName"]);
    let mount = container["volumeMounts"][1]["mountPath"].as_str().unwrap();
    let table: toml::Table = configuration.parse().unwrap();
    for option in ["keys_file", "service_key_hashes_file"] {
        let file = Path::new(table[option].as_str().unwrap());
        assert_eq!(file.parent().unwrap(), Path::new(mount), "{option}");
        assert!(keys["stringData"][file.file_name().unwrap().to_str().unwrap()].is_string(), "{option}");
    }
    named("ConfigMap", &pod["volumes"][0]["configMap"]["name"]);
    for from in [&container["envFrom"], &job["envFrom"]] {
        let addresses = named("Secret", &from[0]["secretRef"]["name"]);
        assert!(addresses["stringData"]["THROUGHLINE_DATABASE_URL"].is_string());
    }
}

#[test]
fn systemd_has_nothing_against_the_unit() {
    let unit = example("systemd/throughline.service");
    let setting = |name: &str| {
        let prefix = format!("{name}=");
        unit.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("no {name}")).to_owned()
    };
    let start = setting("ExecStart");
    let command: Vec<&str> = start.split(' ').collect();
    assert_eq!(command[0], "/usr/local/bin/throughline");
    is_taken(&command[1..]).unwrap();
    let config = resolved(&example("systemd/throughline.toml"));
    assert!(seconds(&setting("TimeoutStopSec")) >= needed(&config), "systemd kills it too early");

    let folder = tempfile::tempdir().unwrap();
    let here = unit.replace("/usr/local/bin/throughline", env!("CARGO_BIN_EXE_throughline"));
    let file = write(&folder, "throughline.service", &here);
    let analyze = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&file).output();
    let verified = analyze(&["verify", "--man=no"]).expect("systemd-analyze is there: `apt-get install systemd`");
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !said.contains("throughline.service:"), "{said}");
    // Of 100, where the least is best.
    let judged = analyze(&["security", "--offline=true", "--no-pager", "--threshold=20"]).unwrap();
    let said = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
}

#[test]
fn the_proxy_takes_its_configuration_with_a_certificate_too() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
    let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
    let certificate = write(&folder, "certificate.pem", &pem);
    let configuration = root().join("examples/deployment/proxy/haproxy.cfg");
    let judged = HaProxy::judge(&configuration, &[("CERTIFICATE", &certificate), ("LISTEN_TLS", "127.0.0.1:8443")]);
    judged.unwrap();
    let nobodys = [("CERTIFICATE", "/nowhere.pem"), ("LISTEN_TLS", "127.0.0.1:8443")];
    assert!(HaProxy::judge(&configuration, &nobodys).unwrap_err().to_string().contains("/nowhere.pem"));
}
