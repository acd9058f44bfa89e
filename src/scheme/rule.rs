//! The rules of schemes and recipes: a rule matches tensors by their role and position and gives them a type.
//! docs/schemes.md describes the language for users.

use std::fmt;
use std::str::FromStr;

use formats::block::DType;
use regex::Regex;

use super::Choice;
use super::role::Role;

/// A rule. It matches a tensor if all of its conditions hold.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The roles that it matches; empty for any role.
    pub roles: Vec<Role>,
    /// A regular expression that must match a part of the tensor's name.
    pub name: Option<Regex>,
    /// The layers that it matches.
    pub layers: Option<Layers>,
    /// Whether `layers` counts the tensors of the role instead of layers.
    pub count_tensors: bool,
    /// Conditions, all of which must hold.
    pub when: Vec<Condition>,
    /// The type that matching tensors get.
    pub to: Choice,
}

/// The facts about one tensor that a rule looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its role.
    pub role: Role,
    /// The number of its layer, from 0, and the number of layers.
    pub layer: Option<(u64, u64)>,
    /// Its number among the tensors of its role, from 0, and the total for such numbers.
    pub nth: Option<(u64, u64)>,
    /// The length of a row, in weights.
    pub cols: u64,
    /// Whether it is a stack of matrices, as those of experts are.
    pub stacked: bool,
    /// The facts about its model.
    pub facts: &'a Facts,
}

/// The facts about a model that conditions look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// GGUF's name of the architecture; empty if unknown.
    pub arch: String,
    /// The number of layers.
    pub layers: u64,
    /// Query heads per key/value head in the first layer; 0 if it has no key/value heads.
    pub gqa: u64,
    /// The number of experts per layer; 0 in dense models.
    pub experts: u64,
    /// Whether embeddings are tied: the token embedding is also the output matrix.
    pub tied: bool,
    /// Whether an importance matrix is used.
    pub importance: bool,
}

impl Facts {
    /// Whether llama.cpp's rules treat the model like Llama 2 70B.
    fn is_70b(&self) -> bool {
        crate::arch::llama_cpp::is_70b(&self.arch, self.layers, self.gqa)
    }
}

impl Rule {
    /// Whether it matches the tensor.
    pub fn matches(&self, s: &Subject) -> bool {
        let position = if self.count_tensors { s.nth } else { s.layer };
        (self.roles.is_empty() || self.roles.iter().any(|r| r.includes(s.role)))
            && self.name.as_ref().is_none_or(|n| n.is_match(s.name))
            && self.layers.is_none_or(|l| position.is_some_and(|(i, n)| l.holds(i, n)))
            && self.when.iter().all(|c| c.holds(s))
    }
}

/// The most characters that are shown of a pattern: one for a size budget may list thousands of layers, and a plan
/// shows the rule of every tensor.
const MOST_SHOWN: usize = 100;

/// The rule as text without its type: "ffn_down, layers first 1/8, gqa >= 4". Long patterns are cut.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.roles.is_empty() {
            parts.push(self.roles.iter().map(|r| r.name()).collect::<Vec<_>>().join(" or "));
        }
        parts.extend(self.name.as_ref().map(|n| match n.as_str() {
            long if long.len() > MOST_SHOWN => {
                format!("name {}…", long.chars().take(MOST_SHOWN).collect::<String>())
            }
            name => format!("name {name}"),
        }));
        let what = if self.count_tensors { "tensors" } else { "layers" };
        parts.extend(self.layers.map(|l| format!("{what} {l}")));
        parts.extend(self.when.iter().map(Condition::to_string));
        if parts.is_empty() {
            parts.push("all others".into());
        }
        f.write_str(&parts.join(", "))
    }
}

/// A set of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// The first eighth, the last eighth and every third layer in between: llama.cpp's `use_more_bits`.
    More,
    /// From the first bound up to but not including the second.
    Range(Bound, Bound),
    /// This many at the start.
    First(Bound),
    /// This many at the end.
    Last(Bound),
}

/// A number of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// This many.
    Count(u64),
    /// A fraction of all layers, rounded down: numerator and denominator.
    Part(u64, u64),
}

impl Bound {
    fn of(self, n: u64) -> u64 {
        match self {
            Self::Count(k) => k,
            Self::Part(p, q) => p.saturating_mul(n) / q,
        }
    }
}

impl Layers {
    /// Whether layer `i` of `n` is one of them.
    pub fn holds(self, i: u64, n: u64) -> bool {
        match self {
            Self::More => i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2,
            Self::Range(from, to) => (from.of(n)..to.of(n)).contains(&i),
            Self::First(k) => i < k.of(n),
            Self::Last(k) => i >= n.saturating_sub(k.of(n)),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Count(k) => write!(f, "{k}"),
            Self::Part(p, q) => write!(f, "{p}/{q}"),
        }
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::More => f.write_str("more"),
            Self::Range(from, to) => write!(f, "{from}..{to}"),
            Self::First(k) => write!(f, "first {k}"),
            Self::Last(k) => write!(f, "last {k}"),
        }
    }
}

/// The largest number of layers in a bound: more than any model has, and small enough to rule out overflow.
const MAX_LAYERS: u64 = 1 << 32;

