//! Formatting of numbers, sizes, names and tables for people, and parsing of sizes.

use std::ffi::OsStr;
use std::fmt::Write;

/// Bytes in a suitable unit (powers of 1024): "1.03 MiB".
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    match n {
        1 => return "1 byte".into(),
        _ if n < 1024 => return format!("{n} {}", UNITS[0]),
        _ => {}
    }
    let mut x = n as f64;
    let mut unit = 0;
    while x >= 1024.0 && unit + 1 < UNITS.len() {
        x /= 1024.0;
        unit += 1;
    }
    format!("{x:.2} {}", UNITS[unit])
}

/// Parses a size such as `4096`, `512K`, `512M`, `6 GB`, `1.5GiB` (powers of 1024).
///
/// # Errors
/// A message for text of another form, and for sizes below 1 byte or above 9·10¹⁸.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    match parse_bytes_or_none(text)? {
        0 => Err(format!("{text:?} is less than a byte; sizes are written as 4096 (bytes), 512M or 6G")),
        size => Ok(size),
    }
}

/// Parses a size, which may be 0.
///
/// # Errors
/// A message for text of another form, and for sizes below 0 bytes or above 9·10¹⁸.
pub fn parse_bytes_or_none(text: &str) -> Result<u64, String> {
    let no_size = || format!("{text:?} is not a size such as 4096 (bytes), 512M or 6G");
    let trimmed = text.trim();
    let digits = trimmed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match trimmed[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(no_size()),
    };
    let number: f64 = digits.trim_end().parse().map_err(|_| match digits.contains(',') {
        true => format!("{} (a decimal point is a ., and digits are not grouped)", no_size()),
        false => no_size(),
    })?;
    let size = number * (1u64 << shift) as f64;
    match size {
        _ if number.is_nan() => Err(no_size()),
        _ if size < 0.0 => Err(format!("{text:?} is less than nothing; sizes are written as 512M or 6G")),
        _ if size >= 9e18 => Err(format!("{text:?} is more than any machine has (the most is 8000000T)")),
        _ => Ok(size as u64),
    }
}

/// A question for whoever gives a size that is nearly nothing: a number of gibibytes may be meant.
pub fn unit_meant(option: &str, size: u64) -> Option<String> {
    (size < 1024).then(|| format!("a number without a unit is in bytes: is {option} {size}G meant?"))
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

/// Names in a sentence: "a", "a and b", "a, b and c".
pub fn listed(names: &[impl AsRef<str>]) -> String {
    match names {
        [] => String::new(),
        [name] => name.as_ref().to_string(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

/// The first `most` of several names in a sentence, and how many more there are: "a, b and 3 more".
pub fn first_of(names: &[impl AsRef<str>], most: usize) -> String {
    if names.len() <= most {
        return listed(names);
    }
    let first: Vec<&str> = names[..most].iter().map(AsRef::as_ref).collect();
    format!("{} and {} more", first.join(", "), names.len() - most)
}

/// A shape: "[64, 172]".
pub fn shape(shape: &[u64]) -> String {
    let dims: Vec<_> = shape.iter().map(u64::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// Text from a file as it may be shown: with every character escaped that a terminal or a reader's eye would not take for
/// what it is ([`is_hidden`]).
pub fn visible(text: &str) -> String {
    escaped(text, is_hidden)
}

/// Text with the characters escaped for which `hidden` is true.
pub fn escaped(text: &str, hidden: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A word of a command line as a shell takes it: as it is, or in quotes. Bytes that are no text or not seen are written with
/// their escapes within `$'...'`, which bash and zsh know.
pub fn shell_word(word: &OsStr) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || "_-+=./:,@%".contains(c) || (!c.is_ascii() && !c.is_whitespace())
    };
    match word.to_str() {
        Some(text) if text.contains(is_hidden) => format!("$'{}'", escaped_bytes(text.as_bytes())),
        Some(text) if !text.is_empty() && text.chars().all(plain) => text.to_string(),
        Some(text) => format!("'{}'", text.replace('\'', r"'\''")),
        None => format!("$'{}'", escaped_bytes(word.as_encoded_bytes())),
    }
}

/// Bytes as they are written within `$'...'`.
fn escaped_bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => out.extend(['\\', c]),
                c if is_hidden(c) => {
                    c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out += &format!("\\x{byte:02x}"));
                }
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| out += &format!("\\x{byte:02x}"));
    }
    out
}

/// Whether a character does something else than to be seen: controls (Unicode's category Cc, with the escapes of
/// terminals), format characters (Cf: marks of direction, characters without width), and separators of lines and
/// paragraphs (Zl, Zp).
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

/// The most characters of a cell of a table that are shown.
const CELL: usize = 120;

/// The first `most` characters of a text, with an ellipsis if there are more.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

/// A text in which words of more than a thousand characters are cut in their middle, as names from files may be.
pub fn with_short_words(text: &str) -> String {
    const MOST: usize = 1000;
    if text.len() <= MOST {
        return text.to_string();
    }
    let short = |word: &str| match word.char_indices().nth(MOST) {
        Some(_) => {
            let end: Vec<char> = word.chars().rev().take(60).collect();
            format!("{}{}", cut(word, CELL), end.into_iter().rev().collect::<String>())
        }
        None => word.to_string(),
    };
    text.split_inclusive([' ', '\n']).map(short).collect()
}

/// A message in one line: with everything [`visible`], and with what comes from files and is long cut in its middle.
pub fn message(text: &str) -> String {
    const MOST: usize = 10_000;
    const END: usize = 1000;
    let text = with_short_words(&visible(text));
    let len = text.chars().count();
    if len <= MOST {
        return text;
    }
    let end: String = text.chars().skip(len - END).collect();
    cut(&text, MOST - END) + &end
}

/// A text table whose first line is the heading. Cells are made [`visible`], and cut after 120 characters: names come from
/// files, where nothing limits them. Columns whose cells all begin with a digit or a sign are right-aligned.
#[derive(Debug, Default)]
pub struct Table {
    /// All cells, one behind the other: there may be a row for each of a million tensors.
    text: String,
    /// Where each cell ends in `text`.
    cells: Vec<usize>,
    /// Where each row ends in `cells`.
    rows: Vec<usize>,
    /// Of each column, the width in characters, and whether all cells below the heading are numbers.
    columns: Vec<(usize, bool)>,
}

impl Table {
    /// A table with this heading and no rows.
    pub fn new(heading: &[&str]) -> Self {
        let mut table = Self::default();
        table.add(heading.iter().map(|cell| visible(cell)));
        table
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.add(cells.into_iter().map(|cell| shown_cell(&cell)));
    }

    fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        for (i, cell) in cells.into_iter().enumerate() {
            see(&mut self.columns, i, &cell, self.rows.is_empty());
            self.text += &cell;
            self.cells.push(self.text.len());
        }
        self.rows.push(self.cells.len());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mut start, mut first) = (0, 0);
        for &end in &self.rows {
            let cells = self.cells[first..end].iter().map(|&cell_end| {
                let cell = &self.text[start..cell_end];
                start = cell_end;
                cell
            });
            write_row(f, cells, &self.columns)?;
            first = end;
        }
        Ok(())
    }
}

