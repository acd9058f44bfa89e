//! Version 2 with an eighth number in its header.

use super::*;

/// A head size above dim / n_heads, with a number of heads that does not divide dim.
const WIDE: Config = Config {
    dim: 64,
    hidden: 96,
    layers: 2,
    heads: 6,
    kv_heads: 3,
    vocab: 10,
    seq: 5,
    head: 32,
    shared: true,
};

/// A model of these sizes, as a GGUF would have it.
fn model(c: Config) -> (Metadata, Vec<Tensor>) {
    let mut m = Metadata::new();
    m.push("general.architecture".into(), Value::text("llama"));
    for (key, n) in [
        ("vocab_size", c.vocab),
        ("context_length", c.seq),
        ("embedding_length", c.dim),
        ("block_count", c.layers),
        ("feed_forward_length", c.hidden),
        ("attention.head_count", c.heads),
        ("attention.head_count_kv", c.kv_heads),
        ("attention.key_length", c.head),
    ] {
        m.push(format!("llama.{key}"), Value::U32(n as u32));
    }
    m.push("llama.attention.layer_norm_rms_epsilon".into(), Value::F32(1e-5));
    (m, c.tensors(Storage { version: 2, group: 32, fork: true }).collect())
}

fn fork(order: ByteOrder) -> Options {
    Options { fork: true, ..Options::new(2, order) }
}

#[test]
fn the_fork_is_recognised_by_the_length_of_the_file() {
    for order in ORDERS {
        for shared in [true, false] {
            let (metadata, tensors) = model(Config { shared, ..WIDE });
            let layout = layout("x", &metadata, &tensors, fork(order)).unwrap();
            let (head, file) = (&layout.files[0].fixed[0].1, &layout.files[0]);
            let word = |at: usize| u32::from_le_bytes(order.le(*head[at..].first_chunk::<4>().unwrap()));
            assert_eq!((word(0), word(4), word(8), word(20), word(36)), (0x616b_3432, 2, 64, 6, 32));
            assert_eq!((head[40], word(41)), (u8::from(shared), 32));
            // Two layers of norms and one more, the embedding, matrices of 192 and 96 rows.
            let group = |n: u64| n + n / 32 * 4;
            let layer = 2 * group(192 * 64) + 2 * group(96 * 64) + 3 * group(96 * 64);
            let own = if shared { 0 } else { group(640) };
            assert_eq!(file.len, 256 + 4 * 5 * 64 + group(640) + 2 * layer + own);

            let mut bytes = head.clone();
            bytes.resize(file.len as usize, 1);
            let read = read(&Input::whole("x", &bytes)).unwrap();
            assert_eq!((read.format, read.order), (Format::Llama2c { version: 2 }, order));
            assert!(read.notes[0].contains("smollerlm"));
            assert_eq!(read.metadata.get("llama.attention.key_length").and_then(Value::as_u64), Some(32));
            let places =
                |all: &[Tensor]| all.iter().map(|t| (t.name.clone(), t.location)).collect::<Vec<_>>();
            assert_eq!(places(&read.tensors), places(&layout.tensors));
        }
    }
}

#[test]
fn headers_that_are_not_the_forks_are_refused() {
    let (metadata, tensors) = model(WIDE);
    // Version 2 of llama2.c itself cannot hold such heads.
    let why = layout("x", &metadata, &tensors, Options::new(2, ByteOrder::Little)).unwrap_err().to_string();
    assert!(why.contains("n_heads is 6, which does not divide dim 64"), "{why}");
    let options = Options { fork: true, ..Options::new(1, ByteOrder::Little) };
    assert!(layout("x", &metadata, &tensors, options).is_err());

    let whole = layout("x", &metadata, &tensors, fork(ByteOrder::Little)).unwrap();
    let mut bytes = whole.files[0].fixed[0].1.clone();
    bytes.resize(whole.files[0].len as usize, 1);
    // One byte more or less, or any changed number of the header, is an error.
    assert!(read(&Input::whole("x", &bytes[..bytes.len() - 1])).is_err());
    for at in 0..45 {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            // Only the context length and the flag of tied embeddings do not change the length of the file.
            let read = read(&Input::whole("x", &damaged));
            assert!(read.is_err() || (32..36).contains(&at), "byte {at}");
        }
    }
}
