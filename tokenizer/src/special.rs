//! Special tokens, which are looked for in a text before anything else.
//!
//! Of all special tokens in a text the longest is taken first, wherever it is; of equally long ones that with the lower
//! id, and of one token the leftmost. What is left is searched for the next. llama.cpp searches the text once for each
//! token; here one pass finds the longest token that begins at each byte, by an automaton of Aho and Corasick that goes
//! through the text from its end, and a queue gives these in llama.cpp's order. The time does not grow with the number of
//! tokens, nor with their length.
//!
//! Which tokens strip the whitespace beside them is in no file; llama.cpp knows those by their text, by the
//! pre-tokenizer and by the model's name. Source: llama-vocab.cpp.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::tokens::{Attributes, Tokens};
use super::trie::Trie;

/// A part of a text: a special token, or the text between them.
#[derive(Debug, PartialEq)]
pub enum Fragment<'t> {
    Token(u32),
    /// Never empty.
    Text(&'t str),
}

/// The special tokens, in an automaton that finds them.
pub struct Specials {
    /// Longest first, then by id. A token's place is its rank.
    all: Vec<Special>,
    /// The distinct texts, reversed.
    trie: Trie,
    /// Of each text, the ranks of the first of its tokens (the others are never found).
    texts: Vec<Found>,
    /// Of each node, the node of the longest proper suffix of its string that is in the trie.
    fail: Vec<u32>,
    /// Of each node, the nearest node with a token among itself and those that `fail` leads to: of any token, and of one
    /// that is recognised without asking for special tokens.
    nearest: [Vec<u32>; 2],
}

struct Special {
    id: u32,
    len: usize,
    is: Attributes,
}

/// The ranks of the tokens with one text: the first of all, and the first that is user-defined only.
#[derive(Clone, Copy, Default)]
struct Found {
    any: Option<usize>,
    plain: Option<usize>,
}

/// Whether a model's name is one by which llama.cpp knows that special tokens strip the whitespace behind them.
pub fn is_phi3(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["phi-3", "phi3"].iter().any(|part| name.contains(part))
}

/// Whether a special token of such a model keeps the whitespace behind it.
pub fn keeps_spaces(token: &str) -> bool {
    ["<unk>", "<s>", "<|endoftext|>"].contains(&token)
}

/// A node that is not there: the root has no string of its own.
const NOWHERE: u32 = Trie::ROOT;

