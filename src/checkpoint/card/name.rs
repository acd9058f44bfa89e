//! Parses a model's name: `mistralai/Mixtral-8x7B-Instruct-v0.1` has an organization, a base name, a size, a finetune
//! and a version. The rules are those of llama.cpp's gguf-py (`metadata.py`).

use std::sync::LazyLock;

use regex::Regex;

/// The parts of a model's name; `None` for parts that it does not have.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Id {
    /// The name without the organization.
    pub name: Option<String>,
    /// Who published it.
    pub organization: Option<String>,
    /// The name that all sizes and versions have in common.
    pub basename: Option<String>,
    /// What the base model was fine-tuned for.
    pub finetune: Option<String>,
    /// The version.
    pub version: Option<String>,
    /// The number of weights as in the name, such as "8x7B".
    pub size_label: Option<String>,
}

/// The kinds of a part of a name. A part can be several: the 3 of `Llama-3` is a version and belongs to the base name.
#[derive(Debug, Default, Clone, Copy)]
struct Roles {
    basename: bool,
    size: bool,
    finetune: bool,
    version: bool,
    encoding: bool,
}

impl Roles {
    fn count(self) -> usize {
        [self.basename, self.size, self.finetune, self.version, self.encoding].iter().filter(|&&r| r).count()
    }
}

/// A pattern for a whole part, ignoring the case of ASCII letters.
fn pattern(pattern: &str) -> Regex {
    Regex::new(&format!("^(?i-u:{pattern})$")).expect("the pattern is constant")
}

static VERSION: LazyLock<Regex> = LazyLock::new(|| pattern(r"(v|iter)?\d+(\.\d+)*"));
static ENCODING: LazyLock<Regex> = LazyLock::new(|| pattern(r"i?q\d(_\w)*|b?fp?(16|32)"));
static SIZE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(a|\d+x)?\d+([._]\d+)?[kmbt]\d?|small|mini|medium|large|x?xl"));
static FINETUNE: LazyLock<Regex> = LazyLock::new(|| pattern(r"chat|instruct|vision|lora"));
static NUMBERED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^(v\d+(\.\d+)*|\d.*)$").expect("constant"));

impl Id {
    /// Parses a name. `parameters` (the number of weights, or 0) tells sizes from context lengths: a "4k" in the name
    /// of a model of four billion weights is not its size.
    pub fn of(id: &str, parameters: u64) -> Self {
        if id.contains(' ') {
            // Not a name on the hub.
            return Self { name: Some(id.to_string()), ..Self::default() };
        }
        let (organization, name) = id.split_once('/').map_or((None, id), |(o, n)| (Some(o), n));
        // "./model" is a path without an organization.
        let organization = organization.filter(|o| !o.is_empty() && !o.starts_with('.'));

        let mut parts: Vec<(String, Roles)> = name
            .split('-')
            .filter(|part| !part.is_empty())
            .enumerate()
            .map(|(i, part)| role(part, i == 0, parameters))
            .collect();

        // "mini" is a size only where there is no number.
        if parts.iter().any(|(part, r)| r.size && part.contains(|c: char| c.is_ascii_digit())) {
            for (part, roles) in &mut parts {
                roles.size &= !part.chars().all(char::is_alphabetic);
            }
        }

        // The base name is all words and versions up to the first part that is something else ...
        let mut at_start = true;
        for (part, roles) in &mut parts {
            let nothing = roles.count() == 0;
            at_start &= roles.version || (nothing && part.starts_with(char::is_alphabetic));
            roles.basename = at_start;
            roles.finetune |= nothing && !at_start;
        }
        // ... but a version that ends the whole name is the model's.
        for (_, roles) in parts.iter_mut().rev().take_while(|(_, r)| r.basename && r.version) {
            roles.basename = false;
        }

        let join = |chosen: fn(Roles) -> bool| {
            let chosen: Vec<&str> =
                parts.iter().filter(|(_, r)| chosen(*r)).map(|(part, _)| part.as_str()).collect();
            (!chosen.is_empty()).then(|| chosen.join("-"))
        };
        let mut sizes: Vec<&str> = Vec::new();
        for (part, roles) in &parts {
            if roles.size && !sizes.contains(&part.as_str()) {
                sizes.push(part);
            }
        }
        let size_label = (!sizes.is_empty()).then(|| sizes.join("-"));
        let finetune = join(|r| r.finetune);
        let version = join(|r| r.version && !r.basename);
        // Without any other part, it is unknown where the base name ends.
        let clear = size_label.is_some() || finetune.is_some() || version.is_some();
        Self {
            name: (!name.is_empty()).then(|| name.to_string()),
            organization: organization.map(str::to_string),
            basename: join(|r| r.basename).filter(|_| clear),
            finetune,
            version,
            size_label,
        }
    }
}

