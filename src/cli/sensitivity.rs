//! `ggufkit sensitivity`: what an error in each matrix costs, measured on a text, in a file for `quantize --fit`.

use std::path::{Path, PathBuf};

use calibration::Statistics;
use clap::Args;
use formats::block::{DType, Effort, Encode};
use formats::model::Tensor;

use super::calibrate::{of_model, read as read_importance};
use super::options::{Input, Resources, apart, files, layers_bar};
use super::print;
use super::types::{self, Types, types};
use crate::calibrate::{Chunks, Room};
use crate::disk::{self, NewFile};
use crate::error::{Error, Result};
use crate::pipeline::Limits;
use crate::report::sensitivity::table;
use crate::report::visible;
use crate::runner::{Network, Options};
use crate::sensitivity::measure::{Wanted, measure};
use crate::sensitivity::{Sensitivity as Found, parse, print as to_json};
use crate::source::Source;

/// Tokens of a chunk, where nothing is said.
pub const CONTEXT: usize = 256;
/// What matrices are made in, where nothing is said: a type whose errors are well above those of rounding, and small
/// enough that they add up.
pub const PROBES: &str = "q3_k";

/// `ggufkit sensitivity`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit sensitivity model.gguf builtin -o model.sensitivity.json
  ggufkit quantize model.gguf small.gguf --fit 8G --sensitivity model.sensitivity.json

A model of L layers takes about L/2 times as long as running its text through it once for every matrix of a layer and
every probe.")]
pub struct Sensitivity {
    #[command(flatten)]
    input: Input,
    /// A text like those that the model will see, or `builtin`
    #[arg(value_name = "TEXT")]
    text: PathBuf,
    /// The file
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Tokens of a chunk
    #[arg(long, value_name = "N", default_value_t = CONTEXT as u32, value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    context: u32,
    /// Chunks, from all over the text; 16 if not given, 4 for models of more than 50 million weights, and 2 from a billion on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunks: Option<u32>,
    /// Types that matrices are made in to see what that costs
    #[arg(long, value_name = "TYPES", default_value = PROBES, value_parser = types)]
    probes: Types,
    /// Types whose errors are computed
    #[arg(long, value_name = "TYPES", default_value = types::USUAL, value_parser = types)]
    types: Types,
    /// How large the inputs of matrices are, as `calibrate` measured it; else that is measured on the same text
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    #[command(flatten)]
    resources: Resources,
}

impl Sensitivity {
    pub fn run(self) -> Result<()> {
        let source = self.input.open()?;
        let read = [Some(&*self.text), self.imatrix.as_deref()];
        apart(&self.out, files(&source).chain(read.into_iter().flatten()))?;
        drop(NewFile::create(&self.out, 0)?);
        let context = self.context as usize;
        let chunks = self.chunks.map_or_else(|| usual_chunks(&source), |n| n as usize);
        let chunks = Chunks::read(&source, &self.text, context, Some(chunks), Some(1))?;
        let importance = self.imatrix.as_deref().map(read_importance).transpose()?;
        if let Some(importance) = &importance {
            of_model(importance, &source)?;
        }
        let limits = self.resources.limits();
        let folder = disk::folder(&self.out);
        let measuring = Measuring {
            types: &self.types.0,
            probes: &self.probes.0,
            limits,
            folder,
            importance: importance.as_ref(),
        };
        let found = measuring.run(&source, &chunks)?;
        let text = to_json(&found);
        disk::write_whole(&self.out, text.as_bytes())?;
        print(&format!("{}\n\n{}", visible(&found.summary()), table(&found)))
    }
}

/// What is measured, and with what.
pub struct Measuring<'a> {
    /// Types whose errors are computed.
    pub types: &'a [DType],
    /// Types that matrices are made in.
    pub probes: &'a [DType],
    /// Threads and memory.
    pub limits: Limits,
    /// Where vectors go that do not fit into memory.
    pub folder: &'a Path,
    /// Importances that were measured before.
    pub importance: Option<&'a Statistics>,
}

impl Measuring<'_> {
    /// Measures, with a bar.
    pub fn run(&self, source: &Source, chunks: &Chunks) -> Result<Found> {
        let network = Network::new(source, Options { exact: true, isa: None })?;
        let room = Room { memory: self.limits.memory, scratch: self.folder.to_path_buf() };
        let wanted = Wanted {
            types: self.types,
            probes: self.probes,
            importance: self.importance,
            how: Encode { importance: None, objective: None, effort: Effort::Normal },
        };
        let bar = layers_bar(network.depth() + 1, "{elapsed}");
        let tick = |done| bar.set_position(done as u64);
        let found = self.limits.pool()?.install(|| measure(&network, chunks, wanted, &room, tick));
        bar.finish_and_clear();
        found
    }
}

/// Chunks, where nothing is said. Measuring takes as long as weights times matrices say, and little text does nearly as
/// well as much.
pub fn usual_chunks(source: &Source) -> usize {
    match source.model.tensors.iter().map(Tensor::elements).fold(0, u64::saturating_add) {
        0..50_000_000 => 16,
        50_000_000..1_000_000_000 => 4,
        _ => 2,
    }
}

/// Reads a file of sensitivities.
pub fn read(path: &Path) -> Result<Found> {
    /// More than the names and numbers of any model.
    const MOST: u64 = 1 << 28;
    let len = std::fs::metadata(path).map_err(|e| Error::io(path, "read", e))?.len();
    if len > MOST {
        return Err(Error::refused(format!("{}: {len} bytes are too many", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
    parse(&text).map_err(|why| {
        Error::refused(format!("{}: {why}", path.display()))
            .or("`ggufkit sensitivity MODEL TEXT -o FILE` makes such files")
    })
}
