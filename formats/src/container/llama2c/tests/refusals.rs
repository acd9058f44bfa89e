//! What a checkpoint cannot hold, and what a header cannot say.

use super::*;

fn model() -> Model {
    read_whole(&checkpoint(SMALL, 1, 0, ByteOrder::Little)).unwrap()
}

fn refuse(model: &Model, version: u32) -> String {
    let options = Options::new(version, ByteOrder::Little);
    layout("out.bin", &model.metadata, &model.tensors, options).unwrap_err().to_string()
}

fn extra(name: &str) -> Tensor {
    let location = Location { file: 0, offset: 0, len: 64 };
    Tensor { name: name.into(), shape: vec![16], encoding: Encoding::Blocks(DType::F32), location }
}

#[test]
fn settings_hard_coded_in_llama2c_are_checked() {
    for (key, value, part) in [
        ("general.architecture", Value::text("qwen2"), "\"qwen2\""),
        ("llama.rope.freq_base", Value::F32(500000.0), "500000"),
        ("llama.rope.scaling.type", Value::text("yarn"), "yarn"),
        ("llama.rope.scaling.factor", Value::F32(2.0), "linear"),
        ("llama.rope.scale_linear", Value::F32(4.0), "linear"),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-6), "1e-5"),
        ("llama.attention.key_length", Value::U32(8), "dim / n_heads = 4"),
        ("llama.attention.value_length", Value::U32(8), "dim / n_heads = 4"),
        ("llama.rope.dimension_count", Value::U32(2), "dim / n_heads = 4"),
        ("llama.expert_count", Value::U32(8), "experts"),
        ("llama.vocab_size", Value::U32(11), "10 rows"),
        ("llama.attention.head_count", Value::U32(3), "n_heads is 3"),
        ("llama.attention.head_count_kv", Value::U32(3), "n_kv_heads is 3"),
        ("llama.attention.head_count", Value::U32(16), "pairs"),
        ("llama.context_length", Value::U64(1 << 31), "seq_len is 2147483648"),
        ("llama.context_length", Value::text("many"), "must be a non-negative integer"),
        ("llama.context_length", Value::U32(0), "seq_len is 0"),
        ("llama.feed_forward_length", Value::U32(32), "has shape [24, 16]"),
        ("llama.block_count", Value::U32(2), "blk.2."),
        ("llama.block_count", Value::U32(4), "no tensor blk.3."),
        ("llama.block_count", Value::U32(1 << 30), "at most 65535"),
        (
            "llama.attention.head_count_kv",
            Value::Array(Array::new(Kind::U32, &[Value::U32(2), Value::U32(4)]).unwrap()),
            "differs between layers",
        ),
    ] {
        let mut m = model();
        m.metadata.set(key, value.clone());
        let message = refuse(&m, 1);
        assert!(message.contains(part), "{key} {value:?}: {message}");
    }
    for key in ["general.architecture", "llama.context_length", "llama.attention.layer_norm_rms_epsilon"] {
        let mut m = model();
        m.metadata.remove(key);
        assert!(refuse(&m, 0).contains("is missing"), "{key}");
    }
    // Settings that equal the defaults are accepted.
    let mut m = model();
    m.metadata.set("llama.rope.scaling.type", Value::text("none"));
    m.metadata.set("llama.attention.layer_norm_rms_epsilon", Value::F64(1e-5));
    m.metadata.remove("llama.vocab_size");
    m.metadata.remove("llama.rope.freq_base");
    m.metadata.remove("llama.rope.dimension_count");
    let options = Options::new(0, ByteOrder::Big);
    layout("", &m.metadata, &m.tensors, options).unwrap();
    let known = Fault::Version { format: FORMAT, found: 3, known: KNOWN };
    let options = Options::new(3, ByteOrder::Big);
    assert_eq!(layout("", &m.metadata, &m.tensors, options).unwrap_err().fault, known);
}

#[test]
fn unknown_tensors_are_refused() {
    for (name, part) in [
        ("blk.0.attn_q.bias", "biases"),
        ("rope_freqs.weight", "rotary"),
        ("blk.1.attn_q_norm.weight", "norms of queries"),
        ("blk.1.ffn_gate_exps.weight", "experts"),
        ("blk.0.attn_qkv.weight", "separate tensors"),
        ("blk.3.attn_norm.weight", "metadata"),
        ("blk.00.attn_norm.weight", "metadata"),
        ("blk.attn_norm.weight", "metadata"),
        ("anything", "metadata"),
    ] {
        let mut m = model();
        m.tensors.push(extra(name));
        let message = refuse(&m, 1);
        assert!(message.contains(part) && message.contains(name), "{message}");
    }
    for i in 0..model().tensors.len() {
        let mut m = model();
        let gone = m.tensors.remove(i).name;
        assert!(refuse(&m, 1).contains(&format!("no tensor {gone}")));
        let mut m = model();
        m.tensors[i].shape[0] += 1;
        // A longer embedding is a larger vocabulary.
        assert!(refuse(&m, 1).contains(if i == 0 { "llama.vocab_size" } else { "shape" }));
    }
    let mut m = model();
    m.tensors.push(m.tensors[3].clone());
    assert!(refuse(&m, 1).contains("twice"));
}

