//! Text files: their bytes as characters.
//!
//! A text is UTF-8, or what its byte order mark says: UTF-16 and UTF-32 in either byte order (Windows PowerShell's `>` writes
//! UTF-16). Files of other kinds that are given for a text by mistake are refused by name ([`crate::kind`]), since a model would
//! otherwise be measured on their bytes. Source: the Unicode Standard, section 23.8 (byte order mark).

use std::collections::HashSet;
use std::fmt::Write as _;

use formats::model::Input;
use formats::{Error as FormatError, Fault};

use crate::error::{Error, Result};
use crate::kind::{self, Class, Kind, Wanted};
use crate::text::shell_word;

/// A text file's characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The characters, without a byte order mark. What is not valid is U+FFFD.
    pub text: String,
    /// What a reader of a measurement on this text should know: the encoding that was converted, invalid bytes with
    /// their number and the place of the first.
    pub notes: Vec<String>,
    /// Whether every byte was valid.
    pub valid: bool,
}

/// Of so many characters, one may be a control character that no text has.
const CONTROLS: usize = 20;

/// The characters of a text file with these bytes; `name` is for messages.
///
/// # Errors
/// [`Error::NotAText`] for archives, tables, documents, models and other files of bytes, for UTF-16 and UTF-32 without its
/// mark, and for a text whose encoding changes between UTF-8 and UTF-16.
pub fn decode(name: &str, bytes: &[u8]) -> Result<Decoded> {
    refuse_mixed(name, bytes)?;
    if let Some(marked) = by_mark(name, bytes) {
        return Ok(marked);
    }
    refuse_others(name, bytes)?;
    Ok(utf8(name, bytes, 0))
}

/// The characters of a text file of which none may be lost: settings, a list of tokens, a template. It is decoded as every
/// text, and all of it must be valid.
///
/// # Errors
/// Those of [`decode`]; [`Error::Format`] with the place of the first byte that is not of the encoding.
pub fn strict(name: &str, bytes: Vec<u8>) -> Result<Decoded> {
    refuse_mixed(name, &bytes)?;
    let Some(decoded) = by_mark(name, &bytes) else {
        refuse_others(name, &bytes)?;
        return match String::from_utf8(bytes) {
            // A tokenizer may have many megabytes: they are not copied.
            Ok(text) => Ok(Decoded { text, notes: Vec::new(), valid: true }),
            Err(e) => {
                let fault = Fault::Unsupported("the file is not UTF-8".into());
                Err(FormatError::at(name, e.utf8_error().valid_up_to() as u64, fault).into())
            }
        };
    };
    match decoded.valid {
        true => Ok(decoded),
        false => {
            let fault =
                Fault::Unsupported("the file is not of the encoding that its byte order mark says".into());
            Err(FormatError::of(name, fault).into())
        }
    }
}

/// The characters of a text that begins with a byte order mark; `None` for another one.
pub(crate) fn by_mark(name: &str, bytes: &[u8]) -> Option<Decoded> {
    // The mark of UTF-32 begins with that of UTF-16.
    Some(match bytes {
        [0xFF, 0xFE, 0, 0, rest @ ..] => utf32(name, rest, u32::from_le_bytes, "UTF-32LE"),
        [0, 0, 0xFE, 0xFF, rest @ ..] => utf32(name, rest, u32::from_be_bytes, "UTF-32BE"),
        [0xFF, 0xFE, rest @ ..] => utf16(name, rest, u16::from_le_bytes, "UTF-16LE"),
        [0xFE, 0xFF, rest @ ..] => utf16(name, rest, u16::from_be_bytes, "UTF-16BE"),
        [0xEF, 0xBB, 0xBF, rest @ ..] => utf8(name, rest, 3),
        _ => return None,
    })
}

