//! What servers measure, and the dashboard, alerts and runbook that are made for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde::Deserialize;
use serde_json::{Value, json};
use throughline_server::telemetry::catalogue::{Kind, METRICS};
use throughline_test_services::buyer::{Buyer, Identity};
use throughline_test_services::fleet::{Fleet, Node};

const RUNBOOK: &str = "https://github.com/throughline/throughline/blob/main/docs/operations/runbook.md#";

fn document(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Labels without the bound of a bucket, and the buckets: each bound and its count.
type Buckets = BTreeMap<Vec<(String, String)>, Vec<(f64, f64)>>;

/// A series: its labels, and its value.
type Series = (BTreeMap<String, String>, f64);

/// What a server answered, read by the rules of the text format.
#[derive(Debug, Default)]
struct Scrape {
    kinds: BTreeMap<String, String>,
    helped: BTreeSet<String>,
    samples: BTreeMap<String, Vec<Series>>,
}

impl Scrape {
    fn read(text: &str) -> Self {
        let mut scrape = Self::default();
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty() && scrape.helped.insert(name.to_owned()), "told twice: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(!scrape.samples.contains_key(name), "a sample before its type: {line}");
                assert!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "typed twice: {line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(seen.insert(series.to_owned()), "there twice: {series}");
                // A sample with its labels is a selector of itself.
                let Ok(Expr::VectorSelector(selector)) = parser::parse(series) else { panic!("no sample: {line}") };
                let labels = selector.matchers.matchers.iter();
                let labels = labels.filter(|label| label.name != "__name__");
                let labels = labels.map(|label| (label.name.clone(), label.value.clone())).collect();
                let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
                scrape.samples.entry(selector.name.unwrap()).or_default().push((labels, value));
            }
        }
        scrape
    }

    /// The metric that a sample belongs to: `…_bucket` to its histogram.
    fn family<'a>(&self, sample: &'a str) -> Option<&'a str> {
        if self.kinds.contains_key(sample) {
            return Some(sample);
        }
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.strip_suffix(end))?;
        self.kinds.get(family).is_some_and(|kind| kind == "histogram").then_some(family)
    }

    fn check_form(&self) {
        for (name, series) in &self.samples {
            let family = self.family(name).unwrap_or_else(|| panic!("{name} has no type"));
            assert!(self.helped.contains(family), "{family} has no help");
            assert!(series.iter().all(|(_, value)| !value.is_nan()), "{name}");
        }
        for (family, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            self.check_histogram(family);
        }
    }

    /// Buckets grow, and the last one has everything.
    fn check_histogram(&self, family: &str) {
        let mut buckets = Buckets::new();
        for (labels, value) in &self.samples[&format!("{family}_bucket")] {
            let bound = if labels["le"] == "+Inf" { f64::INFINITY } else { labels["le"].parse().unwrap() };
            let others = labels.clone().into_iter().filter(|(name, _)| name != "le").collect();
            buckets.entry(others).or_default().push((bound, *value));
        }
        for (labels, buckets) in buckets {
            assert!(buckets.is_sorted_by(|(a, n), (b, m)| a < b && n <= m), "{family} {labels:?}: {buckets:?}");
            let counts = &self.samples[&format!("{family}_count")];
            let count = counts.iter().find(|(of, _)| of.clone().into_iter().eq(labels.clone())).unwrap().1;
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{family} {labels:?}");
        }
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is_it = |of: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| of.get(*name).is_some_and(|has| has == value))
        };
        let found = self.samples.get(name).into_iter().flatten().filter(|(of, _)| is_it(of));
        found.map(|(_, value)| value).sum()
    }
}

async fn scrape(node: &Node) -> (String, Scrape) {
    let answer = reqwest::get(format!("http://{}/metrics", node.address)).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.unwrap();
    let scrape = Scrape::read(&text);
    (text, scrape)
}

/// Everything that an expression selects.
#[derive(Default)]
struct Selectors(Vec<VectorSelector>);

impl ExprVisitor for Selectors {
    type Error = String;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, String> {
        match expression {
            Expr::VectorSelector(selector) => self.0.push(selector.clone()),
            Expr::MatrixSelector(range) => self.0.push(range.vs.clone()),
            _ => {}
        }
        Ok(true)
    }
}

