//! Options for how weights are rounded: importance matrix, calibration set, algorithm and search.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use formats::block::{Effort, Objective};

use ggufkit::calibrate::gptq::Regularization;
use ggufkit::calibrate::sequential::{self, ColumnScales};
use ggufkit::pipeline::{CalibrationSet, ImportanceSource};
use ggufkit::plan::rounding;
use ggufkit::text::listed;
use ggufkit::{Error, Result};

use super::at_least_one;

/// How weights are rounded.
#[derive(Debug, Args)]
pub struct Rounding {
    /// Importance matrix (.gguf or .dat) from `ggufkit calibrate` or llama-imatrix: errors count more in columns with
    /// larger inputs
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Calibration set: a text file like the texts that the model will see, or `builtin`. The importance matrix is
    /// measured on it before quantizing, so there is no --imatrix beside it
    #[arg(long, value_name = "TEXT")]
    pub calibration: Option<PathBuf>,
    /// Context length in tokens of each calibration chunk [default: 512, or the model's context length if that is
    /// shorter]
    #[arg(long, value_name = "N", value_parser = context)]
    calibration_context: Option<usize>,
    /// Use at most this many calibration chunks [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    calibration_chunks: Option<usize>,
    /// Sample the chunks from the whole calibration text with this random seed, instead of taking the first ones
    #[arg(long, value_name = "SEED")]
    calibration_seed: Option<u64>,
    /// Quantization algorithm; all except `search` process the model layer by layer and need --calibration,
    /// on which they measure the importance matrix too
    #[arg(long, value_enum, default_value = "search")]
    method: Method,
    /// Save each finished layer in this folder, and resume from it if an earlier run was interrupted
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Add a bias to each quantized matrix that cancels its mean output error; for llama models only, and some
    /// programs that load GGUF files ignore these biases
    #[arg(long)]
    bias_correction: bool,
    /// Symmetric GPTQ: reproduce the outputs of the original weights on the quantized model's own inputs, ignoring the
    /// error of earlier layers
    #[arg(long, hide = true)]
    symmetric: bool,
    /// Sweeps of coordinate descent after GPTQ's error feedback
    #[arg(long, hide = true, value_name = "N")]
    sweeps: Option<usize>,
    /// Damping added to the Hessian's diagonal, as a fraction of the diagonal's mean
    #[arg(long, hide = true, value_name = "X", default_value_t = Regularization::default().damping)]
    damping: f32,
    /// Shrinkage of the Hessian's off-diagonal: the tokens per column at which it is scaled by one half
    #[arg(long, hide = true, value_name = "X", default_value_t = Regularization::default().shrinkage)]
    shrinkage: f32,
    /// How thoroughly to search for the best scales: fast, normal or thorough (several times slower)
    #[arg(long, value_name = "EFFORT", value_parser = effort, default_value = "normal")]
    effort: Effort,
    /// What the scale search minimises [default: per type]
    #[arg(long, value_enum)]
    objective: Option<Minimised>,
}

/// Quantization algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Search the best scales of each block independently
    Search,
    /// AWQ: search as above, after moving scale factors between the columns of a matrix and the layer before it
    Awq,
    /// GPTQ: each column's rounding error is fed back into the columns not yet rounded
    Gptq,
    /// AWQ's scaling followed by GPTQ
    #[value(name = "awq+gptq")]
    AwqGptq,
    /// For each matrix, whichever of these gives the smallest output error on held-out tokens
    Auto,
}

fn context(text: &str) -> std::result::Result<usize, String> {
    let n = text.parse().ok().filter(|n| (16..=1 << 20).contains(n));
    n.ok_or_else(|| format!("{text:?} must be an integer from 16 to 1048576"))
}

/// What the scale search minimises.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Minimised {
    /// The squared error of the weights
    Error,
    /// The squared error, with errors of larger weights counting more
    Prior,
}

fn effort(name: &str) -> std::result::Result<Effort, String> {
    Effort::ALL.iter().find(|e| e.1 == name).map(|e| e.0).ok_or_else(|| {
        let names: Vec<_> = Effort::ALL.iter().map(|e| e.1).collect();
        format!("{name:?} must be one of {}", names.join(", "))
    })
}