/// Refuses what is no text, and texts in UTF-16 or UTF-32 without its mark.
fn refuse_others(name: &str, bytes: &[u8]) -> Result<()> {
    let refuse = |what: &str, hint: &str| {
        let (name, what) = (name.to_string(), what.to_string());
        let hint = hint.replace("FILE", &name);
        Err(Error::NotAText { name, what, hint })
    };
    let of = |kind: Kind| match (kind.class, kind.hint) {
        (Class::Text | Class::Recipe | Class::Settings | Class::Sensitivities | Class::Empty, _) => None,
        // A tokenizer of a checkpoint is JSON.
        (Class::Tokenizer, _) if kind::may_be_text(bytes) => None,
        (Class::Model, "") => Some((kind.what, MODEL)),
        (_, "") => Some((kind.what, Wanted::TEXT.hint)),
        (_, hint) => Some((kind.what, hint)),
    };
    if let Some((what, hint)) = kind::of(&Input::whole(name, bytes)).ok().flatten().and_then(of) {
        return refuse(what, hint);
    }
    if let Some(encoding) = unmarked(bytes) {
        let hint = format!("convert it first: iconv -f {encoding} -t UTF-8 FILE > text.txt");
        return refuse(&format!("{encoding} without a byte order mark"), &hint);
    }
    let start = &bytes[..bytes.len().min(1 << 16)];
    let controls = start.iter().filter(|&&b| is_control(b)).count();
    match controls > start.len() / CONTROLS && (controls > 8 || std::str::from_utf8(start).is_err()) {
        true => refuse("a file of bytes that are no text", Wanted::TEXT.hint),
        false => Ok(()),
    }
}

/// So many bytes in a row that are UTF-8 are no text in UTF-16: in that of Latin letters every second byte is zero, and a
/// Chinese character has two bytes of letters about once in five.
const RUN: usize = 64;
/// The same at the end of a file, where texts are appended.
const LAST_RUN: usize = 24;

/// Refuses a text whose encoding changes: Windows PowerShell's `>` writes UTF-16, and most programs append UTF-8; the other way
/// round with its `>>`.
fn refuse_mixed(name: &str, bytes: &[u8]) -> Result<()> {
    let file = shell_word(name.as_ref());
    let (first, at, then) = match bytes {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => return Ok(()),
        [0xFF, 0xFE, rest @ ..] | [0xFE, 0xFF, rest @ ..] => match narrow_run(rest) {
            Some(at) => ("UTF-16", 2 + at, "UTF-8"),
            None => return Ok(()),
        },
        _ => match wide_end(bytes) {
            Some(at) => ("UTF-8", at, "UTF-16"),
            None => return Ok(()),
        },
    };
    Err(Error::NotAText {
        name: name.into(),
        what: format!("a text whose encoding changes: {first}, and from byte {at} on {then}"),
        hint: format!(
            "make it one encoding: (head -c {at} {file} | iconv -f {first} -t UTF-8; tail -c +{} {file} | iconv -f {then}{} -t \
             UTF-8) > text.txt",
            at + 1,
            // A mark in the middle says its own order.
            if then == "UTF-8" || bytes[at..].starts_with(&[0xFF, 0xFE]) { "" } else { "LE" },
        ),
    })
}

/// Where a long run of UTF-8 without control characters begins in what should be UTF-16.
fn narrow_run(bytes: &[u8]) -> Option<usize> {
    let (mut start, mut at) = (0, 0);
    let long = |start: usize, end: usize| {
        end - start >= if end == bytes.len() { LAST_RUN } else { RUN } && is_varied(&bytes[start..end])
    };
    for chunk in bytes.utf8_chunks() {
        for b in chunk.valid().bytes() {
            if b == 0 || is_control(b) {
                if long(start, at) {
                    return Some(start);
                }
                start = at + 1;
            }
            at += 1;
        }
        if !chunk.invalid().is_empty() {
            if long(start, at) {
                return Some(start);
            }
            at += chunk.invalid().len();
            start = at;
        }
    }
    long(start, at).then_some(start)
}

/// Whether a run of bytes has the variety of a text: a line of one character, as dots lead to the number of a page, may have
/// bytes of letters in UTF-16.
fn is_varied(run: &[u8]) -> bool {
    let (pairs, _) = run[..run.len().min(2 * RUN)].as_chunks::<2>();
    2 * pairs.iter().collect::<HashSet<_>>().len() >= pairs.len()
}

