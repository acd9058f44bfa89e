//! Schemes as TOML: reads the built-in list and the user's recipes, and prints schemes as recipes.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use formats::block::DType;
use regex::{Regex, RegexBuilder};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use super::Choice;
use super::role::Role;
use super::rule::{Condition, Layers, Rule};
use crate::disk::{RunFiles, instead};
use crate::error::{Error, Result};
use crate::kind::Wanted;
use crate::scheme::{self, Scheme};
use crate::text::{bytes, cut, visible};
use crate::text_file;

/// The file of built-in schemes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    part: Vec<Part>,
    scheme: Vec<Raw>,
}

/// A named group of rules that several schemes share.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    name: String,
    rules: Vec<Entry>,
}

/// A scheme or recipe as written in TOML.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(deserialize_with = "packed")]
    base: DType,
    file_type: Option<u32>,
    #[serde(default)]
    rules: Vec<Entry>,
}

/// A rule, or the name of a scheme or part whose rules are inserted here.
enum Entry {
    Rule(Rule),
    Named(String),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Entry;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a rule in braces or the name of a scheme")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> std::result::Result<Entry, E> {
                Ok(Entry::Named(name.to_string()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Entry, A::Error> {
                RawRule::deserialize(MapAccessDeserializer::new(map)).map(|r| {
                    Entry::Rule(Rule {
                        roles: r.tensor,
                        name: r.name,
                        layers: r.layers,
                        count_tensors: r.count == Count::Tensors,
                        when: r.when,
                        to: r.to,
                    })
                })
            }
        }
        d.deserialize_any(Either)
    }
}

/// A rule as written in TOML.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    #[serde(default, deserialize_with = "roles")]
    tensor: Vec<Role>,
    #[serde(default, deserialize_with = "pattern")]
    name: Option<Regex>,
    #[serde(default, deserialize_with = "layers")]
    layers: Option<Layers>,
    #[serde(default)]
    count: Count,
    #[serde(default, deserialize_with = "conditions")]
    when: Vec<Condition>,
    #[serde(rename = "type", deserialize_with = "choice")]
    to: Choice,
}

/// What `layers` counts.
#[derive(serde::Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Count {
    #[default]
    Layers,
    Tensors,
}

/// One string or a list of strings.
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Texts;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Texts, E> {
                Ok(Texts(vec![text.to_string()]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Texts, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = seq.next_element()? {
                    all.push(text);
                }
                Ok(Texts(all))
            }
        }
        d.deserialize_any(OneOrMore)
    }
}

fn roles<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<Role>, D::Error> {
    let Texts(names) = Texts::deserialize(d)?;
    names.iter().map(|n| Role::from_name(n).map_err(de::Error::custom)).collect()
}

fn conditions<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<Condition>, D::Error> {
    let Texts(texts) = Texts::deserialize(d)?;
    texts.iter().map(|t| t.parse().map_err(de::Error::custom)).collect()
}

fn pattern<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<Regex>, D::Error> {
    let text = String::deserialize(d)?;
    Regex::new(&text)
        .map(Some)
        .map_err(|e| de::Error::custom(format!("{text:?} is not a valid regular expression: {e}")))
}

fn layers<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<Layers>, D::Error> {
    String::deserialize(d)?.parse().map(Some).map_err(de::Error::custom)
}

fn choice<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Choice, D::Error> {
    scheme::choice(&String::deserialize(d)?).map_err(de::Error::custom)
}

fn packed<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<DType, D::Error> {
    match choice(d)? {
        Choice::To(dtype) => Ok(dtype),
        Choice::Keep => Err(de::Error::custom("the base must be a type; only rules can have `keep`")),
        Choice::I2S => Err(de::Error::custom(
            "i2_s cannot be the base, because it is only for ternary matrices; use it in rules, with base f16",
        )),
    }
}