/// Checks that everything that the expression selects is there.
fn check_expression(place: &str, expression: &str, scrape: &Scrape) -> BTreeSet<String> {
    let expression = expression.replace("$__rate_interval", "5m");
    let parsed = parser::parse(&expression).unwrap_or_else(|error| panic!("{place}: {error}: {expression}"));
    let mut selectors = Selectors::default();
    walk_expr(&mut selectors, &parsed).unwrap();
    let mut used = BTreeSet::new();
    for selector in selectors.0 {
        let name = selector.name.clone().unwrap_or_else(|| panic!("{place}: a selector without a name"));
        // Made by Prometheus itself.
        if name == "up" {
            continue;
        }
        let series = scrape.samples.get(&name).unwrap_or_else(|| panic!("{place}: there is no {name}"));
        for label in &selector.matchers.matchers {
            // Added by Prometheus to each series.
            if ["job", "instance"].contains(&label.name.as_str()) {
                continue;
            }
            let mut values = series.iter().filter_map(|(labels, _)| labels.get(&label.name)).peekable();
            assert!(values.peek().is_some(), "{place}: {name} has no label {}", label.name);
            // Which statuses there were depends on what happened.
            let is_known = match &label.op {
                // What did not happen yet has to be among what the metric says of itself.
                MatchOp::Equal => values.any(|value| *value == label.value) || tells(&name, &label.value),
                MatchOp::Re(pattern) if label.name != "status" => values.any(|value| pattern.is_match(value)),
                _ => true,
            };
            assert!(is_known, "{place}: {name} never has {}={}", label.name, label.value);
        }
        used.insert(scrape.family(&name).unwrap().to_owned());
    }
    used
}

/// Whether a metric's help names a value of a label.
fn tells(name: &str, value: &str) -> bool {
    let metric = METRICS.iter().find(|metric| metric.name == name);
    metric.is_some_and(|metric| metric.help.split(|c: char| !c.is_alphanumeric()).any(|word| word == value))
}

/// The expressions of a dashboard, with the titles of their panels.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        found.push(("annotation".to_owned(), annotation["expr"].as_str().unwrap().to_owned()));
    }
    found
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    lasting: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// A heading as GitHub links to it.
fn anchor(heading: &str) -> String {
    let kept = heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .collect::<String>();
    kept.replace(' ', "-")
}

/// The sections of the runbook by their anchors.
fn sections(runbook: &str) -> BTreeMap<String, String> {
    let sections = runbook.split("\n## ").skip(1);
    sections
        .filter_map(|section| section.split_once('\n'))
        .map(|(title, text)| (anchor(title), text.to_owned()))
        .collect()
}

