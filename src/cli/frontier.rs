//! `ggufkit frontier`: the lowest predicted KL divergence at every file size.

use std::path::PathBuf;

use calibration::budget;
use clap::Args;
use formats::model::Encoding;
use serde::Serialize;

use super::args::{Input, Types, types};
use super::compare::{REPORT, check_page_name};
use super::json::print_json;
use super::{claim, note, print, shown};
use ggufkit::Result;
use ggufkit::allocate::{self, Choices, SearchSpace, default_context};
use ggufkit::memory::{RunConfig, Runtime};
use ggufkit::plan::{self, PlanOptions};
use ggufkit::report::html::page;
use ggufkit::report::plans::{Point, frontier};
use ggufkit::runner::KvType;
use ggufkit::scheme;
use ggufkit::sensitivity::{self, Sensitivity, quick};
use ggufkit::text::{self, Table};

/// `ggufkit frontier`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ggufkit frontier model.gguf --sensitivity model.sensitivity.json --report frontier.html
  ggufkit quantize model.gguf small.gguf --bits-per-weight 4.1 --sensitivity model.sensitivity.json --imatrix imatrix.gguf")]
pub struct Frontier {
    #[command(flatten)]
    input: Input,
    /// Sensitivity of each matrix, as written by `ggufkit sensitivity` [default: estimated from that of typical models]
    #[arg(long, value_name = "FILE")]
    sensitivity: Option<PathBuf>,
    /// Quantization types to choose from, separated by commas
    #[arg(long, value_name = "TYPES", default_value = allocate::DEFAULT_TYPES.as_str(), value_parser = types)]
    types: Types,
    /// Context length in tokens for the memory column, which is that of llama.cpp with an f16 KV cache [default: 4096, or
    /// the model's maximum if that is shorter]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    context: Option<u64>,
    /// Also list sizes for which weights that are already quantized are quantized again, which adds the errors of both;
    /// `quantize` needs the same option for these
    #[arg(long)]
    allow_requantize: bool,
    /// Number of rows in the table [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1000))]
    rows: Option<u32>,
    /// Write an HTML page with a chart
    #[arg(long, value_name = "OUT.html")]
    report: Option<PathBuf>,
    /// Print every size as JSON
    #[arg(long)]
    json: bool,
}

/// The model at one file size.
#[derive(Serialize)]
struct Size {
    bytes: u64,
    #[serde(rename = "bits_per_weight")]
    bits: f64,
    kld: f64,
    memory: Option<u64>,
    /// The scheme's; empty for sizes that have none.
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

/// The smallest KL divergence that is not zero in the table's digits.
const SMALLEST_SHOWN: f64 = 5e-7;

/// A scheme, and the best choice of types at its size.
#[derive(Serialize)]
struct SchemePoint {
    #[serde(flatten)]
    size: Size,
    /// The lowest predicted KL divergence of any choice of types that is no larger.
    #[serde(rename = "least_in_no_more_bytes")]
    best: Option<f64>,
}

/// What is printed as JSON. It is written as it is: of a model with many layers, there are hundreds of thousands of sizes.
#[derive(Serialize)]
struct Found<'a> {
    model: String,
    origin: String,
    points: &'a [Size],
    schemes: &'a [SchemePoint],
}

