//! The language of schemes and recipes: a rule claims tensors by what they are and where they stand, and names a type.
//! docs/schemes.md describes it for users.

use std::fmt;
use std::str::FromStr;

use formats::block::DType;
use regex::Regex;

use super::Choice;
use super::role::Role;

/// A rule: every condition that it has must hold.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Roles, one of which the tensor must have; any if there are none.
    pub roles: Vec<Role>,
    /// A pattern that its name must match somewhere.
    pub name: Option<Regex>,
    /// Where it must stand among the layers.
    pub layers: Option<Layers>,
    /// Whether positions count the tensors of the role instead of layers.
    pub count_tensors: bool,
    /// What must be true of the model, all of it.
    pub when: Vec<Condition>,
    /// The type that it gives.
    pub to: Choice,
}

/// What a rule looks at, of one tensor.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub role: Role,
    /// Its place and the number of places, from 0: layers.
    pub layer: Option<(u64, u64)>,
    /// The same where tensors of its role are counted.
    pub nth: Option<(u64, u64)>,
    /// Length of a row.
    pub cols: u64,
    /// Whether it is several matrices in one, as experts are.
    pub stacked: bool,
    /// The model that it belongs to.
    pub facts: &'a Facts,
}

/// What conditions ask of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// GGUF's name of the architecture; empty if not known.
    pub arch: String,
    /// Number of layers.
    pub layers: u64,
    /// Query heads for each key/value head, in the first layer; 0 where it has none.
    pub gqa: u64,
    /// Experts of a layer; 0 in dense models.
    pub experts: u64,
    /// Whether the embedding serves as output.
    pub tied: bool,
    /// Whether the importance of weights is known.
    pub importance: bool,
}

impl Facts {
    /// What llama.cpp takes for a model of the kind of Llama 2 70B.
    fn is_70b(&self) -> bool {
        crate::arch::llama_cpp::is_70b(&self.arch, self.layers, self.gqa)
    }
}

impl Rule {
    /// Whether it claims the tensor.
    pub fn claims(&self, s: &Subject) -> bool {
        let place = if self.count_tensors { s.nth } else { s.layer };
        (self.roles.is_empty() || self.roles.iter().any(|r| r.includes(s.role)))
            && self.name.as_ref().is_none_or(|n| n.is_match(s.name))
            && self.layers.is_none_or(|l| place.is_some_and(|(i, n)| l.holds(i, n)))
            && self.when.iter().all(|c| c.holds(s))
    }
}

/// In words, without the type that it gives: "ffn_down, layers first 1/8, gqa >= 4".
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.roles.is_empty() {
            parts.push(self.roles.iter().map(|r| r.name()).collect::<Vec<_>>().join(" or "));
        }
        parts.extend(self.name.as_ref().map(|n| format!("name {n}")));
        let what = if self.count_tensors { "tensors" } else { "layers" };
        parts.extend(self.layers.map(|l| format!("{what} {l}")));
        parts.extend(self.when.iter().map(Condition::to_string));
        if parts.is_empty() {
            parts.push("all others".into());
        }
        f.write_str(&parts.join(", "))
    }
}

/// A choice of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// The first eighth, the last eighth and every third between them: llama.cpp's "use more bits".
    More,
    /// From the first bound up to, not including, the second.
    Range(Bound, Bound),
    /// So many at the start.
    First(Bound),
    /// So many at the end.
    Last(Bound),
}

/// A number of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// This many.
    Count(u64),
    /// This part of all, rounded down: numerator and denominator.
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

/// More layers than any model has: bounds stay far from overflow.
const MOST: u64 = 1 << 32;