impl Specials {
    /// Control tokens, the unknown token and user-defined tokens. `name`, `arch` and `pre` are the model's name, its
    /// architecture and its pre-tokenizer in the file: by these llama.cpp knows which tokens strip whitespace.
    pub fn new(tokens: &Tokens, name: &str, arch: &str, pre: &str) -> Self {
        let special = |is: &Attributes| !is.symbol && (is.control || is.user_defined || is.unknown);
        let contains = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let mask = if contains(pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"])
            || contains(arch, &["nomic-bert-moe", "jina-bert-v3"])
        {
            Some("<mask>")
        } else if name.to_ascii_lowercase().contains("modern-bert") {
            Some("[MASK]")
        } else {
            None
        };
        let phi3 = mask.is_none() && is_phi3(name);

        let mut found = Vec::new();
        for ((id, text), is) in tokens.iter().zip(&tokens.attributes).filter(|(_, is)| special(is)) {
            // A token that is not UTF-8 is in no text.
            let Ok(text) = str::from_utf8(text) else { continue };
            let mut is = *is;
            is.lstrip |= mask == Some(text);
            is.rstrip |= phi3 && !keeps_spaces(text);
            found.push((text, Special { id, len: text.len(), is }));
        }
        found.sort_by_key(|(text, _)| Reverse(text.len()));
        let (mut numbers, mut reversed, mut texts) = (HashMap::new(), Vec::new(), Vec::<Found>::new());
        for (rank, (text, special)) in found.iter().enumerate() {
            let number = *numbers.entry(*text).or_insert(texts.len());
            if number == texts.len() {
                texts.push(Found::default());
                reversed.push(text.bytes().rev().collect::<Vec<u8>>());
            }
            let of = &mut texts[number];
            of.any = of.any.or(Some(rank));
            if !special.is.control && !special.is.unknown {
                of.plain = of.plain.or(Some(rank));
            }
        }
        let trie = Trie::new(reversed.iter().map(|text| &text[..]).zip(0..));
        drop(reversed);
        let all = found.into_iter().map(|(_, special)| special).collect();
        let (fail, nearest) = links(&trie, &texts);
        Self { all, trie, texts, fail, nearest }
    }

    /// Splits a text at its special tokens: at the longest of them first, then the rest at the next one. Control tokens
    /// and the unknown token are only recognised with `special`.
    pub fn partition<'t>(&self, text: &'t str, special: bool) -> Vec<Fragment<'t>> {
        let mut queue = self.candidates(text.as_bytes(), special);
        // Bytes that belong to a token that was taken, or to whitespace that it strips, and where these parts begin.
        let mut taken = if queue.is_empty() { Vec::new() } else { vec![false; text.len()] };
        let mut parts: BTreeMap<usize, (usize, u32)> = BTreeMap::new();
        while let Some(Reverse((rank, start, node))) = queue.pop() {
            let Special { id, len, is } = self.all[rank];
            if taken[start] {
                continue;
            }
            let end = start + len;
            // What was taken before is at least as long: if the two overlap, it reaches the first or the last byte.
            if taken[end - 1] {
                // A shorter token may fit before it.
                let limit = parts.range(start..).next().map_or(0, |(next, _)| next - start);
                let shorter = self.shorter(node, limit, special);
                queue.extend(shorter.map(|(rank, node)| Reverse((rank, start, node))));
                continue;
            }
            let free_space = |at: &usize| is_space(char::from(text.as_bytes()[*at])) && !taken[*at];
            let before = if is.lstrip { (0..start).rev().take_while(free_space).count() } else { 0 };
            let behind = if is.rstrip { (end..text.len()).take_while(free_space).count() } else { 0 };
            let (from, to) = (start - before, end + behind);
            taken[from..to].fill(true);
            parts.insert(from, (to, id));
        }
        let mut fragments = Vec::with_capacity(2 * parts.len() + 1);
        let mut at = 0;
        for (from, (to, id)) in parts {
            fragments.extend(Some(&text[at..from]).filter(|t| !t.is_empty()).map(Fragment::Text));
            fragments.push(Fragment::Token(id));
            at = to;
        }
        fragments.extend(Some(&text[at..]).filter(|t| !t.is_empty()).map(Fragment::Text));
        fragments
    }

    /// The tokens by id: whether each is recognised only with `special`, and whether it strips to the left and right.
    pub fn list(&self) -> Vec<(u32, bool, [bool; 2])> {
        let one = |s: &Special| (s.id, s.is.control || s.is.unknown, [s.is.lstrip, s.is.rstrip]);
        let mut list: Vec<_> = self.all.iter().map(one).collect();
        list.sort_by_key(|(id, ..)| *id);
        list
    }

    /// The longest token at each byte of a text: its rank, where it begins and its node, first the lowest rank.
    fn candidates(&self, text: &[u8], special: bool) -> BinaryHeap<Reverse<(usize, usize, u32)>> {
        let mut found = Vec::new();
        let mut node = Trie::ROOT;
        for (at, &byte) in text.iter().enumerate().rev() {
            node = loop {
                match self.trie.child(node, byte) {
                    Some(child) => break child,
                    None if node == Trie::ROOT => break Trie::ROOT,
                    None => node = self.fail[node as usize],
                }
            };
            let nearest = self.nearest[usize::from(!special)][node as usize];
            found.extend(self.token(nearest, special).map(|rank| Reverse((rank, at, nearest))));
        }
        found.into()
    }

    /// The rank of the token that ends at a node.
    fn token(&self, node: u32, special: bool) -> Option<usize> {
        let found = self.texts[self.trie.value(node)? as usize];
        if special { found.any } else { found.plain }
    }

    /// The longest token that begins where that of a node does and has at most `limit` bytes.
    fn shorter(&self, node: u32, limit: usize, special: bool) -> Option<(usize, u32)> {
        let mut node = node;
        loop {
            node = self.nearest[usize::from(!special)][self.fail[node as usize] as usize];
            let rank = self.token(node, special)?;
            if self.all[rank].len <= limit {
                return Some((rank, node));
            }
        }
    }
}

