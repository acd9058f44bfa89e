//! `ggufkit calibrate`: what makes a model's inputs large, measured on a text, in a file for `quantize --imatrix`.

use std::path::{Path, PathBuf};

use calibration::{Statistics, imatrix};
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};

use super::args::{Input, Resources};
use super::print;
use super::progress::Progress;
use ggufkit::calibrate::{Chunks, Scratch, importance};
use ggufkit::disk::refuse_overwriting;
use ggufkit::disk::{self, InFile, NewFile};
use ggufkit::report::imatrix::{as_json, by_kind, headline, remarks, table};
use ggufkit::resources::Watcher;
use ggufkit::runner::{Network, Options};
use ggufkit::source::Source;
use ggufkit::{Error, Result};

/// `ggufkit calibrate`: measures, adds files up, or shows one.
#[derive(Debug)]
pub struct Calibrate {
    files: Files,
    /// `None` where there is no model.
    measuring: Option<Box<Measuring>>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit calibrate model.gguf builtin -o imatrix.gguf            a text of many kinds comes with ggufkit
  ggufkit calibrate model/ book.txt chat.txt -o imatrix.gguf      texts like those that the model will see
  ggufkit calibrate model.gguf more.txt --merge imatrix.gguf -o imatrix.gguf
  ggufkit calibrate --merge a.gguf --merge b.dat -o both.gguf     without a model: files added up
  ggufkit calibrate --show imatrix.gguf
  ggufkit quantize model.gguf small.gguf --type q4_k_m --imatrix imatrix.gguf")]
struct Files {
    /// The file: a GGUF as llama-imatrix writes it, or .dat, the older kind
    #[arg(short, long, value_name = "FILE", required_unless_present = "show")]
    out: Option<PathBuf>,
    /// The kind of file, if not by its ending
    #[arg(long, value_enum)]
    format: Option<Kind>,
    /// Add what this file has of the model, measured on another text or other chunks; may be repeated
    #[arg(long, value_name = "FILE")]
    merge: Vec<PathBuf>,
    /// Show what a file says of every matrix, and do nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "out", "format", "merge"])]
    show: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Measuring {
    #[command(flatten)]
    input: Input,
    /// Texts, each of which is cut into chunks by itself; or `builtin`, a text of many kinds that ggufkit has in it
    #[arg(value_name = "TEXT", index = 2)]
    text: Vec<PathBuf>,
    /// Tokens of a chunk
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    context: u32,
    /// Most chunks
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Begin behind the first N chunks: to go on with --merge where an earlier run ended
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_chunk: usize,
    /// Measure the input of the output matrix too
    #[arg(long)]
    output_matrix: bool,
    #[command(flatten)]
    resources: Resources,
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// What llama-imatrix writes now
    Gguf,
    /// What it wrote before: means only, of all experts together
    Dat,
}

impl FromArgMatches for Calibrate {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let measuring = matches.contains_id("input").then(|| Measuring::from_arg_matches(matches));
        Ok(Self { files: Files::from_arg_matches(matches)?, measuring: measuring.transpose()?.map(Box::new) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Calibrate {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = Files::augment_args(Measuring::augment_args(command));
        let memory =
            "Most memory for the vectors of the text's tokens; more are kept in FILE's folder meanwhile";
        command
            .override_usage(
                "ggufkit calibrate [OPTIONS] --out <FILE> <IN> <TEXT>...\n       \
                 ggufkit calibrate --show <FILE> [--json]",
            )
            .mut_arg("input", |a| a.required(false).index(1)) // changing it would put it behind the texts
            .mut_arg("memory", |a| a.help(memory))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl Calibrate {
    pub fn run(self) -> Result<()> {
        let Self { files, measuring } = self;
        if let Some(path) = &files.show {
            let statistics = read(path)?;
            return print(&if files.json {
                format!("{:#}\n", as_json(&statistics))
            } else {
                format!("{}\n\n{}{}", headline(&statistics), table(&statistics), remarks(&statistics))
            });
        }
        let out = files.out.as_deref().expect("without --show, there is a file to be written");
        // What would spoil the end is said before the work.
        if out.is_dir() {
            let why = format!("{} is a folder", out.display());
            let file = out.join("imatrix.gguf");
            return Err(Error::refused(why).or(format!("name a file: -o {}", file.display())));
        }
        drop(NewFile::create(out, 0)?);
        let earlier: Vec<_> = files.merge.iter().map(|path| read(path)).collect::<Result<_>>()?;
        let mut statistics = match measuring {
            Some(measuring) => measuring.run(out, earlier)?,
            None if earlier.is_empty() => {
                return Err(Error::usage("no model to measure").or(
                    "name a model and a text, or files that are to be added up: --merge FILE --merge FILE",
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
        disk::write_whole(out, &bytes)?;
        print(&if files.json {
            format!("{:#}\n", as_json(&statistics))
        } else {
            format!("{}\n\n{}{}", headline(&statistics), by_kind(&statistics), remarks(&statistics))
        })
    }
}

impl Measuring {
    /// Measures, and adds that to what was measured earlier.
    fn run(&self, out: &Path, mut earlier: Vec<Statistics>) -> Result<Statistics> {
        if self.text.is_empty() {
            return Err(Error::usage("no text to measure on")
                .or("name a text like those that the model will see, or several, or say `builtin`"));
        }
        let source = self.input.open()?;
        refuse_overwriting(out, source.paths().chain(self.text.iter().map(|p| &**p)))?;
        earlier.iter().try_for_each(|statistics| of_model(statistics, &source))?;
        let (context, skip) = (self.context as usize, self.from_chunk);
        let chunks = Chunks::read_all(&source, &self.text, context, skip, self.chunks)?;
        let limits = self.resources.limits();
        let network = Network::new(&source, Options { exact: true, isa: None })?;
        let folder = disk::folder(out);
        let scratch = Scratch { memory: limits.memory, folder: folder.to_path_buf() };
        let (progress, depth) = (Progress::new(), network.depth());
        progress.layers(0, depth);
        let tick = |layer| progress.layers(layer + 1, depth);
        let measured = limits
            .pool()?
            .install(|| importance::measure(&network, &chunks, &scratch, self.output_matrix, tick));
        progress.finished();
        let mut measured = measured?;
        measured.file = source.path.display().to_string();
        earlier.push(measured);
        sum(earlier)
    }
}

/// Reads a file of importances.
pub fn read(path: &Path) -> Result<Statistics> {
    let file = InFile::open(path, false)?;
    Ok(imatrix::read(file.name(), &file.read(0, file.len)?)?)
}

/// All of them as one; there is at least one.
fn sum(all: Vec<Statistics>) -> Result<Statistics> {
    let mut all = all.into_iter();
    let mut sum = all.next().expect("something was measured or read");
    for next in all {
        sum.merge(&next)?;
    }
    Ok(sum)
}

/// Checks that statistics are of a model.
pub fn of_model(statistics: &Statistics, source: &Source) -> Result<()> {
    let mut known = 0;
    for t in &source.model.tensors {
        known += usize::from(statistics.importance(&t.name, &t.shape)?.is_some());
    }
    if known == 0 {
        let why = format!("{} has none of the tensors of {}", statistics.file, source.path.display());
        return Err(Error::refused(why).or("what is added up must have been measured on the same model"));
    }
    Ok(())
}
