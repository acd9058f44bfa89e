//! The reader of checkpoints. It reads the header only, from which the exact length of the file follows.

use super::config::{Config, FIELDS, Storage, V0, header_len};
use super::{EPSILON, FORMAT, FREQ_BASE, KNOWN, MAGIC};
use crate::container::Cursor;
use crate::error::{Fault, Result};
use crate::metadata::{Metadata, Value};
use crate::model::{ByteOrder, Format, Input, Model};

/// The offset of the seven numbers from version 1 on.
const FIELDS_AT: u64 = 8;
/// The offset of the group size of version 2, which is unaligned. In the fork with a head size it is four bytes later.
const GROUP_AT: u64 = 37;

/// The numbers of a version 0 header are below this, so that they show the byte order.
pub(super) const PLAUSIBLE: u64 = 1 << 24;

/// Recognises the version from the first 36 bytes and the length of the file: 1 and 2 by their magic number, 0 by a
/// plausible header and exactly the length that follows from it.
pub fn sniff(input: &Input) -> Option<Format> {
    match versioned(input) {
        Some((_, version @ 1..=2)) => Some(Format::Llama2c { version }),
        Some(_) => None,
        None => exact(input).map(|_| Format::Llama2c { version: 0 }),
    }
}

/// For a file that [`sniff`] does not recognise but that looks like a checkpoint: what is wrong with it.
pub fn near_miss(input: &Input) -> Option<String> {
    match versioned(input) {
        Some((_, 1..=2)) => return None,
        Some((_, version)) => {
            return Some(format!("a {FORMAT} checkpoint of version {version} (known: {KNOWN})"));
        }
        None if exact(input).is_some() => return None,
        None => {}
    }
    let (order, c) = likely(input)?;
    let end = if order == ByteOrder::Big { "big-endian " } else { "" };
    let (dim, layers, expected, len) = (c.dim, c.layers, c.len(V0), input.len);
    let why = if expected > u128::from(len) {
        "truncated download?"
    } else if c.shared && (Config { shared: false, ..c }).len(V0) == u128::from(len) {
        "a classifier of its own, without the negative vocab_size that announces one?"
    } else {
        "something appended, or another format?"
    };
    let name = format!("{end}{FORMAT} v0 checkpoint (dim {dim}, {layers} layers)");
    Some(format!("looks like a {name}, which would have {expected} bytes; the file has {len} ({why})"))
}

/// The byte order and version after the magic.
fn versioned(input: &Input) -> Option<(ByteOrder, u32)> {
    let word = |at| u32::from_le_bytes(*input.bytes.get(at..)?.first_chunk()?).into();
    let (magic, version): (Option<u32>, Option<u32>) = (word(0), word(4));
    match magic? {
        MAGIC => Some((ByteOrder::Little, version?)),
        m if m == MAGIC.swap_bytes() => Some((ByteOrder::Big, version?.swap_bytes())),
        _ => None,
    }
}

/// Version 0 headers of plausible numbers, in either order.
fn plausible(input: &Input) -> impl Iterator<Item = (ByteOrder, Config)> {
    [ByteOrder::Little, ByteOrder::Big].into_iter().filter_map(|order| {
        let (words, _) = input.bytes.get(..28)?.as_chunks::<4>();
        let mut fields = [0; 7];
        fields.iter_mut().zip(words).for_each(|(f, &w)| *f = i32::from_le_bytes(order.le(w)));
        let config = Config::from_fields(fields)?;
        config.numbers().iter().all(|&n| n < PLAUSIBLE).then_some((order, config))
    })
}

/// The item, if there is exactly one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next();
    if items.next().is_some() { None } else { first }
}

/// A version 0 header from which exactly the file's length follows.
fn exact(input: &Input) -> Option<(ByteOrder, Config)> {
    only(plausible(input).filter(|(_, c)| c.len(V0) == u128::from(input.len)))
}

/// A version 0 header without contradictions, whatever the length of the file.
fn likely(input: &Input) -> Option<(ByteOrder, Config)> {
    only(plausible(input).filter(|(_, c)| c.fault(false).is_none()))
}

/// Reads a checkpoint of version 0, 1 or 2. Only its header is needed: 45 bytes.
///
/// # Errors
/// [`Fault::NotAModel`], [`Fault::Version`], [`Fault::Header`] for numbers that contradict each other, [`Fault::Ends`] and
/// [`Fault::TooMany`] for a file that is not exactly as long as they say, [`Fault::More`] if the input is shorter than the
/// header.
pub fn read(input: &Input) -> Result<Model> {
    let mut c = Cursor::new(input, ByteOrder::Little);
    c.take(header_len(0), || "the header".into())?;
    c.at = 0;
    match versioned(input) {
        Some((order, version @ 1..=2)) => {
            c.order = order;
            read_versioned(c, version)
        }
        Some((_, found)) => Err(c.fault(4, Fault::Version { format: FORMAT, found, known: KNOWN })),
        None => match exact(input).or_else(|| likely(input)) {
            Some((order, config)) => {
                c.order = order;
                model(&c, config, V0)
            }
            None => {
                let why = "no llama2.c checkpoint: neither its magic nor a plausible v0 header";
                Err(c.fault(0, Fault::NotAModel(why.into())))
            }
        },
    }
}