/// One part of a name as it is written to metadata, and its kinds.
fn role(part: &str, first: bool, parameters: u64) -> (String, Roles) {
    let mut roles = Roles::default();
    let mut text = part.to_string();
    if VERSION.is_match(part) {
        roles.version = true;
    } else if ENCODING.is_match(part) {
        roles.encoding = true;
        text.make_ascii_uppercase();
    } else if !first && SIZE.is_match(part) {
        text = spelled(part);
        // The sizes of adapters and mixtures of experts differ from the number in the name, but not by this much.
        let far = weights(&text).is_some_and(|weights| {
            parameters != 0 && (weights - parameters as f64).abs() > (u128::from(parameters) * 7 / 8) as f64
        });
        if far {
            let unit = text.pop().map(|c| c.to_ascii_lowercase());
            text.extend(unit);
        }
        roles.finetune = far;
        roles.size = !far;
    } else if !first && FINETUNE.is_match(part) {
        roles.finetune = true;
    }
    (text, roles)
}

/// Normalizes a size: "1_6b" is 1.6B, and bloom's "7b1" is 7.1B.
fn spelled(size: &str) -> String {
    let mut size = size.replace('_', ".");
    if size.ends_with(|c: char| c.is_ascii_digit()) {
        let digit = size.pop();
        let unit = size.pop();
        size.push('.');
        size.extend(digit);
        size.extend(unit);
    }
    let unit = size.len() - 1;
    if size[..unit].ends_with(|c: char| c.is_ascii_digit()) {
        size[unit..].make_ascii_uppercase();
    }
    size
}

/// The number of weights of a plain size such as 1.6B; `None` for 8x7B, A14B and words.
fn weights(size: &str) -> Option<f64> {
    let power = " KMBT".find(size.chars().last()?)?;
    let number: f64 = size[..size.len() - 1].parse().ok()?;
    Some(number * 1000f64.powi(power as i32))
}

/// A title from a name: `janai-hq` is "Janai Hq". Words with capitals, versions and numbers are unchanged.
pub fn title(id: &str) -> String {
    let words = id.split(|c: char| c == '-' || c.is_whitespace()).filter(|word| !word.is_empty());
    let titled = words.map(|word| {
        let lower = word.contains(char::is_lowercase) && !word.contains(char::is_uppercase);
        if lower && !NUMBERED.is_match(word) { capitalized(word) } else { word.to_string() }
    });
    titled.collect::<Vec<_>>().join(" ")
}

