//! Importance matrices as text tables and JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use calibration::imatrix::HASH;
use calibration::statistics::{CHUNK_SIZE, Unit};
use calibration::summary::{FEW_TOKENS, cosine_similarity};
use calibration::{Statistics, Summary, Warning};
use serde_json::{Value, json};

use crate::arch::Blk;
use crate::order;
use crate::text::{Table, count, visible};

/// Warnings that are shown; of further ones, only the number.
const SHOWN: usize = 8;

/// A one-line description of an importance matrix.
pub fn headline(s: &Statistics) -> String {
    let mut line = format!("{}: {} tensors", s.file, s.entries.len());
    if let Some(chunks) = s.chunks {
        let plural = if chunks == 1 { "" } else { "s" };
        let _ = write!(line, ", {} chunk{plural}", count(chunks));
        if let Some(size) = s.chunk_size {
            let _ = write!(line, " of {size} tokens");
        }
    }
    if !s.datasets.is_empty() {
        let _ = write!(line, " of {}", s.datasets.join(", "));
    }
    visible(&line)
}

/// A tensor's layer (`blk.N`), if it is in one, and its name within the layer without `.weight`.
fn parts(name: &str) -> (Option<u64>, &str) {
    let blk = Blk::parse(name);
    let own = blk.map_or(name, |blk| blk.part);
    (blk.map(|blk| blk.layer), own.strip_suffix(".weight").unwrap_or(own))
}

/// The statistics of every entry, by layer.
fn in_order(s: &Statistics) -> Vec<(String, Summary)> {
    let mut all = s.summaries();
    order::by(&mut all, |(a, _), (b, _)| {
        let key = |name| (parts(name).0.unwrap_or(u64::MAX), parts(name).1);
        key(a).cmp(&key(b))
    });
    all
}

/// The cosine similarity of a tensor's entry with that of the same tensor in the layer before.
fn similarity(s: &Statistics, name: &str) -> Option<f64> {
    let blk = Blk::parse(name)?;
    let before = Blk { layer: blk.layer.checked_sub(1)?, ..blk };
    cosine_similarity(s.entries.get(name)?, s.entries.get(&before.to_string())?)
}

/// A non-negative number with four significant digits.
fn figure(x: f64) -> String {
    match x {
        0.0 => "0".into(),
        1e-3..1e5 => {
            let places = (3 - x.log10().floor() as i32).clamp(0, 6) as usize;
            format!("{x:.places$}")
        }
        _ => format!("{x:.3e}"),
    }
}

fn percent(x: f64) -> String {
    format!("{:.1} %", 100.0 * x)
}

/// A row for every entry, with the statistics of llama-imatrix --show-statistics.
pub fn table(s: &Statistics) -> String {
    let mut table = Table::new(&[
        "tensor", "tokens", "columns", "active", "sum", "least", "largest", "mean", "σ", "entropy", "ratio",
        "ZD", "cosine",
    ]);
    for (name, f) in in_order(s) {
        let similarity = similarity(s, &name);
        let experts = if f.matrices > 1 {
            format!(" ({} of {})", f.matrices - f.unseen, f.matrices)
        } else {
            String::new()
        };
        table.row([
            name + &experts,
            count(f.fewest),
            count(f.columns as u64),
            percent(f.active),
            figure(f.sum),
            figure(f.min),
            figure(f.max),
            figure(f.mean),
            figure(f.deviation),
            format!("{:.3}", f.entropy),
            format!("{:.4}", f.entropy_ratio),
            percent(f.outliers),
            similarity.map_or(String::new(), |x| format!("{x:.4}")),
        ]);
    }
    table.to_string()
}

/// A row for every role (name within the layer), over all layers.
pub fn by_kind(s: &Statistics) -> String {
    let mut roles: BTreeMap<String, Vec<Summary>> = BTreeMap::new();
    for (name, figures) in s.summaries() {
        roles.entry(parts(&name).1.to_string()).or_default().push(figures);
    }
    let mut table = Table::new(&[
        "inputs of",
        "tensors",
        "tokens",
        "columns",
        "active",
        "entropy ratio",
        "largest mean square",
    ]);
    for (role, all) in roles {
        let min = |of: &dyn Fn(&Summary) -> f64| all.iter().map(of).fold(f64::INFINITY, f64::min);
        let max = |of: &dyn Fn(&Summary) -> f64| all.iter().map(of).fold(0.0, f64::max);
        let (low, high) = (min(&|f| f.entropy_ratio), max(&|f| f.entropy_ratio));
        let ratio = if all.len() == 1 { format!("{low:.3}") } else { format!("{low:.3} to {high:.3}") };
        table.row([
            role,
            all.len().to_string(),
            count(all.iter().map(|f| f.fewest).min().unwrap_or(0)),
            count(all.iter().map(|f| f.columns as u64).max().unwrap_or(0)),
            percent(min(&|f| f.active)),
            ratio,
            figure(max(&|f| f.max)),
        ]);
    }
    table.to_string()
}

