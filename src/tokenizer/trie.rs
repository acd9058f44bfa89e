//! Byte strings by their beginnings.

use std::collections::HashMap;

/// A set of byte strings with a number each. A node for each byte at most, all in one table.
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
                // There are not more nodes than bytes in a file's metadata, of which one array is read at a time.
                u32::try_from(self.values.len() - 1).unwrap_or(Self::ROOT)
            });
        }
        self.values[node as usize] = Some(value);
    }

    /// The strings that `text` begins with, shortest first, as lengths and numbers.
    pub fn prefixes<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = (usize, u32)> + 't {
        let mut node = Self::ROOT;
        let steps = text.iter().map_while(move |&b| {
            node = *self.children.get(&(node, b))?;
            Some(self.values[node as usize])
        });
        steps.enumerate().filter_map(|(i, value)| Some((i + 1, value?)))
    }
}
