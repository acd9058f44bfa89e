//! `ggufkit edit`: writes a copy of a model with changed metadata.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::args::{Edits, Input, Output, Resources};
use super::convert::write_and_report;
use ggufkit::plan::edit::{self, key_file, key_value};
use ggufkit::plan::{self, PlanOptions, Unreadable};
use ggufkit::{Error, Result};

/// `ggufkit edit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit edit model.gguf new.gguf --set general.name='My model' --remove general.url
  ggufkit edit model.gguf new.gguf --set-file tokenizer.chat_template=template.jinja
  ggufkit edit model.gguf new.gguf --set-file tokenizer.ggml.scores=scores.json

Changes are applied in this order: --rename, --remove, --set, --set-file.")]
pub struct Edit {
    #[command(flatten)]
    input: Input,
    /// The output file, which must not be IN itself
    #[arg(value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    edits: Edits,
    /// Set a metadata value to the contents of a file: text for a string, a JSON array for an array. For a new key, write
    /// KEY:str=FILE or KEY:[TYPE]=FILE
    #[arg(long, value_name = "KEY=FILE", value_parser = OsStringValueParser::new().try_map(key_file))]
    set_file: Vec<(String, PathBuf)>,
    /// Rename a metadata key
    #[arg(long, value_name = "KEY=NEW", value_parser = key_value)]
    rename: Vec<(String, String)>,
    /// Remove a metadata key
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Write the file also if programs will not read it: without a key that they need, or with a value that they refuse
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    resources: Resources,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Edit {
    pub fn run(&self) -> Result<()> {
        let mut edits: Vec<edit::Edit> = Vec::new();
        edits.extend(self.rename.iter().map(|(k, to)| edit::Edit::Rename(k.clone(), to.clone())));
        edits.extend(self.remove.iter().map(|k| edit::Edit::Remove(k.clone())));
        edits.extend(self.edits.list());
        edits.extend(self.set_file.iter().map(|(k, f)| edit::Edit::SetFile(k.clone(), f.clone())));
        if edits.is_empty() {
            return Err(Error::usage("no change given").or("add --set, --set-file, --rename or --remove"));
        }
        let source = self.input.open_for(&self.out, edit::name(&edits))?;
        let (out, overwrite) = (self.out.clone(), self.output.overwrite);
        let unreadable = if self.force { Unreadable::Written } else { Unreadable::RefusedUnlessForced };
        let options = PlanOptions { out, overwrite, edits, unreadable, ..PlanOptions::default() };
        let (source, plan) = plan::copy(source, &options)?;
        write_and_report(&source, &plan, self.resources.limits(), self.json)
    }
}
