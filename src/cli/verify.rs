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
use crate::verify::{Finding, unmatched, verify};

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
        let unmatched = reference.as_ref().map(|r| unmatched(&source, r)).unwrap_or_default();
        let compared = reference.is_some();
        print(&if self.json {
            as_json(&findings, &unmatched)
        } else {
            as_text(&source, &findings, &unmatched, compared)
        })?;
        let broken = findings.iter().filter(|f| f.not_finite.is_some()).count();
        let total = findings.len();
        match (broken, unmatched.first()) {
            (0, None) => Ok(()),
            (0, Some(first)) => Err(Error::Failed(first.clone())),
            _ => Err(Error::Failed(format!(
                "{broken} of {total} tensors hold numbers that are infinite or undefined"
            ))),
        }
    }
}

fn as_text(source: &Source, findings: &[Finding], unmatched: &[String], compared: bool) -> String {
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
    for line in unmatched {
        let _ = writeln!(text, "{line}");
    }
    let n = findings.len();
    let format = source.model.format;
    let _ = writeln!(text, "{}: {format}, structure of {n} tensors is sound", source.path.display());
    text
}

fn percent(outcome: Outcome) -> String {
    if outcome.error == 0.0 { "0".into() } else { format!("{:.4} %", 100.0 * outcome.relative()) }
}

fn as_json(findings: &[Finding], unmatched: &[String]) -> String {
    let tensors = findings.iter().map(|f| {
        json!({
            "name": f.name,
            "type": f.encoding.name(),
            "not_finite": f.not_finite,
            "relative_error": f.outcome.map(Outcome::relative),
        })
    });
    format!("{:#}\n", json!({ "tensors": tensors.collect::<Vec<_>>(), "unmatched": unmatched }))
}
