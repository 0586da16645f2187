//! `cargo xtask bench server`: the server beside its peers, in one run on this machine.

mod importing;
mod inside;
mod load;
mod peers;
mod routes;
mod sockets;
mod storage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use throughline_core::Durability;
use throughline_test_services::fleet::{Fleet, Node};

use inside::Others;
use load::{Measured, closed, connect, open, request};
use peers::Peers;
use routes::{Asked, Round, Shops};
use throughline_benchmarks::machine;
use throughline_benchmarks::report::{Report, Subject, Target};

/// The server's own, because some of it is measured inside this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SUBJECT: Subject = Subject {
    title: "The server beside its peers",
    introduction: "Made by `cargo xtask bench server`: one run, on one machine that does everything, the load included, with its figures \
                   in turn and their medians. Absolute figures say little on another machine; the ratios do.",
    name: "server",
    compared: None,
};

/// Measures the server and its peers in turn, and writes a table and a chart.
#[derive(Parser)]
struct Options {
    /// The server, built for release
    #[arg(long)]
    binary: PathBuf,
    /// Folder with the compiled peers
    #[arg(long)]
    peer_binaries: PathBuf,
    /// Folder with the peers for Node.js
    #[arg(long)]
    peer_scripts: PathBuf,
    /// Folder with the Next.js shops, both built: `examples/nextjs`
    #[arg(long)]
    shops: PathBuf,
    /// Shorter and fewer rounds: to see that it works
    #[arg(long)]
    quick: bool,
    /// These sections alone, to look closely at one: nothing is written to `--output`
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// A file for the figures, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for the table and the chart
    #[arg(long)]
    output: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    MemoryReads,
    CachedReads,
    Commands,
    Upsell,
    Routes,
    Sockets,
    Overload,
    SessionMemory,
    Storage,
    Import,
}

/// How long and how often.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    duration: Duration,
    sockets: usize,
}

