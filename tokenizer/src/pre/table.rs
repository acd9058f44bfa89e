//! llama.cpp's pre-tokenizers: one row for every way in which a name of `tokenizer.ggml.pre` makes a text into tokens.
//!
//! The table is read in both directions: a checkpoint's tokenizer.json is looked up by its splitting rules
//! ([`PreTokenizer::recognised`]), and a GGUF's name gives the patterns by which texts are split ([`find`]).
//!
//! Sources: the patterns and the comments "original regex" in llama.cpp's `llama-vocab.cpp`, the models' own
//! tokenizer.json files, and the tokenizer classes of transformers.

/// Patterns that split a text one after the other: each splits what the one before it matched and what it left.
pub type Splits = &'static [&'static str];

/// A pre-tokenizer, with the properties that llama.cpp derives from its name.
#[derive(Debug)]
pub struct PreTokenizer {
    /// The name that is written to `tokenizer.ggml.pre`.
    pub name: &'static str,
    /// Further names that llama.cpp treats in the same way; they are accepted, and never written unless asked for.
    pub aliases: &'static [&'static str],
    /// The patterns that llama.cpp splits by, in the syntax of tokenizer.json; `None` where they are not known here.
    pub splits: Option<Splits>,
    /// How a tokenizer.json says the same.
    pub recognised: Recognised,
    /// What besides the patterns a checkpoint must have to be recognised.
    pub only: Conditions,
    /// Classes of transformers (without "Fast") whose code has these rules, so that no tokenizer.json is needed, and
    /// the values of `model_type` that stand for them where no class is given.
    pub classes: &'static [&'static str],
    /// A word that is a token as a whole is not built up by merges.
    pub ignore_merges: bool,
    /// When BOS is put before a text.
    pub bos: Bos,
    /// Tokens are plain text with U+2581 for a space, rather than text in the byte alphabet.
    pub raw: bool,
}

/// The patterns of the tokenizer.json files that belong to a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Recognised {
    /// None: the name has to be given.
    Never,
    /// The patterns that llama.cpp splits by.
    BySplits,
    /// Other patterns than llama.cpp's, any one of these lists. A pattern that ends in `…` stands for all that begin
    /// like it.
    By(&'static [Splits]),
}

/// What tells rows with the same patterns apart; `None` accepts either. Of several rows that fit, the first counts.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// Whether the normalizer is NFC.
    pub nfc: Option<bool>,
    /// The model's `ignore_merges`.
    pub ignore_merges: Option<bool>,
    /// tokenizer_config.json's `clean_up_tokenization_spaces` (true where it is missing), which llama.cpp derives from
    /// the name.
    pub clean_spaces: Option<bool>,
}

/// When llama.cpp puts BOS before a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bos {
    /// If the file says so (`add_bos_token`).
    IfAsked,
    /// The same, and the vocabulary has no BOS unless the file names one; otherwise token 11 is BOS.
    IfNamed,
    /// Unless the file says no.
    Usual,
    /// Whatever the file says.
    Always,
}

const ANY: Conditions = Conditions { nfc: None, ignore_merges: None, clean_spaces: None };

/// A row that is recognised by llama.cpp's own patterns.
const fn row(name: &'static str, splits: Splits) -> PreTokenizer {
    PreTokenizer {
        name,
        aliases: &[],
        splits: Some(splits),
        recognised: Recognised::BySplits,
        only: ANY,
        classes: &[],
        ignore_merges: false,
        bos: Bos::IfAsked,
        raw: false,
    }
}

/// A row that is only used when its name is given.
const fn named(name: &'static str, splits: Splits) -> PreTokenizer {
    PreTokenizer { recognised: Recognised::Never, ..row(name, splits) }
}

/// A name that llama.cpp knows, and whose patterns are not known here.
const fn unsplit(name: &'static str) -> PreTokenizer {
    PreTokenizer { splits: None, ..named(name, &[]) }
}