/// Warnings about entries that were measured on few tokens, and notes from reading the file, one per line.
pub fn remarks(s: &Statistics) -> String {
    let (mut few, mut others) = (Vec::new(), Vec::new());
    for warning in s.warnings(FEW_TOKENS) {
        match warning {
            Warning::Few { tensor, tokens, of: 1, .. } => few.push((tensor, tokens)),
            other => others.push(other.to_string()),
        }
    }
    let mut lines = Vec::new();
    if let Some((tensor, tokens)) = few.iter().min_by_key(|(_, tokens)| tokens) {
        let what = match few.len() {
            1 => format!("{tensor} was measured on only"),
            n => format!("{n} tensors were measured on few tokens, {tensor} on only"),
        };
        lines.push(format!("warning: {what} {tokens}: take a longer text, or add one with --merge"));
    }
    lines.extend(others.iter().take(SHOWN).map(|w| format!("warning: {w}")));
    if others.len() > SHOWN {
        lines.push(format!("warning: and {} more", others.len() - SHOWN));
    }
    lines.extend(notes(s).map(|note| format!("note: {note}")));
    lines.iter().fold(String::new(), |text, line| text + &visible(line) + "\n")
}

/// Notes from reading the file, and what the figures assume.
fn notes(s: &Statistics) -> impl Iterator<Item = String> {
    let assumed = (s.unit == Unit::Chunks && s.chunk_size.is_none()).then(|| {
        format!(
            "{}: what was measured is counted in chunks of unknown length: tokens are those of chunks of {CHUNK_SIZE}, \
             llama-imatrix's default",
            s.file
        )
    });
    s.notes.iter().cloned().chain(assumed)
}

/// The statistics of each entry as JSON, one at a time: a file may have a million of them.
pub fn entries(s: &Statistics) -> impl Iterator<Item = Value> {
    in_order(s).into_iter().map(|(name, f): (String, Summary)| {
        json!({
            "cosine_similarity": similarity(s, &name),
            "tensor": name,
            "columns": f.columns,
            "matrices": f.matrices,
            "unseen": f.unseen,
            "tokens": f.count,
            "fewest_tokens": f.fewest,
            "tokens_per_column": f.tokens_per_column,
            "sum": f.sum,
            "min": f.min,
            "max": f.max,
            "mean": f.mean,
            "deviation": f.deviation,
            "active": f.active,
            "entropy": f.entropy,
            "entropy_ratio": f.entropy_ratio,
            "zd": f.outliers,
        })
    })
}

/// The importance matrix's figures, warnings and notes as JSON; in place of the [`entries`] is `null`.
pub fn as_json(s: &Statistics) -> Value {
    let warnings: Vec<_> = s.warnings(FEW_TOKENS).iter().map(Warning::to_string).collect();
    json!({
        "file": s.file,
        "datasets": s.datasets,
        "hash": s.metadata.text(HASH),
        "chunks": s.chunks,
        "chunk_size": s.chunk_size,
        "entries": null,
        "warnings": warnings,
        "notes": notes(s).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use calibration::Entry;

    use super::*;

    fn statistics(entries: &[(&str, &[f32], &[u64])]) -> Statistics {
        let entry = |&(name, sums, counts): &(&str, &[f32], &[u64])| {
            (name.to_string(), Arc::new(Entry::new(sums.to_vec(), counts.to_vec()).unwrap()))
        };
        Statistics { file: "x".into(), entries: entries.iter().map(entry).collect(), ..Statistics::default() }
    }

    #[test]
    fn blocks_come_in_their_order_and_are_held_against_the_one_before() {
        let s = statistics(&[
            ("blk.10.a.weight", &[1.0, 0.0], &[2000]),
            ("blk.9.a.weight", &[1.0, 1.0], &[2000]),
            ("output.weight", &[1.0], &[2000]),
        ]);
        let names: Vec<_> = in_order(&s).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["blk.9.a.weight", "blk.10.a.weight", "output.weight"]);
        let cosine = similarity(&s, "blk.10.a.weight").unwrap();
        assert!((cosine - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(similarity(&s, "blk.9.a.weight"), None);
        assert_eq!(by_kind(&s).lines().count(), 3);
        assert_eq!(remarks(&s), "");
    }

    #[test]
    fn warnings_are_few() {
        let names: Vec<_> = (0..30).map(|i| format!("blk.{i}.a")).collect();
        let counts: [&[u64]; 2] = [&[7], &[0, 5000]];
        let sums: [&[f32]; 2] = [&[1.0], &[1.0, 1.0]];
        let entries: Vec<_> =
            names.iter().enumerate().map(|(i, n)| (n.as_str(), sums[i % 2], counts[i % 2])).collect();
        let text = remarks(&statistics(&entries));
        assert_eq!(text.lines().count(), 1 + SHOWN + 1, "{text}");
        assert!(
            text.starts_with("warning: 15 tensors were measured on few tokens, blk.0.a on only 7:"),
            "{text}"
        );
        assert!(text.ends_with("and 7 more\n"), "{text}");
        assert!(as_json(&statistics(&entries))["warnings"].as_array().unwrap().len() == 30);
    }

    #[test]
    fn what_is_assumed_of_chunks_is_said() {
        let mut s = statistics(&[("a", &[1.0], &[20])]);
        s.unit = Unit::Chunks;
        let says = |s: &Statistics| (remarks(s), as_json(s)["notes"].to_string());
        let (text, json) = says(&s);
        assert!(text.contains("chunks of 512") && json.contains("chunks of 512"), "{text} {json}");
        s.chunk_size = Some(128);
        assert!(!says(&s).0.contains("note") && says(&s).1 == "[]");
    }

    #[test]
    fn figures_have_four_places() {
        let figures = [0.0, 0.0001234, 0.012345, 1.5, 1234.56, 123456.0].map(figure);
        assert_eq!(figures, ["0", "1.234e-4", "0.01235", "1.500", "1235", "1.235e5"]);
    }
}
