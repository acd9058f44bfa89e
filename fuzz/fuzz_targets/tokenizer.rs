//! What the tokenizer.bin reader takes, the writer writes, and the reader takes again: equal.
#![no_main]
use formats::container::llama2c::tokenizer;
use formats::model::Input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let input = Input::whole("fuzz", bytes);
    let _ = tokenizer::looks_like(&input);
    let Ok(model) = tokenizer::read(&input) else { return };
    let Ok(again) = tokenizer::write("again", &model.metadata, model.order) else { return };
    let back = tokenizer::read(&Input::whole("again", &again)).expect("we wrote it");
    assert_eq!(back.metadata, model.metadata);
});
