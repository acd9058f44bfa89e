//! `ggufkit sensitivity`: measures how much an error in each matrix raises the KL divergence, for `quantize --fit`.

use std::path::PathBuf;

use clap::Args;
use ggufkit::calibrate::{ChunkLength, Chunks};
use ggufkit::disk::{self, Output};
use ggufkit::report::sensitivity::table;
use ggufkit::resources::Watcher;
use ggufkit::sensitivity::{self, Measuring, print as to_json};
use ggufkit::text::visible;
use ggufkit::{Result, allocate};

use super::args::{Input, Resources, Types, types};
use super::calibrate::{of_model, read as read_importance};
use super::progress::Progress;
use super::{claim, note, print};

/// `ggufkit sensitivity`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit sensitivity model.gguf builtin -o model.sensitivity.json
  ggufkit quantize model.gguf small.gguf --fit 8G --sensitivity model.sensitivity.json

For a model of L layers, this takes about L/2 times as long as one pass over the text
for each matrix of a layer and each probe type.")]
pub struct Sensitivity {
    #[command(flatten)]
    input: Input,
    /// The calibration set: a text file like the texts that the model will see, or `builtin` for the bundled one
    #[arg(value_name = "TEXT")]
    text: PathBuf,
    /// The sensitivity file to write (JSON)
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Context length in tokens of each chunk [default: 256, or the model's context length if that is shorter]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    context: Option<u32>,
    /// Number of chunks, sampled from the whole text [default: 16; 4 for models above 50 million weights, 2 from 1 billion]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunks: Option<u32>,
    /// Probe types: each matrix is quantized with these to measure the resulting KL divergence
    #[arg(long, value_name = "TYPES", default_value = sensitivity::DEFAULT_PROBE.name(), value_parser = types)]
    probes: Types,
    /// Quantization types whose error is computed for each matrix, separated by commas
    #[arg(long, value_name = "TYPES", default_value = allocate::DEFAULT_TYPES.as_str(), value_parser = types)]
    types: Types,
    /// Importance matrix from `ggufkit calibrate` [default: measured on the same text]
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    #[command(flatten)]
    resources: Resources,
}

/// The result.
const OUT: Output = Output::result("--out", "a sensitivity file", "sensitivity.json");

impl Sensitivity {
    pub fn run(self) -> Result<()> {
        let source = self.input.open_to_run()?;
        let run = &self.input.run;
        claim(run, &self.out, OUT)?;
        let given = self.context.map(|n| n as usize);
        let option = "--context";
        let (tokens, about) = source.chunk_length(given, sensitivity::DEFAULT_CONTEXT, option);
        let context = ChunkLength { tokens, option };
        let chunks = self.chunks.map_or_else(|| sensitivity::default_chunks(&source), |n| n as usize);
        let chunks = Chunks::read(&source, &self.text, context, Some(chunks), Some(1))?;
        about.iter().chain(&chunks.notes).for_each(|text| note(text));
        if source.model.tensors.iter().any(|t| !t.encoding.is_plain()) {
            note(
                "the weights are quantized already, and lose nothing in the type that they have: types chosen by what is measured \
                 here suit this file, not the model that it was made of; measure that one if you have it",
            );
        }
        let importance = self.imatrix.as_deref().map(|path| read_importance(run, path)).transpose()?;
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
        let progress = Progress::new();
        let found = measuring.run(&source, &chunks, &progress)?;
        progress.finished();
        let text = to_json(&found);
        run.write_whole(&self.out, text.as_bytes(), OUT)?;
        print(&format!("{}\n\n{}", visible(&found.summary()), table(&found)))
    }
}
