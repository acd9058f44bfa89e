//! Plots of types: the type of each matrix, the sensitivity of each matrix, and predicted KL divergences.

use super::compare::{nats, shorten};
use super::plots::{Area, TEXT, WIDTH, axes, best_place, tick_label};
use super::svg::{Anchor, Scale, Svg, class, text_width};
use crate::evaluate::comparison::{Candidate, Comparison};
use crate::order;
use formats::block::DType;

/// The colour of type number `at` of `of`, from red for the fewest bits to blue for the most.
fn colour(at: usize, of: usize) -> String {
    const STOPS: [[f64; 3]; 5] = [
        [178.0, 24.0, 43.0],
        [239.0, 138.0, 68.0],
        [240.0, 210.0, 90.0],
        [90.0, 170.0, 150.0],
        [33.0, 90.0, 172.0],
    ];
    let part = at as f64 / (of.max(2) - 1) as f64 * (STOPS.len() - 1) as f64;
    let first = (part as usize).min(STOPS.len() - 2);
    let mixed = |i: usize| STOPS[first][i] + (STOPS[first + 1][i] - STOPS[first][i]) * (part - first as f64);
    format!("#{:02x}{:02x}{:02x}", mixed(0) as u8, mixed(1) as u8, mixed(2) as u8)
}

/// Bits per weight of a type, by its name.
fn bits(name: &str) -> f64 {
    DType::from_name(name).map_or(0.0, DType::bits_per_weight)
}

/// The types of all candidates, by ascending bits per weight.
fn types(c: &Comparison) -> Vec<&str> {
    let mut types: Vec<&str> = Vec::new();
    for t in c.candidates.iter().flat_map(|m| &m.tensors) {
        if !types.contains(&t.dtype.as_str()) {
            types.push(&t.dtype);
        }
    }
    order::by(&mut types, |a, b| bits(a).total_cmp(&bits(b)).then(a.cmp(b)));
    types
}

/// The legend of [`type_map`].
pub fn type_legend(c: &Comparison) -> String {
    let types = types(c);
    if types.is_empty() {
        return String::new();
    }
    let column = 92.0;
    let columns = (WIDTH / column) as usize;
    let rows = types.len().div_ceil(columns);
    let mut svg = Svg::new(WIDTH, rows as f64 * 20.0 + 4.0);
    for (i, name) in types.iter().enumerate() {
        let (left, at) = ((i % columns) as f64 * column + 4.0, (i / columns) as f64 * 20.0 + 12.0);
        svg.tile(&colour(i, types.len()), (left, at - 7.0), (14.0, 14.0), name);
        svg.text("label", (left + 20.0, at + 4.0), Anchor::Start, name);
    }
    svg.finish("types", "Types", &types.join("; "))
}

/// The types of a candidate's matrices as coloured tiles: a column for each layer, a row for each role; tensors outside of
/// layers are at the right.
pub fn type_map(c: &Comparison, candidate: usize) -> String {
    let m = &c.candidates[candidate];
    let all = types(c);
    let mut roles: Vec<&str> = Vec::new();
    for t in m.tensors.iter().filter(|t| t.layer.is_some()) {
        if !roles.contains(&t.role.as_str()) {
            roles.push(&t.role);
        }
    }
    let single: Vec<_> = m.tensors.iter().filter(|t| t.layer.is_none()).collect();
    if roles.is_empty() && single.is_empty() {
        return String::new();
    }
    let layers = m.tensors.iter().filter_map(|t| t.layer).max().map_or(0, |n| n as usize + 1);
    let left = roles.iter().map(|r| text_width(&shorten(r, 24), TEXT)).fold(60.0, f64::max) + 16.0;
    let right = WIDTH - 150.0;
    let (width, height) = ((right - left) / layers.max(1) as f64, 18.0);
    let rows = roles.len().max(single.len());
    let mut svg = Svg::new(WIDTH, 26.0 + rows as f64 * height + 24.0);
    svg.text("heading", (2.0, 14.0), Anchor::Start, &shorten(&m.name, 60));
    let rank = |name: &str| all.iter().position(|t| *t == name).unwrap_or(0);
    let top = |row: usize| 24.0 + row as f64 * height;
    for (row, role) in roles.iter().enumerate() {
        svg.text("label", (left - 8.0, top(row) + 13.0), Anchor::End, &shorten(role, 24));
        for t in m.tensors.iter().filter(|t| t.role == *role) {
            let Some(layer) = t.layer else { continue };
            let at = (left + f64::from(layer) * width, top(row));
            let size = ((width - 1.0).max(0.5), height - 1.0);
            svg.tile(&colour(rank(&t.dtype), all.len()), at, size, &format!("{}: {}", t.name, t.dtype));
        }
    }
    for (row, t) in single.iter().enumerate() {
        let title = format!("{}: {}", t.name, t.dtype);
        svg.tile(&colour(rank(&t.dtype), all.len()), (right + 14.0, top(row)), (17.0, height - 1.0), &title);
        svg.text("label", (right + 36.0, top(row) + 13.0), Anchor::Start, &shorten(&t.role, 16));
    }
    let every = (layers / 16).max(1);
    for layer in (0..layers).step_by(every) {
        let at = (left + (layer as f64 + 0.5) * width, top(roles.len()) + 14.0);
        svg.text("axis", at, Anchor::Middle, &layer.to_string());
    }
    let list: Vec<_> = m.tensors.iter().map(|t| format!("{} {}", t.name, t.dtype)).collect();
    svg.finish(&format!("map{candidate}"), &format!("Types of {}", m.name), &list.join("; "))
}

