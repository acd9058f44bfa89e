//! `ggufkit compare`: models beside the one they were made of.

use std::path::{Path, PathBuf};

use clap::Args;

use super::eval::{Cutting, bar};
use super::options::{Input, Running};
use super::{print, sensitivity};
use crate::compare::{Settings, compare};
use crate::disk::{self, NewFile};
use crate::error::{Error, Result};
use crate::report::compare::{Comparison, table};
use crate::report::html::html;
use crate::source::Source;

/// Runs a reference and models made of it over a text, side by side, and shows what each has lost, how large it is
/// and how fast.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit compare model/ model-Q8_0.gguf model-Q4_0.gguf --text text.txt --report report.html")]
pub struct Compare {
    #[command(flatten)]
    input: Input,
    /// The models to compare with IN
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<PathBuf>,
    /// The text
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Write a page with pictures, which needs no network to be read
    #[arg(long, value_name = "OUT.html")]
    report: Option<PathBuf>,
    /// What errors in each of IN's matrices cost, as `sensitivity` measured it: shows it, and what it foretells of each model
    #[arg(long, value_name = "FILE")]
    sensitivity: Option<PathBuf>,
    #[command(flatten)]
    cutting: Cutting,
    /// Do not compare the reference with itself in another arithmetic
    #[arg(long)]
    no_floor: bool,
    #[command(flatten)]
    running: Running,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub fn run(self) -> Result<()> {
        let source = self.input.open()?;
        let open = |path: &PathBuf| Ok((shorter(path, &source.path), self.input.open_other(path)?));
        let models: Vec<(String, Source)> = self.models.iter().map(open).collect::<Result<_>>()?;
        // A page that cannot be written is known before the work rather than after it.
        self.report.as_deref().map(|path| NewFile::create(path, 0)).transpose()?;
        let text = std::fs::read(&self.text).map_err(|e| Error::io(&self.text, "read", e))?;
        let settings = Settings {
            text: self.text.display().to_string(),
            cut: self.cutting.cut(),
            exact: self.running.exact,
            kv: self.running.kv(),
            batch: self.running.batch(),
            floor: !self.no_floor,
            generate: 16,
            sensitivity: self.sensitivity.as_deref().map(sensitivity::read).transpose()?,
        };
        let text = String::from_utf8_lossy(&text);
        let found = self.running.pool()?.install(|| side_by_side(&source, &models, &text, &settings))?;
        if let Some(path) = &self.report {
            write_report(path, &found)?;
        }
        if self.json {
            let value = serde_json::to_string_pretty(&found).map_err(|e| Error::refused(e.to_string()))?;
            return print(&(value + "\n"));
        }
        print(&table(&found))?;
        match &self.report {
            Some(path) => print(&format!("\n{}\n", path.display())),
            None => Ok(()),
        }
    }
}

/// Compares, with a bar.
pub fn side_by_side(
    source: &Source,
    models: &[(String, Source)],
    text: &str,
    settings: &Settings,
) -> Result<Comparison> {
    let mut shown: Option<indicatif::ProgressBar> = None;
    let found = compare((&short(&source.path), source), models, text, settings, |done, all| {
        shown.get_or_insert_with(|| bar(all)).set_position(done as u64);
    })?;
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
    Ok(found)
}

/// Writes the page.
pub fn write_report(path: &Path, found: &Comparison) -> Result<()> {
    let page = html(found);
    disk::write_whole(path, page.as_bytes())
}

/// What a model is called beside one that it was made of: what its name has more.
pub fn shorter(path: &Path, of: &Path) -> String {
    let (name, of) = (short(path), short(of));
    let rest = name.strip_prefix(&of).and_then(|r| r.strip_prefix(['-', '.', '_']));
    rest.filter(|r| !r.is_empty()).map_or(name.clone(), str::to_string)
}

/// What a model is called in tables: the last part of its path, without a GGUF's ending.
pub fn short(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    name.strip_suffix(".gguf").unwrap_or(&name).to_string()
}