/// `Digits` of tokenizer.json with `individual_digits`, as a pattern.
pub const DIGIT: &str = r"\p{N}";
/// `Digits` without it.
pub const NUMBER: &str = r"\p{N}+";
/// `Punctuation` with the behaviour "Contiguous". Not a pattern: what counts as punctuation is a list.
pub const CONTIGUOUS_PUNCTUATION: &str = "(punctuation)+";
/// Numbers in groups of three digits from the right. Needs look-ahead, so it is not compiled but written out in code.
pub const THREES: &str = r"\p{N}{1,3}(?=(\p{N}{3})*(?!\p{N}))";
/// The pattern that `ByteLevel` has built in.
pub const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The pattern of Llama 3.
pub const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// GPT-4o's pattern as tokenizer.json has it.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same as llama.cpp splits by: letters that are not lowercase, letters that are not uppercase, where only ASCII
/// letters have a case.
const GPT4O_SPLIT: &str = r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN_SPLIT: &str = r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GRANITE: &str = r"[^\r\n\p{L}\p{N}]?[[\p{L}\p{M}]&&[^a-z]]*[[\p{L}\p{M}]&&[^A-Z]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[[\p{L}\p{M}]&&[^a-z]]+[[\p{L}\p{M}]&&[^A-Z]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o's with letters of any case, and numbers of up to three digits.
const ANY_CASE_3: &str = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with single digits.
const ANY_CASE_1: &str = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Lines and line ends.
const LINES: &str = r"[^\n]+|\n+";

/// The letters of deepseek-llm: a list of 800 characters, of which published copies differ in characters that Unicode
/// considers equivalent.
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯ…";
/// Cased letters as that list has them: those of some blocks, without what newer versions of Unicode added.
const DEEPSEEK_LETTERS_SPLIT: &str = r"\s?[[\p{Lu}\p{Ll}\p{Lt}]&&[\x00-\x{55F}\x{10A0}-\x{10C5}\x{13A0}-\x{13FF}\x{1C90}-\x{2CFF}\x{A640}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FF5A}\x{10400}-\x{104FF}\x{10C80}-\x{10CFF}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]]+";
const DEEPSEEK_PUNCTUATION: &str = r"\s?[!-/:-~！-／：-～‘-‟　-。]+";
const DEEPSEEK_PUNCTUATION_SPLIT: &str = r"\s?[!-/:-~！-／：-～‘-‟、-。]+";
/// From the Syriac extensions to Chinese, and Korean.
const DEEPSEEK_CJK: &str = "[一-龥ࠀ-一가-퟿]+";
/// Whitespace lies in between.
const DEEPSEEK_CJK_SPLIT: &str = r"[[一-龥ࠀ-一가-\x{D7FF}]&&\S]+";

