//! An export as a page that a buyer can read or print.

use maud::{DOCTYPE, Markup, html};
use serde_json::Value;
use throughline_core::Record;

use super::export::{Export, ExportedSession};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b2b;\
    background:#fff}table{border-collapse:collapse;width:100%;margin:0 0 2rem}caption{text-align:left;font-weight:600;\
    padding:.5rem 0}th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ccd;vertical-align:top;\
    overflow-wrap:anywhere}th[scope=row]{width:14rem}ul{margin:0;padding-left:1.2rem}";

/// The page.
///
/// # Errors
/// When something of the export can't be written as JSON.
pub(super) fn document(export: &Export) -> Result<String, serde_json::Error> {
    let sessions = export.sessions.iter().map(|session| section(session, export)).collect::<Result<Vec<_>, _>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Your data" }
                style { (STYLE) }
            }
            body {
                main {
                    h1 { "Your data" }
                    p {
                        "All that this shop's checkout knows of you, as of " (export.as_of.to_string()) ". Times are in UTC, amounts \
                         in the smallest unit of the currency (cents)."
                    }
                    @if sessions.is_empty() { p { "There is nothing." } }
                    @for session in &sessions { (session) }
                }
            }
        }
    };
    Ok(page.into_string())
}

fn section(exported: &ExportedSession, export: &Export) -> Result<Markup, serde_json::Error> {
    let ExportedSession { session, hold, erased_at, history } = exported;
    let fields = serde_json::to_value(session)?;
    let history = history.iter().map(event).collect::<Result<Vec<_>, _>>()?;
    Ok(html! {
        section {
            h2 { "Order session " (session.id.as_str()) }
            @if let Some(erased_at) = erased_at { p { "Your personal data in it was erased at " (erased_at.to_string()) "." } }
            @if let Some(hold) = hold {
                p {
                    "It is kept"
                    @if let Some(until) = hold.until { " until " (until.to_string()) }
                    ": " (hold.reason)
                }
            }
            table {
                caption { "What is known, and what for" }
                thead { tr { th scope="col" { "Field" } th scope="col" { "Value" } th scope="col" { "What it is for" } } }
                tbody {
                    @for field in &export.fields {
                        @let value = fields.get(field.field).unwrap_or(&Value::Null);
                        @if !is_nothing(value) {
                            tr { th scope="row" { (field.field) } td { (shown(value)) } td { (field.purpose) } }
                        }
                    }
                }
            }
            table {
                caption { "What happened" }
                thead { tr { th scope="col" { "When" } th scope="col" { "By" } th scope="col" { "What" } th scope="col" { "Details" } } }
                tbody { @for event in &history { (event) } }
            }
        }
    })
}

fn event(record: &Record) -> Result<Markup, serde_json::Error> {
    let mut details = serde_json::to_value(&record.event)?;
    if let Some(members) = details.as_object_mut() {
        members.remove("type");
    }
    let network = record.caller.as_ref().and_then(|caller| caller.network.as_deref());
    Ok(html! {
        tr {
            td { (record.at.to_string()) }
            td { (record.by.as_str()) @if let Some(network) = network { ", from " (network) } }
            td { (record.event.kind()) }
            td { (shown(&details)) }
        }
    })
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_nothing),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A value as text and lists.
fn shown(value: &Value) -> Markup {
    match value {
        Value::String(text) => html! { (text) },
        Value::Array(items) => html! { ul { @for item in items { li { (shown(item)) } } } },
        Value::Object(members) => html! {
            ul { @for (name, value) in members { @if !is_nothing(value) { li { (name) ": " (shown(value)) } } } }
        },
        value => html! { (value.to_string()) },
    }
}
