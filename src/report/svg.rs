//! The parts of SVG that the report's plots need: scales, lines, marks, text.

use std::fmt::Write;

use crate::text::is_hidden;

/// Escapes text for XML content and attributes; characters that are not allowed in XML are replaced.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            c if is_hidden(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The mapping from numbers to positions along an axis.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Maps numbers from `low` to `high` linearly to positions from `from` to `to`.
    pub fn linear(low: f64, high: f64, from: f64, to: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { log: false, low, high, from, to }
    }

    /// Maps numbers by their logarithms; `low` and `high` must be positive.
    pub fn log(low: f64, high: f64, from: f64, to: f64) -> Self {
        let high = if high > low { high } else { low * 10.0 };
        Self { log: true, low, high, from, to }
    }

    /// The position of a number; numbers outside of the range are at its ends.
    pub fn at(&self, x: f64) -> f64 {
        let part = if self.log {
            (x.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (x - self.low) / (self.high - self.low)
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// About `count` round numbers in the range.
    pub fn ticks(&self, count: usize) -> Vec<f64> {
        if self.log { self.log_ticks(count) } else { self.linear_ticks(count) }
    }

    fn linear_ticks(&self, count: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / count.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| *s >= rough * 0.999);
        let step = step.unwrap_or(power);
        let first = (self.low / step - 1e-9).ceil();
        (0..100)
            .map(|i| (first + f64::from(i)) * step)
            .take_while(|x| *x <= self.high + step * 1e-9)
            .collect()
    }

    fn log_ticks(&self, count: usize) -> Vec<f64> {
        // Finer and finer subdivisions of a decade, until there are enough.
        let choices: [&[f64]; 4] =
            [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]];
        let (low, high) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let of = |parts: &[f64], every: i32| -> Vec<f64> {
            (low..=high)
                .filter(|d| d.rem_euclid(every) == 0)
                .flat_map(|d| parts.iter().map(move |p| p * 10f64.powi(d)))
                .filter(|x| (self.low * 0.9999..=self.high * 1.0001).contains(x))
                .collect()
        };
        let mut best = of(choices[0], 1 + (high - low) / (count.max(1) as i32 * 2));
        for parts in &choices[1..] {
            let finer = of(parts, 1);
            if finer.len() > count + count / 2 || best.len() >= count {
                break;
            }
            best = finer;
        }
        // Within a small part of a decade, a logarithmic scale is nearly linear.
        if best.len() < 3 { self.linear_ticks(count) } else { best }
    }
}

/// The alignment of a text relative to its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// The text starts at the position.
    Start,
    /// The text is centred at the position.
    Middle,
    /// The text ends at the position.
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A plot that is being drawn. Colours come from the page's style: classes `k0` to `k7` for series, `axis`, `grid` and
/// `note` for the rest.
pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    /// An empty plot of a size in pixels.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    /// A polyline through points, in the style of series `i`.
    pub fn path(&mut self, i: usize, points: &[(f64, f64)]) {
        let list: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = dashes(i).map(|d| format!(" stroke-dasharray=\"{d}\"")).unwrap_or_default();
        let _ = writeln!(
            self.body,
            "<polyline class=\"line {}\"{dash} points=\"{}\"/>",
            class(i),
            list.join(" ")
        );
    }

    /// A filled rectangle.
    pub fn bar(&mut self, class: &str, (x, y): (f64, f64), (w, h): (f64, f64)) {
        let _ = writeln!(
            self.body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\"/>"
        );
    }

    /// A rectangle of a given colour, with `title` as its tooltip.
    pub fn tile(&mut self, colour: &str, (x, y): (f64, f64), (w, h): (f64, f64), title: &str) {
        let title = escape(title);
        let _ = writeln!(
            self.body,
            "<rect style=\"fill:{colour}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\">\
             <title>{title}</title></rect>"
        );
    }

    /// The mark of series `i` with radius `r`, with `title` as its tooltip.
    pub fn mark(&mut self, i: usize, (x, y): (f64, f64), r: f64, title: &str) {
        let at = |dx: f64, dy: f64| format!("{:.1},{:.1}", x + dx * r, y + dy * r);
        let polygon = |p: &[(f64, f64)]| {
            let points: Vec<_> = p.iter().map(|&(dx, dy)| at(dx, dy)).collect();
            format!("<polygon points=\"{}\"/>", points.join(" "))
        };
        let shape = match i % 8 {
            0 | 5 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r:.1}\"/>"),
            1 | 6 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
            2 => polygon(&[(0.0, -1.15), (1.1, 0.85), (-1.1, 0.85)]),
            3 | 7 => polygon(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
            _ => polygon(&[(0.0, 1.15), (1.1, -0.85), (-1.1, -0.85)]),
        };
        // Shapes repeat from series 5 on, and are hollow there.
        let hollow = if i % 8 >= 5 { " hollow" } else { "" };
        let title =
            if title.is_empty() { String::new() } else { format!("<title>{}</title>", escape(title)) };
        let _ = writeln!(self.body, "<g class=\"mark {}{hollow}\">{title}{shape}</g>", class(i));
    }

    /// A text.
    pub fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let (anchor, text) = (anchor.name(), escape(text));
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }

    /// A text that is rotated by 90° to read upwards, centred at its position.
    pub fn upright(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let text = escape(text);
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" \
             transform=\"rotate(-90 {x:.1} {y:.1})\">{text}</text>"
        );
    }

    /// The finished SVG, with a title and a description. `id` must be unique on the page.
    pub fn finish(self, id: &str, title: &str, description: &str) -> String {
        let Self { width, height, body } = self;
        let (title, description) = (escape(title), escape(description));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\">\n<title id=\"{id}-t\">{title}</title>\n<desc id=\"{id}-d\">\
             {description}</desc>\n{body}</svg>\n"
        )
    }
}

