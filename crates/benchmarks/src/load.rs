//! Load over HTTP/1.1: as many requests as there is an answer for, or a number of them each second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What came of a load.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Answers with a status below 300, each second.
    pub per_second: f64,
    /// Other answers, each second.
    pub refused_per_second: f64,
    /// From when a request was due to its answer, in nanoseconds; successful ones only.
    pub latencies: Histogram<u64>,
}

impl Measured {
    /// The latency that this share of the requests did not exceed, in microseconds.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// One request, as it goes over the wire.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: benchmark\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
    }
    format!("{text}\r\n{body}").into_bytes()
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// A connection that stays open from one request to the next.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request and reads its whole answer; the status.
    async fn ask(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed");
            }
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(length) = head.parse(&self.buffer)? else { continue };
            let status = head.code.context("there is no status")?;
            let body = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let body =
                body.map_or(Ok(0), |header| std::str::from_utf8(header.value)?.parse::<usize>().map_err(Error::from))?;
            while self.buffer.len() < length + body {
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    bail!("the connection was closed");
                }
            }
            return Ok(status);
        }
    }
}

/// Each connection asks again as soon as it has an answer. `requests` are taken in turn.
pub async fn closed(address: &str, requests: &[Vec<u8>], connections: usize, duration: Duration) -> Result<Measured> {
    let requests: Arc<[Vec<u8>]> = requests.into();
    let started = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..connections {
        let (address, requests) = (address.to_owned(), Arc::clone(&requests));
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(&address).await?;
            let (mut latencies, mut refused, mut next) = (histogram()?, 0_u64, number);
            while started.elapsed() < duration {
                let asked = Instant::now();
                let status = connection.ask(&requests[next % requests.len()]).await?;
                next += connections;
                if status < 300 {
                    latencies.record(asked.elapsed().as_nanos() as u64)?;
                } else {
                    refused += 1;
                }
            }
            Ok::<_, anyhow::Error>((latencies, refused))
        }));
    }
    let (mut latencies, mut refused) = (histogram()?, 0);
    for task in tasks {
        let (one, not) = task.await??;
        latencies.add(one)?;
        refused += not;
    }
    let seconds = started.elapsed().as_secs_f64();
    let (per_second, refused_per_second) = (latencies.len() as f64 / seconds, refused as f64 / seconds);
    Ok(Measured { per_second, refused_per_second, latencies })
}

/// Opens connections, one after the other: what the system refuses to queue would come a second late.
pub async fn connect(address: &str, connections: usize) -> Result<Vec<Connection>> {
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        opened.push(Connection::open(address).await?);
    }
    Ok(opened)
}

/// So many requests are due each second, whether or not those before them were answered. What is due while every
/// connection waits is sent late, and its latency counts from when it was due.
pub async fn open(
    connections: Vec<Connection>,
    requests: &[Vec<u8>],
    rate: f64,
    duration: Duration,
) -> Result<Measured> {
    let requests: Arc<[Vec<u8>]> = requests.into();
    let taken = Arc::new(AtomicU64::new(0));
    let all = (rate * duration.as_secs_f64()) as u64;
    let started = Instant::now();
    let mut tasks = Vec::new();
    for mut connection in connections {
        let (requests, taken) = (Arc::clone(&requests), Arc::clone(&taken));
        tasks.push(tokio::spawn(async move {
            let (mut latencies, mut refused) = (histogram()?, 0_u64);
            loop {
                let number = taken.fetch_add(1, Ordering::Relaxed);
                if number >= all {
                    return Ok::<_, anyhow::Error>((latencies, refused));
                }
                let due = started + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                // An offer that comes far too late is nobody's any more.
                if started.elapsed() > duration + Duration::from_secs(1) {
                    return Ok((latencies, refused));
                }
                let status = connection.ask(&requests[number as usize % requests.len()]).await?;
                if status < 300 {
                    latencies.record(due.elapsed().as_nanos() as u64)?;
                } else {
                    refused += 1;
                }
            }
        }));
    }
    let (mut latencies, mut refused) = (histogram()?, 0);
    for task in tasks {
        let (one, not) = task.await??;
        latencies.add(one)?;
        refused += not;
    }
    let seconds = started.elapsed().as_secs_f64();
    let (per_second, refused_per_second) = (latencies.len() as f64 / seconds, refused as f64 / seconds);
    Ok(Measured { per_second, refused_per_second, latencies })
}
