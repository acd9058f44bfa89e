//! The command line of ggufkit.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