/// The style class of a series.
pub fn class(i: usize) -> String {
    format!("k{}", i % 8)
}

/// The dash pattern of a series' line.
fn dashes(i: usize) -> Option<&'static str> {
    [
        None,
        Some("7 3"),
        Some("2 2"),
        Some("9 3 2 3"),
        Some("5 2"),
        Some("12 4"),
        Some("1 3"),
        Some("9 2 2 2 2 2"),
    ][i % 8]
}

/// The approximate width in pixels of a text in a sans-serif font of a size.
pub fn text_width(text: &str, size: f64) -> f64 {
    let wide = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | '|' | '\'' | ' ' | 'f' | 't' => 0.32,
        'm' | 'w' | 'M' | 'W' | '…' => 0.9,
        c if c.is_ascii_uppercase() => 0.68,
        c if c.is_ascii() => 0.57,
        _ => 1.0,
    };
    text.chars().map(wide).sum::<f64>() * size
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Whether the tags of a document close in order, and its text has nothing that should have been escaped.
    pub fn check_nesting(document: &str) {
        const VOID: [&str; 4] = ["meta", "!doctype", "br", "link"];
        let mut open: Vec<&str> = Vec::new();
        let mut rest = document;
        while let Some(start) = rest.find('<') {
            let (text, tag) = rest.split_at(start);
            assert!(open.last() == Some(&"style") || !text.contains('>'), "a bare > in {text:?}");
            let mut quoted = false;
            let end = tag.find(|c| {
                quoted ^= c == '"';
                c == '>' && !quoted
            });
            let end = end.unwrap_or_else(|| panic!("a tag has no end: {:?}", &tag[..tag.len().min(80)]));
            let inner = &tag[1..end];
            assert!(!inner.contains('<'), "{inner:?}");
            let name = inner.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
            if let Some(name) = inner.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "before {:?}", &rest[..rest.len().min(120)]);
            } else if !inner.ends_with('/') && !VOID.contains(&name) {
                open.push(name);
            }
            for (i, _) in text.match_indices('&') {
                let entity = &text[i..];
                let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
                assert!(known.iter().any(|k| entity.starts_with(k)), "{entity:?}");
            }
            rest = &tag[end + 1..];
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("a<b>&\"c'\n\u{7}é"), "a&lt;b&gt;&amp;&quot;c&#39; \u{fffd}é");
        let mut svg = Svg::new(10.0, 10.0);
        svg.mark(1, (1.0, 2.0), 3.0, "<&>");
        svg.text("note", (0.0, 0.0), Anchor::End, "\"<script>");
        svg.upright("note", (0.0, 0.0), "]]>");
        check_nesting(&svg.finish("x", "</title>", "<desc>"));
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(Scale::linear(0.0, 10.0, 0.0, 1.0).ticks(5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(Scale::log(0.001, 1.0, 0.0, 1.0).ticks(4), [0.001, 0.01, 0.1, 1.0]);
        for (low, high) in [(0.013, 0.019), (1e-7, 3.0), (2.0, 2.0), (0.4, 70.0)] {
            for s in [Scale::linear(low, high, 0.0, 9.0), Scale::log(low, high, 0.0, 9.0)] {
                let ticks = s.ticks(5);
                assert!((2..=10).contains(&ticks.len()), "{low} {high} {ticks:?}");
                assert!(
                    ticks.is_sorted() && ticks.iter().all(|t| s.low * 0.999 <= *t && *t <= s.high * 1.001)
                );
            }
        }
    }

    #[test]
    fn numbers_outside_are_at_the_edge() {
        let s = Scale::log(0.01, 1.0, 100.0, 0.0);
        assert!((s.at(0.1) - 50.0).abs() < 1e-9);
        assert_eq!((s.at(0.0), s.at(-1.0), s.at(5.0)), (100.0, 100.0, 0.0));
    }
}
