//! Files that others have made.

use super::*;
use crate::container::{self, gguf};

fn file(name: &str) -> Vec<u8> {
    crate::published::read(&format!("data/{name}"))
}

/// Little- to big-endian by the rules of the format, without our reader.
fn swapped_v2(b: &[u8]) -> Vec<u8> {
    let n = |at: usize| u32::from_le_bytes(b[at..at + 4].try_into().unwrap()) as usize;
    let (dim, hidden, l, heads, kv_heads, vocab) = (n(8), n(12), n(16), n(20), n(24), n(28));
    let (group, kv) = (n(37), dim * kv_heads / heads);
    let mut out = words_swapped(&b[..36]);
    out.push(b[36]);
    out.extend(words_swapped(&b[37..41]));
    out.extend(&b[41..256]);
    let mut at = 256;
    let norms = 4 * (2 * l * dim + dim);
    out.extend(words_swapped(&b[at..at + norms]));
    at += norms;
    let mut sizes = vec![vocab * dim];
    for (count, size) in [(l, dim * dim), (2 * l, dim * kv), (l, dim * dim), (3 * l, dim * hidden)] {
        sizes.extend(vec![size; count]);
    }
    if b[36] == 0 {
        sizes.push(vocab * dim);
    }
    for size in sizes {
        out.extend(&b[at..at + size]);
        at += size;
        out.extend(words_swapped(&b[at..at + size / group * 4]));
        at += size / group * 4;
    }
    assert_eq!(at, b.len());
    out
}