/// Replaces the names of schemes and parts by their rules. Since the first rule that matches applies, the rules of a scheme
/// that was named before would match nothing: they are left out, so that a recipe of names alone stays small.
fn resolve<'a>(
    entries: Vec<Entry>,
    named: impl Fn(&str) -> Option<&'a [Rule]>,
) -> std::result::Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    let mut inserted = HashSet::new();
    for entry in entries {
        match entry {
            Entry::Rule(rule) => rules.push(rule),
            Entry::Named(name) => {
                let found = named(&name).ok_or_else(|| format!("unknown scheme {name:?} among the rules"))?;
                // By the place of its rules: a scheme has aliases.
                if inserted.insert(found.as_ptr()) {
                    rules.extend_from_slice(found);
                }
            }
        }
    }
    Ok(rules)
}

/// Parses the built-in list of schemes.
///
/// # Errors
/// A message that says what is wrong with the list.
pub(super) fn built_in(text: &str) -> std::result::Result<Vec<Arc<Scheme>>, String> {
    let list: List = toml::from_str(text).map_err(|e| e.to_string())?;
    let mut parts = Vec::new();
    for part in list.part {
        parts.push((part.name, resolve(part.rules, |_| None)?));
    }
    let named = |name: &str| parts.iter().find(|p| p.0 == name).map(|p| &p.1[..]);
    let scheme = |raw: Raw| {
        let name = raw.name.ok_or("a scheme has no name")?;
        let rules = resolve(raw.rules, named).map_err(|e| format!("{name}: {e}"))?;
        Ok(Arc::new(Scheme { name, aliases: raw.aliases, base: raw.base, file_type: raw.file_type, rules }))
    };
    list.scheme.into_iter().map(scheme).collect()
}

/// The memory that a recipe's regular expressions may take together when they are compiled, and one of them, in bytes. A
/// few characters can stand for megabytes.
const PATTERNS: usize = 32 << 20;
const PATTERN: usize = 1 << 20;

/// Refuses a recipe whose regular expressions take too much memory: each may have its share of what all may take.
fn refuse_large_patterns(text: &str) -> std::result::Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Names {
        #[serde(default)]
        rules: Vec<Named>,
    }
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Named {
        Rule { name: String },
        Other(de::IgnoredAny),
    }
    // What else is wrong with the text is said where it is read.
    let Ok(Names { rules }) = toml::from_str(text) else { return Ok(()) };
    let names = rules.iter().filter_map(|rule| match rule {
        Named::Rule { name } => Some(name),
        Named::Other(_) => None,
    });
    let limit = PATTERN.min(PATTERNS / names.clone().count().max(1));
    for name in names {
        if let Err(regex::Error::CompiledTooBig(_)) = RegexBuilder::new(name).size_limit(limit).build() {
            let shown = visible(&cut(name, 60));
            return Err(format!(
                "the regular expression {shown:?} takes more than {} of memory, its share of what those of a recipe may take",
                bytes(limit as u64)
            ));
        }
    }
    Ok(())
}

/// Parses a recipe. `name` is its name if it does not give one.
///
/// # Errors
/// A message that says what is wrong, with the line number.
pub fn parse(text: &str, name: &str) -> std::result::Result<Scheme, String> {
    refuse_large_patterns(text)?;
    let raw: Raw = toml::from_str(text).map_err(|e| describe(text, &e))?;
    if !raw.aliases.is_empty() {
        return Err("a recipe cannot have aliases".into());
    }
    let names: Vec<_> = scheme::all().iter().map(|s| s.name.as_str()).collect();
    let rules = resolve(raw.rules, |name| scheme::by_name(name).map(|s| &s.rules[..]))
        .map_err(|e| format!("{e}; the schemes are {}", names.join(", ")))?;
    let name = raw.name.unwrap_or_else(|| name.to_string());
    Ok(Scheme { name, aliases: Vec::new(), base: raw.base, file_type: raw.file_type, rules })
}

/// A parse error with its line number, as one line of text.
fn describe(text: &str, e: &toml::de::Error) -> String {
    let Some(span) = e.span() else { return e.message().to_string() };
    let start = text.get(..span.start).unwrap_or(text);
    let line = start.matches('\n').count() + 1;
    let message: Vec<_> = e.message().lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    format!("line {line}: {}", message.join(" "))
}