/// The sensitivity of the matrices: a panel for each role, a bar for each layer. Empty without sensitivities.
pub fn sensitivities(c: &Comparison) -> String {
    let Some(s) = &c.sensitivity else { return String::new() };
    let mut roles: Vec<&str> = Vec::new();
    for b in &s.matrices {
        if !roles.contains(&b.role.as_str()) {
            roles.push(&b.role);
        }
    }
    if roles.is_empty() {
        return String::new();
    }
    let max = s.matrices.iter().map(|b| b.kld).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let min = s.matrices.iter().map(|b| b.kld).filter(|k| *k > 0.0).fold(max, f64::min);
    let columns = roles.len().min(3);
    let (step_x, step_y) = ((WIDTH - 84.0) / columns as f64, 150.0);
    let rows = roles.len().div_ceil(columns);
    let mut svg = Svg::new(WIDTH, rows as f64 * step_y + 24.0);
    for (n, role) in roles.iter().enumerate() {
        let (column, row) = (n % columns, n / columns);
        let (left, top) = (84.0 + column as f64 * step_x, row as f64 * step_y + 22.0);
        let area = Area { left, top, right: left + step_x - 20.0, bottom: top + 100.0 };
        let y = Scale::log(min / 2.0, max * 1.2, area.bottom, area.top);
        let of: Vec<_> = s.matrices.iter().filter(|b| b.role == *role).collect();
        let layers = of.iter().filter_map(|b| b.layer).max().map_or(1, |n| n as usize + 1);
        let x = Scale::linear(-0.5, layers as f64 - 0.5, area.left, area.right);
        let ticks: Vec<f64> = if of[0].layer.is_none() {
            Vec::new()
        } else if layers <= 7 {
            (0..layers).map(|l| l as f64).collect()
        } else {
            Scale::linear(0.0, layers as f64 - 1.0, 0.0, 1.0).ticks(6)
        };
        let label: &dyn Fn(f64) -> String = if column == 0 { &tick_label } else { &|_| String::new() };
        axes(&mut svg, area, (&x, &ticks, &|v| format!("{v:.0}")), (&y, &y.ticks(4), label));
        svg.text("heading", (area.left + 2.0, top - 7.0), Anchor::Start, &shorten(role, 30));
        let width = ((area.right - area.left) / layers as f64 * 0.8).min(40.0);
        for b in of {
            let at = (x.at(b.layer.map_or(0.0, f64::from)), y.at(b.kld));
            svg.bar("fill k0", (at.0 - width / 2.0, at.1), (width, (area.bottom - at.1).max(0.0)));
        }
    }
    svg.text("axis", (WIDTH / 2.0, rows as f64 * step_y + 10.0), Anchor::Middle, "layer");
    svg.upright(
        "axis",
        (12.0, rows as f64 * step_y / 2.0),
        &format!("KL divergence with one matrix as {} (log scale)", s.probe),
    );
    svg.finish(
        "sensitivity",
        "Sensitivity of each matrix",
        &format!("A panel for each of {}.", roles.join(", ")),
    )
}