/// The links of an automaton: see [`Specials::fail`] and [`Specials::nearest`].
fn links(trie: &Trie, texts: &[Found]) -> (Vec<u32>, [Vec<u32>; 2]) {
    let mut fail = vec![Trie::ROOT; trie.len()];
    let mut nearest = [vec![NOWHERE; trie.len()], vec![NOWHERE; trie.len()]];
    for (node, parent, byte) in trie.edges() {
        let mut of = parent;
        fail[node as usize] = loop {
            if of == Trie::ROOT {
                break Trie::ROOT;
            }
            of = fail[of as usize];
            if let Some(child) = trie.child(of, byte) {
                break child;
            }
        };
        let found = trie.value(node).map_or(Found::default(), |number| texts[number as usize]);
        for (nearest, own) in nearest.iter_mut().zip([found.any, found.plain]) {
            nearest[node as usize] = match own {
                Some(_) => node,
                None => nearest[fail[node as usize] as usize],
            };
        }
    }
    (fail, nearest)
}

/// C's isspace.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// llama.cpp's way: the whole text is searched for each token.
    fn one_by_one<'t>(tokens: &[(&str, Attributes)], text: &'t str, special: bool) -> Vec<Fragment<'t>> {
        let mut order: Vec<(usize, &(&str, Attributes))> = tokens.iter().enumerate().collect();
        order.sort_by_key(|(_, (text, _))| Reverse(text.len()));
        let mut fragments: Vec<Fragment> =
            Some(text).filter(|t| !t.is_empty()).map(Fragment::Text).into_iter().collect();
        for (id, (token, is)) in order {
            if !special && (is.control || is.unknown) {
                continue;
            }
            for fragment in std::mem::take(&mut fragments) {
                let Fragment::Text(mut rest) = fragment else {
                    fragments.push(fragment);
                    continue;
                };
                while let Some((left, right)) = rest.split_once(*token) {
                    let left = if is.lstrip { left.trim_end_matches(is_space) } else { left };
                    fragments.extend(Some(left).filter(|t| !t.is_empty()).map(Fragment::Text));
                    fragments.push(Fragment::Token(id as u32));
                    rest = if is.rstrip { right.trim_start_matches(is_space) } else { right };
                }
                fragments.extend(Some(rest).filter(|t| !t.is_empty()).map(Fragment::Text));
            }
        }
        fragments
    }

    fn specials(tokens: &[(&str, Attributes)]) -> Specials {
        let texts = tokens.iter().map(|(text, _)| text.as_bytes().into()).collect();
        let attributes = tokens.iter().map(|(_, is)| *is).collect();
        Specials::new(&Tokens::new(texts, vec![0.0; tokens.len()], attributes), "", "", "")
    }

    const PLAIN: Attributes = Attributes {
        normal: false,
        unknown: false,
        control: false,
        user_defined: true,
        byte: false,
        unused: false,
        symbol: false,
        lstrip: false,
        rstrip: false,
    };

    #[test]
    fn the_longest_comes_first_wherever_it_is() {
        let tokens = ["ab", "bcd", "b", "cde"].map(|text| (text, PLAIN));
        let found = |text| specials(&tokens).partition(text, false);
        // "bcd" (1) and "cde" (3) are as long: the lower id. Then what still fits.
        assert_eq!(found("abcde"), [Fragment::Text("a"), Fragment::Token(1), Fragment::Text("e")]);
        assert_eq!(found("abxcde"), [Fragment::Token(0), Fragment::Text("x"), Fragment::Token(3)]);
    }

    #[test]
    fn many_tokens_that_begin_and_end_alike() {
        let texts: Vec<String> = (1..400).map(|n| "a".repeat(n)).collect();
        let tokens: Vec<_> = texts.iter().map(|text| (text.as_str(), PLAIN)).collect();
        let text = "a".repeat(1000);
        let found = specials(&tokens).partition(&text, true);
        assert_eq!(found, [398, 398, 201].map(Fragment::Token));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_same_fragments_as_one_by_one(
            tokens in prop::collection::vec(("[ab ]{1,4}", 0u8..4, any::<bool>(), any::<bool>()), 0..9),
            text in "[abc é]{0,40}",
            special: bool,
        ) {
            let tokens: Vec<_> = tokens
                .iter()
                .map(|(text, kind, lstrip, rstrip)| {
                    let is = Attributes { lstrip: *lstrip, rstrip: *rstrip, ..PLAIN };
                    (text.as_str(), match kind {
                        0 => Attributes { control: true, user_defined: false, ..is },
                        1 => Attributes { unknown: true, user_defined: false, ..is },
                        _ => is,
                    })
                })
                .collect();
            prop_assert_eq!(specials(&tokens).partition(&text, special), one_by_one(&tokens, &text, special));
        }
    }
}
