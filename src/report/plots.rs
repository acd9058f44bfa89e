//! The plots of the comparison report.

use super::compare::{nats, percent, range, shorten};
use super::svg::{Anchor, Scale, Svg, class, text_width};
use crate::evaluate::comparison::{Candidate, Comparison};
use crate::order;
use crate::text::bytes;

/// The width of all plots, in pixels.
pub(super) const WIDTH: f64 = 960.0;
/// The font size in pixels, as in page.css.
pub(super) const TEXT: f64 = 12.0;

/// A rectangle of a plot, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Area {
    fn overlap(&self, other: &Self) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }

    /// The part of its area that lies outside of another rectangle.
    fn outside(&self, other: &Self) -> f64 {
        (self.right - self.left) * (self.bottom - self.top) - self.overlap(other)
    }
}

/// Draws the axes with ticks and labels, and the grid. `x` and `y` are each a scale, its ticks, and their labels.
pub(super) fn axes(
    svg: &mut Svg,
    area: Area,
    x: (&Scale, &[f64], &dyn Fn(f64) -> String),
    y: (&Scale, &[f64], &dyn Fn(f64) -> String),
) {
    for &tick in y.1 {
        let at = y.0.at(tick);
        svg.line("grid", (area.left, at), (area.right, at));
        svg.text("axis", (area.left - 6.0, at + 4.0), Anchor::End, &(y.2)(tick));
    }
    for &tick in x.1 {
        let at = x.0.at(tick);
        svg.line("axis", (at, area.bottom), (at, area.bottom + 4.0));
        svg.text("axis", (at, area.bottom + 17.0), Anchor::Middle, &(x.2)(tick));
    }
    svg.line("axis", (area.left, area.bottom), (area.right, area.bottom));
    svg.line("axis", (area.left, area.top), (area.left, area.bottom));
}

