//! Which traces are kept.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// Whoever began a trace has decided; of those that begin here, a part is kept. What is done for several traces at once is kept
/// where one of them is.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    of_own: Sampler,
}

impl Sampling {
    /// Keeps this part of the traces that begin here: 0 for none, 1 for all.
    pub(super) fn new(ratio: f64) -> Self {
        Self { of_own: Sampler::TraceIdRatioBased(ratio) }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let parent = parent.map(|context| context.span().span_context().clone()).filter(|parent| parent.is_valid());
        let is_kept = match &parent {
            Some(parent) => parent.is_sampled(),
            None if !links.is_empty() => links.iter().any(|link| link.span_context.is_sampled()),
            None => return self.of_own.should_sample(None, trace_id, name, kind, attributes, links),
        };
        let decision = if is_kept { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
        let trace_state = parent.map_or_else(TraceState::default, |parent| parent.trace_state().clone());
        SamplingResult { decision, attributes: Vec::new(), trace_state }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};

    use super::*;

    fn span(flags: TraceFlags) -> SpanContext {
        SpanContext::new(TraceId::from(7), SpanId::from(7), flags, true, TraceState::default())
    }

    fn is_kept(ratio: f64, parent: Option<TraceFlags>, links: &[TraceFlags]) -> bool {
        let parent = parent.map(|flags| Context::new().with_remote_span_context(span(flags)));
        let links: Vec<Link> = links.iter().map(|flags| Link::with_context(span(*flags))).collect();
        let kind = SpanKind::Internal;
        let result =
            Sampling::new(ratio).should_sample(parent.as_ref(), TraceId::from(u128::MAX), "a", &kind, &[], &links);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn whoever_began_a_trace_decides_whether_it_is_kept() {
        let (kept, dropped) = (TraceFlags::SAMPLED, TraceFlags::default());
        assert!(is_kept(0.0, Some(kept), &[]) && !is_kept(1.0, Some(dropped), &[]));
        assert!(is_kept(1.0, None, &[]) && !is_kept(0.0, None, &[]));
    }

    #[test]
    fn what_is_done_for_several_traces_is_kept_where_one_of_them_is() {
        let (kept, dropped) = (TraceFlags::SAMPLED, TraceFlags::default());
        assert!(is_kept(0.0, None, &[dropped, kept]));
        assert!(!is_kept(1.0, None, &[dropped, dropped]));
    }
}