/// A table of rows that are made twice, once for the widths of its columns, rather than kept: of a million, they take much
/// memory. Otherwise as a [`Table`].
pub struct Rows<F> {
    /// The heading.
    pub heading: Vec<String>,
    /// Makes the rows.
    pub rows: F,
}

impl<F: Fn() -> I, I: Iterator<Item = Vec<String>>> std::fmt::Display for Rows<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut columns = Vec::new();
        let heading: Vec<String> = self.heading.iter().map(|cell| visible(cell)).collect();
        heading.iter().enumerate().for_each(|(i, cell)| see(&mut columns, i, cell, true));
        for row in (self.rows)() {
            row.iter().enumerate().for_each(|(i, cell)| see(&mut columns, i, &shown_cell(cell), false));
        }
        write_row(f, heading.iter().map(String::as_str), &columns)?;
        for row in (self.rows)() {
            let row: Vec<String> = row.iter().map(|cell| shown_cell(cell)).collect();
            write_row(f, row.iter().map(String::as_str), &columns)?;
        }
        Ok(())
    }
}

/// A cell as it is shown. Of a long one, only the part that is shown is escaped.
fn shown_cell(cell: &str) -> String {
    cut(&visible(&cut(cell, CELL)), CELL)
}

/// Takes note of a cell of column `i`, for its width, and whether all below the heading are numbers.
fn see(columns: &mut Vec<(usize, bool)>, i: usize, cell: &str, heading: bool) {
    if i == columns.len() {
        columns.push((0, true));
    }
    let (width, numbers) = &mut columns[i];
    *width = (*width).max(cell.chars().count());
    let is_number = cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || "-+±".contains(c));
    *numbers &= heading || is_number;
}

/// Writes the cells of a row under each other.
fn write_row<'a>(
    f: &mut std::fmt::Formatter<'_>,
    cells: impl Iterator<Item = &'a str>,
    columns: &[(usize, bool)],
) -> std::fmt::Result {
    let mut line = String::new();
    for (cell, &(width, right)) in cells.zip(columns) {
        // Not the widths of `format!`, which end at 65,535.
        let space = " ".repeat(width.saturating_sub(cell.chars().count()));
        let (before, after) = if right { (&*space, "") } else { ("", &*space) };
        let _ = write!(line, "  {before}{cell}{after}");
    }
    writeln!(f, "{}", line.trim_end())
}