/// File size against mean KL divergence. Empty if no candidate has a divergence.
pub fn size_against_kld(c: &Comparison) -> String {
    let points: Vec<_> = c
        .candidates
        .iter()
        .enumerate()
        .filter_map(|(i, m)| Some((i, m, m.kld()?.mean.value)))
        .filter(|(_, _, kld)| kld.is_finite())
        .collect();
    if points.is_empty() {
        return String::new();
    }
    let area = Area { left: 74.0, top: 14.0, right: WIDTH - 20.0, bottom: 400.0 };
    let mut svg = Svg::new(WIDTH, 450.0);

    let floor = c.floor_kld().filter(|f| *f > 0.0);
    // Values of 0 and below are drawn at the lower end of the logarithmic axis.
    let drawn = points.iter().flat_map(|(_, m, kld)| [Some(*kld), m.kld_interval.map(|i| i.low)]).flatten();
    let top = points.iter().map(|(_, m, kld)| m.kld_interval.map_or(*kld, |i| i.high.max(*kld)));
    let lowest = drawn.chain(floor).filter(|k| *k > 0.0).fold(f64::INFINITY, f64::min);
    let highest = top.fold(0.0, f64::max).max(floor.unwrap_or(0.0));
    let (lowest, highest) = if lowest <= highest { (lowest, highest) } else { (1e-6, 1e-5) };
    // Room for labels at both ends.
    let y = Scale::log(lowest / 2.0, highest * 2.0, area.bottom, area.top);
    let sizes = || points.iter().map(|(_, m, _)| m.bytes as f64);
    let (smallest, largest) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
    let unit =
        [1u64 << 40, 1 << 30, 1 << 20, 1 << 10, 1].into_iter().find(|u| largest >= *u as f64).unwrap_or(1)
            as f64;
    let pad = if largest > smallest { (largest - smallest) * 0.15 } else { largest * 0.05 }.max(1.0);
    let x = Scale::linear((smallest - pad) / unit, (largest + pad) / unit, area.left, area.right);
    let unit_name = bytes(unit as u64);
    let unit_name = unit_name.rsplit(' ').next().unwrap_or_default().to_string();
    let ticks = x.ticks(7);
    let step = ticks.first().zip(ticks.get(1)).map_or(1.0, |(a, b)| b - a);
    let digits = (0..9).find(|d| step * 10f64.powi(*d) > 0.95).unwrap_or(0) as usize;
    axes(&mut svg, area, (&x, &ticks, &|v| format!("{v:.digits$}")), (&y, &y.ticks(6), &tick_label));
    svg.text(
        "axis",
        ((area.left + area.right) / 2.0, area.bottom + 38.0),
        Anchor::Middle,
        &format!("file size, {unit_name}"),
    );
    svg.upright(
        "axis",
        (16.0, (area.top + area.bottom) / 2.0),
        "mean KL divergence, nats per token (log scale)",
    );

    let mut taken: Vec<Area> = Vec::new();
    if let Some(floor) = floor {
        let at = y.at(floor);
        svg.line("floor", (area.left, at), (area.right, at));
        let text = format!("noise floor: the reference against itself, {}", nats(floor));
        svg.text("note", (area.right - 4.0, at - 5.0), Anchor::End, &text);
        let left = area.right - text_width(&text, TEXT);
        taken.push(Area { left, top: at - 18.0, right: area.right, bottom: at + 2.0 });
    }
    let places: Vec<_> = points.iter().map(|(_, m, kld)| (x.at(m.bytes as f64 / unit), y.at(*kld))).collect();
    for ((i, m, kld), &(px, py)) in points.iter().zip(&places) {
        if let Some(interval) = m.kld_interval {
            let (low, high) = (y.at(interval.low), y.at(interval.high));
            let bar = format!("bar {}", class(*i));
            svg.line(&bar, (px, low), (px, high));
            svg.line(&bar, (px - 5.0, low), (px + 5.0, low));
            svg.line(&bar, (px - 5.0, high), (px + 5.0, high));
            taken.push(Area { left: px - 5.0, top: high, right: px + 5.0, bottom: low });
        }
        let title = format!("{}: {}, {} nats", m.name, bytes(m.bytes), nats(*kld));
        svg.mark(*i, (px, py), 5.0, &title);
        taken.push(Area { left: px - 6.0, top: py - 6.0, right: px + 6.0, bottom: py + 6.0 });
    }
    for ((i, m, _), &(px, py)) in points.iter().zip(&places) {
        let name = shorten(&m.name, 32);
        let width = text_width(&name, TEXT);
        let label = best_place(width, (px, py), area, &taken);
        // A line connects a distant label with its point.
        let (cx, cy) = ((label.left + label.right) / 2.0, label.bottom - TEXT / 2.0);
        if (cy - py).abs() > 24.0 {
            let edge = if cy < py { label.bottom } else { label.top };
            svg.line("grid", (px, py), (cx.clamp(px - 30.0, px + 30.0).clamp(label.left, label.right), edge));
        }
        svg.text(&format!("own {}", class(*i)), (cx, label.bottom - 3.5), Anchor::Middle, &name);
        taken.push(label);
    }
    let list: Vec<_> =
        points.iter().map(|(_, m, kld)| format!("{} {} {}", m.name, bytes(m.bytes), nats(*kld))).collect();
    svg.finish("size", "File size against mean KL divergence", &list.join("; "))
}

/// The label of a tick.
pub(super) fn tick_label(x: f64) -> String {
    if x == 0.0 {
        return "0".into();
    }
    // Rounded to hide binary rounding errors such as 0.30000000000000004.
    let short: f64 = format!("{x:.3e}").parse().unwrap_or(x);
    if (0.001..1e5).contains(&short) { format!("{short}") } else { format!("{short:e}") }
}

/// The place near a point where a label of a width overlaps the least with `taken` rectangles.
pub(super) fn best_place(width: f64, (x, y): (f64, f64), area: Area, taken: &[Area]) -> Area {
    let height = TEXT + 2.0;
    let at = |cx: f64, cy: f64| Area {
        left: cx - width / 2.0,
        top: cy - height / 2.0,
        right: cx + width / 2.0,
        bottom: cy + height / 2.0,
    };
    let side = width / 2.0 + 11.0;
    let mut places = vec![at(x + side, y), at(x - side, y), at(x, y - 16.0), at(x, y + 16.0)];
    for step in [13.0, 26.0, 39.0, 54.0] {
        for dy in [-step, step] {
            places.extend([at(x + side, y + dy), at(x - side, y + dy), at(x, y + dy * 1.3)]);
        }
    }
    let cost = |p: &Area| 3.0 * p.outside(&area) + taken.iter().map(|t| t.overlap(p)).sum::<f64>();
    let costs: Vec<_> = places.iter().map(cost).collect();
    let best = (0..places.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).unwrap_or(0);
    places[best]
}

