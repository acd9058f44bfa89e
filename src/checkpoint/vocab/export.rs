//! The tokenizer files of a checkpoint, made of a GGUF's vocabulary: tokenizer.json and tokenizer_config.json.
//!
//! tokenizer.json is the `tokenizers` crate's file, which transformers loads. A byte-level vocabulary has merges, and the
//! splitting rules of its pre-tokenizer's name. A SentencePiece vocabulary has scores instead, and merges are made of
//! them: those two parts of each token that are tokens themselves, in the order of scores, as transformers does
//! when it converts such a model. A unigram vocabulary keeps its scores.

use std::collections::{HashMap, HashSet};

use formats::metadata::{Array, Metadata, Value};
use serde_json::{Map, Value as Json, json};

use crate::checkpoint::vocab::lists::MOST_MERGES;
use crate::checkpoint::vocab::{base64, pre};
use crate::order;
use crate::tokenizer::pre::table::{self, CONTIGUOUS_PUNCTUATION};
use crate::tokenizer::{PREPEND_SCHEME, Prepend, Tokenizer};

/// Tokens of more bytes get no merges: none of training have, and the time grows with the square.
const LONGEST_MERGED: usize = 1024;

const UNUSED: i128 = 5;
const BYTE: i128 = 6;

/// Names and contents of files.
pub type Files = Vec<(String, Vec<u8>)>;

/// Ends of the keys under `tokenizer.ggml` that the files hold, or that follow from them, with generation_config.json.
const HELD: [&str; 21] = [
    "model",
    "pre",
    "tokens",
    "scores",
    "token_type",
    "token_type_count",
    "merges",
    "add_space_prefix",
    "remove_extra_whitespaces",
    "precompiled_charsmap",
    "add_bos_token",
    "add_eos_token",
    "bos_token_id",
    "eos_token_id",
    "unknown_token_id",
    "padding_token_id",
    "seperator_token_id",
    "mask_token_id",
    "cls_token_id",
    "eot_token_id",
    "eom_token_id",
];

/// Whether the files of a checkpoint's tokenizer say what a GGUF says under this key.
pub fn holds(key: &str) -> bool {
    let templates = ["tokenizer.chat_template", "tokenizer.chat_templates"];
    key.strip_prefix("tokenizer.ggml.").is_some_and(|end| HELD.contains(&end))
        || templates.contains(&key)
        || key == PREPEND_SCHEME
        || key.starts_with("tokenizer.chat_template.")
}

/// The files of the vocabulary in a GGUF's metadata; `context` is the model's context length. If they cannot be made, why.
/// `notes` gets what is left out.
pub fn files(metadata: &Metadata, context: Option<u64>, notes: &mut Vec<String>) -> Result<Files, String> {
    let vocab = Vocab::new(metadata)?;
    let kind = metadata.text("tokenizer.ggml.model").unwrap_or_default();
    let (mut json, clean) = match kind {
        "gpt2" => vocab.byte_level(metadata, notes)?,
        "llama" => (vocab.sentencepiece(metadata)?, false),
        "t5" => (vocab.unigram(metadata), false),
        other => {
            return Err(format!("vocabularies of the kind {other:?} cannot be written as tokenizer.json"));
        }
    };
    json["version"] = json!("1.0");
    json["added_tokens"] = vocab.added();
    let config = vocab.config(metadata, clean, context);
    let text = |json: &Json| format!("{json:#}\n").into_bytes();
    Ok(vec![("tokenizer.json".into(), text(&json)), ("tokenizer_config.json".into(), text(&config))])
}

/// A vocabulary, and what the tokenizer makes of it.
struct Vocab {
    tokenizer: Tokenizer,
    /// The text of each id; `None` for rows without a token.
    texts: Vec<Option<String>>,
    scores: Vec<f64>,
    has_bytes: bool,
}

