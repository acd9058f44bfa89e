//! `ggufkit calibrate`: measures an importance matrix on a calibration set, for `quantize --imatrix`.

use std::path::{Path, PathBuf};

use calibration::imatrix::HASH;
use calibration::{Statistics, imatrix};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};

use super::args::{Input, Resources, at_least_one};
use super::json::{Filled, List, print_json};
use super::progress::Progress;
use super::{claim, note, print};
use ggufkit::calibrate::{ChunkLength, Chunks, DEFAULT_CONTEXT, Scratch, importance};
use ggufkit::disk::{self, Output, RunFiles};
use ggufkit::plan::rounding;
use ggufkit::report::imatrix::{as_json, by_kind, entries, headline, remarks, table};
use ggufkit::resources::Watcher;
use ggufkit::runner::{Network, Options};
use ggufkit::source::Source;
use ggufkit::text::listed;
use ggufkit::{Error, Result};

/// `ggufkit calibrate`: measures an importance matrix, merges several, or shows one.
#[derive(Debug)]
pub struct Calibrate {
    files: Files,
    /// `None` if no model is given.
    measuring: Option<Box<Measuring>>,
    /// The options given that are for measuring.
    for_measuring: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit calibrate model.gguf builtin -o imatrix.gguf            the bundled text of many kinds
  ggufkit calibrate model/ book.txt chat.txt -o imatrix.gguf      texts like those that the model will see
  ggufkit calibrate model.gguf more.txt --merge imatrix.gguf -o imatrix.gguf
  ggufkit calibrate --merge a.gguf --merge b.dat -o both.gguf     without a model: merges files
  ggufkit calibrate --show imatrix.gguf
  ggufkit quantize model.gguf small.gguf --type q4_k_m --imatrix imatrix.gguf")]
struct Files {
    /// The importance matrix to write: .gguf as llama-imatrix writes it, or .dat (its older format)
    #[arg(short, long, value_name = "FILE", required_unless_present = "show")]
    out: Option<PathBuf>,
    /// Format of the importance matrix [default: .dat for a name that ends in .dat, otherwise gguf]
    #[arg(long, value_enum)]
    format: Option<Kind>,
    /// Add this importance matrix, measured on the same model with another text or other chunks; may be repeated
    #[arg(long, value_name = "FILE")]
    merge: Vec<PathBuf>,
    /// Print every entry of an importance matrix and exit
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "out", "format", "merge"])]
    show: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Measuring {
    #[command(flatten)]
    input: Input,
    /// The calibration set: text files, each cut into chunks separately, or `builtin` for the bundled text of many kinds
    #[arg(value_name = "TEXT", index = 2)]
    text: Vec<PathBuf>,
    /// Context length in tokens of each chunk [default: 512, or the model's context length if that is shorter]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    context: Option<u32>,
    /// Use at most this many chunks [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    chunks: Option<usize>,
    /// Skip the first N chunks; with --merge, this continues where an earlier run ended
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_chunk: usize,
    /// Also measure the inputs of the output matrix
    #[arg(long)]
    output_matrix: bool,
    #[command(flatten)]
    resources: Resources,
}

/// A format of importance matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The format that llama-imatrix writes now
    Gguf,
    /// Its older format, which keeps only means over all experts
    Dat,
}