/// The legend: the candidates' marks and names, for plots without labels.
pub fn legend(c: &Comparison) -> String {
    let names: Vec<_> = c.candidates.iter().map(|m| shorten(&m.name, 40)).collect();
    let column = names.iter().map(|n| text_width(n, TEXT)).fold(0.0, f64::max) + 62.0;
    let columns = ((WIDTH / column) as usize).clamp(1, names.len().max(1));
    let rows = names.len().div_ceil(columns);
    let mut svg = Svg::new(WIDTH, rows as f64 * 20.0 + 4.0);
    for (i, name) in names.iter().enumerate() {
        let (left, at) = ((i % columns) as f64 * column + 4.0, (i / columns) as f64 * 20.0 + 12.0);
        svg.path(i, &[(left, at), (left + 36.0, at)]);
        svg.mark(i, (left + 18.0, at), 4.0, "");
        svg.text("label", (left + 43.0, at + 4.0), Anchor::Start, name);
    }
    svg.finish("legend", "Models", &names.join("; "))
}

/// The panel of a role: `errors[candidate]` has (layer, relative error) by layer.
struct Panel<'a> {
    role: &'a str,
    errors: Vec<Vec<(u32, f64)>>,
}

fn panels(c: &Comparison) -> Vec<Panel<'_>> {
    let mut panels: Vec<Panel> = Vec::new();
    for (i, m) in c.candidates.iter().enumerate() {
        for t in m.tensors.iter().filter(|t| t.relative_error > 0.0 && t.relative_error.is_finite()) {
            let Some(layer) = t.layer else { continue };
            let at = panels.iter().position(|p| p.role == t.role).unwrap_or_else(|| {
                panels.push(Panel { role: &t.role, errors: vec![Vec::new(); c.candidates.len()] });
                panels.len() - 1
            });
            panels[at].errors[i].push((layer, t.relative_error));
        }
    }
    for errors in panels.iter_mut().flat_map(|p| &mut p.errors) {
        order::by(errors, |a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
        // Of several tensors with the same role and layer, such as experts, the largest error.
        errors.dedup_by_key(|e| e.0);
    }
    panels
}

/// The axis of relative errors; the same in every panel, so that they can be compared.
fn error_scale(errors: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Scale {
    let (low, high) = (errors.clone().fold(f64::INFINITY, f64::min), errors.fold(0.0, f64::max));
    Scale::log(low / 1.15, high * 1.15, from, to)
}

fn errors(c: &Comparison) -> impl Iterator<Item = f64> + Clone + '_ {
    c.candidates
        .iter()
        .flat_map(|m| &m.tensors)
        .map(|t| t.relative_error)
        .filter(|e| *e > 0.0 && e.is_finite())
}

/// The label of a tick in percent.
fn share(x: f64) -> String {
    format!("{} %", tick_label(100.0 * x))
}

