//! `ggufkit compare`: quantized models next to their original.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{Input, Running};
use super::eval::Cutting;
use super::json::print_json;
use super::progress::Progress;
use super::{claim, note, print, shown};
use ggufkit::disk::{Output, RunFiles};
use ggufkit::evaluate;
use ggufkit::evaluate::compare::{Settings, compare, name_of, short_name};
use ggufkit::evaluate::comparison::Comparison;
use ggufkit::report::compare::table;
use ggufkit::report::html::html;
use ggufkit::resources::Watcher;
use ggufkit::sensitivity;
use ggufkit::source::Source;
use ggufkit::tokenizer::text_file;
use ggufkit::{Error, Result};

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

/// The page.
pub const REPORT: Output = Output::result("--report", "the HTML page", "report.html");

impl Compare {
    pub fn run(self) -> Result<()> {
        let source = self.input.open_to_run()?;
        let other = |path: &PathBuf| Ok((name_of(path, &source.path), self.input.open_beside(path)?));
        let models: Vec<(String, Source)> = self.models.iter().map(other).collect::<Result<_>>()?;
        // If the page cannot be written, that is reported before the long evaluation.
        let run = &self.input.run;
        if let Some(path) = &self.report {
            claim(run, path, REPORT)?;
        }
        let text = text_file::read(run, &self.text)?;
        text.notes.iter().for_each(|text| note(text));
        let sensitivity = self.sensitivity.as_deref().map(|path| {
            let found = sensitivity::read(run, path)?;
            found.check(&source, path)?.iter().for_each(|text| note(text));
            Ok::<_, Error>(found)
        });
        let settings = Settings {
            text: self.text.display().to_string(),
            cut: self.cutting.cut(&source),
            exact: self.running.exact,
            kv: self.running.kv(),
            batch: self.running.batch(),
            floor: !self.no_floor,
            generate: 16,
            sensitivity: sensitivity.transpose()?,
        };
        for (name, model) in models.iter().filter(|(_, m)| m.context_length() != source.context_length()) {
            let (_, about) =
                model.chunk_length(Some(settings.cut.context), settings.cut.context, "--context");
            about.iter().for_each(|text| note(&format!("{name}: {text}")));
        }
        self.report.as_deref().map(check_page_name).transpose()?;
        let found = self.running.pool()?.install(|| side_by_side(&source, &models, &text.text, &settings))?;
        run.unchanged()?;
        if let Some(path) = &self.report {
            write_report(run, path, &found)?;
        }
        if self.json {
            return print_json(&found);
        }
        print(&table(&found))?;
        match &self.report {
            Some(path) => print(&format!("\n{}\n", shown(path))),
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
    let reference = short_name(&source.path);
    let order = |(name, model): &(String, Source)| evaluate::order_note((name, model), (&reference, source));
    models.iter().find_map(order).iter().for_each(|text| note(text));
    let progress = Progress::new();
    let mut tick = |done, of| progress.chunks(done, of);
    let found = compare((&reference, source), models, text, settings, &mut tick)?;
    progress.finished();
    for (name, model) in models {
        evaluate::split_note(text, source, name, model)?.iter().for_each(|text| note(text));
    }
    Ok(found)
}

/// Refuses a name for an HTML page whose ending would promise another format.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_page_name(path: &Path) -> Result<()> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        None | Some("html" | "htm") => Ok(()),
        Some(other) => Err(Error::usage(format!("--report: the page is HTML, not {other}"))
            .or(format!("name it {}", path.with_extension("html").display()))),
    }
}

/// Writes the HTML page.
pub fn write_report(run: &RunFiles, path: &Path, found: &Comparison) -> Result<()> {
    let page = html(found);
    run.write_whole(path, page.as_bytes(), REPORT)
}