/// The largest accepted recipe in bytes, far more than anybody writes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a recipe from a file. Its name is the file's unless it gives one.
///
/// # Errors
/// Those of [`RunFiles::read`] and [`text_file::strict`]; [`Error::Refused`] if the recipe is not valid.
pub fn read(run: &RunFiles, path: &Path) -> Result<Scheme> {
    let read = || {
        let text = text_file::strict(&path.display().to_string(), run.read(path, MAX_BYTES)?)?.text;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        parse(&text, &stem)
            .map_err(|why| Error::refused(format!("{}: {why}", path.display())).or(Wanted::RECIPE.hint))
    };
    read().map_err(|e| instead(path, Wanted::RECIPE, e))
}

/// Prints a scheme as a recipe, which [`parse`] turns back into the same scheme.
pub fn print(scheme: &Scheme) -> String {
    let mut text = format!("name = {}\nbase = \"{}\"\n", quoted(&scheme.name), scheme.base.name());
    if let Some(file_type) = scheme.file_type {
        let _ = writeln!(text, "file_type = {file_type}");
    }
    text += "# The first rule that matches a tensor applies; tensors that no rule matches get the base.\nrules = [\n";
    for rule in &scheme.rules {
        let mut keys = Vec::new();
        match &rule.roles[..] {
            [] => {}
            [role] => keys.push(format!("tensor = \"{}\"", role.name())),
            roles => {
                let names: Vec<_> = roles.iter().map(|r| format!("\"{}\"", r.name())).collect();
                keys.push(format!("tensor = [{}]", names.join(", ")));
            }
        }
        keys.extend(rule.name.as_ref().map(|n| format!("name = {}", quoted(n.as_str()))));
        keys.extend(rule.layers.map(|l| format!("layers = \"{l}\"")));
        keys.extend(rule.count_tensors.then(|| "count = \"tensors\"".to_string()));
        if !rule.when.is_empty() {
            let all: Vec<_> = rule.when.iter().map(|c| quoted(&c.to_string())).collect();
            keys.push(format!("when = [{}]", all.join(", ")));
        }
        let to = match rule.to {
            Choice::Keep => "keep",
            Choice::To(dtype) => dtype.name(),
            Choice::I2S => scheme::I2_S,
        };
        let _ = writeln!(text, "  {{ {}, type = \"{to}\" }},", keys.join(", "));
    }
    text.replace("{ , ", "{ ") + "]\n"
}

