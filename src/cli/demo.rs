//! `ggufkit demo`: converts and quantizes the bundled model in several ways.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use formats::model::Tensor;
use serde_json::{Value, json};

use super::args::Resources;
use super::compare::side_by_side;
use super::json::print_json;
use super::{claim, print, shown};
use ggufkit::evaluate::Cut;
use ggufkit::evaluate::compare::Settings;
use ggufkit::evaluate::comparison::Comparison;
use ggufkit::outcome::Outcome;
use ggufkit::pipeline;
use ggufkit::plan::{self, Plan, PlanOptions};
use ggufkit::report::compare;
use ggufkit::scheme::{self, Role, role};
use ggufkit::source::Source;
use ggufkit::text::{self, Table};
use ggufkit::{Error, Options, Result};

/// `ggufkit demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit demo
  ggufkit demo demo-files      (keeps the checkpoint and the GGUFs)")]
pub struct Demo {
    /// Keep the checkpoint and the GGUF files in this folder [default: delete them]
    #[arg(value_name = "FOLDER")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    resources: Resources,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// The bundled checkpoint in Hugging Face's layout, made by `scripts/make_demo_model.py`.
const FILES: [(&str, &[u8]); 7] = [
    ("config.json", include_bytes!("../../demo/model/config.json")),
    ("generation_config.json", include_bytes!("../../demo/model/generation_config.json")),
    ("model.safetensors", include_bytes!("../../demo/model/model.safetensors")),
    ("special_tokens_map.json", include_bytes!("../../demo/model/special_tokens_map.json")),
    ("tokenizer.model", include_bytes!("../../demo/model/tokenizer.model")),
    ("tokenizer_config.json", include_bytes!("../../demo/model/tokenizer_config.json")),
    ("README.md", include_bytes!("../../demo/model/README.md")),
];

/// Held-out text: stories that the model was not trained on.
const TEXT: &str = include_str!("../../demo/heldout.txt");

/// The checkpoint's folder, whose name becomes the model's name.
const NAME: &str = "Little-Stories";

/// The schemes that the model is quantized with.
const SCHEMES: [&str; 8] = ["f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "q3_k_m", "q2_k"];

/// The model quantized with one scheme.
struct Made {
    scheme: &'static str,
    plan: Plan,
    outcomes: Vec<Outcome>,
    took: Duration,
}

impl Demo {
    pub fn run(&self) -> Result<()> {
        let scratch;
        let folder = match &self.keep {
            Some(folder) => folder.as_path(),
            None => {
                scratch = tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), "create", e))?;
                scratch.path()
            }
        };
        let hub = folder.join(NAME);
        std::fs::create_dir_all(&hub).map_err(|e| Error::io(&hub, "create", e))?;
        for (name, bytes) in FILES {
            let path = hub.join(name);
            match std::fs::read(&path) {
                Ok(old) if old == bytes => continue,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => {}
                _ => {
                    let why = format!("{}: exists, and is not the demo's", path.display());
                    return Err(Error::refused(why).or("name a new folder: `ggufkit demo FOLDER`"));
                }
            }
            std::fs::write(&path, bytes).map_err(|e| Error::io(&path, "write", e))?;
        }
        let source = ggufkit::open(&hub, &Options::default())?;
        let made = SCHEMES.iter().map(|s| self.make(&source, folder, s)).collect::<Result<Vec<_>>>()?;
        let comparison = self.compare(&source, &made)?;
        match self.json {
            true => print_json(&as_json(&source, &made, &comparison)),
            false => print(&as_text(&source, &made, &comparison, self.keep.as_deref())),
        }
    }

    /// Compares the quantized files with the checkpoint on the bundled text.
    fn compare(&self, source: &Source, made: &[Made]) -> Result<Comparison> {
        let open =
            |m: &Made| Ok((m.scheme.to_string(), ggufkit::open(&m.plan.paths[0], &Options::default())?));
        let models = made.iter().filter(|m| m.packed()).map(open).collect::<Result<Vec<_>>>()?;
        let settings = Settings::new("heldout.txt", Cut { context: 256, chunks: None, stride: None });
        let pool = self.resources.limits().pool()?;
        pool.install(|| side_by_side(source, &models, TEXT, &settings))
    }

    fn make(&self, source: &Source, folder: &Path, name: &'static str) -> Result<Made> {
        let scheme = scheme::find(name).expect("the demo's schemes exist");
        let out = folder.join(format!("{NAME}-{}.gguf", name.to_uppercase()));
        claim(&source.run, &out, pipeline::OUT)?;
        let options = PlanOptions { out, scheme: Some(scheme), ..PlanOptions::default() };
        let start = Instant::now();
        let plan = plan::plan(source, &options)?;
        let outcomes = pipeline::write(source, &plan, None, self.resources.limits(), &())?;
        Ok(Made { scheme: name, plan, outcomes, took: start.elapsed() })
    }
}

