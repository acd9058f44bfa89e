//! The functions, filters and tests that chat templates have from Python.

use std::fmt::Write as _;
use std::io;

use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

/// The message with which a template refuses its input.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Raised(String);

/// `raise_exception(message)`.
pub fn raise(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message)))
}

fn failed(what: &'static str) -> impl Fn(serde_json::Error) -> Error {
    move |e| Error::new(ErrorKind::BadSerialization, what).with_source(e)
}

/// `tojson` as transformers has it: `json.dumps`, which leaves `<`, `>`, `&` and `'` alone and puts a space behind
/// commas and colons.
pub fn to_json(value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let indent = match indent {
        Some(v) if v.as_str().is_some() => v.as_str().map(str::to_string),
        Some(v) if !v.is_none() => Some(" ".repeat(usize::try_from(v).unwrap_or(0).min(64))),
        _ => None,
    };
    let comma = if indent.is_some() { "," } else { ", " };
    let (comma, colon) = match options.get::<Option<Value>>("separators")? {
        Some(v) if !v.is_none() => (v.get_item_by_index(0)?.to_string(), v.get_item_by_index(1)?.to_string()),
        _ => (comma.to_string(), ": ".to_string()),
    };
    let ascii = ensure_ascii.or(options.get("ensure_ascii")?).unwrap_or(false);
    let sort = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut tree = serde_json::to_value(value).map_err(failed("cannot be written as JSON"))?;
    if sort {
        tree.sort_all_objects();
    }
    let mut out = Vec::new();
    let style = Style { indent, comma, colon, ascii, level: 0, filled: false };
    tree.serialize(&mut Serializer::with_formatter(&mut out, style))
        .map_err(failed("cannot be written as JSON"))?;
    Ok(Value::from_safe_string(String::from_utf8_lossy(&out).into_owned()))
}

/// `from_json`: a value from JSON.
pub fn from_json(text: &str) -> Result<Value, Error> {
    let tree: serde_json::Value = serde_json::from_str(text).map_err(failed("is not JSON"))?;
    Ok(Value::from(Serde(tree)))
}

/// `is iterable`, which `none` is not in Python, but is in the template engine.
pub fn is_iterable(value: &Value) -> bool {
    !value.is_none() && (value.as_str().is_some() || value.try_iter().is_ok())
}

/// The layout of Python's `json.dumps`.
struct Style {
    indent: Option<String>,
    comma: String,
    colon: String,
    ascii: bool,
    level: usize,
    /// The innermost list or object is not empty.
    filled: bool,
}

impl Style {
    fn line<W: ?Sized + io::Write>(&self, w: &mut W) -> io::Result<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        w.write_all(b"\n")?;
        (0..self.level).try_for_each(|_| w.write_all(indent.as_bytes()))
    }

    fn open<W: ?Sized + io::Write>(&mut self, w: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level += 1;
        self.filled = false;
        w.write_all(bracket)
    }

    fn close<W: ?Sized + io::Write>(&mut self, w: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level -= 1;
        if self.filled {
            self.line(w)?;
        }
        self.filled = true;
        w.write_all(bracket)
    }

    fn next<W: ?Sized + io::Write>(&self, w: &mut W, first: bool) -> io::Result<()> {
        if !first {
            w.write_all(self.comma.as_bytes())?;
        }
        self.line(w)
    }
}

impl Formatter for Style {
    fn begin_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.open(w, b"[")
    }
    fn end_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.close(w, b"]")
    }
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.next(w, first)
    }
    fn end_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }
    fn begin_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.open(w, b"{")
    }
    fn end_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.close(w, b"}")
    }
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.next(w, first)
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(self.colon.as_bytes())
    }
    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, w: &mut W, text: &str) -> io::Result<()> {
        if !self.ascii {
            return w.write_all(text.as_bytes());
        }
        let mut units = [0; 2];
        text.chars().try_for_each(|c| match c {
            ' '..='~' => w.write_all(&[c as u8]),
            _ => c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(w, "\\u{unit:04x}")),
        })
    }
    fn write_char_escape<W: ?Sized + io::Write>(&mut self, w: &mut W, c: CharEscape) -> io::Result<()> {
        match c {
            CharEscape::Quote => w.write_all(b"\\\""),
            CharEscape::ReverseSolidus => w.write_all(b"\\\\"),
            CharEscape::Solidus => w.write_all(b"/"),
            CharEscape::Backspace => w.write_all(b"\\b"),
            CharEscape::FormFeed => w.write_all(b"\\f"),
            CharEscape::LineFeed => w.write_all(b"\\n"),
            CharEscape::CarriageReturn => w.write_all(b"\\r"),
            CharEscape::Tab => w.write_all(b"\\t"),
            CharEscape::AsciiControl(b) => write!(w, "\\u{b:04x}"),
        }
    }
}

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// `strftime_now(format)`: the time `now`, in seconds since 1970, in UTC and English.
pub fn strftime(format: &str, now: u64) -> Result<String, Error> {
    let (days, second) = (now / 86_400, now % 86_400);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (year, month, day) = civil(days);
    let weekday = DAYS[(days as usize + 4) % 7];
    let month_name = MONTHS[month as usize - 1];
    let new_year = (0..days).rev().take(366).take_while(|d| civil(*d).0 == year).count();
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let bare = directive == Some('-');
        if bare {
            directive = chars.next();
        }
        let two = |n: u64| if bare { n.to_string() } else { format!("{n:02}") };
        let part = match directive {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('e') if bare => day.to_string(),
            Some('e') => format!("{day:2}"),
            Some('j') if bare => (new_year + 1).to_string(),
            Some('j') => format!("{:03}", new_year + 1),
            Some('H') => two(hour),
            Some('I') => two((hour + 11) % 12 + 1),
            Some('M') => two(minute),
            Some('S') => two(second % 60),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('B') => month_name.into(),
            Some('b' | 'h') => month_name[..3].into(),
            Some('A') => weekday.into(),
            Some('a') => weekday[..3].into(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{:02}", second % 60),
            Some('Z') => "UTC".into(),
            Some('z') => "+0000".into(),
            Some('%') => "%".into(),
            other => {
                let mut why = "strftime_now does not support %".to_string();
                let _ = write!(why, "{}", other.map(String::from).unwrap_or_default());
                return Err(Error::new(ErrorKind::InvalidOperation, why));
            }
        };
        out += &part;
    }
    Ok(out)
}

/// Year, month and day of a number of days since 1970. The calendar repeats after 146,097 days; years begin in March
/// here, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // since 1 March of year 0
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153; // from March
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}
