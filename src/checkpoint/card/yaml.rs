//! Parses the YAML front matter of a model card, keeping every scalar as text.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

/// The longest front matter that is read, in bytes; published ones have a few KiB.
pub const LIMIT: usize = 1 << 20;

/// The deepest nesting of collections, which bounds the recursion over nodes.
const DEPTH: usize = 64;

/// A YAML value. Scalars are text: guessing types would turn the language `no` into false and the version `1.10` into
/// 1.1.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// An empty value, `~` or `null`.
    Null,
    /// Any other scalar.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping. Of duplicate keys, the last counts.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(pairs) => pairs.iter().rfind(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The size of a copy of this node, in bytes and nodes.
    fn size(&self) -> usize {
        1 + match self {
            Self::Null => 0,
            Self::Text(text) => text.len(),
            Self::List(nodes) => nodes.iter().map(Self::size).sum(),
            Self::Map(pairs) => pairs.iter().map(|(k, v)| k.len() + v.size()).sum(),
        }
    }
}

/// The text between the `---` of a file's first line and the next `---`; `None` if there is no front matter.
/// `whole` says that `head` is the whole file.
///
/// # Errors
/// Front matter that does not end within `head`, or is not UTF-8.
pub fn front_matter(head: &[u8], whole: bool) -> Result<Option<String>, String> {
    // The hub accepts byte order marks, blank lines before the front matter, and blanks after the dashes.
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let mut lines = head.split_inclusive(|&b| b == b'\n');
    let Some(first) = lines.next().filter(|line| line.trim_ascii_end() == b"---") else { return Ok(None) };
    let mut end = first.len();
    let mut closed = false;
    for line in lines {
        if line.trim_ascii_end() == b"---" {
            closed = true;
            break;
        }
        end += line.len();
    }
    // A card that has only front matter may lack the closing dashes.
    if !closed && !whole {
        return Err(format!("the front matter does not end within the first {LIMIT} bytes"));
    }
    let text =
        str::from_utf8(&head[first.len()..end]).map_err(|_| "the front matter is not UTF-8".to_string())?;
    // Tabs cannot indent in YAML, but published cards have them.
    Ok(Some(text.replace('\t', "  ")))
}

/// The first document of a YAML text.
///
/// # Errors
/// Text that is not YAML, nests too deeply, or whose aliases add up to more than [`LIMIT`] bytes.
pub fn parse(text: &str) -> Result<Node, String> {
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), aliased: 0 };
    loop {
        match builder.next()? {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            Event::StreamEnd | Event::DocumentEnd => return Ok(Node::Null),
            event => {
                let node = builder.node(event, 0)?;
                // The rest must be valid, too.
                while !matches!(builder.next()?, Event::DocumentEnd | Event::StreamEnd) {}
                return Ok(node);
            }
        }
    }
}

/// Builds nodes from the parser's events.
struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    /// The size of all nodes that aliases have copied.
    aliased: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        match self.parser.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(fault)) => Err(fault.to_string()),
            None => Ok(Event::StreamEnd),
        }
    }

    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Node, String> {
        if depth > DEPTH {
            return Err(format!("nested deeper than {DEPTH} levels"));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (if null { Node::Null } else { Node::Text(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => break,
                        event => list.push(self.node(event, depth + 1)?),
                    }
                }
                (Node::List(list), anchor)
            }
            Event::MappingStart(anchor, _) => {
                let mut pairs = Vec::new();
                loop {
                    let key = match self.next()? {
                        Event::MappingEnd => break,
                        event => self.node(event, depth + 1)?,
                    };
                    let event = self.next()?;
                    let value = self.node(event, depth + 1)?;
                    if let Node::Text(key) = key {
                        pairs.push((key, value));
                    }
                }
                (Node::Map(pairs), anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).ok_or("an alias is inside of its own anchor")?;
                // Aliases of aliases grow exponentially: count before copying.
                self.aliased += node.size();
                if self.aliased > LIMIT {
                    return Err(format!("aliases add up to more than {LIMIT} bytes"));
                }
                (node.clone(), 0)
            }
            other => return Err(format!("expected a value, found {other:?}")),
        };
        if anchor != 0 {
            // The anchor's copy counts like an alias.
            self.aliased += node.size();
            if self.aliased > LIMIT {
                return Err(format!("anchors add up to more than {LIMIT} bytes"));
            }
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(s: &str) -> Node {
        Node::Text(s.into())
    }

    #[test]
    fn scalars_stay_as_written() {
        let node = parse("a: no\nb: 1.10\nc:\n- 2024-01-01\n- 'null'\n- ~\nd: yes\nd: last\n").unwrap();
        assert_eq!(node.get("a"), Some(&text("no")));
        assert_eq!(node.get("b"), Some(&text("1.10")));
        assert_eq!(node.get("c"), Some(&Node::List(vec![text("2024-01-01"), text("null"), Node::Null])));
        assert_eq!(node.get("d"), Some(&text("last")));
        assert_eq!(node.get("e"), None);
        assert_eq!(parse(""), Ok(Node::Null));
    }

    #[test]
    fn front_matter_stands_between_dashes() {
        let of = |s: &str| front_matter(s.as_bytes(), true).unwrap();
        assert_eq!(of("---\na: b\n---\n# Title\n---\n").as_deref(), Some("a: b\n"));
        assert_eq!(of("\u{feff}---\r\na:\tb\r\n---\r\n").as_deref(), Some("a:  b\r\n"));
        assert_eq!(of("---\na: b").as_deref(), Some("a: b"));
        assert_eq!(of("---\n---\n").as_deref(), Some(""));
        for none in ["", "# Title\n---\na: b\n---\n", "----\n"] {
            assert_eq!(of(none), None);
        }
        assert!(front_matter(b"---\na: b\n", false).unwrap_err().contains("does not end"));
        assert!(front_matter(b"---\na: \xff\n---\n", true).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn hostile_yaml_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb += &format!("a{i}: &a{i} [{aliases}]\n");
        }
        assert!(parse(&bomb).unwrap_err().contains("aliases add up"), "{:?}", parse(&bomb).unwrap_err());
        let chain = "&a ".to_string() + &"x".repeat(LIMIT);
        assert!(parse(&chain).unwrap_err().contains("anchors add up"));
        for deep in ["- ".repeat(100_000), "[".repeat(100_000), "{a: ".repeat(1000), "? ".repeat(100_000)] {
            assert!(parse(&deep).is_err());
        }
        for bad in ["a: b: c", "a: 'b", "*nobody", "&a [*a]", "a: [b", "@", "\u{0}: [", "- a\nb: c"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-\\[\\]{}:?,&*!|>'\"%@`#~a \n\t\r\u{0}\u{85}é]{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_bytes_have_front_matter_or_not(bytes: Vec<u8>, whole: bool) {
            if let Ok(Some(text)) = front_matter(&[b"---\n", &bytes[..]].concat(), whole) {
                let _ = parse(&text);
            }
        }
    }
}
