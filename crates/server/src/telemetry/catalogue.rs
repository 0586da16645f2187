//! Every metric that there is: its name, what it tells, and the series that are there from the start.
//!
//! A counter that appears only when something goes wrong cannot be watched: its first step is no change of anything.
//! So series whose labels are known are there from the start, at zero.
//!
//! Labels never hold anything that a client chose, so their number is bounded, and none names a session or a person.

use std::fmt::Write as _;

use metrics::{Key, Label, Level, Metadata};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// How it is just now.
    Gauge,
    /// How often it was how much.
    Histogram(Scale),
}

/// What a histogram counts, and with it where its buckets end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From a microsecond to seconds: the tiers lie that far apart.
    Microseconds,
    /// From half a millisecond to seconds.
    Seconds,
    /// How many.
    Count,
}

impl Scale {
    /// Where the buckets end.
    #[must_use]
    pub const fn buckets(self) -> &'static [f64] {
        match self {
            Self::Microseconds => &[
                1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2,
                0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
            ],
            Self::Seconds => &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0],
            Self::Count => &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
        }
    }
}

/// The labels of one series.
type Labels = &'static [(&'static str, &'static str)];

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it tells.
    pub help: &'static str,
    /// The series that are there from the start.
    series: &'static [Labels],
}

/// The series without labels.
const PLAIN: &[Labels] = &[&[]];

const fn counter(name: &'static str, help: &'static str, series: &'static [Labels]) -> Metric {
    Metric { name, kind: Kind::Counter, help, series }
}

const fn gauge(name: &'static str, help: &'static str, series: &'static [Labels]) -> Metric {
    Metric { name, kind: Kind::Gauge, help, series }
}

const fn histogram(name: &'static str, scale: Scale, help: &'static str, series: &'static [Labels]) -> Metric {
    Metric { name, kind: Kind::Histogram(scale), help, series }
}

