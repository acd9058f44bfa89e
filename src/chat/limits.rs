//! Limits on chat templates, which come with files from strangers: on their text, before the engine parses it, and on what
//! they write.
//!
//! The engine parses an expression such as `1+1+1+…`, `x|f|f|…` or `not not …`, and every `elif` of a chain, one level of
//! recursion deeper, and limits brackets and blocks only. So a tag of too many words and signs is refused before.

use std::io;

/// The longest template, in bytes. Published ones have up to 30 kB.
pub const LENGTH: usize = 256 << 10;

/// The most words, signs and texts in one tag (`{{ … }}` or `{% … %}`). Published templates have up to a few hundred.
const WORDS: usize = 1000;

/// The most `elif` in a template.
const BRANCHES: usize = 200;

/// Bytes that a template may write, beyond twice those of the messages.
pub const OUTPUT: usize = 16 << 20;

/// Says what about a template's text is beyond the limits, if anything is.
pub fn exceeded(text: &str) -> Option<String> {
    if text.len() > LENGTH {
        return Some(format!("has {} bytes, more than {LENGTH}", text.len()));
    }
    let bytes = text.as_bytes();
    let (mut at, mut branches) = (0, 0);
    while at + 1 < bytes.len() {
        let end: &[u8; 2] = match &bytes[at..at + 2] {
            b"{{" => b"}}",
            b"{%" => b"%}",
            b"{#" => {
                at = text[at + 2..].find("#}").map_or(bytes.len(), |i| at + 2 + i + 2);
                continue;
            }
            _ => {
                at += 1;
                continue;
            }
        };
        let start = at;
        at += 2;
        let (mut words, mut open) = (0, 0usize);
        while at < bytes.len() && !(open == 0 && bytes[at..].starts_with(end)) {
            let first = at;
            match bytes[at] {
                quote @ (b'\'' | b'"') => at = text_end(bytes, at, quote),
                c if is_word(c) => {
                    at += bytes[at..].iter().take_while(|c| is_word(**c)).count();
                    branches += usize::from(&bytes[first..at] == b"elif");
                }
                c => {
                    open = match c {
                        b'(' | b'[' | b'{' => open + 1,
                        b')' | b']' | b'}' => open.saturating_sub(1),
                        _ => open,
                    };
                    at += 1;
                }
            }
            words += usize::from(!bytes[first].is_ascii_whitespace());
        }
        if words > WORDS {
            let line = 1 + bytes[..start].iter().filter(|c| **c == b'\n').count();
            return Some(format!(", line {line}: a tag has {words} words and signs, more than {WORDS}"));
        }
    }
    (branches > BRANCHES).then(|| format!("has {branches} elif, more than {BRANCHES}"))
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c >= 0x80
}

/// The place behind the text in quotes that begins at `start`.
fn text_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Text that a template writes, up to a limit.
pub struct Output {
    /// The text so far.
    pub bytes: Vec<u8>,
    /// Bytes that it may have.
    pub most: usize,
    /// Whether the template wanted to write more.
    pub exceeded: bool,
}

impl Output {
    /// No text yet.
    pub fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, exceeded: false }
    }
}

impl io::Write for &mut Output {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if part.len() > self.most - self.bytes.len() {
            self.exceeded = true;
            return Err(io::Error::other("too much text"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
