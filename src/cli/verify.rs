//! `ggufkit verify`: checks that a model's files are intact, or compares its weights with another model's.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::args::{Input, notes};
use super::json::{Filled, List, print_json};
use super::{print, shown};
use ggufkit::outcome::Outcome;
use ggufkit::resources::Limits;
use ggufkit::source::Source;
use ggufkit::text::{Table, visible};
use ggufkit::verify::{Comparison, Finding, unmatched, verify};
use ggufkit::{Error, Result};

/// `ggufkit verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit verify model.gguf
  ggufkit verify model-q4_0.gguf --against model-f16.gguf")]
pub struct Verify {
    #[command(flatten)]
    input: Input,
    /// Compare each tensor with the tensor of the same name in this model, and show the relative error
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// The most lines about tensors that only one of two models has, where they have none in common.
const MOST_UNMATCHED: usize = 8;

impl Verify {
    pub fn run(&self) -> Result<()> {
        // A checkpoint alone is checked with its own tensor names; for a comparison both sides need GGUF's names.
        let source = if self.against.is_some() { self.input.open()? } else { self.input.open_as_filed()? };
        let options = ggufkit::Options {
            no_mmap: self.input.no_mmap,
            pre_tokenizer: self.input.pre_tokenizer.clone(),
            ..Default::default()
        };
        let run = &self.input.run;
        let reference = self.against.as_deref().map(|p| ggufkit::open_in(run, p, &options)).transpose()?;
        let pool = Limits::default().pool()?;
        let findings = pool.install(|| verify(&source, reference.as_ref()))?;
        run.unchanged()?;
        let unmatched = reference.as_ref().map(|r| unmatched(&source, r)).unwrap_or_default();
        match self.json {
            true => print_findings(&source, &findings, &unmatched)?,
            false => print(&as_text(&source, &findings, &unmatched, reference.is_some()))?,
        }
        let compared = findings.iter().any(|f| f.comparison.is_some());
        let total = findings.len();
        let broken = findings.iter().filter(|f| f.not_finite.is_some()).count();
        let undefined = |f: &&Finding| difference(f).is_some_and(|d| !d.is_finite());
        if broken > 0 {
            Err(Error::Failed(format!("{broken} of {total} tensors contain infinities or NaNs")))
        } else if let Some(reference) = reference.as_ref().filter(|_| !compared) {
            Err(nothing_compared(&source, reference))
        } else if let Some(first) = unmatched.first() {
            Err(Error::Failed(first.clone()))
        } else if let Some(f) = findings.iter().find(undefined) {
            Err(Error::Failed(format!("tensor {}: the reference contains infinities or NaNs", f.name)))
        } else {
            Ok(())
        }
    }
}

/// Why no tensor of two models was compared, and what their tensors have in common. Nothing compared is no pass.
fn nothing_compared(source: &Source, reference: &Source) -> Error {
    let (here, there) = (source.path.display(), reference.path.display());
    let names = |s: &'_ Source| -> Vec<String> { s.model.tensors.iter().map(|t| t.name.clone()).collect() };
    let theirs: HashSet<String> = names(reference).into_iter().collect();
    let same = names(source).iter().filter(|name| theirs.contains(*name)).count();
    let why = match (&source.model.tensors[..], &reference.model.tensors[..]) {
        ([], _) => format!("{here} has no tensors"),
        (_, []) => format!("{there} has no tensors"),
        (ours, _) if same > 0 => format!(
            "{same} of the {} tensors of {here} are in {there} under the same name, and all of these have another shape there",
            ours.len()
        ),
        ([ours, ..], [first, ..]) => format!(
            "no tensor has the same name in both ({} is in {here}, {} in {there})",
            ours.name, first.name
        ),
    };
    Error::refused(format!("nothing was compared: {why}"))
        .or("give a model of the same architecture and size; `ggufkit inspect MODEL --tensors` lists the tensors of one")
}

/// The relative error, if the tensor was compared.
fn difference(f: &Finding) -> Option<f64> {
    Some(f.comparison?.outcome?.relative())
}

fn as_text(source: &Source, findings: &[Finding], unmatched: &[String], compared: bool) -> String {
    let mut text = String::new();
    let mut table = Table::new(&["tensor", "type", "error"]);
    let mut total = Comparison { equal: true, outcome: Some(Outcome::default()) };
    for f in findings {
        if let Some(c) = f.comparison {
            total.equal &= c.equal;
            if let (Some(sum), Some(part)) = (&mut total.outcome, c.outcome) {
                sum.add(part);
            }
            table.row([f.name.clone(), f.encoding.name(), percent(c)]);
        }
        if let Some(at) = f.not_finite {
            let (name, of) = (visible(&f.name), f.encoding.name());
            let _ = writeln!(text, "{name} ({of}): infinity or NaN at weight {at}");
        }
    }
    let pairs = findings.iter().filter(|f| f.comparison.is_some()).count();
    if compared && pairs > 0 {
        let all = match unmatched {
            [] => "all tensors".into(),
            _ => format!("the {pairs} tensors that were compared"),
        };
        let _ = writeln!(text, "{table}{all}: {}", percent(total));
    }
    // Of two models that have nothing in common, some are enough.
    let lines = if compared && pairs == 0 { unmatched.len().min(MOST_UNMATCHED) } else { unmatched.len() };
    for line in &unmatched[..lines] {
        let _ = writeln!(text, "{}", visible(line));
    }
    if lines < unmatched.len() {
        let _ = writeln!(text, "and {} more", unmatched.len() - lines);
    }
    for note in notes(source) {
        let _ = writeln!(text, "note: {}", visible(&note));
    }
    let n = findings.len();
    let format = source.model.format;
    let _ = writeln!(text, "{}: {format}, {n} tensors, structure is valid", shown(&source.path));
    text
}

fn percent(c: Comparison) -> String {
    match c.outcome {
        _ if c.equal => "0".into(),
        None => "differs (the type cannot be decoded)".into(),
        Some(o) if o.error.is_finite() => format!("{:.4} %", 100.0 * o.relative()),
        Some(_) => "NaN".into(),
    }
}

fn print_findings(source: &Source, findings: &[Finding], unmatched: &[String]) -> Result<()> {
    let finding = |f: &Finding| {
        json!({
            "name": f.name,
            "type": f.encoding.name(),
            "not_finite": f.not_finite,
            "equal": f.comparison.map(|c| c.equal),
            "relative_error": difference(f),
        })
    };
    let rest = json!({ "tensors": null, "unmatched": unmatched, "notes": notes(source) });
    let tensors = List(|| findings.iter().map(finding));
    print_json(&Filled { rest: &rest, first: ("tensors", tensors), second: ("", ()) })
}