impl Made {
    /// Whether any tensor is quantized.
    fn packed(&self) -> bool {
        self.plan.layout.tensors.iter().any(|t| !t.encoding.is_plain())
    }
}

fn total(outcomes: &[Outcome]) -> Outcome {
    outcomes.iter().fold(Outcome::default(), |mut sum, o| {
        sum.add(*o);
        sum
    })
}

fn percent(outcome: Outcome) -> String {
    match outcome.relative() {
        0.0 => "0".into(),
        e => format!("{:.3} %", 100.0 * e),
    }
}

fn as_text(source: &Source, made: &[Made], comparison: &Comparison, keep: Option<&Path>) -> String {
    let model = &source.model;
    let number =
        |key: &str| model.metadata.get(&format!("llama.{key}")).and_then(|v| v.as_u64()).unwrap_or(0);
    let weights: u64 = model.tensors.iter().map(Tensor::elements).sum();
    let mut text = format!(
        "The bundled model: a Llama of {} weights ({} layers, hidden size {}, vocabulary {}) in bf16, {}.\n\
         Each row is a GGUF file that llama.cpp loads. `error` is the root mean square error of the weights,\n\
         relative to the root mean square of the weights.\n\n",
        text::count(weights),
        number("block_count"),
        number("embedding_length"),
        text::count(number("vocab_size")),
        text::bytes(source.bytes()),
    );
    let mut table = Table::new(&["scheme", "size", "bits per weight", "error"]);
    for m in made {
        table.row([
            m.scheme.to_string(),
            text::bytes(m.plan.bytes()),
            format!("{:.2}", m.plan.bits_per_weight()),
            percent(total(&m.outcomes)),
        ]);
    }
    let _ = writeln!(text, "{table}");
    let packed: Vec<&Made> = made.iter().filter(|m| m.packed()).collect();
    let mut heads = vec!["error of each tensor"];
    heads.extend(packed.iter().map(|m| m.scheme));
    let mut table = Table::new(&heads);
    for (i, t) in model.tensors.iter().enumerate() {
        if t.shape.len() < 2 || role(&t.name) == Role::Exempt {
            continue;
        }
        let mut row = vec![t.name.clone()];
        row.extend(packed.iter().map(|m| {
            let at =
                m.plan.decisions.iter().position(|s| s.source == i).expect("every tensor has a decision");
            percent(m.outcomes[at])
        }));
        table.row(row);
    }
    let _ = write!(text, "{table}\n{}", compare::table(comparison));
    if let Some(folder) = keep {
        let _ = writeln!(text, "\nThe files were kept in {}.", shown(folder));
    }
    text
}

fn as_json(source: &Source, made: &[Made], comparison: &Comparison) -> Value {
    let scheme = |m: &Made| {
        let tensors = m.plan.layout.tensors.iter().zip(&m.outcomes);
        json!({
            "scheme": m.scheme,
            "bytes": m.plan.bytes(),
            "bits_per_weight": m.plan.bits_per_weight(),
            "relative_error": total(&m.outcomes).relative(),
            "seconds": m.took.as_secs_f64(),
            "tensors": tensors
                .map(|(t, o)| json!({"name": t.name, "type": t.encoding.name(), "relative_error": o.relative()}))
                .collect::<Vec<_>>(),
        })
    };
    json!({
        "source_bytes": source.bytes(),
        "schemes": made.iter().map(scheme).collect::<Vec<_>>(),
        "comparison": comparison,
    })
}