/// A string in TOML, without escapes if possible.
fn quoted(text: &str) -> String {
    let plain = |c: char| !c.is_control() && c != '\'' && c != '\\' && c != '"';
    if text.chars().all(plain) {
        return format!("\"{text}\"");
    }
    if !text.chars().any(|c| c.is_control() || c == '\'') {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_parsed_and_printed() {
        let text = r#"
            base = "q4_k"
            rules = [
              { tensor = ["attn_v", "attn_k"], layers = "first 4", type = "q8_0" },
              { name = 'blk\.0\.', when = "gqa >= 4", type = "keep" },
              { tensor = "ffn_down", layers = "first 1/8", count = "tensors", when = ["not tied", "fits q6_k"], type = "q6_k" },
              "q4_k_s",
            ]
        "#;
        let recipe = parse(text, "mine").unwrap();
        assert_eq!((recipe.name.as_str(), recipe.base, recipe.file_type), ("mine", DType::Q4_K, None));
        assert_eq!(recipe.rules.len(), 3 + scheme::find("q4_k_s").unwrap().rules.len());
        assert_eq!(recipe.rules[1].to, Choice::Keep);
        assert_eq!(recipe.rules[2].to_string(), "ffn_down, tensors first 1/8, not tied, fits q6_k");
        let again = parse(&print(&recipe), "other").unwrap();
        assert_eq!(print(&again), print(&recipe));
    }

    #[test]
    fn every_scheme_is_a_recipe() {
        for scheme in scheme::all() {
            let text = print(scheme);
            let again = parse(&text, "").unwrap_or_else(|e| panic!("{}: {e}\n{text}", scheme.name));
            assert_eq!(print(&again), text);
            assert_eq!(
                (&again.name, again.base, again.file_type),
                (&scheme.name, scheme.base, scheme.file_type)
            );
            assert_eq!(format!("{:?}", again.rules), format!("{:?}", scheme.rules));
        }
    }

    /// A scheme without rules, whose empty list has no place of its own, hides no other.
    #[test]
    fn a_scheme_named_again_adds_nothing() {
        let rules =
            |names: &str| parse(&format!("base = \"q4_k\"\nrules = [{names}]\n"), "").unwrap().rules.len();
        let (large, small) = (rules("\"q4_k_m\""), rules("\"q2_k\""));
        assert!(large > 0 && small > 0);
        assert_eq!(rules(&"\"q4_k_m\", ".repeat(100_000)), large);
        assert_eq!(rules("\"q4_k_m\", \"Q4_K_M\", \"q2_k\", \"q4_k_m\", \"q2_k\""), large + small);
        assert_eq!(rules("\"q8_0\", \"f16\", \"q2_k\""), rules("\"q8_0\"") + rules("\"f16\"") + small);
    }

    #[test]
    fn regular_expressions_share_their_memory() {
        let recipe = |count: usize, pattern: &str| {
            let rule = format!("{{ name = '{pattern}', type = \"q8_0\" }},");
            parse(&format!("base = \"q4_k\"\nrules = [{} \"q4_k_s\"]\n", rule.repeat(count)), "")
        };
        assert!(recipe(1, r"\w{20}x").is_ok());
        assert_eq!(
            recipe(500, r"blk\.[0-9]+\.ffn_(up|down)").unwrap().rules.len() - 500,
            recipe(0, "").unwrap().rules.len()
        );
        for (count, pattern) in [(5000, r"\w{20}x"), (1, r"\w{500}"), (1000, r"(\pL{9}|x){9}")] {
            let why = recipe(count, pattern).unwrap_err();
            assert!(why.contains("of memory, its share"), "{count} of {pattern}: {why}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        for (text, says) in [
            (
                "base = \"q4_k\"\nrules = [\n  { tensor = \"ffn\", type = \"q4_k\" },\n]\n",
                "line 3: unknown kind of tensor \"ffn\"",
            ),
            ("base = \"q9\"\n", "line 1: unknown type \"q9\""),
            ("base = \"i8\"\n", "line 1: unknown type \"i8\""),
            ("base = \"keep\"\n", "line 1: the base must be a type"),
            ("base = \"i2_s\"\n", "line 1: i2_s cannot be the base"),
            ("rules = []\n", "missing field `base`"),
            ("base = \"q4_k\"\nrule = []\n", "line 2: unknown field `rule`"),
            (
                "base = \"q4_k\"\nrules = [\n {\n type = \"q4_k\", layer = \"more\" } ]\n",
                "line 4: unknown field `layer`",
            ),
            (
                "base = \"q4_k\"\n\nrules = [ { name = \"(\", type = \"q4_k\" } ]\n",
                "line 3: \"(\" is not a valid regular expression",
            ),
            (
                "base = \"q4_k\"\nrules = [ { layers = \"most\", type = \"q4_k\" } ]\n",
                "line 2: unknown layers \"most\"",
            ),
            (
                "base = \"q4_k\"\nrules = [ { when = [\"gqa 4\"], type = \"q4_k\" } ]\n",
                "line 2: unknown condition \"gqa 4\"",
            ),
            ("base = \"q4_k\"\nrules = [ { tensor = \"output\" } ]\n", "line 2: missing field `type`"),
            (
                "base = \"q4_k\"\nrules = [ 7 ]\n",
                "line 2: invalid type: integer `7`, expected a rule in braces",
            ),
            ("base = \"q4_k\"\nrules = [ \"q5\" ]\n", "unknown scheme \"q5\""),
            ("base = \"q4_k\nrules = []\n", "line 1: "),
            ("base = \"q4_k\"\nbase = \"q5_k\"\n", "line 2: "),
        ] {
            let why = parse(text, "").unwrap_err();
            assert!(why.contains(says) && !why.contains('\n'), "{text}{why}");
        }
    }

    #[test]
    fn any_text_can_be_quoted() {
        for text in ["plain", r"a\.b", "it's", "\"both\" 'kinds' \\", "tab\tnew\nline\u{7f}", "ünï"] {
            let file = format!("x = {}", quoted(text));
            let table: std::collections::HashMap<String, String> = toml::from_str(&file).unwrap();
            assert_eq!(table["x"], text);
        }
    }
}