/// Every metric.
pub const METRICS: &[Metric] = &[
    // Traffic.
    counter("throughline_http_requests_total", "Requests answered, by route template, method and status.", &[]),
    histogram(
        "throughline_http_request_seconds",
        Scale::Seconds,
        "Time to answer a request, by route template and method.",
        &[],
    ),
    counter(
        "throughline_http_requests_shed_total",
        "Requests refused at once, because more were being answered than can be in time.",
        PLAIN,
    ),
    counter(
        "throughline_http_requests_timed_out_total",
        "Requests that were given up, because they took longer than `request_timeout`.",
        PLAIN,
    ),
    counter(
        "throughline_unreadable_sessions_total",
        "Times that an overdue session could not be ended, because it can't be read: another version wrote it, or it is damaged.",
        PLAIN,
    ),
    counter("throughline_authentication_refusals_total", "Credentials that were refused, or missing, by code.", &[]),
    counter(
        "throughline_log_lines_withheld_total",
        "Lines that were not written: one place in the code had written twenty within ten seconds.",
        PLAIN,
    ),
    counter(
        "throughline_spans_total",
        "Spans of traces that were handed to the receiver, by outcome: sent, or lost because it did not take them.",
        &[&[("outcome", "sent")], &[("outcome", "lost")]],
    ),
    gauge(
        "throughline_servers_elsewhere",
        "Other servers of the database that talk to another Redis, so that they and this one do not hear each other.",
        PLAIN,
    ),
    counter("throughline_panics_total", "Requests that ended in a panic. Each is a bug.", PLAIN),
    gauge("throughline_connections", "Open connections, HTTP and sockets.", PLAIN),
    counter("throughline_connections_refused_total", "Connections closed at once: their address held too many.", PLAIN),
    counter(
        "throughline_connections_timed_out_total",
        "Connections closed because no request came on them, its head not in time, or nobody took the answer (`header_timeout`, `idle_timeout`).",
        PLAIN,
    ),
    counter(
        "throughline_tls_handshakes_failed_total",
        "TLS handshakes that failed or took longer than `header_timeout`.",
        PLAIN,
    ),
    gauge(
        "throughline_tls_certificate_expires_seconds",
        "When the certificate in use expires, in seconds since 1970; 0 without TLS.",
        PLAIN,
    ),
    counter(
        "throughline_tls_renewals_failed_total",
        "Looks at the files of the certificate and its key that found something that can't be used; the one in use was kept.",
        PLAIN,
    ),
    counter(
        "throughline_rate_limited_total",
        "Requests refused (429) because of how many there were, by what they were counted by: address, noCredential (of an address), session, serviceKey, tenant.",
        &[
            &[("by", "address")],
            &[("by", "noCredential")],
            &[("by", "session")],
            &[("by", "serviceKey")],
            &[("by", "tenant")],
        ],
    ),
    gauge("throughline_sockets", "Open WebSockets.", PLAIN),
    counter(
        "throughline_sockets_closed_total",
        "WebSockets that the server closed, by close code: 1012 it stops, 1008 slow reader, 1013 not available, 4429 too many commands, others a client's mistake.",
        &[&[("code", "1008")], &[("code", "1012")], &[("code", "1013")], &[("code", "4429")]],
    ),
    gauge(
        "throughline_polls",
        "Requests to `POST /v1/sync` under way, most of which wait for something to happen.",
        PLAIN,
    ),
    counter(
        "throughline_polls_refused_total",
        "Requests to `POST /v1/sync` whose answer ended with an error, by the code with which a WebSocket would have been closed: 1012 it stops, 1008 slow reader, 1013 not available, 4429 too many commands or polls, others a client's mistake.",
        &[&[("code", "1008")], &[("code", "1012")], &[("code", "1013")], &[("code", "4429")]],
    ),
    // Commands.
    counter(
        "throughline_commands_total",
        "Commands answered, by type and outcome: accepted, repeated (had been applied before), rejected by the rules, gap (out of order), busy (not stored; the client sends it again).",
        &[],
    ),
    histogram("throughline_command_seconds", Scale::Seconds, "From a command's arrival to its answer, by type.", &[]),
    counter("throughline_rejections_total", "Commands that the rules refused, by code.", &[]),
    counter(
        "throughline_forked_commands_total",
        "Accepted commands that were not part of the history that won, and were decided again.",
        PLAIN,
    ),
    histogram(
        "throughline_fanout_seconds",
        Scale::Microseconds,
        "Time to tell the followers on this server of a change, until the frames are queued: from its acceptance here (origin=\"here\"), or from the arrival of another server's message (origin=\"there\").",
        &[&[("origin", "here")], &[("origin", "there")]],
    ),
    // Tiers.
    counter(
        "throughline_tier_reads_total",
        "Reads of a session, by tier and outcome. A miss is answered by the next tier below.",
        &[
            &[("tier", "memory"), ("outcome", "hit")],
            &[("tier", "memory"), ("outcome", "miss")],
            &[("tier", "redis"), ("outcome", "hit")],
            &[("tier", "redis"), ("outcome", "miss")],
            &[("tier", "database"), ("outcome", "hit")],
            &[("tier", "database"), ("outcome", "miss")],
        ],
    ),
    histogram(
        "throughline_tier_seconds",
        Scale::Microseconds,
        "Time that a tier took, by operation; failures count with what was waited for.",
        &[
            &[("tier", "memory"), ("operation", "read")],
            &[("tier", "redis"), ("operation", "load")],
            &[("tier", "redis"), ("operation", "share")],
            &[("tier", "redis"), ("operation", "settle")],
            &[("tier", "database"), ("operation", "load")],
            &[("tier", "database"), ("operation", "journal")],
            &[("tier", "database"), ("operation", "commit")],
        ],
    ),
    counter(
        "throughline_known_absent_total",
        "Reads answered without asking any tier, because there was no such session a moment ago.",
        PLAIN,
    ),
    counter(
        "throughline_stale_reads_total",
        "Reads that were marked as stale, because the database did not answer.",
        PLAIN,
    ),
    counter(
        "throughline_reloads_total",
        "Sessions in memory that were read again, by reason: read (somebody asked while changes may have been missed), link (the link to Redis or the database was interrupted), news (another server's message told of something that is missing here), conflict (another server was first), adoption (a tail was left behind), other.",
        &[
            &[("reason", "read")],
            &[("reason", "link")],
            &[("reason", "news")],
            &[("reason", "conflict")],
            &[("reason", "adoption")],
            &[("reason", "other")],
        ],
    ),
    gauge("throughline_hosted_sessions", "Sessions in memory.", PLAIN),
    gauge("throughline_kept_sessions", "Sessions that the memory tier keeps within its limit.", PLAIN),
    gauge("throughline_kept_session_bytes", "About how many bytes these take.", PLAIN),
    gauge("throughline_kept_session_bytes_limit", "How many bytes they may take (`session_memory`).", PLAIN),
    counter(
        "throughline_evicted_sessions_total",
        "Sessions that left the memory tier, by cause: size (no room), idle (nobody used them).",
        &[&[("cause", "size")], &[("cause", "idle")]],
    ),
    counter(
        "throughline_deleted_sessions_total",
        "Sessions that were over for as long as they are kept (`retention`), and were deleted.",
        PLAIN,
    ),
    counter(
        "throughline_rewrapped_sessions_total",
        "Sessions that were brought under the newest key of the key ring.",
        PLAIN,
    ),
    gauge("throughline_key_ring_readable", "1 if the key ring could be read again when it was tried last.", PLAIN),
    counter(
        "throughline_audit_sealed_records_total",
        "Records of the audit log that this server has made part of a chain.",
        PLAIN,
    ),
    counter(
        "throughline_audit_foreign_records_total",
        "Records that were found in the audit log, and that nobody with the key ring has written.",
        PLAIN,
    ),
    gauge(
        "throughline_audit_unsealed_seconds",
        "For how long the oldest record of the audit log has waited to become part of a chain, at most.",
        PLAIN,
    ),
    gauge(
        "throughline_audit_broken_chains",
        "Chains of the audit log that are not sealed, because they are not as servers left them.",
        PLAIN,
    ),
    // Webhooks.
    counter(
        "throughline_webhook_tries_total",
        "Messages that were sent to webhooks, by whether they arrived.",
        &[&[("outcome", "delivered")], &[("outcome", "failed")]],
    ),
    histogram("throughline_webhook_try_seconds", Scale::Seconds, "Time that receivers of webhooks took.", PLAIN),
    counter(
        "throughline_webhook_given_up_total",
        "Events that are not sent to a webhook any more, because they failed after the last of `webhook_retries`.",
        PLAIN,
    ),
    counter(
        "throughline_webhook_gaps_total",
        "How often events were forgotten (`event_retention`) before a webhook was sent them.",
        PLAIN,
    ),
    gauge(
        "throughline_webhooks",
        "Webhooks of the database, by how they do.",
        &[&[("state", "working")], &[("state", "failing")], &[("state", "disabled")]],
    ),
    gauge(
        "throughline_webhook_waiting_events",
        "Events that were put aside for a webhook, to be tried again or given up.",
        &[&[("state", "waiting")], &[("state", "given_up")]],
    ),
    gauge(
        "throughline_service_keys_readable",
        "1 if the database's service keys could be read when that was tried last, every half second.",
        PLAIN,
    ),
    // What is ahead of the database.
    gauge("throughline_backlog_commands", "Commands that were accepted and are not in the database yet.", PLAIN),
    gauge("throughline_backlog_limit", "How many there may be (`backlog_limit`).", PLAIN),
    gauge("throughline_backlog_oldest_seconds", "For how long the oldest of them has waited.", PLAIN),
    histogram(
        "throughline_flush_lag_seconds",
        Scale::Seconds,
        "From the first command of a session ahead of the database to all of them being there.",
        PLAIN,
    ),
    counter("throughline_flush_conflicts_total", "Flushes that found another server's history in the database.", PLAIN),
    counter(
        "throughline_commit_conflicts_total",
        "Commits that another server was ahead of; they were decided again.",
        PLAIN,
    ),
    counter(
        "throughline_adopted_tails_total",
        "Tails that another server had left behind, and that this one took over.",
        PLAIN,
    ),
    counter(
        "throughline_repeated_announcements_total",
        "Commits that other servers were told of again through the database, because Redis may have told nobody.",
        PLAIN,
    ),
    // The database.
    counter(
        "throughline_database_calls_total",
        "Calls of the database, by operation and outcome: ok, conflict, overloaded, unavailable, refused, slow (a list or a sum that was given up).",
        &[
            &[("operation", "load"), ("outcome", "ok")],
            &[("operation", "load"), ("outcome", "unavailable")],
            &[("operation", "load"), ("outcome", "overloaded")],
            &[("operation", "commit"), ("outcome", "ok")],
            &[("operation", "commit"), ("outcome", "conflict")],
            &[("operation", "commit"), ("outcome", "unavailable")],
            &[("operation", "commit"), ("outcome", "overloaded")],
        ],
    ),
    counter("throughline_store_transactions_total", "Database transactions that wrote.", PLAIN),
    histogram("throughline_store_transaction_seconds", Scale::Seconds, "Time that a writing transaction took.", PLAIN),
    histogram("throughline_store_batch_jobs", Scale::Count, "Writes that shared a transaction.", PLAIN),
    gauge("throughline_store_queue_jobs", "Writes that wait for a transaction.", PLAIN),
    counter("throughline_store_failed_batches_total", "Writing transactions that failed.", PLAIN),
    counter("throughline_store_retried_batches_total", "Writing transactions that were tried again.", PLAIN),
    gauge("throughline_pool_connections_limit", "How many connections to PostgreSQL may read at a time.", PLAIN),
    gauge(
        "throughline_pool_connections",
        "Connections to PostgreSQL for reading, by state: busy, or idle and open.",
        &[&[("state", "busy")], &[("state", "idle")]],
    ),
    gauge("throughline_pool_waiting", "Reads that wait for a connection to PostgreSQL.", PLAIN),
    histogram(
        "throughline_pool_wait_seconds",
        Scale::Microseconds,
        "Time that a read waited for a connection to PostgreSQL.",
        PLAIN,
    ),
    gauge(
        "throughline_announcements_up",
        "1 while this server hears what others announce through PostgreSQL; 0 where there is no PostgreSQL.",
        PLAIN,
    ),
    // Redis.
    counter(
        "throughline_cache_calls_total",
        "Calls of Redis, by operation and outcome: ok, away (not asked: its breaker is open), timed_out, failed, overloaded, refused.",
        &[],
    ),
    gauge("throughline_cache_partitions", "Partitions of Redis that there are; 0 where there is no Redis.", PLAIN),
    gauge("throughline_cache_partitions_linked", "Partitions of Redis whose messages are all heard here.", PLAIN),
    gauge("throughline_cache_partitions_away", "Partitions of Redis that are not asked just now.", PLAIN),
    counter(
        "throughline_cache_link_interruptions_total",
        "Times that messages of a partition may have been missed; its sessions in memory are read again.",
        PLAIN,
    ),
    counter(
        "throughline_cache_events_lost_total",
        "Messages of other servers that found no room here; counted as an interruption.",
        PLAIN,
    ),
    gauge("throughline_cache_events_waiting", "Messages of other servers that wait to be handled here.", PLAIN),
    counter(
        "throughline_cache_corrupt_total",
        "Damaged or foreign values found in Redis, by kind.",
        &[
            &[("kind", "foreign")],
            &[("kind", "snapshot")],
            &[("kind", "tail_entry")],
            &[("kind", "member")],
            &[("kind", "message")],
        ],
    ),
    // How it is.
    gauge("throughline_breaker_open", "1 while a dependency is not asked because it failed, by dependency.", &[]),
    gauge(
        "throughline_mode",
        "1 for the mode that the server is in: normal, withoutRedis, withoutDatabase, memoryOnly.",
        &[],
    ),
    gauge(
        "throughline_build_info",
        "1, with the version of this server as a label.",
        &[&[("version", env!("CARGO_PKG_VERSION"))]],
    ),
];

