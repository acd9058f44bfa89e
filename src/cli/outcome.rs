//! What happens to a model's tensors, as text and JSON: what is planned, and what was done.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use formats::block::{DType, Family};
use formats::container::safetensors::typed;
use formats::metadata::{Metadata, Value};
use formats::model::{Encoding, Tensor};
use serde_json::json;

use super::advice;
use super::allocation::allocation_json;
use super::json::{Filled, List, print_json};
use super::shown;
use ggufkit::Result;
use ggufkit::allocate::Allocation;
use ggufkit::evaluate::comparison::Comparison;
use ggufkit::outcome::Outcome;
use ggufkit::plan::{self, Plan};
use ggufkit::source::Source;
use ggufkit::text::{self, Rows, Table, visible};

/// A warning if weights that are not ternary were written in a ternary type; otherwise empty.
pub fn not_ternary(plan: &Plan, outcomes: &[Outcome]) -> String {
    let ternary =
        |t: &Tensor| matches!(t.encoding, Encoding::Blocks(d) if d.info().family == Family::Ternary);
    let mut all = Outcome::default();
    for (_, outcome) in plan.layout.tensors.iter().zip(outcomes).filter(|(t, _)| ternary(t)) {
        all.add(*outcome);
    }
    match all.relative() {
        error if error > 0.05 => format!(
            "note: these weights are not ternary, and the ternary type changes them by {:.0} %; use q2_k or iq2_m for such a model\n",
            100.0 * error
        ),
        _ => String::new(),
    }
}

/// The report after writing: the files, the tensors by type, and notes for the user.
pub fn report_text(source: &Source, plan: &Plan, outcomes: &[Outcome], elapsed: Duration) -> String {
    let mut text = String::new();
    for path in plan.paths.iter().chain(plan.extra.iter().map(|e| &e.0)) {
        let _ = writeln!(text, "{}", shown(path));
    }
    if !plan.layout.tensors.is_empty() {
        text += &by_type(source, plan, outcomes);
    }
    let (before, after) = (text::bytes(source.bytes()), text::bytes(plan.bytes()));
    let bits = match plan.layout.tensors.len() {
        0 => String::new(),
        _ => format!("{:.2} bits per weight, ", plan.bits_per_weight()),
    };
    let _ = writeln!(text, "{before} → {after}, {bits}{:.1} s", elapsed.as_secs_f64());
    text += &importance(plan);
    text += &methods(plan, outcomes);
    text += &remarks(plan);
    text += &not_ternary(plan, outcomes);
    text += &run_hint(plan);
    text
}

/// A table with a row for each pair of old and new type: number of tensors, size and error.
pub fn by_type(source: &Source, plan: &Plan, outcomes: &[Outcome]) -> String {
    let mut rows: Vec<(String, u64, u64, u64, Outcome)> = Vec::new();
    for ((t, decision), outcome) in plan.layout.tensors.iter().zip(&plan.decisions).zip(outcomes) {
        let (from, to) = (source.stored_as(decision.source), t.encoding.name());
        let name = if from == to { to } else { format!("{from} → {to}") };
        if !rows.iter().any(|r| r.0 == name) {
            rows.push((name.clone(), 0, 0, 0, Outcome::default()));
        }
        let row = rows.iter_mut().find(|r| r.0 == name).expect("just added");
        row.1 += 1;
        row.2 += t.elements();
        row.3 += t.location.len;
        row.4.add(*outcome);
    }
    let mut table = Table::new(&["type", "tensors", "weights", "size", "error"]);
    for (name, tensors, weights, bytes, outcome) in rows {
        let error =
            if outcome.error > 0.0 { format!("{:.3} %", 100.0 * outcome.relative()) } else { "0".into() };
        table.row([name, text::count(tensors), text::count(weights), text::bytes(bytes), error]);
    }
    table.to_string()
}

