//! The routes of a Next.js shop before and after it has moved: `examples/nextjs/legacy` and `examples/nextjs/unified`, on one PostgreSQL.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use throughline_test_services::fleet::{Fleet, Node};
use throughline_test_services::postgres::Postgres;
use throughline_test_services::redis::Redis;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::CLIENT;

/// How many buyers ask at a time where the machine is busy.
pub const BUYERS: usize = 16;

/// Within which a shop has to answer for the first time.
const START: Duration = Duration::from_secs(60);

const LEGACY_DATABASE: &str = "legacy-shop";
const SECRET: &str = "a secret for this benchmark only";

/// A route, and what it needs.
#[derive(Debug)]
struct Ask {
    url: String,
    bearer: Option<String>,
    cookie: Option<String>,
    body: Value,
}

/// What a route answered.
#[derive(Debug)]
struct Answer {
    cookie: Option<String>,
    counts: Option<String>,
    body: Value,
}

/// What came of asking a route once for each of many buyers.
#[derive(Debug)]
pub struct Asked {
    /// Answers each second.
    pub per_second: f64,
    /// Until an answer was there, the one that half of them did not exceed, in milliseconds.
    pub median_ms: f64,
    /// Statements that PostgreSQL ran for each, without those that begin and end transactions.
    pub statements: f64,
}

/// What one buyer's request costs, alone.
#[derive(Debug)]
pub struct Cost {
    /// How often the route looks at a cookie.
    pub cookie_reads: f64,
    /// Of the request with all its headers, and of its answer.
    pub bytes: f64,
}

/// A process that ends with this value.
#[derive(Debug)]
struct Service {
    address: String,
    _process: Child,
}

/// Both shops, and what they need.
#[derive(Debug)]
pub struct Shops {
    // The shops end before what they need.
    legacy: Service,
    /// The same, with a header in each answer that says what the route has done.
    legacy_counted: Service,
    unified: Service,
    _gateway: Service,
    node: Node,
    statements: PgConnection,
    fleet: Fleet,
    buyers: usize,
    at_a_time: usize,
}

/// What was measured in one round: on the legacy routes, on the migrated ones, and on what the page told before those.
#[derive(Debug)]
pub struct Round {
    pub legacy: [Asked; 2],
    pub page: [Asked; 2],
    pub migrated: [Asked; 2],
}

/// The buyers of one round. Who has a session can be charged for it.
#[derive(Debug, Default)]
struct Buyers {
    /// Ids, and the cookies that the legacy shop has set.
    legacy: Vec<(String, String)>,
    /// Ids, and their tokens.
    unified: Vec<(String, String)>,
}

impl Shops {
    /// Starts everything. `folder` is where the two shops are, both built.
    pub async fn start(binary: &Path, folder: &Path) -> Result<Self> {
        let counting = Postgres::options().fsync(true).setting("shared_preload_libraries", "pg_stat_statements");
        let postgres = counting.setting("pg_stat_statements.track_utility", "off").start()?;
        postgres.execute("postgres", "CREATE EXTENSION pg_stat_statements")?;
        postgres.create_database(LEGACY_DATABASE)?;
        let schema = folder.join("legacy/schema.sql");
        let schema = std::fs::read_to_string(&schema).with_context(|| format!("reading {}", schema.display()))?;
        postgres.execute(LEGACY_DATABASE, &schema)?;
        let database = postgres.url(LEGACY_DATABASE);
        let statements = PgConnection::connect(&postgres.url("postgres")).await?;
        let fleet = Fleet::with(binary, postgres, Redis::start()?)?;
        let node = fleet.node("routes", &[])?;
        let gateway = gateway(&folder.join("gateway")).await?;
        let gateway_url = format!("http://{}", gateway.address);
        let before = [("DATABASE_URL", &*database), ("SESSION_SECRET", SECRET), ("GATEWAY_URL", &gateway_url)];
        let counted = [&before[..], &[("COUNT_QUERIES", "1")]].concat();
        let server = format!("http://{}", node.address);
        let after = [("THROUGHLINE_URL", &*server), ("THROUGHLINE_SERVICE_KEY", &fleet.service_key), before[2]];
        let legacy = shop(&folder.join("legacy"), &before).await?;
        let legacy_counted = shop(&folder.join("legacy"), &counted).await?;
        let unified = shop(&folder.join("unified"), &after).await?;
        Ok(Self {
            fleet,
            node,
            legacy,
            legacy_counted,
            unified,
            _gateway: gateway,
            statements,
            buyers: 0,
            at_a_time: 1,
        })
    }