/// Where UTF-16 begins in what begins as UTF-8.
fn wide_end(bytes: &[u8]) -> Option<usize> {
    let valid = match std::str::from_utf8(bytes) {
        Ok(_) => bytes,
        Err(e) => &bytes[..e.valid_up_to()],
    };
    let mut end = 0;
    while end < valid.len() && !is_control(valid[end]) {
        end += 1;
    }
    if end < LAST_RUN || end == bytes.len() {
        return None;
    }
    if bytes[end..].starts_with(&[0xFF, 0xFE]) {
        return Some(end);
    }
    // The first character's lower half is a letter like those before it.
    (bytes[end] == 0 && unmarked(&bytes[end - 1..]) == Some("UTF-16LE")).then_some(end - 1)
}

const MODEL: &str = "give the text first to last: a model is the first argument, a text the one after it";

/// Whether a byte is a control character that no text has, in whatever encoding.
fn is_control(b: u8) -> bool {
    matches!(b, 0..=8 | 14..=26 | 28..=31)
}

/// The encoding of a text in UTF-16 or UTF-32 without a mark. Every second byte of UTF-16 is the upper half of a character:
/// zero in Latin letters, and small in those of most alphabets. Of Chinese and Japanese, it is only known that each pair of
/// bytes is a character, and that some bytes are none of a text in another encoding.
fn unmarked(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(1 << 16) & !3];
    let upper = |odd: usize| start.iter().skip(odd).step_by(2).filter(|&&b| b < 9 || is_control(b)).count();
    let (even, odd) = (upper(0), upper(1));
    if start.len() < 8 || even + odd == 0 {
        return None;
    }
    let (fours, _) = start.as_chunks::<4>();
    let is_text = |c: char| !c.is_control() || "\t\n\r\u{c}".contains(c);
    let utf32 = |unit: fn([u8; 4]) -> u32| {
        fours.iter().all(|four| char::from_u32(unit(*four)).is_some_and(|c| is_text(c) && c != '\u{FFFE}'))
    };
    let (twos, _) = start.as_chunks::<2>();
    // A pair of surrogates may be cut at the end. Where many characters are of no use, it is no text.
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let characters = char::decode_utf16(twos.iter().map(|two| unit(*two)));
        let wrong = characters.filter(|c| !c.as_ref().is_ok_and(|&c| is_text(c) && !is_private(c))).count();
        wrong <= 1 + twos.len() / 500
    };
    let (many, is_utf8) = (start.len() / 2 * 3 / 10, std::str::from_utf8(start).is_ok());
    match () {
        () if utf32(u32::from_le_bytes) => Some("UTF-32LE"),
        () if utf32(u32::from_be_bytes) => Some("UTF-32BE"),
        () if odd > many && even <= odd / 3 && utf16(u16::from_le_bytes) => Some("UTF-16LE"),
        () if even > many && odd <= even / 3 && utf16(u16::from_be_bytes) => Some("UTF-16BE"),
        () if is_utf8 || bytes.len() % 2 == 1 => None,
        () if odd > even && utf16(u16::from_le_bytes) => Some("UTF-16LE"),
        () if utf16(u16::from_be_bytes) => Some("UTF-16BE"),
        () if utf16(u16::from_le_bytes) => Some("UTF-16LE"),
        () => None,
    }
}

/// Whether a character has no meaning that Unicode gives it.
fn is_private(c: char) -> bool {
    matches!(c, '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..) || u32::from(c) & 0xFFFE == 0xFFFE
}

fn utf8(name: &str, bytes: &[u8], mark: usize) -> Decoded {
    let (mut text, mut notes) = (String::with_capacity(bytes.len()), Vec::new());
    if mark > 0 {
        notes.push(format!("{name}: the byte order mark at its beginning is not part of the text"));
    }
    // The number of invalid bytes, and the place of the first.
    let (mut invalid, mut first, mut at) = (0, None, mark);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        at += chunk.valid().len();
        if !chunk.invalid().is_empty() {
            text.push('\u{FFFD}');
            first = first.or(Some((at, chunk.invalid()[0])));
            invalid += chunk.invalid().len();
            at += chunk.invalid().len();
        }
    }
    if let Some((at, byte)) = first {
        let line = 1 + bytes[..at - mark].iter().filter(|b| **b == b'\n').count();
        let mut note = format!(
            "{name}: {invalid} of {} bytes are not UTF-8 and are read as U+FFFD; the first is 0x{byte:02X} at byte {at}, line {line}",
            bytes.len() + mark
        );
        let _ = write!(
            note,
            " (convert the text first from its encoding, e.g. iconv -f WINDOWS-1252 -t UTF-8 {name}; `file {name}` may name it)"
        );
        notes.push(note);
    }
    let zeros = text.matches('\0').count();
    if zeros > 0 {
        notes.push(format!("{name}: {zeros} of its characters are NUL, so it may be no text"));
    }
    Decoded { text, notes, valid: invalid == 0 }
}

