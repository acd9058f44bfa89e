//! `ggufkit compare`: quantized models next to their original.

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

/// Runs the original model and models made from it over a text, side by side, and shows the quality, size and speed of
/// each.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit compare model/ model-Q8_0.gguf model-Q4_0.gguf --text text.txt --report report.html")]
pub struct Compare {
    #[command(flatten)]
    input: Input,
    /// The models to compare with IN, which is the reference
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<PathBuf>,
    /// The text file to evaluate on
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Write an HTML page with charts; it needs no network
    #[arg(long, value_name = "OUT.html")]
    report: Option<PathBuf>,
    /// Sensitivity of IN's matrices, as written by `ggufkit sensitivity`: adds it and the predicted KL divergence of each
    /// model to the result
    #[arg(long, value_name = "FILE")]
    sensitivity: Option<PathBuf>,
    #[command(flatten)]
    cutting: Cutting,
    /// Leave out the floor: the reference compared with itself in another arithmetic, which shows the measurement noise
    #[arg(long)]
    no_floor: bool,
    #[command(flatten)]
    running: Running,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub fn run(self) -> Result<()> {
        let source = self.input.open()?;
        let other =
            |path: &PathBuf| Ok((name_of(path, &source.path), open(path, &self.input.options(false))?));
        let models: Vec<(String, Source)> = self.models.iter().map(other).collect::<Result<_>>()?;
        // If the page cannot be written, that is reported before the long evaluation.
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

/// Compares models with `source` on a text, with a progress bar.
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

/// Writes the HTML page.
pub fn write_report(path: &Path, found: &Comparison) -> Result<()> {
    let page = html(found);
    disk::write_whole(path, page.as_bytes())
}
