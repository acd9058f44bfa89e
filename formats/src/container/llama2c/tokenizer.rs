//! tokenizer.bin: the SentencePiece vocabulary of a checkpoint.
//!
//! Layout: u32 length of the longest token, then for each token f32 score, u32 length, bytes. The number of
//! tokens is in the checkpoint. Unlike in the SentencePiece model, U+2581 is a space, and tokens 1 and 2 (begin
//! and end of text) are between newlines. It is hard-coded in `run.c` that these are 1 and 2, that byte `b` is token
//! 3 + `b`, and that there is a token " ".
//!
//! There are two older kinds. One has bytes as characters (U+0000 to U+00FF) instead of "<0xNN>": it is read.
//! The oldest has neither the longest length nor scores: it is refused, as no text can be tokenized with it.
//!
//! Source: `tokenizer.py` and `run.c` of karpathy/llama2.c, and published files.

use crate::container::Cursor;
use crate::error::{Error, Fault, Result};
use crate::metadata::{Array, Kind, Metadata, Value};
use crate::model::{ByteOrder, Format, Input, Model, Tensor};

/// The longest file, in bytes: 250,000 tokens take 4 MB.
const MAX_FILE: u64 = 64 << 20;
/// The most rows that are padded; the largest published vocabulary has a million tokens.
const MAX_ROWS: usize = 1 << 21;
/// The longest token, in bytes. The limit also shows the byte order: in the wrong one the length would be above it.
const MAX_TOKEN: u32 = u16::MAX as u32;
/// The id of byte 0.
const FIRST_BYTE: usize = 3;
/// SentencePiece's space.
const SPACE: &str = "\u{2581}";

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";

/// llama.cpp's types of tokens.
const NORMAL: i32 = 1;
const UNKNOWN_TYPE: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The score of rows without a token, as in checkpoints of other formats.
const PADDING_SCORE: f32 = -10000.0;

/// What a row without a token is called.
fn padding(id: usize) -> Vec<u8> {
    format!("[PAD{id}]").into_bytes()
}

/// The byte order, if the file begins with a length that a token can have.
fn order(input: &Input) -> Option<ByteOrder> {
    let word = *input.bytes.first_chunk()?;
    [ByteOrder::Little, ByteOrder::Big]
        .into_iter()
        .find(|order| (1..=MAX_TOKEN).contains(&u32::from_le_bytes(order.le(word))))
}

/// Whether this is the oldest kind, which begins with the tokens "<unk>" and "\n<s>\n" and their lengths.
fn is_oldest(input: &Input) -> bool {
    [ByteOrder::Little, ByteOrder::Big].into_iter().any(|order| {
        let five = order.le(5u32.to_le_bytes());
        input.bytes.starts_with(&[&five[..], b"<unk>", &five, b"\n<s>\n"].concat())
    })
}

fn oldest(input: &Input) -> Error {
    let why = "an early llama2.c tokenizer without scores, which cannot tokenize; export it anew";
    Error::of(input.name, Fault::NotAModel(why.into()))
}

/// The rest of the file, token by token, with their offsets.
struct Entries<'a> {
    c: Cursor<'a>,
    longest: u32,
    id: usize,
}

impl<'a> Entries<'a> {
    fn new(input: &'a Input<'a>, order: ByteOrder) -> Result<Self> {
        let mut c = Cursor::new(input, order);
        let longest = c.u32("the length of the longest token")?;
        Ok(Self { c, longest, id: 0 })
    }

