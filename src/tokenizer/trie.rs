//! A trie: byte strings by their prefixes.

use std::collections::HashMap;

/// A map from byte strings to numbers, with at most one node for each byte.
#[derive(Default)]
pub struct Trie {
    children: HashMap<(u32, u8), u32>,
    values: Vec<Option<u32>>,
}

impl Trie {
    /// The number of the root.
    const ROOT: u32 = 0;

    pub fn new() -> Self {
        Self { children: HashMap::new(), values: vec![None] }
    }

    /// Adds a string; a later number replaces an earlier one.
    pub fn insert(&mut self, key: &[u8], value: u32) {
        let mut node = Self::ROOT;
        for &b in key {
            node = *self.children.entry((node, b)).or_insert_with(|| {
                self.values.push(None);
                // Nodes are at most as many as the bytes of all tokens, which an array of a file's metadata holds.
                u32::try_from(self.values.len() - 1).unwrap_or(Self::ROOT)
            });
        }
        self.values[node as usize] = Some(value);
    }

    /// The strings that are prefixes of `text`, shortest first: their lengths and numbers.
    pub fn prefixes<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = (usize, u32)> + 't {
        let mut node = Self::ROOT;
        let steps = text.iter().map_while(move |&b| {
            node = *self.children.get(&(node, b))?;
            Some(self.values[node as usize])
        });
        steps.enumerate().filter_map(|(i, value)| Some((i + 1, value?)))
    }
}
