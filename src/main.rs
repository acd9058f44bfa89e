//! The `ggufkit` program.

fn main() -> std::process::ExitCode {
    ggufkit::cli::main()
}
