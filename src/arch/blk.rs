//! The names of GGUF's tensors that belong to a layer: `blk.N.part`.

use std::fmt;

/// The name of a layer's tensor, taken apart: `blk.3.attn_q.weight` is layer 3, part `attn_q.weight`.
///
/// Source: the table of tensor names in ggml's `docs/gguf.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blk<'a> {
    /// The layer, counted from 0.
    pub layer: u64,
    /// What follows the layer's number: `attn_q.weight`, `attn_q.bias`, `ffn_norm.weight`. Never empty.
    pub part: &'a str,
}

impl<'a> Blk<'a> {
    /// Takes a tensor's name apart. `None` for tensors outside of layers, and for names with a prefix
    /// (`enc.blk.0.…`). The number is decimal without leading zeros, so that [`Blk::to_string`] gives the name back.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (number, part) = name.strip_prefix("blk.")?.split_once('.')?;
        let canonical = number == "0" || number.starts_with(|c: char| ('1'..='9').contains(&c));
        if part.is_empty() || !canonical {
            return None;
        }
        Some(Self { layer: number.parse().ok()?, part })
    }

    /// The part without its ending `.weight`: `attn_q` of `blk.3.attn_q.weight`. `None` for biases and scales.
    pub fn weight(&self) -> Option<&'a str> {
        self.part.strip_suffix(".weight")
    }
}

/// The tensor's name.
impl fmt::Display for Blk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "blk.{}.{}", self.layer, self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_and_put_together() {
        for (name, layer, part, weight) in [
            ("blk.0.attn_q.weight", 0, "attn_q.weight", Some("attn_q")),
            ("blk.11.attn_q.bias", 11, "attn_q.bias", None),
            ("blk.61.nextn.embed_tokens.weight", 61, "nextn.embed_tokens.weight", Some("nextn.embed_tokens")),
            ("blk.3.ssm_a", 3, "ssm_a", None),
            ("blk.18446744073709551615.x", u64::MAX, "x", None),
        ] {
            let blk = Blk::parse(name).unwrap();
            assert_eq!(blk, Blk { layer, part });
            assert_eq!(blk.weight(), weight);
            assert_eq!(blk.to_string(), name);
        }
    }

    #[test]
    fn other_names_are_none() {
        for name in [
            "output.weight",
            "enc.blk.4.attn_q.weight",
            "blk.attn_q.weight",
            "blk.1",
            "blk.1.",
            "blk..attn_q.weight",
            "blk.01.attn_q.weight",
            "blk.+1.attn_q.weight",
            "blk.-1.attn_q.weight",
            "blk.18446744073709551616.x",
            "blks.1.x",
            "",
        ] {
            assert_eq!(Blk::parse(name), None, "{name}");
        }
    }
}
