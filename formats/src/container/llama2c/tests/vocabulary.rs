//! tokenizer.bin, made by hand.

use super::*;
use tokenizer::{attach, looks_like, write};

/// The tokens that llama2.c requires, and a few more.
fn entries() -> Vec<(f32, Vec<u8>)> {
    let special = ["<unk>", "\n<s>\n", "\n</s>\n"].map(|t| t.as_bytes().to_vec());
    let bytes = (0..=255u8).map(|b| format!("<0x{b:02X}>").into_bytes());
    let words = [" ", "  a", "é", "-", "a"].map(|t| t.as_bytes().to_vec());
    special.into_iter().chain(bytes).chain(words).enumerate().map(|(i, t)| (-(i as f32), t)).collect()
}

fn file(entries: &[(f32, Vec<u8>)], order: ByteOrder) -> Vec<u8> {
    let longest = entries.iter().map(|(_, t)| t.len()).max().unwrap() as u32;
    let mut out = order.le(longest.to_le_bytes()).to_vec();
    for (score, text) in entries {
        out.extend(order.le(score.to_le_bytes()));
        out.extend(order.le((text.len() as u32).to_le_bytes()));
        out.extend(text);
    }
    out
}

fn read_file(bytes: &[u8]) -> Result<Model> {
    tokenizer::read(&Input::whole("tokenizer.bin", bytes))
}

fn types(m: &Model) -> Vec<i128> {
    let types = m.metadata.get("tokenizer.ggml.token_type").unwrap().as_array().unwrap();
    types.values().map(|v| v.as_i128().unwrap()).collect()
}

fn tokens(m: &Model) -> Vec<String> {
    let tokens = m.metadata.get("tokenizer.ggml.tokens").unwrap().as_array().unwrap();
    tokens.strings().map(|s| String::from_utf8(s.to_vec()).unwrap()).collect()
}

#[test]
fn both_orders_are_read_and_written_back() {
    for order in ORDERS {
        let bytes = file(&entries(), order);
        assert_eq!(looks_like(&Input::whole("", &bytes)), Ok(true));
        let m = read_file(&bytes).unwrap();
        assert_eq!((m.format, m.order), (Format::Llama2cTokenizer, order));
        let text = tokens(&m);
        assert_eq!(text[..4], ["<unk>", "<s>", "</s>", "<0x00>"]);
        assert_eq!(text[258..], ["<0xFF>", "\u{2581}", "\u{2581}\u{2581}a", "é", "-", "a"]);
        assert_eq!(types(&m)[..4], [2, 3, 3, 6]);
        assert_eq!(types(&m)[258..], [6, 1, 1, 1, 1, 1]);
        for (key, id) in [("bos", 1), ("eos", 2), ("unknown", 0)] {
            assert_eq!(m.metadata.get(&format!("tokenizer.ggml.{key}_token_id")), Some(&Value::U32(id)));
        }
        for to in ORDERS {
            assert_eq!(write("", &m.metadata, to).unwrap(), file(&entries(), to));
        }
    }
}

#[test]
fn bytes_as_characters_become_byte_tokens() {
    let mut raw = entries();
    let mut characters = entries();
    for b in 0..=255u8 {
        raw[3 + usize::from(b)].1 = vec![b];
        characters[3 + usize::from(b)].1 = char::from(b).to_string().into_bytes();
    }
    let expected = read_file(&file(&entries(), ByteOrder::Little)).unwrap();
    for old in [raw, characters] {
        assert_eq!(read_file(&file(&old, ByteOrder::Little)).unwrap(), expected);
        // If one is not a byte token, all are taken as they are.
        let mut odd = old;
        odd[40].1 = b"word".to_vec();
        let m = read_file(&file(&odd, ByteOrder::Little)).unwrap();
        assert_eq!(types(&m)[3], 1);
    }
}

#[test]
fn files_that_run_c_fails_on() {
    let mut e = entries();
    e[260].1.clear();
    let bytes = file(&e, ByteOrder::Little);
    assert_eq!(looks_like(&Input::whole("", &bytes)), Ok(true));
    let error = read_file(&bytes).unwrap_err();
    assert!(error.to_string().contains("token 260 is empty") && error.at.is_some(), "{error}");

    let mut bytes = file(&entries(), ByteOrder::Big);
    let last = bytes.len() - 5;
    bytes[last..last + 4].copy_from_slice(&9u32.to_be_bytes());
    let error = read_file(&bytes).unwrap_err();
    assert!(matches!(error.fault, Fault::TooMany { found: 9, most: 6, .. }), "{error}");
    bytes[last..last + 4].copy_from_slice(&2u32.to_be_bytes());
    let error = read_file(&bytes).unwrap_err();
    assert!(matches!(error.fault, Fault::Ends { .. }), "{error}");
    assert_eq!(looks_like(&Input::whole("", &bytes)), Ok(false));
}

