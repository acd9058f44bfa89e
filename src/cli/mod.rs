//! The command line: one file per command. The only place that prints.

mod allocation;
mod args;
mod bench;
mod calibrate;
mod compare;
mod convert;
mod demo;
mod edit;
mod eval;
mod frontier;
mod inspect;
mod logits;
mod outcome;
mod progress;
mod run;
mod sensitivity;
mod split;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use ggufkit::text::visible;
use ggufkit::{Error, Result};
use kernels::Isa;

/// Convert and quantize language-model weights: GGUF, safetensors and llama2.c, in either byte order.
#[derive(Debug, Parser)]
#[command(name = "ggufkit", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Convert and quantize the model that comes with ggufkit, and show what that does to it.
    Demo(demo::Demo),
    /// Write a model in another format, type or byte order.
    Convert(Box<convert::Convert>),
    /// Write a model with its weights packed in fewer bits.
    Quantize(Box<convert::Quantize>),
    /// Measure on a text which weights of a model count, for quantize --imatrix.
    Calibrate(calibrate::Calibrate),
    /// Measure on a text what an error in each matrix does to the predictions, for quantize --fit.
    Sensitivity(sensitivity::Sensitivity),
    /// Show what every size of a model would cost, and what the usual schemes do.
    Frontier(frontier::Frontier),
    /// Show what a model's files say.
    Inspect(inspect::Inspect),
    /// Check a model's files; compare its weights with another's.
    Verify(verify::Verify),
    /// Measure a model's perplexity, and how far it is from another's predictions.
    Eval(eval::Eval),
    /// Compare models with the one they were made of: quality, size and speed, as a table and a page.
    Compare(compare::Compare),
    /// Let a model write: go on with a text, or answer in a chat.
    Run(run::Run),
    /// Measure how fast a model runs on this machine.
    Bench(bench::Bench),
    /// Write the logits behind given tokens.
    Logits(logits::Logits),
    /// Cut a model into several files.
    Split(split::Split),
    /// Make one file of a split model.
    Merge(split::Merge),
    /// Write a model with changed metadata.
    Edit(edit::Edit),
}

/// Runs the program.
pub fn main() -> ExitCode {
    spare_addresses();
    let cli = Cli::parse(); // exits with 2 itself if the arguments are wrong
    allow_many_files();
    let result = Isa::chosen().map_err(Error::usage).and_then(|_| match cli.command {
        Command::Demo(c) => c.run(),
        Command::Convert(c) => c.run(),
        Command::Quantize(c) => c.run(),
        Command::Calibrate(c) => c.run(),
        Command::Sensitivity(c) => c.run(),
        Command::Frontier(c) => c.run(),
        Command::Inspect(c) => c.run(),
        Command::Verify(c) => c.run(),
        Command::Eval(c) => c.run(),
        Command::Compare(c) => c.run(),
        Command::Run(c) => c.run(),
        Command::Bench(c) => c.run(),
        Command::Logits(c) => c.run(),
        Command::Split(c) => c.run(),
        Command::Merge(c) => c.run(),
        Command::Edit(c) => c.run(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Nobody listens to the other end of a closed pipe, and nothing is to be done about it.
            let mut err = std::io::stderr().lock();
            let _ = writeln!(err, "ggufkit: {}", visible(&e.to_string()));
            if let Some(hint) = e.hint() {
                let _ = writeln!(err, "  hint: {}", visible(&hint));
            }
            ExitCode::from(e.exit_code())
        }
    }
}

/// glibc sets 64 MiB of addresses aside for each thread. Where a limit is put on them (`ulimit -v`), a model needs them more:
/// the program starts once more, and is told to do without.
fn spare_addresses() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit};
        use std::os::unix::process::CommandExt;
        const ARENAS: &str = "MALLOC_ARENA_MAX";
        if getrlimit(Resource::As).current.is_none() || std::env::var_os(ARENAS).is_some() {
            return;
        }
        if let Ok(program) = std::env::current_exe() {
            // Comes back only if it cannot be; then it goes on as it is.
            let _ =
                std::process::Command::new(program).args(std::env::args_os().skip(1)).env(ARENAS, "1").exec();
        }
    }
}

/// A split may have more parts than a process may open files by default.
fn allow_many_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // Where it is not granted, fewer files will do for most.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Prints to stdout. A reader that has gone away (`| head`) is no error; a full disk is.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("standard output".as_ref(), "write", e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        super::Cli::command().debug_assert();
    }
}
