//! What llama.cpp's names of pre-tokenizers stand for, in the words of tokenizer.json.
//!
//! The patterns are those of the models' own tokenizer.json. Sources: the comments "original regex" and the
//! patterns of llama.cpp's llama-vocab.cpp, the tokenizer classes of transformers, and published files.
//! Many names stand for the same patterns. Each pattern has one entry here, or several where something else in
//! the files tells them apart that llama.cpp treats differently; the rest are in [`OTHERS`].

/// A name and the rules that it stands for. The first entry that fits is taken.
pub struct Known {
    /// `tokenizer.ggml.pre`.
    pub name: &'static str,
    /// What is split off, one pattern after the other; line ends are written as escapes. A pattern that ends in
    /// … is the beginning of one.
    pub splits: &'static [&'static str],
    /// Whether the normalizer is NFC, where that tells.
    pub nfc: Option<bool>,
    /// Whether a word that is a token is not merged from its parts, where that tells.
    pub ignore_merges: Option<bool>,
    /// tokenizer_config.json's `clean_up_tokenization_spaces` (true if it does not say), where that tells:
    /// llama.cpp has it by the name.
    pub clean_spaces: Option<bool>,
}

const fn known(name: &'static str, splits: &'static [&'static str]) -> Known {
    Known { name, splits, nfc: None, ignore_merges: None, clean_spaces: None }
}

/// `Digits` with `individual_digits`, as a pattern.
pub const DIGIT: &str = r"\p{N}";
/// `Digits` without.
pub const NUMBER: &str = r"\p{N}+";
/// `Punctuation` with "Contiguous". No pattern: what counts as punctuation is a list.
pub const CONTIGUOUS_PUNCTUATION: &str = "(punctuation)+";
/// The pattern that `ByteLevel` has built in.
pub const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

pub const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The letters of deepseek-llm: 800 characters, of which copies differ in some that Unicode holds equal.
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯ…";
const DEEPSEEK_PUNCTUATION: &str = r"\s?[!-/:-~！-／：-～‘-‟　-。]+";
/// Chinese, Korean, and what lies between Arabic and Chinese.
const DEEPSEEK_CJK: &str = "[一-龥ࠀ-一가-퟿]+";

pub const TABLE: &[Known] = &[
    // With NFC it is GPT-NeoX's vocabulary and its kin, for which convert_hf_to_gguf.py says olmo or mpt;
    // phi-2, jais, exaone4, mellum, modern-bert and others split in the same way. The first is the honest name.
    Known { nfc: Some(false), ..known("gpt-2", &[GPT2]) },
    known("olmo", &[GPT2]),
    // Llama 3, and with the same behaviour falcon3, pixtral, lfm2, midm-2.0 and glm4. Without ignore_merges
    // dbrx (Phi-4 is called so too), smaug-bpe and chatglm-bpe.
    Known { ignore_merges: Some(true), ..known("llama-bpe", &[LLAMA3]) },
    known("dbrx", &[LLAMA3]),
    // stablelm2 has no normalizer and cleans up spaces; Qwen and all that comes from it (deepseek-r1-qwen,
    // kormo, megrez, hunyuan, solar-open, grok-2) do not.
    Known { nfc: Some(false), clean_spaces: Some(true), ..known("stablelm2", &[QWEN2]) },
    known("qwen2", &[QWEN2]),
    known("qwen35", &[QWEN35]),
    // llama4, kanana2, minimax-m2 and Phi-4-mini split in the same way.
    known("gpt-4o", &[GPT4O]),
    known("tekken", &[TEKKEN]),
    // Single digits, then GPT-2's pattern. command-r has NFC and does not clean up spaces, nor does smollm;
    // starcoder does, and so do refact, codeshell, exaone and minerva-7b.
    Known { nfc: Some(true), ..known("command-r", &[DIGIT, GPT2]) },
    Known { clean_spaces: Some(false), ..known("smollm", &[DIGIT, GPT2]) },
    known("starcoder", &[DIGIT, GPT2]),
    known("falcon", &[CONTIGUOUS_PUNCTUATION, GPT2, NUMBER, "[0-9][0-9][0-9]"]),
    // The files have single digits; llama.cpp has \p{N}+, which comes to the same where no merge joins digits.
    known("deepseek-llm", &[r"[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCTUATION, r"\s+$", DEEPSEEK_CJK, DIGIT]),
    known(
        "deepseek-llm",
        &[r"[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCTUATION, r"\s+$", DEEPSEEK_CJK, NUMBER],
    ),
    known("deepseek-coder", &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, DIGIT]),
    // hunyuan-dense, joyai-llm and hy_v4 split in the same way.
    known(
        "deepseek-v3",
        &[
            r"\p{N}{1,3}",
            "[一-龥぀-ゟ゠-ヿ]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ],
    ),
    // llada-moe and bailingmoe2 split in the same way.
    known(
        "bailingmoe",
        &[
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
    ),
    known(
        "seed-coder",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    known(
        "jais-2",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        ],
    ),
    known(
        "exaone-moe",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
    ),
    known(
        "minicpm5",
        &[
            r"\p{N}{1,3}",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    // cohere2moe splits in the same way.
    known("tiny_aya", &[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O]),
    known(
        "ufakzeka",
        &[r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    ),
    // poro-chat and gpt3-finnish split in the same way. The files have a bracket in the set that llama.cpp
    // leaves out.
    known("bloom", &[r" ?[^(\s|[.,!?…。，、।۔،])]+"]),
    known("viking", &[r" ?[^(\s|[.,!?…。，、।۔،])]+", DIGIT]),
];

/// Names that llama.cpp knows and that no entry gives: they split like one that is there, or what their
/// tokenizer.json says is not known here. They can be asked for by name.
pub const OTHERS: &[&str] = &[
    "a.x-4.0",
    "afmoe",
    "bailingmoe2",
    "chameleon",
    "chatglm-bpe",
    "codeshell",
    "cohere2moe",
    "deepseek-r1-qwen",
    "default",
    "exaone",
    "exaone4",
    "f2llmv2",
    "falcon-h1",
    "falcon3",
    "gemma4",
    "gigachat",
    "glm4",
    "glm5",
    "gpt3-finnish",
    "granite-docling",
    "granite-embed-multi-311m",
    "granite-embed-multi-97m",
    "grok-2",
    "hunyuan",
    "hunyuan-dense",
    "hy_v4",
    "jais",
    "jina-de",
    "jina-es",
    "jina-v1-en",
    "jina-v2-code",
    "jina-v2-de",
    "jina-v2-es",
    "jina-v5-nano",
    "joyai-llm",
    "kanana2",
    "kimi-k2",
    "kormo",
    "laguna",
    "lfm2",
    "llada-moe",
    "llama-v3",
    "llama3",
    "llama4",
    "megrez",
    "mellum",
    "mellum2",
    "midm-2.0",
    "minerva-7b",
    "minimax-m2",
    "modern-bert",
    "mpt",
    "phi-2",
    "pixtral",
    "poro-chat",
    "refact",
    "roberta-bpe",
    "sarvam-moe",
    "smaug-bpe",
    "solar-open",
    "spark2_5",
    "superbpe",
    "talkie",
    "trillion",
    "whitespace",
    "youtu",
];

/// Names with which llama.cpp puts the begin before a text unless `add_bos_token` says no.
pub const ADDS_BEGIN: &[&str] = &[
    "chameleon",
    "falcon-h1",
    "falcon3",
    "jina-v5-nano",
    "lfm2",
    "llama-bpe",
    "llama-v3",
    "llama3",
    "midm-2.0",
    "pixtral",
    "tekken",
];

/// The tokenizer classes of transformers that need no tokenizer.json, as their own code has the rules; and the
/// models' types that stand for them where no class is named.
pub const CLASSES: &[(&str, &str)] = &[
    ("GPT2Tokenizer", "gpt-2"),
    ("Qwen2Tokenizer", "qwen2"),
    ("CohereTokenizer", "command-r"),
    ("GPTNeoXTokenizer", "olmo"),
    ("CodeGenTokenizer", "phi-2"),
    ("Qwen3_5Tokenizer", "qwen35"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen2"),
    ("gpt2", "gpt-2"),
];
