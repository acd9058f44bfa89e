//! What the GGUF reader takes, the writer writes, and the reader takes again: equal.
#![no_main]
use formats::container::gguf;
use formats::model::{Format, Input};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = gguf::read(&Input::whole("fuzz", bytes)) else { return };
    let options = gguf::Options { order: model.order, split: gguf::Split::None };
    // A reader takes keys that a writer would not write (too long); nothing else.
    let Ok(layout) = gguf::layout("again", &model.metadata, &model.tensors, options) else { return };
    let file = &layout.files[0];
    let again = gguf::read(&Input { name: "again", bytes: &file.fixed[0].1, len: file.len }).expect("we wrote it");
    assert_eq!(again.metadata.iter().count(), model.metadata.iter().count());
    assert_eq!(again.tensors, layout.tensors);
    if model.format == (Format::Gguf { version: 3 }) && model.notes.is_empty() {
        let header = &file.fixed[0].1;
        assert_eq!(header[..], bytes[..header.len()]);
    }
});