#[test]
fn the_oldest_kind_is_refused_by_name() {
    for order in ORDERS {
        let mut bytes = Vec::new();
        for (_, text) in entries() {
            bytes.extend(order.le((text.len() as u32).to_le_bytes()));
            bytes.extend(text);
        }
        let input = Input::whole("", &bytes);
        assert!(looks_like(&input).unwrap_err().to_string().contains("without scores"));
        assert!(tokenizer::read(&input).unwrap_err().to_string().contains("without scores"));
    }
}

#[test]
fn prefixes_cuts_and_flips() {
    for order in ORDERS {
        let bytes = file(&entries(), order);
        let len = bytes.len() as u64;
        for end in 64..bytes.len() {
            let prefix = Input { name: "", bytes: &bytes[..end], len };
            for fault in [looks_like(&prefix).unwrap_err().fault, tokenizer::read(&prefix).unwrap_err().fault]
            {
                assert_eq!(fault, Fault::More(len));
            }
            assert_eq!(looks_like(&Input { len: 65 << 20, ..prefix }), Ok(false));
        }
        for end in 0..bytes.len() {
            // A cut between two tokens cannot be detected.
            let input = Input::whole("", &bytes[..end]);
            let _ = (looks_like(&input), tokenizer::read(&input));
        }
        for bit in 0..8 * 90 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let input = Input::whole("", &bytes);
            let _ = (looks_like(&input), sniff(&input));
            if let Ok(m) = tokenizer::read(&input) {
                let _ = write("", &m.metadata, order);
            }
        }
    }
    for zeros in [vec![0; 100], [&[1, 0, 0, 0][..], &[0; 96]].concat()] {
        assert_eq!(looks_like(&Input::whole("", &zeros)), Ok(false));
    }
}

#[test]
fn vocabularies_that_llama2c_cannot_use() {
    let good = read_file(&file(&entries(), ByteOrder::Little)).unwrap();
    let refuse = |change: &dyn Fn(&mut Metadata, &mut Vec<Vec<u8>>)| {
        let mut metadata = good.metadata.clone();
        let mut text: Vec<_> = tokens(&good).into_iter().map(String::into_bytes).collect();
        change(&mut metadata, &mut text);
        metadata.set("tokenizer.ggml.tokens", Value::Array(Array::of_strings(&text)));
        write("out.bin", &metadata, ByteOrder::Big).unwrap_err().to_string()
    };
    let model = "tokenizer.ggml.model";
    assert!(refuse(&|m, _| m.set(model, Value::text("gpt2"))).contains("byte-level BPE"));
    assert!(refuse(&|m, _| m.set(model, Value::text("bert"))).contains("\"bert\""));
    assert!(refuse(&|m, _| drop(m.remove(model))).contains("no tokenizer"));
    assert!(refuse(&|m, _| drop(m.remove("tokenizer.ggml.scores"))).contains("is missing"));
    assert!(refuse(&|m, _| m.set("tokenizer.ggml.bos_token_id", Value::U32(2))).contains("1 built in"));
    assert!(refuse(&|m, _| m.set("tokenizer.ggml.eos_token_id", Value::U32(7))).contains("2 built in"));
    assert!(refuse(&|_, t| drop(t.pop())).contains("263 values for 264 scores"));
    assert!(refuse(&|_, t| t[260].clear()).contains("token 260 is empty"));
    assert!(refuse(&|_, t| t[2].clear()).contains("token 2 is empty"));
    assert!(refuse(&|_, t| t[260][0] = 0).contains("zero byte"));
    assert!(refuse(&|_, t| t[260] = vec![b'a'; 70000]).contains("70000 bytes"));
    assert!(refuse(&|_, t| t[259] = b"b".to_vec()).contains("single space"));
    assert!(refuse(&|_, t| t.swap(3, 4)).contains("looks for bytes"));
}

#[test]
fn begin_and_end_may_have_other_names() {
    let mut m = read_file(&file(&entries(), ByteOrder::Little)).unwrap();
    let mut text = tokens(&m);
    text[1] = "<|begin|>".into();
    m.metadata.set("tokenizer.ggml.tokens", Value::Array(Array::of_strings(&text)));
    m.metadata.remove("tokenizer.ggml.bos_token_id");
    let written = write("", &m.metadata, ByteOrder::Little).unwrap();
    assert_eq!(tokens(&read_file(&written).unwrap()), text);
}

#[test]
fn a_tokenizer_must_match_the_vocabulary() {
    let t = read_file(&file(&entries(), ByteOrder::Little)).unwrap();
    let mut m = read_whole(&checkpoint(SMALL, 1, 0, ByteOrder::Little)).unwrap();
    let keys = m.metadata.len();
    assert!(
        attach(&mut m, &t)
            .unwrap_err()
            .to_string()
            .contains("264 tokens but the model has a vocabulary of 10")
    );
    m.metadata.set("llama.vocab_size", Value::U32(264));
    attach(&mut m, &t).unwrap();
    assert_eq!(m.metadata.len(), keys + 7);
    assert_eq!(write("", &m.metadata, ByteOrder::Big).unwrap(), file(&entries(), ByteOrder::Big));
}
