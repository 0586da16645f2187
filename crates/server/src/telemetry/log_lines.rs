//! How log lines are written: not more of them than is bearable, and with the trace that they belong to.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::log_limit::{LogLimit, Verdict};

/// Writes lines as `format` does, those that the limit lets through. Within a span of a trace, each has `trace_id` and
/// `span_id`.
#[derive(Debug)]
pub(super) struct LogLines<F> {
    limit: LogLimit,
    format: F,
    is_json: bool,
}

impl<F> LogLines<F> {
    pub(super) fn new(format: F, is_json: bool) -> Self {
        Self { limit: LogLimit::default(), format, is_json }
    }
}

impl<S, N, F> FormatEvent<S, N> for LogLines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match self.limit.judge_event(event) {
            // An empty line writes nothing.
            Verdict::Withhold => return Ok(()),
            Verdict::Write { withheld } => self.limit.tell_of(withheld, event),
        }
        let present = Context::current();
        let span = present.span();
        let ids = span.span_context();
        if !ids.is_valid() {
            return self.format.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let (trace_id, span_id) = (ids.trace_id(), ids.span_id());
        match line.strip_prefix('{') {
            Some(members) if self.is_json => {
                write!(writer, r#"{{"trace_id":"{trace_id}","span_id":"{span_id}",{members}"#)
            }
            _ => writeln!(writer, "{} trace_id={trace_id} span_id={span_id}", line.trim_end_matches('\n')),
        }
    }
}