impl FromStr for Bound {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |t: &str| t.trim().parse::<u64>().ok().filter(|&n| n <= MAX_LAYERS);
        let bound = match text.split_once('/') {
            None => number(text).map(Self::Count),
            Some((p, q)) => {
                number(p).zip(number(q)).filter(|&(p, q)| q > 0 && p <= q).map(|(p, q)| Self::Part(p, q))
            }
        };
        bound.ok_or_else(|| format!("{text:?} is not a number of layers or a fraction such as 1/8"))
    }
}

impl FromStr for Layers {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "more" {
            Ok(Self::More)
        } else if let Some(k) = text.strip_prefix("first ") {
            k.parse().map(Self::First)
        } else if let Some(k) = text.strip_prefix("last ") {
            k.parse().map(Self::Last)
        } else if let Some((from, to)) = text.split_once("..") {
            Ok(Self::Range(from.parse()?, to.parse()?))
        } else {
            Err(format!(
                "unknown layers {text:?}; examples are more, first 4, first 1/8, last 2, 1/8..7/8 and 3..5"
            ))
        }
    }
}

/// A condition on a model or tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// A comparison of a quantity of the model with a number.
    Number(Quantity, Compare, u64),
    /// The architecture is this one (or with `false`, is not).
    Arch(bool, String),
    /// The model or tensor has a property (or with `false`, does not).
    Flag(bool, Flag),
    /// A type's block divides the rows (or with `false`, does not).
    Fits(bool, DType),
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $member:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $member),* }

        impl $name {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$member, $text)),*];

            fn word(self) -> &'static str {
                Self::ALL[self as usize].1
            }

            fn from_word(text: &str) -> Option<Self> {
                Self::ALL.iter().find(|(_, word)| *word == text).map(|(value, _)| *value)
            }
        }
    };
}

words! {
    /// A quantity of a model.
    Quantity {
        /// Query heads per key/value head.
        Gqa = "gqa",
        /// Experts per layer.
        Experts = "experts",
        /// Number of layers.
        Layers = "layers",
    }
}

words! {
    /// A comparison operator.
    Compare {
        /// Equal.
        Equal = "==",
        /// Not equal.
        Other = "!=",
        /// At least.
        AtLeast = ">=",
        /// At most.
        AtMost = "<=",
        /// Less.
        Less = "<",
        /// More.
        More = ">",
    }
}

words! {
    /// A property of a model or a tensor.
    Flag {
        /// An importance matrix is used.
        Importance = "importance",
        /// Embeddings are tied.
        Tied = "tied",
        /// The tensor is a stack of matrices.
        Stacked = "stacked",
        /// llama.cpp's rules treat the model like Llama 2 70B.
        Is70b = "70b",
    }
}

