//! What every store must answer to questions about many sessions.

use std::sync::Arc;

use super::{append, session};
use crate::store::{Append, Found, Group, Lifetimes, Position, Search, Store, Summary, SummaryOf, TimeRange};

/// Everything of a tenant.
pub fn search(tenant: &str) -> Search {
    Search {
        tenant: tenant.parse().unwrap(),
        email_digests: Vec::new(),
        statuses: Vec::new(),
        step: None,
        funnel_id: None,
        created: TimeRange::default(),
        updated: TimeRange::default(),
        after: None,
        limit: 100,
    }
}

/// The forms that a search can have, with a name for each.
pub fn forms_of_a_search() -> Vec<(&'static str, Search)> {
    let all = search("a");
    let statuses = vec!["pending".to_owned(), "expired".to_owned()];
    let step = Some("payment".to_owned());
    let time = TimeRange { from_ms: Some(1_000), before_ms: Some(1_100) };
    let forms = [
        ("everything", all.clone()),
        ("one status", Search { statuses: vec!["failed".to_owned()], ..all.clone() }),
        ("several statuses", Search { statuses: statuses.clone(), ..all.clone() }),
        ("a step", Search { step: step.clone(), ..all.clone() }),
        ("a step and statuses", Search { step: step.clone(), statuses: statuses.clone(), ..all.clone() }),
        ("an email", Search { email_digests: vec![vec![1; 32]], ..all.clone() }),
        ("an email and statuses", Search { email_digests: vec![vec![1; 32]], statuses, step, ..all.clone() }),
        ("a time of changes", Search { updated: time, ..all.clone() }),
        ("a time of creation", Search { created: time, ..all.clone() }),
    ];
    let after = Some(Position { created_at_ms: 1_050, session_id: "ws_1".to_owned() });
    let later = forms.clone().map(|(name, search)| (name, Search { after: after.clone(), ..search }));
    forms.into_iter().chain(later).collect()
}

/// All that a tenant created in a short time.
pub fn summary_of(tenant: &str) -> SummaryOf {
    SummaryOf { tenant: tenant.parse().unwrap(), funnel_id: None, created_from_ms: 1_000, created_before_ms: 1_100 }
}

fn created(id: &str, change: impl FnOnce(&mut crate::store::Operational)) -> Append {
    let mut created = append(&session("a", id), 0);
    change(&mut created.columns);
    created
}

fn ids(found: Vec<Found>) -> Vec<String> {
    found.into_iter().map(|found| found.position.session_id).collect()
}

pub async fn a_search_gives_the_latest_session_first_and_only_what_was_asked_for(store: Arc<impl Store>) {
    for (id, status, step, funnel, created_at_ms, updated_at_ms, email) in [
        ("ws_1", "pending", "checkout", "default", 100, 500, 1),
        ("ws_2", "expired", "payment", "default", 200, 300, 2),
        ("ws_3", "completed", "success", "summer", 300, 700, 1),
        ("ws_4", "pending", "payment", "summer", 400, 400, 3),
        ("ws_5", "expired", "payment", "default", 50, 900, 2),
    ] {
        let change = created(id, |columns| {
            columns.status = status.to_owned();
            columns.step = step.to_owned();
            columns.funnel_id = funnel.to_owned();
            (columns.created_at_ms, columns.updated_at_ms) = (created_at_ms, updated_at_ms);
            columns.email_digest = (email != 3).then(|| vec![email; 32]);
        });
        store.commit(change).await.unwrap();
    }
    let elsewhere = Append { key: session("b", "ws_1"), ..created("ws_1", |_| {}) };
    store.commit(elsewhere).await.unwrap();

    let all = search("a");
    let statuses = |statuses: &[&str]| statuses.iter().map(|&status| status.to_owned()).collect::<Vec<_>>();
    let between = |from_ms, before_ms| TimeRange { from_ms, before_ms };
    let cases: Vec<(Search, &[&str])> = vec![
        (all.clone(), &["ws_4", "ws_3", "ws_2", "ws_1", "ws_5"]),
        (Search { limit: 2, ..all.clone() }, &["ws_4", "ws_3"]),
        (search("b"), &["ws_1"]),
        (search("c"), &[]),
        (Search { statuses: statuses(&["pending"]), ..all.clone() }, &["ws_4", "ws_1"]),
        (Search { statuses: statuses(&["pending", "expired"]), ..all.clone() }, &["ws_4", "ws_2", "ws_1", "ws_5"]),
        (Search { step: Some("payment".to_owned()), ..all.clone() }, &["ws_4", "ws_2", "ws_5"]),
        (
            Search { step: Some("payment".to_owned()), statuses: statuses(&["expired"]), ..all.clone() },
            &["ws_2", "ws_5"],
        ),
        (Search { funnel_id: Some("summer".to_owned()), ..all.clone() }, &["ws_4", "ws_3"]),
        (Search { email_digests: vec![vec![1; 32], vec![7; 32]], ..all.clone() }, &["ws_3", "ws_1"]),
        (
            Search {
                email_digests: vec![vec![1; 32], vec![7; 32]],
                statuses: statuses(&["pending", "failed"]),
                ..all.clone()
            },
            &["ws_1"],
        ),
        (Search { email_digests: vec![vec![9; 32]], ..all.clone() }, &[]),
        (Search { created: between(Some(200), Some(400)), ..all.clone() }, &["ws_3", "ws_2"]),
        (Search { updated: between(Some(400), Some(700)), ..all.clone() }, &["ws_4", "ws_1"]),
        (Search { created: between(Some(100), None), updated: between(None, Some(400)), ..all.clone() }, &["ws_2"]),
    ];
    for (search, expected) in cases {
        assert_eq!(ids(store.search(&search).await.unwrap()), expected, "{search:?}");
    }
    let first = store.search(&all).await.unwrap().remove(0);
    assert_eq!(first.position, Position { created_at_ms: 400, session_id: "ws_4".to_owned() });
    assert_eq!((first.stored.version, first.stored.state.as_slice()), (1, b"state 1".as_slice()));
}