async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !happened().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn everything_is_measured_and_dashboard_and_alerts_use_only_what_there_is() {
    let mut fleet = Fleet::start(env!("CARGO_BIN_EXE_throughline")).unwrap();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    // Two tabs on two servers, and a back end that does something wrong as well.
    let identity = Identity::new();
    let often = Duration::from_millis(20);
    let tab = identity.another_tab();
    let buyer = Buyer::start(&identity, std::slice::from_ref(&nodes[0].address), often);
    until("changes are accepted", async || buyer.told().accepted.len() > 10).await;
    let other = Buyer::start(&tab, std::slice::from_ref(&nodes[1].address), often);
    until("changes are accepted", async || other.told().accepted.len() > 10).await;
    let client = reqwest::Client::new();
    let post = |path: &str, body: Value| {
        client.post(format!("http://{}{path}", nodes[0].address)).bearer_auth(&fleet.service_key).json(&body).send()
    };
    let created: Value = post("/v1/sessions", json!({})).await.unwrap().json().await.unwrap();
    let id = created["session"]["id"].as_str().unwrap().to_owned();
    let commands = format!("/v1/sessions/{id}/commands");
    let email = "canary@example.com";
    assert_eq!(
        post(&commands, json!({ "commands": [{ "type": "setEmail", "email": email }] })).await.unwrap().status(),
        200
    );
    let wrong = json!({ "commands": [{ "type": "setEmail", "email": "canary at nowhere" }] });
    post(&commands, wrong).await.unwrap();
    for id in [id.as_str(), "ws_nobody_has_this_one", "ws_nobody_has_this_one"] {
        let url = format!("http://{}/v1/sessions/{id}", nodes[0].address);
        client.get(url).bearer_auth(&fleet.service_key).send().await.unwrap();
    }
    let nobody = client.get(format!("http://{}/v1/sessions", nodes[0].address)).send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    // A client without a socket that waits, and one whose session is not there.
    let hello = |id: &str| {
        let key = &fleet.service_key;
        json!({ "type": "hello", "protocol": 1, "sessionId": id, "clientId": "poll", "knownVersion": 0, "token": key })
    };
    let shown: Value = post("/v1/sync", json!({ "frames": [hello(&id)] })).await.unwrap().json().await.unwrap();
    let state = &shown["frames"][1]["state"];
    let mut waiting = hello(&id);
    waiting["knownVersion"] = state["session"]["version"].clone();
    waiting["epoch"] = state["epoch"].clone();
    let waiting = tokio::spawn(post("/v1/sync", json!({ "frames": [waiting], "waitMs": 25_000 })));
    let refused = post("/v1/sync", json!({ "frames": [hello("ws_nobody_has_this_one")] })).await.unwrap();
    assert!(refused.text().await.unwrap().contains("sessionNotFound"));
    until("a poll waits", async || nodes[0].metric("throughline_polls").await.unwrap() == 1.0).await;
    assert!(buyer.settle(Duration::from_secs(20)).await && other.settle(Duration::from_secs(20)).await);
    // The gauges of what is in memory are set once a second.
    until("the memory is counted", async || nodes[0].metric("throughline_hosted_sessions").await.unwrap() >= 2.0).await;
    let (text, measured) = scrape(&nodes[0]).await;

    measured.check_form();
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let name = metric.name;
        assert_eq!(measured.kinds.get(name).map(String::as_str), Some(kind), "{name} is not there");
    }
    let happened = [
        ("throughline_tier_reads_total", &[("tier", "memory"), ("outcome", "hit")][..]),
        ("throughline_tier_reads_total", &[("tier", "memory"), ("outcome", "miss")]),
        ("throughline_tier_reads_total", &[("tier", "database"), ("outcome", "miss")]),
        ("throughline_tier_seconds_count", &[("tier", "memory"), ("operation", "read")]),
        ("throughline_tier_seconds_count", &[("tier", "redis"), ("operation", "share")]),
        ("throughline_tier_seconds_count", &[("tier", "redis"), ("operation", "load")]),
        ("throughline_tier_seconds_count", &[("tier", "database"), ("operation", "commit")]),
        ("throughline_fanout_seconds_count", &[("origin", "here")]),
        ("throughline_fanout_seconds_count", &[("origin", "there")]),
        ("throughline_known_absent_total", &[]),
        ("throughline_flush_lag_seconds_count", &[]),
        ("throughline_store_batch_jobs_count", &[]),
        ("throughline_pool_wait_seconds_count", &[]),
        ("throughline_pool_connections", &[("state", "idle")]),
        ("throughline_pool_connections_limit", &[]),
        ("throughline_announcements_up", &[]),
        ("throughline_rejections_total", &[]),
        ("throughline_commands_total", &[("outcome", "rejected")]),
        ("throughline_sockets", &[]),
        ("throughline_polls", &[]),
        ("throughline_polls_refused_total", &[("code", "4404")]),
        ("throughline_backlog_limit", &[]),
        ("throughline_mode", &[("mode", "normal")]),
    ];
    for (name, labels) in happened {
        assert!(measured.value(name, labels) > 0.0, "{name} {labels:?} is 0");
    }
    assert_eq!(
        measured.value("throughline_cache_partitions", &[]),
        measured.value("throughline_cache_partitions_linked", &[])
    );
    assert_eq!(measured.value("throughline_breaker_open", &[]), 0.0);
    assert!(measured.samples["throughline_breaker_open"].len() >= 2, "of Redis and of the database");
    // Reading from memory is what the fine buckets are for.
    let memory = [("tier", "memory"), ("le", "0.0005")];
    assert!(measured.value("throughline_tier_seconds_bucket", &memory) > 0.0, "{text}");
    for secret in [id.as_str(), "canary", &fleet.service_key, "ws_"] {
        assert!(!text.contains(secret), "{secret} is in the metrics");
    }
    let series: usize = measured.samples.values().map(Vec::len).sum();
    assert!(series < 3000, "{series} series");

    check_dashboard(&measured);
    check_alerts(&measured);
    waiting.abort();

    // What an alert would see while Redis is away.
    fleet.redis.kill().unwrap();
    until("it is measured that Redis is away", async || {
        let (_, away) = scrape(&nodes[0]).await;
        away.value("throughline_breaker_open", &[("dependency", "redis")]) == 1.0
            && away.value("throughline_mode", &[("mode", "withoutRedis")]) == 1.0
            && away.value("throughline_mode", &[("mode", "normal")]) == 0.0
            && away.value("throughline_cache_partitions_linked", &[]) == 0.0
    })
    .await;
    drop((buyer, other));
}

