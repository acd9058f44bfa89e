//! A comparison of models with a reference as a text table.

use std::fmt::Write;

use crate::evaluate::comparison::Comparison;
use crate::order;
use crate::score::bootstrap::FEWEST;
use crate::score::stats::Estimate;
use crate::score::summary::Against;
use crate::score::{Interval, Ratio};
use crate::text::{Table, bytes, count, visible};

/// The widest table and line, in characters.
const WIDTH: usize = 100;

impl Comparison {
    /// A one-line description of the measurement.
    pub fn what(&self) -> String {
        let (chunks, tokens) = (count(self.chunks as u64), count(self.tokens));
        format!(
            "{}: {chunks} chunk{} of {} tokens, {tokens} tokens scored; KV cache {}, activations {}",
            visible(&self.text),
            if self.chunks == 1 { "" } else { "s" },
            self.context,
            visible(&self.kv),
            visible(&self.activations)
        )
    }

    /// Notes about differences that are not significant.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.chunks < FEWEST && !self.candidates.is_empty() {
            notes.push(format!(
                "With fewer than {FEWEST} chunks there are no confidence intervals: small differences may be chance."
            ));
        }
        if let Some(floor) = self.floor_kld() {
            for c in &self.candidates {
                if c.kld().is_some_and(|k| k.mean.value <= floor) {
                    notes.push(format!(
                        "{}: its divergence is not above the noise floor, so it cannot be told from 0.",
                        visible(&c.name)
                    ));
                }
            }
        }
        // Only neighbours in order of divergence: if those differ significantly, all do.
        let mut order: Vec<_> = (0..self.candidates.len())
            .filter_map(|i| Some((i, self.candidates[i].kld()?.mean.value)))
            .collect();
        order::by(&mut order, |a, b| a.1.total_cmp(&b.1));
        for pair in order.windows(2) {
            let (a, b) = (pair[0].0.min(pair[1].0), pair[0].0.max(pair[1].0));
            notes.extend(self.overlap(a, b));
        }
        notes
    }

    /// A note about two candidates, `a` before `b` in the list, if their intervals overlap.
    fn overlap(&self, a: usize, b: usize) -> Option<String> {
        let (first, second) = (&self.candidates[a], &self.candidates[b]);
        if !first.kld_interval?.overlaps(&second.kld_interval?) {
            return None;
        }
        let names = format!("{} and {}: the intervals overlap", visible(&first.name), visible(&second.name));
        let paired = second.ratio_to_first.filter(|_| a == 0);
        Some(match paired {
            Some(ratio) if ratio.is_clear() => {
                format!(
                    "{names}, but compared chunk by chunk, the second diverges {} as much.",
                    times(&ratio)
                )
            }
            Some(ratio) => format!(
                "{names}, also when compared chunk by chunk (the second diverges {} as much): the difference is not \
                 significant.",
                times(&ratio)
            ),
            None => format!("{names}: which one is closer to the reference is uncertain."),
        })
    }
}

/// The comparison as a text table of at most 100 columns, a row for every model, with notes.
pub fn table(c: &Comparison) -> String {
    let names = [&c.reference.name].into_iter().chain(c.candidates.iter().map(|m| &m.name));
    let full: Vec<_> = names.map(|n| visible(n)).collect();
    let mut text = rows(c, &full);
    let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    if widest(&text) > WIDTH {
        let common = common_start(&full);
        let mut cut: Vec<_> =
            full.iter().map(|n| format!("{}{}", if common > 0 { "…" } else { "" }, &n[common..])).collect();
        text = rows(c, &cut);
        let longest = cut.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        let room = longest.saturating_sub(widest(&text).saturating_sub(WIDTH)).max(8);
        cut.iter_mut().for_each(|n| *n = shorten(n, room));
        text = rows(c, &cut);
    }

    let mut out = format!("{}\n\n{text}", c.what());
    let mut lines = Vec::new();
    if c.candidates.iter().any(|m| m.kld().is_some()) {
        let interval = if c.candidates.iter().any(|m| m.kld_interval.is_some()) {
            format!("; {:.0} %: confidence interval of its mean", c.bootstrap.level * 100.0)
        } else {
            String::new()
        };
        lines.push(format!(
            "KLD: KL divergence from {}, nats per token{interval}; 99th: its 99th percentile; top: both models' most likely \
             token is the same; Δp: change of the probability of the text's token.",
            shorten(&c.reference.name, 40)
        ));
    }
    if let Some(s) = &c.sensitivity {
        lines.push(format!("predicted: the KLD that is predicted from the types; {}.", visible(&s.origin)));
    }
    if c.floor_kld().is_some() {
        lines.push(
            "(floor): the reference against itself in other arithmetic; smaller differences are noise."
                .into(),
        );
    }
    lines.extend(c.notes());
    if !lines.is_empty() {
        out.push('\n');
    }
    for line in lines {
        for line in wrap(&line, WIDTH - 2) {
            let _ = writeln!(out, "  {line}");
        }
    }
    out
}

/// The length in bytes of the common beginning of all names, up to the last character that ends a word.
fn common_start(names: &[String]) -> usize {
    let Some((first, rest)) = names.split_first() else { return 0 };
    let same = |n: &String| first.bytes().zip(n.bytes()).take_while(|(a, b)| a == b).count();
    let same = rest.iter().map(same).min().unwrap_or(0);
    let ends_word = |&(i, c): &(usize, char)| i < same && "-_./ ".contains(c);
    first.char_indices().rfind(ends_word).map_or(0, |(i, _)| i + 1)
}