pub async fn a_search_goes_on_where_it_ended_although_sessions_change(store: Arc<impl Store>) {
    // Several were created at the same moment: then their ids decide.
    for number in 0..30 {
        let change = created(&format!("ws_{number:02}"), |columns| columns.created_at_ms = 1_000 + number / 7);
        store.commit(change).await.unwrap();
    }
    for statuses in [Vec::new(), vec!["pending".to_owned(), "failed".to_owned()]] {
        let mut page = Search { limit: 4, statuses, ..search("a") };
        let mut seen = Vec::new();
        loop {
            let found = store.search(&page).await.unwrap();
            let Some(last) = found.last() else { break };
            page.after = Some(last.position.clone());
            seen.extend(ids(found));
        }
        let mut expected: Vec<(i64, String)> =
            (0..30).map(|number| (-(number / 7), format!("ws_{number:02}"))).collect();
        expected.sort();
        assert_eq!(seen, expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
    }
    let page = store.search(&Search { limit: 10, ..search("a") }).await.unwrap();
    let after = page.last().map(|found| found.position.clone());
    let before = ids(store.search(&Search { after: after.clone(), ..search("a") }).await.unwrap());
    // One that was seen changes, one that was not, and one is new: nothing moves, and the new one is not behind the place
    // that was reached.
    for (id, version) in [(&before[3], 1), (&page[0].position.session_id.clone(), 1), (&"ws_99".to_owned(), 0)] {
        let mut change = append(&session("a", id), version);
        let created_at_ms =
            page.iter().find(|found| found.position.session_id == *id).map(|found| found.position.created_at_ms);
        let number = id.trim_start_matches("ws_").parse::<i64>().unwrap();
        change.columns.created_at_ms = created_at_ms.unwrap_or(1_000 + number / 7);
        change.columns.updated_at_ms = 5_000;
        store.commit(change).await.unwrap();
    }
    let rest = ids(store.search(&Search { after, ..search("a") }).await.unwrap());
    assert_eq!(rest, before);
}

pub async fn a_summary_counts_and_measures_what_was_created_in_a_time(store: Arc<impl Store>) {
    for (id, status, created_at_ms, ended_at_ms, amount_minor, erased) in [
        ("ws_1", "completed", 1_000, 1_400, 500, false),
        ("ws_2", "completed", 1_100, 1_200, 700, false),
        ("ws_3", "expired", 1_200, 2_200, 900, false),
        ("ws_4", "expired", 1_300, 1_500, 100, false),
        ("ws_5", "pending", 1_400, 9_000, 100, false),
        ("ws_6", "failed", 1_500, 9_000, 100, false),
        ("ws_7", "expired", 1_600, 1_700, 100, true),
        ("too early", "completed", 999, 1_000, 1, false),
        ("too late", "completed", 2_000, 2_001, 1, false),
    ] {
        let change = created(id, |columns| {
            columns.status = status.to_owned();
            (columns.created_at_ms, columns.amount_minor, columns.erased) = (created_at_ms, amount_minor, erased);
            columns.completed_at_ms = (status == "completed").then_some(ended_at_ms);
            columns.expires_at_ms = if status == "completed" { 99_999 } else { ended_at_ms };
        });
        store.commit(change).await.unwrap();
    }
    let other = created("ws_8", |columns| {
        (columns.funnel_id, columns.step) = ("summer".to_owned(), "offer".to_owned());
        columns.currency = "USD".to_owned();
        columns.created_at_ms = 1_999;
    });
    store.commit(other).await.unwrap();
    store.commit(Append { key: session("b", "ws_1"), ..created("ws_1", |_| {}) }).await.unwrap();

    let of = SummaryOf { created_before_ms: 2_000, ..summary_of("a") };
    let Summary { mut groups, lifetimes } = store.summary(&of).await.unwrap();
    groups.sort();
    let group = |status: &str, erased, sessions, amount_minor| Group {
        status: status.to_owned(),
        step: "checkout".to_owned(),
        funnel_id: "default".to_owned(),
        funnel_version: "1".to_owned(),
        currency: "EUR".to_owned(),
        erased,
        sessions,
        amount_minor,
    };
    let summer = Group {
        step: "offer".to_owned(),
        funnel_id: "summer".to_owned(),
        currency: "USD".to_owned(),
        ..group("pending", false, 1, 1_999)
    };
    let expected = [
        group("completed", false, 2, 1_200),
        group("expired", false, 2, 1_000),
        group("expired", true, 1, 100),
        group("failed", false, 1, 100),
        group("pending", false, 1, 100),
        summer.clone(),
    ];
    assert_eq!(groups, expected);
    // 100, 200, 400 and 1000: the middle lies between the two in the middle.
    assert_eq!(lifetimes, Some(Lifetimes { sessions: 4, average_ms: 425.0, median_ms: 300.0 }));

    let odd = store.summary(&SummaryOf { created_from_ms: 1_100, ..of.clone() }).await.unwrap();
    assert_eq!(odd.lifetimes.map(|lifetimes| (lifetimes.sessions, lifetimes.median_ms)), Some((3, 200.0)));
    let one = store.summary(&SummaryOf { funnel_id: Some("summer".to_owned()), ..of.clone() }).await.unwrap();
    assert_eq!(one, Summary { groups: vec![summer], lifetimes: None });
    let none = store.summary(&SummaryOf { created_from_ms: 2_500, created_before_ms: 3_000, ..of }).await.unwrap();
    assert_eq!(none, Summary::default());
}