/// A table of the quantization methods that were used, with their loss relative to the plain search with importance.
pub fn methods(plan: &Plan, outcomes: &[Outcome]) -> String {
    let mut rows: Vec<(&str, DType, u64, f64, f64, f64)> = Vec::new();
    for (t, won) in plan.layout.tensors.iter().zip(outcomes).filter_map(|(t, o)| Some((t, o.chosen?))) {
        let Encoding::Blocks(dtype) = t.encoding else { continue };
        let ratio = won.ratio.max(1e-9);
        match rows.iter_mut().find(|r| (r.0, r.1) == (won.method, dtype)) {
            Some(r) => (r.2, r.3, r.4, r.5) = (r.2 + 1, r.3 + ratio.ln(), r.4.min(ratio), r.5.max(ratio)),
            None => rows.push((won.method, dtype, 1, ratio.ln(), ratio, ratio)),
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["method", "type", "tensors", "loss", "best", "worst"]);
    for (method, dtype, count, sum, best, worst) in rows {
        let mean = (sum / count as f64).exp();
        let number = |x: f64| format!("{x:.3}");
        table.row([
            method.into(),
            dtype.name().into(),
            text::count(count),
            number(mean),
            number(best),
            number(worst),
        ]);
    }
    format!(
        "\n{table}loss: squared error of the matrices' outputs on held-out tokens, relative to that of the search with importance\n"
    )
}

/// The importance matrix that was used, and for how many tensors.
pub fn importance(plan: &Plan) -> String {
    let summary = plan.search.importance_summary.as_ref();
    summary.map_or_else(String::new, |s| format!("importance: {}\n", visible(&s.text())))
}

/// Tensors that got another type than the rule's, with the cost, and the plan's notes.
pub fn remarks(plan: &Plan) -> String {
    let mut text = String::new();
    let weights: u64 = plan.layout.tensors.iter().map(Tensor::elements).sum();
    let mut seen = Vec::new();
    for (decision, t) in plan.decisions.iter().zip(&plan.layout.tensors) {
        let Some(intended) = decision.fallback_from else { continue };
        let key = (intended, t.encoding, t.cols());
        if !seen.contains(&key) {
            seen.push(key);
        }
    }
    for (intended, encoding, cols) in seen {
        let odd = |(s, t): &(&plan::Decision, &Tensor)| {
            s.fallback_from == Some(intended) && t.encoding == encoding && t.cols() == cols
        };
        let tensors: Vec<_> =
            plan.decisions.iter().zip(&plan.layout.tensors).filter(odd).map(|(_, t)| t).collect();
        let cost: f64 = tensors
            .iter()
            .map(|t| 8.0 * t.location.len as f64 - intended.bits_per_weight() * t.elements() as f64)
            .sum::<f64>()
            / weights as f64;
        let _ = writeln!(
            text,
            "note: rows of {cols} weights are not a multiple of the block size {}, so {} tensors are {} instead of {}: {cost:+.2} bits per weight",
            intended.info().weights,
            tensors.len(),
            encoding.name(),
            intended.name(),
        );
    }
    for note in &plan.notes {
        let _ = writeln!(text, "note: {}", visible(&advice::note(note)));
    }
    text
}

/// What becomes of every tensor, as a table with a row for each.
pub fn plan_table<'a>(source: &'a Source, plan: &'a Plan) -> impl Display + use<'a> {
    let row = move |(decision, t): (&plan::Decision, &Tensor)| {
        let rule = match decision.fallback_from {
            Some(d) => format!("{} (block of {} does not divide {})", decision.rule, d.name(), t.cols()),
            None => decision.rule.to_string(),
        };
        let (size, from) = (text::count(t.location.len), source.stored_as(decision.source));
        vec![t.name.clone(), text::shape(&t.shape), from, t.encoding.name(), size, rule]
    };
    let heading = ["tensor", "shape", "from", "to", "bytes", "rule"].map(String::from).to_vec();
    Rows { heading, rows: move || plan.decisions.iter().zip(&plan.layout.tensors).map(row) }
}

/// The files of a plan, and notes for the user: what follows the table.
pub fn plan_text(source: &Source, plan: &Plan) -> String {
    let mut text = String::new();
    for (path, len) in plan.paths.iter().zip(plan.layout.files.iter().map(|f| f.len)) {
        let _ = writeln!(text, "{}: {} bytes", shown(path), text::count(len));
    }
    for (path, bytes) in &plan.extra {
        let _ = writeln!(text, "{}: {} bytes", shown(path), text::count(bytes.len() as u64));
    }
    let (before, after) = (text::bytes(source.bytes()), text::bytes(plan.bytes()));
    let _ = writeln!(
        text,
        "{before} → {after}, {:.2} bits per weight; nothing was written",
        plan.bits_per_weight()
    );
    text += &importance(plan);
    text += &remarks(plan);
    text + &run_hint(plan)
}

/// How to run the result on the target machine.
pub fn run_hint(plan: &Plan) -> String {
    plan.run_hint.as_ref().map_or(String::new(), |hint| format!("to run it: {}\n", text::visible(hint)))
}

/// Prints the plan as JSON; with `outcomes`, also what was done, and the comparison with the source if there was one.
pub fn print_plan(
    source: &Source,
    plan: &Plan,
    outcomes: Option<&[Outcome]>,
    (allocation, comparison): (Option<&Allocation>, Option<&Comparison>),
) -> Result<()> {
    let tensor = |(i, (decision, t)): (usize, (&plan::Decision, &Tensor))| {
        let mut entry = json!({
            "name": t.name,
            "shape": t.shape,
            "from": source.stored_as(decision.source),
            "type": t.encoding.name(),
            "bytes": t.location.len,
            "rule": decision.rule,
            "wanted": decision.fallback_from.map(|d| d.name()),
            "importance": plan.search.columns(i).is_some(),
        });
        if let Some(outcomes) = outcomes {
            entry["relative_error"] = json!(outcomes[i].relative());
            if let Some(won) = outcomes[i].chosen {
                entry["method"] = json!({"name": won.method, "loss_ratio": won.ratio, "share": won.share});
            }
        }
        entry
    };
    let files = plan.paths.iter().zip(plan.layout.files.iter().map(|f| f.len));
    let extra = plan.extra.iter().map(|(p, b)| (p, b.len() as u64));
    let mut value = json!({
        "written": outcomes.is_some(),
        "files": files.chain(extra).map(|(p, len)| json!({"path": p.display().to_string(), "bytes": len})).collect::<Vec<_>>(),
        "byte_order": plan.order.name(),
        "source_bytes": source.bytes(),
        "bytes": plan.bytes(),
        "bits_per_weight": plan.bits_per_weight(),
        "metadata": metadata_json(&plan.metadata),
        "importance": plan.search.importance_summary.as_ref().map(|s| json!({
            "file": s.file,
            "entries": s.entries,
            "chunks": s.chunks,
            "datasets": s.datasets,
            "used": s.used,
            "quantized": s.quantized,
        })),
        "tensors": null,
        "notes": plan.notes.iter().map(|note| advice::note(note)).collect::<Vec<_>>(),
    });
    if let Some(allocation) = allocation {
        value["fit"] = allocation_json(allocation);
    }
    if let Some(comparison) = comparison {
        value["check"] = json!(comparison);
    }
    // Few files have a million tensors, but one may.
    let tensors = List(|| plan.decisions.iter().zip(&plan.layout.tensors).enumerate().map(tensor));
    print_json(&Filled { rest: &value, first: ("tensors", tensors), second: ("", ()) })
}

/// `[key, kind, value]` for each key; for arrays, which may be whole vocabularies, the kind and the length.
fn metadata_json(metadata: &Metadata) -> serde_json::Value {
    let mut short = Metadata::new();
    metadata.iter().filter(|(_, v)| v.as_array().is_none()).for_each(|(k, v)| short.set(k, v.clone()));
    let mut scalars = typed::to_json(&short).as_array().cloned().unwrap_or_default().into_iter();
    let entry = |(key, value): (&str, &Value)| match value.as_array() {
        Some(a) => Some(json!([key, "array", [a.kind().name(), a.len()]])),
        None => scalars.next(),
    };
    metadata.iter().filter_map(entry).collect()
}