    /// Checks out for `count` buyers at both shops, and charges the first offer to each. So many ask `at_a_time`.
    pub async fn round(&mut self, count: usize, at_a_time: usize) -> Result<Round> {
        self.at_a_time = at_a_time;
        let mut buyers = Buyers::default();
        let legacy = [self.legacy_checkout(&mut buyers, count).await?, self.legacy_upsell(&buyers).await?];
        let begun = self.begin(&mut buyers, count).await?;
        let checkout = self.checkout(&buyers).await?;
        let accepted = self.accept(&mut buyers).await?;
        let upsell = self.upsell(&buyers).await?;
        Ok(Round { legacy, page: [begun, accepted], migrated: [checkout, upsell] })
    }

    /// The legacy checkout, each for another buyer: the session is made, the card is charged.
    async fn legacy_checkout(&mut self, buyers: &mut Buyers, count: usize) -> Result<Asked> {
        let asks = (0..count).map(|_| self.legacy_order()).collect();
        let (asked, answers) = self.measured(asks, LEGACY_DATABASE).await?;
        for Answer { cookie, body, .. } in answers {
            buyers.legacy.push((text(&body["sessionId"])?, cookie.context("no cookie was set")?));
        }
        Ok(asked)
    }

    /// The first offer is charged, for each of the buyers who have checked out.
    async fn legacy_upsell(&mut self, buyers: &Buyers) -> Result<Asked> {
        let asks = buyers.legacy.iter().map(|(id, cookie)| legacy_upsell(&self.legacy, id, cookie)).collect();
        Ok(self.measured(asks, LEGACY_DATABASE).await?.0)
    }

    /// What the page of each buyer tells the server until the card can be charged: the session, and that the buyer pays.
    async fn begin(&mut self, buyers: &mut Buyers, count: usize) -> Result<Asked> {
        let asks = (0..count).map(|_| self.new_session()).collect();
        let (created, answers) = self.measured(asks, "shop").await?;
        for Answer { body, .. } in answers {
            buyers.unified.push((text(&body["session"]["id"])?, text(&body["token"])?));
        }
        let begin = json!({ "type": "beginProcessing" });
        let asks = buyers.unified.iter().map(|(id, token)| self.command(id, token, &begin)).collect();
        let (begun, _) = self.measured(asks, "shop").await?;
        Ok(Asked {
            per_second: 1.0 / (1.0 / created.per_second + 1.0 / begun.per_second),
            median_ms: created.median_ms + begun.median_ms,
            statements: created.statements + begun.statements,
        })
    }

    /// The migrated checkout, for each of the buyers who pay.
    async fn checkout(&mut self, buyers: &Buyers) -> Result<Asked> {
        let asks = buyers.unified.iter().map(|(id, _)| checkout(&self.unified, id)).collect();
        Ok(self.measured(asks, "shop").await?.0)
    }

    /// What the page of each buyer tells the server before the first offer can be charged: that it is accepted.
    async fn accept(&mut self, buyers: &mut Buyers) -> Result<Asked> {
        // A payment renews the token, which the page is given over its socket.
        for (id, token) in &mut buyers.unified {
            *token = self.new_token(id).await?;
        }
        let accept = json!({ "type": "acceptUpsell", "offer": "RC6" });
        let asks = buyers.unified.iter().map(|(id, token)| self.command(id, token, &accept)).collect();
        Ok(self.measured(asks, "shop").await?.0)
    }

    /// The first offer is charged, for each of the buyers who have accepted it.
    async fn upsell(&mut self, buyers: &Buyers) -> Result<Asked> {
        let asks = buyers.unified.iter().map(|(id, _)| upsell(&self.unified, id)).collect();
        Ok(self.measured(asks, "shop").await?.0)
    }

    /// What the legacy checkout and the legacy upsell cost.
    pub async fn legacy_costs(&mut self) -> Result<[Cost; 2]> {
        let (order, same_order) = (self.legacy_order(), self.legacy_order());
        // The header that counts is not in the answers whose bytes count.
        let counted = |mut ask: Ask| {
            ask.url = ask.url.replace(&self.legacy.address, &self.legacy_counted.address);
            ask
        };
        let checked_out = send(counted(order)).await?;
        let (id, cookie) = (text(&checked_out.body["sessionId"])?, checked_out.cookie.context("no cookie was set")?);
        let offered = send(counted(legacy_upsell(&self.legacy, &id, &cookie))).await?;
        let reads = |counts: Option<String>| -> Result<f64> {
            let counts = counts.context("the shop does not count")?;
            let reads = counts.rsplit_once("cookie-reads=").and_then(|(_, reads)| reads.parse().ok());
            reads.with_context(|| format!("the shop counted {counts}"))
        };
        Ok([
            Cost { cookie_reads: reads(checked_out.counts)?, bytes: bytes_of(&same_order).await? },
            Cost {
                cookie_reads: reads(offered.counts)?,
                bytes: bytes_of(&legacy_upsell(&self.legacy, &id, &cookie)).await?,
            },
        ])
    }