/// The table; `names` are the names of the reference and of the candidates.
fn rows(c: &Comparison, names: &[String]) -> String {
    let has_speed =
        c.reference.generate_tps.is_some() || c.candidates.iter().any(|m| m.generate_tps.is_some());
    let has_interval = c.candidates.iter().any(|m| m.kld_interval.is_some());
    let interval = format!("{:.0} %", c.bootstrap.level * 100.0);
    let mut heading = vec!["model", "size", "bits", "perplexity", "KLD"];
    if has_interval {
        heading.push(&interval);
    }
    if c.sensitivity.is_some() {
        heading.push("predicted");
    }
    heading.extend(["99th", "top", "Δp rms"]);
    if has_speed {
        heading.push("tok/s");
    }
    let mut table = Table::new(&heading);
    let mut row = |name: &str,
                   head: [String; 3],
                   against: Option<&Against>,
                   [interval, predicted]: [String; 2],
                   speed: Option<f64>| {
        let mut cells = vec![name.to_string()];
        cells.extend(head);
        cells.push(against.map(|a| nats(a.kld.mean.value)).unwrap_or_default());
        if has_interval {
            cells.push(interval);
        }
        if c.sensitivity.is_some() {
            cells.push(predicted);
        }
        cells.push(against.map(|a| nats(a.kld.p99)).unwrap_or_default());
        cells.push(against.map(|a| percent(a.same_top.value)).unwrap_or_default());
        cells.push(against.map(|a| percent(a.dp.rms.value)).unwrap_or_default());
        if has_speed {
            cells.push(speed.map(rate).unwrap_or_default());
        }
        table.row(cells);
    };
    let r = &c.reference;
    let bits = |b: f64| format!("{b:.2}");
    let head = [
        r.bytes.map(bytes).unwrap_or_default(),
        r.bits_per_weight.map(bits).unwrap_or_default(),
        with_error(&r.perplexity),
    ];
    row(&names[0], head, None, Default::default(), r.generate_tps);
    if let Some(floor) = &c.floor {
        let head = [String::new(), String::new(), with_error(&floor.perplexity)];
        row("(floor)", head, floor.against.as_ref(), Default::default(), None);
    }
    for (m, name) in c.candidates.iter().zip(&names[1..]) {
        let head = [bytes(m.bytes), bits(m.bits_per_weight), with_error(&m.summary.perplexity)];
        let interval = m.kld_interval.as_ref().map(range).unwrap_or_default();
        let predicted = m.predicted_kld.map(nats).unwrap_or_default();
        row(name, head, m.against(), [interval, predicted], m.generate_tps);
    }
    table.to_string()
}

/// A number with three significant digits: "0.0153", "12.3"; very small or large ones as "3.2e-5".
pub fn nats(x: f64) -> String {
    let size = x.abs();
    match size {
        0.0 => "0".into(),
        _ if !size.is_finite() => x.to_string(),
        _ if !(0.001..1e6).contains(&size) => format!("{x:.1e}"),
        _ if size < 0.01 => format!("{x:.5}"),
        _ if size < 0.1 => format!("{x:.4}"),
        _ if size < 1.0 => format!("{x:.3}"),
        _ if size < 10.0 => format!("{x:.2}"),
        _ if size < 100.0 => format!("{x:.1}"),
        _ => format!("{x:.0}"),
    }
}

/// An interval: "0.0147–0.0159".
pub fn range(i: &Interval) -> String {
    format!("{}–{}", nats(i.low), nats(i.high))
}

/// A ratio: "0.87 times (0.85–0.89)".
pub fn times(r: &Ratio) -> String {
    let interval = r.interval.map(|i| format!(" ({:.2}–{:.2})", i.low, i.high)).unwrap_or_default();
    format!("{:.2} times{interval}", r.value)
}

/// A fraction of 1: "88.8 %".
pub fn percent(x: f64) -> String {
    if x == 0.0 || x.abs() >= 0.1 { format!("{:.1} %", 100.0 * x) } else { format!("{:.2} %", 100.0 * x) }
}

/// Tokens per second.
pub fn rate(x: f64) -> String {
    if x < 100.0 { format!("{x:.1}") } else { format!("{x:.0}") }
}

/// An estimate with the digits that its standard error makes significant: "39.91 ±4.97".
pub fn with_error(e: &Estimate) -> String {
    if e.value.abs() >= 1e6 || !e.value.is_finite() {
        return format!("{:.1e}", e.value);
    }
    let Some(error) = e.error.filter(|e| e.is_finite()) else { return format!("{:.3}", e.value) };
    let digits = if error >= 10.0 {
        1
    } else if error >= 0.1 {
        2
    } else if error >= 0.01 {
        3
    } else {
        4
    };
    format!("{:.digits$} ±{error:.digits$}", e.value)
}

/// A name shortened to at most `width` characters. The middle is left out, since file names differ at their ends.
pub fn shorten(name: &str, width: usize) -> String {
    let name = visible(name);
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= width || width < 3 {
        return name;
    }
    let (head, tail) = ((width - 1) / 2, width / 2);
    chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect()
}

/// A text broken at spaces into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.into());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
pub(super) mod tests;
