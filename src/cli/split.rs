//! `ggufkit split` and `ggufkit merge`: a model in several shards, and back.

use std::path::{Path, PathBuf};

use clap::Args;
use formats::container::{gguf, parse_part_stem};

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
#[command(
    after_help = "Examples:
  ggufkit merge model-00001-of-00003.gguf model.gguf
  ggufkit merge model-*-of-00003.gguf model.gguf",
    override_usage = "ggufkit merge [OPTIONS] <IN> [SHARD]... <OUT>"
)]
pub struct Merge {
    #[command(flatten)]
    input: Input,
    /// The output file, which comes last. Between IN and it, the other shards may be named too (as *.gguf does); they are
    /// found beside IN in any case
    #[arg(value_name = "OUT", required = true)]
    out: Vec<PathBuf>,
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
        let (out, shards) = self.out.split_last().expect("clap requires OUT");
        self.refuse_strangers(out, shards)?;
        rewrite(&self.input, (out, &self.output), gguf::Split::None, &self.resources, self.json)
    }

    /// Refuses files that are no shards of the model, and a shard in the place of the output.
    fn refuse_strangers(&self, out: &Path, shards: &[PathBuf]) -> Result<()> {
        let set = |path: &Path| -> Option<(PathBuf, String, usize)> {
            let (stem, _, count) = parse_part_stem(path.file_stem()?.to_str()?)?;
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Some((folder.canonicalize().ok()?, format!("{stem}.{}", path.extension()?.to_str()?), count))
        };
        let own = set(&self.input.input);
        let input = self.input.input.display();
        if let Some(other) = shards.iter().find(|shard| own.is_none() || set(shard) != own) {
            let why = format!("{} and {input} are not shards of one model", other.display());
            return Err(Error::usage(why).or("name one shard, and the output after it: IN OUT"));
        }
        if own.is_some() && set(out) == own && out.exists() {
            let why = format!("no output is given: {} is a shard of the model, as {input} is", out.display());
            return Err(Error::usage(why).or("add the name of the merged model at the end"));
        }
        Ok(())
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
