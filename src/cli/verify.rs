//! `verify`: whether a file is sound, and how far its weights are from another's.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::options::Input;
use super::print;
use crate::error::{Error, Result};
use crate::quantize::Outcome;
use crate::report::Table;
use crate::source::{self, Source};
use crate::verify::{Finding, verify};

/// `ggufkit verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit verify model.gguf
  ggufkit verify model-q4_0.gguf --against model-f16.gguf")]
pub struct Verify {
    #[command(flatten)]
    input: Input,
    /// Compare each tensor with the one of the same name in this model
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// Report in JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub fn run(&self) -> Result<()> {
        let source = self.input.open()?;
        let options = source::Options { no_mmap: self.input.no_mmap, tokenizer: None };
        let reference = self.against.as_deref().map(|p| Source::open(p, &options)).transpose()?;
        let findings = verify(&source, reference.as_ref())?;
        print(&if self.json {
            as_json(&findings)
        } else {
            as_text(&source, &findings, self.against.is_some())
        })?;
        match findings.iter().filter(|f| f.not_finite.is_some()).count() {
            0 => Ok(()),
            n => {
                let total = findings.len();
                Err(Error::Failed(format!(
                    "{n} of {total} tensors hold numbers that are infinite or undefined"
                )))
            }
        }
    }
}

fn as_text(source: &Source, findings: &[Finding], compared: bool) -> String {
    let mut text = String::new();
    let mut table = Table::new(&["tensor", "type", "error"]);
    let mut total = Outcome::default();
    for f in findings {
        if let Some(outcome) = f.outcome {
            total.add(outcome);
            table.row([f.name.clone(), f.encoding.name(), percent(outcome)]);
        }
        if let Some(at) = f.not_finite {
            let _ = writeln!(text, "{} ({}): not finite from weight {at} on", f.name, f.encoding.name());
        }
    }
    if compared {
        let _ = write!(text, "{table}");
        let _ = writeln!(text, "all tensors: {}", percent(total));
    }
    let n = findings.len();
    let format = source.model.format;
    let _ = writeln!(text, "{}: {format}, structure of {n} tensors is sound", source.path.display());
    text
}

fn percent(outcome: Outcome) -> String {
    if outcome.error == 0.0 { "0".into() } else { format!("{:.4} %", 100.0 * outcome.relative()) }
}

fn as_json(findings: &[Finding]) -> String {
    let tensors = findings.iter().map(|f| {
        json!({
            "name": f.name,
            "type": f.encoding.name(),
            "not_finite": f.not_finite,
            "relative_error": f.outcome.map(Outcome::relative),
        })
    });
    format!("{:#}\n", json!({ "tensors": tensors.collect::<Vec<_>>() }))
}