/// Tells the recorder of every metric, and begins the series that are there from the start.
pub(super) fn describe() {
    for metric in METRICS {
        let name = metric.name;
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(name, metric.help),
            Kind::Histogram(_) => metrics::describe_histogram!(name, metric.help),
        }
        for labels in metric.series {
            let labels: Vec<Label> = labels.iter().map(|&(key, value)| Label::from_static_parts(key, value)).collect();
            let key = Key::from_parts(name, labels);
            let metadata = Metadata::new(module_path!(), Level::INFO, None);
            metrics::with_recorder(|recorder| match metric.kind {
                Kind::Counter => recorder.register_counter(&key, &metadata).increment(0),
                Kind::Gauge => recorder.register_gauge(&key, &metadata).increment(0.0),
                Kind::Histogram(_) => drop(recorder.register_histogram(&key, &metadata)),
            });
        }
    }
    metrics::gauge!("throughline_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// A table of every metric, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Written by `throughline config metrics`; change `crates/server/src/telemetry/catalogue.rs` instead.\n\n\
         `/metrics` needs a service key with the scope `sessions:read`, unless `open_metrics` is set. No label holds personal data or an id,\n\
         and all label values come from short fixed lists.\n\n\
         | metric | kind | what it tells |\n| --- | --- | --- |\n",
    );
    for Metric { name, kind, help, .. } in METRICS {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "| `{name}` | {kind} | {help} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_there_once() {
        let mut names = BTreeSet::new();
        for Metric { name, kind, help, .. } in METRICS {
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("throughline_"), "{name}");
            assert!(help.ends_with('.') && !help.contains('|'), "{name}: {help}");
            assert_eq!(matches!(kind, Kind::Counter), name.ends_with("_total"), "{name}");
            if let Kind::Histogram(scale) = kind {
                let unit = if *scale == Scale::Count { "_jobs" } else { "_seconds" };
                assert!(name.ends_with(unit), "{name}");
                assert!(scale.buckets().is_sorted(), "{name}");
            }
        }
    }

    /// The names that stand in metric macros of a source file.
    fn named_in(text: &str) -> Vec<String> {
        let literals = text.split('"').skip(1).step_by(2);
        let is_name = |text: &&str| {
            text.starts_with("throughline_") && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        // The channel of PostgreSQL, and crates.
        let is_other = |text: &&str| ["throughline_changes", "throughline_server", "throughline_core"].contains(text);
        literals.filter(is_name).filter(|text| !is_other(text)).map(str::to_owned).collect()
    }

    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("catalogue.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                // A quotation mark as a character would turn literals inside out.
                let text = text.replace("'\"'", "").replace("\\\"", "");
                text.lines().for_each(|line| found.extend(named_in(line)));
            }
        }
    }

    #[test]
    fn what_is_measured_is_in_the_catalogue_and_the_other_way_round() {
        let mut used = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut used);
        let used: BTreeSet<&str> = used.iter().map(String::as_str).collect();
        let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "add these to the catalogue: {unknown:?}");
        // Set where the catalogue is.
        let unused: Vec<_> = known.difference(&used).filter(|name| **name != "throughline_build_info").collect();
        assert!(unused.is_empty(), "nothing measures these: {unused:?}");
    }
}