fn read_versioned(mut c: Cursor, version: u32) -> Result<Model> {
    c.at = FIELDS_AT;
    let mut fields = [0; 7];
    for (field, name) in fields.iter_mut().zip(FIELDS) {
        let at = c.at;
        *field = c.u32(name)? as i32;
        if *field <= 0 {
            return Err(
                c.fault(at, Fault::Header(format!("{name} must be a positive integer (found {field})")))
            );
        }
    }
    let Some(mut config) = Config::from_fields(fields) else { unreachable!("every number is positive") };
    let fork = version == 2 && is_fork(&c, config);
    if fork {
        config.head = c.u32("the head size")?.into();
    }
    let at = c.at;
    let flag = c.take(1, || "the shared_classifier flag".into())?[0];
    if flag > 1 {
        let why = format!(
            "the shared_classifier flag must be 0 or 1 (found {flag}; a fork has the head size here, but then the file would \
             have another length)"
        );
        return Err(c.fault(at, Fault::Header(why)));
    }
    config.shared = flag == 1;
    let at = c.at;
    let group = if version == 2 { c.u32("the group size")? } else { 0 };
    if version == 2 && !(1..=i32::MAX as u32).contains(&group) {
        let why = format!("the group size must be a positive integer (found {})", group as i32);
        return Err(c.fault(at, Fault::Header(why)));
    }
    model(&c, config, Storage { version, group, fork })
}

/// Whether the header is that of the fork, which has no mark: it is if, read so, it gives exactly the file's length.
fn is_fork(c: &Cursor, config: Config) -> bool {
    let len = u128::from(c.at.saturating_add(c.left()));
    let mut c = c.clone();
    let (Ok(head), Ok(flag)) = (c.u32(""), c.array::<1>("")) else { return false };
    let Ok(group) = c.u32("") else { return false };
    let config = Config { head: head.into(), shared: flag == [1], ..config };
    let storage = Storage { version: 2, group, fork: true };
    let sound =
        flag[0] <= 1 && (1..=i32::MAX as u32).contains(&group) && (1..=i32::MAX as u32).contains(&head);
    sound && config.fault(true).is_none() && config.ungrouped(group).is_none() && config.len(storage) == len
}

/// Checks a header and makes a model of it. As in `runq.c`, padding is ignored.
fn model(c: &Cursor, config: Config, storage: Storage) -> Result<Model> {
    let Storage { version, group, fork } = storage;
    if let Some((field, why)) = config.fault(fork) {
        let start = if version == 0 { 0 } else { FIELDS_AT };
        return Err(c.fault(start + 4 * field as u64, Fault::Header(why)));
    }
    if let Some((name, n)) = config.ungrouped(group).filter(|_| version == 2) {
        let why = format!("the group size is {group}, which does not divide the {n} weights of {name}");
        return Err(c.fault(if fork { GROUP_AT + 4 } else { GROUP_AT }, Fault::Header(why)));
    }
    let (expected, len) = (config.len(storage), c.at.saturating_add(c.left()));
    if expected > u128::from(len) {
        let end = u64::try_from(expected).unwrap_or(u64::MAX);
        let what = format!("the {FORMAT} v{version} checkpoint that the header describes");
        return Err(c.fault(0, Fault::Ends { what, end, len }));
    }
    if expected < u128::from(len) {
        let what = "the length of the file".to_string();
        return Err(c.fault(expected as u64, Fault::TooMany { what, found: len, most: expected as u64 }));
    }
    let order = c.order;
    let tensors = config.tensors(storage).collect();
    Ok(Model {
        format: Format::Llama2c { version },
        order,
        alignment: 1,
        metadata: metadata(config),
        tensors,
        notes: fork
            .then(|| "the header is that of a fork, with the head size (as --for smollerlm writes it)".into())
            .into_iter()
            .collect(),
    })
}

fn metadata(c: Config) -> Metadata {
    let mut m = Metadata::new();
    m.push("general.architecture".into(), Value::text("llama"));
    for (key, number) in [
        ("vocab_size", c.vocab),
        ("context_length", c.seq),
        ("embedding_length", c.dim),
        ("block_count", c.layers),
        ("feed_forward_length", c.hidden),
        ("attention.head_count", c.heads),
        ("attention.head_count_kv", c.kv_heads),
        ("rope.dimension_count", c.head),
    ] {
        // Header numbers fit an i32, as does the magnitude of a negative one.
        m.push(format!("llama.{key}"), Value::U32(number as u32));
    }
    if c.head * c.heads != c.dim {
        for key in ["key_length", "value_length"] {
            m.push(format!("llama.attention.{key}"), Value::U32(c.head as u32));
        }
    }
    m.push("llama.attention.layer_norm_rms_epsilon".into(), Value::F32(EPSILON));
    m.push("llama.rope.freq_base".into(), Value::F32(FREQ_BASE));
    m
}