impl Rounding {
    /// Checks that the options go together: `--imatrix` reads an importance matrix, for the search alone; `--calibration`
    /// measures one, and is what everything that works layer by layer needs.
    ///
    /// # Errors
    /// [`Error::Usage`] with all that does not go together, and every way out.
    pub fn check(&self) -> Result<()> {
        let method = self.method.to_possible_value().map_or_else(String::new, |v| v.get_name().to_string());
        let (searches, method) = (self.method == Method::Search, format!("--method {method}"));
        let given = |options: &[(&'static str, bool)]| -> Vec<&'static str> {
            options.iter().filter(|o| o.1).map(|o| o.0).collect()
        };
        let mut layered =
            given(&[("--bias-correction", self.bias_correction), ("--state", self.state.is_some())]);
        let mut of_text = given(&[
            ("--calibration-context", self.calibration_context.is_some()),
            ("--calibration-chunks", self.calibration_chunks.is_some()),
            ("--calibration-seed", self.calibration_seed.is_some()),
        ]);
        let only_state = searches && layered == ["--state"];
        if !searches {
            layered.insert(0, &method);
        }
        let (text, file) = (self.calibration.is_some(), self.imatrix.is_some());
        // The method is named with its value, and left out without.
        let bare = |options: &[&str]| -> String {
            let name = |option: &&str| option.split(' ').next().unwrap_or_default().to_string();
            listed(&options.iter().map(name).collect::<Vec<_>>())
        };
        let refuse = |why: String, hint: String| Err(Error::usage(why).or(hint));
        let of_feedback = given(&[("--symmetric", self.symmetric), ("--sweeps", self.sweeps.is_some())]);
        if matches!(self.method, Method::Search | Method::Awq) && !of_feedback.is_empty() {
            let all = listed(&of_feedback);
            let (is, other) = (if of_feedback.len() > 1 { "are" } else { "is" }, "gptq, awq+gptq or auto");
            return refuse(
                format!("{all} {is} for error feedback, and {method} has none"),
                format!("leave out {all}; or use --method {other} and --calibration TEXT"),
            );
        }
        // A folder for finished layers needs a method that has such, and a seed a number of chunks.
        let add_method = if only_state { "--method gptq and " } else { "" };
        let seed_alone = self.calibration_seed.is_some() && self.calibration_chunks.is_none();
        let chunks = if seed_alone { " and --calibration-chunks N" } else { "" };
        match (file, text) {
            (true, _) if !layered.is_empty() => {
                let needs = if layered.len() > 1 { "need" } else { "needs" };
                let why = format!(
                    "{} {needs} the calibration set itself (--calibration), on which the importance matrix is measured too, and \
                     cannot use one from a file (--imatrix)",
                    listed(&layered)
                );
                let all = [&layered[..], &of_text, if text { &["--calibration"] } else { &[] }].concat();
                let mut more: Vec<&str> = Vec::new();
                more.extend(only_state.then_some("--method gptq"));
                more.extend((!text).then_some("--calibration TEXT"));
                more.extend(seed_alone.then_some("--calibration-chunks N"));
                let add = if more.is_empty() { String::new() } else { format!(" and add {}", listed(&more)) };
                refuse(why, format!("leave out --imatrix{add}; or leave out {}", bare(&all)))
            }
            (true, true) => {
                of_text.insert(0, "--calibration");
                let why = "--imatrix reads an importance matrix and --calibration measures one, so only one of them can be used";
                let add = if seed_alone { " and add --calibration-chunks N" } else { "" };
                refuse(why.into(), format!("leave out --imatrix{add}; or leave out {}", listed(&of_text)))
            }
            (true, false) if !of_text.is_empty() => {
                let (all, are) = (listed(&of_text), if of_text.len() > 1 { "are" } else { "is" });
                let why = format!("{all} {are} for measuring an importance matrix, and --imatrix reads one");
                refuse(
                    why,
                    format!("leave out {all}; or leave out --imatrix and add --calibration TEXT{chunks}"),
                )
            }
            (false, false) if !layered.is_empty() || !of_text.is_empty() => {
                let all = [layered, of_text].concat();
                let needs = if all.len() > 1 { "need" } else { "needs" };
                let why = format!("{} {needs} a calibration set", listed(&all));
                let hint = format!(
                    "add {add_method}--calibration TEXT{chunks} (`builtin` is the bundled text); or leave out {}",
                    bare(&all)
                );
                refuse(why, hint)
            }
            (false, true) if only_state => refuse(
                "--state keeps finished layers, and this run does not work layer by layer".into(),
                match seed_alone {
                    true => format!("add --method gptq{chunks}; or leave out --state and --calibration-seed"),
                    false => "add --method gptq; or leave out --state".into(),
                },
            ),
            _ if seed_alone => refuse(
                "--calibration-seed chooses the chunks that --calibration-chunks limits, and all are used"
                    .into(),
                "add --calibration-chunks N; or leave out --calibration-seed".into(),
            ),
            _ => Ok(()),
        }
    }

    /// Where the importance matrix comes from, if one was asked for.
    pub fn importance(&self) -> Option<ImportanceSource> {
        let file = self.imatrix.clone().map(ImportanceSource::File);
        file.or_else(|| {
            Some(ImportanceSource::Calibration(CalibrationSet {
                text: self.calibration.clone()?,
                context: self.calibration_context,
                chunks: self.calibration_chunks,
                seed: self.calibration_seed,
            }))
        })
    }

    /// The folder for finished layers.
    pub fn state(&self) -> Option<PathBuf> {
        self.state.clone()
    }

    /// The layer-by-layer method, if one was asked for.
    pub fn layer_by_layer(&self) -> Option<sequential::Method> {
        let method = sequential::Method {
            regularization: Regularization { damping: self.damping, shrinkage: self.shrinkage },
            asymmetric: !self.symmetric,
            sweeps: self.sweeps.unwrap_or(match self.effort {
                Effort::Fast => 1,
                Effort::Normal => sequential::Method::default().sweeps,
                Effort::Thorough => 8,
            }),
            feedback: !matches!(self.method, Method::Awq | Method::Search),
            column_scales: match self.method {
                Method::Gptq | Method::Search => ColumnScales::None,
                Method::Awq | Method::AwqGptq | Method::Auto => ColumnScales::Searched,
            },
            bias_correction: self.bias_correction,
            also_unscaled: self.method == Method::Auto,
            ..Default::default()
        };
        (self.method != Method::Search || self.bias_correction).then_some(method)
    }

    /// The settings of the encoders. The importance matrix is not yet read or measured.
    pub fn options(&self) -> rounding::Rounding {
        rounding::Rounding {
            importance: None,
            objective: self.objective.map(|minimised| match minimised {
                Minimised::Error => Objective::Error,
                Minimised::Prior => Objective::Prior,
            }),
            effort: self.effort,
            // The pipeline fills these in from the method.
            method: None,
            bias: false,
        }
    }
}