/// Relative error by layer, a panel for every role. Empty if no tensor has an error.
pub fn errors_by_layer(c: &Comparison) -> String {
    let panels = panels(c);
    if panels.is_empty() {
        return String::new();
    }
    let columns = panels.len().min(3);
    let (step_x, step_y) = ((WIDTH - 72.0) / columns as f64, 172.0);
    let rows = panels.len().div_ceil(columns);
    let mut svg = Svg::new(WIDTH, rows as f64 * step_y + 24.0);
    let layers = panels.iter().flat_map(|p| p.errors.iter().flatten()).map(|e| e.0).max().unwrap_or(0);
    for (n, panel) in panels.iter().enumerate() {
        let (column, row) = (n % columns, n / columns);
        let left = 72.0 + column as f64 * step_x;
        let top = row as f64 * step_y + 22.0;
        let area = Area { left, top, right: left + step_x - 20.0, bottom: top + 122.0 };
        let y = error_scale(errors(c), area.bottom, area.top);
        let x = Scale::linear(-0.5, f64::from(layers) + 0.5, area.left, area.right);
        // Ticks at integers.
        let ticks: Vec<_> = if layers <= 6 {
            (0..=layers).map(f64::from).collect()
        } else {
            Scale::linear(0.0, f64::from(layers), 0.0, 1.0).ticks(6)
        };
        let label: &dyn Fn(f64) -> String = if column == 0 { &share } else { &|_| String::new() };
        axes(&mut svg, area, (&x, &ticks, &|v| format!("{v:.0}")), (&y, &y.ticks(4), label));
        svg.text("heading", (area.left + 2.0, top - 7.0), Anchor::Start, &shorten(panel.role, 30));
        for (i, errors) in panel.errors.iter().enumerate() {
            let points: Vec<_> = errors.iter().map(|(l, e)| (x.at(f64::from(*l)), y.at(*e))).collect();
            if points.len() > 1 {
                svg.path(i, &points);
            }
            // About 12 marks per line.
            let every = (points.len() / 12).max(1);
            for ((layer, error), &at) in errors.iter().zip(&points).skip(i % every).step_by(every) {
                let title = format!("{}, layer {layer}: {}", c.candidates[i].name, percent(*error));
                svg.mark(i, at, 3.0, &title);
            }
        }
    }
    let bottom = rows as f64 * step_y + 10.0;
    svg.text("axis", (WIDTH / 2.0, bottom), Anchor::Middle, "layer");
    svg.upright("axis", (12.0, rows as f64 * step_y / 2.0), "relative error (log scale)");
    let roles: Vec<_> = panels.iter().map(|p| p.role).collect();
    let description =
        format!("A panel for each of {}; the numbers are in the table of tensors.", roles.join(", "));
    svg.finish("layers", "Relative error of the tensors by layer", &description)
}

/// Relative error of the tensors outside of layers (token embedding, output). Empty if none has an error.
pub fn errors_elsewhere(c: &Comparison) -> String {
    let mut names: Vec<&str> = Vec::new();
    for t in c.candidates.iter().flat_map(|m| &m.tensors) {
        if t.layer.is_none() && t.relative_error > 0.0 && !names.contains(&t.name.as_str()) {
            names.push(&t.name);
        }
    }
    if names.is_empty() {
        return String::new();
    }
    let left = names.iter().map(|n| text_width(&shorten(n, 32), TEXT)).fold(0.0, f64::max) + 16.0;
    let height = names.len() as f64 * 30.0;
    let area = Area { left, top: 6.0, right: WIDTH - 24.0, bottom: 6.0 + height };
    let mut svg = Svg::new(WIDTH, area.bottom + 44.0);
    let x = error_scale(errors(c), area.left, area.right);
    let y = Scale::linear(0.0, 1.0, area.bottom, area.top);
    axes(&mut svg, area, (&x, &x.ticks(8), &share), (&y, &[], &|_| String::new()));
    for (row, name) in names.iter().enumerate() {
        let at = area.top + (row as f64 + 0.5) * 30.0;
        svg.line("grid", (area.left, at), (area.right, at));
        svg.text("label", (left - 8.0, at + 4.0), Anchor::End, &shorten(name, 32));
        for (i, m) in c.candidates.iter().enumerate() {
            for t in m.tensors.iter().filter(|t| t.name == *name && t.relative_error > 0.0) {
                let title = format!("{}, {}: {}", m.name, t.dtype, percent(t.relative_error));
                svg.mark(i, (x.at(t.relative_error), at), 5.0, &title);
            }
        }
    }
    svg.text(
        "axis",
        ((area.left + area.right) / 2.0, area.bottom + 38.0),
        Anchor::Middle,
        "relative error (log scale)",
    );
    svg.finish("elsewhere", "Relative error of the embedding and the output", &names.join(", "))
}

