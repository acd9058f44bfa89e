//! The command line: one file per command. Nothing outside this module prints.

mod advice;
mod allocation;
mod args;
mod bench;
mod calibrate;
mod compare;
mod convert;
mod demo;
mod edit;
mod eval;
mod foreign;
mod frontier;
mod inspect;
mod json;
mod logits;
mod memory;
mod outcome;
mod progress;
mod run;
mod sensitivity;
mod split;
mod template;
#[cfg(test)]
mod tests;
mod usage;
mod verify;

use std::fmt::{Display, Write as _};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use ggufkit::disk::{Output, RunFiles};
use ggufkit::text::{escaped, is_hidden, message, visible, with_short_words};
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
    /// Convert and quantize the bundled model in several ways, and show the size and quality of each result.
    Demo(demo::Demo),
    /// Convert a model to another format, tensor type or byte order.
    Convert(Box<convert::Convert>),
    /// Quantize a model: write it with fewer bits per weight.
    Quantize(Box<convert::Quantize>),
    /// Measure an importance matrix on a calibration set, for `quantize --imatrix`.
    Calibrate(calibrate::Calibrate),
    /// Measure how much an error in each matrix raises the KL divergence, for `quantize --fit`.
    Sensitivity(sensitivity::Sensitivity),
    /// Show the lowest predicted KL divergence at every file size, next to that of each scheme.
    Frontier(frontier::Frontier),
    /// Show a model's format, metadata, tensors and memory use.
    Inspect(inspect::Inspect),
    /// Check that a model's files are intact, or compare its weights with another model's.
    Verify(verify::Verify),
    /// Measure a model's perplexity on a text, and its KL divergence from a reference model.
    Eval(eval::Eval),
    /// Compare quantized models with their original: quality, size and speed, as a table or an HTML page.
    Compare(compare::Compare),
    /// Generate text with a model, from a prompt or in a chat.
    Run(run::Run),
    /// Measure the speed of prompt processing and text generation on this machine.
    Bench(bench::Bench),
    /// Write the logits that a model computes after each of the given tokens.
    Logits(logits::Logits),
    /// Split a model into several files (shards).
    Split(split::Split),
    /// Merge the shards of a split model into one file.
    Merge(split::Merge),
    /// Write a copy of a model with changed metadata.
    Edit(edit::Edit),
}

/// The program as clap knows it.
fn program() -> clap::Command {
    Cli::command()
}

/// Runs the program. The exit code is 0 on success, 1 for an error, 2 for wrong usage and 3 for a limit that was missed.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == template::ARGUMENT) {
        return template::main();
    }
    limit_malloc_arenas();
    #[cfg(unix)]
    ggufkit::disk::signals::speak();
    let parsed = usage::parse(program()).and_then(|matches| match Cli::from_arg_matches(&matches) {
        Ok(cli) => Ok((matches, cli)),
        Err(e) => Err(usage::printed(&e.format(&mut program()))),
    });
    let (matches, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    advice::runs(program(), &matches);
    #[cfg(unix)]
    memory::advise();
    raise_open_file_limit();
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
        Err(e) => fail(&e),
    }
}

/// Prints an error and what can be done about it to standard error. Gives the code to exit with.
fn fail(e: &Error) -> ExitCode {
    // If standard error is closed, there is no way to report anything.
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "ggufkit: {}", message(&e.to_string()));
    if let Some(hint) = e.hint().and_then(|hint| advice::hint(&hint)) {
        let _ = writeln!(err, "  hint: {}", message(&hint));
    }
    ExitCode::from(e.exit_code())
}

/// glibc reserves 64 MiB of address space per thread for its heaps. If the address space is limited (`ulimit -v`), the
/// model needs that space: the program restarts itself with `MALLOC_ARENA_MAX=1`.
fn limit_malloc_arenas() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit};
        use std::os::unix::process::CommandExt;
        const ARENAS: &str = "MALLOC_ARENA_MAX";
        if getrlimit(Resource::As).current.is_none() || std::env::var_os(ARENAS).is_some() {
            return;
        }
        if let Ok(program) = std::env::current_exe() {
            // `exec` returns only if it fails; then the program continues with the reserved space.
            let _ =
                std::process::Command::new(program).args(std::env::args_os().skip(1)).env(ARENAS, "1").exec();
        }
    }
}

/// Raises the limit of open files: a split model may have more shards than the default allows.
fn raise_open_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // If the system refuses, models with fewer shards still work.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Prints a note to standard error, where it is in nobody's way. If that is closed, there is no way to report anything.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "note: {}", message(&advice::note(text)));
}

/// Claims a file that a command is to write, and prints a note if it takes the place of another.
///
/// # Errors
/// Those of [`RunFiles::claim`].
fn claim(run: &RunFiles, path: &Path, output: Output) -> Result<()> {
    run.claim(path, output)?.note.iter().for_each(|text| note(text));
    Ok(())
}

/// Prints to standard output, line by line: a table may have a row for each of a million tensors. Names, notes and paths from
/// files are part of the text: whatever a terminal would act on is escaped here, but for line breaks and tabs. A closed pipe
/// (`| head`) is not an error.
///
/// # Errors
/// [`Error::Io`] if the text cannot be written, for example because the disk is full.
fn print(text: &(impl Display + ?Sized)) -> Result<()> {
    let mut lines = Lines { out: BufWriter::new(std::io::stdout().lock()), line: String::new(), error: None };
    // What goes wrong is in `lines`.
    let _ = write!(lines, "{text}");
    lines.end_line();
    let done = lines.error.map_or_else(|| lines.out.flush(), Err);
    match done {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("standard output".as_ref(), "write", e))
        }
        _ => Ok(()),
    }
}

/// Text on its way to a file, of which one line is kept.
struct Lines<W> {
    out: W,
    line: String,
    /// What went wrong first.
    error: Option<std::io::Error>,
}

impl<W: Write> Lines<W> {
    /// Writes the line that is kept, as it may be shown.
    fn end_line(&mut self) {
        let line = with_short_words(&escaped(&self.line, |c| is_hidden(c) && !matches!(c, '\n' | '\t')));
        self.line.clear();
        if let Err(e) = self.out.write_all(line.as_bytes()) {
            self.error.get_or_insert(e);
        }
    }
}

impl<W: Write> std::fmt::Write for Lines<W> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for part in text.split_inclusive('\n') {
            self.line += part;
            if part.ends_with('\n') {
                self.end_line();
            }
        }
        if self.error.is_some() { Err(std::fmt::Error) } else { Ok(()) }
    }
}

/// A path as it is shown: in one line, whatever its name.
fn shown(path: &Path) -> String {
    visible(&path.display().to_string())
}
