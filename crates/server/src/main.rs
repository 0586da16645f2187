//! The `throughline` command.

/// The system's own keeps what was freed in many small pieces and is slower: docs/decisions/0009-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    throughline_server::cli::run()
}