/// Histograms of the tokens' KL divergence, a panel for every candidate. Empty without histograms.
pub fn histograms(c: &Comparison) -> String {
    let shown: Vec<_> =
        c.candidates.iter().enumerate().filter(|(_, m)| m.histogram.iter().any(|b| b.1 > 0)).collect();
    let filled = || shown.iter().flat_map(|(_, m)| &m.histogram).filter(|b| b.1 > 0).map(|b| b.0);
    if shown.is_empty() {
        return String::new();
    }
    let width = shown.iter().find_map(|(_, m)| Some(m.histogram.get(1)?.0 - m.histogram[0].0)).unwrap_or(1.0);
    let low = filled().fold(f64::INFINITY, f64::min).floor();
    let high = (filled().fold(f64::NEG_INFINITY, f64::max) + width).ceil();
    let of = |m: &Candidate| m.histogram.iter().map(|b| b.1).sum::<u64>().max(1) as f64;
    let max_share =
        shown.iter().flat_map(|(_, m)| m.histogram.iter().map(|b| b.1 as f64 / of(m))).fold(0.0, f64::max);

    let columns = shown.len().min(2);
    let (step_x, step_y) = ((WIDTH - 56.0) / columns as f64, 168.0);
    let rows = shown.len().div_ceil(columns);
    let mut svg = Svg::new(WIDTH, rows as f64 * step_y + 26.0);
    for (n, (i, m)) in shown.iter().enumerate() {
        let (column, row) = (n % columns, n / columns);
        let (left, top) = (56.0 + column as f64 * step_x, row as f64 * step_y + 22.0);
        let area = Area { left, top, right: left + step_x - 34.0, bottom: top + 116.0 };
        let x = Scale::linear(low, high, area.left, area.right);
        let y = Scale::linear(0.0, max_share * 1.08, area.bottom, area.top);
        let ticks: Vec<_> =
            Scale::linear(low, high, 0.0, 1.0).ticks(7).into_iter().filter(|t| t.fract() == 0.0).collect();
        let power = |v: f64| tick_label(10f64.powi(v as i32));
        let label: &dyn Fn(f64) -> String = if column == 0 { &share } else { &|_| String::new() };
        axes(&mut svg, area, (&x, &ticks, &power), (&y, &y.ticks(4), label));
        let fill = format!("fill {}", class(*i));
        for (edge, count) in m.histogram.iter().filter(|b| b.1 > 0) {
            let (from, to, at) = (x.at(*edge), x.at(edge + width), y.at(*count as f64 / of(m)));
            svg.bar(&fill, (from + 0.5, at), (to - from - 1.0, area.bottom - at));
        }
        let mut marks = Vec::new();
        for (name, value) in m.kld().map(|k| [("median", k.median), ("99 %", k.p99)]).into_iter().flatten() {
            if value > 0.0 {
                let at = x.at(value.log10());
                svg.line("floor", (at, area.top), (at, area.bottom));
                marks.push(format!("{name} {}", nats(value)));
            }
        }
        let marks = marks.join(", ");
        svg.text("note", (area.right, top - 7.0), Anchor::End, &marks);
        // The heading is bold, so about a fifth wider.
        let room = area.right - area.left - text_width(&marks, TEXT) - 16.0;
        let fits = |n: &usize| text_width(&shorten(&m.name, *n), TEXT) * 1.2 < room;
        let heading = shorten(&m.name, (8..=60).rev().find(fits).unwrap_or(8));
        svg.text("heading", (area.left + 2.0, top - 7.0), Anchor::Start, &heading);
    }
    let bottom = rows as f64 * step_y + 10.0;
    svg.text("axis", (WIDTH / 2.0, bottom), Anchor::Middle, "KL divergence of a token, nats (log scale)");
    svg.upright("axis", (12.0, rows as f64 * step_y / 2.0), "share of tokens");
    let list: Vec<_> = shown
        .iter()
        .map(|(_, m)| format!("{}: {}", m.name, m.kld_interval.as_ref().map(range).unwrap_or_default()))
        .collect();
    svg.finish("tokens", "Tokens by their KL divergence", &list.join("; "))
}
