//! The comparison report: a self-contained HTML page, without scripts, fonts or network access.

use std::fmt::Write;

use super::compare::{nats, percent, range, rate, with_error};
use super::svg::{class, escape};
use super::{plans, plots};
use crate::evaluate::comparison::{Candidate, Comparison};
use crate::score::stats::Estimate;
use crate::text::{bytes, count};

/// The style, with colours that most colour-blind readers can distinguish; series also differ in marks and dashes.
const STYLE: &str = include_str!("page.css");

/// The page of a comparison.
pub fn html(c: &Comparison) -> String {
    let title = format!("Compared with {}", c.reference.name);
    let mut out = head(&title, &format!("{}.", c.what()));
    overview(&mut out, c);
    let notes = c.notes();
    if !notes.is_empty() {
        out.push_str("<ul class=\"notes\">\n");
        for note in notes {
            let _ = writeln!(out, "<li>{}</li>", escape(&note));
        }
        out.push_str("</ul>\n");
    }
    meaning(&mut out, c);

    let interval = c.candidates.iter().any(|m| m.kld_interval.is_some());
    let bars = if interval {
        format!(" Error bars are {:.0} % confidence intervals of the mean.", 100.0 * c.bootstrap.level)
    } else {
        String::new()
    };
    let about = format!("Lower and further left is better.{bars}");
    figure(&mut out, "Size and divergence", &about, &[plots::size_against_kld(c)]);
    let about = "Root mean square of a tensor's error, relative to that of its weights. Tensors without error are left out.";
    let (layers, elsewhere) = (plots::errors_by_layer(c), plots::errors_elsewhere(c));
    if !(layers.is_empty() && elsewhere.is_empty()) {
        figure(&mut out, "Error of the tensors", about, &[plots::legend(c), layers, elsewhere]);
    }
    let maps: Vec<String> = (0..c.candidates.len()).map(|i| plans::type_map(c, i)).collect();
    if maps.iter().any(|m| !m.is_empty()) {
        let about = "Layers from left to right; tensors outside of layers are at the right.";
        let pictures: Vec<String> = std::iter::once(plans::type_legend(c)).chain(maps).collect();
        figure(&mut out, "Types of the tensors", about, &pictures);
    }
    if let Some(s) = &c.sensitivity {
        let about = format!(
            "The KL divergence of the model with only one matrix quantized, to {}; {}.",
            s.probe, s.origin
        );
        figure(&mut out, "Sensitivity of each matrix", &about, &[plans::sensitivities(c)]);
        let about = "The predicted KL divergence is the sum over all matrices, the measured one is from this text. On the \
                     dashed line, both are equal; above it, the errors of several matrices amplify each other.";
        figure(&mut out, "Predicted and measured divergence", about, &[plans::predicted(c)]);
    }
    let about = "The distribution of the KL divergence over tokens. The dashed lines are the median and the 99th percentile; \
                 the first bar includes all smaller values.";
    figure(&mut out, "Divergence of the tokens", about, &[plots::histograms(c)]);

    out.push_str("<h2>Numbers</h2>\n");
    details(&mut out, "Perplexity and divergence", |out| summaries(out, c));
    if c.candidates.iter().any(|m| !m.tensors.is_empty()) {
        details(&mut out, "Tensors", |out| tensors(out, c));
    }
    if c.candidates.iter().any(|m| !m.histogram.is_empty()) {
        details(&mut out, "Tokens by divergence", |out| buckets(out, c));
    }
    details(&mut out, "How it was measured", |out| settings(out, c));
    out.push_str("</body>\n</html>\n");
    out
}

/// The beginning of a page.
fn head(title: &str, about: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{0}</h1>\n<p>{1}</p>\n",
        escape(title),
        escape(about)
    )
}