fn check_dashboard(measured: &Scrape) {
    let dashboard: Value = serde_json::from_str(&document("dashboard.json")).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39 && dashboard["uid"] == "throughline");
    let mut used = BTreeSet::new();
    for (title, expression) in expressions(&dashboard) {
        assert!(expression.contains("instance=~\"$instance\""), "{title} ignores the choice of servers: {expression}");
        used.extend(check_expression(&title, &expression, measured));
    }
    // Whatever is measured can be seen.
    let hidden: Vec<_> =
        METRICS.iter().filter(|metric| !used.contains(metric.name)).map(|metric| metric.name).collect();
    assert!(hidden.is_empty(), "no panel shows {hidden:?}");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id is there twice");
    let rows = panels.iter().filter(|panel| panel["type"] == "row").map(|panel| panel["title"].as_str().unwrap());
    let rows: Vec<_> = rows.collect();
    assert_eq!(
        rows,
        [
            "Is everything all right?",
            "Traffic",
            "Latency per tier",
            "Durability",
            "Dependencies",
            "Sessions",
            "Sockets"
        ]
    );
    let mut places: Vec<(u64, u64, u64, u64)> = Vec::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
        let overlaps = |&(a, b, c, d): &(u64, u64, u64, u64)| x < a + c && a < x + w && y < b + d && b < y + h;
        assert!(x + w <= 24 && !places.iter().any(overlaps), "{} is in the way", panel["title"]);
        places.push((x, y, w, h));
        assert!(panel["type"] == "row" || panel["datasource"]["uid"] == "${datasource}", "{}", panel["title"]);
    }
}

fn check_alerts(measured: &Scrape) {
    let rules: Rules = serde_saphyr::from_str(&document("alerts.yaml")).unwrap();
    let runbook = document("runbook.md");
    let sections = sections(&runbook);
    let mut alerts = BTreeSet::new();
    let mut anchors = BTreeSet::new();
    for Group { name, rules } in rules.groups {
        assert!(!rules.is_empty(), "{name} is empty");
        for Rule { alert, expr, lasting, labels, annotations } in rules {
            check_expression(&alert, &expr, measured);
            assert!(lasting.parse::<humantime::Duration>().is_ok() || lasting == "0m", "{alert}: {lasting}");
            assert!(["critical", "warning", "info"].contains(&labels["severity"].as_str()), "{alert}");
            assert!(!annotations["summary"].is_empty(), "{alert}");
            let place =
                annotations["runbook_url"].strip_prefix(RUNBOOK).unwrap_or_else(|| panic!("{alert}: no runbook"));
            let section = sections.get(place).unwrap_or_else(|| panic!("{alert}: the runbook has no {place}"));
            for part in ["**What it means.**", "**What to look at**", "**What to do**", &format!("`{alert}`")] {
                assert!(section.contains(part), "{alert}: its section lacks {part}");
            }
            anchors.insert(place.to_owned());
            assert!(alerts.insert(alert.clone()), "{alert} is there twice");
        }
    }
    let unused: Vec<_> = sections.keys().filter(|anchor| !anchors.contains(*anchor)).collect();
    assert!(unused.is_empty(), "no alert leads to {unused:?}");
    // What the runbook names is there as well.
    let words = runbook.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    for name in words.filter(|word| word.starts_with("throughline_") && word.len() > 12) {
        let is_known = measured.family(name).is_some() || name == "throughline_server";
        assert!(is_known, "the runbook names {name}");
    }
    for link in runbook.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(sections.contains_key(link), "the runbook links to #{link}");
    }
}