fn utf16(name: &str, bytes: &[u8], unit: fn([u8; 2]) -> u16, encoding: &str) -> Decoded {
    let (units, rest) = bytes.as_chunks::<2>();
    let characters = char::decode_utf16(units.iter().map(|pair| unit(*pair))).map(std::result::Result::ok);
    marked(name, characters, !rest.is_empty(), bytes.len(), encoding)
}

fn utf32(name: &str, bytes: &[u8], unit: fn([u8; 4]) -> u32, encoding: &str) -> Decoded {
    let (units, rest) = bytes.as_chunks::<4>();
    let characters = units.iter().map(|four| char::from_u32(unit(*four)));
    marked(name, characters, !rest.is_empty(), bytes.len(), encoding)
}

/// A text that said its encoding by a byte order mark. `None` is what is no character; `cut` says that the last one is
/// incomplete.
fn marked(
    name: &str,
    characters: impl Iterator<Item = Option<char>>,
    cut: bool,
    bytes: usize,
    encoding: &str,
) -> Decoded {
    let (mut text, mut invalid) = (String::with_capacity(bytes / 2), usize::from(cut));
    for c in characters {
        text.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
        invalid += usize::from(c.is_none());
    }
    if cut {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    let mut notes = vec![format!("{name}: read as {encoding}, as its byte order mark says")];
    if invalid > 0 {
        let part = if cut { ", the last of them cut off" } else { "" };
        let (characters, they) =
            if invalid == 1 { ("character is", "it is") } else { ("characters are", "they are") };
        notes.push(format!("{name}: {invalid} {characters} not {encoding}{part}: {they} read as U+FFFD"));
    }
    Decoded { text, notes, valid: invalid == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Die Öfen\r\nα → 😀 end\n";

    fn text(bytes: &[u8]) -> Decoded {
        decode("t.txt", bytes).unwrap()
    }

    #[test]
    fn encodings_that_change_are_refused() {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let line = "The text is long enough, and here it goes on.\r\n";
        let marked = [vec![0xFF, 0xFE], wide(line)].concat();
        let chinese = [vec![0xFF, 0xFE], wide(&"汉字和假名混在一起，中文信息处理。\n".repeat(20))].concat();
        for (first, then, at) in [
            (&marked, line.as_bytes().to_vec(), marked.len()),
            (&marked, "Ещё одна строка текста.".as_bytes().to_vec(), marked.len()),
            (&chinese, line.as_bytes().to_vec(), chinese.len()),
            (&line.as_bytes().to_vec(), wide(line), line.len()),
            (&line.as_bytes().to_vec(), marked.clone(), line.len()),
            (&"é".repeat(30).into_bytes(), marked.clone(), 60),
        ] {
            let both = [first.clone(), then].concat();
            for error in [decode("t.txt", &both).unwrap_err(), strict("t.txt", both).unwrap_err()] {
                let text = error.to_string();
                // A line break before it may belong to either.
                let near = (at - 3..=at).any(|at| text.contains(&format!("from byte {at} on")));
                assert!(near, "{text}, not {at}");
            }
        }
        let leaders = "目录……………………………………………………………………………………………………十二\n中中中中中中中中中中中中中中中中中中中中中中中中中中中中中中中中中中中中中中\n";
        let leaders =
            [vec![0xFF, 0xFE], wide(leaders), wide(&"─".repeat(80)), wide(&"…".repeat(40))].concat();
        for whole in [leaders, marked, chinese, line.as_bytes().to_vec(), line.repeat(100).into_bytes()] {
            assert!(decode("t.txt", &whole).unwrap().valid);
        }
    }

    #[test]
    fn a_byte_order_mark_says_the_encoding() {
        let units: Vec<u16> = TEXT.encode_utf16().collect();
        let with = |mark: &[u8], bytes: Vec<u8>| [mark, &bytes].concat();
        let all = [
            with(&[0xFF, 0xFE], units.iter().flat_map(|u| u.to_le_bytes()).collect()),
            with(&[0xFE, 0xFF], units.iter().flat_map(|u| u.to_be_bytes()).collect()),
            with(&[0xFF, 0xFE, 0, 0], TEXT.chars().flat_map(|c| (c as u32).to_le_bytes()).collect()),
            with(&[0, 0, 0xFE, 0xFF], TEXT.chars().flat_map(|c| (c as u32).to_be_bytes()).collect()),
            with(&[0xEF, 0xBB, 0xBF], TEXT.into()),
        ];
        for bytes in &all {
            let found = text(bytes);
            assert_eq!((&*found.text, found.valid, found.notes.len()), (TEXT, true, 1), "{bytes:?}");
            assert!(found.notes[0].contains("byte order mark"), "{:?}", found.notes);
        }
        let plain = text(TEXT.as_bytes());
        assert_eq!((&*plain.text, plain.valid, plain.notes.len()), (TEXT, true, 0));
        // Half a character at the end, and half a pair of surrogates.
        let cut = text(&all[0][..all[0].len() - 1]);
        assert!(!cut.valid && cut.notes[1].contains("1 character is not UTF-16LE"), "{:?}", cut.notes);
        assert_eq!(text(b"\xFE\xFF\xD8\x00\0a").text, "\u{FFFD}a");
        assert_eq!(text(b"\xFF\xFE\0\0\0\0\x11\0").text, "\u{FFFD}");
        assert_eq!(text(b"").text, "");
    }

    #[test]
    fn where_nothing_may_be_lost_all_must_be_valid() {
        let utf16 = |text: &str| -> Vec<u8> {
            [0xFEFFu16].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect()
        };
        for bytes in [TEXT.as_bytes().to_vec(), format!("\u{FEFF}{TEXT}").into(), utf16(TEXT)] {
            let found = strict("t.json", bytes).unwrap();
            assert!(found.text == TEXT && found.valid, "{found:?}");
        }
        let mut cut = utf16(TEXT);
        cut.pop();
        for (bytes, says) in [
            (&b"caf\xE9"[..], "the file is not UTF-8 (at byte 3)"),
            (b"\xEF\xBB\xBFcaf\xE9", "not of the encoding"),
            (&cut, "not of the encoding"),
            (&utf16("plain words")[2..], "UTF-16BE without"),
            (b"PK\x03\x04\0\0", "a zip archive"),
        ] {
            let why = strict("t.json", bytes.to_vec()).unwrap_err().to_string();
            assert!(why.contains("t.json") && why.contains(says), "{why}");
        }
    }

    #[test]
    fn invalid_bytes_are_counted_and_the_first_has_a_place() {
        let found = text(b"caf\xC3\xA9\ncaf\xE9 \xFF\xE2\x82 \xE2\x82\xAC");
        assert_eq!(found.text, "café\ncaf\u{FFFD} \u{FFFD}\u{FFFD} €");
        let note = &found.notes[0];
        assert!(note.contains("4 of 18 bytes") && note.contains("0xE9 at byte 9, line 2"), "{note}");
        assert!(!found.valid && found.notes.len() == 1);
        let zeros = text(b"some text with a \0 in it, and more of it");
        assert!(zeros.valid && zeros.notes[0].contains("1 of its characters are NUL"), "{:?}", zeros.notes);
    }

    #[test]
    fn files_that_are_no_texts_are_refused_by_name() {
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let le: Vec<u8> = "plain words".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = "plain words".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (bytes, what) in [
            (&b"\x1f\x8b\x08\0 and more"[..], "gzip"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"PK\x03\x04\x14\0", "zip"),
            (b"PAR1\x15\x04", "Parquet"),
            (b"\xfd7zXZ\0\0", "xz"),
            (b"BZh91AY&SY\x8d\0", "bzip2"),
            (b"%PDF-1.7", "PDF"),
            (b"ARROW1\0\0", "Arrow"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
            (&tar, "tar"),
            (&le, "UTF-16LE without"),
            (&be, "UTF-16BE without"),
        ] {
            let e = decode("t.txt", bytes).unwrap_err();
            assert!(e.to_string().contains(what) && e.to_string().contains("t.txt"), "{e}");
            assert!(!e.hint().unwrap().contains("FILE"), "{e}");
        }
    }
}
