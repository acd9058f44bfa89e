//! What the llama2.c reader takes, the writer writes, and the reader takes again: equal.
#![no_main]
use formats::container::llama2c;
use formats::model::{Format, Input};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Checkpoints are mostly weights: the length is taken from the first bytes, so that small inputs get through.
    let Some((len, bytes)) = bytes.split_first_chunk::<5>() else { return };
    let len = len.iter().fold(0u64, |n, &b| n << 8 | u64::from(b)).max(bytes.len() as u64);
    let input = Input { name: "fuzz", bytes, len };
    let _ = llama2c::near_miss(&input);
    let _ = llama2c::sniff(&input);
    let Ok(model) = llama2c::read(&input) else { return };
    let Format::Llama2c { version } = model.format else { panic!("{:?}", model.format) };
    let _ = llama2c::group_size(&model.metadata, &model.tensors, 64);
    // The tables of version 0 take time and space to make.
    let tables = model.metadata.get("llama.context_length").and_then(|v| v.as_u64()).unwrap_or(0);
    if version == 0 && tables > 10_000 || model.tensors.len() > 10_000 {
        return;
    }
    let options = llama2c::Options::new(version, model.order);
    let Ok(layout) = llama2c::layout("again", &model.metadata, &model.tensors, options) else { return };
    assert_eq!(layout.files[0].len, len);
    assert_eq!(layout.tensors, model.tensors);
});
