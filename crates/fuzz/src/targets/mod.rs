//! The readers of input from outside.

mod client_address;
mod client_frame;
mod command;
mod funnel_file;
mod legacy_cookie;
mod legacy_entries;
mod legacy_storage;
mod origin;
mod server_frame;
mod service_configuration;
mod session_token;
mod stored_session;

use std::sync::LazyLock;

use throughline_core::json::Numbers;
use throughline_core::sync::Funnels as _;
use throughline_core::{Funnel, Timestamp};
use throughline_server::funnels::FunnelLibrary;

use crate::Target;

/// All of them.
pub const ALL: &[Target] = &[
    Target {
        name: "client_address",
        about: "X-Forwarded-For, and what an operator names as trusted proxies",
        run: client_address::run,
    },
    Target { name: "client_frame", about: "frames from browsers", run: client_frame::run },
    Target { name: "command", about: "commands, one after the other on one session", run: command::run },
    Target { name: "funnel_file", about: "funnel definitions, as TOML and as JSON", run: funnel_file::run },
    Target { name: "legacy_cookie", about: "the old shop's signed cookie", run: legacy_cookie::run },
    Target {
        name: "legacy_entries",
        about: "what the legacy systems have of a session, as it is imported",
        run: legacy_entries::run,
    },
    Target { name: "legacy_storage", about: "the localStorage of the old session manager", run: legacy_storage::run },
    Target { name: "origin", about: "the Origin header, and the list of allowed ones", run: origin::run },
    Target {
        name: "server_frame",
        about: "frames from servers, as a browser reads and uses them",
        run: server_frame::run,
    },
    Target { name: "service_configuration", about: "the server's configuration file", run: service_configuration::run },
    Target { name: "session_token", about: "session tokens, and what is sealed in them", run: session_token::run },
    Target {
        name: "stored_session",
        about: "states and records, as the database and the shared tier have them",
        run: stored_session::run,
    },
];

/// The time at which the targets live: noon in the year of the fixtures.
const NOW: Timestamp = Timestamp::from_millis(1_795_165_200_000);

/// Numbers with a fraction as `serde_json` has them, so that both ways of reading JSON can be compared.
const NUMBERS: Numbers = Numbers {
    read: |text| serde_json::from_str(text).unwrap_or(f64::NAN),
    write: |number| serde_json::to_string(&number).unwrap_or_default(),
};

static LIBRARY: LazyLock<FunnelLibrary> =
    LazyLock::new(|| FunnelLibrary::load(None).expect("the built-in funnel is sound"));

fn built_in_funnel() -> &'static Funnel {
    LIBRARY.find("default", None).expect("the built-in funnel is called default").funnel
}

/// The longest sentence that a refusal may have: it is recorded with the session, and sent to those who follow it.
const LONGEST_SENTENCE: usize = 2_000;
