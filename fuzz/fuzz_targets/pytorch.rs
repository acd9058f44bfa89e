//! The reader of PyTorch's files gives an error, or tensors that are within the file.
#![no_main]
use formats::container;
use formats::model::Input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = container::read(&Input::whole("fuzz", bytes)) else { return };
    for t in model.tensors {
        assert_eq!(t.encoding.bytes(t.elements()), Some(t.location.len));
        assert!(t.location.offset + t.location.len <= bytes.len() as u64);
    }
});