const CONNECTIONS: usize = 32;
const CLIENTS: usize = 64;
/// For what is not measured itself.
static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    // Node.js ends a connection that was idle for 5 s, just when it may be taken again.
    reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(2)).build().unwrap_or_default()
});
const MIB: f64 = 1024.0 * 1024.0;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok(report) => {
            for name in report.missed() {
                println!("missed: {name}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<Report> {
    let effort = if options.quick {
        Effort { rounds: 1, duration: Duration::from_secs(2), sockets: 1000 }
    } else {
        Effort { rounds: 5, duration: Duration::from_secs(4), sockets: 10_000 }
    };
    let peers = Peers { binaries: options.peer_binaries.clone(), scripts: options.peer_scripts.clone() };
    let mut report = Report::of(SUBJECT, machine(&[("Redis", "redis-server"), ("PostgreSQL", "pg_config")]));

    let fleet = Fleet::start(&options.binary)?;
    for section in Section::value_variants() {
        if !options.only.is_empty() && !options.only.contains(section) {
            continue;
        }
        match section {
            Section::MemoryReads => memory_reads(options.quick, &mut report).await?,
            Section::CachedReads => cached_reads(&fleet, &peers, effort, &mut report).await?,
            Section::Commands => commands(&fleet, effort, &mut report).await?,
            Section::Upsell => legacy(&fleet, &peers, effort, &mut report).await?,
            Section::Routes => routes(options, effort, &mut report).await?,
            Section::Sockets => over_sockets(&fleet, effort, &mut report).await?,
            Section::Overload => overload(&fleet, effort, &mut report).await?,
            Section::SessionMemory => session_memory(&fleet, options.quick, &mut report).await?,
            Section::Storage => stored(&fleet, options.quick, &mut report).await?,
            Section::Import => import(&fleet, options, &mut report).await?,
        }
    }

    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    if let Some(folder) = options.output.as_ref().filter(|_| options.only.is_empty()) {
        std::fs::create_dir_all(folder)?;
        for (name, content) in report.files() {
            std::fs::write(folder.join(name), content)?;
        }
        println!("\nwrote {}", folder.join("server.md").display());
    }
    Ok(report)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn ask(fleet: &Fleet, node: &Node, path: &str, body: &Value) -> Result<Value> {
    let request = CLIENT.post(format!("http://{}{path}", node.address)).bearer_auth(&fleet.service_key);
    let answer = request.json(body).send().await?;
    let status = answer.status();
    let body: Value = answer.json().await?;
    if status.is_success() { Ok(body) } else { bail!("{path}: {status} {body}") }
}

/// A session like those of buyers: about 3 kB. Its id and token.
async fn buyers_session(fleet: &Fleet, node: &Node) -> Result<(String, String)> {
    let address = json!({ "firstName": "Ada", "lastName": "Lovelace", "address": "12 Saint James's Square",
        "city": "London", "zipCode": "SW1Y 4JH", "country": "GB" });
    let new = json!({
        "email": "ada@example.com",
        "customer": { "firstName": "Ada", "lastName": "Lovelace", "phone": "+442071234567",
            "billing": address, "shipping": address },
        "products": [{ "id": "fitspresso-3-pack", "quantity": 1 }],
        "metadata": { "campaign": "winter", "landing": "/offers/fitspresso", "notes": "x".repeat(400) },
    });
    let created = ask(fleet, node, "/v1/sessions", &new).await?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("it is missing");
    Ok((text(&created["session"]["id"])?, text(&created["token"])?))
}

async fn memory_reads(quick: bool, report: &mut Report) -> Result<()> {
    report.section("Reads from memory, inside the process");
    let reads = inside::memory_reads(if quick { 100_000 } else { 1_000_000 }).await?;
    report.note("a read, median", reads.value_at_quantile(0.5) as f64 / 1000.0, "µs");
    let p99 = reads.value_at_quantile(0.99) as f64 / 1000.0;
    report.add("a read from memory, p99", p99, "µs", Some(Target::AtMost(10.0)));
    Ok(())
}

async fn cached_reads(fleet: &Fleet, peers: &Peers, effort: Effort, report: &mut Report) -> Result<()> {
    report.section("GET of a cached session over HTTP, 32 connections");
    let node = fleet.node("cached-reads", &[])?;
    let (id, token) = buyers_session(fleet, &node).await?;
    let ours = request("GET", &format!("/v1/sessions/{id}"), &[("authorization", &format!("Bearer {token}"))], "");
    let url = format!("http://{}/v1/sessions/{id}", node.address);
    let body = CLIENT.get(url).bearer_auth(&token).send().await?.bytes().await?;
    report.note("an answer", body.len() as f64, "bytes");
    let folder = std::env::temp_dir().join(format!("throughline-benchmark-{}.json", std::process::id()));
    std::fs::write(&folder, &body)?;
    let file = folder.display().to_string();
    let redis = fleet.redis.url();
    let bare = peers.binary("bare-axum", &[&file]).await?;
    let tower = peers.binary("tower-sessions-redis", &[&file, &redis]).await?;
    let express = peers.script("express-session.mjs", &[&file, &redis]).await?;
    let cookie = async |address: &str| -> Result<String> {
        let answer = CLIENT.post(format!("http://{address}/")).send().await?;
        let cookie = answer.headers().get("set-cookie").context("no cookie was set")?.to_str()?;
        Ok(cookie.split(';').next().unwrap_or_default().to_owned())
    };
    let with_cookie = async |address: &str| -> Result<Vec<u8>> {
        Ok(request("GET", "/", &[("cookie", &cookie(address).await?)], ""))
    };
    let subjects = [
        (node.address.clone(), ours.clone()),
        (bare.address.clone(), request("GET", "/", &[], "")),
        (tower.address.clone(), with_cookie(&tower.address).await?),
        (express.address.clone(), with_cookie(&express.address).await?),
    ];
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..effort.rounds {
        for ((address, request), rates) in subjects.iter().zip(&mut rates) {
            let requests = std::slice::from_ref(request);
            let Measured { per_second, refused_per_second, .. } =
                closed(address, requests, CONNECTIONS, effort.duration).await?;
            if refused_per_second > 0.0 {
                bail!("{address} refused requests");
            }
            rates.push(per_second);
        }
    }
    let [ours_rate, bare_rate, tower_rate, express_rate] = rates.map(median);
    report.note("throughline: token checked, projection applied", ours_rate, "/s");
    report.note("a bare axum handler with the same bytes", bare_rate, "/s");
    report.note("tower-sessions with its Redis store", tower_rate, "/s");
    report.note("express-session with connect-redis", express_rate, "/s");
    report.add("throughline : bare handler", ours_rate / bare_rate, "×", Some(Target::AtLeast(0.7)));
    report.add("throughline : tower-sessions", ours_rate / tower_rate, "×", Some(Target::AtLeast(2.0)));
    report.add("throughline : express-session", ours_rate / express_rate, "×", Some(Target::AtLeast(15.0)));
    let requests = std::slice::from_ref(&ours);
    let connections = connect(&node.address, CONNECTIONS * 2).await?;
    let calm = open(connections, requests, ours_rate * 0.7, effort.duration * 2).await?;
    report.note("median at 70 % of that load", calm.latency_us(0.5) / 1000.0, "ms");
    report.add("p99 of cached reads at 70 % load", calm.latency_us(0.99) / 1000.0, "ms", Some(Target::AtMost(10.0)));
    let connections = connect(&bare.address, CONNECTIONS * 2).await?;
    let calm = open(connections, &[request("GET", "/", &[], "")], bare_rate * 0.7, effort.duration * 2).await?;
    report.note("the bare handler's at 70 % of its load", calm.latency_us(0.99) / 1000.0, "ms");
    std::fs::remove_file(&folder)?;
    Ok(())
}

async fn commands(fleet: &Fleet, effort: Effort, report: &mut Report) -> Result<()> {
    report.section("Commands to the database, 64 clients");
    for database in ["ours", "peer", "pgbench"] {
        fleet.postgres.create_database(database)?;
    }
    let (ours, peer) = (fleet.postgres.url("ours"), fleet.postgres.url("peer"));
    let (mut strict, mut single, mut relaxed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut notified, mut strict_shared, mut waited) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let measured = inside::commands(&ours, Others::Nobody, Durability::Strict, CLIENTS, effort.duration).await?;
        strict.push(measured.per_second);
        waited.push(measured.latencies.value_at_quantile(0.99) as f64 / 1e6);
        single.push(inside::one_transaction_for_each(&peer, CLIENTS, effort.duration).await?);
        let measured = inside::commands(&ours, Others::Notified, Durability::Strict, CLIENTS, effort.duration).await?;
        notified.push(measured.per_second);
        let redis = fleet.redis.url();
        let shared = Others::Shared(&redis);
        let measured = inside::commands(&ours, shared, Durability::Strict, CLIENTS, effort.duration).await?;
        strict_shared.push(measured.per_second);
        let measured = inside::commands(&ours, shared, Durability::Relaxed, CLIENTS, effort.duration).await?;
        relaxed.push(measured.per_second);
    }
    let (strict, single) = (median(strict), median(single));
    let simple =
        peers::pgbench(fleet.postgres.address().port(), "pgbench", CLIENTS, effort.duration.as_secs().max(2)).await?;
    report.note("strict: decided, grouped, committed", strict, "/s");
    report.note("strict, p99", median(waited), "ms");
    report.note("strict, other servers told by Redis", median(strict_shared), "/s");
    report.note("strict, other servers told by NOTIFY", median(notified), "/s");
    report.note("one transaction for each command", single, "/s");
    report.note("pgbench, simple update", simple, "/s");
    report.note("relaxed: decided, held by Redis", median(relaxed), "/s");
    report.add("strict : one transaction for each", strict / single, "×", Some(Target::AtLeast(5.0)));
    report.note("strict : pgbench", strict / simple, "×");
    Ok(())
}

async fn legacy(fleet: &Fleet, peers: &Peers, effort: Effort, report: &mut Report) -> Result<()> {
    report.section("The upsell request, 32 connections");
    fleet.postgres.create_database("legacy")?;
    let peer = peers.script("legacy-upsell.mjs", &[&fleet.postgres.url("legacy")]).await?;
    let node = fleet.node("upsell", &[])?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let (id, _) = buyers_session(fleet, &node).await?;
        let path = format!("/v1/sessions/{id}/commands");
        let begun = ask(fleet, &node, &path, &json!({ "commands": [{ "type": "beginProcessing" }] })).await?;
        let amount = begun["session"]["amount"].clone();
        let payment = json!({ "type": "recordPayment", "transactionId": "t-1", "amount": amount });
        ask(fleet, &node, &path, &json!({ "commands": [payment] })).await?;
        // A payment ends the tokens from before it.
        let renewed = ask(fleet, &node, &format!("/v1/sessions/{id}/token"), &json!({})).await?;
        let token = renewed["token"].as_str().context("there is no token")?.to_owned();
        let body = json!({ "commands": [{ "type": "acceptUpsell", "offer": "RC6" }] }).to_string();
        ours.push(request("POST", &path, &[("authorization", &format!("Bearer {token}"))], &body));
        let answer = CLIENT.post(format!("http://{}/begin", peer.address)).send().await?;
        let cookie = answer.headers().get("set-cookie").context("no cookie was set")?.to_str()?;
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        theirs.push(request("POST", "/upsell", &[("cookie", &cookie)], "{}"));
    }
    let (mut our_rates, mut their_rates, mut our_p50, mut their_p50) = (vec![], vec![], vec![], vec![]);
    for _ in 0..effort.rounds {
        let measured = closed(&node.address, &ours, CONNECTIONS, effort.duration).await?;
        if measured.refused_per_second > 0.0 {
            bail!("an offer is not accepted");
        }
        our_rates.push(measured.per_second);
        our_p50.push(measured.latency_us(0.5) / 1000.0);
        let measured = closed(&peer.address, &theirs, CONNECTIONS, effort.duration).await?;
        their_rates.push(measured.per_second);
        their_p50.push(measured.latency_us(0.5) / 1000.0);
    }
    let (ours, theirs) = (median(our_rates), median(their_rates));
    report.note("throughline: acceptUpsell, committed", ours, "/s");
    report.note("the legacy path: JWT, Map, two queries", theirs, "/s");
    report.note("throughline, median", median(our_p50), "ms");
    report.note("the legacy path, median", median(their_p50), "ms");
    report.add("throughline : legacy upsell", ours / theirs, "×", Some(Target::AtLeast(2.0)));
    Ok(())
}

async fn routes(options: &Options, effort: Effort, report: &mut Report) -> Result<()> {
    report.section("The routes of a Next.js shop before and after it has moved");
    let count = if options.quick { 100 } else { 500 };
    let mut shops = Shops::start(&options.binary, &options.shops).await?;
    // For everything that is done for the first time.
    shops.round(count, routes::BUYERS).await?;
    let (mut busy, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        busy.push(shops.round(count, routes::BUYERS).await?);
        alone.push(shops.round(count / 5, 1).await?);
    }
    let (legacy_costs, costs) = (shops.legacy_costs().await?, shops.costs().await?);
    for (route, name) in ["checkout", "upsell"].into_iter().enumerate() {
        let of = |rounds: &[Round], part: fn(&Round) -> &[Asked; 2], figure: fn(&Asked) -> f64| {
            median(rounds.iter().map(|round| figure(&part(round)[route])).collect())
        };
        let rate = |part| of(&busy, part, |asked| asked.per_second);
        let (legacy, page, migrated) =
            (rate(|round| &round.legacy), rate(|round| &round.page), rate(|round| &round.migrated));
        let whole = 1.0 / (1.0 / page + 1.0 / migrated);
        report.note(format!("{name}, legacy route, {} at a time", routes::BUYERS), legacy, "/s");
        report.note(format!("{name}, migrated route, {} at a time", routes::BUYERS), migrated, "/s");
        report.note(format!("{name}, migrated, with what the page told the server before"), whole, "/s");
        let median_of = |part| of(&alone, part, |asked| asked.median_ms);
        let (legacy_ms, migrated_ms) = (median_of(|round| &round.legacy), median_of(|round| &round.migrated));
        report.note(format!("{name}, legacy route, one at a time, median"), legacy_ms, "ms");
        report.note(format!("{name}, migrated route, one at a time, median"), migrated_ms, "ms");
        for (whose, rounds) in [("of many", &busy), ("of one", &alone)] {
            let statements = |part| of(rounds, part, |asked| asked.statements);
            let [before, told, after] = [
                statements(|round| &round.legacy),
                statements(|round| &round.page),
                statements(|round| &round.migrated),
            ];
            report.note(format!("{name}, legacy, SQL statements for each {whose}"), before, "");
            report.note(format!("{name}, migrated, SQL statements for each {whose}"), after, "");
            report.note(
                format!("{name}, migrated, SQL statements for what the page of each {whose} told before"),
                told,
                "",
            );
        }
        report.note(format!("{name}, legacy, cookie reads"), legacy_costs[route].cookie_reads, "");
        report.note(format!("{name}, migrated, cookie reads"), costs[route].cookie_reads, "");
        report.note(format!("{name}, legacy, request and answer"), legacy_costs[route].bytes, "bytes");
        report.note(format!("{name}, migrated, request and answer"), costs[route].bytes, "bytes");
        // Of each round by itself: the machine is not as fast in one as in the other.
        let ratio = |rounds: &[Round], figure: fn(&Asked) -> f64| {
            median(rounds.iter().map(|round| figure(&round.migrated[route]) / figure(&round.legacy[route])).collect())
        };
        report.note(format!("{name}, rate, migrated : legacy"), ratio(&busy, |asked| asked.per_second), "×");
        report.note(format!("{name}, time alone, migrated : legacy"), ratio(&alone, |asked| asked.median_ms), "×");
    }
    Ok(())
}

async fn over_sockets(fleet: &Fleet, effort: Effort, report: &mut Report) -> Result<()> {
    report.section("WebSockets");
    let node = fleet.node("sockets", &["--max-connections", "20000"])?;
    let (per_second, latencies) = sockets::commands(&node.address, CLIENTS, effort.duration).await?;
    report.note("commands end to end, 64 sockets", per_second, "/s");
    report.note("to accepted, median", latencies.value_at_quantile(0.5) as f64 / 1e6, "ms");
    report.note("to accepted, p99", latencies.value_at_quantile(0.99) as f64 / 1e6, "ms");
    // A process of its own: what the commands above have left free would hide what sockets take.
    drop(node);
    let node = fleet.node("idle-sockets", &["--max-connections", "20000"])?;
    let bytes = sockets::idle_bytes(&node.address, node.id(), effort.sockets).await?;
    report.note("idle sockets", effort.sockets as f64, "");
    report.add("memory for each idle socket", bytes / 1024.0, "KiB", Some(Target::AtMost(20.0)));
    Ok(())
}

async fn stored(fleet: &Fleet, quick: bool, report: &mut Report) -> Result<()> {
    report.section("A session in the database, with journal and audit log");
    let sessions = if quick { 200 } else { 3_000 };
    let stored = storage::measure(fleet, sessions).await?;
    report.note("sessions that were bought with", sessions as f64, "");
    report.note("events of each", stored.events, "");
    report.note("PostgreSQL, all of it", stored.postgres, "bytes");
    for (table, bytes) in stored.tables {
        report.note(format!("PostgreSQL, {table} with its indexes"), bytes, "bytes");
    }
    report.note("PostgreSQL, write-ahead log", stored.log, "bytes");
    report.note("SQLite", stored.sqlite, "bytes");
    Ok(())
}

async fn overload(fleet: &Fleet, effort: Effort, report: &mut Report) -> Result<()> {
    report.section("Overload: three times as much as it can do");
    let node = fleet.node("overload", &["--max-connections", "20000"])?;
    let mut requests = Vec::new();
    for number in 0..256 {
        let (id, _) = buyers_session(fleet, &node).await?;
        let body = json!({ "commands": [{ "type": "setMetadata", "metadata": { "number": number } }] }).to_string();
        let headers = [("authorization", format!("Bearer {}", fleet.service_key))];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        requests.push(request("POST", &format!("/v1/sessions/{id}/commands"), &headers, &body));
    }
    // Once for everything that is done for the first time.
    closed(&node.address, &requests, 128, effort.duration).await?;
    let mut rounds = Vec::new();
    for _ in 0..effort.rounds {
        let peak = closed(&node.address, &requests, 128, effort.duration).await?;
        rounds.push(flood(&node, &requests, peak, effort.duration * 3).await?);
    }
    let of = |figure: fn(&Flood) -> f64| median(rounds.iter().map(figure).collect());
    report.note("peak", of(|round| round.peak), "/s");
    report.note("offered by 3,000 connections", of(|round| round.peak * 3.0), "/s");
    report.note("answered 503 at once", of(|round| round.flooded.refused_per_second), "/s");
    report.note("answered in time", of(|round| round.flooded.per_second), "/s");
    report.note("their p99, from when they were due", of(|round| round.flooded.latency_us(0.99) / 1000.0), "ms");
    let goodput = of(|round| round.flooded.per_second / round.peak);
    report.add("goodput : peak", goodput, "×", Some(Target::AtLeast(0.7)));
    report.note("memory at the peak", of(|round| round.memory_before / MIB), "MiB");
    report.note("memory after a third of the flood", of(|round| round.memory_settled / MIB), "MiB");
    let growth = of(|round| round.memory_most / round.memory_settled);
    report.add("memory at most after it : then", growth, "×", Some(Target::AtMost(1.1)));
    Ok(())
}

/// What came of three times the peak.
struct Flood {
    peak: f64,
    flooded: Measured,
    memory_before: f64,
    memory_settled: f64,
    memory_most: f64,
}

async fn flood(node: &Node, requests: &[Vec<u8>], peak: Measured, time: Duration) -> Result<Flood> {
    let memory_before = sockets::resident(node.id())?;
    let flooding = open(connect(&node.address, 3000).await?, requests, peak.per_second * 3.0, time);
    // Each connection has its buffers: what counts is whether it goes on growing once all are in use.
    let watching = async {
        tokio::time::sleep(time / 3).await;
        let settled = sockets::resident(node.id())?;
        let (begun, mut most) = (Instant::now(), settled);
        while begun.elapsed() < time / 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            most = most.max(sockets::resident(node.id())?);
        }
        Ok::<_, anyhow::Error>((settled, most))
    };
    let (flooded, watched) = tokio::join!(flooding, watching);
    let (flooded, (memory_settled, memory_most)) = (flooded?, watched?);
    Ok(Flood { peak: peak.per_second, flooded, memory_before, memory_settled, memory_most })
}

