//! Every span of a trace. `docs/operations/tracing.md` lists them.
//!
//! They are spans of `tracing` under a target of their own, which no log line shows, so what is in them is decided here alone:
//! ids of sessions, names that the code has, numbers. Never personal data, tokens or keys. Where traces are off, no span is made.

use std::sync::OnceLock;

use axum::http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Where the spans of traces come from, for filters.
pub(super) const TARGET: &str = "throughline::trace";

/// The name of the database's system, where traces are on.
static DATABASE: OnceLock<&'static str> = OnceLock::new();

/// Traces are on from here on.
pub(super) fn turn_on(database: &'static str) {
    // The first one stays, as with the log.
    let _ = DATABASE.set(database);
}

/// Whether spans are made.
pub fn is_on() -> bool {
    DATABASE.get().is_some()
}

/// The span that the caller is in, to be linked with what is done elsewhere.
pub fn current() -> Span {
    if is_on() { Span::current() } else { Span::none() }
}

/// Which place in which trace the span is, if that is kept.
pub fn place_of(span: &Span) -> Option<SpanContext> {
    if span.is_disabled() {
        return None;
    }
    let place = span.context().span().span_context().clone();
    place.is_sampled().then_some(place)
}

/// Whether the caller is in a span that belongs to a trace.
fn is_within() -> bool {
    is_on() && Context::current().has_active_span()
}

/// A request: within the trace that its `traceparent` names.
pub fn request(method: &'static str, route: &str, headers: &HeaderMap) -> Span {
    if !is_on() {
        return Span::none();
    }
    let span = info_span!(
        target: TARGET,
        parent: None,
        "request",
        "otel.name" = %format_args!("{method} {route}"),
        "otel.kind" = "server",
        "otel.status_code" = Empty,
        "http.request.method" = method,
        "http.route" = route,
        "http.response.status_code" = Empty,
    );
    continue_from(&span, remote(&HeaderExtractor(headers)));
    span
}

/// Notes with which status a request was answered.
pub fn answered(request: &Span, status: u16) {
    request.record("http.response.status_code", status);
    if status >= 500 {
        request.record("otel.status_code", "ERROR");
    }
}

/// A command, from its arrival to its answer: within the trace that it names, else within that of its request.
pub fn command(session: &str, kind: &'static str, seq: Option<u64>, traceparent: Option<&str>) -> Span {
    if !is_on() {
        return Span::none();
    }
    let caused = traceparent.and_then(|traceparent| remote(&Traceparent(traceparent)));
    let span = info_span!(
        target: TARGET,
        parent: None,
        "command",
        "otel.kind" = if caused.is_some() { "server" } else { "internal" },
        "otel.status_code" = Empty,
        "session.id" = session,
        "throughline.command.type" = kind,
        "throughline.command.seq" = seq,
        "throughline.command.outcome" = Empty,
        "throughline.rejection.code" = Empty,
    );
    let here = Context::current();
    let request = here.has_active_span().then(|| here.span().span_context().clone());
    let has_cause = caused.is_some();
    continue_from(&span, caused.or(Some(here)));
    if let Some(request) = request.filter(|_| has_cause) {
        span.add_link(request);
    }
    span
}

/// Notes what became of a command.
pub fn settled(command: &Span, outcome: &'static str, code: Option<&'static str>) {
    command.record("throughline.command.outcome", outcome);
    if let Some(code) = code {
        command.record("throughline.rejection.code", code);
    }
    // Neither a refusal nor a repetition is anything that went wrong.
    if outcome == "busy" {
        command.record("otel.status_code", "ERROR");
    }
}

/// A step that is taken for several commands at once: a span in the trace of each. The others are linked to the first one, in
/// which the work is done.
#[derive(Debug)]
pub struct Step {
    spans: Vec<Span>,
}

impl Step {
    /// A step of these commands.
    pub fn of(name: &'static str, commands: &[Span]) -> Self {
        let begin = |command: &Span| {
            info_span!(
                target: TARGET,
                parent: command,
                "step",
                "otel.name" = name,
                "throughline.commands" = commands.len(),
            )
        };
        let spans: Vec<Span> = commands.iter().map(begin).collect();
        if let Some((first, others)) = spans.split_first()
            && let Some(place) = place_of(first)
        {
            others.iter().for_each(|other| other.add_link(place.clone()));
        }
        Self { spans }
    }