impl FromStr for Bound {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |t: &str| t.trim().parse::<u64>().ok().filter(|&n| n <= MOST);
        let bound = match text.split_once('/') {
            None => number(text).map(Self::Count),
            Some((p, q)) => {
                number(p).zip(number(q)).filter(|&(p, q)| q > 0 && p <= q).map(|(p, q)| Self::Part(p, q))
            }
        };
        bound.ok_or_else(|| format!("{text:?} is neither a number of layers nor a part of them such as 1/8"))
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
            Err(format!("{text:?} names no layers; say more, first 4, first 1/8, last 2, 1/8..7/8 or 3..5"))
        }
    }
}

/// Something that must be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// A number of the model's, compared.
    Number(Quantity, Compare, u64),
    /// The architecture is (or, with `false`, is not) this one.
    Arch(bool, String),
    /// A property that is (or is not) there.
    Flag(bool, Flag),
    /// The row is (or is not) a multiple of a type's block.
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
    /// A number of a model's.
    Quantity {
        /// Query heads for each key/value head.
        Gqa = "gqa",
        /// Experts of a layer.
        Experts = "experts",
        /// Number of layers.
        Layers = "layers",
    }
}

words! {
    /// How numbers are compared.
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
    /// A property of a model, or of a tensor.
    Flag {
        /// The importance of weights is known.
        Importance = "importance",
        /// The embedding serves as output.
        Tied = "tied",
        /// The tensor is several matrices in one.
        Stacked = "stacked",
        /// The model is of the kind of Llama 2 70B.
        Is70b = "70b",
    }
}

impl Condition {
    fn holds(&self, s: &Subject) -> bool {
        match self {
            Self::Number(quantity, compare, wanted) => {
                let value = match quantity {
                    Quantity::Gqa => s.facts.gqa,
                    Quantity::Experts => s.facts.experts,
                    Quantity::Layers => s.facts.layers,
                };
                match compare {
                    Compare::Equal => value == *wanted,
                    Compare::Other => value != *wanted,
                    Compare::AtLeast => value >= *wanted,
                    Compare::AtMost => value <= *wanted,
                    Compare::Less => value < *wanted,
                    Compare::More => value > *wanted,
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
                "{text:?} is no condition; there are gqa, experts and layers (== != >= <= < > a number), arch (== != \
                 a name), and importance, tied, stacked, 70b, fits TYPE, also with \"not\" before them"
            )
        };
        match (rest, is) {
            (["arch", compare @ ("==" | "!="), name], true) => {
                Ok(Self::Arch(*compare == "==", (*name).to_string()))
            }
            ([quantity, compare, number], true) => {
                let (q, c) =
                    Quantity::from_word(quantity).zip(Compare::from_word(compare)).ok_or_else(unknown)?;
                let n = number.parse().map_err(|_| format!("{number:?} in {text:?} is no number"))?;
                Ok(Self::Number(q, c, n))
            }
            (["fits", name], is) => {
                let dtype =
                    DType::from_name(name).ok_or_else(|| format!("{name:?} in {text:?} is no type"))?;
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
    fn layers_are_counted_as_llama_cpp_counts_them() {
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
    fn conditions_hold_for_what_they_say() {
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
        assert!(rule.claims(&of("blk.1.attn_v.weight", Role::AttnV, Some((1, 9)))));
        assert!(rule.claims(&of("blk.1.attn_qkv.weight", Role::AttnQkv, Some((1, 9)))), "they hold values");
        assert!(!rule.claims(&of("blk.1.attn_q.weight", Role::AttnQ, Some((1, 9)))));
        assert!(!rule.claims(&of("blk.2.attn_v.weight", Role::AttnV, Some((2, 9)))));
        assert!(!rule.claims(&of("attn_v.weight", Role::AttnV, Some((1, 9)))));
        assert!(!rule.claims(&of("blk.attn_v.weight", Role::AttnV, None)));
        rule.count_tensors = true;
        assert!(rule.claims(&of("blk.2.attn_v.weight", Role::AttnV, Some((2, 9)))));
        rule.when.push("experts > 1".parse().unwrap());
        assert!(!rule.claims(&of("blk.1.attn_v.weight", Role::AttnV, Some((1, 9)))));
    }
}