/// Every pre-tokenizer. Names with the same patterns are several rows where llama.cpp treats them differently, or where
/// something else in the files tells them apart.
pub static TABLE: &[PreTokenizer] = &[
    // With NFC these are GPT-NeoX's vocabulary and its relatives, for which convert_hf_to_gguf.py says olmo or mpt.
    PreTokenizer {
        aliases: &[
            "a.x-4.0",
            "exaone4",
            "gigachat",
            "granite-docling",
            "jais",
            "jina-de",
            "jina-es",
            "jina-v1-en",
            "jina-v2-code",
            "jina-v2-de",
            "jina-v2-es",
            "mellum",
            "modern-bert",
            "mpt",
            "roberta-bpe",
            "trillion",
        ],
        only: Conditions { nfc: Some(false), ..ANY },
        classes: &["GPT2Tokenizer", "gpt2"],
        ..row("gpt-2", &[GPT2])
    },
    PreTokenizer { classes: &["GPTNeoXTokenizer"], ..row("olmo", &[GPT2]) },
    PreTokenizer { classes: &["CodeGenTokenizer"], ..named("phi-2", &[GPT2]) },
    // Llama 3. Without ignore_merges it is dbrx (Phi-4 is called so too).
    PreTokenizer {
        aliases: &[
            "falcon-h1",
            "falcon3",
            "jina-v5-nano",
            "lfm2",
            "llama-v3",
            "llama3",
            "midm-2.0",
            "pixtral",
        ],
        only: Conditions { ignore_merges: Some(true), ..ANY },
        ignore_merges: true,
        bos: Bos::Usual,
        ..row("llama-bpe", &[LLAMA3])
    },
    PreTokenizer { aliases: &["smaug-bpe"], ..row("dbrx", &[LLAMA3]) },
    PreTokenizer { aliases: &["glm5"], ignore_merges: true, bos: Bos::IfNamed, ..named("glm4", &[LLAMA3]) },
    PreTokenizer { bos: Bos::IfNamed, ..named("chatglm-bpe", &[LLAMA3]) },
    // stablelm2 has no normalizer and cleans up spaces; Qwen and the models derived from it do not.
    PreTokenizer {
        only: Conditions { nfc: Some(false), clean_spaces: Some(true), ..ANY },
        ..row("stablelm2", &[QWEN2])
    },
    PreTokenizer {
        aliases: &["deepseek-r1-qwen", "f2llmv2", "grok-2", "hunyuan", "kormo", "megrez", "solar-open"],
        classes: &["Qwen2Tokenizer", "qwen2", "qwen3"],
        ..row("qwen2", &[QWEN2])
    },
    PreTokenizer { classes: &["Qwen3_5Tokenizer"], ..row("qwen35", &[QWEN35]) },
    // Phi-4-mini too.
    PreTokenizer {
        aliases: &["kanana2", "llama4", "minimax-m2", "talkie"],
        recognised: Recognised::By(&[&[GPT4O]]),
        ..row("gpt-4o", &[GPT4O_SPLIT])
    },
    PreTokenizer {
        recognised: Recognised::By(&[&[TEKKEN]]),
        ignore_merges: true,
        bos: Bos::Usual,
        ..row("tekken", &[TEKKEN_SPLIT])
    },
    PreTokenizer { ignore_merges: true, ..named("granite-embed-multi-97m", &[GRANITE]) },
    // Single digits, then GPT-2's pattern. command-r has NFC; neither it nor smollm cleans up spaces, and starcoder
    // does.
    PreTokenizer {
        only: Conditions { nfc: Some(true), ..ANY },
        classes: &["CohereTokenizer"],
        ..row("command-r", &[DIGIT, GPT2])
    },
    PreTokenizer { only: Conditions { clean_spaces: Some(false), ..ANY }, ..row("smollm", &[DIGIT, GPT2]) },
    PreTokenizer {
        aliases: &["codeshell", "exaone", "mellum2", "minerva-7b", "refact"],
        ..row("starcoder", &[DIGIT, GPT2])
    },
    PreTokenizer {
        recognised: Recognised::By(&[&[CONTIGUOUS_PUNCTUATION, GPT2, NUMBER, "[0-9][0-9][0-9]"]]),
        ..row("falcon", &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"])
    },
    // What llama.cpp does where a file gives no name.
    named("default", &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    // Most files have single digits; llama.cpp has \p{N}+, which is the same where no merge joins digits.
    PreTokenizer {
        recognised: Recognised::By(&[
            &[r"[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCTUATION, r"\s+$", DEEPSEEK_CJK, DIGIT],
            &[r"[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCTUATION, r"\s+$", DEEPSEEK_CJK, NUMBER],
        ]),
        ..row(
            "deepseek-llm",
            &[
                r"[\r\n]",
                DEEPSEEK_LETTERS_SPLIT,
                DEEPSEEK_PUNCTUATION_SPLIT,
                r"\s+$",
                DEEPSEEK_CJK_SPLIT,
                NUMBER,
            ],
        )
    },
    PreTokenizer {
        recognised: Recognised::By(&[&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, DIGIT]]),
        ..row("deepseek-coder", &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK_SPLIT, DIGIT])
    },
    PreTokenizer {
        aliases: &["hunyuan-dense", "hy_v4", "joyai-llm"],
        ..row(
            "deepseek-v3",
            &[
                r"\p{N}{1,3}",
                "[一-龥぀-ゟ゠-ヿ]+",
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
            ],
        )
    },
    PreTokenizer {
        aliases: &["bailingmoe2", "llada-moe"],
        ..row(
            "bailingmoe",
            &[
                r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
            ],
        )
    },
    row(
        "seed-coder",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    row(
        "jais-2",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        ],
    ),
    row(
        "exaone-moe",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
    ),
    PreTokenizer {
        ignore_merges: true,
        ..row(
            "minicpm5",
            &[
                r"\p{N}{1,3}",
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ],
        )
    },
    PreTokenizer {
        aliases: &["cohere2moe"],
        recognised: Recognised::By(&[&[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O]]),
        ..row("tiny_aya", &[THREES, ANY_CASE_3])
    },
    row("ufakzeka", &[r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]),
    // The files have a bracket in the set that llama.cpp leaves out.
    PreTokenizer {
        aliases: &["gpt3-finnish", "poro-chat"],
        ..row("bloom", &[r" ?[^(\s|[.,!?…。，、।۔،])]+"])
    },
    row("viking", &[r" ?[^(\s|[.,!?…。，、।۔،])]+", DIGIT]),
    PreTokenizer {
        bos: Bos::Usual,
        ..named(
            "chameleon",
            &[
                "<sentinel:[0-9]+>",
                "IMGIMG[A-I]{1,4}Z",
                r"[\t\n]|    |  ",
                DIGIT,
                r"[\p{P}!-/:-@\[-`{-~]",
                GPT2,
            ],
        )
    },
    PreTokenizer {
        ignore_merges: true,
        ..named("youtu", &["[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", ANY_CASE_1])
    },
    named("laguna", &[LINES, QWEN2]),
    PreTokenizer {
        aliases: &["granite-embed-multi-311m"],
        bos: Bos::Always,
        raw: true,
        ..named("gemma4", &[LINES])
    },
    PreTokenizer { raw: true, ..named("sarvam-moe", &[LINES]) },
    unsplit("afmoe"),
    unsplit("kimi-k2"),
    unsplit("spark2_5"),
    unsplit("superbpe"),
    unsplit("whitespace"),
];

impl PreTokenizer {
    /// All its names, the one that is written first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// The lists of patterns by which a tokenizer.json is recognised.
    pub fn patterns_in_json(&self) -> impl Iterator<Item = Splits> {
        let (own, others): (Option<Splits>, &[Splits]) = match self.recognised {
            Recognised::Never => (None, &[]),
            Recognised::BySplits => (self.splits, &[]),
            Recognised::By(lists) => (None, lists),
        };
        own.into_iter().chain(others.iter().copied())
    }
}

/// The row with this name or alias.
pub fn find(name: &str) -> Option<&'static PreTokenizer> {
    TABLE.iter().find(|row| row.names().any(|known| known == name))
}

/// The row of a tokenizer class of transformers, with or without "Fast" at its end, or of a `model_type`.
pub fn find_by_class(class: &str) -> Option<&'static PreTokenizer> {
    TABLE.iter().find(|row| row.classes.contains(&class.trim_end_matches("Fast")))
}