impl FromArgMatches for Calibrate {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let measuring = matches.contains_id("input").then(|| Measuring::from_arg_matches(matches));
        let given = |arg: &clap::Arg| {
            let name = arg.get_long()?;
            let source = matches.value_source(arg.get_id().as_str());
            (source == Some(ValueSource::CommandLine)).then(|| format!("--{name}"))
        };
        let of_measuring = Measuring::augment_args(clap::Command::new("calibrate"));
        Ok(Self {
            files: Files::from_arg_matches(matches)?,
            measuring: measuring.transpose()?.map(Box::new),
            for_measuring: of_measuring.get_arguments().filter_map(given).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Calibrate {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = Files::augment_args(Measuring::augment_args(command));
        let memory = "Memory for the activations of the calibration set; the rest goes to temporary files in the folder of FILE";
        command
            .override_usage(
                "ggufkit calibrate [OPTIONS] --out <FILE> <IN> <TEXT>...\n       \
                 ggufkit calibrate --show <FILE> [--json]",
            )
            .mut_arg("input", |a| a.required(false).index(1)) // without an index, clap would expect it after the texts
            .mut_arg("memory", |a| a.help(memory))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl Calibrate {
    pub fn run(self) -> Result<()> {
        let Self { files, measuring, for_measuring } = self;
        if measuring.is_none() && !for_measuring.is_empty() {
            let (given, are) = (listed(&for_measuring), if for_measuring.len() > 1 { "are" } else { "is" });
            let without = "no model is named to measure";
            return Err(Error::usage(format!("{given} {are} for measuring, and {without}")).or(match files
                .show
                .is_some()
            {
                true => format!("leave out {given}"),
                false => format!("leave out {given}; or name a model and a text"),
            }));
        }
        if let Some(path) = &files.show {
            let statistics = read(&RunFiles::default(), path)?;
            return match files.json {
                true => print_statistics(&statistics),
                false => print(&format!(
                    "{}\n\n{}{}",
                    headline(&statistics),
                    table(&statistics),
                    remarks(&statistics)
                )),
            };
        }
        let out = files.out.as_deref().expect("clap requires --out unless --show is given");
        // Problems with the output file are reported before the long measurement.
        let run = measuring.as_ref().map_or_else(RunFiles::default, |m| m.input.run.clone());
        if let Some(measuring) = &measuring {
            run.note(&measuring.input.input)?; // it is opened later
        }
        claim(&run, out, OUT)?;
        // The result may replace what it is added to: that is read as a whole before, in a run of its own.
        let earlier: Vec<_> =
            files.merge.iter().map(|path| read(&RunFiles::default(), path)).collect::<Result<_>>()?;
        refuse_twice(&earlier)?;
        let mut statistics = match measuring {
            Some(measuring) => measuring.run(out, earlier)?,
            None if earlier.is_empty() => {
                return Err(Error::usage("no model to measure").or(
                    "name a model and a text, or importance matrices to merge: --merge FILE --merge FILE",
                ));
            }
            None => sum(earlier)?,
        };
        let dat = out.extension().is_some_and(|e| e.eq_ignore_ascii_case("dat"));
        statistics.file = out.display().to_string();
        let bytes = match files.format.unwrap_or(if dat { Kind::Dat } else { Kind::Gguf }) {
            Kind::Gguf => imatrix::write(&statistics)?,
            Kind::Dat => imatrix::legacy::write(&statistics)?,
        };
        run.write_whole(out, &bytes, OUT)?;
        match files.json {
            true => print_statistics(&statistics),
            false => print(&format!(
                "{}\n\n{}{}",
                headline(&statistics),
                by_kind(&statistics),
                remarks(&statistics)
            )),
        }
    }
}

impl Measuring {
    /// Measures the importance matrix and adds the earlier ones to it.
    ///
    /// # Errors
    /// [`Error::Usage`] without a text, and errors of reading the model, the texts and `earlier`.
    fn run(&self, out: &Path, mut earlier: Vec<Statistics>) -> Result<Statistics> {
        if self.text.is_empty() {
            return Err(Error::usage("no calibration set given")
                .or("name one or more text files like the texts that the model will see, or `builtin`"));
        }
        let source = self.input.open_to_run()?;
        earlier.iter().try_for_each(|statistics| of_model(statistics, &source))?;
        let given = self.context.map(|n| n as usize);
        let option = "--context";
        let (tokens, about) = source.chunk_length(given, DEFAULT_CONTEXT, option);
        let context = ChunkLength { tokens, option };
        let chunks = Chunks::read_all(&source, &self.text, context, self.from_chunk, self.chunks)?;
        about.iter().chain(&chunks.notes).for_each(|text| note(text));
        earlier.iter().filter_map(|e| self.again(e, &chunks)).for_each(|text| note(&text));
        let limits = self.resources.limits();
        let pool = limits.pool()?;
        let network = pool.install(|| Network::new(&source, Options { exact: true, isa: None }))?;
        let folder = disk::folder(out);
        let scratch = Scratch { memory: limits.memory, folder: folder.to_path_buf() };
        let (progress, depth) = (Progress::new(), network.depth());
        progress.layers(0, depth);
        let measured = pool.install(|| {
            importance::measure(&network, &chunks, &scratch, self.output_matrix, &mut |layer| {
                progress.layers(layer + 1, depth)
            })
        });
        progress.finished();
        let mut measured = measured?;
        measured.file = source.path.display().to_string();
        if let Some(same) = earlier.iter().find(|e| e.is_of_the_same(&measured)) {
            let why = format!("{} holds what was measured now, which would count twice", same.file);
            return Err(Error::usage(why).or(
                "leave out --merge, for a new file of the same; or add another text, or --from-chunk N",
            ));
        }
        importance::sign(&mut measured, &source)?;
        earlier.push(measured);
        sum(earlier)
    }

    /// A note if an earlier importance matrix may be of chunks that are measured again.
    fn again(&self, earlier: &Statistics, chunks: &Chunks) -> Option<String> {
        let of_this_text = earlier.metadata.text(HASH) == Some(&chunks.hash);
        let read = earlier.chunks.filter(|&n| of_this_text && (self.from_chunk as u64) < n)?;
        Some(format!(
            "{} is of {read} chunks of the same text: those that are read again count twice; if it is of the first ones, \
             --from-chunk {read} reads those after them",
            earlier.file
        ))
    }
}

/// Refuses importance matrices of the same measurements, whatever their files: the same text would count twice.
///
/// # Errors
/// [`Error::Usage`] with two of them.
fn refuse_twice(all: &[Statistics]) -> Result<()> {
    for (i, a) in all.iter().enumerate() {
        if let Some(b) = all[..i].iter().find(|b| b.is_of_the_same(a)) {
            let why = match a.file == b.file {
                true => format!("--merge {} is given twice, and its measurements would count twice", a.file),
                false => format!(
                    "--merge {} and --merge {}: both hold the same measurements, which would count twice",
                    b.file, a.file
                ),
            };
            return Err(Error::usage(why).or("leave out one of them"));
        }
    }
    Ok(())
}

/// The result.
const OUT: Output = Output::result("--out", "an importance matrix", "imatrix.gguf");

/// Prints the statistics as JSON, one entry after another.
fn print_statistics(statistics: &Statistics) -> Result<()> {
    let entries = List(|| entries(statistics));
    print_json(&Filled { rest: &as_json(statistics), first: ("entries", entries), second: ("", ()) })
}

/// Reads an importance matrix: [`importance::read`].
///
/// # Errors
/// Those of [`importance::read`].
pub fn read(run: &RunFiles, path: &Path) -> Result<Statistics> {
    importance::read(run, path, false)
}

/// Merges importance matrices; `all` is not empty.
fn sum(all: Vec<Statistics>) -> Result<Statistics> {
    let mut all = all.into_iter();
    let mut sum = all.next().expect("something was measured or read");
    for next in all {
        sum.merge(&next)?;
    }
    Ok(sum)
}

/// Checks that an importance matrix belongs to a model.
///
/// # Errors
/// [`Error::Refused`] if no tensor's name is in both, [`Error::Statistics`] if a size differs; those of
/// [`importance::check`].
pub fn of_model(statistics: &Statistics, source: &Source) -> Result<()> {
    let mut known = 0;
    for t in &source.model.tensors {
        known += usize::from(statistics.importance(&t.name, &t.shape)?.is_some());
    }
    if known == 0 {
        let why = format!("{} contains none of the tensors of {}", statistics.file, source.path.display());
        return Err(Error::refused(why).or("use an importance matrix that was measured on the same model"));
    }
    rounding::strangers(statistics, &source.model.tensors).iter().for_each(|text| note(text));
    importance::check(statistics, source)?.iter().for_each(|text| note(text));
    Ok(())
}