    /// What the migrated checkout and the migrated upsell cost. They get no cookie and set none, which the answers are checked for.
    pub async fn costs(&mut self) -> Result<[Cost; 2]> {
        let mut buyers = Buyers::default();
        self.begin(&mut buyers, 2).await?;
        let [(one, _), (other, _)] = &buyers.unified[..] else { bail!("there are not two buyers") };
        for ask in [checkout(&self.unified, one), checkout(&self.unified, other)] {
            if send(ask).await?.cookie.is_some() {
                bail!("the migrated checkout has set a cookie");
            }
        }
        let bytes = bytes_of(&checkout(&self.unified, one)).await?;
        let token = self.new_token(one).await?;
        send(self.command(one, &token, &json!({ "type": "acceptUpsell", "offer": "RC6" }))).await?;
        let upsell = upsell(&self.unified, one);
        let offered = bytes_of(&upsell).await?;
        if send(upsell).await?.cookie.is_some() {
            bail!("the migrated upsell has set a cookie");
        }
        Ok([Cost { cookie_reads: 0.0, bytes }, Cost { cookie_reads: 0.0, bytes: offered }])
    }

    async fn new_token(&self, id: &str) -> Result<String> {
        let url = format!("http://{}/v1/sessions/{id}/token", self.node.address);
        let ask = Ask { url, bearer: Some(self.fleet.service_key.clone()), cookie: None, body: json!({}) };
        text(&send(ask).await?.body["token"])
    }

    async fn measured(&mut self, asks: Vec<Ask>, database: &str) -> Result<(Asked, Vec<Answer>)> {
        let count = asks.len() as f64;
        let before = self.statements_of(database).await?;
        let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
        let started = Instant::now();
        let asking = stream::iter(asks).map(|ask| async move {
            let asked = Instant::now();
            let answer = tokio::spawn(send(ask)).await??;
            Ok::<_, anyhow::Error>((asked.elapsed(), answer))
        });
        let answered: Vec<(Duration, Answer)> = asking.buffer_unordered(self.at_a_time).try_collect().await?;
        let seconds = started.elapsed().as_secs_f64();
        let statements = (self.statements_of(database).await? - before) as f64 / count;
        let mut answers = Vec::with_capacity(answered.len());
        for (latency, answer) in answered {
            latencies.record(latency.as_nanos() as u64)?;
            answers.push(answer);
        }
        let median_ms = latencies.value_at_quantile(0.5) as f64 / 1e6;
        Ok((Asked { per_second: count / seconds, median_ms, statements }, answers))
    }

    async fn statements_of(&mut self, database: &str) -> Result<i64> {
        let sum = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
                   WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1)";
        Ok(sqlx::query_scalar(sum).bind(database).fetch_one(&mut self.statements).await?)
    }

    fn legacy_order(&mut self) -> Ask {
        self.buyers += 1;
        let number = self.buyers;
        let body = json!({
            "sessionId": format!("ws_benchmark_{number}"),
            "email": format!("buyer{number}@example.com"),
            "customerInfo": { "firstName": "Ada", "lastName": "Lovelace", "phone": "+12125550100",
                "address": "1 Example Street", "city": "San Francisco", "state": "CA", "zipCode": "94001" },
            "products": [{ "id": "fitspresso-3-pack", "name": "Fitspresso 3 Bottle Pack", "price": 177, "quantity": 2 }],
            "paymentToken": format!("tok_{number}_0123456789abcdef"),
        });
        Ask { url: format!("http://{}/api/checkout/process", self.legacy.address), bearer: None, cookie: None, body }
    }

    fn new_session(&mut self) -> Ask {
        self.buyers += 1;
        let address = json!({ "address": "1 Example Street", "city": "San Francisco", "state": "CA", "zipCode": "94001",
            "country": "US" });
        let body = json!({
            "email": format!("buyer{}@example.com", self.buyers),
            "customer": { "firstName": "Ada", "lastName": "Lovelace", "phone": "+12125550100", "shipping": address },
            "products": [{ "id": "fitspresso-3-pack", "quantity": 2 }],
        });
        let bearer = Some(self.fleet.service_key.clone());
        Ask { url: format!("http://{}/v1/sessions", self.node.address), bearer, cookie: None, body }
    }

    fn command(&self, id: &str, token: &str, command: &Value) -> Ask {
        let url = format!("http://{}/v1/sessions/{id}/commands", self.node.address);
        Ask { url, bearer: Some(token.to_owned()), cookie: None, body: json!({ "commands": [command] }) }
    }
}

