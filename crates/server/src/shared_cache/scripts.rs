//! The Lua scripts: what must happen in Redis as one step.

use std::sync::LazyLock;

/// One script, with what `EVALSHA` calls it.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) code: &'static str,
    hash: LazyLock<String>,
    /// What it does, for logs and metrics.
    pub(super) operation: &'static str,
}

impl Script {
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }
}

macro_rules! script {
    ($name:ident, $operation:literal) => {
        pub(super) static $name: Script = Script {
    code: script!(code $operation),
    hash: LazyLock::new(|| redis::Script::new(script!(code $operation)).get_hash().to_owned()),
            operation: $operation,
        };
    };
    (code $operation:literal) => {
        concat!(include_str!("scripts/prelude.lua"), "\n", include_str!(concat!("scripts/", $operation, ".lua")))
    };
}

script!(LOAD, "load");
script!(SHARE, "share");
script!(SETTLE, "settle");
script!(FILL, "fill");
script!(OUTDATED, "outdated");
script!(REMOVE, "remove");
script!(DISCARD, "discard");
script!(TAKE, "take");
script!(PUBLISH, "publish");
