//! Files that were cut as bytes, or put together as bytes. Large models are published as raw pieces
//! (`X.gguf.part1of2`, `X.gguf-split-a`), which belong together with `cat`; and parts of a split GGUF, each of which is a
//! GGUF, are put together with `cat` though they do not belong together so.

use std::path::Path;
use std::sync::LazyLock;

use formats::Fault;
use formats::container::gguf;
use formats::model::Model;
use regex::Regex;

use crate::disk::{self, InFile};
use crate::error::{Error, Result};
use crate::order;
use crate::text::shell_word;

/// What follows the name of the whole file in the name of a piece: a word, a number or letters, and perhaps a count.
static PIECE: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i)^(.*\.(?:gguf|safetensors|bin))[._-]?(part|split|chunk|piece)?[._-]?(\d{1,9}|[a-z]{1,3})(?:[._-]?of[._-]?(\d{1,9}))?$";
    Regex::new(pattern).expect("the pattern is valid")
});

/// The same before the ending of the name. Without a word it would be the name of a part that can be read alone.
static INSIDE: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i)^(.+?)[._-](part|split|chunk|piece)[._-]?(\d{1,9}|[a-z]{1,3})(?:[._-]?of[._-]?(\d{1,9}))?(\.(?:gguf|safetensors|bin))$";
    Regex::new(pattern).expect("the pattern is valid")
});

/// The name of a part of a split GGUF, which raw pieces sometimes have too.
static PART: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^(.+?)[._-](\d{1,9})[._-]of[._-](\d{1,9})(\.gguf)$").expect("the pattern is valid")
});

/// The name of a piece, taken apart.
struct Piece {
    /// The name of the whole file.
    whole: String,
    /// The word before the number, in lower case, and the stated count: equal in all pieces of a file.
    style: (String, Option<u64>),
    /// The order of pieces: numbers by value, letters by length and alphabet.
    place: (u64, String),
}

impl Piece {
    fn parse(name: &str) -> Option<Self> {
        let found = PIECE.captures(name).or_else(|| INSIDE.captures(name))?;
        let text = |i: usize| found.get(i).map_or("", |m| m.as_str());
        let place = match text(3).parse::<u64>() {
            Ok(n) => (n, String::new()),
            Err(_) => (text(3).len() as u64, text(3).to_string()),
        };
        let style = (text(2).to_lowercase(), text(4).parse().ok());
        Some(Self { whole: format!("{}{}", text(1), text(5)), style, place })
    }

    /// A piece that is named like a part of a split GGUF.
    fn like_a_part(name: &str) -> Option<Self> {
        let found = PART.captures(name)?;
        let place = (found[2].parse().ok()?, String::new());
        let style = ("as a part".to_string(), found[3].parse().ok());
        Some(Self { whole: format!("{}{}", &found[1], &found[4]), style, place })
    }

    /// Whether the name alone says that it is one of several pieces.
    fn is_certain(&self) -> bool {
        !self.style.0.is_empty() || self.style.1.is_some() || self.place.1.is_empty()
    }
}

/// If a file that cannot be read is named like a raw piece of a larger one, the error that says so. `error` is what is wrong
/// with the file.
pub fn explain(path: &Path, error: &Error) -> Option<Error> {
    let Error::Format(formats::Error { fault, .. }) = error else { return None };
    let first = match fault {
        Fault::Ends { end, .. } => Some(*end),
        Fault::NotAModel(_) | Fault::Header(_) => None,
        _ => return None,
    };
    let name = path.file_name()?.to_str()?;
    let parse = |name: &str| Piece::parse(name).or_else(|| Piece::like_a_part(name));
    let own = parse(name)?;
    let entries = std::fs::read_dir(disk::folder(path)).ok()?;
    let mut all: Vec<(Piece, String)> = entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter_map(|n| Some((parse(&n)?, n)))
        .filter(|(p, _)| p.whole == own.whole && p.style == own.style && p.place.1.len() == own.place.1.len())
        .collect();
    order::by(&mut all, |a, b| a.0.place.cmp(&b.0.place));
    // The parts of a split all begin as a GGUF does.
    let is_gguf = |name: &str| {
        let file = InFile::open(&path.with_file_name(name), false);
        file.and_then(|file| Ok(file.len >= 4 && file.read(0, 4)?[..] == *b"GGUF")).unwrap_or(false)
    };
    if own.style.0 == "as a part" && all.iter().skip(1).all(|(_, name)| is_gguf(name)) {
        return None;
    }
    if all.len() < 2 && !own.is_certain() {
        return None;
    }
    let count = own.style.1.filter(|&n| n as usize >= all.len());
    let whole = &own.whole;
    let at = all.iter().position(|(_, n)| n == name)? + 1;
    let of = count.map_or(String::new(), |n| format!(" of {n}"));
    // The number in the name, where pieces are counted: files that are missing count too.
    let no = if count.is_some() && own.place.1.is_empty() { own.place.0 } else { at as u64 };
    let why = match first {
        Some(_) => {
            let all = count.map_or("the".to_string(), |n| n.to_string());
            format!("{}: is the first of {all} raw pieces of {whole}, which was cut as bytes", path.display())
        }
        None => format!(
            "{}: is raw piece {no}{of} of {whole}, which was cut as bytes: a middle or last piece is not readable alone",
            path.display()
        ),
    };
    let bytes: u64 =
        all.iter().filter_map(|(_, n)| Some(path.with_file_name(n).metadata().ok()?.len())).sum();
    let missing = match (count, first) {
        (Some(count), _) => (count as usize).saturating_sub(all.len()) > 0,
        (None, Some(end)) => bytes < end,
        (None, None) => all.len() < 2,
    };
    let names: Vec<String> = all.iter().map(|(_, n)| shell_word(n.as_ref())).collect();
    let hint = match missing {
        true => format!(
            "get the missing pieces into the same folder first, then put all of them together with cat in their order, into {whole}"
        ),
        false => format!("put them together: cat {} > {}", names.join(" "), shell_word(whole.as_ref())),
    };
    Some(Error::refused(why).or(hint))
}