fn legacy_upsell(shop: &Service, id: &str, cookie: &str) -> Ask {
    let body = json!({ "sessionId": id, "productCode": "RC6", "amount": 296, "bottles": 6, "step": 1 });
    let url = format!("http://{}/api/upsell/process", shop.address);
    Ask { url, bearer: None, cookie: Some(cookie.to_owned()), body }
}

fn checkout(shop: &Service, id: &str) -> Ask {
    let body = json!({ "sessionId": id, "paymentToken": "tok_1_0123456789abcdef" });
    Ask { url: format!("http://{}/api/checkout/process", shop.address), bearer: None, cookie: None, body }
}

fn upsell(shop: &Service, id: &str) -> Ask {
    let body = json!({ "sessionId": id, "offer": "RC6" });
    Ask { url: format!("http://{}/api/upsell/process", shop.address), bearer: None, cookie: None, body }
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).context("it is missing")
}

async fn send(Ask { url, bearer, cookie, body }: Ask) -> Result<Answer> {
    let mut request = CLIENT.post(&url).json(&body);
    if let Some(bearer) = bearer {
        request = request.bearer_auth(bearer);
    }
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    let answer = request.send().await?;
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let cookie = header("set-cookie").and_then(|cookie| Some(cookie.split_once(';')?.0.to_owned()));
    let (status, counts) = (answer.status(), header("x-counts"));
    let body: Value = answer.json().await.with_context(|| format!("{url} answered {status}"))?;
    if status.is_success() { Ok(Answer { cookie, counts, body }) } else { bail!("{url}: {status} {body}") }
}

/// How many bytes a request and its answer are on the wire.
async fn bytes_of(Ask { url, bearer, cookie, body }: &Ask) -> Result<f64> {
    let (address, path) = url.strip_prefix("http://").and_then(|url| url.split_once('/')).context("no address")?;
    let body = body.to_string();
    let mut head = format!("POST /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    if let Some(bearer) = bearer {
        head.push_str(&format!("authorization: Bearer {bearer}\r\n"));
    }
    if let Some(cookie) = cookie {
        head.push_str(&format!("cookie: {cookie}\r\n"));
    }
    let request = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        bail!("{url}: {}", String::from_utf8_lossy(&answer));
    }
    Ok((request.len() + answer.len()) as f64)
}

/// Starts the payment gateway of the examples.
async fn gateway(folder: &Path) -> Result<Service> {
    let mut node = Command::new("node");
    node.arg("server.mjs").current_dir(folder).env("GATEWAY_PORT", "0").stdout(Stdio::piped()).kill_on_drop(true);
    let mut process = node.spawn().context("starting the gateway")?;
    let output = process.stdout.take().context("it has no output")?;
    let line = BufReader::new(output).lines().next_line().await?;
    match line.as_deref().and_then(|line| line.strip_prefix("http://")) {
        Some(address) => Ok(Service { address: address.to_owned(), _process: process }),
        None => bail!("the gateway does not listen: {line:?}"),
    }
}

/// Starts a shop that is built, and waits until it answers.
async fn shop(folder: &Path, env: &[(&str, &str)]) -> Result<Service> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut node = Command::new("node");
    node.args(["node_modules/next/dist/bin/next", "start", "--hostname", "127.0.0.1", "--port", &port.to_string()]);
    node.current_dir(folder).env("NEXT_TELEMETRY_DISABLED", "1").envs(env.iter().copied()).kill_on_drop(true);
    // What a shop prints of each order is not what is measured, but it has to go somewhere, as in production.
    let mut process = node.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().context("starting the shop")?;
    let address = format!("127.0.0.1:{port}");
    let started = Instant::now();
    while CLIENT.get(format!("http://{address}/")).send().await.is_err() {
        if let Some(status) = process.try_wait()? {
            bail!("{} ended with {status}; was it built with `next build`?", folder.display());
        }
        if started.elapsed() > START {
            bail!("{} does not answer after {} s", folder.display(), START.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(Service { address, _process: process })
}
