//! Python's pickles (protocols 2 to 5) as plain values. A pickle is a program for a machine with a stack; the machine
//! here executes nothing of Python. Where a pickle asks for a call of a function, [`torch`](super::torch) makes the values
//! of the few that it knows, and any other call gives a [`Node::Made`], of which only the name is known.
//!
//! Values are in one list and refer to others by their index, so neither reading nor dropping them recurses. All limits
//! together keep the memory for them below 64 MiB.

use std::collections::HashMap;

use super::MAX_TENSORS;
use super::torch::{self, Storage, View};
use crate::error::{Error, Fault, Result};

/// The index of a value.
pub type Id = u32;

/// The most values, and the most at a time on the stack and of those that are remembered to be used again. A tensor takes
/// about 15 values, so this is enough for 35,000 tensors.
const MAX_NODES: usize = 1 << 19;

/// A value.
#[derive(Debug)]
pub enum Node<'a> {
    None,
    Bool,
    /// A whole number; those beyond 64 bits are [`Node::Other`].
    Int(i64),
    Text(&'a str),
    /// A function or a class, by its module and name.
    Global(Box<[&'a str; 2]>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Storage(Box<Storage<'a>>),
    Tensor(Box<View<'a>>),
    /// What a function would return that is not called, or an object of a class that is not known.
    Made(Box<[&'a str; 2]>),
    /// A number, bytes or a set, of which no tensor consists.
    Other(&'static str),
}

/// The values of a pickle.
pub struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    /// The value that was pickled.
    pub root: Id,
}

impl<'a> Pickle<'a> {
    pub fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    /// A value in words, for messages.
    pub fn describe(&self, id: Id) -> String {
        match self.node(id) {
            Node::None => "None".into(),
            Node::Bool => "a boolean".into(),
            Node::Int(_) => "a number".into(),
            Node::Text(_) => "a text".into(),
            Node::Global(name) => name.join("."),
            Node::Tuple(_) => "a tuple".into(),
            Node::List(_) => "a list".into(),
            Node::Dict(entries) if entries.is_empty() => "an empty dictionary".into(),
            Node::Dict(_) => "a dictionary of other values".into(),
            Node::Storage(_) => "a storage".into(),
            Node::Tensor(_) => "a tensor".into(),
            Node::Made(name) => format!("what {} would make, which is not executed", name.join(".")),
            Node::Other(what) => (*what).into(),
        }
    }
}

/// Reads the pickle `bytes`, which is at offset `base` of the file `name`.
pub fn read<'a>(name: &str, base: u64, bytes: &'a [u8]) -> Result<Pickle<'a>> {
    let mut machine = Machine {
        bytes,
        at: 0,
        nodes: vec![Node::None, Node::Bool, Node::Tuple(Vec::new())],
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
        tensors: 0,
    };
    let mut at = 0;
    loop {
        match machine.step() {
            Ok(None) if machine.stack.len().max(machine.marks.len()) > MAX_NODES => {
                let what = "the height of the stack in data.pkl, a Python pickle,".into();
                let fault = Fault::TooMany { what, found: MAX_NODES as u64 + 1, most: MAX_NODES as u64 };
                return Err(Error::at(name, base + at as u64, fault));
            }
            Ok(None) => at = machine.at,
            Ok(Some(root)) => return Ok(Pickle { nodes: machine.nodes, root }),
            Err(why) => {
                let fault = Fault::Header(format!("of data.pkl, a Python pickle: {why}"));
                return Err(Error::at(name, base + at as u64, fault));
            }
        }
    }
}

/// The values that are made once.
const NONE: Id = 0;
const BOOL: Id = 1;
const EMPTY: Id = 2;

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// The heights of the stack at its marks.
    marks: Vec<usize>,
    /// Values by the number under which the pickle uses them again.
    memo: HashMap<u32, Id>,
    /// The entries of dictionaries that were made of lists.
    copied: usize,
    /// Tensors that were made, which take more memory than other values.
    tensors: usize,
}

/// The result of an instruction; errors say what is wrong with it.
type Step<T> = std::result::Result<T, String>;

const SHORT: &str = "it ends too early";
const STACK: &str = "an instruction needs more values than there are";

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let found = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end)).ok_or(SHORT)?;
        self.at += n;
        Ok(found)
    }

    /// An unsigned number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Step<u64> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.take(N)?);
        Ok(u64::from_le_bytes(wide))
    }

    /// A length of `N` bytes, and so many bytes.
    fn counted<const N: usize>(&mut self) -> Step<&'a [u8]> {
        let n = self.number::<N>()?;
        self.take(usize::try_from(n).map_err(|_| SHORT)?)
    }

    fn line(&mut self) -> Step<&'a str> {
        let n = self.bytes[self.at..].iter().position(|&b| b == b'\n').ok_or(SHORT)?;
        let line = self.take(n + 1)?;
        text(&line[..n])
    }

    fn push(&mut self, node: Node<'a>) -> Step<()> {
        if self.nodes.len() == MAX_NODES {
            return Err(format!("it has more than {MAX_NODES} values"));
        }
        self.stack.push(self.nodes.len() as Id);
        self.nodes.push(node);
        Ok(())
    }

    fn pop(&mut self) -> Step<Id> {
        let least = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= least {
            return Err(STACK.into());
        }
        self.stack.pop().ok_or_else(|| STACK.into())
    }

    /// The values since the last mark, which is removed.
    fn since_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, n: usize) -> Step<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Step<Vec<Id>>>()?;
        items.reverse();
        self.push(Node::Tuple(items))
    }

    fn top(&mut self) -> Step<&mut Node<'a>> {
        let id = *self.stack.last().ok_or(STACK)?;
        Ok(&mut self.nodes[id as usize])
    }

    fn append(&mut self, items: Vec<Id>) -> Step<()> {
        match self.top()? {
            Node::List(list) => list.extend(items),
            Node::Made(_) | Node::Other(_) => {}
            _ => return Err("items are added to what is no list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Step<()> {
        if !items.len().is_multiple_of(2) {
            return Err("a key of a dictionary has no value".into());
        }
        match self.top()? {
            Node::Dict(entries) => entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Node::Made(_) | Node::Other(_) => {}
            _ => return Err("entries are added to what is no dictionary".into()),
        }
        Ok(())
    }

    fn remember(&mut self, key: u64) -> Step<()> {
        let id = *self.stack.last().ok_or(STACK)?;
        self.memo.insert(key as u32, id);
        if self.memo.len() > MAX_NODES {
            return Err(format!("it remembers more than {MAX_NODES} values"));
        }
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Step<()> {
        let id = *self.memo.get(&(key as u32)).ok_or("a value that was not remembered is used")?;
        self.stack.push(id);
        Ok(())
    }

    /// The value of a call, which is not made.
    fn call(&mut self) -> Step<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let made = torch::call(&self.nodes, function, arguments)?;
        match made {
            torch::Call::Value(node) => {
                self.tensors += usize::from(matches!(node, Node::Tensor(_)));
                if self.tensors > MAX_TENSORS {
                    return Err(format!("it makes more than {MAX_TENSORS} tensors"));
                }
                // A list may become a dictionary often.
                self.copied += if let Node::Dict(entries) = &node { entries.len() } else { 0 };
                if self.copied > MAX_NODES {
                    return Err(format!("it copies more than {MAX_NODES} values"));
                }
                self.push(node)
            }
            torch::Call::Same(id) => {
                self.stack.push(id);
                Ok(())
            }
        }
    }

    /// An object of a class that is not known; the stack has the class.
    fn object(&mut self) -> Step<()> {
        let class = self.pop()?;
        match &self.nodes[class as usize] {
            Node::Global(name) => self.push(Node::Made(name.clone())),
            _ => Err("an object has no class".into()),
        }
    }

    fn unsigned(&mut self, n: u64) -> Step<()> {
        self.push(i64::try_from(n).map_or(Node::Other("a number"), Node::Int))
    }

    /// A signed number of up to 8 bytes.
    fn long(&mut self, bytes: &[u8]) -> Step<()> {
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        if bytes.len() > 8 {
            return self.push(Node::Other("a number"));
        }
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(wide)))
    }

    /// One instruction. Gives the pickled value at the last one.
    fn step(&mut self) -> Step<Option<Id>> {
        match self.take(1)?[0] {
            0x80 => match self.number::<1>()? {
                2..=5 => {}
                version => return Err(format!("protocol {version} is not supported (known: 2 to 5)")),
            },
            // A frame: the number of bytes that follow.
            0x95 => {
                self.take(8)?;
            }
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            // Taken from the stack; attributes of an object too: of a state dict, the versions of its modules.
            b'0' | b'b' => {
                self.pop()?;
            }
            b'1' | 0x90 => {
                self.since_mark()?;
            }
            b'2' => {
                let id = *self.stack.last().ok_or(STACK)?;
                self.stack.push(id);
            }
            b'N' => self.stack.push(NONE),
            0x88 | 0x89 => self.stack.push(BOOL),
            b')' => self.stack.push(EMPTY),
            b'J' => {
                let n = self.number::<4>()? as u32 as i32;
                self.push(Node::Int(n.into()))?;
            }
            b'K' => {
                let n = self.number::<1>()?;
                self.unsigned(n)?;
            }
            b'M' => {
                let n = self.number::<2>()?;
                self.unsigned(n)?;
            }
            0x8a => {
                let n = self.counted::<1>()?;
                self.long(n)?;
            }
            0x8b => {
                let n = self.counted::<4>()?;
                self.long(n)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Node::Other("a number"))?;
            }
            b'X' | b'T' => {
                let found = text(self.counted::<4>()?)?;
                self.push(Node::Text(found))?;
            }
            0x8c | b'U' => {
                let found = text(self.counted::<1>()?)?;
                self.push(Node::Text(found))?;
            }
            0x8d => {
                let found = text(self.counted::<8>()?)?;
                self.push(Node::Text(found))?;
            }
            code @ (b'B' | b'C' | 0x8e | 0x96) => {
                match code {
                    b'B' => self.counted::<4>()?,
                    b'C' => self.counted::<1>()?,
                    _ => self.counted::<8>()?,
                };
                self.push(Node::Other("bytes"))?;
            }
            b't' => {
                let items = self.since_mark()?;
                self.push(Node::Tuple(items))?;
            }
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b']' => self.push(Node::List(Vec::new()))?,
            b'l' => {
                let items = self.since_mark()?;
                self.push(Node::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.since_mark()?;
                self.push(Node::Dict(Vec::new()))?;
                self.set(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items)?;
            }
            0x8f => self.push(Node::Other("a set"))?,
            0x91 => {
                self.since_mark()?;
                self.push(Node::Other("a set"))?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(Box::new([module, name])))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.nodes[module as usize], &self.nodes[name as usize]) {
                    (Node::Text(module), Node::Text(name)) => {
                        self.push(Node::Global(Box::new([module, name])))?;
                    }
                    _ => return Err("a function has no name".into()),
                }
            }
            b'R' => self.call()?,
            0x81 => {
                self.pop()?;
                self.object()?;
            }
            0x92 => {
                self.pop()?;
                self.pop()?;
                self.object()?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = torch::storage(&self.nodes, id)?;
                self.push(Node::Storage(Box::new(storage)))?;
            }
            b'q' => {
                let key = self.number::<1>()?;
                self.remember(key)?;
            }
            b'r' => {
                let key = self.number::<4>()?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let key = self.number::<1>()?;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.number::<4>()?;
                self.recall(key)?;
            }
            code => return Err(format!("its instruction {code:#04x} is not supported")),
        }
        Ok(None)
    }
}

fn text(bytes: &[u8]) -> Step<&str> {
    std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8".into())
}
