//! A target under libFuzzer. Its name stands in `THROUGHLINE_FUZZ_TARGET`, as libFuzzer takes the arguments for itself.
#![no_main]

use std::sync::LazyLock;

use throughline_fuzz::Target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("THROUGHLINE_FUZZ_TARGET").unwrap_or_default();
    throughline_fuzz::find(&name).expect("THROUGHLINE_FUZZ_TARGET names a target; `throughline-fuzz list` shows them")
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = (TARGET.run)(input);
});