fn swapped_tokenizer(b: &[u8]) -> Vec<u8> {
    let mut out = words_swapped(&b[..4]);
    let mut at = 4;
    while at < b.len() {
        let len = u32::from_le_bytes(b[at + 4..at + 8].try_into().unwrap()) as usize;
        out.extend(words_swapped(&b[at..at + 8]));
        out.extend(&b[at + 8..at + 8 + len]);
        at += 8 + len;
    }
    out
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn version_0() {
    for name in ["stories260K/stories260K.bin", "llama2xs/llama2xs.bin"] {
        let bytes = file(name);
        let input = Input::whole(name, &bytes);
        assert_eq!(container::sniff(&input), Ok(Format::Llama2c { version: 0 }));
        let model = container::read(&input).unwrap();
        assert_eq!((model.order, model.tensors.len()), (ByteOrder::Little, 47));
        let options = |order| Options::new(0, order);
        let plan = layout(name, &model.metadata, &model.tensors, options(ByteOrder::Little)).unwrap();
        let made = materialise(&plan, &bytes, &model, ByteOrder::Little);
        assert_eq!(made.len(), bytes.len());
        let (at, tables) = plan.files[0].fixed.last().unwrap();
        let tables = *at as usize..*at as usize + tables.len();
        assert!(made[..tables.start] == bytes[..tables.start] && made[tables.end..] == bytes[tables.end..]);
        let float = |w: &[u8]| f32::from_le_bytes(w.try_into().unwrap());
        let mut worst = 0f32;
        for (a, b) in made[tables.clone()].chunks_exact(4).zip(bytes[tables.clone()].chunks_exact(4)) {
            worst = worst.max((float(a) - float(b)).abs());
        }
        println!("{name}: the tables differ by at most {worst:e}");
        assert!(worst <= 1e-6, "{worst}");

        let plan = layout(name, &model.metadata, &model.tensors, options(ByteOrder::Big)).unwrap();
        let big = materialise(&plan, &bytes, &model, ByteOrder::Big);
        assert!(big == words_swapped(&made));
        let again = container::read(&Input::whole(name, &big)).unwrap();
        assert_eq!((again.order, &again.tensors), (ByteOrder::Big, &model.tensors));

        let cut = Input::whole(name, &bytes[..1_000_000]);
        assert!(near_miss(&cut).unwrap().contains("the file has 1000000 (truncated download?)"));
    }
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn version_2() {
    let name = "stories260K/stories260K-q8.bin";
    let bytes = file(name);
    let model = container::read(&Input::whole(name, &bytes)).unwrap();
    assert_eq!(model.format, Format::Llama2c { version: 2 });
    assert!(model.tensors.iter().filter(|t| t.shape.len() == 2).all(|t| t.encoding.name() == "int8/8"));
    for (order, expected) in [(ByteOrder::Little, bytes.clone()), (ByteOrder::Big, swapped_v2(&bytes))] {
        let options = Options::new(2, order);
        let plan = layout(name, &model.metadata, &model.tensors, options).unwrap();
        assert!(materialise(&plan, &bytes, &model, order) == expected);
    }
    let source = file("stories260K/stories260K.bin");
    // The codes and scales are those of llama2.c's export, to the last bit.
    let floats = read_whole(&source).unwrap();
    for (q, f) in model.tensors.iter().zip(&floats.tensors).filter(|(q, _)| q.shape.len() == 2) {
        let weights: Vec<f32> = data(&source, f, false)
            .chunks_exact(4)
            .map(|w| f32::from_le_bytes(w.try_into().unwrap()))
            .collect();
        let (mut codes, mut scales) = (vec![0; weights.len()], Vec::new());
        for (w, c) in weights.chunks(8).zip(codes.chunks_mut(8)) {
            scales.extend(quantize_group(w, c).to_le_bytes());
        }
        let mine: Vec<u8> = codes.iter().map(|&c| c as u8).chain(scales).collect();
        assert!(mine == data(&bytes, q, false), "{}", q.name);
    }
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn the_same_model_as_a_gguf() {
    let files = ["stories260K.bin", "stories260K-f32-v3.gguf", "tok512.bin"];
    let [bin, other, tok] = files.map(|f| file(&format!("stories260K/{f}")));
    let mut model = read_whole(&bin).unwrap();
    tokenizer::attach(&mut model, &tokenizer::read(&Input::whole("", &tok)).unwrap()).unwrap();
    let gguf = gguf::read(&Input::whole("", &other)).unwrap();
    for (key, value) in model.metadata.iter() {
        assert_eq!(gguf.metadata.get(key), Some(value), "{key}");
    }
    assert_eq!(model.tensors.len(), gguf.tensors.len());
    for (a, b) in model.tensors.iter().zip(&gguf.tensors) {
        assert_eq!((&a.name, &a.shape), (&b.name, &b.shape));
        assert!(data(&bin, a, false) == data(&other, b, false), "{}", a.name);
    }
    // And back: the GGUF as a checkpoint.
    let options = Options::new(0, ByteOrder::Little);
    let plan = layout("", &gguf.metadata, &gguf.tensors, options).unwrap();
    let made = materialise(&plan, &other, &gguf, ByteOrder::Little);
    assert!(made[..tables_of(&plan).start] == bin[..tables_of(&plan).start]);
    assert_eq!(tokenizer::write("", &gguf.metadata, ByteOrder::Little).unwrap(), tok);
    assert_eq!(group_size(&gguf.metadata, &gguf.tensors, 64), Ok(4));
}

fn tables_of(plan: &Layout) -> std::ops::Range<usize> {
    let (at, bytes) = plan.files[0].fixed.last().unwrap();
    *at as usize..*at as usize + bytes.len()
}

#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn vocabularies() {
    for name in ["stories260K/tok512.bin", "tokenizers/tokenizer.bin"] {
        let bytes = file(name);
        let input = Input::whole(name, &bytes);
        assert_eq!(container::sniff(&input), Ok(Format::Llama2cTokenizer));
        let prefix = Input { bytes: &bytes[..4096], ..input };
        assert_eq!(container::sniff(&prefix).unwrap_err().fault, Fault::More(input.len));
        let model = container::read(&input).unwrap();
        assert!(tokenizer::write("", &model.metadata, ByteOrder::Little).unwrap() == bytes);
        let big = tokenizer::write("", &model.metadata, ByteOrder::Big).unwrap();
        assert!(big == swapped_tokenizer(&bytes));
        let again = container::read(&Input::whole(name, &big)).unwrap();
        assert_eq!((again.order, &again.metadata), (ByteOrder::Big, &model.metadata));
    }
    let oldest = file("tokenizers/tokenizer.v0-304713.bin");
    let e = container::sniff(&Input::whole("", &oldest)).unwrap_err();
    assert!(e.to_string().contains("without scores"), "{e}");
    let [old, new] = ["tokenizer.v1-432717.bin", "tokenizer.bin"].map(|f| file(&format!("tokenizers/{f}")));
    let model = container::read(&Input::whole("", &old)).unwrap();
    assert!(tokenizer::write("", &model.metadata, ByteOrder::Little).unwrap() == new);
}