    /// The span in which the work is done; none where the step is of no command.
    pub fn span(&self) -> Span {
        self.spans.first().cloned().unwrap_or_else(Span::none)
    }
}

/// Bringing what was accepted ahead of the database there: in a trace of its own, linked to those of the commands.
pub fn flush(session: &str, commands: Vec<SpanContext>) -> Span {
    if commands.is_empty() {
        return Span::none();
    }
    let count = commands.len();
    let span = info_span!(
        target: TARGET,
        parent: None,
        "flush",
        "session.id" = session,
        "throughline.commands" = count,
    );
    commands.into_iter().for_each(|command| span.add_link(command));
    span
}

/// A call of the database that somebody waits for.
pub fn database(operation: &'static str) -> Span {
    match DATABASE.get() {
        Some(system) if is_within() => call(system, "database", operation),
        _ => Span::none(),
    }
}

/// A call of Redis that somebody waits for.
pub fn redis(operation: &'static str) -> Span {
    if is_within() { call("redis", "redis", operation) } else { Span::none() }
}

fn call(system: &'static str, tier: &'static str, operation: &'static str) -> Span {
    info_span!(
        target: TARGET,
        "call",
        "otel.name" = %format_args!("{tier} {operation}"),
        "otel.kind" = "client",
        "otel.status_code" = Empty,
        "db.system.name" = system,
        "db.operation.name" = operation,
        "throughline.outcome" = Empty,
    )
}

/// Notes how a call of the database or of Redis ended.
pub fn ended(call: &Span, outcome: &'static str, is_fault: bool) {
    call.record("throughline.outcome", outcome);
    if is_fault {
        call.record("otel.status_code", "ERROR");
    }
}

/// What one transaction is made of: in a trace of its own, linked to those that wait for it, and they to it. It is in that of
/// nobody else, because it is everybody's.
pub fn batch(waiting: &[Span]) -> Span {
    let places: Vec<SpanContext> = waiting.iter().filter_map(place_of).collect();
    let Some(system) = DATABASE.get().filter(|_| !places.is_empty()) else { return Span::none() };
    let span = info_span!(
        target: TARGET,
        parent: None,
        "database batch",
        "otel.kind" = "client",
        "db.system.name" = *system,
        "db.operation.name" = "batch",
        "db.operation.batch.size" = waiting.len(),
    );
    places.into_iter().for_each(|place| span.add_link(place));
    if let Some(place) = place_of(&span) {
        waiting.iter().for_each(|waiting| waiting.add_link(place.clone()));
    }
    span
}

/// One attempt at writing a batch, or a part of it.
pub fn transaction(jobs: usize, approach: &'static str) -> Span {
    if !is_within() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "database transaction",
        "otel.kind" = "client",
        "otel.status_code" = Empty,
        "db.system.name" = DATABASE.get().copied(),
        "db.operation.name" = "transaction",
        "db.operation.batch.size" = jobs,
        "throughline.approach" = approach,
        "throughline.outcome" = Empty,
    )
}

/// Telling those who follow a session of what happened.
pub fn fan_out(followers: usize) -> Span {
    if !is_within() {
        return Span::none();
    }
    info_span!(target: TARGET, "fan-out", "throughline.followers" = followers)
}

fn continue_from(span: &Span, parent: Option<Context>) {
    if let Some(parent) = parent {
        // It can't have been begun: nobody has had it yet.
        let _ = span.set_parent(parent);
    }
}

/// The place in a trace that somebody else has named. It decides nothing but where spans are shown, and whether they are kept.
fn remote(said: &dyn Extractor) -> Option<Context> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), said);
    context.has_active_span().then_some(context)
}

/// A `traceparent` that comes without headers.
struct Traceparent<'a>(&'a str);

impl Extractor for Traceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_traceparent_names_no_trace() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = remote(&Traceparent(good)).unwrap();
        assert_eq!(context.span().span_context().trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(remote(&Traceparent(bad)).is_none(), "{bad}");
        }
    }

    #[test]
    fn where_traces_are_off_no_span_is_made() {
        assert!(!is_on());
        let spans = [
            request("GET", "/v1/sessions/{id}", &HeaderMap::new()),
            command("ws_1", "setEmail", Some(1), None),
            Step::of("commit", &[]).span(),
            flush("ws_1", Vec::new()),
            database("commit"),
            redis("share"),
            batch(&[current()]),
            transaction(1, "expecting"),
            fan_out(1),
        ];
        assert!(spans.iter().all(Span::is_disabled));
    }
}