#[test]
fn encodings_that_the_version_does_not_have() {
    let mut m = model();
    assert!(refuse(&m, 2).contains("token_embd.weight is f32; llama2.c v2 holds matrices"));
    for t in m.tensors.iter_mut().filter(|t| t.shape.len() == 2) {
        t.encoding = Encoding::Int8Groups { size: 8 };
    }
    let options = Options::new(2, ByteOrder::Little);
    layout("", &m.metadata, &m.tensors, options).unwrap();
    assert!(refuse(&m, 0).contains("holds f32 only"));
    m.tensors[2].encoding = Encoding::Int8Groups { size: 4 };
    assert!(refuse(&m, 2).contains("one group size"));
    m.tensors[2].encoding = Encoding::Int8Groups { size: 8 };
    m.tensors[1].encoding = Encoding::Blocks(DType::F16);
    assert!(refuse(&m, 2).contains("holds norms as f32"));
    for size in [0, 7, u32::MAX] {
        m.tensors.iter_mut().for_each(|t| t.encoding = Encoding::Int8Groups { size });
        assert!(refuse(&m, 2).contains("groups of") || refuse(&m, 2).contains("group size"), "{size}");
    }
}

#[test]
fn huge_rotary_tables_are_refused() {
    let mut m = model();
    m.metadata.set("llama.context_length", Value::U32(1 << 24));
    assert!(refuse(&m, 0).contains("16777215"));
    let tall = Config { dim: 256, head: 256, heads: 1, kv_heads: 1, layers: 1, hidden: 1, ..SMALL };
    m = read_whole(&checkpoint(tall, 1, 0, ByteOrder::Little)).unwrap();
    m.metadata.set("llama.context_length", Value::U32((1 << 24) - 1));
    assert!(refuse(&m, 0).contains("Lower llama.context_length"));
}

#[test]
fn headers_that_contradict_themselves() {
    let bytes = checkpoint(SMALL, 2, 8, ByteOrder::Big);
    for (at, value, part) in [
        (8usize, 0u32, "dim must be a positive integer (found 0)"),
        (12, u32::MAX, "hidden_dim must be a positive integer (found -1)"),
        (20, 3, "n_heads is 3"),
        (24, 3, "n_kv_heads is 3"),
        (20, 16, "pairs"),
        (28, 1 << 31, "vocab_size must be a positive integer (found -2147483648)"),
        (37, 0, "group size must be a positive integer (found 0)"),
        (37, u32::MAX, "group size must be a positive integer (found -1)"),
        (37, 5, "5, which does not divide"),
    ] {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        let e = read_whole(&bytes).unwrap_err();
        assert!(e.to_string().contains(part), "{e}");
        assert_eq!(e.at, Some(at as u64), "{e}");
    }
    let mut fork = bytes.clone();
    fork[36] = 64;
    let e = read_whole(&fork).unwrap_err();
    assert!(e.at == Some(36) && e.to_string().contains("fork"), "{e}");
    let mut newer = bytes;
    newer[7] = 3;
    assert_eq!(
        read_whole(&newer).unwrap_err().fault,
        Fault::Version { format: FORMAT, found: 3, known: KNOWN }
    );
    let input = Input::whole("", &newer);
    assert_eq!(sniff(&input), None);
    assert_eq!(near_miss(&input).unwrap(), "a llama2.c checkpoint of version 3 (known: 0, 1, 2)");
}

#[test]
fn near_misses_are_explained() {
    let mut bytes = checkpoint(SMALL, 0, 0, ByteOrder::Big);
    let whole = bytes.len();
    bytes.truncate(whole - 100);
    let expected = format!(
        "looks like a big-endian llama2.c v0 checkpoint (dim 16, 3 layers), which would have {whole} bytes; \
         the file has {} (truncated download?)",
        whole - 100
    );
    assert_eq!(near_miss(&Input::whole("", &bytes)).unwrap(), expected);
    let mut unmarked = checkpoint(Config { shared: false, ..SMALL }, 0, 0, ByteOrder::Little);
    unmarked[20..24].copy_from_slice(&10u32.to_le_bytes());
    assert!(near_miss(&Input::whole("", &unmarked)).unwrap().contains("negative vocab_size"));
}

#[test]
fn group_sizes_divide_both_widths() {
    let m = model();
    let size = |wanted| group_size(&m.metadata, &m.tensors, wanted);
    assert_eq!((size(64), size(8), size(4)), (Ok(8), Ok(8), Ok(4)));
    for wanted in [0, 3, 7, 24] {
        let e = size(wanted).unwrap_err();
        assert!(e.to_string().contains("dim 16 and hidden_dim 24"), "{e}");
    }
    let mut stories = Metadata::new();
    stories.set("general.architecture", Value::text("llama"));
    stories.set("llama.embedding_length", Value::U32(64));
    assert!(group_size(&stories, &[], 64).unwrap_err().to_string().contains("feed_forward_length"));
    stories.set("llama.feed_forward_length", Value::U32(172));
    assert_eq!(group_size(&stories, &[], 64), Ok(4));
    stories.set("llama.feed_forward_length", Value::U32(170));
    assert!(group_size(&stories, &[], 64).unwrap_err().to_string().contains("runq.c"));
}
