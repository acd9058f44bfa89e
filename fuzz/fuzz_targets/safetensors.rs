//! What the safetensors reader takes, the writer writes, and the reader takes again: the same tensors.
#![no_main]
use formats::container::{gguf::Split, safetensors};
use formats::model::Input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = safetensors::read_index("fuzz", bytes);
    let Ok(model) = safetensors::read(&Input::whole("fuzz", bytes)) else { return };
    let options = safetensors::Options { split: Split::None };
    let Ok(layout) = safetensors::layout("again", &model.metadata, &model.tensors, options, &|_, _| "again".into()) else { return };
    let file = &layout.files[0];
    let again = safetensors::read(&Input { name: "again", bytes: &file.fixed[0].1, len: file.len }).expect("we wrote it");
    assert_eq!(again.tensors.len(), model.tensors.len());
    for t in &layout.tensors {
        assert!(again.tensors.contains(t));
    }
});
