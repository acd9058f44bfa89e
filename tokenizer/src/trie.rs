//! A trie: byte strings by their prefixes, in flat arrays.

use std::ops::Range;

/// A map from byte strings to numbers, with at most one node for each byte.
pub struct Trie {
    /// The children of node `n` are the nodes `children[n]..children[n + 1]`, sorted by their labels.
    children: Vec<u32>,
    /// The byte that leads to each node.
    labels: Vec<u8>,
    /// The number of the string that ends at each node, or [`NONE`].
    values: Vec<u32>,
    /// The children of the root by their byte, or [`NONE`]: the root is where every search begins, and has the most.
    first: Box<[u32; 256]>,
}

/// No node, or no number.
const NONE: u32 = u32::MAX;

impl Trie {
    /// The node that every search begins at.
    pub const ROOT: u32 = 0;

    /// A trie of strings and their numbers, which are below 2^32 - 1. Of equal strings the last is found.
    pub fn new<'a>(strings: impl IntoIterator<Item = (&'a [u8], u32)>) -> Self {
        let mut strings: Vec<(&[u8], u32)> = strings.into_iter().collect();
        strings.sort_by_key(|(text, _)| *text); // stable: of equal strings the last stays the last
        let mut trie =
            Self { children: Vec::new(), labels: vec![0], values: vec![NONE], first: Box::new([NONE; 256]) };
        // Level by level: of each node, the strings that go through it and its depth.
        let mut level: Vec<Range<usize>> = Vec::from([Range { start: 0, end: strings.len() }]);
        let mut depth = 0;
        let mut node = 0;
        while !level.is_empty() {
            let mut next = Vec::new();
            for range in level {
                let mut at = range.start;
                while at < range.end && strings[at].0.len() == depth {
                    trie.values[node] = strings[at].1;
                    at += 1;
                }
                // Nodes are at most as many as the bytes of all strings, which an array of a file's metadata holds.
                trie.children.push(u32::try_from(trie.labels.len()).unwrap_or(NONE));
                while at < range.end {
                    let label = strings[at].0[depth];
                    let end = at + strings[at..range.end].partition_point(|(text, _)| text[depth] <= label);
                    trie.labels.push(label);
                    trie.values.push(NONE);
                    next.push(at..end);
                    at = end;
                }
                node += 1;
            }
            level = next;
            depth += 1;
        }
        trie.children.push(u32::try_from(trie.labels.len()).unwrap_or(NONE));
        for child in trie.children_of(Self::ROOT) {
            trie.first[usize::from(trie.labels[child])] = child as u32;
        }
        trie
    }

    fn children_of(&self, node: u32) -> Range<usize> {
        self.children[node as usize] as usize..self.children[node as usize + 1] as usize
    }

    /// The child of a node by this byte.
    pub fn child(&self, node: u32, byte: u8) -> Option<u32> {
        if node == Self::ROOT {
            return Some(self.first[usize::from(byte)]).filter(|&child| child != NONE);
        }
        let range = self.children_of(node);
        let labels = &self.labels[range.clone()];
        let at = match labels {
            [] => return None,
            [only] => return (*only == byte).then_some(range.start as u32),
            few if few.len() <= 8 => few.iter().position(|&label| label == byte)?,
            many => many.binary_search(&byte).ok()?,
        };
        Some((range.start + at) as u32)
    }

    /// The number of the string that ends at a node.
    pub fn value(&self, node: u32) -> Option<u32> {
        Some(self.values[node as usize]).filter(|&value| value != NONE)
    }

    /// The strings that are prefixes of `text`, shortest first: their lengths and numbers.
    pub fn prefixes<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = (usize, u32)> + 't {
        let mut node = Self::ROOT;
        let steps = text.iter().map_while(move |&b| {
            node = self.child(node, b)?;
            Some(self.value(node))
        });
        steps.enumerate().filter_map(|(i, value)| Some((i + 1, value?)))
    }

    /// Each node but the root with its parent and its byte, parents first.
    pub fn edges(&self) -> impl Iterator<Item = (u32, u32, u8)> + '_ {
        (0..self.labels.len() as u32)
            .flat_map(|node| self.children_of(node).map(move |child| (node, child as u32)))
            .map(|(node, child)| (child, node, self.labels[child as usize]))
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.labels.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_a_text() {
        let many: Vec<Vec<u8>> = (0..=255).map(|b| vec![b'x', b]).collect();
        let strings = [&b"a"[..], b"abc", b"", b"ab", b"b", b"abc", b"x"];
        let strings = strings.into_iter().chain(many.iter().map(|s| &s[..])).zip(0..);
        let trie = Trie::new(strings);
        let of = |text: &[u8]| trie.prefixes(text).collect::<Vec<_>>();
        assert_eq!(of(b"abcd"), [(1, 0), (2, 3), (3, 5)]);
        assert_eq!((of(b"x\xffx"), of(b"c"), of(b"")), (vec![(1, 6), (2, 7 + 255)], vec![], vec![]));
        assert_eq!((trie.value(Trie::ROOT), trie.len()), (Some(2), 1 + 3 + 1 + 1 + 256));
        assert_eq!(trie.edges().count(), trie.len() - 1);
        assert_eq!(Trie::new([]).prefixes(b"a").count(), 0);
    }
}