impl Vocab {
    fn new(metadata: &Metadata) -> Result<Self, String> {
        let tokenizer = Tokenizer::from_metadata(metadata).map_err(|e| e.to_string())?;
        let array = |name: &str| metadata.get(&format!("tokenizer.ggml.{name}")).and_then(Value::as_array);
        let types: Vec<i128> =
            array("token_type").into_iter().flat_map(Array::values).filter_map(|v| v.as_i128()).collect();
        let mut texts = Vec::new();
        for (id, text) in array("tokens").into_iter().flat_map(Array::strings).enumerate() {
            let text = str::from_utf8(text).map_err(|_| format!("the text of token {id} is not UTF-8"))?;
            let padding = types.get(id) == Some(&UNUSED) && text == format!("[PAD{id}]");
            texts.push(Some(text.to_string()).filter(|_| !padding));
        }
        let scores = array("scores").into_iter().flat_map(Array::values).filter_map(|v| v.as_f64()).collect();
        Ok(Self { tokenizer, texts, scores, has_bytes: types.contains(&BYTE) })
    }

    /// Ids and texts.
    fn tokens(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..).zip(&self.texts).filter_map(|(id, text)| Some((id, text.as_deref()?)))
    }

    fn text(&self, id: Option<u32>) -> Option<&str> {
        self.texts.get(id? as usize)?.as_deref()
    }

    /// All tokens with their ids: those with a role too, which otherwise get other ids.
    fn ids(&self) -> Json {
        Json::Object(self.tokens().map(|(id, text)| (text.to_string(), json!(id))).collect::<Map<_, _>>())
    }

    /// The tokens that are looked for in a text before anything else.
    fn added(&self) -> Json {
        let one = |(id, special, [lstrip, rstrip]): (u32, bool, [bool; 2])| {
            let content = self.text(Some(id))?;
            Some(json!({
                "id": id, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": rstrip,
                "normalized": false, "special": special,
            }))
        };
        let symbols = self.tokenizer.symbols().into_iter().map(|id| (id, false, [false; 2]));
        let mut all: Vec<_> = self.tokenizer.specials().into_iter().chain(symbols).collect();
        order::by_key(&mut all, |(id, ..)| *id);
        all.into_iter().filter_map(one).collect()
    }

    /// What is added to a text; `None` for nothing.
    fn post_processor(&self) -> Option<Json> {
        let bos = self.text(self.tokenizer.bos().filter(|_| self.tokenizer.add_bos()));
        let eos = self.text(self.tokenizer.eos().filter(|_| self.tokenizer.add_eos()));
        if bos.is_none() && eos.is_none() {
            return None;
        }
        let token = |text: &str, n: u8| json!({"SpecialToken": {"id": text, "type_id": n}});
        let part = |name: &str, n: u8| {
            let text = json!({"Sequence": {"id": name, "type_id": n}});
            [bos.map(|t| token(t, n)), Some(text), eos.map(|t| token(t, n))].into_iter().flatten()
        };
        let ids = [(bos, self.tokenizer.bos()), (eos, self.tokenizer.eos())];
        let special: Map<String, Json> = ids
            .into_iter()
            .filter_map(|(text, id)| {
                Some((text?.to_string(), json!({"id": text, "ids": [id], "tokens": [text]})))
            })
            .collect();
        Some(json!({
            "type": "TemplateProcessing", "special_tokens": special,
            "single": part("A", 0).collect::<Vec<_>>(),
            "pair": part("A", 0).chain(part("B", 1)).collect::<Vec<_>>(),
        }))
    }

    /// A byte-level tokenizer, and whether spaces are cleaned up in decoded text, which tells some pre-tokenizers apart.
    fn byte_level(&self, metadata: &Metadata, notes: &mut Vec<String>) -> Result<(Json, bool), String> {
        let name = metadata.text("tokenizer.ggml.pre").filter(|p| !p.is_empty()).unwrap_or("default");
        let row = table::find(name).ok_or_else(|| format!("the pre-tokenizer {name:?} is not known"))?;
        let splits = row.patterns_in_json().find(|list| list.iter().all(|p| !p.ends_with('\u{2026}')));
        let splits = splits.or(row.splits.filter(|_| !row.raw));
        let splits =
            splits.ok_or_else(|| format!("the rules of the pre-tokenizer {name:?} are not known"))?;
        let mut steps: Vec<Json> = splits
            .iter()
            .map(|&pattern| match pattern {
                CONTIGUOUS_PUNCTUATION => json!({"type": "Punctuation", "behavior": "Contiguous"}),
                _ => json!({
                    "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
                }),
            })
            .collect();
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        steps.push(bytes.clone());

        let known: HashSet<&str> = self.tokens().map(|(_, text)| text).collect();
        let all = metadata.get("tokenizer.ggml.merges").and_then(Value::as_array);
        let merges: Vec<&str> = all
            .into_iter()
            .flat_map(Array::strings)
            .filter_map(|merge| str::from_utf8(merge).ok())
            // transformers does not load a file with merges of what is no token.
            .filter(|merge| {
                let parts = merge.split_once(' ');
                parts.is_some_and(|(a, b)| {
                    known.contains(a) && known.contains(b) && known.contains(&*format!("{a}{b}"))
                })
            })
            .collect();
        let dropped = all.map_or(0, Array::len) - merges.len();
        if dropped > 0 {
            notes.push(format!(
                "{dropped} of the tokenizer's merges are left out, as they are not of two tokens that make a third one: \
                 transformers does not load a file with such merges"
            ));
        }
        let (nfc, clean) = pre::conditions(row, splits);
        let json = json!({
            "normalizer": if nfc { json!({"type": "NFC"}) } else { Json::Null },
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "post_processor": self.post_processor().unwrap_or_else(|| bytes.clone()),
            "decoder": bytes,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": row.ignore_merges, "vocab": self.ids(), "merges": merges,
            },
        });
        Ok((json, clean))
    }

    /// A SentencePiece vocabulary of merges.
    fn sentencepiece(&self, metadata: &Metadata) -> Result<Json, String> {
        let ids: HashMap<&str, u32> = self.tokens().map(|(id, text)| (text, id)).collect();
        /// Two tokens of which a third one consists: ids and texts.
        type Pair<'a> = (u32, u32, &'a str, &'a str);
        let mut merges: Vec<(f64, u32, Vec<Pair>)> = Vec::new();
        let mut count = 0;
        // Tokens with plain spaces are user-defined: they are not made of others, and a space divides a pair.
        let merged = |text: &str| text.len() <= LONGEST_MERGED && !text.contains(' ');
        for (id, text) in self.tokens().filter(|(_, text)| merged(text)) {
            let at = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
            let pairs = at.filter_map(|(a, b)| Some((*ids.get(a)?, *ids.get(b)?, a, b)));
            let mut pairs: Vec<_> = pairs.collect();
            count += pairs.len();
            if count > MOST_MERGES {
                return Err(format!("its tokens consist of others in more than {MOST_MERGES} ways"));
            }
            order::by_key(&mut pairs, |(a, b, ..)| (*a, *b));
            merges.push((self.scores.get(id as usize).copied().unwrap_or(0.0), id, pairs));
        }
        order::by(&mut merges, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let merges: Vec<String> =
            merges.iter().flat_map(|(_, _, pairs)| pairs).map(|(_, _, a, b)| format!("{a} {b}")).collect();
        Ok(self.with_spaces(
            metadata,
            json!({
                "type": "BPE", "dropout": null, "unk_token": self.text(self.tokenizer.unknown()),
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                "byte_fallback": true, "ignore_merges": false, "vocab": self.ids(), "merges": merges,
            }),
        ))
    }

    /// A unigram vocabulary.
    fn unigram(&self, metadata: &Metadata) -> Json {
        // Ids are places in the list: rows without a token are left out at its end only.
        let n = self.texts.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let piece = |id: usize| {
            let text = self.texts[id].clone().unwrap_or_else(|| format!("[PAD{id}]"));
            json!([text, self.scores.get(id).copied().unwrap_or(0.0)])
        };
        let vocab: Vec<Json> = (0..n).map(piece).collect();
        self.with_spaces(
            metadata,
            json!({
                "type": "Unigram", "unk_id": self.tokenizer.unknown(), "vocab": vocab, "byte_fallback": self.has_bytes,
            }),
        )
    }

    /// The steps around a SentencePiece model: U+2581 for spaces, and what the file says of normalization.
    fn with_spaces(&self, metadata: &Metadata, model: Json) -> Json {
        let prefix = self.tokenizer.space_prefix();
        // Text behind a symbol of the model itself goes on without a space. Where extra spaces are removed, `first` would find no
        // beginning of a text.
        let merge = metadata.get("tokenizer.ggml.remove_extra_whitespaces") == Some(&Value::Bool(true));
        let symbols = !merge && !self.tokenizer.symbols().is_empty();
        let scheme = self.tokenizer.prepend_scheme().or(symbols.then_some(Prepend::First));
        let scheme = scheme.filter(|_| prefix);
        let table = metadata.get("tokenizer.ggml.precompiled_charsmap").and_then(Value::as_array);
        let table = table.map(Array::bytes).filter(|bytes| !bytes.is_empty());
        let steps = [
            table.map(|bytes| json!({"type": "Precompiled", "precompiled_charsmap": base64::encode(bytes)})),
            merge.then(|| json!({"type": "Strip", "strip_left": true, "strip_right": true})),
            merge.then(|| json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})),
            (prefix && scheme.is_none()).then(|| json!({"type": "Prepend", "prepend": "\u{2581}"})),
            Some(json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"})),
        ];
        let decoders = [
            Some(json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "})),
            Some(json!({"type": "ByteFallback"})),
            Some(json!({"type": "Fuse"})),
            prefix.then(|| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0})),
        ];
        let list = |steps: &[Option<Json>]| steps.iter().flatten().cloned().collect::<Vec<_>>();
        json!({
            "normalizer": {"type": "Sequence", "normalizers": list(&steps)},
            "pre_tokenizer": scheme.map(|scheme| json!({
                "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme.name(), "split": false,
            })),
            "post_processor": self.post_processor(),
            "decoder": {"type": "Sequence", "decoders": list(&decoders)},
            "model": model,
        })
    }

    /// tokenizer_config.json: the tokens with a role, what is added to texts, and the chat template.
    fn config(&self, metadata: &Metadata, clean: bool, context: Option<u64>) -> Json {
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": clean,
            "add_bos_token": self.tokenizer.add_bos(), "add_eos_token": self.tokenizer.add_eos(),
        });
        let id = |role: &str| {
            let id = metadata.get(&format!("tokenizer.ggml.{role}_token_id"))?.as_u64()?;
            u32::try_from(id).ok()
        };
        let unknown = id("unknown").or(self.tokenizer.unknown());
        for (role, id) in [
            ("bos_token", self.tokenizer.bos()),
            ("eos_token", self.tokenizer.eos()),
            ("unk_token", unknown),
            ("pad_token", id("padding")),
            ("sep_token", id("seperator")),
            ("mask_token", id("mask")),
        ] {
            if let Some(text) = self.text(id) {
                config[role] = json!(text);
            }
        }
        if let Some(context) = context {
            config["model_max_length"] = json!(context);
        }
        const KEY: &str = "tokenizer.chat_template";
        let named = metadata.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(KEY)?.strip_prefix('.')?;
            Some(json!({"name": name, "template": value.as_str()?}))
        });
        let mut templates: Vec<Json> = named.collect();
        match metadata.text(KEY) {
            Some(text) if templates.is_empty() => config["chat_template"] = json!(text),
            text => {
                let default = text.map(|text| json!({"name": "default", "template": text}));
                templates.splice(0..0, default);
                if !templates.is_empty() {
                    config["chat_template"] = Json::Array(templates);
                }
            }
        }
        config
    }
}
