//! `ggufkit split` and `ggufkit merge`: a model in several shards, and back.

use std::path::{Path, PathBuf};

use clap::Args;
use formats::container::gguf;

use super::args::{Input, Output, Resources};
use super::convert::write_and_report;
use ggufkit::plan::{self, PlanOptions};
use ggufkit::text::parse_bytes;
use ggufkit::{Error, Result};

/// `ggufkit split`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ggufkit split model.gguf parts/model.gguf --max-size 4G    writes parts/model-00001-of-0000N.gguf")]
pub struct Split {
    #[command(flatten)]
    input: Input,
    /// NAME.gguf or NAME.safetensors; the shards are named NAME-00001-of-0000N
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Largest amount of tensor data in a shard (e.g. 4G, 500M)
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, conflicts_with = "max_tensors")]
    max_size: Option<u64>,
    /// Largest number of tensors in a shard
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tensors: Option<u32>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    resources: Resources,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// `ggufkit merge`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ggufkit merge model-00001-of-00003.gguf model.gguf")]
pub struct Merge {
    #[command(flatten)]
    input: Input,
    /// The output file
    #[arg(value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    resources: Resources,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Split {
    pub fn run(&self) -> Result<()> {
        let split = match (self.max_size, self.max_tensors) {
            (Some(bytes), _) => gguf::Split::Bytes(bytes),
            (_, Some(n)) => gguf::Split::Tensors(n as usize),
            _ => return Err(Error::usage("no shard size given").or("add --max-size SIZE or --max-tensors N")),
        };
        rewrite(&self.input, (&self.out, &self.output), split, &self.resources, self.json)
    }
}

impl Merge {
    pub fn run(&self) -> Result<()> {
        rewrite(&self.input, (&self.out, &self.output), gguf::Split::None, &self.resources, self.json)
    }
}

fn rewrite(
    input: &Input,
    (out, output): (&Path, &Output),
    split: gguf::Split,
    resources: &Resources,
    json: bool,
) -> Result<()> {
    let source = input.open_for(out, None)?;
    let options =
        PlanOptions { out: out.to_path_buf(), overwrite: output.overwrite, split, ..PlanOptions::default() };
    let (source, plan) = plan::copy(source, &options)?;
    write_and_report(&source, &plan, resources.limits(), json)
}