    fn entry(&mut self) -> Result<(f32, &'a [u8])> {
        let id = self.id;
        self.id += 1;
        let score = self.c.array("a score").map(f32::from_le_bytes)?;
        let at = self.c.at;
        let len = self.c.u32("the length of a token")?;
        if len > self.longest {
            let (what, most) = (format!("the length of token {id}"), self.longest.into());
            return Err(self.c.fault(at, Fault::TooMany { what, found: len.into(), most }));
        }
        Ok((score, self.c.take(len.into(), || format!("token {id}"))?))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (u64, Result<(f32, &'a [u8])>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.c.at;
        (self.c.left() > 0).then(|| (at, self.entry()))
    }
}

/// Whether the file can be parsed as a tokenizer to its last byte. Empty tokens are accepted here, so that [`read`] can
/// report them.
///
/// # Errors
/// [`Fault::More`] if `input` is a prefix without faults; [`Fault::NotAModel`] for the oldest kind.
pub fn looks_like(input: &Input) -> Result<bool> {
    if is_oldest(input) {
        return Err(oldest(input));
    }
    let Some(order) = order(input).filter(|_| input.len <= MAX_FILE) else { return Ok(false) };
    let Ok(entries) = Entries::new(input, order) else { return Ok(false) };
    let mut n = 0;
    for (_, entry) in entries {
        match entry {
            // "<unk>", "<s>", "</s>"
            Ok((score, text)) if n < 3 => {
                if !score.is_finite() || text.is_empty() || std::str::from_utf8(text).is_err() {
                    return Ok(false);
                }
            }
            Ok(_) => {}
            Err(Error { fault: Fault::More(_), .. }) => {
                return Err(Error::of(input.name, Fault::More(input.len)));
            }
            Err(_) => return Ok(false),
        }
        n += 1;
    }
    Ok(n >= 3)
}

/// Reads a tokenizer.bin. The byte order follows from the first length. The whole file is needed.
///
/// # Errors
/// [`Fault::More`] if `input` is a prefix; [`Fault::NotAModel`], [`Fault::TooMany`] and [`Fault::Ends`] for lengths that do not
/// lead exactly to the end of the file, [`Fault::Text`] for empty tokens, on which `run.c` fails too.
pub fn read(input: &Input) -> Result<Model> {
    if is_oldest(input) {
        return Err(oldest(input));
    }
    if input.len > MAX_FILE {
        let (what, found) = ("the length of a tokenizer.bin".into(), input.len);
        return Err(Error::of(input.name, Fault::TooMany { what, found, most: MAX_FILE }));
    }
    if (input.bytes.len() as u64) < input.len {
        return Err(Error::of(input.name, Fault::More(input.len)));
    }
    let order = order(input).ok_or_else(|| {
        let why = "no tokenizer.bin: it does not begin with the length of a token, in either byte order";
        Error::at(input.name, 0, Fault::NotAModel(why.into()))
    })?;
    let mut tokens: Vec<&[u8]> = Vec::new();
    let mut scores = Vec::new();
    for (id, (at, entry)) in Entries::new(input, order)?.enumerate() {
        let (score, token) = entry?;
        if token.is_empty() {
            let what = format!("token {id}");
            return Err(Error::at(input.name, at, Fault::Text { what, problem: "empty".into() }));
        }
        tokens.push(token);
        scores.extend(score.to_le_bytes());
    }

    let old_bytes = has_bytes(&tokens, |byte, token| {
        token == [byte] || token == char::from(byte).encode_utf8(&mut [0; 2]).as_bytes()
    });
    let (names, types): (Vec<Vec<u8>>, Vec<i32>) = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| match id {
            0 if *token == b"<unk>" => (token.to_vec(), UNKNOWN_TYPE),
            1 | 2 => (unwrap(token).to_vec(), CONTROL),
            _ if old_bytes && (FIRST_BYTE..FIRST_BYTE + 256).contains(&id) => {
                (byte_token((id - FIRST_BYTE) as u8), BYTE)
            }
            _ if is_byte_token(token) => (token.to_vec(), BYTE),
            _ if *token == padding(id) => (token.to_vec(), UNUSED),
            _ => (replace(token, b" ", SPACE.as_bytes()), NORMAL),
        })
        .unzip();
    let types = types.iter().flat_map(|t| t.to_le_bytes()).collect();
    let mut metadata = Metadata::new();
    for (key, value) in [
        (MODEL, Value::text("llama")),
        (TOKENS, Value::Array(Array::of_strings(&names))),
        (SCORES, Value::Array(Array::from_encoded(Kind::F32, names.len(), scores))),
        (TYPES, Value::Array(Array::from_encoded(Kind::I32, names.len(), types))),
        (BOS, Value::U32(1)),
        (EOS, Value::U32(2)),
        (UNKNOWN, Value::U32(0)),
    ] {
        metadata.push(key.into(), value);
    }
    let format = Format::Llama2cTokenizer;
    Ok(Model { format, order, alignment: 1, metadata, tensors: Vec::new(), notes: Vec::new() })
}

/// Whether the 256 tokens from [`FIRST_BYTE`] on are those of the bytes, by `is`.
fn has_bytes(tokens: &[impl AsRef<[u8]>], is: impl Fn(u8, &[u8]) -> bool) -> bool {
    let Some(bytes) = tokens.get(FIRST_BYTE..FIRST_BYTE + 256) else { return false };
    (0..=255).zip(bytes).all(|(byte, token)| is(byte, token.as_ref()))
}

fn byte_token(byte: u8) -> Vec<u8> {
    format!("<0x{byte:02X}>").into_bytes()
}

fn is_byte_token(token: &[u8]) -> bool {
    let digit = |b: &u8| matches!(b, b'0'..=b'9' | b'A'..=b'F');
    matches!(token, [b'<', b'0', b'x', a, b, b'>'] if digit(a) && digit(b))
}

/// A token without the newlines around it.
fn unwrap(token: &[u8]) -> &[u8] {
    match token {
        [b'\n', inner @ .., b'\n'] if !inner.is_empty() => inner,
        _ => token,
    }
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(from) {
            out.extend(to);
            rest = tail;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

/// Writes the vocabulary of a GGUF as tokenizer.bin. `name` is the target's, for errors.
///
/// # Errors
/// [`Fault::Unsupported`] for another kind of tokenizer than SentencePiece, for tokens that `run.c` cannot read, and if
/// special tokens are not where `run.c` expects them; [`Fault::Metadata`] for a key that is missing or malformed.
pub fn write(name: &str, metadata: &Metadata, order: ByteOrder) -> Result<Vec<u8>> {
    let tokens = tokens(name, metadata)?;
    let longest = tokens.iter().map(|(_, token)| token.len()).max().unwrap_or(0) as u32; // at most MAX_TOKEN
    let mut out = order.le(longest.to_le_bytes()).to_vec();
    for (score, token) in tokens {
        out.extend(order.le(score.to_le_bytes()));
        out.extend(order.le((token.len() as u32).to_le_bytes()));
        out.extend(token);
    }
    Ok(out)
}

/// The scores and texts of the tokens of such a file.
///
/// # Errors
/// Those of [`write`].
pub(super) fn tokens(name: &str, metadata: &Metadata) -> Result<Vec<(f32, Vec<u8>)>> {
    checked(metadata).map_err(|fault| Error::of(name, fault))
}

fn checked(metadata: &Metadata) -> std::result::Result<Vec<(f32, Vec<u8>)>, Fault> {
    let no = |why: String| Err(Fault::Unsupported(why));
    let bad = |key: &str, why: &str| Fault::Metadata { key: key.into(), why: why.into() };
    match metadata.text(MODEL) {
        Some("llama") => {}
        Some("gpt2") => {
            let why = "the tokenizer is byte-level BPE (\"gpt2\"): its merges have no scores, and tokenizer.bin \
                       has nothing else to merge by. Only SentencePiece vocabularies (\"llama\") can be written";
            return no(why.into());
        }
        Some(other) => {
            return no(format!(
                "the tokenizer is {other:?}; tokenizer.bin holds SentencePiece (\"llama\") only"
            ));
        }
        None => return Err(bad(MODEL, "is missing or not text: the model has no tokenizer to write")),
    }
    let array = |key| {
        metadata.get(key).and_then(Value::as_array).ok_or_else(|| bad(key, "is missing or not an array"))
    };
    let scores: Option<Vec<f32>> = array(SCORES)?.values().map(|v| v.as_f64().map(|v| v as f32)).collect();
    let scores = scores.ok_or_else(|| bad(SCORES, "must be floats"))?;
    if let Some(id) = scores.iter().position(|s| !s.is_finite()) {
        return no(format!("the score of token {id} must be finite (found {})", scores[id]));
    }
    let list = array(TOKENS)?;
    if list.kind() != Kind::String || list.len() != scores.len() {
        let why = format!("{} of {} values for {} scores", list.kind().name(), list.len(), scores.len());
        return Err(bad(TOKENS, &why));
    }
    for (key, built_in) in [(BOS, 1), (EOS, 2)] {
        if let Some(id) = metadata.get(key).filter(|id| id.as_u64() != Some(built_in)) {
            return no(format!("{key} is {id:?}; llama2.c has {built_in} built in"));
        }
    }
    let tokens: Vec<Vec<u8>> = list
        .strings()
        .enumerate()
        .map(|(id, token)| match id {
            // Those that are between newlines already stay so: else each conversion would add some.
            1 | 2 if unwrap(token) == token => [b"\n", token, b"\n"].concat(),
            1 | 2 => token.to_vec(),
            _ => replace(token, SPACE.as_bytes(), b" "),
        })
        .collect();
    if !has_bytes(&tokens, |byte, token| token == byte_token(byte)) && !without_bytes(metadata) {
        return no("tokens 3 to 258 are not <0x00> to <0xFF>, where llama2.c looks for bytes".into());
    }
    for (id, (token, given)) in tokens.iter().zip(list.strings()).enumerate() {
        if given.is_empty() {
            return no(format!("token {id} is empty, on which llama2.c fails"));
        }
        if given.contains(&0) {
            return no(format!("token {id} has a zero byte, at which llama2.c would end it"));
        }
        if token.len() as u64 > MAX_TOKEN.into() {
            return no(format!("token {id} has {} bytes, at most {MAX_TOKEN} are written", token.len()));
        }
    }
    if !tokens.iter().any(|token| token == b" ") {
        return no("there is no token for a single space, which llama2.c puts before every text".into());
    }
    Ok(scores.into_iter().zip(tokens).collect())
}

/// Whether a vocabulary has no tokens for bytes at all: llama2.c then gives characters without a token wrong ids.
pub fn without_bytes(metadata: &Metadata) -> bool {
    let array = |key| metadata.get(key).and_then(Value::as_array);
    let is_byte = |v: Value| v.as_i128() == Some(BYTE.into());
    !array(TYPES).is_some_and(|types| types.values().any(is_byte))
        && !array(TOKENS).is_some_and(|tokens| tokens.strings().any(is_byte_token))
}

/// What a vocabulary says of texts that programs which read a tokenizer.bin do otherwise, in words; `None` if they do the
/// same. `run.c` puts token 1 and a space before every text, and leaves the text as it is.
pub fn unsaid(metadata: &Metadata) -> Option<String> {
    let flag = |name: &str| match metadata.get(&format!("tokenizer.ggml.{name}")) {
        Some(Value::Bool(flag)) => Some(*flag),
        _ => None,
    };
    let table = metadata.get("tokenizer.ggml.precompiled_charsmap").and_then(Value::as_array);
    let found: Vec<&str> = [
        (flag("add_space_prefix") == Some(false), "puts a space before a text"),
        (flag("add_bos_token") == Some(false), "puts token 1 before a text"),
        (flag("add_eos_token") == Some(true), "puts no token behind a text"),
        (flag("remove_extra_whitespaces") == Some(true), "leaves extra spaces in a text"),
        (table.is_some_and(|t| !t.is_empty()), "replaces no characters"),
    ]
    .into_iter()
    .filter_map(|(is, what)| is.then_some(what))
    .collect();
    let (last, rest) = found.split_last()?;
    let all = if rest.is_empty() { (*last).to_string() } else { format!("{} and {last}", rest.join(", ")) };
    Some(format!("unlike this tokenizer, llama2.c {all}: texts may get other tokens there"))
}

/// A note on the special tokens of a vocabulary (control tokens and those that users defined) that a tokenizer.bin has no
/// type for; `None` if there are none besides those that llama2.c has built in.
pub fn special(metadata: &Metadata) -> Option<String> {
    let array = |key| metadata.get(key).and_then(Value::as_array);
    let is_special =
        |v: Value| v.as_i128().is_some_and(|t| [CONTROL.into(), USER_DEFINED.into()].contains(&t));
    let found = array(TYPES)?.values().enumerate().skip(FIRST_BYTE).filter(|(_, v)| is_special(v.clone()));
    let ids: Vec<usize> = found.map(|(id, _)| id).collect();
    let first = array(TOKENS)?.strings().nth(*ids.first()?)?;
    let name = String::from_utf8_lossy(first).into_owned();
    Some(match ids.len() {
        1 => format!(
            "token {name} is special, which a tokenizer.bin cannot say: llama2.c takes it for other text"
        ),
        n => format!(
            "{n} tokens are special (the first is {name}), which a tokenizer.bin cannot say: llama2.c takes them for other text"
        ),
    })
}

/// The most rows of an embedding that was made for so many tokens: people round up, to a multiple of 128 at most, or add
/// a few.
fn padded(tokens: usize) -> usize {
    tokens.next_multiple_of(128).max(tokens + tokens / 50)
}

/// Adds the keys of a tokenizer to those of a model. A model with more rows than the tokenizer has tokens, as one whose
/// embedding was made larger than needed, gets tokens without a meaning for them, and a note.
///
/// # Errors
/// [`Fault::Unsupported`] if it has more tokens than the model's vocabulary.
pub fn attach(model: &mut Model, tokenizer: &Model) -> Result<()> {
    let array = |key| tokenizer.metadata.get(key).and_then(Value::as_array);
    let tokens = array(TOKENS).map_or(0, Array::len);
    let embedding = model.tensors.iter().find(|t| t.name == "token_embd.weight").map(Tensor::rows);
    let vocab = model.metadata.get("llama.vocab_size").and_then(Value::as_u64).or(embedding);
    let rows = vocab
        .and_then(|n| usize::try_from(n).ok())
        .filter(|&n| n >= tokens && n <= MAX_ROWS && n <= padded(tokens));
    let Some(rows) = rows else {
        let vocab = vocab.map_or("no vocabulary".to_string(), |n| format!("a vocabulary of {n}"));
        let why = format!("it has {tokens} tokens but the model has {vocab}; they do not belong together");
        return Err(Error::of("the tokenizer", Fault::Unsupported(why)));
    };
    for (key, value) in tokenizer.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        model.metadata.set(key, value.clone());
    }
    model.notes.extend(tokenizer.notes.iter().cloned());
    let missing = rows - tokens;
    if missing == 0 {
        return Ok(());
    }
    if let Some(list) = array(TOKENS) {
        let all = list.strings().map(<[u8]>::to_vec).chain((tokens..rows).map(padding));
        model.metadata.set(TOKENS, Value::Array(Array::of_strings(all)));
    }
    for (key, kind, value) in
        [(SCORES, Kind::F32, PADDING_SCORE.to_le_bytes()), (TYPES, Kind::I32, UNUSED.to_le_bytes())]
    {
        if let Some(list) = array(key).filter(|list| list.kind() == kind) {
            let bytes = [list.bytes(), &value.repeat(missing)].concat();
            model.metadata.set(key, Value::Array(Array::from_encoded(kind, rows, bytes)));
        }
    }
    model.notes.push(format!("{missing} of the embedding's {rows} rows have no token: they are padded"));
    Ok(())
}