impl Frontier {
    pub fn run(&self) -> Result<()> {
        let (source, run) = (self.input.open_noted()?, &self.input.run);
        if let Some(path) = &self.report {
            claim(run, path, REPORT)?;
        }
        let sensitivity = match &self.sensitivity {
            Some(path) => {
                let found = sensitivity::read(run, path)?;
                found.check(&source, path)?.iter().for_each(|text| note(text));
                found
            }
            None => quick::estimate(&source),
        };
        self.report.as_deref().map(check_page_name).transpose()?;
        // A type that no tensor of this model can get is an error only where the user named it.
        let explicit = self.types.0 != allocate::default_types();
        let freedom = SearchSpace { types: &self.types.0, explicit, sensitivity: &sensitivity, prices: &[] };
        let mut options = self.options();
        let choices = Choices::find(&source, &mut options, freedom)?;
        let all = budget::frontier(&choices.items);
        // Without an importance matrix, fewer types are chosen from.
        let plain = &mut PlanOptions { importance: false, ..self.options() };
        let without = Choices::find(&source, plain, freedom).ok().filter(|c| c.lacks_importance);
        let without = without.map(|choices| choices.smallest());
        let context = match self.context {
            Some(context) => context,
            None => default_context(&source),
        };
        let how = RunConfig { runtime: Runtime::LlamaCpp, context, kv: KvType::F16 };
        // For some architectures, memory use cannot be predicted.
        let other_memory = match self.context {
            Some(_) => Some(choices.memory_overhead(how)?),
            None => choices.memory_overhead(how).ok(),
        };
        run.unchanged()?;
        let size = |name: String, bytes: u64, tensors: u64, kld: f64| Size {
            name,
            bytes,
            bits: 8.0 * tensors as f64 / choices.weights.max(1) as f64,
            kld: kld.max(0.0) + 0.0, // not −0
            memory: other_memory.map(|other| other + tensors),
        };
        let points: Vec<Size> = all
            .iter()
            .map(|s| {
                let (bytes, tensors) = (choices.fixed + s.bytes, choices.fixed_tensors + s.bytes);
                size(String::new(), bytes, tensors, (s.loss + choices.fixed_loss).max(0.0))
            })
            .collect();
        let mut schemes = Vec::new();
        for scheme in scheme::all() {
            options.scheme = Some(scheme.clone());
            let Ok(plan) = plan::plan(&source, &options) else { continue };
            // Schemes with types whose error is not in the sensitivity file are left out.
            let Some(kld) = predicted(&sensitivity, &plan) else { continue };
            let tensors = plan.layout.tensors.iter().map(|t| t.location.len).sum();
            let size = size(scheme.name.clone(), plan.bytes(), tensors, kld);
            let room = size.bytes.checked_sub(choices.fixed);
            let found = room.and_then(|room| budget::solve(&choices.items, room));
            let best = found.map(|f| f.loss + choices.fixed_loss);
            schemes.push(SchemePoint { size, best });
        }
        schemes.sort_by_key(|s| s.size.bytes);
        let (heading, about) = (heading(context), text::visible(&sensitivity.summary()));
        let few = thinned(&points, self.rows.unwrap_or(20) as usize);
        let rows: Vec<Vec<String>> = few.iter().map(|s| row(s)).collect();
        let scheme_rows: Vec<Vec<String>> = schemes
            .iter()
            .map(|s| {
                // A scheme that loses nothing, as far as the table's digits say, cannot be beaten.
                let best = s.best.filter(|_| s.size.kld >= SMALLEST_SHOWN);
                let share = best.map_or(String::new(), |best| format!("{:.2}", best / s.size.kld));
                [vec![s.size.name.clone()], row(&s.size), vec![share]].concat()
            })
            .collect();
        let scheme_heading: Vec<String> =
            [vec!["scheme".to_string()], heading.clone(), vec!["best at this size".into()]].concat();
        if let Some(path) = &self.report {
            let point = |s: &Size| Point { name: s.name.clone(), bytes: s.bytes, kld: s.kld };
            let line: Vec<Point> = points.iter().map(point).collect();
            let marks: Vec<Point> = schemes.iter().map(|s| point(&s.size)).collect();
            let text = page(
                &format!("Sizes of {}", source.path.display()),
                &format!(
                    "Predicted KL divergence, {about}. The line is the lowest that can be reached at each size."
                ),
                &[frontier(&line, &marks)],
                &[(heading.clone(), rows.clone()), (scheme_heading.clone(), scheme_rows.clone())],
            );
            run.write_whole(path, text.as_bytes(), REPORT)?;
        }
        if self.json {
            if self.rows.is_some() && self.report.is_none() {
                note("--rows has no effect here: --json prints every size");
            }
            let (model, origin) = (source.path.display().to_string(), sensitivity.summary());
            return print_json(&Found { model, origin, points: &points, schemes: &schemes });
        }
        let table = |heading: &[String], rows: Vec<Vec<String>>| {
            let mut table = Table::new(&heading.iter().map(String::as_str).collect::<Vec<_>>());
            rows.into_iter().for_each(|r| table.row(r));
            table.to_string()
        };
        let mut text = format!("{}: predicted KL divergence, {about}\n\n", shown(&source.path));
        text += &table(&heading, rows);
        text += "\n";
        text += &table(&scheme_heading, scheme_rows);
        text += "\nbest at this size: the lowest predicted KL divergence of any choice of types in as many bytes, as a fraction of \
                 the scheme's\n";
        let kept =
            source.model.tensors.iter().filter(|t| t.shape.len() > 1 && !t.encoding.is_plain()).count();
        if kept > 0 && !self.allow_requantize {
            text += &format!(
                "{kept} tensors are already quantized, and keep their types or become floats: --allow-requantize, here and with \
                 quantize, gives smaller sizes, with the errors of both\n"
            );
        }
        if let Some(smallest) = without {
            text += &format!(
                "below 3 bits, ggufkit quantize needs --imatrix FILE or --calibration TEXT; without, the smallest size is {}\n",
                text::bytes(smallest)
            );
        }
        if let Some(path) = &self.report {
            text += &format!("\n{}\n", shown(path));
        }
        print(&text)
    }

    fn options(&self) -> PlanOptions {
        PlanOptions {
            // Only the plan is made: nothing is written to this path.
            out: "all sizes of a model.gguf".into(),
            // Sizes do not depend on the importance matrix, and most files with types chosen here are made with one.
            importance: true,
            allow_requantize: self.allow_requantize,
            force: true,
            ..PlanOptions::default()
        }
    }
}

/// The predicted KL divergence of a plan; `None` if the error of one of its types is not known.
fn predicted(sensitivity: &Sensitivity, plan: &plan::Plan) -> Option<f64> {
    let changed =
        plan.decisions.iter().zip(&plan.layout.tensors).filter(|(decision, t)| decision.from != t.encoding);
    let mut types = Vec::new();
    for (_, t) in changed {
        let Encoding::Blocks(dtype) = t.encoding else { return None };
        types.push((t.name.as_str(), dtype));
    }
    sensitivity.predict(types)
}

fn heading(context: u64) -> Vec<String> {
    ["size", "bits", "predicted KLD", &format!("memory in llama.cpp, {context} tokens")]
        .map(String::from)
        .to_vec()
}

fn row(s: &Size) -> Vec<String> {
    vec![
        text::bytes(s.bytes),
        format!("{:.2}", s.bits),
        format!("{:.6}", s.kld),
        s.memory.map_or(String::new(), text::bytes),
    ]
}

/// At most `rows` of the points, at about equal steps of size.
fn thinned(points: &[Size], rows: usize) -> Vec<&Size> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let step = (last.bytes - first.bytes) as f64 / (rows - 1) as f64;
    let mut shown: Vec<&Size> = Vec::new();
    for (i, p) in points.iter().enumerate() {
        let next_size = first.bytes as f64 + shown.len() as f64 * step;
        if p.bytes as f64 >= next_size || i + 1 == points.len() {
            shown.push(p);
        }
    }
    shown
}
