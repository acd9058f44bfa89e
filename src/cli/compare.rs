//! `ggufkit compare`: models beside the one they were made of.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{Input, Running};
use super::eval::Cutting;
use super::print;
use super::progress::Progress;
use ggufkit::disk::{self, NewFile};
use ggufkit::evaluate::compare::{Settings, compare, name_of, short_name};
use ggufkit::evaluate::comparison::Comparison;
use ggufkit::report::compare::table;
use ggufkit::report::html::html;
use ggufkit::resources::Watcher;
use ggufkit::sensitivity;
use ggufkit::source::Source;
use ggufkit::{Error, Result, open};

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
        let other =
            |path: &PathBuf| Ok((name_of(path, &source.path), open(path, &self.input.options(false))?));
        let models: Vec<(String, Source)> = self.models.iter().map(other).collect::<Result<_>>()?;
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
    let progress = Progress::new();
    let tick = |done, of| progress.chunks(done, of);
    let found = compare((&short_name(&source.path), source), models, text, settings, tick)?;
    progress.finished();
    Ok(found)
}

/// Writes the page.
pub fn write_report(path: &Path, found: &Comparison) -> Result<()> {
    let page = html(found);
    disk::write_whole(path, page.as_bytes())
}