/// Bytes that may lie between two parts.
const BETWEEN: u64 = 16;

/// The model in a file that holds the parts of a split GGUF one behind the other, in any order; `None` if it holds one part
/// only. `first` is the one at the start, of `count`.
///
/// # Errors
/// [`Error::Refused`] if parts are missing; those of [`gguf::read`] and [`gguf::join`].
pub fn glued(file: &InFile, first: &Model, count: u64) -> Result<Option<Model>> {
    let mut starts = vec![0u64];
    let mut end = gguf::end(first);
    while let Some(at) = end.filter(|at| at + 4 <= file.len) {
        // Programs that join texts put a line break or an end of file (Ctrl-Z) between them.
        let between = file.read(at, (file.len - at).min(BETWEEN + 4))?;
        let Some(gap) = between.windows(4).position(|four| four == b"GGUF") else { break };
        let at = at + gap as u64;
        if starts.len() as u64 >= count.max(1) {
            let name = file.name();
            return Err(Error::refused(format!(
                "{name}: is a split of {count} parts with another GGUF behind them, at byte {at}: which of them is meant \
                 is not known"
            ))
            .or(format!("cut the file there: head -c {at} FILE > NEW")));
        }
        starts.push(at);
        let model = file.parse_range(at..file.len, gguf::read)?;
        end = gguf::end(&model).map(|n| at + n);
    }
    let [_, second, ..] = starts[..] else { return Ok(None) };
    if starts.len() as u64 != count {
        let (name, n) = (file.name(), starts.len());
        return Err(Error::refused(format!(
            "{name}: is {n} parts of a split of {count}, one behind the other (a GGUF begins again at byte {second}); \
             it should have all {count}"
        ))
        .or("put all parts into one folder instead, under their own names, and name the first"));
    }
    let ends = starts[1..].iter().copied().chain([file.len]);
    let parts = starts.iter().zip(ends).map(|(&at, end)| -> Result<(Option<u64>, u64, Model)> {
        let part = file.parse_range(at..end, gguf::read)?;
        let split = gguf::split_of(&part.metadata).map_err(|e| formats::Error::of(file.name(), e.into()))?;
        Ok((split.map(|(no, _)| no), at, part))
    });
    let mut parts = parts.collect::<Result<Vec<_>>>()?;
    order::by_key(&mut parts, |(no, at, _)| (*no, *at));
    let starts: Vec<u64> = parts.iter().map(|(_, at, _)| *at).collect();
    let named = parts.into_iter().map(|(_, at, part)| (format!("{}, part at byte {at}", file.name()), part));
    let mut model = gguf::join(named.collect()).map_err(|e| {
        Error::refused(e.to_string()).or(
            "put the parts of one model into one folder instead, under their own names, and name the first",
        )
    })?;
    for t in &mut model.tensors {
        t.location.offset += starts[t.location.file];
        t.location.file = 0;
    }
    model.notes.push(format!(
        "the file is the {count} parts of a split, one behind the other (a GGUF begins again at byte {second}); they are read \
         as one model, which other programs do not do: `ggufkit merge` writes it as one GGUF"
    ));
    Ok(Some(model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_pieces_may_be_named_like_parts() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (1..=3).map(|i| folder.path().join(format!("m-0000{i}-of-00003.gguf"))).collect();
        let write =
            |starts: [&[u8]; 3]| paths.iter().zip(starts).for_each(|(p, s)| std::fs::write(p, s).unwrap());
        let no_model = || Error::from(formats::Error::of("m", Fault::NotAModel("nothing".into())));
        write([b"GGUF....", b"12345678", b"1234"]);
        let text = explain(&paths[1], &no_model()).unwrap();
        assert!(text.to_string().contains("raw piece 2 of 3 of m.gguf"), "{text}");
        // Of a split, whatever is wrong with a part.
        write([b"GGUF....", b"GGUF5678", b"GGUF"]);
        assert!(explain(&paths[0], &no_model()).is_none());
    }

    #[test]
    fn names_of_pieces_are_taken_apart() {
        for (name, whole, certain) in [
            ("m.Q8_0.gguf.part1of2", "m.Q8_0.gguf", true),
            ("m.gguf.part-02-of-10", "m.gguf", true),
            ("m.gguf-split-a", "m.gguf", true),
            ("m.GGUF.001", "m.GGUF", true),
            ("m.safetensors.partaa", "m.safetensors", true),
            ("m.ggufab", "m.gguf", false),
            ("m.part1.gguf", "m.gguf", true),
            ("m.Q8_0-Part-2-of-3.GGUF", "m.Q8_0.GGUF", true),
            ("model_split_aa.safetensors", "model.safetensors", true),
            ("m.gguf.bak", "m.gguf", false),
        ] {
            let piece = Piece::parse(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((piece.whole.as_str(), piece.is_certain()), (whole, certain), "{name}");
        }
        for name in
            ["m.gguf", "m-00001-of-00002.gguf", "m.part1", "m.gguf.backup", "m-12.gguf", "apart1.gguf"]
        {
            assert!(Piece::parse(name).is_none(), "{name}");
        }
        let order = |a: &str, b: &str| Piece::parse(a).unwrap().place < Piece::parse(b).unwrap().place;
        assert!(order("m.gguf.part2of11", "m.gguf.part10of11") && order("m.ggufaz", "m.ggufba"));
    }
}
