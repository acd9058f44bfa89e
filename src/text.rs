//! Formatting of numbers, sizes, names and tables for people, and parsing of sizes.

use std::fmt::Write;

/// Bytes in a suitable unit (powers of 1024): "1.03 MiB".
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} {}", UNITS[0]);
    }
    let mut x = n as f64;
    let mut unit = 0;
    while x >= 1024.0 && unit + 1 < UNITS.len() {
        x /= 1024.0;
        unit += 1;
    }
    format!("{x:.2} {}", UNITS[unit])
}

/// Parses a size such as `4096`, `512K`, `512M`, `6G`, `1.5G` (powers of 1024).
///
/// # Errors
/// A message for text of another form, and for sizes below 1 byte or above 9·10¹⁸.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(format!("{text:?} is not a size such as 4096, 512M or 6G")),
    };
    let number: f64 =
        digits.parse().map_err(|_| format!("{text:?} is not a size such as 4096, 512M or 6G"))?;
    let size = number * (1u64 << shift) as f64;
    if !(1.0..9e18).contains(&size) {
        return Err(format!("{text:?} is out of range"));
    }
    Ok(size as u64)
}

/// A number with thousands separators: "1,234,567".
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A shape: "[64, 172]".
pub fn shape(shape: &[u64]) -> String {
    let dims: Vec<_> = shape.iter().map(u64::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// Text from a file with control characters escaped, so that a terminal does not interpret them.
pub fn visible(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A text table whose first line is the heading. Columns whose cells all begin with a digit or a sign are right-aligned.
#[derive(Debug, Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// A table with this heading and no rows.
    pub fn new(heading: &[&str]) -> Self {
        Self(vec![heading.iter().map(ToString::to_string).collect()])
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().map(|cell| visible(&cell)).collect());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.0.len() < 2
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |c: usize| self.0.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
        let is_number =
            |s: &str| s.is_empty() || s.starts_with(|c: char| c.is_ascii_digit() || "-+±".contains(c));
        let right = |c: usize| self.0[1..].iter().filter_map(|r| r.get(c)).all(|s| is_number(s));
        let layout: Vec<_> = (0..columns).map(|c| (width(c), right(c))).collect();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, &(width, right)) in row.iter().zip(&layout) {
                let _ =
                    if right { write!(line, "  {cell:>width$}") } else { write!(line, "  {cell:<width$}") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_and_read() {
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("1.5K"), Ok(1536));
        assert_eq!(parse_bytes("6g"), Ok(6 << 30));
        for bad in ["", "G", "-1", "1X", "0", "nan", "1e30", "inf"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(count(1234567), "1,234,567");
        assert_eq!(count(12), "12");
    }

    #[test]
    fn tables_set_numbers_flush_right() {
        let mut t = Table::new(&["name", "n"]);
        t.row(["a".into(), "1".into()]);
        t.row(["bcdef".into(), "12".into()]);
        assert_eq!(t.to_string(), "  name    n\n  a       1\n  bcdef  12\n");
    }
}
