//! The three files of the Commodore 64.

use super::*;

/// A small model with a vocabulary of 261 tokens.
fn model(c: Config) -> Model {
    let c = Config { vocab: 261, ..c };
    let mut model = read(&Input::whole("x", &checkpoint(c, 0, 0, ByteOrder::Little))).unwrap();
    let mut names: Vec<Vec<u8>> = vec![b"<unk>".to_vec(), b"<s>".to_vec(), b"</s>".to_vec()];
    names.extend((0..=255).map(|b| format!("<0x{b:02X}>").into_bytes()));
    names.extend([b"b\xe2\x96\x81a".to_vec(), "\u{2581}".into()]);
    let scores: Vec<u8> = (0..261).flat_map(|i| (-(i as f32)).to_le_bytes()).collect();
    let m = &mut model.metadata;
    m.set("tokenizer.ggml.model", Value::text("llama"));
    m.set("tokenizer.ggml.tokens", Value::Array(Array::of_strings(&names)));
    m.set("tokenizer.ggml.scores", Value::Array(Array::from_encoded(Kind::F32, 261, scores)));
    model
}

#[test]
fn the_image_is_version_0_without_its_header() {
    let c = Config { vocab: 261, ..SMALL };
    let source = checkpoint(c, 0, 0, ByteOrder::Little);
    let model = model(SMALL);
    let found = expansion("x", &model.metadata, &model.tensors).unwrap();
    assert_eq!(found.layout.files[0].len, 2 << 20);
    let image = materialise(&found.layout, &source, &model, ByteOrder::Little);
    // The tables are computed again.
    // The KV cache of a long context is after the weights.
    let long = self::model(Config { seq: 32_000, ..SMALL });
    let found_long = expansion("x", &long.metadata, &long.tensors).unwrap();
    assert_eq!(found_long.layout.files[0].len, 8 << 20);
    let tables = tables(c);
    assert_eq!(&image[..4], b"L264");
    assert_eq!(image[4..tables.start - 24], source[28..tables.start]);
    assert_eq!(image[tables.start - 24..][..4], 1f32.to_le_bytes(), "the cosine of 0");
    assert!(image[tables.end - 24..].iter().all(|b| *b == 0));
    let numbers: Vec<i16> = found.config.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b)).collect();
    assert_eq!(numbers, [16, 24, 3, 4, 2, 261, 5, 1]);
}

#[test]
fn the_vocabulary_is_sorted_by_bytes() {
    let model = model(SMALL);
    let bytes = expansion("x", &model.metadata, &model.tensors).unwrap().tokenizer;
    assert_eq!(bytes[..2], 261u16.to_le_bytes());
    assert_eq!(bytes[2 + 4 * 7..][..4], (-7f32).to_le_bytes());
    let lengths = &bytes[2 + 4 * 261..][..261];
    assert_eq!((lengths[0], lengths[1], lengths[3], lengths[259]), (6, 6, 7, 4));
    let ids: Vec<u16> =
        bytes[2 + 5 * 261..][..522].as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
    let mut texts = bytes[2 + 7 * 261..].split(|b| *b == 0).map(<[u8]>::to_vec).collect::<Vec<_>>();
    assert_eq!(texts.pop(), Some(Vec::new()), "the last one ends too");
    assert_eq!((texts.len(), &texts[1][..], &texts[259][..]), (261, &b"\n<s>\n"[..], &b"b a"[..]));
    assert!(ids.windows(2).all(|w| texts[usize::from(w[0])] <= texts[usize::from(w[1])]));
    let mut all = ids;
    all.sort_unstable();
    assert!(all.into_iter().eq(0..261));
}

#[test]
fn models_that_would_not_run_are_refused() {
    let why = |c| {
        let model = model(c);
        expansion("x", &model.metadata, &model.tensors).map(|_| ()).unwrap_err().to_string()
    };
    assert!(why(Config { shared: false, ..SMALL }).contains("only models with tied embeddings"));
    assert!(why(Config { seq: 32_768, ..SMALL }).contains("seq_len is 32768, expected at most 32767"));
    let wide = Config { dim: 256, head: 64, seq: 8000, ..SMALL };
    assert!(why(wide).contains("more than the 16 MiB"));
}