/// A page of plots and tables. `tables` are headings with their rows.
pub fn page(
    title: &str,
    about: &str,
    pictures: &[String],
    tables: &[(Vec<String>, Vec<Vec<String>>)],
) -> String {
    let mut out = head(title, about);
    for picture in pictures.iter().filter(|p| !p.is_empty()) {
        let _ = writeln!(out, "<div class=\"wide\">\n{picture}</div>");
    }
    for (heading, rows) in tables {
        out.push_str("<div class=\"wide\">\n");
        table(&mut out, heading, rows.iter().cloned());
        out.push_str("</div>\n");
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// A section with plots; nothing if all of them are empty.
fn figure(out: &mut String, heading: &str, about: &str, pictures: &[String]) {
    if pictures.iter().all(String::is_empty) {
        return;
    }
    let _ = writeln!(out, "<h2>{}</h2>\n<p>{}</p>", escape(heading), escape(about));
    for picture in pictures.iter().filter(|p| !p.is_empty()) {
        let _ = writeln!(out, "<div class=\"wide\">\n{picture}</div>");
    }
}

/// A section that the reader can unfold.
fn details(out: &mut String, summary: &str, body: impl FnOnce(&mut String)) {
    let _ = writeln!(out, "<details>\n<summary>{}</summary>\n<div class=\"wide\">", escape(summary));
    body(out);
    out.push_str("</div>\n</details>\n");
}

/// A table whose first column is text and whose others are numbers.
fn table(out: &mut String, heading: &[String], rows: impl IntoIterator<Item = Vec<String>>) {
    out.push_str("<table>\n<thead><tr>");
    for cell in heading {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(cell));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            let _ = if i == 0 {
                write!(out, "<th scope=\"row\">{cell}</th>")
            } else {
                write!(out, "<td>{cell}</td>")
            };
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n");
}

/// The first table: a row for every model.
fn overview(out: &mut String, c: &Comparison) {
    let or_none = |x: Option<String>| x.unwrap_or_default();
    let has = |f: &dyn Fn(&Candidate) -> bool| c.candidates.iter().any(f);
    let (intervals, ratios) = (has(&|m| m.kld_interval.is_some()), has(&|m| m.ratio_to_first.is_some()));
    let prompt = c.reference.prompt_tps.is_some() || has(&|m| m.prompt_tps.is_some());
    let generate = c.reference.generate_tps.is_some() || has(&|m| m.generate_tps.is_some());

    let mut heading =
        vec!["size".into(), "bits per weight".into(), "perplexity".into(), "mean KLD".to_string()];
    if intervals {
        heading[3] += &format!(", {:.0} %", 100.0 * c.bootstrap.level);
    }
    heading.extend(["median KLD", "99th KLD", "same top", "Δp rms"].map(String::from));
    heading.extend(ratios.then(|| "KLD, × first".to_string()));
    heading.extend((prompt || generate).then(|| "tokens/s".to_string()));

    out.push_str("<div class=\"wide\">\n<table class=\"overview\">\n<thead><tr><th scope=\"col\">model</th>");
    for cell in &heading {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(cell));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    let mut row = |mark: &str, name: &str, cells: Vec<String>| {
        let _ = write!(out, "<tr><th scope=\"row\">{mark}{}</th>", escape(name));
        for cell in cells.iter().chain(std::iter::repeat(&String::new())).take(heading.len()) {
            // A second line, such as the interval, is set smaller.
            let _ = match cell.split_once('\n') {
                Some((cell, below)) => {
                    write!(
                        out,
                        "<td>{}<br/><span class=\"small\">{}</span></td>",
                        escape(cell),
                        escape(below)
                    )
                }
                None => write!(out, "<td>{}</td>", escape(cell)),
            };
        }
        out.push_str("</tr>\n");
    };
    let speeds = |cells: &mut Vec<String>, prompt_tps: Option<f64>, generate_tps: Option<f64>| {
        let prompt_rate = prompt_tps.map(|r| format!("\nprompt {}", rate(r)));
        let cell = format!("{}{}", or_none(generate_tps.map(rate)), or_none(prompt_rate));
        cells.extend((prompt || generate).then_some(cell));
    };
    // The columns between perplexity and speed, which are empty for the reference.
    let compared = 5 + usize::from(ratios);
    let r = &c.reference;
    let mut cells = vec![
        or_none(r.bytes.map(bytes)),
        or_none(r.bits_per_weight.map(|b| format!("{b:.2}"))),
        with_error(&r.perplexity),
    ];
    cells.extend(vec![String::new(); compared]);
    speeds(&mut cells, r.prompt_tps, r.generate_tps);
    row("", &format!("{} (reference)", r.name), cells);
    let of = |against: Option<&crate::score::summary::Against>,
              interval: Option<String>,
              ratio: Option<String>| {
        let cell = |f: &dyn Fn(&crate::score::summary::Against) -> String| or_none(against.map(f));
        let interval = or_none(interval.map(|i| format!("\n{i}")));
        let mut cells = vec![format!("{}{interval}", cell(&|a| nats(a.kld.mean.value)))];
        cells.extend([
            cell(&|a| nats(a.kld.median)),
            cell(&|a| nats(a.kld.p99)),
            cell(&|a| percent(a.same_top.value)),
            cell(&|a| percent(a.dp.rms.value)),
        ]);
        cells.extend(ratios.then(|| or_none(ratio)));
        cells
    };
    if let Some(floor) = &c.floor {
        let mut cells = vec![String::new(), String::new(), with_error(&floor.perplexity)];
        cells.extend(of(floor.against.as_ref(), None, None));
        row("", "reference against itself (noise floor)", cells);
    }
    for (i, m) in c.candidates.iter().enumerate() {
        let mut cells =
            vec![bytes(m.bytes), format!("{:.2}", m.bits_per_weight), with_error(&m.summary.perplexity)];
        let ratio = m.ratio_to_first.map(|r| {
            let interval = r.interval.map(|i| format!("\n{}", range(&i))).unwrap_or_default();
            format!("{}{interval}", nats(r.value))
        });
        cells.extend(of(m.against(), m.kld_interval.as_ref().map(range), ratio));
        speeds(&mut cells, m.prompt_tps, m.generate_tps);
        row(&format!("<span class=\"swatch {}\"></span>", class(i)), &m.name, cells);
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}

/// The explanation of the columns.
fn meaning(out: &mut String, c: &Comparison) {
    let intervals = if c.candidates.iter().any(|m| m.kld_interval.is_some()) {
        let (level, resamples) = (100.0 * c.bootstrap.level, count(c.bootstrap.resamples.into()));
        format!(
            " Intervals are {level:.0} % confidence intervals from {resamples} bootstrap resamples of whole chunks, the \
             same for every model."
        )
    } else {
        String::new()
    };
    let _ = writeln!(
        out,
        "<p class=\"small\">KLD: Kullback-Leibler divergence of the model's next-token probabilities from the \
         reference's, in nats per token; 0 means no difference. Same top: share of tokens for which both models' most \
         likely token is the same. Δp: change of the probability of the text's token. Perplexities are given ± one \
         standard error.{intervals}</p>"
    );
}

/// All metrics, a column for every candidate.
fn summaries(out: &mut String, c: &Comparison) {
    let mut heading = vec![String::new()];
    heading.extend(c.floor.iter().map(|_| "(noise floor)".to_string()));
    heading.extend(c.candidates.iter().map(|m| m.name.clone()));
    let all: Vec<_> = c.floor.iter().chain(c.candidates.iter().map(|m| &m.summary)).collect();
    let exact = |x: f64| format!("{x:.6}");
    let estimate = |e: &Estimate| match e.error {
        Some(error) => format!("{:.6} ± {error:.6}", e.value),
        None => exact(e.value),
    };
    let mut rows = Vec::new();
    let mut row = |name: &str, f: &dyn Fn(&crate::score::Summary) -> Option<String>| {
        let cells: Vec<_> = all.iter().map(|s| f(s).unwrap_or_default()).collect();
        rows.push([vec![name.to_string()], cells].concat());
    };
    row("scored tokens", &|s| Some(count(s.tokens)));
    row("perplexity", &|s| Some(estimate(&s.perplexity)));
    row("reference perplexity", &|s| Some(estimate(&s.against.as_ref()?.reference_perplexity)));
    row("ln of the ratio", &|s| Some(estimate(&s.against.as_ref()?.ln_ratio)));
    row("ratio", &|s| Some(estimate(&s.against.as_ref()?.ratio)));
    row("difference", &|s| Some(estimate(&s.against.as_ref()?.difference)));
    row("correlation of log-likelihoods", &|s| s.against.as_ref()?.correlation.map(exact));
    row("KLD, mean", &|s| Some(estimate(&s.against.as_ref()?.kld.mean)));
    macro_rules! each {
        ($what:literal, $of:ident: $($name:literal $field:ident),*) => {
            $(row(concat!($what, ", ", $name), &|s| Some(exact(s.against.as_ref()?.$of.$field)));)*
        };
    }
    each!("KLD", kld: "maximum" max, "99.9 %" p99_9, "99 %" p99, "95 %" p95, "90 %" p90, "median" median, "minimum" min);
    row("same top token", &|s| Some(estimate(&s.against.as_ref()?.same_top)));
    row("Δp, mean", &|s| Some(estimate(&s.against.as_ref()?.dp.mean)));
    row("Δp, rms", &|s| Some(estimate(&s.against.as_ref()?.dp.rms)));
    each!("Δp", dp: "maximum" max, "99.9 %" p99_9, "99 %" p99, "95 %" p95, "90 %" p90, "75 %" p75, "median" median);
    each!("Δp", dp: "25 %" p25, "10 %" p10, "5 %" p5, "1 %" p1, "0.1 %" p0_1, "minimum" min);
    table(out, &heading, rows);
}

/// A row for every tensor, a column for every candidate. Candidates may have different tensors.
fn tensors(out: &mut String, c: &Comparison) {
    let mut heading = vec!["tensor".to_string()];
    heading.extend(c.candidates.iter().map(|m| m.name.clone()));
    let mut at = std::collections::HashMap::new();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (i, m) in c.candidates.iter().enumerate() {
        for t in &m.tensors {
            let row = *at.entry(&t.name).or_insert_with(|| {
                rows.push(vec![String::new(); 1 + c.candidates.len()]);
                let last = rows.len() - 1;
                rows[last][0].clone_from(&t.name);
                last
            });
            let error = if t.relative_error == 0.0 {
                "0".into()
            } else {
                format!("{:.3} %", 100.0 * t.relative_error)
            };
            rows[row][i + 1] = format!("{} {error}", t.dtype);
        }
    }
    table(out, &heading, rows);
}

/// The histograms as a table.
fn buckets(out: &mut String, c: &Comparison) {
    let mut heading = vec!["KLD in nats, from".to_string()];
    heading.extend(c.candidates.iter().map(|m| m.name.clone()));
    let mut edges: Vec<f64> = c.candidates.iter().flat_map(|m| &m.histogram).map(|b| b.0).collect();
    edges.sort_by(f64::total_cmp);
    edges.dedup();
    let in_bucket = |m: &Candidate, edge: f64| m.histogram.iter().find(|b| b.0 == edge).map_or(0, |b| b.1);
    let rows = edges.iter().enumerate().filter_map(|(i, &edge)| {
        let counts: Vec<_> = c.candidates.iter().map(|m| in_bucket(m, edge)).collect();
        // The lowest bucket includes all smaller values.
        let name = if i == 0 { "(less)".into() } else { format!("{:.2e}", 10f64.powf(edge)) };
        let row = [vec![name], counts.iter().map(|&n| count(n)).collect()].concat();
        counts.iter().any(|&n| n > 0).then_some(row)
    });
    table(out, &heading, rows);
}

/// How the comparison was measured.
fn settings(out: &mut String, c: &Comparison) {
    let path = |p: &std::path::Path| p.display().to_string();
    let mut rows = vec![
        vec!["text".into(), c.text.clone()],
        vec!["tokens per chunk".into(), count(c.context as u64)],
        vec!["chunks".into(), count(c.chunks as u64)],
        vec!["scored tokens".into(), count(c.tokens)],
        vec!["KV cache".into(), c.kv.clone()],
        vec!["activations".into(), c.activations.clone()],
        vec!["bootstrap seed".into(), c.bootstrap.seed.to_string()],
        vec!["bootstrap resamples".into(), count(c.bootstrap.resamples.into())],
        vec!["reference".into(), c.reference.path.as_deref().map(path).unwrap_or(c.reference.name.clone())],
    ];
    rows.extend(c.candidates.iter().map(|m| vec![m.name.clone(), path(&m.path)]));
    rows.extend(c.settings.iter().map(|s| vec![s.name.clone(), s.value.clone()]));
    table(out, &["setting".into(), "value".into()], rows);
}

#[cfg(test)]
mod tests {
    use super::super::compare::tests::{made_up, with_sensitivity};
    use super::super::svg::tests::check_nesting;
    use super::*;

    #[test]
    fn pages_are_well_formed_and_whole() {
        for (candidates, layers, chunks) in [(0, 0, 1), (1, 2, 1), (3, 32, 6), (8, 80, 20), (9, 1, 6)] {
            let c = made_up(candidates, layers, chunks);
            let more = html(&with_sensitivity(c.clone(), layers));
            check_nesting(&more);
            let page = html(&c);
            check_nesting(&page);
            let by_sensitivity = usize::from(candidates > 0) + 1;
            assert_eq!(more.matches("<svg").count(), page.matches("<svg").count() + by_sensitivity);
            assert!(!more.contains("NaN") && !more.contains(">inf<"));
            let pictures = if candidates == 0 { 0 } else { 6 + candidates };
            assert_eq!(page.matches("<svg").count(), pictures, "{candidates} {layers}");
            assert!(!page.contains("NaN") && !page.contains(">inf<"));
            // Nothing is fetched: the only address is the name of SVG's language.
            assert_eq!(
                page.matches("http").count(),
                page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count()
            );
            assert!(!page.contains("<script") && !page.contains("url(") && !page.contains("@import"));
        }
    }

    #[test]
    fn names_cannot_break_the_page() {
        let mut c = made_up(3, 2, 6);
        let hostile = "</title><script>alert(1)</script>\"'&\u{0}";
        c.text = hostile.into();
        c.reference.name = hostile.into();
        c.candidates[0].name = hostile.into();
        c.candidates[1].path = hostile.into();
        c.candidates[2].tensors[0].name = hostile.into();
        c.candidates[2].tensors[5].role = hostile.into();
        c.settings[0].value = hostile.into();
        let page = html(&c);
        check_nesting(&page);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
    }

    #[test]
    fn odd_numbers_make_a_page() {
        let mut c = made_up(3, 2, 6);
        c.candidates[0].summary.against.as_mut().unwrap().kld.mean.value = 0.0;
        c.candidates[1].summary.against.as_mut().unwrap().kld.mean.value = -1e-6;
        c.candidates[2].summary.against = None;
        c.candidates[2].tensors[0].relative_error = f64::INFINITY;
        c.candidates[2].bytes = 0;
        let page = html(&c);
        check_nesting(&page);
        assert!(!page.contains("NaN"));
    }
}
