//! The metrics of requests. To look one up by its labels costs more than to answer a cached read, so each is looked up once.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Counter, Histogram};

/// The counters and histograms of all routes that were asked for so far.
#[derive(Debug, Default)]
pub struct RequestMeasures {
    /// By route; there are as many as the router has, so it stays small.
    routes: RwLock<HashMap<String, Vec<Measures>>>,
}

#[derive(Debug)]
struct Measures {
    method: &'static str,
    status: StatusCode,
    requests: Counter,
    seconds: Histogram,
}

impl RequestMeasures {
    /// A request was answered.
    ///
    /// `route` is the router's template and `method` one of a fixed set: whoever asks must not be able to make up new ones.
    pub fn answered(&self, method: &'static str, route: &str, status: StatusCode, elapsed: Duration) {
        let is_it = |known: &&Measures| known.method == method && known.status == status;
        // A measure that was inserted whole is whole: a panic elsewhere can't have harmed it.
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(measures) = known.get(route).and_then(|all| all.iter().find(is_it)) {
            return measures.count(elapsed);
        }
        drop(known);
        let labels = [("method", method.to_owned()), ("route", route.to_owned())];
        let seconds = metrics::histogram!("throughline_http_request_seconds", &labels);
        let [by_method, by_route] = labels;
        let labels = [by_method, by_route, ("status", status.as_str().to_owned())];
        let measures = Measures {
            method,
            status,
            requests: metrics::counter!("throughline_http_requests_total", &labels),
            seconds,
        };
        measures.count(elapsed);
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        // Two may come here for the same labels at once; the recorder gives both the same counter.
        routes.entry(route.to_owned()).or_default().push(measures);
    }
}

impl Measures {
    fn count(&self, elapsed: Duration) {
        self.requests.increment(1);
        self.seconds.record(elapsed);
    }
}