/// A word with a capital at the start and after everything that is not a letter.
fn capitalized(word: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in word.chars() {
        if inside {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// A number of weights as a size: "8.0B", "124M", "0K".
pub fn size_label(weights: u64) -> String {
    let n = weights as f64;
    let (scaled, unit) = match weights {
        1_000_000_000_001.. => (n * 1e-12, 'T'),
        1_000_000_001.. => (n * 1e-9, 'B'),
        1_000_001.. => (n * 1e-6, 'M'),
        _ => (n * 1e-3, 'K'),
    };
    // At least two digits that are not leading zeros.
    let decimals = match scaled.round_ties_even() as u64 {
        0 => 2,
        1..=9 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A name, its size where one is known, and its parts: organization, base name, finetune, version, size.
    type Case = (&'static str, u64, [&'static str; 5]);

    const CASES: &[Case] = &[
        ("Mistral/Mixtral-8x7B-Instruct-v0.1", 0, ["Mistral", "Mixtral", "Instruct", "v0.1", "8x7B"]),
        ("Mixtral-8x7B-v0.1", 46_700_000_000, ["", "Mixtral", "", "v0.1", "8x7B"]),
        ("Mixtral-8x7B", 0, ["", "Mixtral", "", "", "8x7B"]),
        ("Mixtral-v0.1", 0, ["", "Mixtral", "", "v0.1", ""]),
        ("Mixtral", 0, ["", "", "", "", ""]),
        ("NousResearch/Meta-Llama-3-8B", 0, ["NousResearch", "Meta-Llama-3", "", "", "8B"]),
        ("Meta-Llama-3.1-8B", 8_030_261_248, ["", "Meta-Llama-3.1", "", "", "8B"]),
        ("Qwen1.5-MoE-A2.7B-Chat", 0, ["", "Qwen1.5-MoE", "Chat", "", "A2.7B"]),
        ("Qwen2-57B-A14B-Instruct", 0, ["", "Qwen2", "Instruct", "", "57B-A14B"]),
        ("Qwen2.5-0.5B-Instruct", 494_032_768, ["", "Qwen2.5", "Instruct", "", "0.5B"]),
        ("TinyLlama-1.1B-Chat-v1.0", 1_100_048_384, ["", "TinyLlama", "Chat", "v1.0", "1.1B"]),
        ("Phi-3-mini-4k-instruct", 4_000_000_000, ["", "Phi-3", "4k-instruct", "", "mini"]),
        ("stories-llama2-50k", 50_000, ["", "stories-llama2", "", "", "50K"]),
        ("DeepSeek-Coder-V2-Lite-Instruct", 0, ["", "DeepSeek-Coder-V2-Lite", "Instruct", "", ""]),
        ("daybreak-kunoichi-2dpo-7b", 0, ["", "daybreak-kunoichi", "2dpo", "", "7B"]),
        ("smallcloudai/Refact-1_6B-fim", 0, ["smallcloudai", "Refact", "fim", "", "1.6B"]),
        ("Gemma-2-9B-It-SPPO-Iter3", 0, ["", "Gemma-2", "It-SPPO", "Iter3", "9B"]),
        ("SeaLLMs-v3-7B-Chat", 0, ["", "SeaLLMs-v3", "Chat", "", "7B"]),
        ("internlm2_5-7b-chat-1m", 7_000_000_000, ["", "internlm2_5", "chat-1m", "", "7B"]),
        ("jamba-900M-v0.13-KIx2", 0, ["", "jamba", "KIx2", "v0.13", "900M"]),
        ("llama-161M-100B", 161_000_000, ["", "llama", "100b", "", "161M"]),
        ("relu-100B", 1_340_000_000, ["", "relu", "100b", "", ""]),
        ("bigscience/bloom-7b1", 7_069_016_064, ["bigscience", "bloom", "", "", "7.1B"]),
        (
            "GreenNode-mini-7B-multilingual-v1olet-Mistral-7B-Instruct-v0.1",
            0,
            ["", "GreenNode-mini", "multilingual-v1olet-Mistral-Instruct", "v0.1", "7B"],
        ),
        ("Mistral-Nemo-Instruct-2407", 0, ["", "Mistral-Nemo", "Instruct", "2407", ""]),
        ("Mini-InternVL-Chat-2B-V1-5", 0, ["", "Mini-InternVL", "Chat", "V1-5", "2B"]),
        ("bagel-dpo-2.8b-v0.2", 0, ["", "bagel-dpo", "", "v0.2", "2.8B"]),
        ("microsoft/Florence-2-base", 0, ["microsoft", "", "", "", ""]),
        ("mistralai/-Mistral--Nemo-Base-2407-", 0, ["mistralai", "Mistral-Nemo-Base", "", "2407", ""]),
        ("./hermes-2-pro-llama-3-8b-DPO", 0, ["", "hermes-2-pro-llama-3", "DPO", "", "8B"]),
        ("Mistral-7B-Merge-14-v0", 0, ["", "Mistral", "Merge", "14-v0", "7B"]),
        ("llama-7b-q4_k_m-fp16", 0, ["", "llama", "", "", "7B"]),
        ("A model of mine-7B", 0, ["", "", "", "", ""]),
        ("gpt2-xl", 1_557_611_200, ["", "gpt2", "", "", "xl"]),
    ];

    #[test]
    fn names_are_taken_apart() {
        for (id, parameters, [organization, basename, finetune, version, size_label]) in CASES {
            let some = |s: &str| (!s.is_empty()).then(|| s.to_string());
            let name = if id.contains(' ') { id } else { id.rsplit('/').next().unwrap() };
            let expected = Id {
                name: some(name),
                organization: some(organization),
                basename: some(basename),
                finetune: some(finetune),
                version: some(version),
                size_label: some(size_label),
            };
            assert_eq!(Id::of(id, *parameters), expected, "{id}");
        }
    }

    #[test]
    fn titles_keep_capitals_versions_and_numbers() {
        for (id, expected) in [
            ("Mixtral-8x7B-Instruct-v0.1", "Mixtral 8x7B Instruct v0.1"),
            ("hermes-2-pro-llama-3-8b-DPO", "Hermes 2 Pro Llama 3 8b DPO"),
            ("janai-hq", "Janai Hq"),
            ("llama2.c_x", "Llama2.C_X"),
            ("v1olet  v2.0.1-éa", "V1Olet v2.0.1 Éa"),
            ("--", ""),
        ] {
            assert_eq!(title(id), expected);
        }
    }

    #[test]
    fn sizes_have_two_digits() {
        for (weights, expected) in [
            (0, "0.00K"),
            (499, "0.50K"),
            (8_500, "8.5K"),
            (9_500, "10K"),
            (260_032, "260K"),
            (1_000_000, "1000K"),
            (1_000_001, "1.0M"),
            (15_191_712, "15M"),
            (124_439_808, "124M"),
            (8_030_261_248, "8.0B"),
            (1_000_000_000_000, "1000B"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(size_label(weights), expected, "{weights}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_taken_apart(id in "(\\PC|[-/.0-9a-zA-Z_ kmbtx]){0,40}", parameters: u64) {
            let _ = (Id::of(&id, parameters), title(&id), size_label(parameters));
        }

        #[test]
        fn any_size_is_spelled(
            id in "m-(a|[0-9]x)?[0-9]{1,400}([._][0-9]{1,2})?[kmbtKMBT][0-9]?",
            parameters: u64,
        ) {
            let _ = Id::of(&id, parameters);
        }
    }
}