/// Measured against predicted KL divergence. Empty if nothing was predicted.
pub fn predicted(c: &Comparison) -> String {
    let point = |(i, m): (usize, &Candidate)| {
        let (p, k) = (m.predicted_kld?, m.kld()?.mean.value);
        (p > 0.0 && k > 0.0 && k.is_finite()).then(|| (i, m.name.clone(), p, k))
    };
    let points: Vec<_> = c.candidates.iter().enumerate().filter_map(point).collect();
    if points.is_empty() {
        return String::new();
    }
    let area = Area { left: 84.0, top: 14.0, right: 84.0 + 420.0, bottom: 14.0 + 360.0 };
    let mut svg = Svg::new(WIDTH, area.bottom + 50.0);
    let all = || points.iter().flat_map(|p| [p.2, p.3]);
    let (low, high) = (all().fold(f64::INFINITY, f64::min) / 1.3, all().fold(0.0, f64::max) * 1.3);
    let x = Scale::log(low, high, area.left, area.right);
    let y = Scale::log(low, high, area.bottom, area.top);
    axes(&mut svg, area, (&x, &x.ticks(6), &tick_label), (&y, &y.ticks(6), &tick_label));
    svg.line("floor", (x.at(low), y.at(low)), (x.at(high), y.at(high)));
    for (i, name, p, k) in &points {
        let title = format!("{name}: predicted {}, measured {}", nats(*p), nats(*k));
        svg.mark(*i, (x.at(*p), y.at(*k)), if points.len() > 20 { 3.0 } else { 5.0 }, &title);
    }
    // With many models, the list would be too long; the marks have titles too.
    for (row, (i, name, p, k)) in points.iter().enumerate().take(20) {
        let at = area.top + 12.0 + row as f64 * 18.0;
        svg.mark(*i, (area.right + 40.0, at - 4.0), 4.0, "");
        let text = format!("{}: {} predicted, {} measured", shorten(name, 28), nats(*p), nats(*k));
        svg.text(&format!("own {}", class(*i)), (area.right + 52.0, at), Anchor::Start, &text);
    }
    svg.text(
        "axis",
        ((area.left + area.right) / 2.0, area.bottom + 38.0),
        Anchor::Middle,
        "predicted KL divergence, nats per token (log scale)",
    );
    svg.upright("axis", (14.0, (area.top + area.bottom) / 2.0), "measured (log scale)");
    let list: Vec<_> = points.iter().map(|(_, n, p, k)| format!("{n} {} {}", nats(*p), nats(*k))).collect();
    svg.finish("predicted", "Predicted against measured divergence", &list.join("; "))
}

/// A point of the plot of size against KL divergence.
pub struct Point {
    /// Its name.
    pub name: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Predicted KL divergence, in nats per token.
    pub kld: f64,
}

/// The size-divergence frontier as a line, and schemes as marks.
pub fn frontier(line: &[Point], schemes: &[Point]) -> String {
    // The line ends a little below the best scheme; lossless points are left out of the logarithmic axis.
    let least = schemes.iter().map(|p| p.kld).filter(|k| *k > 1e-6).fold(f64::INFINITY, f64::min) / 2.0;
    let least = if least.is_finite() { least } else { f64::MIN_POSITIVE };
    let all = || line.iter().chain(schemes).filter(|p| p.kld >= least);
    let Some(largest) = all().map(|p| p.bytes).max() else { return String::new() };
    let mut unit = 1u64;
    while largest / unit >= 1024 {
        unit *= 1024;
    }
    let unit_name = crate::text::bytes(unit);
    let unit_name = unit_name.rsplit(' ').next().unwrap_or_default().to_string();
    let size = |p: &Point| p.bytes as f64 / unit as f64;
    let area = Area { left: 84.0, top: 14.0, right: WIDTH - 20.0, bottom: 440.0 };
    let mut svg = Svg::new(WIDTH, area.bottom + 50.0);
    let (low, high) = (all().map(size).fold(f64::INFINITY, f64::min), all().map(size).fold(0.0, f64::max));
    let x = Scale::linear(low * 0.95, high * 1.03, area.left, area.right);
    let lowest = all().map(|p| p.kld).fold(f64::INFINITY, f64::min);
    let highest = all().map(|p| p.kld).fold(0.0, f64::max);
    let y = Scale::log(lowest / 1.2, highest * 1.2, area.bottom, area.top);
    axes(&mut svg, area, (&x, &x.ticks(8), &tick_label), (&y, &y.ticks(6), &tick_label));
    let path: Vec<_> = line.iter().filter(|p| p.kld >= least).map(|p| (x.at(size(p)), y.at(p.kld))).collect();
    svg.path(0, &path);
    let shown: Vec<_> = schemes.iter().filter(|p| p.kld >= least).collect();
    let places: Vec<_> = shown.iter().map(|p| (x.at(size(p)), y.at(p.kld))).collect();
    let mut taken: Vec<Area> = Vec::new();
    for (p, &(px, py)) in shown.iter().zip(&places) {
        svg.mark(1, (px, py), 4.0, &format!("{}: {}, {}", p.name, crate::text::bytes(p.bytes), nats(p.kld)));
        taken.push(Area { left: px - 5.0, top: py - 5.0, right: px + 5.0, bottom: py + 5.0 });
    }
    for (p, &at) in shown.iter().zip(&places) {
        let label = best_place(text_width(&p.name, TEXT), at, area, &taken);
        svg.text("note", ((label.left + label.right) / 2.0, label.bottom - 3.5), Anchor::Middle, &p.name);
        taken.push(label);
    }
    let middle = (area.left + area.right) / 2.0;
    svg.text("axis", (middle, area.bottom + 38.0), Anchor::Middle, &format!("file size, {unit_name}"));
    svg.upright(
        "axis",
        (14.0, (area.top + area.bottom) / 2.0),
        "predicted KL divergence, nats per token (log scale)",
    );
    let list: Vec<_> = schemes
        .iter()
        .map(|p| format!("{} {} {}", p.name, crate::text::bytes(p.bytes), nats(p.kld)))
        .collect();
    svg.finish("frontier", "Size against predicted divergence", &list.join("; "))
}