/// The least number of letters to insert, remove or replace that makes one text of the other (Levenshtein's distance);
/// 3 stands for more than two.
pub fn letters_apart(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 || a.len() > 256 {
        return 3;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()].min(3)
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
        assert_eq!(bytes(1), "1 byte");
        for six in ["6g", "6 GB", "6GiB", " 6Gb ", "6442450944", "6291456 kib"] {
            assert_eq!(parse_bytes(six), Ok(6 << 30), "{six}");
        }
        for (bad, says) in [
            ("", "not a size"),
            ("G", "not a size"),
            ("1X", "not a size"),
            ("nan", "not a size"),
            ("8,5G", "decimal point"),
            ("1,000,000", "not grouped"),
            ("0", "less than a byte"),
            ("0.1", "less than a byte"),
            ("-1", "less than nothing"),
            ("-1G", "less than nothing"),
            ("1e30", "more than any machine"),
            ("inf", "not a size"),
        ] {
            let why = parse_bytes(bad).unwrap_err();
            assert!(why.contains(says), "{bad}: {why}");
        }
        assert_eq!(parse_bytes_or_none("0"), Ok(0));
        assert_eq!(parse_bytes_or_none("0G"), Ok(0));
        assert!(parse_bytes_or_none("-0.5").is_err());
        assert_eq!((unit_meant("--fit", 8).is_some(), unit_meant("--fit", 1 << 20)), (true, None));
        assert_eq!(count(1234567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!([&["a"][..], &["a", "b"], &["a", "b", "c"]].map(listed), ["a", "a and b", "a, b and c"]);
    }

    #[test]
    fn what_is_not_seen_is_escaped() {
        assert_eq!(visible("plain ünï 漢字 😀\u{301}"), "plain ünï 漢字 😀\u{301}");
        assert_eq!(visible("a\x1b[2Jb\nc\u{9b}d"), "a\\u{1b}[2Jb\\nc\\u{9b}d");
        for c in
            ['\u{202e}', '\u{2066}', '\u{200b}', '\u{2028}', '\u{feff}', '\u{e0041}', '\u{61c}', '\u{7f}']
        {
            let shown = visible(&format!("x{c}y"));
            assert!(!shown.contains(c) && shown.starts_with("x\\u{"), "{shown}");
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, written) in [
            ("model.gguf", "model.gguf"),
            ("a/b-c_1.gguf", "a/b-c_1.gguf"),
            ("schön.gguf", "schön.gguf"),
            ("my model.gguf", "'my model.gguf'"),
            ("it's", r"'it'\''s'"),
            ("$(x)", "'$(x)'"),
            ("~/x", "'~/x'"),
            ("", "''"),
            ("a\nb'\\", r"$'a\x0ab\'\\'"),
            ("\u{202e}x", r"$'\xe2\x80\xaex'"),
        ] {
            assert_eq!(shell_word(word.as_ref()), written);
        }
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt as _;
            assert_eq!(shell_word(OsStr::from_bytes(b"a\xff b")), r"$'a\xff b'");
        }
    }

    #[test]
    fn cells_of_any_length_are_cut() {
        for cell in ["n".repeat(70_000), "\x1b".repeat(70_000), "漢".repeat(70_000), "1".repeat(70_000)] {
            let mut t = Table::new(&["name", "n"]);
            t.row([cell, "1".into()]);
            let text = t.to_string();
            assert!(text.contains('…') && text.lines().all(|line| line.chars().count() < 130), "{text}");
        }
        let text = message(&format!("line 1 has {} in it\u{1b}", "many words ".repeat(20_000)));
        assert!(text.starts_with("line 1 has many") && text.ends_with("words  in it\\u{1b}"), "{text}");
        assert_eq!((text.chars().count(), text.matches('…').count()), (10_001, 1));
        let text = with_short_words(&format!("tensor {}.weight is long\n", "n".repeat(70_000)));
        assert!(
            text.len() < 220 && text.starts_with("tensor nnn") && text.ends_with("nnn.weight is long\n"),
            "{text}"
        );
        // A heading is not cut, but wide ones do not fail either.
        let wide = "h".repeat(70_000);
        let mut t = Table::new(&[&wide]);
        t.row(["x".into()]);
        assert_eq!(t.to_string().lines().next().unwrap().len(), 70_002);
        assert_eq!((cut("abc", 3), cut("abcd", 3)), ("abc".to_string(), "abc…".to_string()));
    }

    #[test]
    fn tables_set_numbers_flush_right() {
        let mut t = Table::new(&["name", "n"]);
        t.row(["a".into(), "1".into()]);
        t.row(["bcdef".into(), "12".into()]);
        assert_eq!(t.to_string(), "  name    n\n  a       1\n  bcdef  12\n");
    }

    #[test]
    fn letters_are_counted_as_they_differ() {
        for (a, b, n) in [
            ("", "", 0),
            ("ab", "ab", 0),
            ("ab", "b", 1),
            ("ab", "ba", 2),
            ("abc", "xyz", 3),
            ("a", "abcd", 3),
        ] {
            assert_eq!(letters_apart(a, b), n, "{a} {b}");
        }
    }
}