impl Condition {
    fn holds(&self, s: &Subject) -> bool {
        match self {
            Self::Number(quantity, compare, number) => {
                let value = match quantity {
                    Quantity::Gqa => s.facts.gqa,
                    Quantity::Experts => s.facts.experts,
                    Quantity::Layers => s.facts.layers,
                };
                match compare {
                    Compare::Equal => value == *number,
                    Compare::Other => value != *number,
                    Compare::AtLeast => value >= *number,
                    Compare::AtMost => value <= *number,
                    Compare::Less => value < *number,
                    Compare::More => value > *number,
                }
            }
            Self::Arch(is, name) => (s.facts.arch == *name) == *is,
            Self::Flag(is, flag) => {
                let value = match flag {
                    Flag::Importance => s.facts.importance,
                    Flag::Tied => s.facts.tied,
                    Flag::Stacked => s.stacked,
                    Flag::Is70b => s.facts.is_70b(),
                };
                value == *is
            }
            Self::Fits(is, dtype) => s.cols.is_multiple_of(dtype.info().weights as u64) == *is,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let not = |is: &bool| if *is { "" } else { "not " };
        match self {
            Self::Number(q, c, n) => write!(f, "{} {} {n}", q.word(), c.word()),
            Self::Arch(is, name) => write!(f, "arch {} {name}", if *is { "==" } else { "!=" }),
            Self::Flag(is, flag) => write!(f, "{}{}", not(is), flag.word()),
            Self::Fits(is, dtype) => write!(f, "{}fits {}", not(is), dtype.name()),
        }
    }
}

impl FromStr for Condition {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (is, rest) = match &words[..] {
            ["not", rest @ ..] => (false, rest),
            rest => (true, rest),
        };
        let unknown = || {
            format!(
                "unknown condition {text:?}; the conditions are gqa, experts and layers (with == != >= <= < or > and a \
                 number), arch (with == or != and a name), and importance, tied, stacked, 70b and fits TYPE (each also with \
                 \"not\" before it)"
            )
        };
        match (rest, is) {
            (["arch", compare @ ("==" | "!="), name], true) => {
                Ok(Self::Arch(*compare == "==", (*name).to_string()))
            }
            ([quantity, compare, number], true) => {
                let (q, c) =
                    Quantity::from_word(quantity).zip(Compare::from_word(compare)).ok_or_else(unknown)?;
                let n = number.parse().map_err(|_| format!("{number:?} in {text:?} is not a number"))?;
                Ok(Self::Number(q, c, n))
            }
            (["fits", name], is) => {
                let dtype =
                    DType::from_name(name).ok_or_else(|| format!("unknown type {name:?} in {text:?}"))?;
                Ok(Self::Fits(is, dtype))
            }
            ([flag], is) => Flag::from_word(flag).map(|f| Self::Flag(is, f)).ok_or_else(unknown),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_as_in_llama_cpp() {
        let chosen = |text: &str, n: u64| -> Vec<u64> {
            let layers: Layers = text.parse().unwrap();
            assert_eq!(layers.to_string(), text);
            (0..n).filter(|&i| layers.holds(i, n)).collect()
        };
        // Published Q4_K_M files of Llama 2 7B have attn_v in q6_k here.
        assert_eq!(chosen("more", 32), [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
        assert_eq!(chosen("more", 5), [2, 4]);
        assert_eq!(chosen("first 1/8", 32), [0, 1, 2, 3]);
        assert_eq!(chosen("first 1/16", 36), [0, 1]);
        assert_eq!(chosen("first 4", 3), [0, 1, 2]);
        assert_eq!(chosen("last 2", 5), [3, 4]);
        assert_eq!(chosen("last 9", 3), [0, 1, 2]);
        assert_eq!(chosen("1/8..7/8", 10), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(chosen("3..5", 9), [3, 4]);
        assert_eq!(chosen("5..3", 9), [] as [u64; 0]);
        for wrong in [
            "",
            "most",
            "first",
            "first x",
            "first 1/0",
            "first 9/8",
            "3",
            "..",
            "-1..2",
            "first 99999999999",
        ] {
            assert!(wrong.parse::<Layers>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn conditions_are_evaluated_and_printed() {
        let facts =
            Facts { arch: "llama".into(), layers: 80, gqa: 8, experts: 0, tied: false, importance: true };
        let subject = Subject {
            name: "blk.1.ffn_down.weight",
            role: Role::FfnDown,
            layer: Some((1, 80)),
            nth: Some((1, 80)),
            cols: 896,
            stacked: false,
            facts: &facts,
        };
        for (text, holds) in [
            ("gqa >= 4", true),
            ("gqa < 8", false),
            ("gqa <= 8", true),
            ("gqa > 7", true),
            ("experts == 8", false),
            ("experts != 8", true),
            ("layers == 80", true),
            ("arch == llama", true),
            ("arch != falcon", true),
            ("importance", true),
            ("not importance", false),
            ("tied", false),
            ("not stacked", true),
            ("70b", true),
            ("fits q4_k", false),
            ("fits q4_0", true),
            ("not fits q6_k", true),
        ] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.holds(&subject), holds, "{text}");
            assert_eq!(condition.to_string(), text);
        }
        for wrong in [
            "",
            "gqa",
            "gqa 4",
            "gqa = 4",
            "gqa >= many",
            "not gqa >= 4",
            "fits",
            "fits q9",
            "arch < b",
            "not",
        ] {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_condition_of_a_rule_must_hold() {
        let facts = Facts { gqa: 1, ..Facts::default() };
        let of = |name, role, layer| Subject {
            name,
            role,
            layer,
            nth: Some((0, 9)),
            cols: 256,
            stacked: false,
            facts: &facts,
        };
        let mut rule = Rule {
            roles: vec![Role::AttnV, Role::FfnDown],
            name: Some(Regex::new("blk").unwrap()),
            layers: Some(Layers::First(Bound::Count(2))),
            count_tensors: false,
            when: vec!["gqa == 1".parse().unwrap()],
            to: Choice::Keep,
        };
        assert_eq!(rule.to_string(), "attn_v or ffn_down, name blk, layers first 2, gqa == 1");
        let long = Rule { name: Some(Regex::new(&"ö".repeat(400)).unwrap()), ..rule.clone() };
        assert!(
            long.to_string().chars().count() < 200 && long.to_string().contains("ö…, layers first 2"),
            "{long}"
        );
        assert!(rule.matches(&of("blk.1.attn_v.weight", Role::AttnV, Some((1, 9)))));
        assert!(
            rule.matches(&of("blk.1.attn_qkv.weight", Role::AttnQkv, Some((1, 9)))),
            "fused tensors contain values"
        );
        assert!(!rule.matches(&of("blk.1.attn_q.weight", Role::AttnQ, Some((1, 9)))));
        assert!(!rule.matches(&of("blk.2.attn_v.weight", Role::AttnV, Some((2, 9)))));
        assert!(!rule.matches(&of("attn_v.weight", Role::AttnV, Some((1, 9)))));
        assert!(!rule.matches(&of("blk.attn_v.weight", Role::AttnV, None)));
        rule.count_tensors = true;
        assert!(rule.matches(&of("blk.2.attn_v.weight", Role::AttnV, Some((2, 9)))));
        rule.when.push("experts > 1".parse().unwrap());
        assert!(!rule.matches(&of("blk.1.attn_v.weight", Role::AttnV, Some((1, 9)))));
    }
}