async fn import(fleet: &Fleet, options: &Options, report: &mut Report) -> Result<()> {
    let rows = if options.quick { 20_000 } else { 1_000_000 };
    report.section("Import of the legacy table");
    importing::legacy_database(fleet, "legacy-rows", rows).await?;
    for database in ["imported", "copied"] {
        fleet.postgres.create_database(database)?;
    }
    let script = importing::copy(fleet, "legacy-rows", "copied", Duration::from_secs(20)).await?;
    let imported = importing::import(fleet, &options.binary, "legacy-rows", "imported", rows).await?;
    report.note("rows", rows as f64, "");
    report.note("throughline import: decided, encrypted, indexed, audited", imported.per_second, "/s");
    report.note("a script that copies them, 1,000 in a transaction", script, "/s");
    report.add("throughline import : script", imported.per_second / script, "×", Some(Target::AtLeast(1.0)));
    report.note("memory after a fifth of it", imported.memory_early / MIB, "MiB");
    let growth = imported.memory_most / imported.memory_early;
    report.add("memory at most after that : then", growth, "×", Some(Target::AtMost(1.1)));
    Ok(())
}

async fn session_memory(fleet: &Fleet, quick: bool, report: &mut Report) -> Result<()> {
    report.section("Memory of sessions that nobody uses");
    let limit_mib = if quick { 16 } else { 64 };
    let limit = format!("{limit_mib}MiB");
    let node = fleet.node("session-memory", &["--session-memory", &limit])?;
    // A first batch, so that what every connection and every route takes is there.
    let read_session = async || {
        let (id, token) = buyers_session(fleet, &node).await?;
        let url = format!("http://{}/v1/sessions/{id}", node.address);
        let answer = CLIENT.get(url).bearer_auth(token).send().await?.error_for_status()?;
        answer.bytes().await?;
        Ok::<_, anyhow::Error>(())
    };
    let batch = async || {
        let workers = (0..16).map(|_| async {
            for _ in 0..25 {
                read_session().await?;
            }
            Ok::<_, anyhow::Error>(())
        });
        futures_util::future::try_join_all(workers).await
    };
    batch().await?;
    let before = sockets::resident(node.id())? - node.metric("throughline_kept_session_bytes").await?;
    let mut created = 0;
    let grown = loop {
        batch().await?;
        created += 400;
        let kept = node.metric("throughline_kept_session_bytes").await?;
        let is_full = kept > f64::from(limit_mib) * MIB * 0.95;
        if is_full && created > 3 * (kept / 8000.0) as usize {
            break sockets::resident(node.id())? - before;
        }
        if created > 100_000 {
            bail!("the memory never fills: {kept} bytes after {created} sessions");
        }
    };
    let limit = f64::from(limit_mib) * MIB;
    report.note("sessions created", f64::from(created as u32), "");
    report.note("sessions kept", node.metric("throughline_kept_sessions").await?, "");
    report.add("growth of the process : --session-memory", grown / limit, "×", Some(Target::AtMost(1.15)));
    Ok(())
}
