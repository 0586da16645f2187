//! The `throughline` command.

fn main() -> std::process::ExitCode {
    throughline_server::cli::run()
}