/// All names and aliases of the rows that `wanted` accepts, sorted.
pub fn names(wanted: impl Fn(&PreTokenizer) -> bool) -> Vec<&'static str> {
    let mut names: Vec<_> = TABLE.iter().filter(|row| wanted(row)).flat_map(PreTokenizer::names).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pre::Splitter;

    #[test]
    fn every_name_is_unique_and_its_patterns_compile() {
        let all = names(|_| true);
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
        let mut classes: Vec<_> = TABLE.iter().flat_map(|row| row.classes).collect();
        classes.sort_unstable();
        assert!(classes.windows(2).all(|pair| pair[0] < pair[1]), "{classes:?}");
        for row in TABLE {
            assert!(row.splits.is_some() || row.recognised == Recognised::Never, "{}", row.name);
            for name in row.names() {
                assert!(std::ptr::eq(find(name).unwrap(), row), "{name}");
                match Splitter::named(name) {
                    Ok(splitter) => {
                        let text = "Hello, WORLD's  1234567 \n\n漢字\t가 é\u{301}!";
                        let mut joined = String::new();
                        splitter.split(text, &mut |word| joined += word);
                        assert_eq!(joined, text, "{name}");
                    }
                    Err(_) => assert!(row.splits.is_none(), "{name}"),
                }
            }
            for class in row.classes {
                assert!(std::ptr::eq(find_by_class(&format!("{class}Fast")).unwrap(), row), "{class}");
            }
        }
    }

    #[test]
    fn only_the_last_of_rows_with_the_same_patterns_accepts_everything() {
        for (i, row) in TABLE.iter().enumerate() {
            let hides = |later: &PreTokenizer| {
                row.patterns_in_json().any(|a| later.patterns_in_json().any(|b| a == b))
            };
            let open = |c: Conditions| [c.nfc, c.ignore_merges, c.clean_spaces].iter().all(Option::is_none);
            assert!(!(open(row.only) && TABLE[i + 1..].iter().any(hides)), "{} hides a later row", row.name);
        }
    }
}
