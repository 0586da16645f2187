//! How far both sides agree, as a page.

use maud::{DOCTYPE, Markup, html};

use crate::store::OTHERS;

use super::{ParityDocument, ParityOfField, ParityOfRoute};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1b2b;\
    background:#fff}table{border-collapse:collapse;width:100%;margin:0 0 2rem}caption{text-align:left;font-weight:600;\
    padding:.5rem 0}th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ccd;vertical-align:top;\
    overflow-wrap:anywhere}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.bar{display:flex;height:.75rem;\
    background:#e8e8f0;border-radius:.2rem;overflow:hidden;min-width:8rem}.bar i{display:block}.same{background:#1a7f4b}\
    .other{background:#b3261e}.failed{background:#8a5a00}details{margin:0 0 1rem}summary{cursor:pointer;padding:.3rem 0}\
    .mode{display:inline-block;padding:0 .5rem;border-radius:.2rem;background:#e8e8f0}";

pub(super) fn document(parity: &ParityDocument) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Parity of the routes" }
                style { (STYLE) }
            }
            body {
                main {
                    h1 { "Parity of the routes" }
                    p {
                        "How far the legacy systems and the unified session agree, as of " (parity.as_of.to_string())
                        ". Times are in UTC; personal data is masked."
                    }
                    @if parity.routes.is_empty() {
                        p { "No route has a mode yet, and nothing was compared." }
                    } @else {
                        (overview(&parity.routes))
                        @if parity.routes.iter().any(|route| route.route == OTHERS) {
                            p { "There are more routes than are counted one by one: the rest is " (OTHERS) "." }
                        }
                        @for route in parity.routes.iter().filter(|route| !route.fields.is_empty()) { (differences(route)) }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn overview(routes: &[ParityOfRoute]) -> Markup {
    html! {
        table {
            caption { "Routes" }
            thead {
                tr {
                    th scope="col" { "Route" } th scope="col" { "Mode" } th scope="col" { "Agreement" }
                    th scope="col" class="n" { "The same" } th scope="col" class="n" { "Different" }
                    th scope="col" class="n" { "Legacy failed" } th scope="col" class="n" { "Unified failed" }
                    th scope="col" { "Since" }
                }
            }
            tbody {
                @for route in routes {
                    tr {
                        th scope="row" { (route.route) }
                        td { span class="mode" { (route.mode.as_str()) } }
                        td { (bar(route)) }
                        td class="n" { (route.equal) } td class="n" { (route.different) }
                        td class="n" { (route.legacy_failed) } td class="n" { (route.unified_failed) }
                        td { @if let Some(since) = route.since { (since.to_string()) } }
                    }
                }
            }
        }
    }
}

/// The shares, drawn. What it shows stands in the columns beside it as well.
fn bar(route: &ParityOfRoute) -> Markup {
    let failed = route.legacy_failed + route.unified_failed;
    let all = route.equal + route.different + failed;
    let share = |part: u64| if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 };
    let said =
        if all == 0 { "nothing was compared".to_owned() } else { format!("{:.2} % the same", share(route.equal)) };
    let width = |part: u64| format!("width:{:.3}%", share(part));
    html! {
        div class="bar" role="img" aria-label=(said) {
            i class="same" style=(width(route.equal)) {}
            i class="other" style=(width(route.different)) {}
            i class="failed" style=(width(failed)) {}
        }
        (said)
    }
}

fn differences(route: &ParityOfRoute) -> Markup {
    html! {
        section {
            h2 { (route.route) }
            @if route.fields.iter().any(|field| field.field == OTHERS) {
                p { "More fields differ than are counted one by one: the rest is " (OTHERS) "." }
            }
            @for field in &route.fields { (examples(field)) }
        }
    }
}

fn examples(field: &ParityOfField) -> Markup {
    html! {
        details {
            summary { strong { (field.field) } ": " (field.times) " times, last " (field.last_at.to_string()) }
            table {
                caption { "The latest differences of " (field.field) ", first seen " (field.first_at.to_string()) }
                thead {
                    tr {
                        th scope="col" { "When" } th scope="col" { "Session" } th scope="col" { "Legacy" } th scope="col" { "Unified" }
                    }
                }
                tbody {
                    @for example in &field.examples {
                        tr {
                            td { (example.at.to_string()) }
                            td { @if let Some(id) = &example.session_id { (id) } }
                            td { (example.legacy) }
                            td { (example.unified) }
                        }
                    }
                }
            }
        }
    }
}
